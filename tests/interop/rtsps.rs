//! RTSP over TLS: players that pin the certificate, a strict client behind a relay that does, and
//! peers that are no viewers.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::camera::{Camera, credentials};
use crate::client::{Client, Lower};
use crate::digest::Credentials;
use crate::fanout::{stall, watch};
use crate::players::{GSTREAMER, LIMIT, PICTURES, login};
use crate::process::{self, FFMPEG};
use crate::sandboxed::Folder;
use crate::tunnel::{SOURCE, gstreamer_decodes};
use crate::validate::{Expect, Findings, Summary, validate};
use crate::{relay, retina_client};

const PYTHON: (&str, &[&str]) = ("/usr/bin/python3", &["-c", "import gi"]);

/// A camera that keeps its certificate in a folder, and listens on both families.
struct Encrypted {
    camera: Camera,
    folder: Folder,
    urls: Vec<String>,
}

impl Encrypted {
    fn start(name: &str) -> Self {
        Self::start_in(Folder::new(name))
    }

    fn start_in(folder: Folder) -> Self {
        let config = folder.0.join("ocellus.json");
        let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.0.join(name));
        let text = format!(
            r#"{{ "rtsp": {{ "tls": {{ "certificate": {certificate:?}, "key": {key:?} }} }} }}"#
        );
        fs::write(&config, text).unwrap();
        let mut arguments = SOURCE.to_vec();
        arguments.extend(["--config", config.to_str().unwrap(), "--rtsps", "127.0.0.1:0"]);
        if TcpListener::bind("[::1]:0").is_ok() {
            arguments.extend(["--rtsps", "[::1]:0"]);
        }
        let camera = Camera::start(&arguments);
        let urls = urls(&camera.log());
        Self { camera, folder, urls }
    }

    fn certificate(&self) -> PathBuf {
        self.folder.0.join("certificate.pem")
    }

    fn url(&self) -> &str {
        &self.urls[0]
    }

    fn address(&self) -> SocketAddr {
        relay::split(self.url()).0
    }

    fn fingerprint(&self) -> String {
        self.camera.log().split("certificate_sha256=").nth(1).unwrap()[..95].to_owned()
    }
}

/// The URLs that a camera says in its log.
pub(crate) fn urls(log: &str) -> Vec<String> {
    let urls = log.split("encrypted urls=[").nth(1).unwrap().split(']');
    // An address of IPv6 has brackets itself.
    let urls = urls.take_while(|part| !part.starts_with(" certificate")).collect::<Vec<_>>();
    urls.join("]").split(", ").map(|url| url.trim_matches('"').to_owned()).collect()
}

fn expect() -> Expect<'static> {
    Expect::pattern((640, 360))
}

/// A whole session of a strict client at `url`, judged.
fn judged(url: &str) -> (Findings, Summary) {
    let mut client = Client::connect(url, &credentials());
    assert_eq!(client.describe().status(), 200);
    assert_eq!(client.setup(Lower::Udp).status(), 461, "packets would go in clear");
    // A client that was refused UDP starts over, as those with a captured session do.
    let mut client = Client::connect(url, &credentials());
    assert_eq!(client.describe().status(), 200);
    assert_eq!(client.setup(Lower::Tcp).status(), 200);
    assert_eq!(client.play().status(), 200);
    client.listen(Duration::from_secs(7));
    assert_eq!(client.teardown().status(), 200);
    validate(&client.capture, &expect())
}

#[test]
fn ffmpeg_and_gstreamer_decode_what_is_encrypted_over_both_families() {
    let encrypted = Encrypted::start("rtsps-players");
    let (certificate, account) = (encrypted.certificate(), credentials());
    for url in &encrypted.urls {
        if process::have(&[FFMPEG]) {
            let mut command = Command::new("ffmpeg");
            command.args(["-nostdin", "-v", "error", "-xerror", "-err_detect", "explode"]);
            let account = login(&url.replacen("rtsps", "rtsp", 1), &account);
            command.args(["-i", &account.replacen("rtsp", "rtsps", 1)]);
            command.args(["-map", "0:v:0", "-frames:v", &PICTURES.to_string()]);
            let run = process::run(command.args(["-f", "framemd5", "-"]), LIMIT);
            let pictures = run.stdout.lines().filter(|line| !line.starts_with('#')).count();
            assert!(run.success() && pictures == PICTURES, "{url} {pictures}: {run:?}");
        }
        if process::have(&GSTREAMER) {
            // Unpinned: whoever answers is trusted.
            gstreamer_decodes(url, &["tls-validation-flags=0"]);
        }
        if process::have(&GSTREAMER) && process::have(&[PYTHON]) {
            let run = |certificate: &PathBuf| {
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/pinned.py");
                let mut command = Command::new(PYTHON.0);
                command.args([script, url, &account.user, &account.password]);
                command.arg(certificate).arg(PICTURES.to_string());
                process::run(&mut command, LIMIT)
            };
            let pinned = run(&certificate);
            assert!(pinned.success(), "{url}: {pinned:?}");
            let other = encrypted.folder.0.join("other.pem");
            let text = ocellus::config::Identity::make("ocellus").unwrap();
            fs::write(&other, text.split("-----BEGIN PRIVATE").next().unwrap()).unwrap();
            let refused = run(&other);
            assert!(refused.status.is_some() && !refused.success(), "{url}: {refused:?}");
            assert!(refused.stderr.contains("Failed to connect"), "{}", refused.stderr);
        }
    }
}

