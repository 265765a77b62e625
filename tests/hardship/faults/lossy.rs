//! A lossy relay between a UDP viewer and the camera: it loses, doubles, reorders and delays in both
//! directions, from one seed.
//!
//! What reaches the relay is judged as strictly as what reaches a viewer: whatever becomes of it
//! later, and whatever the viewer's reports say, the camera sends everything, once and in order.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{QUIET, run};
use crate::camera::{Camera, credentials};
use crate::capture::Kind;
use crate::client::{Client, Lower};
use crate::framing::rtp_head;
use crate::stand::Viewer;
use crate::validate::{Expect, validate};

/// One direction.
struct Way {
    random: u64,
    /// Everything that was given to it.
    taken: Vec<Vec<u8>>,
    /// On their way, with the moment of their arrival.
    packets: Vec<(Instant, Vec<u8>)>,
    lost: Vec<Vec<u8>>,
}

impl Way {
    fn new(seed: u64) -> Self {
        Self { random: seed, taken: Vec::new(), packets: Vec::new(), lost: Vec::new() }
    }

    /// splitmix64.
    fn percent(&mut self, share: u64) -> bool {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % 100 < share
    }

    fn put(&mut self, now: Instant, packet: &[u8]) {
        self.taken.push(packet.to_vec());
        if self.percent(LOST) {
            return self.lost.push(packet.to_vec());
        }
        let copies = if self.percent(DOUBLED) { 2 } else { 1 };
        for _ in 0..copies {
            let held_up = if self.percent(REORDERED) { DELAY / 4 } else { Duration::ZERO };
            self.packets.push((now + DELAY + held_up, packet.to_vec()));
        }
    }

    /// What has arrived by now, in the order of its arrival.
    fn take(&mut self, now: Instant) -> Vec<Vec<u8>> {
        // Stable, so that packets which are not held up keep their order.
        self.packets.sort_by_key(|(at, _)| *at);
        let count = self.packets.partition_point(|(at, _)| *at <= now);
        self.packets.drain(..count).map(|(_, packet)| packet).collect()
    }
}

/// The viewer at the far end: no more than what he counts for his reports.
#[derive(Default)]
struct Far {
    ssrc: [u8; 4],
    sequences: BTreeSet<u16>,
    newest: Option<u16>,
    reordered: usize,
    doubled: usize,
    reports: usize,
    /// The middle of the newest sender report's NTP time, and when it came.
    last_report: Option<([u8; 4], Instant)>,
    is_gap_new: bool,
}

impl Far {
    fn hear(&mut self, now: Instant, packet: &[u8]) {
        if packet[1] == SENDER_REPORT {
            self.reports += 1;
            self.last_report = Some((packet[10..14].try_into().unwrap(), now));
            return;
        }
        let sequence = rtp_head(packet).unwrap().sequence;
        self.ssrc = packet[8..12].try_into().unwrap();
        self.doubled += usize::from(!self.sequences.insert(sequence));
        let step = self.newest.map_or(1, |newest| sequence.wrapping_sub(newest));
        if step < 1 << 15 {
            self.newest = Some(sequence);
            self.is_gap_new |= step > 1;
        } else {
            self.reordered += 1;
        }
    }

