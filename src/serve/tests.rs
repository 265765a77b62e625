//! The hub as its reactor sees it: viewers over every transport, on a virtual clock.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::fanout::{Body, Sent};
use crate::h264::AccessUnit;
use crate::rtsp::{ConnectionId, Multicast, SESSION_TIMEOUT};
use crate::stats::{Ending, Transport, Viewer};
use crate::time::{Instant, NtpTimestamp};

const GROUP: &str = "239.255.1.2:5004";
const SSRC: u32 = 0xdead_beef;

struct World {
    hub: Hub,
    stats: Arc<Stats>,
    now: Instant,
    /// Everything that was sent since last asked.
    sent: Vec<(Target, Vec<u8>)>,
}

impl World {
    fn new() -> Self {
        let multicast = Multicast {
            ipv4: Some(Ipv4Addr::new(239, 255, 1, 2)),
            ipv6: None,
            port: 5004,
            ttl: 1,
            is_source_specific: false,
        };
        let stream = crate::rtsp::Stream {
            paths: vec!["main".into()],
            name: "x".into(),
            ssrc: SSRC,
            bandwidth_kbps: 1_000,
            fps: 25.0,
            multicast: Some(multicast),
        };
        let rtsp = crate::rtsp::Settings {
            realm: "ocellus".into(),
            users: Vec::new(),
            no_auth: true,
            streams: vec![stream],
            server_ports: (8000, 8001),
            max_viewers: 64,
            max_per_address: 64,
        };
        let stream = StreamSettings {
            ssrc: SSRC,
            first_sequence: 65_530,
            timestamp_offset: 9,
            packet_len_max: 300,
        };
        let settings =
            Settings { rtsp, streams: vec![stream], cname: "x".into(), entropy: [3; 32] };
        let stats = Arc::new(Stats::default());
        let hub = Hub::new(settings, Arc::clone(&stats));
        Self { hub, stats, now: Instant::from_micros(1_000_000_000), sent: Vec::new() }
    }

    fn wall(&self) -> NtpTimestamp {
        NtpTimestamp::from_unix(Duration::from_micros(1_800_000_000_000_000 + self.now.as_micros()))
    }

    /// Lets time pass, stopping at every deadline, and sends all that is to be sent.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.drain();
        while let Some(due) = self.hub.poll_timeout().filter(|&due| due <= end) {
            self.now = self.now.max(due);
            self.hub.handle_timeout(self.now, self.wall());
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some((transmit, target)) = self.hub.poll_transmit() {
            let (bytes, count) = match &transmit.body {
                Body::Bytes { image, range } => {
                    (image.bytes()[range.clone()].to_vec(), range.len())
                }
                Body::Message { bytes, from } if matches!(target, Target::Udp { .. }) => {
                    (bytes[*from..].to_vec(), 1)
                }
                Body::Message { bytes, from } => (bytes[*from..].to_vec(), bytes.len() - from),
                Body::Packets { image, packets } => (
                    packets.clone().flat_map(|at| image.packet(at).to_vec()).collect(),
                    packets.len(),
                ),
            };
            self.sent.push((target, bytes));
            self.hub.sent(self.now, &transmit, Sent::Some(count));
        }
    }

    fn connect(&mut self, peer: &str) -> ConnectionId {
        let local = "192.0.2.1:554".parse().unwrap();
        let wall = self.wall();
        self.hub.accept(self.now, wall, peer.parse().unwrap(), local).unwrap().0
    }

    /// Sends a request and returns the answer.
    fn ask(&mut self, id: ConnectionId, request: &str, more: &str) -> String {
        let text = format!("{request} RTSP/1.0\r\nCSeq: 1\r\n{more}\r\n");
        let wall = self.wall();
        self.hub.receive(self.now, wall, id, text.as_bytes());
        self.drain();
        let is_here = |target: &Target| matches!(target, Target::Connection(to, _) if *to == id);
        let here = self.sent.iter().filter(|(target, _)| is_here(target));
        String::from_utf8_lossy(&here.flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>())
            .into()
    }

    /// Plays, and returns the Session header.
    fn play(&mut self, id: ConnectionId, transport: &str) -> String {
        let setup = "SETUP rtsp://cam/main/trackID=0";
        let answer = self.ask(id, setup, &format!("Transport: {transport}\r\n"));
        let session = answer.split("Session: ").nth(1).unwrap().split(';').next().unwrap();
        let session = format!("Session: {session}\r\n");
        self.ask(id, "PLAY rtsp://cam/main", &session);
        self.picture(true);
        session
    }

