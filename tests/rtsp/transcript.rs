//! Plays the transcripts of `tests/data/rtsp` against the server; the README there has their
//! language.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use ocellus::rtsp::{ConnectionId, Delivery, Event, SessionId, Settings};

use crate::camera::{Camera, GROUPS, Random, digest, settings};

/// How input is cut before it reaches the server.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    Bytes,
    Random(u64),
}

struct Player {
    camera: Camera,
    cut: Cut,
    connections: BTreeMap<char, ConnectionId>,
    /// Lines written to each connection and not yet expected.
    lines: BTreeMap<char, Vec<String>>,
    variables: BTreeMap<String, String>,
    last_session: Option<SessionId>,
}

#[test]
fn every_transcript_plays_the_same_however_its_bytes_are_cut() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rtsp");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "txt"));
    paths.sort();
    assert!(paths.len() >= 10, "transcripts are missing");
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for cut in [Cut::Whole, Cut::Bytes].into_iter().chain((1..6).map(Cut::Random)) {
            play(&name, &text, cut);
        }
    }
}

fn play(name: &str, text: &str, cut: Cut) {
    let has = |wanted: &str| text.lines().any(|line| line == wanted);
    let mut settings = Settings { no_auth: has("@no-auth"), ..settings() };
    if has("@multicast") {
        settings.streams[0].multicast = Some(GROUPS);
    }
    let mut player = Player {
        camera: Camera::new(settings),
        cut,
        connections: BTreeMap::new(),
        lines: BTreeMap::new(),
        variables: BTreeMap::new(),
        last_session: None,
    };
    player.open("A 192.0.2.7:40000");
    let mut input = (String::new(), 'A');
    for (number, line) in text.lines().enumerate() {
        let at = format!("{name}:{} ({cut:?})", number + 1);
        let (marker, rest) = line.split_at(line.find(' ').unwrap_or(line.len()));
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        let (peer, marker) = match marker.split_at_checked(1) {
            Some((peer, marker @ (">" | "<"))) => (peer.chars().next().unwrap(), marker),
            _ => ('A', marker),
        };
        if marker == ">" {
            assert!(input.0.is_empty() || input.1 == peer, "{at}: flush before changing peers");
            input.1 = peer;
            write!(input.0, "{}\r\n", player.substitute(rest)).unwrap();
            continue;
        }
        if !input.0.is_empty() {
            player.expect_silence(&at);
            let (text, peer) = std::mem::replace(&mut input, (String::new(), 'A'));
            assert!(player.send(peer, text.as_bytes()), "{at}: connection ended");
        }
        match marker {
            "<" => player.expect_line(peer, rest, &at),
            "" | "#" | "@no-auth" | "@multicast" => {}
            _ => player.direct(marker, rest, &at),
        }
    }
    player.expect_silence(name);
}

impl Player {
    fn open(&mut self, rest: &str) {
        let (name, peer) = rest.split_once(' ').unwrap();
        let id = self.camera.connect(peer);
        self.connections.insert(name.chars().next().unwrap(), id);
    }

    /// Sends bytes cut as this run wants them; true while the connection may stay open.
    fn send(&mut self, peer: char, mut bytes: &[u8]) -> bool {
        let id = self.connections[&peer];
        let mut random = Random::new(match self.cut {
            Cut::Random(seed) => seed,
            _ => 0,
        });
        while !bytes.is_empty() {
            let len = match self.cut {
                Cut::Whole => bytes.len(),
                Cut::Bytes => 1,
                Cut::Random(_) => 1 + random.below(bytes.len().min(300)),
            };
            let (piece, rest) = bytes.split_at(len);
            bytes = rest;
            if !self.camera.send(id, piece) {
                return false;
            }
        }
        true
    }

