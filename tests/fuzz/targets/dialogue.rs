//! Dialogues of several players with the RTSP server: what each may expect, and what the camera
//! may rely on, whatever the others write.
//!
//! The input is read as a list of steps: requests that are valid, stale or broken, frames, raw
//! bytes, pictures, time that passes, connections that come and go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocellus::auth::{Role, User};
use ocellus::h264::ParameterSets;
use ocellus::rtsp::{
    ConnectionId, Delivery, Event, FirstPacket, IDLE_TIMEOUT, Multicast, SESSION_TIMEOUT, Server,
    SessionId, Settings, Stream,
};
use ocellus::stats::Ending;
use ocellus::time::Instant;

use super::input::Input;
use super::login;

/// A list of steps, the first bytes being what the camera is like.
pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut world = World::new(input.byte());
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        world.check();
    }
    world.end();
}

struct World {
    server: Server,
    settings: Settings,
    now: Instant,
    peers: BTreeMap<ConnectionId, Peer>,
    /// Whether it plays, of every session that the server has told of and not ended.
    playing: BTreeMap<SessionId, Delivery>,
    over: BTreeSet<SessionId>,
    /// Session headers of answers, newest last.
    sessions: Vec<String>,
    /// Whether anybody has ever written the right password.
    has_logged_in: bool,
    cseq: u32,
}

struct Peer {
    address: SocketAddr,
    /// CSeqs of whole requests that wait for their answer, and whether each may be granted: it
    /// comes with the right password, or needs none.
    asked: VecDeque<(u32, bool)>,
    /// Whether it has only ever written whole requests and frames: each is then answered in order.
    is_orderly: bool,
    nonce: String,
    /// The server wants it closed.
    is_closing: bool,
    /// Where what it says comes from, if that is a connection of its own.
    way_in: Option<ConnectionId>,
}

