//! A card's life without a shell: not configured, configured wrongly, rightly, kept, and reset.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::card::Card;
use crate::card_in_qemu::ready;
use crate::guest::{Guest, Options, value};
use crate::player;

/// Starts a card with what it has itself; returns the device's number, too.
fn start(card: &Card, users: &str) -> (Guest, String) {
    let mut guest = Guest::boot(&Options { own_config: true, ..card.options("card-virt") });
    let configuration = guest.first_line("firmware: configuration name=");
    assert_eq!(value(&configuration, "users"), users, "{configuration}");
    let uuid = value(&guest.first_line("firmware: device uuid="), "uuid").to_owned();
    (guest, uuid)
}

/// The guest's URL with a login.
fn with_login(guest: &Guest, login: &str) -> String {
    guest.url().replacen("rtsp://", &format!("rtsp://{login}@"), 1)
}

/// Asks as a player does, which answers the challenge: Digest, with this login.
fn is_refused(url: &str) -> bool {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-rtsp_transport", "tcp", "-timeout", "30000000"])
        .args(["-i", url, "-frames:v", "1", "-f", "null", "-"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    !output.status.success() && said.contains("401 Unauthorized")
}

/// The status of a request that carries this header.
fn status(guest: &Guest, method: &str, header: &str) -> String {
    let address = guest.url().split('/').nth(2).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let request = format!("{method} {} RTSP/1.0\r\nCSeq: 1\r\n{header}\r\n", guest.url());
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).unwrap();
    String::from_utf8_lossy(&reply).into_owned()
}

/// Nobody gets in, by whatever name, and no method is forgotten.
fn assert_closed(guest: &Guest) {
    let admin = "Authorization: Basic YWRtaW46YWRtaW4=\r\n";
    let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
    for (method, header) in
        [("DESCRIBE", ""), ("DESCRIBE", admin), ("SETUP", transport), ("PLAY", "Session: 1\r\n")]
    {
        assert_eq!(status(guest, method, header), "RTSP/1.0 401", "{method} {header}");
    }
    for login in ["admin:admin", "admin:", "ocellus:ocellus", "root:root"] {
        assert!(is_refused(&with_login(guest, login)), "{login}");
    }
}

fn is_on(card: &Card, password: &str) -> bool {
    card.boot_partition().windows(password.len()).any(|window| window == password.as_bytes())
}

#[test]
fn without_a_configuration_it_is_on_the_network_and_lets_nobody_in() {
    if !ready() {
        return;
    }
    let card = Card::new("fresh", 128 << 20);
    let (mut guest, _) = start(&card, "0");
    assert_eq!(value(&guest.first_line("lease acquired"), "address"), "10.0.2.15/24");
    assert!(guest.first_line("no password is set").contains("put ocellus.json on the card"));
    assert_closed(&guest);
    assert_eq!(card.get("ocellus-errors.txt"), None);
}

#[test]
fn a_card_is_configured_by_a_file_keeps_that_and_forgets_it_on_request() {
    if !ready() {
        return;
    }
    let card = Card::new("provisioned", 128 << 20);
    let password = format!("Planted-{}-ocellus", std::process::id());
    let config = format!(
        r#"{{ "name": "garden", "users": [ {{ "name": "admin", "role": "admin", "password": "{password}" }} ],
  "streams": [ {{ "name": "main", "width": 320, "height": 240, "fps": 10, "bitrate_kbps": 300 }} ] }}"#
    );
    let login = format!("admin:{password}");

    // A mistake is told in words, beside the file, and costs nothing else.
    // It holds the password too, and the corrected file may lie elsewhere on the card.
    let mistaken = config.replace("fps", "fsp");
    card.put("ocellus.json", mistaken.as_bytes());
    let (guest, uuid) = start(&card, "0");
    assert_closed(&guest);
    drop(guest);
    let said = String::from_utf8(card.get("ocellus-errors.txt").unwrap()).unwrap();
    println!("{said}");
    assert!(said.contains("did not use ocellus.json") && said.contains("fsp"), "{said}");
    assert!(card.get("ocellus.json").is_some());

    card.put("ocellus.json", config.as_bytes());
    card.put("log", b"");
    assert!(is_on(&card, &password), "the search finds it");
    let (mut guest, same) = start(&card, "1");
    assert_eq!(same, uuid);
    let _ = guest.first_line("firmware: configuration taken");
    assert!(is_refused(&with_login(&guest, "admin:wrong")));
    // 15 s: the log is written after 10.
    let played =
        player::play(&with_login(&guest, &login), "tcp", 150, Duration::from_secs(90)).frames;
    assert!(played >= 25, "{played}");
    drop(guest);
    assert!(!is_on(&card, &password));
    assert_eq!(["ocellus.json", "ocellus-errors.txt"].map(|name| card.get(name)), [None, None]);
    let log = String::from_utf8(card.get("ocellus-log.txt").unwrap()).unwrap();
    assert!(log.contains("firmware: configuration taken") && !log.contains(&password), "{log}");

    // It is kept, though the power was cut.
    let (guest, same) = start(&card, "1");
    assert_eq!(same, uuid);
    assert!(is_refused(&with_login(&guest, "admin:wrong")));
    let played = player::play(&with_login(&guest, &login), "tcp", 25, Duration::from_secs(90));
    assert!(played.frames >= 25, "{played:?}");
    drop(guest);

    card.put("reset", b"");
    let (mut guest, other) = start(&card, "0");
    let _ = guest.first_line("firmware: factory reset");
    assert_ne!(other, uuid, "it is a new device");
    assert!(is_refused(&with_login(&guest, &login)));
    drop(guest);
    assert_eq!(card.get("reset"), None);
    let data = std::fs::read(card.path()).unwrap();
    assert!(!data.windows(password.len()).any(|window| window == password.as_bytes()));
}
