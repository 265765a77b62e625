//! What broke other cameras, and what this one answers.

use std::time::Duration;

use ocellus::rtsp::{Event, MESSAGE_DEADLINE};

use crate::camera::{Camera, header, status};

const ALIVE: bool = true;
const ENDED: bool = false;

/// Name, input on a fresh connection of a camera without password, status of the one answer (0:
/// none), and whether the connection may stay open.
type Case = (&'static str, String, u16, bool);

fn check(cases: Vec<Case>) {
    for (name, input, expected, is_alive) in cases {
        let mut camera = Camera::open();
        let id = camera.connect("192.0.2.7:40000");
        assert_eq!(camera.send(id, input.as_bytes()), is_alive, "{name}");
        let output = camera.read(id);
        assert_eq!(status(&output), expected, "{name}: {output}");
        assert_eq!(output.matches("RTSP/1.0 ").count(), usize::from(expected > 0), "{name}");
        if !is_alive {
            assert!(!camera.send(id, b"OPTIONS * RTSP/1.0\r\nCSeq: 2\r\n\r\n"), "{name}");
            assert_eq!(camera.read(id), "", "{name}");
        }
    }
}

fn request(line: &str, rest: &str) -> String {
    format!("{line} RTSP/1.0\r\nCSeq: 1\r\n{rest}\r\n")
}

#[test]
fn bytes_that_are_too_much_or_no_requests_are_cut_off() {
    let content = |len: &str| request("GET_PARAMETER *", &format!("Content-Length: {len}\r\n"));
    check(vec![
        ("shorter than a line", "O\r\n\r\n".into(), 400, ENDED),
        ("empty lines", "\r\n".repeat(1_000), 0, ALIVE),
        ("TLS ClientHello", "\x16\x03\x01\x02\x00\x01".into(), 0, ENDED),
        ("noise", "\u{0}\u{1}\u{fffd}".into(), 0, ENDED),
        ("method of 10 kB", "A".repeat(10_000), 414, ENDED),
        (
            "URI of 64 kB",
            request(&format!("OPTIONS rtsp://{}", "a".repeat(65_536)), ""),
            414,
            ENDED,
        ),
        ("1 MB of header", format!("OPTIONS * RTSP/1.0\r\nA: {}", "b".repeat(1 << 20)), 400, ENDED),
        ("10,000 headers", request("OPTIONS *", &"A: b\r\n".repeat(10_000)), 400, ENDED),
        ("65 headers", request("OPTIONS *", &"A: b\r\n".repeat(64)), 400, ENDED),
        ("64 headers", request("OPTIONS *", &"A: b\r\n".repeat(63)), 200, ALIVE),
        ("huge body", content("999999999"), 413, ENDED),
        ("negative body", content("-1"), 400, ENDED),
        ("body of 2^64-1", content("18446744073709551615"), 400, ENDED),
        ("two body lengths", content("4\r\nContent-Length: 5"), 400, ENDED),
    ]);
}

#[test]
fn requests_for_nonsense_are_refused() {
    let setup_track = |track: &str, transport: &str| {
        let line = format!("SETUP rtsp://cam/main/trackID={track}");
        request(&line, &format!("Transport: {transport}\r\n"))
    };
    let setup = |transport: &str| setup_track("0", transport);
    check(vec![
        ("no CSeq", "OPTIONS * RTSP/1.0\r\n\r\n".into(), 400, ALIVE),
        (
            "long CSeq",
            format!("OPTIONS * RTSP/1.0\r\nCSeq: {}\r\n\r\n", "9".repeat(5_000)),
            400,
            ALIVE,
        ),
        ("negative CSeq", "OPTIONS * RTSP/1.0\r\nCSeq: -1\r\n\r\n".into(), 400, ALIVE),
        ("empty path", request("DESCRIBE rtsp://@host:8554", ""), 200, ALIVE),
        ("no URL", request("DESCRIBE", ""), 400, ENDED),
        ("star", request("DESCRIBE *", ""), 400, ALIVE),
        ("traversal", request("DESCRIBE rtsp://cam/../main", ""), 404, ALIVE),
        ("traversal below", request("DESCRIBE rtsp://cam/main/../../etc/passwd", ""), 404, ALIVE),
        ("encoded NUL", request("DESCRIBE rtsp://cam/main%00", ""), 404, ALIVE),
        ("NUL", request("DESCRIBE rtsp://cam/main\0", ""), 400, ENDED),
        ("SETUP without Transport", request("SETUP rtsp://cam/main", ""), 461, ALIVE),
        ("empty Transport", setup(""), 461, ALIVE),
        ("Transport of 8 kB", setup(&"x".repeat(8_000)), 461, ALIVE),
        ("Transport of commas", setup(&",;=".repeat(2_000)), 461, ALIVE),
        ("client_port 0-0", setup("RTP/AVP;unicast;client_port=0-0"), 461, ALIVE),
        ("client_port 70000", setup("RTP/AVP;unicast;client_port=70000-70001"), 461, ALIVE),
        ("client_port reversed", setup("RTP/AVP;unicast;client_port=5001-5000"), 461, ALIVE),
        ("client_port odd", setup("RTP/AVP;unicast;client_port=5001-5002"), 461, ALIVE),
        ("channel 300", setup("RTP/AVP/TCP;unicast;interleaved=300-301"), 461, ALIVE),
        ("channel 255-0", setup("RTP/AVP/TCP;unicast;interleaved=255-0"), 461, ALIVE),
        ("multicast", setup("RTP/AVP;multicast;port=5000-5001;ttl=1"), 461, ALIVE),
        ("SRTP", setup("RTP/SAVP;unicast;client_port=5000-5001"), 461, ALIVE),
        ("RECORD mode", setup("RTP/AVP/TCP;interleaved=0-1;mode=\"RECORD\""), 461, ALIVE),
        (
            "track 99999",
            request("SETUP rtsp://cam/main/trackID=99999", "Transport: RTP/AVP/TCP\r\n"),
            404,
            ALIVE,
        ),
        (
            "track -1",
            request("SETUP rtsp://cam/main/trackID=-1", "Transport: RTP/AVP/TCP\r\n"),
            404,
            ALIVE,
        ),
        (
            "track 2^32",
            request("SETUP rtsp://cam/trackID=4294967296", "Transport: RTP/AVP/TCP\r\n"),
            404,
            ALIVE,
        ),
        ("PLAY without SETUP", request("PLAY rtsp://cam/main", ""), 455, ALIVE),
        ("PAUSE without SETUP", request("PAUSE rtsp://cam/main", ""), 455, ALIVE),
        ("unknown session", request("PLAY rtsp://cam/main", "Session: 0\r\n"), 454, ALIVE),
        ("RECORD", request("RECORD rtsp://cam/main", ""), 405, ALIVE),
        ("ANNOUNCE", request("ANNOUNCE rtsp://cam/main", "Content-Length: 0\r\n"), 405, ALIVE),
        ("HTTP without a tunnel", "GET /main HTTP/1.1\r\n\r\n".into(), 0, ENDED),
        ("HTTP POST", "POST /main HTTP/1.0\r\nx-sessioncookie: a\r\n\r\n".into(), 0, ENDED),
        ("RTSP/9.9", "OPTIONS * RTSP/9.9\r\nCSeq: 1\r\n\r\n".into(), 505, ALIVE),
        ("no version", "OPTIONS *\r\nCSeq: 1\r\n\r\n".into(), 400, ENDED),
        ("LF only", "OPTIONS * RTSP/1.0\nCSeq: 1\n\n".into(), 200, ALIVE),
        ("folded header", "OPTIONS * RTSP/1.0\r\nCSeq:\r\n 1\r\n\r\n".into(), 200, ALIVE),
        ("Require", request("OPTIONS *", "Require: onvif-replay\r\n"), 551, ALIVE),
        ("frame before SETUP", "$\u{0}\u{0}\u{4}abcd$\u{1}\u{7f}".into(), 0, ALIVE),
    ]);
}

#[test]
fn an_unparsed_cseq_is_not_echoed() {
    let mut camera = Camera::open();
    let id = camera.connect("192.0.2.7:40000");
    for cseq in ["", "CSeq: -1\r\n", "CSeq: 4294967296\r\n", "CSeq: 1x\r\n"] {
        let answer = camera.ask(id, &format!("OPTIONS * RTSP/1.0\r\n{cseq}\r\n"));
        assert_eq!((status(&answer), header(&answer, "CSeq")), (400, None));
    }
}

#[test]
fn bodies_heads_and_frames_that_never_end_are_cut_off() {
    for start in [
        "O",
        "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n",
        "GET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 10\r\n\r\nabc",
        "$\u{1}\u{7f}\u{7f}abc",
        "$",
    ] {
        let mut camera = Camera::open();
        let id = camera.connect("192.0.2.7:40000");
        assert!(camera.send(id, start.as_bytes()));
        // A byte now and then does not help.
        camera.pass(MESSAGE_DEADLINE / 2);
        assert!(camera.send(id, b"x"));
        camera.pass(MESSAGE_DEADLINE / 2 - Duration::from_millis(1));
        assert!(camera.events.is_empty());
        camera.pass(Duration::from_millis(1));
        assert_eq!(camera.events, [Event::Close { connection: id }], "{start:?}");
        assert_eq!(camera.server.poll_timeout(), None);
    }
}

#[test]
fn one_byte_at_a_time_is_served() {
    let mut camera = Camera::open();
    let id = camera.connect("192.0.2.7:40000");
    for byte in b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n" {
        camera.pass(Duration::from_millis(300));
        assert!(camera.send(id, &[*byte]));
    }
    assert_eq!(status(&camera.read(id)), 200);
}
