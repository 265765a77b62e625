//! Peers who begin and do not end: each is sent away in its time, however many wait at once.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::ground::{Ground, Harm};
use super::peer::{Cut, to_ports, udp_pair};

/// What is sent at the start, what once in half a second, and when the camera has had enough.
struct Wait {
    row: u8,
    name: &'static str,
    port: Port,
    start: &'static [u8],
    drip: &'static [u8],
    seconds: u64,
}

#[derive(Clone, Copy)]
enum Port {
    Rtsp,
    Rtsps,
    Http,
}

/// All of them at once: 30 seconds.
pub(super) fn waits(ground: &Ground) -> Harm {
    thread::scope(|scope| {
        for wait in WAITS {
            scope.spawn(move || wait.ends(ground));
        }
        scope.spawn(|| a_viewer_who_reads_nothing(ground));
        scope.spawn(|| a_body_that_ends_early(ground));
    });
    Harm { inputs: WAITS.len() + 2, sessions: 1 }
}

impl Wait {
    fn ends(&self, ground: &Ground) {
        let Self { row, name, port, start, drip, seconds } = self;
        let to = match port {
            Port::Rtsp => ground.rtsp,
            Port::Rtsps => ground.rtsps,
            Port::Http => ground.http,
        };
        let mut peer = super::peer::Peer::connect(to, ground.address());
        let began = Instant::now();
        assert!(peer.send(start, Cut::Whole));
        while peer.is_open() {
            let waited = began.elapsed().as_secs();
            assert!(waited < seconds + LATE_S, "row {row}, {name}: still open after {waited} s");
            thread::park_timeout(DRIP);
            if !drip.is_empty() && !peer.send(drip, Cut::Whole) {
                break;
            }
        }
        let waited = began.elapsed();
        let is_early = waited + Duration::from_secs(1) < Duration::from_secs(*seconds);
        assert!(!is_early, "row {row}, {name}: closed after {waited:?}");
    }
}

/// Row 49: pictures wait for him, up to a limit and for a time, and for nobody else.
fn a_viewer_who_reads_nothing(ground: &Ground) {
    let who = ground.stranger();
    let mut peer = who.connect();
    setsockopt(peer.stream(), sockopt::RcvBuf, &4_096).unwrap();
    peer.watch(&who, "RTP/AVP/TCP;unicast;interleaved=0-1");
    let began = Instant::now();
    while began.elapsed() < STALLED {
        thread::park_timeout(STALLED.saturating_sub(began.elapsed()));
    }
    // What the kernel holds for him is there still, and then there is an end: by the camera's own
    // deadline, or by the kernel's for what is not acknowledged.
    let (bytes, took) = peer.read_to_end(Duration::from_secs(5));
    assert!(bytes.len() < 1_500_000, "{} bytes in {took:?}", bytes.len());
}

/// Row 10: a body is shorter than announced, and then the connection ends.
fn a_body_that_ends_early(ground: &Ground) {
    let mut peer = super::peer::Peer::connect(ground.rtsp, ground.address());
    assert!(peer.send(SHORT_BODY, Cut::Whole));
    peer.say_no_more();
    let (heard, took) = peer.read_to_end(Duration::from_secs(10));
    assert!(heard.is_empty() && took < Duration::from_secs(5), "{took:?} {heard:?}");
}

/// Row 48: a viewer over UDP who is gone without a word, and whose ports stay open, is sent packets
/// for the time that his session has.
pub(super) fn a_viewer_who_vanishes(ground: &Ground) -> Harm {
    let who = ground.stranger();
    let pair = udp_pair(who.from);
    let mut peer = who.connect();
    peer.watch(&who, &to_ports(&pair));
    peer.reset();
    let (began, mut last) = (Instant::now(), Duration::ZERO);
    pair[0].set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    while began.elapsed() < last + SILENCE && !ground.is_given_up() {
        if pair[0].recv(&mut [0; 2_048]).is_ok() {
            last = began.elapsed();
        }
        assert!(last.as_secs() < SESSION_S + LATE_S, "packets still come after {last:?}");
    }
    if ground.is_given_up() {
        return Harm::default();
    }
    eprintln!("a viewer who vanished was sent packets for {last:.1?}");
    assert!(last.as_secs() >= ADVERTISED_S, "{last:?}");
    Harm { inputs: 1, sessions: 1 }
}

const WAITS: &[Wait] = &[
    rtsp(44, "a head of one byte", b"O", b"", HEAD_S),
    rtsp(44, "a head, byte by byte", b"O", b"P", HEAD_S),
    rtsp(44, "headers without end", b"OPTIONS * RTSP/1.0\r\n", b"A: b\r\n", HEAD_S),
    rtsp(10, "a body that is short", SHORT_BODY, b"", HEAD_S),
    rtsp(10, "a body, byte by byte", SHORT_BODY, b"x", HEAD_S),
    rtsp(40, "a frame of one byte", b"$", b"", HEAD_S),
    rtsp(40, "a frame without end", b"$\x01\x0f\xff", b"x", HEAD_S),
    rtsp(40, "a longer frame than is kept", b"$\x01\xff\xff", b"x", HEAD_S),
    rtsp(40, "frames, and nothing else", b"", b"$\x00\x00\x00", IDLE_S),
    rtsp(45, "silence", b"", b"", IDLE_S),
    rtsp(1, "empty lines, again and again", b"", b"\r\n", IDLE_S),
    rtsp(45, "a question, and silence", b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n", b"", IDLE_S),
    rtsp(34, "half a tunnel", b"GET / HTTP/1.0\r\nx-sessioncookie: w\r\n\r\n", b"", JOIN_S),
    Wait { port: Port::Rtsps, ..rtsp(2, "no handshake", b"", b"", HEAD_S) },
    Wait { port: Port::Rtsps, ..rtsp(2, "half a handshake", b"\x16\x03\x01", b"", HEAD_S) },
    Wait { port: Port::Http, ..rtsp(44, "nothing", b"", b"", HEAD_S) },
    Wait { port: Port::Http, ..rtsp(44, "half a head", b"GET / HTTP/1.1\r\nHost: ", b"", HEAD_S) },
    Wait { port: Port::Http, ..rtsp(44, "byte by byte", b"G", b"E", HEAD_S) },
    Wait {
        port: Port::Http,
        ..rtsp(34, "half a tunnel", b"GET / HTTP/1.0\r\nx-sessioncookie: v\r\n\r\n", b"", JOIN_S)
    },
    Wait {
        port: Port::Http,
        ..rtsp(44, "a question, and silence", b"GET / HTTP/1.1\r\nHost: c\r\n\r\n", b"", HEAD_S)
    },
];

const fn rtsp(
    row: u8,
    name: &'static str,
    start: &'static [u8],
    drip: &'static [u8],
    seconds: u64,
) -> Wait {
    Wait { row, name, port: Port::Rtsp, start, drip, seconds }
}

const SHORT_BODY: &[u8] = b"GET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 4000\r\n\r\nabc";
const HEAD_S: u64 = 10;
const IDLE_S: u64 = 30;
/// Long enough to be sure that no packet comes any more.
const SILENCE: Duration = Duration::from_secs(5);
/// The other half of a tunnel.
const JOIN_S: u64 = 5;
const ADVERTISED_S: u64 = 60;
const SESSION_S: u64 = 90;
/// On a loaded machine.
const LATE_S: u64 = 10;
/// Ten seconds without progress, after those in which buffers fill.
const STALLED: Duration = Duration::from_secs(30);
const DRIP: Duration = Duration::from_millis(500);