    fn picture(&mut self, is_idr: bool) {
        self.picture_of(is_idr, Duration::from_millis(40));
    }

    /// A picture, and time until the next.
    fn picture_of(&mut self, is_idr: bool, interval: Duration) {
        let mut unit = AccessUnit::with_capacity(1_000);
        unit.reset(self.now);
        let sps = [
            0x67, 0x64, 0x00, 0x0a, 0xac, 0x72, 0x84, 0x44, 0x26, 0x84, 0x00, 0x00, 0x03, 0x00,
            0x04, 0x00, 0x00, 0x03, 0x00, 0xca, 0x3c, 0x48, 0x96, 0x11, 0x80,
        ];
        let kind = if is_idr { 0x65 } else { 0x41 };
        if is_idr {
            unit.push(&sps).unwrap();
            unit.push(&[0x68, 0xe8, 0x43, 0x8f, 0x13, 0x21, 0x30]).unwrap();
        }
        unit.push(&[&[kind, 0x88][..], &[0x55; 500]].concat()).unwrap();
        let wall = self.wall();
        self.hub.publish(self.now, wall, 0, &unit);
        self.drain();
        self.pass(interval);
    }

    fn viewers(&self) -> Vec<Viewer> {
        let mut viewers = Vec::new();
        self.hub.viewers(self.now, &mut viewers);
        viewers
    }

    /// What went to the group since last asked: how many sends of media, and its RTCP.
    fn take_group(&mut self) -> (usize, Vec<Vec<u8>>) {
        let group: SocketAddr = GROUP.parse().unwrap();
        let sent = std::mem::take(&mut self.sent).into_iter();
        let sent =
            sent.filter(|(target, _)| matches!(target, Target::Udp { rtp, .. } if *rtp == group));
        let (reports, media): (Vec<_>, Vec<_>) =
            sent.map(|(_, bytes)| bytes).partition(|bytes| bytes[1] == 200);
        (media.len(), reports)
    }
}

const MULTICAST: &str = "RTP/AVP;multicast";

fn has_bye(report: &[u8]) -> bool {
    report[report.len() - 8..][..4] == [0x81, 203, 0, 1]
}

#[test]
fn any_number_of_viewers_of_a_group_cost_as_much_as_one() {
    let mut world = World::new();
    let id = world.connect("192.0.2.7:40000");
    world.play(id, MULTICAST);
    let (media, reports) = world.take_group();
    assert_eq!((media, reports.len()), (1, 1), "the IDR and a first report");
    let mut costs = Vec::new();
    for viewers in 1..=5 {
        world.sent.clear();
        for picture in 0..250 {
            world.picture(picture % 25 == 0);
        }
        let (media, reports) = world.take_group();
        assert!(reports.iter().all(|report| !has_bye(report)));
        costs.push((media, reports.len()));
        let rows = world.viewers();
        assert_eq!((rows.len(), rows[0].sessions), (1, viewers));
        assert_eq!(
            (rows[0].transport, rows[0].peer),
            (Transport::Multicast, GROUP.parse().unwrap())
        );
        let id = world.connect(&format!("192.0.2.{}:40000", 10 + viewers));
        world.play(id, MULTICAST);
    }
    // Ten seconds: 250 pictures and two reports.
    assert!(costs.iter().all(|cost| *cost == (250, 2)), "{costs:?}");
    assert!(world.viewers()[0].packets > 5 * 500);
}

#[test]
fn a_group_begins_with_the_first_viewer_and_ends_with_the_last() {
    let mut world = World::new();
    world.picture(true);
    assert!(world.sent.is_empty());
    let ids = [7, 8, 9].map(|n| world.connect(&format!("192.0.2.{n}:40000")));
    let sessions = ids.map(|id| world.play(id, MULTICAST));
    world.sent.clear();
    // One pauses, one tears down, and one is never heard of again.
    world.ask(ids[0], "PAUSE rtsp://cam/main", &sessions[0]);
    world.ask(ids[1], "TEARDOWN rtsp://cam/main", &sessions[1]);
    let wall = world.wall();
    world.hub.disconnected(world.now, wall, ids[2]);
    world.take_group();
    world.picture(false);
    assert_eq!(world.take_group().0, 1);
    world.pass(SESSION_TIMEOUT);
    let (_, reports) = world.take_group();
    assert!(has_bye(reports.last().unwrap()), "{reports:?}");
    assert_eq!(reports.iter().filter(|report| has_bye(report)).count(), 1);
    world.picture(true);
    assert_eq!(world.take_group(), (0, vec![]));
    assert_eq!(world.viewers().len(), 0);
    let ended = Ending::ALL.map(|why| (why, world.stats.endings.of(why).get()));
    let ended: Vec<_> = ended.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(ended, [(Ending::TornDown, 1), (Ending::TimedOut, 2)]);
    // It begins anew for who comes later.
    let id = world.connect("192.0.2.7:40001");
    world.play(id, MULTICAST);
    assert_eq!(world.take_group().0, 1);
    world.hub.end(world.now, world.wall());
    world.drain();
    assert!(has_bye(world.take_group().1.last().unwrap()));
}

