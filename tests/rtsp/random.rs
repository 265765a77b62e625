//! Random dialogues and mutated transcripts: nothing panics, nothing grows, everything is
//! answered once and in order.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ocellus::rtsp::{ConnectionId, Event, Settings};

use crate::camera::{Camera, GROUPS, LOCAL, Random, digest, header, settings};

/// Lines that clients send, for the mutations to work on.
fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rtsp");
    let mut messages = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut message = String::new();
        for line in text.lines() {
            let line = line.trim_start_matches(['A', 'B', 'C']);
            let Some(line) = line.strip_prefix("> ") else { continue };
            message += line;
            message += "\r\n";
            if line.is_empty() {
                messages.push(std::mem::take(&mut message).into_bytes());
            }
        }
    }
    messages.sort();
    messages.dedup();
    messages.push(b"$\x01\x00\x08\x80\xc9\x00\x01\x00\x00\x00\x00".to_vec());
    messages.push(b"$\x00\xff\xff".to_vec());
    messages
}

fn mutate(random: &mut Random, message: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        let at = random.below(message.len().max(1));
        match random.below(7) {
            0 => message.truncate(at),
            1 if !message.is_empty() => message[at] = random.below(256).try_into().unwrap(),
            2 if !message.is_empty() => drop(message.remove(at)),
            3 => message.insert(at, b" \r\n:;=,-$\"0\0"[random.below(12)]),
            4 => {
                let end = at + random.below(message.len() - at + 1);
                let piece = message[at..end].to_vec();
                message.splice(at..at, piece);
            }
            5 => drop(message.splice(at..at, vec![b'9'; random.below(40)])),
            _ => {}
        }
    }
}

/// Replaces what transcripts leave open by what the server said last.
fn fill_in(random: &mut Random, message: &[u8], last: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(message);
    let session = header(last, "Session").map_or("0", |value| value.split(';').next().unwrap());
    let nonce = last.split("nonce=\"").nth(1).map_or("0", |rest| &rest[..rest.len().min(32)]);
    let mut filled = String::new();
    let mut parts = text.split('{');
    filled += parts.next().unwrap();
    for part in parts {
        let (name, after) = part.split_once('}').unwrap_or((part, ""));
        match name.split(' ').collect::<Vec<_>>()[..] {
            ["digest", user, password, method, uri] => {
                filled += &digest((user, password), nonce, method, uri);
            }
            _ if random.below(8) > 0 => filled += session,
            _ => filled += "00000000000000000000000000000001",
        }
        filled += after;
    }
    filled.into_bytes()
}

#[test]
fn mutated_dialogues_neither_panic_nor_pile_up() {
    let corpus = corpus();
    assert!(corpus.len() > 50);
    let is_start =
        |message: &&Vec<u8>| message.starts_with(b"SETUP") || message.starts_with(b"PLAY");
    let starts: Vec<_> = corpus.iter().filter(is_start).collect();
    let mut events = 0;
    for round in 0..40 {
        let mut random = Random::new(round);
        let no_auth = random.below(2) == 0;
        let mut settings = Settings { no_auth, ..settings() };
        settings.streams[0].multicast = (random.below(2) == 0).then_some(GROUPS);
        let mut camera = Camera::new(settings);
        let mut open: Vec<ConnectionId> = Vec::new();
        let mut last: BTreeMap<ConnectionId, String> = BTreeMap::new();
        for _ in 0..1_000 {
            if open.len() < 6 && random.below(4) == 0 {
                let peer = format!("192.0.2.{}:4000", random.below(3)).parse().unwrap();
                let accepted = camera.server.accept(camera.now, peer, LOCAL.parse().unwrap());
                open.extend(accepted);
            }
            match random.below(12) {
                0 => camera.sets(),
                1 => camera.idr(random.below(3), 7, 7),
                2 => camera.pass(Duration::from_millis(random.below(2_000).try_into().unwrap())),
                3 if random.below(10) == 0 => {
                    camera.pass(Duration::from_secs(random.below(100).try_into().unwrap()))
                }
                4 if !open.is_empty() && random.below(8) == 0 => {
                    let id = open.swap_remove(random.below(open.len()));
                    camera.disconnect(id);
                }
                _ if !open.is_empty() => {
                    let at = random.below(open.len());
                    let id = open[at];
                    let message = match random.below(2) {
                        0 => starts[random.below(starts.len())],
                        _ => &corpus[random.below(corpus.len())],
                    };
                    let known = last.get(&id).map_or("", String::as_str);
                    let mut message = fill_in(&mut random, message, known);
                    if random.below(4) == 0 {
                        mutate(&mut random, &mut message);
                    }
                    if !camera.send(id, &message) {
                        open.swap_remove(at);
                        camera.disconnect(id);
                    }
                }
                _ => {}
            }
            events += settle(&mut camera, &mut open, &mut last);
        }
    }
    // It has to have come further than refusals.
    assert!(events > 200, "{events}");
}