impl World {
    fn new(kind: u8) -> Self {
        let settings = settings(kind);
        Self {
            server: Server::new(settings.clone(), [kind; 32]),
            settings,
            now: Instant::from_micros(1_000_000),
            peers: BTreeMap::new(),
            playing: BTreeMap::new(),
            over: BTreeSet::new(),
            sessions: Vec::new(),
            has_logged_in: false,
            cseq: 0,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.byte();
        let (kind, whom) = (step & 0x1f, usize::from(step >> 5));
        let Some(id) = self.peers.keys().copied().nth(whom % self.peers.len().max(1)) else {
            self.connect(input.byte());
            return;
        };
        match kind {
            0 => {
                self.connect(input.byte());
            }
            1 => self.disconnect(id),
            2 => self.tunnel(input.byte()),
            3 => self.pass(Duration::from_millis(input.number::<1>() * 8)),
            4 => self.pass(Duration::from_secs(input.number::<1>())),
            5 => self.parameter_sets(input.below(3), 10 + input.byte() % 4),
            6 | 7 => self.idr(input.below(3), input.number::<2>()),
            8 => self.sign_of_life(input),
            9 => {
                let frame = frame(input.byte(), input.some());
                self.say(id, &frame, input.byte());
            }
            10 => self.mumble(id, input),
            11 => self.server.encrypted(id),
            12 => self.server.bandwidth(input.below(3), input.number::<3>() as u32),
            _ => self.ask(id, input),
        }
    }

    fn connect(&mut self, from: u8) -> Option<ConnectionId> {
        let host = u16::from(from & 3);
        let port = 40_000 + u16::from(from);
        let address = match from >> 6 {
            0 => SocketAddr::from(([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0200 + host], port)),
            1 => SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, host], port)),
            _ => SocketAddr::from(([192, 0, 2, host as u8], port)),
        };
        let local = SocketAddr::from(([192, 0, 2, 10], 554));
        let id = self.server.accept(self.now, address, local).ok()?;
        let (asked, nonce) = (VecDeque::new(), "0".repeat(32));
        let (is_orderly, is_closing, way_in) = (true, false, None);
        let peer = Peer { address, asked, is_orderly, nonce, is_closing, way_in };
        assert!(self.peers.insert(id, peer).is_none(), "a name is used twice");
        self.drain();
        Some(id)
    }

    /// Two connections that are one, or two that are none.
    fn tunnel(&mut self, kind: u8) {
        let Some(out) = self.connect(kind & 0xc3) else { return };
        let Some(into) = self.connect(kind & 0xc3) else { return };
        let accept = "x-sessioncookie: 4d9b";
        self.write(out, format!("GET /main HTTP/1.0\r\n{accept}\r\n\r\n").as_bytes());
        self.write(into, format!("POST /main HTTP/1.0\r\n{accept}\r\n\r\n").as_bytes());
        let are_open = self.peers.contains_key(&out) && self.peers.contains_key(&into);
        if let Some(peer) = self.peers.get_mut(&out).filter(|_| are_open) {
            peer.way_in = Some(into);
        }
        if let Some(peer) = self.peers.get_mut(&into) {
            peer.is_orderly = false;
        }
    }

    fn parameter_sets(&mut self, stream: usize, level: u8) {
        let sps = [
            0x67, 0x64, 0x00, level, 0xac, 0x72, 0x84, 0x44, 0x26, 0x84, 0x00, 0x00, 0x03, 0x00,
            0x04, 0x00, 0x00, 0x03, 0x00, 0xca, 0x3c, 0x48, 0x96, 0x11, 0x80,
        ];
        let pps = [0x68, 0xe8, 0x43, 0x8f, 0x13, 0x21, 0x30];
        let sets = ParameterSets::new(&sps, &pps).expect("x264's");
        self.server.parameter_sets(self.now, stream, &sets);
        self.drain();
    }

    fn idr(&mut self, stream: usize, number: u64) {
        let first = FirstPacket { seq: number as u16, rtptime: number as u32, wall: None };
        self.server.idr_packetized(self.now, stream, first);
        self.drain();
    }

    fn sign_of_life(&mut self, input: &mut Input<'_>) {
        let Some(&session) = self.playing.keys().nth(input.below(8)) else { return };
        match input.below(3) {
            0 => self.server.alive(self.now, session),
            1 => self.server.leaving(self.now, session),
            _ => self.server.end(session, Ending::Stalled),
        }
        self.drain();
    }

    /// Anything at all.
    fn mumble(&mut self, id: ConnectionId, input: &mut Input<'_>) {
        let bytes = input.some();
        if let Some(peer) = self.peers.get_mut(&id).filter(|_| !bytes.is_empty()) {
            peer.is_orderly = false;
        }
        self.say(id, bytes, 0);
    }

    /// A whole request, of which much may be wrong.
    fn ask(&mut self, id: ConnectionId, input: &mut Input<'_>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        self.cseq += 1;
        let (what, with) = (input.byte(), input.byte());
        let (method, url) = (pick(METHODS, what >> 4), pick(URLS, what & 15));
        let mut text = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\n", self.cseq);
        let newest = self.sessions.len().saturating_sub(1 + usize::from(with >> 2 & 3));
        match with & 3 {
            0 => {}
            1 => text += "Session: 00000000000000000000000000000001\r\n",
            _ => {
                let session = self.sessions.get(newest).map_or("0", String::as_str);
                text += &format!("Session: {session}\r\n");
            }
        }
        text += match with >> 4 {
            0 => "Require: implicit-play\r\n",
            1 => "Range: npt=10-5\r\nContent-Length: 3\r\n",
            2 => "Range: npt=0.000-\r\nScale: -1\r\n",
            3 => "Transport: RTP/AVP;unicast;client_port=4000-4001\r\n",
            4 => "Transport: RTP/AVP;unicast;client_port=4002-4003,RTP/AVP/TCP\r\n",
            5 => "Transport: RTP/AVP;multicast\r\n",
            6 => "Transport: RTP/AVP/TCP;unicast;interleaved=2-3\r\n",
            _ => "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n",
        };
        let who = input.byte();
        let mut may_be_granted = self.settings.no_auth || method == "OPTIONS";
        if who & 3 > 0 {
            let password = if who & 3 == 1 {
                "guess"
            } else {
                ["secret", "look:here"][usize::from(who >> 2 & 1)]
            };
            let user = ["admin", "viewer"][usize::from(who >> 2 & 1)];
            let uri = if who & 8 == 0 { url } else { "rtsp://cam/elsewhere" };
            text += &login::authorization((user, password), &peer.nonce, method, uri);
            may_be_granted |= password != "guess";
            self.has_logged_in |= password != "guess";
        }
        text += "\r\n";
        if with >> 4 == 1 {
            text += "$\r\n";
        }
        peer.asked.push_back((self.cseq, may_be_granted));
        self.say(id, text.as_bytes(), who >> 4);
    }

    /// Writes to whom the peer writes to, in one piece or with a pause in it.
    fn say(&mut self, id: ConnectionId, bytes: &[u8], cut: u8) {
        let Some(peer) = self.peers.get(&id) else { return };
        let (to, bytes) = match peer.way_in {
            Some(way_in) => (way_in, STANDARD.encode(bytes).into_bytes()),
            None => (id, bytes.to_vec()),
        };
        let (head, tail) = bytes.split_at(bytes.len() * usize::from(cut & 7) / 8);
        self.write(to, head);
        if cut & 8 != 0 && !head.is_empty() {
            self.pass(Duration::from_secs(3));
        }
        self.write(to, tail);
    }

    /// The peer's bytes arrive; if they make the server give up, it is gone.
    fn write(&mut self, id: ConnectionId, bytes: &[u8]) {
        if bytes.is_empty() || self.peers.get(&id).is_none_or(|peer| peer.is_closing) {
            return;
        }
        let result = self.server.receive(self.now, id, bytes);
        self.drain();
        if result.is_err() {
            self.disconnect(id);
        }
    }

    fn disconnect(&mut self, id: ConnectionId) {
        self.server.disconnected(self.now, id);
        self.peers.remove(&id);
        for peer in self.peers.values_mut().filter(|peer| peer.way_in == Some(id)) {
            // What it says now is not heard.
            (peer.way_in, peer.is_orderly) = (None, false);
        }
        self.drain();
    }

    /// Lets time pass, stopping at every deadline on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut stops = 0;
        while let Some(at) = self.server.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.server.handle_timeout(self.now);
            self.drain();
            let next = self.server.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "what was due is due again");
            stops += 1;
            assert!(stops < 10_000, "time hardly passes");
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some((id, bytes)) = self.server.poll_transmit() {
            self.answer(id, &bytes);
        }
        let mut closing = Vec::new();
        while let Some(event) = self.server.poll_event() {
            if let Event::Close { connection } = event {
                let peer = self.peers.get_mut(&connection).expect("a connection that is there");
                assert!(!peer.is_closing, "closed twice");
                peer.is_closing = true;
                closing.push(connection);
            } else {
                self.event(event);
            }
        }
        closing.into_iter().for_each(|id| self.disconnect(id));
    }

    /// Looks at one answer: whole, printable, and the one that is due.
    fn answer(&mut self, id: ConnectionId, bytes: &[u8]) {
        let peer = self.peers.get_mut(&id).expect("somebody to answer");
        let text = std::str::from_utf8(bytes).expect("a text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        if head.starts_with("HTTP/1.0 ") {
            assert!(body.is_empty());
            return;
        }
        let status = head.strip_prefix("RTSP/1.0 ").and_then(|rest| rest.get(..3));
        let status: u16 = status.and_then(|digits| digits.parse().ok()).expect("a status");
        let mut headers: Vec<(&str, &str)> = Vec::new();
        for line in head.split("\r\n").skip(1) {
            assert!(!line.contains(char::is_control), "{line:?}");
            headers.push(line.split_once(": ").expect("a header"));
        }
        let header =
            |name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let body_len = header("Content-Length").map_or(0, |len| len.parse().expect("a number"));
        assert!(body.len() == body_len && bytes.len() < 16 << 10);
        if let Some((_, rest)) =
            header("WWW-Authenticate").and_then(|value| value.split_once("nonce=\""))
        {
            assert_eq!(status, 401);
            rest[..32].clone_into(&mut peer.nonce);
        }
        if let Some(session) = header("Session").and_then(|value| value.split(';').next()) {
            self.sessions.push(session.to_owned());
        }
        let cseq: Option<u32> = header("CSeq").map(|cseq| cseq.parse().expect("a number"));
        if peer.is_orderly {
            let (due, may_be_granted) = peer.asked.pop_front().expect("a question");
            assert_eq!(cseq, Some(due), "{head}");
            assert!(status != 200 || may_be_granted, "somebody got in");
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Play { session, stream, delivery } => {
                assert!(stream < 2 && !self.over.contains(&session));
                match delivery {
                    Delivery::Interleaved { connection, .. } => {
                        assert!(self.peers.contains_key(&connection));
                    }
                    Delivery::Udp { rtp, rtcp } => {
                        assert!(rtp.ip() == rtcp.ip() && rtp.port() >= 4000);
                    }
                    Delivery::Multicast { rtp, .. } => assert!(rtp.ip().is_multicast()),
                }
                assert!(self.playing.insert(session, delivery).is_none(), "played twice");
            }
            Event::Pause { session } => {
                assert!(self.playing.remove(&session).is_some(), "paused what did not play");
            }
            Event::Teardown { session, .. } => {
                self.playing.remove(&session);
                assert!(self.over.insert(session), "torn down twice");
            }
            Event::Rtcp { session, packet } => {
                assert!(!self.over.contains(&session) && packet.len() <= 255);
            }
            Event::IdrWanted { stream, session } => {
                assert!(stream < 2 && session.is_none_or(|session| !self.over.contains(&session)));
            }
            Event::Close { .. } => unreachable!("seen to before"),
        }
    }

    /// What holds between steps.
    fn check(&self) {
        let counts = self.server.counts();
        assert_eq!(counts.connections, self.peers.len());
        assert_eq!(counts.playing, self.playing.len());
        assert!(counts.playing <= counts.sessions && counts.sessions <= self.settings.max_viewers);
        assert!(self.has_logged_in || self.settings.no_auth || counts.sessions == 0);
        let mut from = BTreeMap::<_, usize>::new();
        for peer in self.peers.values() {
            *from.entry(peer.address.ip().to_canonical()).or_default() += 1;
        }
        assert!(from.values().all(|&count| count <= self.settings.max_per_address));
        // Whoever waits will get his answer, or is closed.
        let waits = |peer: &Peer| peer.is_orderly && !peer.asked.is_empty();
        assert!(!self.peers.values().any(waits) || self.server.poll_timeout().is_some());
        for (&session, delivery) in &self.playing {
            if let Delivery::Udp { rtp, rtcp } = *delivery {
                assert_eq!(self.server.session_of_rtcp(rtp), Some(session));
                assert_eq!(self.server.session_of_rtcp(rtcp), Some(session));
            }
        }
    }

    /// Everybody falls silent: soon nothing is left but who listens to a group over a connection
    /// that he keeps, and once that is gone nothing at all.
    fn end(&mut self) {
        self.pass(SESSION_TIMEOUT + IDLE_TIMEOUT + Duration::from_secs(120));
        self.check();
        for peer in self.peers.values() {
            assert!(!peer.is_orderly || peer.asked.is_empty(), "a question without an answer");
        }
        let is_kept = |delivery: &Delivery| matches!(delivery, Delivery::Multicast { .. });
        assert!(self.playing.values().all(is_kept), "{:?}", self.playing);
        let left: Vec<ConnectionId> = self.peers.keys().copied().collect();
        assert!(left.is_empty() || !self.playing.is_empty(), "nobody closes {left:?}");
        left.into_iter().for_each(|id| self.disconnect(id));
        self.pass(SESSION_TIMEOUT);
        let counts = self.server.counts();
        assert_eq!((counts.connections, counts.sessions, counts.playing), (0, 0, 0));
        assert_eq!(self.server.poll_timeout(), None);
    }
}

