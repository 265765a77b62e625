//! Requests that break other cameras: what each is answered, and whether the connection lives on.

use super::ground::Ground;
use super::peer::{Cut, Stranger};

/// What becomes of an input on a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// This status, and the connection stays.
    Status(u16),
    /// This status, and the connection ends.
    Last(u16),
    /// Nothing, and the connection stays.
    Nothing,
    /// The connection ends without a word.
    End,
}

/// One hostile input.
#[derive(Debug)]
pub(super) struct Input {
    /// Of HOSTILE, section 1.
    pub(super) row: u8,
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) answer: Answer,
}

use Answer::{End, Last, Nothing, Status};

/// Sends every input, each on a connection of its own, and checks its answer; counts them.
pub(super) fn send_all(ground: &Ground, round: u32) -> usize {
    let who = ground.stranger();
    let inputs = inputs(&who);
    for (input, seed) in inputs.iter().zip(round..) {
        // Every round sends everything in another cut; byte by byte only what is soon sent.
        let cut = match seed % 3 {
            0 => Cut::Whole,
            1 if input.bytes.len() < 400 => Cut::Bytes,
            _ => Cut::Pieces(seed),
        };
        send(&who, input, cut);
    }
    inputs.len()
}

fn send(who: &Stranger, input: &Input, cut: Cut) {
    let Input { row, name, bytes, answer } = input;
    let what = format!("row {row}, {name}, {cut:?}");
    let mut peer = who.connect();
    let is_sent = peer.send(bytes, cut);
    match *answer {
        Status(status) => {
            let reply = peer.reply().unwrap_or_else(|| panic!("{what}: hung up"));
            assert_eq!(reply.status(), status, "{what}: {reply:?}");
            assert!(peer.is_listened_to(), "{what}: one answer, and the next request is read");
        }
        Last(status) => match peer.reply() {
            Some(reply) => {
                assert_eq!(reply.status(), status, "{what}: {reply:?}");
                assert!(peer.reply().is_none(), "{what}: more than one answer");
            }
            // What is not read any more resets the connection, and the answer may go with it.
            None => assert!(!is_sent || bytes.len() > READ_AT_ONCE, "{what}: no answer"),
        },
        Nothing => assert!(peer.is_listened_to(), "{what}: the next request is read"),
        End => assert!(peer.reply().is_none(), "{what}: an answer"),
    }
}

/// All inputs, with the login of `who`.
pub(super) fn inputs(who: &Stranger) -> Vec<Input> {
    [framing(), heads(), bodies(), urls(who), transports(who), states(who), logins(who)]
        .into_iter()
        .flatten()
        .map(|(row, name, bytes, answer)| Input { row, name, bytes, answer })
        .collect()
}