    fn direct(&mut self, marker: &str, rest: &str, at: &str) {
        match marker {
            "@event" => {
                let event = self.camera.events.pop_front();
                let event = event.map_or_else(|| "none".to_owned(), |event| self.describe(&event));
                return assert_eq!(event, rest, "{at}");
            }
            // What was just sent, byte for byte, is expected to end the connection.
            "@ends" => {
                let (peer, text) = rest.split_once(' ').unwrap();
                let text = self.substitute(text).replace("\\r", "\r").replace("\\n", "\n");
                self.expect_silence(at);
                return assert!(!self.send(peer.chars().next().unwrap(), text.as_bytes()), "{at}");
            }
            _ => self.expect_silence(at),
        }
        match marker {
            "@open" => self.open(rest),
            "@drop" => self.camera.disconnect(self.connections[&rest.chars().next().unwrap()]),
            "@sets" => self.camera.sets(),
            "@alive" => {
                let session = self.last_session.unwrap();
                self.camera.server.alive(self.camera.now, session);
            }
            "@idr" => {
                let numbers: Vec<u32> = rest.split(' ').map(|n| n.parse().unwrap()).collect();
                let seq = u16::try_from(numbers[1]).unwrap();
                self.camera.idr(usize::try_from(numbers[0]).unwrap(), seq, numbers[2]);
            }
            "@frame" => {
                let (channel, text) = rest.split_once(' ').unwrap();
                let len = u16::try_from(text.len()).unwrap().to_be_bytes();
                let channel = channel.parse().unwrap();
                let frame = [&[b'$', channel, len[0], len[1]], text.as_bytes()].concat();
                assert!(self.send('A', &frame), "{at}");
            }
            _ if marker.starts_with("@+") => {
                let amount = &marker[2..];
                let time = match amount.strip_suffix("ms") {
                    Some(millis) => Duration::from_millis(millis.parse().unwrap()),
                    None => Duration::from_secs(amount.trim_end_matches('s').parse().unwrap()),
                };
                self.camera.pass(time);
            }
            _ => panic!("{at}: {marker}"),
        }
    }

    /// An event as transcripts write it.
    fn describe(&mut self, event: &Event) -> String {
        match event {
            Event::IdrWanted { stream, session } => {
                let who = if session.is_some() { "play" } else { "describe" };
                format!("idr-wanted {stream} {who}")
            }
            Event::Play { session, stream, delivery } => {
                self.last_session = Some(*session);
                match delivery {
                    Delivery::Interleaved { rtp_channel, rtcp_channel, .. } => {
                        format!("play {stream} interleaved {rtp_channel}-{rtcp_channel}")
                    }
                    Delivery::Udp { rtp, rtcp } => format!("play {stream} udp {rtp} {rtcp}"),
                    Delivery::Multicast { rtp, rtcp, from } => {
                        let from = from.map_or_else(|| "anywhere".to_owned(), |it| it.to_string());
                        format!("play {stream} multicast {rtp} {rtcp} from {from}")
                    }
                }
            }
            Event::Pause { .. } => "pause".to_owned(),
            Event::Teardown { .. } => "teardown".to_owned(),
            Event::Rtcp { packet, .. } => format!("rtcp {}", String::from_utf8_lossy(packet)),
            Event::Close { connection } => {
                let named = self.connections.iter().find(|(_, id)| *id == connection);
                format!("close {}", named.unwrap().0)
            }
        }
    }

    /// Takes the next line written to `peer` and compares it with a pattern.
    fn expect_line(&mut self, peer: char, pattern: &str, at: &str) {
        let written = self.camera.read(self.connections[&peer]);
        let lines = self.lines.entry(peer).or_default();
        lines.extend(written.split_terminator("\r\n").map(str::to_owned));
        assert!(!lines.is_empty(), "{at}: nothing was written");
        let line = lines.remove(0);
        // Text around `{name}` has to be equal; what stands for it is captured.
        let mut rest = line.as_str();
        let mut parts = pattern.split('{');
        rest = rest.strip_prefix(parts.next().unwrap()).unwrap_or_else(|| panic!("{at}: {line}"));
        for part in parts {
            let (name, after) = part.split_once('}').unwrap();
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let (value, tail) = rest.split_at(end);
            let known = self.variables.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            // Every challenge brings a nonce of its own.
            if name == "nonce" {
                value.clone_into(known);
            }
            assert_eq!(value, known, "{at}: {name}");
            rest = tail.strip_prefix(after).unwrap_or_else(|| panic!("{at}: {line}"));
        }
        assert_eq!(rest, "", "{at}: {line}");
    }

    /// Fails when something was written or asked for that the transcript does not have.
    fn expect_silence(&mut self, at: &str) {
        for (&name, &id) in &self.connections {
            let mut written = self.lines.remove(&name).unwrap_or_default().join("\n");
            written += &self.camera.read(id);
            assert_eq!(written, "", "{at}: written to {name}");
        }
        assert_eq!(self.camera.events, [], "{at}");
    }

    /// Puts variables into a line, and `{digest USER PASSWORD METHOD URI}`.
    fn substitute(&self, line: &str) -> String {
        let mut text = String::new();
        let mut parts = line.split('{');
        text += parts.next().unwrap();
        for part in parts {
            let (name, after) = part.split_once('}').unwrap();
            match name.split(' ').collect::<Vec<_>>()[..] {
                ["digest", user, password, method, uri] => {
                    text += &digest((user, password), &self.variables["nonce"], method, uri);
                }
                [name] => text += &self.variables[name],
                _ => panic!("{line}"),
            }
            text += after;
        }
        text
    }
}
