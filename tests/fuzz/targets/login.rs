//! Who asks: the Authorization header, and the answers of those who know the password and of those
//! who do not.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use md5::Md5;
use ocellus::auth::{Claim, Credentials, Role, Secret, User, Verdict, nonce};
use ocellus::time::Instant;
use sha2::{Digest, Sha256};

use super::input::Input;

/// Any header: nobody who does not know the password gets in, and only what it says is read of it.
pub(super) fn header(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(credentials) = Credentials::parse(&text) else { return };
    // Unescaping only ever makes it shorter.
    assert!(credentials.nonce().len() + credentials.uri().len() <= text.len());
    let secret = Secret::new([7; 32]);
    let claim = Claim {
        method: "DESCRIBE",
        is_for_this: true,
        peer: PEER,
        used_nonce: Some(credentials.nonce()),
    };
    let verdict = credentials.verify(Instant::ZERO, &claim, ("ocellus", &users("s3cret")), &secret);
    assert_eq!(verdict, Verdict::Wrong);
}

/// An answer to a challenge, made by the book of RFC 7616 and written in any style: it is right as
/// it is, and wrong or stale with any one thing about it changed.
pub(super) fn answer(bytes: &[u8]) {
    let mut input = Input(bytes);
    let style = input.byte();
    let change = input.below(8);
    let uri = printable(input.some());
    let password = printable(input.some());
    let users = users(&password);
    let secret = Secret::new([input.byte(); 32]);
    let asked = Instant::from_micros(input.number::<5>());
    let is_late = change == 1;
    let now = asked + Duration::from_secs(if is_late { 302 } else { 299 });
    let nonce = nonce(asked, PEER, &secret);
    let method = if change == 2 { "PLAY" } else { "DESCRIBE" };
    let known = if change == 3 { password.clone() + "x" } else { password };
    let response = respond(style, (&known, method), &nonce, &uri);
    let response = match change {
        4 => flip(&response, usize::from(style)),
        5 => response[1..].to_owned(),
        _ => response,
    };
    let header = write(style, &nonce, &uri, &response);
    let credentials = Credentials::parse(&header).expect("well-formed");
    assert_eq!((credentials.nonce(), credentials.uri()), (&*nonce, &*uri));
    let peer = if change == 6 { IpAddr::from([192, 0, 2, 8]) } else { PEER };
    let claim = Claim { method: "DESCRIBE", is_for_this: change != 7, peer, used_nonce: None };
    let verdict = credentials.verify(now, &claim, ("ocellus", &users), &secret);
    let expected = match change {
        0 => Verdict::Right(1),
        1 | 6 => Verdict::Stale,
        _ => Verdict::Wrong,
    };
    assert_eq!(verdict, expected, "{header}");
    if expected == Verdict::Stale {
        // A connection may go on with the nonce that it has used.
        let claim = Claim { used_nonce: Some(&nonce), ..claim };
        assert_eq!(
            credentials.verify(now, &claim, ("ocellus", &users), &secret),
            Verdict::Right(1)
        );
    }
}

/// The Authorization header of a player that answers with MD5 and without `qop`.
pub(super) fn authorization(
    (user, password): (&str, &str),
    nonce: &str,
    method: &str,
    uri: &str,
) -> String {
    let hash = |text: String| hex(&Md5::digest(text));
    let (ha1, ha2) = (hash(format!("{user}:ocellus:{password}")), hash(format!("{method}:{uri}")));
    let response = hash(format!("{ha1}:{nonce}:{ha2}"));
    format!(
        "Authorization: Digest username=\"{user}\", realm=\"ocellus\", nonce=\"{nonce}\", \
         uri=\"{uri}\", response=\"{response}\"\r\n"
    )
}

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

fn users(password: &str) -> [User; 2] {
    let user = |name: &str, password: &str, role| User {
        name: name.to_owned(),
        password: password.to_owned(),
        role,
    };
    [user("admin", "another", Role::Admin), user("viewer", password, Role::Viewer)]
}

fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect()
}

fn respond(style: u8, (password, method): (&str, &str), nonce: &str, uri: &str) -> String {
    let hash = |text: String| {
        if style & 1 == 0 { hex(&Md5::digest(text)) } else { hex(&Sha256::digest(text)) }
    };
    let ha1 = hash(format!("viewer:ocellus:{password}"));
    let ha2 = hash(format!("{method}:{uri}"));
    if style & 2 == 0 {
        return hash(format!("{ha1}:{nonce}:{ha2}"));
    }
    hash(format!("{ha1}:{nonce}:00000001:0a4f113b:auth:{ha2}"))
}

/// The header: with and without `qop` and `algorithm`, in several orders, quoted as much as can be
/// or as little.
fn write(style: u8, nonce: &str, uri: &str, response: &str) -> String {
    let quoted = |text: &str| {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if style & 4 == 0 {
            format!("\"{text}\"")
        } else {
            format!("\"{}\"", text.replace('m', "\\m"))
        }
    };
    let plain = |text: &str| if style & 8 == 0 { quoted(text) } else { text.to_owned() };
    let mut parameters = vec![
        format!("username={}", quoted("viewer")),
        format!("realm={}", quoted("ocellus")),
        format!("nonce={}", plain(nonce)),
        format!("uri={}", quoted(uri)),
        format!("response={}", plain(response)),
    ];
    // Without it, the length of the answer says which one it is.
    if style & 16 == 0 || !response.len().is_multiple_of(32) {
        parameters.push(format!("algorithm={}", plain(["MD5", "SHA-256"][usize::from(style & 1)])));
    }
    if style & 2 != 0 {
        parameters.extend(["qop=auth", "nc=00000001", "cnonce=\"0a4f113b\""].map(str::to_owned));
    }
    let len = parameters.len();
    parameters.rotate_left(usize::from(style >> 5) % len);
    format!("Digest {}", parameters.join([", ", ","][usize::from(style >> 7)]))
}

fn flip(hex: &str, at: usize) -> String {
    let at = at % hex.len();
    let other = if &hex[at..=at] == "0" { "1" } else { "0" };
    format!("{}{other}{}", &hex[..at], &hex[at + 1..])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