/// Does what the server asks for; returns how many sessions started.
fn settle(
    camera: &mut Camera,
    open: &mut Vec<ConnectionId>,
    last: &mut BTreeMap<ConnectionId, String>,
) -> usize {
    let mut played = 0;
    while let Some(event) = camera.events.pop_front() {
        match event {
            Event::Close { connection } => {
                open.retain(|id| *id != connection);
                camera.disconnect(connection);
            }
            Event::Play { .. } => played += 1,
            _ => {}
        }
    }
    for (id, bytes) in std::mem::take(&mut camera.output) {
        // At most one answer and those that waited behind it.
        assert!(bytes.len() < 64 * 1024);
        let text = String::from_utf8(bytes).unwrap();
        if text.contains("Session: ") || text.contains("nonce=") {
            last.insert(id, text);
        }
    }
    let counts = camera.server.counts();
    assert!(counts.sessions <= 4 && counts.playing <= counts.sessions);
    assert_eq!(counts.connections, open.len());
    let due = camera.server.poll_timeout();
    assert!(due.is_some() || (counts.connections, counts.sessions) == (0, 0));
    played
}

#[test]
fn every_request_is_answered_once_and_in_order() {
    const METHODS: [&str; 9] = [
        "OPTIONS",
        "DESCRIBE",
        "SETUP",
        "PLAY",
        "PAUSE",
        "TEARDOWN",
        "GET_PARAMETER",
        "RECORD",
        "BREW",
    ];
    for round in 0..300 {
        let mut random = Random::new(1_000 + round);
        let mut settings = Settings { no_auth: true, ..settings() };
        settings.streams[0].multicast = Some(GROUPS);
        let mut camera = Camera::new(settings);
        let id = camera.connect("192.0.2.7:40000");
        let mut session = "0".to_owned();
        let mut asked = Vec::new();
        let mut answered = String::new();
        for n in 0..40_u32 {
            let method = METHODS[random.below(METHODS.len())];
            let cseq = n * 3 + 1;
            let path =
                ["main/", "sub/", "nowhere", "main/trackID=0", "main/multicast/"][random.below(5)];
            let mut text = format!("{method} rtsp://cam/{path} RTSP/1.0\r\nCSeq: {cseq}\r\n");
            if random.below(4) > 0 && session != "0" {
                text += &format!("Session: {session}\r\n");
            }
            text += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1,RTP/AVP;multicast\r\n\r\n";
            asked.push(cseq);
            // With frames between, and cut anywhere.
            text += ["", "$\u{1}\u{0}\u{4}abcd", "\r\n"][random.below(3)];
            let (head, tail) = text.as_bytes().split_at(random.below(text.len()));
            assert!(camera.send(id, head) && camera.send(id, tail));
            match random.below(6) {
                0 => camera.idr(random.below(2), 7, 7),
                1 => camera.sets(),
                2 => camera.pass(Duration::from_millis(random.below(700).try_into().unwrap())),
                _ => {}
            }
            let output = camera.read(id);
            if let Some(value) = header(&output, "Session") {
                value.split(';').next().unwrap().clone_into(&mut session);
            }
            answered += &output;
        }
        for _ in 0..100 {
            camera.pass(Duration::from_millis(100));
        }
        answered += &camera.read(id);
        let cseqs = answered.lines().filter_map(|line| line.strip_prefix("CSeq: "));
        let cseqs: Vec<u32> = cseqs.map(|cseq| cseq.parse().unwrap()).collect();
        assert_eq!(cseqs, asked, "round {round}");
        assert_eq!(answered.matches("RTSP/1.0 ").count(), asked.len());
    }
}