#[test]
fn a_paused_session_may_go_from_the_group_to_ports_of_its_own_and_back() {
    let mut world = World::new();
    let id = world.connect("192.0.2.7:40000");
    let session = world.play(id, MULTICAST);
    for (transport, expected) in [
        ("RTP/AVP;unicast;client_port=5000-5001", Transport::Udp),
        (MULTICAST, Transport::Multicast),
    ] {
        world.ask(id, "PAUSE rtsp://cam/main", &session);
        let more = format!("Transport: {transport}\r\n{session}");
        world.ask(id, "SETUP rtsp://cam/main/trackID=0", &more);
        world.ask(id, "PLAY rtsp://cam/main", &session);
        world.sent.clear();
        world.picture(true);
        let rows = world.viewers();
        assert_eq!((rows.len(), rows[0].transport, rows[0].sessions), (1, expected, 1));
        let is_group = expected == Transport::Multicast;
        assert_eq!(world.take_group().0, usize::from(is_group));
    }
}

#[test]
fn what_a_receiver_reports_is_shown_with_its_round_trip() {
    let mut world = World::new();
    let id = world.connect("192.0.2.7:40000");
    let session = world.play(id, "RTP/AVP;unicast;client_port=5000-5001");
    let rtcp: SocketAddr = "192.0.2.7:5001".parse().unwrap();
    let report = world.sent.iter().rfind(|(_, bytes)| bytes[1] == 200).unwrap().1.clone();
    let mut answer = vec![0x81, 201, 0, 7, 0, 0, 0, 1];
    answer.extend(SSRC.to_be_bytes());
    answer.extend([64, 0, 0, 5, 0, 0, 0, 0]);
    answer.extend(900_u32.to_be_bytes());
    // LSR: the middle of the report's time; DLSR: 10 ms.
    answer.extend(&report[10..14]);
    answer.extend((65_536_u32 / 100).to_be_bytes());
    let mut strange = answer.clone();
    strange[8] ^= 1;
    for (datagram, from) in [(&strange, rtcp), (&answer, "192.0.2.7:5003".parse().unwrap())] {
        world.hub.datagram(world.now, world.wall(), from, datagram);
        assert_eq!(world.viewers()[0].reception, None);
    }
    world.hub.datagram(world.now, world.wall(), rtcp, &answer);
    let reception = world.viewers()[0].reception.unwrap();
    assert_eq!((reception.loss, reception.lost), (0.25, 5));
    assert_eq!(reception.jitter, Duration::from_millis(10));
    // The picture that followed the report took 40 ms.
    let round_trip = reception.round_trip.unwrap();
    assert!(round_trip.abs_diff(Duration::from_millis(30)) < Duration::from_millis(1));
    // Paused, it does not watch; when it comes back, it is the same.
    world.ask(id, "PAUSE rtsp://cam/main", &session);
    assert_eq!(world.viewers(), []);
    world.ask(id, "PLAY rtsp://cam/main", &session);
    world.picture(true);
    assert_eq!((world.viewers()[0].number, world.viewers()[0].reception), (1, Some(reception)));
    world.ask(id, "TEARDOWN rtsp://cam/main", &session);
    assert_eq!(world.viewers(), []);
}

#[test]
fn the_time_of_day_is_that_of_the_picture_and_only_told_when_it_is_right() {
    for is_right in [false, true] {
        let mut world = World::new();
        world.hub.clock_is_right(is_right);
        let id = world.connect("192.0.2.7:40000");
        assert!(!world.hub.is_starting(0));
        world.play(id, "RTP/AVP/TCP;unicast;interleaved=0-1");
        let written: Vec<u8> = world.sent.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let written = String::from_utf8_lossy(&written).into_owned();
        // 2027-01-15 08:00:00 and the clock's 1000 s.
        let expected =
            if is_right { "Range: clock=20270115T081640.000Z-" } else { "Range: npt=now-" };
        assert!(written.contains(expected), "{written}");
    }
}