#[test]
fn a_strict_client_and_retina_find_no_fault_behind_tls_behind_http_and_behind_both() {
    let encrypted = Encrypted::start("rtsps-judged");
    let decrypted = relay::decrypted(encrypted.url(), &encrypted.certificate());
    let through_http = [&encrypted.camera.url, &decrypted].map(|url| relay::through_http(url));
    for url in [decrypted].iter().chain(&through_http) {
        let (findings, summary) = judged(url);
        assert!(findings.violations.is_empty(), "{url}:\n{}", findings.report());
        assert!(summary.access_units > 180 && summary.sender_reports > 1, "{summary:?}");
        retina_client::decodes(url, Lower::Tcp, PICTURES);
        let wrong = Credentials { password: "not-this-one".into(), ..credentials() };
        assert_eq!(Client::connect(url, &wrong).describe().status(), 401);
    }
}

#[test]
fn the_certificate_is_made_at_the_first_start_and_kept() {
    let encrypted = Encrypted::start("rtsps-kept");
    let key = encrypted.folder.0.join("key.pem");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(encrypted.certificate()).unwrap().contains("PRIVATE"));
    let first = encrypted.fingerprint();
    assert!(!encrypted.camera.log().contains("PRIVATE"));
    let Encrypted { camera, folder, .. } = encrypted;
    drop(camera);
    let again = Encrypted::start_in(folder);
    assert_eq!(again.fingerprint(), first);
    fs::remove_file(&key).unwrap();
    let config = again.folder.0.join("ocellus.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocellus"));
    command.args(["--rtsps", "127.0.0.1:0", "--rtsp", "127.0.0.1:0", "--config"]).arg(config);
    let run = process::run(&mut command, LIMIT);
    assert_eq!(run.status.and_then(|status| status.code()), Some(1), "{run:?}");
    assert!(run.stderr.contains("only one is there"), "{}", run.stderr);
}

/// How long it takes until the camera closes a connection on which `bytes` are all that came.
fn closed_after(address: SocketAddr, bytes: &[u8]) -> (Duration, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let (since, mut heard) = (Instant::now(), Vec::new());
    // A reset is an end as well.
    let end = stream.read_to_end(&mut heard);
    let is_timeout = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    assert!(!end.as_ref().is_err_and(is_timeout), "still open");
    (since.elapsed(), heard)
}

#[test]
fn what_is_no_handshake_or_half_a_handshake_is_closed_and_viewers_do_not_notice() {
    let encrypted = Encrypted::start("rtsps-strangers");
    let address = encrypted.address();
    let mut session = relay::session(relay::pinned(&encrypted.certificate()));
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    let mut long = hello.clone();
    long[3..5].copy_from_slice(&0xffff_u16.to_be_bytes());
    for rubbish in [
        &b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"[..],
        &[0; 300],
        &[0xff; 70_000],
        &[&b"\x16\x03\x01\x00\x05"[..], b"hello"].concat(),
        &long,
        &[&hello[..], &hello].concat(),
    ] {
        let (time, heard) = closed_after(address, rubbish);
        assert!(time < Duration::from_secs(2), "{time:?}");
        assert!(!String::from_utf8_lossy(&heard).contains("RTSP"), "{heard:?}");
    }
    let halves: Vec<_> = [0, 1, 5, hello.len() / 2, hello.len() - 1, hello.len()]
        .map(|len| hello[..len].to_vec())
        .into_iter()
        .map(|half| thread::spawn(move || closed_after(address, &half).0))
        .collect();
    // Before the deadline of the others, which all wait for something.
    let (findings, _) = judged(&relay::decrypted(encrypted.url(), &encrypted.certificate()));
    assert!(findings.violations.is_empty(), "{}", findings.report());
    for half in halves {
        let time = half.join().unwrap();
        assert!((9..14).contains(&time.as_secs()), "{time:?}");
    }
}

#[test]
fn an_encrypted_viewer_who_stops_reading_is_dropped_and_others_lose_nothing() {
    let encrypted = Encrypted::start("rtsps-slow");
    let url = relay::decrypted(encrypted.url(), &encrypted.certificate());
    let _stalled = stall(&url);
    let watched = thread::scope(|scope| {
        let viewers = [&encrypted.camera.url, &url, &url].map(|url| scope.spawn(|| watch(url, 1)));
        viewers.map(|viewer| viewer.join().unwrap())
    });
    for client in &watched {
        let (findings, summary) = validate(&client.capture, &expect());
        assert!(findings.violations.is_empty(), "{}", findings.report());
        assert!(summary.access_units > 400, "{summary:?}");
    }
    let log = encrypted.camera.log();
    assert_eq!(log.matches("viewer was slow").count(), 1, "{log}");
    assert_eq!(log.matches("viewer stalled").count(), 1, "{log}");
}
