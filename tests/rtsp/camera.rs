//! The server under test with its clock, its connections and a client's half of Digest.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use md5::{Digest, Md5};
use ocellus::auth::{Role, User};
use ocellus::h264::ParameterSets;
use ocellus::rtsp::{ConnectionId, Event, FirstPacket, Multicast, Server, Settings, Stream};
use ocellus::time::Instant;

pub(crate) const LOCAL: &str = "[::ffff:192.0.2.1]:554";

/// Where stream 0 is sent in tests that ask for it by multicast.
pub(crate) const GROUPS: Multicast = Multicast {
    ipv4: Some(Ipv4Addr::new(239, 255, 1, 2)),
    ipv6: None,
    port: 5004,
    ttl: 1,
    is_source_specific: false,
};

pub(crate) struct Camera {
    pub(crate) server: Server,
    pub(crate) now: Instant,
    /// What was written to each connection and not yet looked at.
    pub(crate) output: BTreeMap<ConnectionId, Vec<u8>>,
    pub(crate) events: VecDeque<Event>,
}

pub(crate) fn settings() -> Settings {
    let user = |name: &str, password: &str, role| User {
        name: name.to_owned(),
        password: password.to_owned(),
        role,
    };
    let stream = |paths: &[&str], ssrc| Stream {
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
        name: "front door".to_owned(),
        ssrc,
        bandwidth_kbps: 2_000,
        fps: 25.0,
        multicast: None,
    };
    Settings {
        realm: "ocellus".to_owned(),
        users: vec![
            user("admin", "secret", Role::Admin),
            user("viewer", "look:here", Role::Viewer),
        ],
        no_auth: false,
        streams: vec![
            stream(&["main", "", "stream1"], 0x1a2b_3c4d),
            stream(&["sub", "stream2"], 0x0000_00ff),
        ],
        server_ports: (8000, 8001),
        max_viewers: 4,
        max_per_address: 16,
    }
}

/// A stream of 64x64 pixels by x264, and one that differs in its level.
pub(crate) fn parameter_sets(level: u8) -> ParameterSets {
    let sps = [
        0x67, 0x64, 0x00, level, 0xac, 0x72, 0x84, 0x44, 0x26, 0x84, 0x00, 0x00, 0x03, 0x00, 0x04,
        0x00, 0x00, 0x03, 0x00, 0xca, 0x3c, 0x48, 0x96, 0x11, 0x80,
    ];
    let pps = [0x68, 0xe8, 0x43, 0x8f, 0x13, 0x21, 0x30];
    ParameterSets::new(&sps, &pps).unwrap()
}

impl Camera {
    pub(crate) fn new(settings: Settings) -> Self {
        let now = Instant::from_micros(1_000_000_000);
        let server = Server::new(settings, [42; 32]);
        Self { server, now, output: BTreeMap::new(), events: VecDeque::new() }
    }

    /// One whose viewers need no password and whose streams are there.
    pub(crate) fn open() -> Self {
        let mut camera = Self::new(Settings { no_auth: true, ..settings() });
        camera.sets();
        camera
    }

    pub(crate) fn sets(&mut self) {
        self.server.parameter_sets(self.now, 0, &parameter_sets(10));
        self.server.parameter_sets(self.now, 1, &parameter_sets(11));
        self.drain();
    }

    pub(crate) fn connect(&mut self, peer: &str) -> ConnectionId {
        let peer: SocketAddr = peer.parse().unwrap();
        let id = self.server.accept(self.now, peer, LOCAL.parse().unwrap()).unwrap();
        self.drain();
        id
    }

    /// Feeds bytes; true while the connection may stay open.
    pub(crate) fn send(&mut self, id: ConnectionId, bytes: &[u8]) -> bool {
        let result = self.server.receive(self.now, id, bytes);
        self.drain();
        result.is_ok()
    }

    pub(crate) fn idr(&mut self, stream: usize, seq: u16, rtptime: u32) {
        self.server.idr_packetized(self.now, stream, FirstPacket { seq, rtptime, wall: None });
        self.drain();
    }

    pub(crate) fn disconnect(&mut self, id: ConnectionId) {
        self.server.disconnected(self.now, id);
        self.drain();
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.server.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.server.handle_timeout(self.now);
            self.drain();
            // Drain law: what was due has been done.
            assert!(self.server.poll_timeout().is_none_or(|next| next > self.now));
        }
        self.now = end;
    }

    pub(crate) fn drain(&mut self) {
        while let Some((id, bytes)) = self.server.poll_transmit() {
            assert!(!bytes.is_empty());
            self.output.entry(id).or_default().extend(bytes);
        }
        while let Some(event) = self.server.poll_event() {
            self.events.push_back(event);
        }
        assert!(self.server.poll_transmit().is_none());
    }

    /// What was written to `id` since last asked.
    pub(crate) fn read(&mut self, id: ConnectionId) -> String {
        String::from_utf8(self.output.remove(&id).unwrap_or_default()).unwrap()
    }

    /// Sends a request and returns the answer.
    pub(crate) fn ask(&mut self, id: ConnectionId, request: &str) -> String {
        self.send(id, request.as_bytes());
        self.read(id)
    }

    /// Status of the answer to a request; 0 without one.
    pub(crate) fn status(&mut self, id: ConnectionId, request: &str) -> u16 {
        status(&self.ask(id, request))
    }
}

/// Status of the first response in `text`; 0 without one.
pub(crate) fn status(text: &str) -> u16 {
    text.strip_prefix("RTSP/1.0 ").map_or(0, |rest| rest[..3].parse().unwrap())
}

/// Value of the first header of that name.
pub(crate) fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The nonce of a challenge.
pub(crate) fn nonce(text: &str) -> String {
    text.split_once("nonce=\"").unwrap().1.split_once('"').unwrap().0.to_owned()
}

/// An Authorization header as FFmpeg writes it without qop.
pub(crate) fn digest(
    (user, password): (&str, &str),
    nonce: &str,
    method: &str,
    uri: &str,
) -> String {
    let hash = |text: String| {
        Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let ha1 = hash(format!("{user}:ocellus:{password}"));
    let ha2 = hash(format!("{method}:{uri}"));
    let response = hash(format!("{ha1}:{nonce}:{ha2}"));
    format!(
        "Authorization: Digest username=\"{user}\", realm=\"ocellus\", nonce=\"{nonce}\", \
         uri=\"{uri}\", response=\"{response}\""
    )
}

/// xorshift64*: the same numbers everywhere for the same seed. Prints it when the test fails.
pub(crate) struct Random {
    state: u64,
    seed: u64,
}

impl Random {
    /// One of the sequences of a test, which are others for every `OCELLUS_SEED`.
    pub(crate) fn new(sequence: u64) -> Self {
        let seed = std::env::var("OCELLUS_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or(0);
        let mixed = (sequence + 1) ^ u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15);
        Self { state: mixed.wrapping_mul(0xd134_2543_de82_ef95) | 1, seed }
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let high = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % limit
    }
}

impl Drop for Random {
    #[allow(clippy::print_stderr, reason = "a failure has to be repeatable")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("OCELLUS_SEED={}", self.seed);
        }
    }
}