type Tuple = (u8, &'static str, Vec<u8>, Answer);

fn text(text: impl Into<String>) -> Vec<u8> {
    text.into().into_bytes()
}

/// A request without a login.
fn bare(line: &str, rest: &str) -> Vec<u8> {
    text(format!("{line} RTSP/1.0\r\nCSeq: 1\r\n{rest}\r\n"))
}

fn framing() -> Vec<Tuple> {
    let noise = b"\x00\x01\xff\xfe\x80RTSP".to_vec();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    let frame =
        |len: u16| [&b"$\x00"[..], &len.to_be_bytes(), &vec![b'x'; usize::from(len)]].concat();
    vec![
        (1, "shorter than a line", text("O\r\n\r\n"), Last(400)),
        (1, "one word", text("OPTIONS\r\n\r\n"), Last(400)),
        (1, "1,000 empty lines", text("\r\n".repeat(1_000)), Nothing),
        (2, "noise", noise, End),
        (2, "TLS ClientHello on the plain port", hello, End),
        (2, "SSH", text("SSH-2.0-OpenSSH_9.2\r\n\r\n"), Last(400)),
        (2, "a response", text("RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"), Last(400)),
        (40, "a frame before SETUP", frame(4), Nothing),
        (40, "an empty frame", frame(0), Nothing),
        (40, "the longest frame that is kept", frame(4_096), Nothing),
        (40, "the longest frame there is", frame(u16::MAX), Nothing),
        (40, "50 frames", frame(1_000).repeat(50), Nothing),
        (50, "RTSP/9.9", text("OPTIONS * RTSP/9.9\r\nCSeq: 1\r\n\r\n"), Status(505)),
        (50, "RTSP/2.0", text("OPTIONS * RTSP/2.0\r\nCSeq: 1\r\n\r\n"), Status(505)),
        (50, "no version", text("OPTIONS *\r\nCSeq: 1\r\n\r\n"), Last(400)),
        (50, "LF only", text("OPTIONS * RTSP/1.0\nCSeq: 1\n\n"), Status(200)),
        (50, "folded header", text("OPTIONS * RTSP/1.0\r\nCSeq:\r\n 1\r\n\r\n"), Status(200)),
        (50, "folded nothing", text("OPTIONS * RTSP/1.0\r\n folded\r\n\r\n"), Last(400)),
        (51, "Require", bare("OPTIONS *", "Require: onvif-replay\r\n"), Status(551)),
        (51, "Proxy-Require", bare("OPTIONS *", "Proxy-Require: a\r\n"), Status(551)),
    ]
}

fn heads() -> Vec<Tuple> {
    let long_url = format!("OPTIONS rtsp://{}", "a".repeat(65_536));
    let without_end = format!("OPTIONS * RTSP/1.0\r\nA: {}", "b".repeat(1 << 20));
    let just_over = format!("OPTIONS * RTSP/1.0\r\nA: {}", "b".repeat(8_192));
    let cseq = |value: &str| text(format!("OPTIONS * RTSP/1.0\r\nCSeq: {value}\r\n\r\n"));
    let headers = |count: usize| bare("OPTIONS *", &"A: b\r\n".repeat(count));
    vec![
        (3, "method of 10 kB", text("A".repeat(10_000)), Last(414)),
        (3, "URI of 64 kB", bare(&long_url, ""), Last(414)),
        (3, "request line of 1,025 bytes", text("A".repeat(1_025)), Last(414)),
        (4, "header of 1 MB without an end", text(without_end), Last(400)),
        (4, "head of more than 8 kB", text(just_over), Last(400)),
        (5, "10,000 headers", headers(10_000), Last(400)),
        (5, "65 headers", headers(64), Last(400)),
        (5, "64 headers", headers(63), Status(200)),
        (5, "a header without a colon", bare("OPTIONS *", "no header\r\n"), Last(400)),
        (5, "a header without a name", bare("OPTIONS *", ": value\r\n"), Last(400)),
        (11, "no CSeq", text("OPTIONS * RTSP/1.0\r\n\r\n"), Status(400)),
        (11, "CSeq of 5,000 digits", cseq(&"9".repeat(5_000)), Status(400)),
        (11, "negative CSeq", cseq("-1"), Status(400)),
        (11, "CSeq of 2^32", cseq("4294967296"), Status(400)),
        (11, "CSeq of words", cseq("%s%n"), Status(400)),
        (35, "100 HTTP headers of 1 kB", http(&format!("a: {}\r\n", "b".repeat(1_000))), Last(400)),
        (35, "cookies of 80 bytes, repeated", http(&cookie(80)), Last(400)),
    ]
}

fn cookie(len: usize) -> String {
    format!("x-sessioncookie: {}\r\n", "c".repeat(len))
}

fn http(line: &str) -> Vec<u8> {
    text(format!("GET / HTTP/1.1\r\n{}\r\n", line.repeat(100)))
}

fn bodies() -> Vec<Tuple> {
    let body = |len: &str| bare("GET_PARAMETER *", &format!("Content-Length: {len}\r\n"));
    vec![
        (6, "body of 999,999,999 bytes", body("999999999"), Last(413)),
        (6, "body of 2^32 - 1 bytes", body("4294967295"), Last(413)),
        (6, "body of one byte too many", body("4097"), Last(413)),
        (7, "body of -1 bytes", body("-1"), Last(400)),
        (8, "body of 2^64 - 1 bytes", body("18446744073709551615"), Last(400)),
        (8, "body of 2^64 + 1 bytes", body("18446744073709551617"), Last(400)),
        (9, "two lengths of a body", body("4\r\nContent-Length: 5"), Last(400)),
        (9, "a length and another", body("4, 5"), Last(400)),
    ]
}

fn urls(who: &Stranger) -> Vec<Tuple> {
    let describe = |url: &str| who.request("DESCRIBE", url, "");
    let at = |path: &str| describe(&who.url(path));
    let setup = |path: &str| {
        who.request("SETUP", &who.url(path), "Transport: RTP/AVP/TCP;interleaved=0-1\r\n")
    };
    // The login is made for what the camera reads: replacement characters.
    let replaced = String::from_utf8(at("\u{fffd}\u{fffd}")).unwrap();
    let (line, rest) = replaced.split_once(" RTSP/1.0").unwrap();
    let line = line.split('\u{fffd}').next().unwrap();
    let not_utf8 = [line.as_bytes(), b"\xc3\xff RTSP/1.0", rest.as_bytes()].concat();
    vec![
        // The root is a name of main, so that this is found.
        (12, "no path", describe(&format!("rtsp://@{}", who.rtsp)), Status(200)),
        (12, "no host", describe("rtsp:///main"), Status(200)),
        (12, "no scheme", describe("//main"), Status(200)),
        (12, "another scheme", describe("http://camera/main"), Status(400)),
        (12, "half a URL", describe("rtsp://"), Status(200)),
        (13, "*", describe("*"), Status(400)),
        (13, "no URL", text("DESCRIBE RTSP/1.0\r\nCSeq: 1\r\n\r\n"), Last(400)),
        (13, "a URL of spaces", text("DESCRIBE   RTSP/1.0\r\nCSeq: 1\r\n\r\n"), Last(400)),
        (14, "up from the root", at("../main"), Status(404)),
        (14, "up from main", at("main/../../etc/passwd"), Status(404)),
        (14, "a file", at("etc/passwd"), Status(404)),
        (14, "encoded NUL", at("main%00"), Status(404)),
        (14, "encoded dots", at("%2e%2e/%2e%2e/etc/passwd"), Status(404)),
        (14, "NUL", at("main\0"), Last(400)),
        (14, "not UTF-8", not_utf8, Status(404)),
        (20, "track 99999", setup("main/trackID=99999"), Status(404)),
        (20, "track -1", setup("main/trackID=-1"), Status(404)),
        (20, "track 2^32", setup("main/trackID=4294967296"), Status(404)),
        (20, "track of words", setup("main/trackID=video"), Status(404)),
        (20, "no track", setup("main/trackID="), Status(404)),
    ]
}

fn transports(who: &Stranger) -> Vec<Tuple> {
    let url = who.url("main/trackID=0");
    let setup = |transport: &str| {
        let answer = Status(461);
        (who.request("SETUP", &url, &format!("Transport: {transport}\r\n")), answer)
    };
    let udp = |ports: &str| setup(&format!("RTP/AVP;unicast;client_port={ports}"));
    let tcp = |channels: &str| setup(&format!("RTP/AVP/TCP;unicast;interleaved={channels}"));
    [
        (15, "none", (who.request("SETUP", &url, ""), Status(461))),
        (15, "empty", setup("")),
        (16, "7 kB", setup(&"x".repeat(7_000))),
        (16, "commas", setup(&",;=".repeat(2_000))),
        (16, "words", setup("RTP/AVP/TCP/IP;carrier=pigeon")),
        (16, "SRTP", setup("RTP/SAVP;unicast;client_port=5000-5001")),
        (16, "to record", setup("RTP/AVP/TCP;interleaved=0-1;mode=\"RECORD\"")),
        (17, "ports 0-0", udp("0-0")),
        (17, "ports 0-1", udp("0-1")),
        (18, "port 70000", udp("70000-70001")),
        (18, "ports reversed", udp("5001-5000")),
        (18, "ports odd", udp("5001-5002")),
        (18, "ports negative", udp("-2--1")),
        (18, "the last port and one more", udp("65535-65536")),
        (19, "channel 300", tcp("300-301")),
        (19, "channel 255-0", tcp("255-0")),
        (19, "channel 255-256", tcp("255-256")),
        (19, "one channel for both", tcp("2-2")),
    ]
    .into_iter()
    .map(|(row, name, (bytes, answer))| (row, name, bytes, answer))
    .collect()
}

fn states(who: &Stranger) -> Vec<Tuple> {
    let main = who.url("main/");
    let on_nothing = |method: &str, headers: &str| who.request(method, &main, headers);
    let description = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\nm=video 99999999 RTP/AVP -1\r\n\
                       a=rtpmap:256 H264/0\r\na=control:\0\r\n";
    let announce = |body: &str| {
        let head = "Content-Type: application/sdp\r\n";
        [
            bare(
                "ANNOUNCE rtsp://camera/main",
                &format!("{head}Content-Length: {}\r\n", body.len()),
            ),
            text(body),
        ]
        .concat()
    };
    let id = "Session: 0123456789abcdef0123456789abcdef\r\n";
    vec![
        (25, "PLAY without SETUP", on_nothing("PLAY", ""), Status(455)),
        (25, "PLAY of an unknown session", on_nothing("PLAY", id), Status(454)),
        (25, "PLAY of session 0", on_nothing("PLAY", "Session: 0\r\n"), Status(454)),
        (25, "a session id of 7 kB", on_nothing("PLAY", &long_session()), Status(454)),
        (25, "TEARDOWN without SETUP", on_nothing("TEARDOWN", ""), Status(454)),
        (29, "PAUSE before SETUP", on_nothing("PAUSE", ""), Status(455)),
        (29, "RECORD", on_nothing("RECORD", ""), Status(405)),
        (33, "ANNOUNCE of nothing", announce(""), Status(405)),
        (33, "ANNOUNCE of nonsense", announce(description), Status(405)),
        (33, "ANNOUNCE of 4 kB", announce(&"m=".repeat(2_048)), Status(405)),
        (33, "ANNOUNCE of 64 kB", announce(&"m=".repeat(32_768)), Last(413)),
        (33, "REDIRECT", bare("REDIRECT rtsp://camera/main", ""), Status(405)),
        (33, "a method of nobody", bare("PWN rtsp://camera/main", ""), Status(501)),
    ]
}

fn long_session() -> String {
    format!("Session: {}\r\n", "f".repeat(7_000))
}

/// Who has no right to it is told so, and who cannot be understood as well.
fn logins(who: &Stranger) -> Vec<Tuple> {
    let with = |value: &str| {
        let line = format!("DESCRIBE {}", who.url("main"));
        bare(&line, &format!("Authorization: {value}\r\n"))
    };
    let fields = |count: usize, field: &str| with(&format!("Digest {}", field.repeat(count)));
    let twice = [with("Digest a=b"), Vec::new()].concat();
    let twice = String::from_utf8(twice).unwrap();
    let twice = twice.replace("\r\n\r\n", "\r\nAuthorization: Digest a=b\r\n\r\n");
    vec![
        (36, "500 user names", fields(500, "username=\"a\", "), Status(400)),
        (36, "1,000 nameless fields", fields(1_000, "=\"\", "), Status(400)),
        (36, "two headers", text(twice), Status(400)),
        (36, "a quote without an end", with("Digest username=\"admin"), Status(400)),
        (37, "NUL", with("Digest username=\"a\0b\""), Last(400)),
        (38, "Basic with the right password", with(BASIC), Status(401)),
        (38, "Basic without colon", with("Basic YWRtaW4="), Status(401)),
        (38, "Basic that is no base64", with("Basic !!!="), Status(401)),
        (38, "Basic and nothing", with("Basic"), Status(401)),
        (38, "Digest and nothing", with("Digest"), Status(401)),
        (38, "Bearer", with("Bearer e30.e30."), Status(401)),
    ]
}

/// admin:correct-horse-9
const BASIC: &str = "Basic YWRtaW46Y29ycmVjdC1ob3JzZS05";
/// What the camera reads before it hangs up.
const READ_AT_ONCE: usize = 16 << 10;