#[test]
fn a_stream_that_needs_more_than_it_was_said_to_says_so_later() {
    let mut world = World::new();
    let id = world.connect("192.0.2.7:40000");
    // 25 pictures of three packets a second are 136 kbit/s with their headers.
    for picture in 0..200 {
        world.picture(picture % 25 == 0);
    }
    let answer = world.ask(id, "DESCRIBE rtsp://cam/main", "");
    assert!(answer.contains("b=AS:1000\r\n"), "{answer}");
    for picture in 0..2_100 {
        world.picture_of(picture % 25 == 0, Duration::from_millis(1));
    }
    let answer = world.ask(id, "DESCRIBE rtsp://cam/main", "");
    let said = answer.split("b=AS:").nth(2).unwrap().split('\r').next().unwrap();
    let said: u32 = said.parse().unwrap();
    assert!((5_000..8_000).contains(&said), "{said}");
}

/// All that is sent in two minutes around `wrap`, without what is of that moment alone.
fn two_minutes_around(wrap: u64) -> Vec<(u8, usize, u32, u32)> {
    let mut world = World::new();
    // On a whole tick of 90 kHz, so that timestamps are rounded alike.
    world.now = Instant::from_micros((wrap - 20_000_000) / 100 * 100);
    let first = crate::time::RtpTimestamp::at(world.now, 9).0;
    let ids = [7, 8].map(|n| world.connect(&format!("192.0.2.{n}:40000")));
    world.play(ids[0], "RTP/AVP/TCP;unicast;interleaved=0-1");
    world.play(ids[1], "RTP/AVP;unicast;client_port=5000-5001");
    for picture in 0..750 {
        world.picture(picture % 25 == 0);
    }
    // One is never heard of again; his reports end with his session.
    let wall = world.wall();
    world.hub.disconnected(world.now, wall, ids[1]);
    world.pass(Duration::from_secs(95));
    assert_eq!(world.stats.endings.of(Ending::TimedOut).get(), 1, "at {wrap}");
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let seen = |(target, bytes): (Target, Vec<u8>)| {
        let is_stream = matches!(target, Target::Connection(..));
        let packet = if is_stream { bytes.get(4..).filter(|_| bytes[0] == b'$')? } else { &bytes };
        let (kind, sequence) = (packet[1], number(&packet[0..4]) & 0xffff);
        Some(match kind {
            200 => (
                kind,
                bytes.len(),
                number(&packet[16..20]).wrapping_sub(first),
                number(&packet[20..24]),
            ),
            _ => (kind, bytes.len(), number(&packet[4..8]).wrapping_sub(first), sequence),
        })
    };
    std::mem::take(&mut world.sent).into_iter().filter_map(seen).collect()
}

#[test]
fn timers_and_packets_do_not_notice_how_long_the_machine_is_up() {
    let young = two_minutes_around(1_000_000_000);
    let kinds =
        |wanted: u8| young.iter().filter(|(kind, ..)| *kind & 0x7f == wanted & 0x7f).count();
    assert!(young.len() > 1_500 && kinds(200) > 10, "{} {}", young.len(), kinds(200));
    // 2^31 and 2^32 ticks of 90 kHz, microseconds, milliseconds and seconds; 2^63 ns.
    let ticks = (1_u64 << 31) / 9 * 100;
    for half in [ticks, 1 << 31, 1_000 << 31, 1_000_000 << 31, (1 << 63) / 1_000] {
        for wrap in [half, 2 * half] {
            assert!(two_minutes_around(wrap) == young, "at {wrap} us");
        }
    }
}

#[test]
fn a_connection_that_is_reset_is_no_stalled_viewer() {
    let mut world = World::new();
    let viewer = world.connect("192.0.2.7:40000");
    world.play(viewer, "RTP/AVP/TCP;unicast;interleaved=0-1");
    // Somebody asks, and is gone before he is answered.
    let stranger = world.connect("192.0.2.8:40000");
    while world.hub.poll_action().is_some() {}
    let wall = world.wall();
    let options = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n";
    world.hub.receive(world.now, wall, stranger, options);
    world.hub.receive(world.now, wall, viewer, options);
    while let Some((transmit, _)) = world.hub.poll_transmit() {
        world.hub.sent(world.now, &transmit, Sent::Failed);
    }
    for connection in [stranger, viewer] {
        assert_eq!(world.hub.poll_action(), Some(Action::Abort(connection)));
        world.hub.disconnected(world.now, wall, connection);
    }
    assert_eq!(world.stats.stalled.get(), 0);
    assert_eq!(world.stats.endings.of(Ending::Stalled).get(), 0);
    assert_eq!(world.stats.endings.of(Ending::Disconnected).get(), 1);
    assert!(world.viewers().is_empty());
}