    /// A receiver report (RFC 3550 6.4.2), with PLI (RFC 4585 6.3.1) after a gap.
    fn report(&mut self, now: Instant, lost: usize) -> Option<Vec<u8>> {
        let newest = self.newest?;
        let (lsr, since) = self.last_report?;
        let delay = now.duration_since(since).as_millis() as u32 * 65_536 / 1_000;
        let mut bytes = vec![0x81, 201, 0, 7, 0, 0, 0, 7];
        bytes.extend(self.ssrc);
        bytes.extend((lost as u32 & 0xff_ffff | 13 << 24).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(newest.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(lsr);
        bytes.extend(delay.to_be_bytes());
        if std::mem::take(&mut self.is_gap_new) {
            bytes.extend([0x81, 206, 0, 2, 0, 0, 0, 7]);
            bytes.extend(self.ssrc);
        }
        Some(bytes)
    }
}

/// Of the RTP packets among `packets`.
fn sequences<'a>(packets: impl IntoIterator<Item = &'a Vec<u8>>) -> BTreeSet<u16> {
    let media = packets.into_iter().filter(|packet| packet[1] != SENDER_REPORT);
    media.map(|packet| rtp_head(packet).unwrap().sequence).collect()
}

/// Plays by UDP through the relay for a while.
fn play_through(url: &str, seed: u64) -> (Client, Far, Way) {
    let mut client = Client::connect(url, &credentials());
    assert_eq!(client.describe().status(), 200);
    let reply = client.setup(Lower::Udp);
    assert_eq!(reply.status(), 200);
    let transport = reply.header("Transport").unwrap();
    let ports = transport.split(';').find_map(|part| part.strip_prefix("server_port=")).unwrap();
    let port: u16 = ports.split('-').nth(1).unwrap().parse().unwrap();
    let camera = SocketAddr::new(client.stream().peer_addr().unwrap().ip(), port);
    assert_eq!(client.play().status(), 200);
    let (mut there, mut back, mut far) = (Way::new(seed), Way::new(!seed), Far::default());
    let (began, mut seen, mut reported) = (Instant::now(), 0, Instant::now());
    while began.elapsed() < PLAYED {
        client.listen(Duration::from_millis(10));
        let now = Instant::now();
        for event in &client.capture.events[seen..] {
            if let Kind::Datagram { packet, .. } = &event.kind {
                there.put(now, packet);
            }
        }
        seen = client.capture.events.len();
        there.take(now).iter().for_each(|packet| far.hear(now, packet));
        if now.duration_since(reported) >= Duration::from_secs(1) {
            reported = now;
            let lost = there.lost.len();
            far.report(now, lost).iter().for_each(|report| back.put(now, report));
        }
        let [_, rtcp] = client.sockets().unwrap();
        for report in back.take(now) {
            rtcp.send_to(&report, camera).unwrap();
        }
    }
    (client, far, there)
}

#[test]
fn a_viewer_behind_a_lossy_way_misses_what_it_lost_and_nobody_else_anything() {
    let arguments = [&["--source", "pattern", "--size", "320x240"], &QUIET[..]].concat();
    let camera = Camera::spawn_beside(&mut run(&[], &arguments));
    let expect = Expect::pattern((320, 240));
    let direct = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
    let seed = std::env::var("OCELLUS_SEED").map_or(1, |seed| seed.parse().unwrap());
    eprintln!("OCELLUS_SEED={seed}");
    let (mut client, far, way) = play_through(&camera.url, seed);
    assert_eq!(client.teardown().status(), 200);
    let (findings, summary) = validate(&client.capture, &expect);
    assert!(findings.violations.is_empty(), "to the relay:\n{}", findings.report());
    for viewer in direct {
        viewer.judge_by(&expect);
    }
    let taken = sequences(&way.taken);
    let lost = sequences(&way.lost);
    let under_way = sequences(way.packets.iter().map(|(_, packet)| packet));
    let is_missed = |sequence: &&u16| !far.sequences.contains(sequence);
    let missed: BTreeSet<u16> = taken.iter().filter(is_missed).copied().collect();
    let explained: BTreeSet<u16> = lost.union(&under_way).copied().collect();
    assert!(missed.is_subset(&explained), "{:?}", missed.difference(&explained));
    // A relay that does nothing proves nothing.
    let happened = [lost.len(), far.doubled, far.reordered, far.reports];
    assert!(happened.iter().all(|&count| count > 0), "{happened:?}");
    eprintln!("{summary:?}, lost, doubled, reordered, reports: {happened:?}");
}

/// In per cent.
const LOST: u64 = 5;
const DOUBLED: u64 = 5;
const REORDERED: u64 = 20;
const DELAY: Duration = Duration::from_millis(200);
const PLAYED: Duration = Duration::from_secs(12);
const SENDER_REPORT: u8 = 200;