fn frame(channel: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).expect("at most 255");
    [&[b'$', channel & 3][..], &len.to_be_bytes(), content].concat()
}

fn pick<'a>(these: &[&'a str], number: u8) -> &'a str {
    these[usize::from(number) % these.len()]
}

fn settings(kind: u8) -> Settings {
    let user = |name: &str, password: &str, role| User {
        name: name.to_owned(),
        password: password.to_owned(),
        role,
    };
    let stream = |paths: &[&str], multicast| Stream {
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
        name: "front door".to_owned(),
        ssrc: 0x1a2b_3c4d,
        bandwidth_kbps: 2_000,
        fps: 25.0,
        multicast,
    };
    let group = Multicast {
        ipv4: Some([239, 255, 1, 2].into()),
        ipv6: None,
        port: 5004,
        ttl: 1,
        is_source_specific: kind & 4 != 0,
    };
    Settings {
        realm: "ocellus".to_owned(),
        users: vec![
            user("admin", "secret", Role::Admin),
            user("viewer", "look:here", Role::Viewer),
        ],
        no_auth: kind & 1 != 0,
        streams: vec![
            stream(&["main", "", "stream1"], (kind & 2 != 0).then_some(group)),
            stream(&["sub", "stream2"], None),
        ],
        server_ports: if kind & 8 == 0 { (8000, 8001) } else { (0, 0) },
        max_viewers: 1 + usize::from(kind >> 4 & 3),
        max_per_address: 2 + usize::from(kind >> 6),
    }
}

const METHODS: &[&str] = &[
    "SETUP",
    "PLAY",
    "DESCRIBE",
    "PAUSE",
    "TEARDOWN",
    "GET_PARAMETER",
    "OPTIONS",
    "SET_PARAMETER",
    "SETUP",
    "PLAY",
    "RECORD",
    "BREW",
    "SETUP",
    "PLAY",
    "TEARDOWN",
    "PAUSE",
];
const URLS: &[&str] = &[
    "rtsp://cam/main/",
    "rtsp://cam/main/trackID=0",
    "rtsp://cam/sub/trackID=0",
    "/main/",
    "rtsp://cam/",
    "*",
    "rtsp://cam/trackID=0",
    "rtsp://cam/main/multicast",
    "rtsp://cam/main/multicast/trackID=0",
    "rtsp://cam/nowhere",
    "rtsp://u:p@cam/main/trackID=0",
    "rtsp://cam/main/trackID=0?a;b",
    "main",
    "rtsp://cam/sub/",
    "rtsp://cam/main/trackID=7",
    "rtsp://cam/main/",
];
