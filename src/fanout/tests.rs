use super::*;
use crate::h264::AccessUnit;
use crate::rtp::{ImagePool, Packetizer, Ssrc};

/// A stream of 30 fps with an IDR every ten access units.
struct Camera {
    packetizer: Packetizer,
    pool: ImagePool,
    number: u32,
    now: Instant,
}

impl Camera {
    fn new() -> Self {
        Self {
            packetizer: Packetizer::new(Ssrc(1), 100, 0, 1_372),
            pool: ImagePool::default(),
            number: 0,
            now: Instant::from_micros(1_000_000),
        }
    }

    fn next(&mut self, len: usize) -> Arc<WireImage> {
        let mut unit = AccessUnit::default();
        self.now += Duration::from_micros(33_333);
        unit.reset(self.now);
        if self.number.is_multiple_of(10) {
            unit.push(&[0x67, 66, 0, 30]).unwrap();
        }
        let mut nal = vec![if self.number.is_multiple_of(10) { 0x65 } else { 0x41 }; len];
        nal[1..5].copy_from_slice(&self.number.to_be_bytes());
        unit.push(&nal).unwrap();
        self.number += 1;
        self.pool.fill(|image| self.packetizer.packetize(&unit, image)).unwrap()
    }
}

const EVERYTHING: usize = 1 << 30;

/// Sends everything that is ready; `room` bytes or packets per transmit.
fn drain(fanout: &mut Fanout, now: Instant, room: usize) -> Vec<(ViewerId, Vec<u8>)> {
    let mut out = Vec::new();
    while let Some(Transmit { viewer, body }) = fanout.poll_transmit() {
        let (bytes, count) = match &body {
            Body::Bytes { image, range } => {
                let end = range.end.min(range.start + room);
                (image.bytes()[range.start..end].to_vec(), end - range.start)
            }
            Body::Packets { image, packets } => {
                let end = packets.end.min(packets.start + room);
                let packets = packets.start..end;
                (packets.clone().flat_map(|i| image.packet(i).to_vec()).collect(), packets.len())
            }
            Body::Message { bytes, from } => (bytes[*from..].to_vec(), bytes.len() - from),
        };
        fanout.sent(now, viewer, Sent::Some(count));
        out.push((viewer, bytes));
        assert!(out.len() < 10_000, "there is no end to it");
    }
    out
}

#[test]
fn the_picture_that_the_reply_to_play_names_is_sent_however_late_it_is() {
    for path in [Path::Stream, Path::Datagram] {
        let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
        let viewer = fanout.add(camera.now, path);
        fanout.play(viewer, 0);
        assert!(fanout.send(camera.now, viewer, Arc::from(&b"RTP-Info"[..])));
        let transmit = fanout.poll_transmit().unwrap();
        fanout.sent(camera.now, transmit.viewer, Sent::WouldBlock);
        let named = camera.next(100);
        fanout.offer(camera.now, 0, &named);
        for number in 1..35 {
            if number == 15 {
                fanout.interrupt(0);
            }
            let image = camera.next(100);
            fanout.offer(camera.now, 0, &image);
        }
        fanout.writable(viewer);
        fanout.handle_timeout(camera.now);
        let sent = drain(&mut fanout, camera.now, EVERYTHING).concat_bytes();
        let packet =
            if path == Path::Stream { &named.bytes()[..16] } else { &named.packet(0)[..12] };
        assert_eq!(sent[..8], *b"RTP-Info");
        assert_eq!(sent[8..8 + packet.len()], *packet, "{path:?}");
        // The named one has two packets, as the newest IDR; four pictures have followed that.
        assert_eq!((fanout.counts(viewer).packets, fanout.counts(viewer).dropped), (8, 29));
    }
}

#[test]
fn a_viewer_starts_at_an_idr_with_the_reply_ahead_of_it() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let viewer = fanout.add(camera.now, Path::Stream);
    camera.next(100);
    fanout.play(viewer, 0);
    for _ in 1..10 {
        let image = camera.next(100);
        fanout.offer(camera.now, 0, &image);
        assert!(fanout.poll_transmit().is_none());
    }
    assert!(fanout.send(camera.now, viewer, Arc::from(&b"RTSP/1.0 200 OK"[..])));
    let idr = camera.next(100);
    fanout.offer(camera.now, 0, &idr);
    fanout.offer(camera.now, 1, &camera.next(100));
    let sent: Vec<u8> = drain(&mut fanout, camera.now, EVERYTHING).concat_bytes();
    assert_eq!(sent, [b"RTSP/1.0 200 OK", idr.bytes()].concat());
    assert_eq!(fanout.counts(viewer).dropped, 0, "nothing was promised before the IDR");
    assert_eq!(fanout.counts(viewer).packets, 2);
    assert_eq!(fanout.poll_timeout(), None);
}

trait ConcatBytes {
    fn concat_bytes(self) -> Vec<u8>;
}

impl ConcatBytes for Vec<(ViewerId, Vec<u8>)> {
    fn concat_bytes(self) -> Vec<u8> {
        self.into_iter().flat_map(|(_, bytes)| bytes).collect()
    }
}

#[test]
fn a_slow_viewer_loses_whole_units_up_to_an_idr_and_the_others_lose_nothing() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let slow = fanout.add(camera.now, Path::Stream);
    let quick = fanout.add(camera.now, Path::Datagram);
    fanout.play(slow, 0);
    fanout.play(quick, 0);
    let (mut all, mut quick_got, mut slow_got) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..400 {
        let image = camera.next(60_000);
        all.extend((0..image.packet_count()).flat_map(|i| image.packet(i).to_vec()));
        fanout.offer(camera.now, 0, &image);
        for _ in 0..4 {
            while let Some(Transmit { viewer, body }) = fanout.poll_transmit() {
                let sent = match &body {
                    Body::Bytes { .. } if round % 50 != 49 => Sent::WouldBlock,
                    Body::Bytes { image, range } => {
                        slow_got.extend(&image.bytes()[range.clone()]);
                        Sent::Some(range.len())
                    }
                    Body::Packets { image, packets } => {
                        quick_got.extend(packets.clone().flat_map(|i| image.packet(i).to_vec()));
                        Sent::Some(packets.len())
                    }
                    Body::Message { .. } => unreachable!(),
                };
                fanout.sent(camera.now, viewer, sent);
            }
            camera.now += BURST_PAUSE;
            fanout.handle_timeout(camera.now);
        }
        if round % 50 == 48 {
            fanout.writable(slow);
        }
    }
    assert_eq!(quick_got, all);
    assert_eq!(fanout.counts(quick).dropped, 0);
    let counts = fanout.counts(slow);
    assert!(counts.drops >= 3 && counts.dropped > 200, "{counts:?}");
    // Every run of units the slow viewer got starts with an IDR.
    let mut expected = None;
    let mut rest = &slow_got[..];
    while let Some((prefix, tail)) = rest.split_first_chunk::<4>() {
        assert_eq!(prefix[..2], [b'$', 0]);
        let (packet, tail) = tail.split_at(usize::from(u16::from_be_bytes([prefix[2], prefix[3]])));
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        if expected.is_some_and(|expected| expected != sequence) || expected.is_none() {
            assert_eq!(packet[12] & 0x1f, 7, "after a gap comes an SPS");
        }
        expected = Some(sequence.wrapping_add(1));
        rest = tail;
    }
}

#[test]
fn a_viewer_that_takes_nothing_is_given_up_after_the_stall_deadline() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let viewer = fanout.add(camera.now, Path::Stream);
    fanout.play(viewer, 0);
    fanout.offer(camera.now, 0, &camera.next(100));
    let start = camera.now;
    fanout.offer(camera.now, 0, &camera.next(100));
    let transmit = fanout.poll_transmit().unwrap();
    fanout.sent(camera.now, transmit.viewer, Sent::Some(5));
    let transmit = fanout.poll_transmit().unwrap();
    fanout.sent(camera.now, transmit.viewer, Sent::WouldBlock);
    let deadline = fanout.poll_timeout().unwrap();
    assert!(deadline.since(start) <= STALL_DEADLINE + Duration::from_millis(100));
    fanout.handle_timeout(deadline - Duration::from_micros(1));
    assert_eq!(fanout.poll_event(), None);
    assert!(fanout.poll_transmit().is_none(), "it is blocked");
    fanout.handle_timeout(deadline);
    assert_eq!(fanout.poll_event(), Some(Event::Stalled(viewer)));
    assert_eq!(fanout.remove(viewer).packets, 3, "the SPS and two slices were queued");
    assert_eq!(fanout.remove(viewer), Counts::default());
    assert_ne!(fanout.add(camera.now, Path::Stream), viewer, "ids are not reused");
}

#[test]
fn a_process_that_stood_still_gives_up_on_nobody() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let viewers = [Path::Stream, Path::Datagram].map(|path| fanout.add(camera.now, path));
    viewers.iter().for_each(|&viewer| fanout.play(viewer, 0));
    fanout.offer(camera.now, 0, &camera.next(100));
    while let Some(transmit) = fanout.poll_transmit() {
        fanout.sent(camera.now, transmit.viewer, Sent::WouldBlock);
    }
    let later = camera.now + Duration::from_secs(15);
    fanout.handle_timeout(later);
    assert_eq!(fanout.poll_event(), None);
    fanout.writable(viewers[0]);
    let sent = drain(&mut fanout, later, EVERYTHING);
    assert!(viewers.iter().all(|viewer| sent.iter().any(|(to, _)| to == viewer)));
    // The one who takes nothing after that has only himself to blame.
    fanout.offer(later, 0, &camera.next(100));
    while let Some(transmit) = fanout.poll_transmit() {
        fanout.sent(later, transmit.viewer, Sent::WouldBlock);
    }
    fanout.handle_timeout(later + STALL_DEADLINE);
    assert_eq!(fanout.poll_event(), Some(Event::Stalled(viewers[0])));
}

#[test]
fn a_viewer_that_is_stopped_gets_the_rest_of_its_packet_and_no_more() {
    for cut in 0..4_200 {
        let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
        let viewer = fanout.add(camera.now, Path::Stream);
        fanout.play(viewer, 0);
        let image = camera.next(4_000);
        fanout.offer(camera.now, 0, &image);
        fanout.offer(camera.now, 0, &camera.next(4_000));
        let transmit = fanout.poll_transmit().unwrap();
        let Body::Bytes { range, .. } = transmit.body else { unreachable!() };
        let cut = cut.min(range.len());
        fanout.sent(camera.now, viewer, Sent::Some(cut));
        fanout.stop(viewer);
        assert!(fanout.send(camera.now, viewer, Arc::from(&b"RTSP"[..])));
        let rest = drain(&mut fanout, camera.now, EVERYTHING).concat_bytes();
        let sent = [&image.bytes()[..cut], &rest].concat();
        let media = sent.strip_suffix(b"RTSP").unwrap();
        let whole = (0..image.packet_count()).map(|i| image.packet_end(i)).find(|end| *end >= cut);
        let expected = if cut == 0 { 0 } else { whole.unwrap() };
        assert_eq!(media.len(), expected, "cut at {cut}");
        let packets = (0..image.packet_count()).filter(|&i| image.packet_end(i) <= expected);
        let counts = fanout.counts(viewer);
        assert_eq!(counts.packets, packets.clone().count() as u64);
        let octets: usize = packets.map(|i| image.packet(i).len() - 12).sum();
        assert_eq!(counts.octets, octets as u64);
    }
}

#[test]
fn a_long_picture_goes_to_a_udp_viewer_in_bursts() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let viewer = fanout.add(camera.now, Path::Datagram);
    fanout.play(viewer, 0);
    fanout.offer(camera.now, 0, &camera.next(200_000));
    let mut bursts = 0;
    loop {
        let sent = drain(&mut fanout, camera.now, EVERYTHING).concat_bytes().len();
        assert!(sent <= 1_372 * BURST_PACKETS);
        bursts += 1;
        assert!(bursts < 10);
        let Some(due) = fanout.poll_timeout() else { break };
        assert_eq!(due, camera.now + BURST_PAUSE);
        fanout.handle_timeout(due);
        camera.now = due;
    }
    assert_eq!(bursts, 5);
    assert_eq!(fanout.counts(viewer).dropped, 0);
}

#[test]
fn messages_that_nobody_reads_are_bounded() {
    let (mut fanout, camera) = (Fanout::default(), Camera::new());
    let viewer = fanout.add(camera.now, Path::Stream);
    for _ in 0..queue::MESSAGES_MAX {
        assert!(fanout.send(camera.now, viewer, Arc::from(&b"x"[..])));
    }
    assert!(!fanout.send(camera.now, viewer, Arc::from(&b"x"[..])));

    let viewer = fanout.add(camera.now, Path::Stream);
    let replies: Arc<[u8]> = Arc::from(vec![0; 40_000]);
    let taken = (0..64).take_while(|_| fanout.send(camera.now, viewer, Arc::clone(&replies)));
    assert_eq!(taken.count(), 2, "the bytes are bounded, too");
}

#[test]
fn one_stalled_viewer_of_a_long_gop_leaves_images_for_the_others() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let stalled = fanout.add(camera.now, Path::Stream);
    let quick = fanout.add(camera.now, Path::Datagram);
    fanout.play(stalled, 0);
    fanout.play(quick, 0);
    fanout.offer(camera.now, 0, &camera.next(100));
    for _ in 0..400 {
        // Never an IDR again.
        camera.number = 1;
        let image = camera.next(100);
        fanout.offer(camera.now, 0, &image);
        while let Some(Transmit { viewer, body }) = fanout.poll_transmit() {
            let sent = match body {
                Body::Packets { packets, .. } => Sent::Some(packets.len()),
                _ => Sent::WouldBlock,
            };
            fanout.sent(camera.now, viewer, sent);
        }
    }
    assert_eq!(fanout.counts(quick).dropped, 0);
    assert!(fanout.counts(stalled).dropped >= 270);
}

#[test]
fn a_udp_viewer_whose_packets_never_leave_is_given_up_too() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let viewer = fanout.add(camera.now, Path::Datagram);
    fanout.play(viewer, 0);
    let image = camera.next(100);
    let start = camera.now;
    fanout.offer(start, 0, &image);
    let mut waits = 0;
    while let Some(due) = fanout.poll_timeout() {
        if let Some(transmit) = fanout.poll_transmit() {
            fanout.sent(camera.now, transmit.viewer, Sent::WouldBlock);
            continue;
        }
        waits += 1;
        assert!(waits < 10_000, "it is never given up");
        camera.now = due;
        fanout.handle_timeout(due);
    }
    assert_eq!(fanout.poll_event(), Some(Event::Stalled(viewer)));
    assert_eq!(camera.now.since(start), STALL_DEADLINE);
}

impl Camera {
    /// The next access unit, with or without an IDR picture whatever its number.
    fn coded(&mut self, is_idr: bool, len: usize) -> Arc<WireImage> {
        self.number = u32::from(!is_idr);
        self.next(len)
    }
}

/// Offers access units of one length, the first with an IDR picture; how many got into the queue.
fn fill(fanout: &mut Fanout, camera: &mut Camera, viewer: ViewerId, len: usize) -> u64 {
    fanout.offer(camera.now, 0, &camera.coded(true, len));
    let before = fanout.counts(viewer).dropped;
    for taken in 1..200 {
        fanout.offer(camera.now, 0, &camera.coded(false, len));
        if fanout.counts(viewer).dropped > before {
            return taken;
        }
    }
    unreachable!("nothing bounds the queue")
}

/// Sends one whole item of a stream's queue.
fn send_one(fanout: &mut Fanout, now: Instant) -> Body {
    let Transmit { viewer, body } = fanout.poll_transmit().unwrap();
    let len = match &body {
        Body::Bytes { range, .. } => range.len(),
        Body::Packets { packets, .. } => packets.len(),
        Body::Message { bytes, from } => bytes.len() - from,
    };
    fanout.sent(now, viewer, Sent::Some(len));
    body
}

#[test]
fn what_is_said_of_a_viewer_follows_what_is_sent_to_it() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let viewer = fanout.add(camera.now, Path::Stream);
    fanout.play(viewer, 0);
    assert_eq!(fanout.progress(viewer), Some(camera.now));
    camera.now += Duration::from_secs(20);
    let image = camera.next(100);
    fanout.offer(camera.now, 0, &image);
    assert_eq!(fanout.progress(viewer), Some(camera.now), "there was nothing to send before");
    assert_eq!(fanout.poll_timeout(), Some(camera.now + STALL_DEADLINE));
    assert!(!fanout.is_drained(viewer) && !fanout.is_blocked(viewer));
    assert_eq!(fanout.oldest(viewer), Some(image.captured()));
    fanout.offer(camera.now, 0, &camera.next(100));
    assert_eq!(fanout.oldest(viewer), Some(image.captured()));

    let transmit = fanout.poll_transmit().unwrap();
    fanout.sent(camera.now, transmit.viewer, Sent::WouldBlock);
    assert!(fanout.is_blocked(viewer));
    fanout.writable(viewer);
    assert!(!fanout.is_blocked(viewer));
    let later = camera.now + Duration::from_secs(1);
    drain(&mut fanout, later, EVERYTHING);
    assert_eq!((fanout.progress(viewer), fanout.oldest(viewer)), (Some(later), None));
    assert!(fanout.is_drained(viewer) && !fanout.is_blocked(viewer));

    fanout.remove(viewer);
    assert!(fanout.is_drained(viewer) && !fanout.is_blocked(viewer));
    assert_eq!((fanout.progress(viewer), fanout.oldest(viewer)), (None, None));
}

#[test]
fn a_viewer_that_leaves_takes_nobody_elses_turn_away() {
    let (mut fanout, now) = (Fanout::default(), Instant::from_micros(1));
    let [first, second, third] = [(); 3].map(|()| fanout.add(now, Path::Stream));
    for viewer in [first, second, third] {
        assert!(fanout.send(now, viewer, Arc::from(&b"x"[..])));
    }
    fanout.remove(second);
    let turns: Vec<_> = drain(&mut fanout, now, EVERYTHING).into_iter().map(|it| it.0).collect();
    assert_eq!(turns, [first, third]);
}

#[test]
fn a_socket_that_takes_nothing_is_no_progress() {
    let (mut fanout, start) = (Fanout::default(), Instant::from_micros(1));
    let viewer = fanout.add(start, Path::Stream);
    assert!(fanout.send(start, viewer, Arc::from(&b"x"[..])));
    for second in 1..10 {
        let transmit = fanout.poll_transmit().unwrap();
        fanout.sent(start + Duration::from_secs(second), transmit.viewer, Sent::Some(0));
    }
    assert_eq!(fanout.progress(viewer), Some(start));
    fanout.handle_timeout(start + STALL_DEADLINE);
    assert_eq!(fanout.poll_event(), Some(Event::Stalled(viewer)));
}

#[test]
fn only_bursts_of_datagrams_are_followed_by_a_pause() {
    for path in [Path::Stream, Path::Datagram] {
        let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
        let viewer = fanout.add(camera.now, path);
        fanout.play(viewer, 0);
        for _ in 0..3 {
            fanout.offer(camera.now, 0, &camera.next(100));
        }
        for _ in 0..3 {
            send_one(&mut fanout, camera.now);
        }
        assert!(fanout.is_drained(viewer));
        assert_eq!(fanout.poll_timeout(), None, "{path:?}");
    }
    let (mut fanout, now) = (Fanout::default(), Instant::from_micros(1));
    let viewer = fanout.add(now, Path::Datagram);
    assert!(fanout.send(now, viewer, Arc::from(&b"x"[..])));
    let transmit = fanout.poll_transmit().unwrap();
    fanout.sent(now, transmit.viewer, Sent::WouldBlock);
    assert_eq!(fanout.poll_timeout(), Some(now + BURST_PAUSE), "a full buffer is one, too");
}

#[test]
fn a_viewer_that_cannot_be_reached_gets_nothing_more() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let viewer = fanout.add(camera.now, Path::Datagram);
    fanout.play(viewer, 0);
    fanout.offer(camera.now, 0, &camera.next(100));
    fanout.offer(camera.now, 0, &camera.next(100));
    let transmit = fanout.poll_transmit().unwrap();
    fanout.sent(camera.now, transmit.viewer, Sent::Failed);
    assert_eq!(fanout.poll_event(), Some(Event::Lost(viewer)));
    assert!(fanout.is_drained(viewer) && fanout.poll_transmit().is_none());
    fanout.offer(camera.now, 0, &camera.next(100));
    assert!(fanout.poll_transmit().is_none(), "what is lost was its reference");
}

#[test]
fn a_viewer_that_is_a_gop_behind_goes_on_at_the_newest_idr() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let viewer = fanout.add(camera.now, Path::Stream);
    fanout.play(viewer, 0);
    let all: Vec<_> = (0..24).map(|_| camera.next(3_000)).collect();
    for image in &all {
        fanout.offer(camera.now, 0, image);
    }
    // The first stays, for the reply to PLAY names it. The first IDR after it costs nine units,
    // the second that one with its nine.
    let kept = [&all[..1], &all[20..]].concat();
    let octets =
        kept.iter().map(|image| u64::from(image.payload_octets(0..image.packet_count()))).sum();
    let packets = kept.iter().map(|image| image.packet_count() as u64).sum();
    let counts = Counts { packets, octets, dropped: 19, drops: 2 };
    assert_eq!(fanout.counts(viewer), counts);
    let sent = drain(&mut fanout, camera.now, EVERYTHING).concat_bytes();
    assert_eq!(sent, kept.iter().flat_map(|image| image.bytes().to_vec()).collect::<Vec<_>>());
}

#[test]
fn the_idr_with_which_one_more_joins_a_group_is_sent_however_far_that_is_behind() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let group = fanout.add(camera.now, Path::Stream);
    fanout.play(group, 0);
    let all: Vec<_> = (0..44).map(|_| camera.next(3_000)).collect();
    for (index, image) in all.iter().enumerate() {
        if index == 15 {
            fanout.join(group);
        }
        fanout.offer(camera.now, 0, image);
    }
    // The first, the next IDR after it was joined, and the newest with what follows.
    let kept = [&all[..1], &all[20..21], &all[40..]].concat();
    let sent = drain(&mut fanout, camera.now, EVERYTHING).concat_bytes();
    assert_eq!(sent, kept.iter().flat_map(|image| image.bytes().to_vec()).collect::<Vec<_>>());
}

#[test]
fn a_viewer_that_is_late_by_less_than_a_gop_loses_nothing() {
    // The first IDR half sent, or sent and the rest of its GOP waiting.
    for (path, part) in [(Path::Stream, 10), (Path::Datagram, 1), (Path::Stream, EVERYTHING)] {
        let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
        let viewer = fanout.add(camera.now, path);
        fanout.play(viewer, 0);
        let first = camera.next(3_000);
        fanout.offer(camera.now, 0, &first);
        let transmit = fanout.poll_transmit().unwrap();
        fanout.sent(camera.now, transmit.viewer, Sent::Some(part.min(first.bytes().len())));
        for _ in 1..15 {
            fanout.offer(camera.now, 0, &camera.next(3_000));
        }
        assert_eq!((fanout.counts(viewer).dropped, fanout.counts(viewer).drops), (0, 0));
    }
}

#[test]
fn a_queue_holds_120_units_and_a_run_of_losses_is_counted_once() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let viewer = fanout.add(camera.now, Path::Stream);
    fanout.play(viewer, 0);
    fanout.offer(camera.now, 0, &camera.coded(true, 100));
    send_one(&mut fanout, camera.now);
    assert_eq!(fill(&mut fanout, &mut camera, viewer, 100), 120);
    for _ in 0..5 {
        fanout.offer(camera.now, 0, &camera.coded(false, 100));
    }
    assert_eq!((fanout.counts(viewer).dropped, fanout.counts(viewer).drops), (6, 1));
    // The IDR makes room for all of itself and its successors, in the same run of losses.
    assert_eq!(fill(&mut fanout, &mut camera, viewer, 100), 120);
    assert_eq!((fanout.counts(viewer).dropped, fanout.counts(viewer).drops), (127, 2));
    // One that is sent makes room for one.
    send_one(&mut fanout, camera.now);
    fanout.offer(camera.now, 0, &camera.coded(true, 100));
    drain(&mut fanout, camera.now, EVERYTHING);
    assert_eq!(fill(&mut fanout, &mut camera, viewer, 100), 120);
}

#[test]
fn a_queue_holds_a_megabyte_or_one_unit_of_any_length() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let viewer = fanout.add(camera.now, Path::Stream);
    fanout.play(viewer, 0);
    fanout.offer(camera.now, 0, &camera.coded(true, 100_000));
    send_one(&mut fanout, camera.now);
    // With headers and prefixes, ten of them fit into a megabyte.
    for _ in 0..3 {
        assert_eq!(fill(&mut fanout, &mut camera, viewer, 100_000), 10);
    }
    drain(&mut fanout, camera.now, EVERYTHING);
    let before = fanout.counts(viewer);
    fanout.offer(camera.now, 0, &camera.coded(true, 1_500_000));
    assert_eq!(fanout.counts(viewer).dropped, before.dropped, "nothing else waits");
    fanout.offer(camera.now, 0, &camera.coded(false, 100));
    assert_eq!(fanout.counts(viewer).dropped, before.dropped + 1);
    assert_eq!(drain(&mut fanout, camera.now, EVERYTHING).len(), 1);

    // What has been sent makes room for as much.
    for _ in 0..10 {
        fanout.offer(camera.now, 0, &camera.coded(true, 100_000));
        send_one(&mut fanout, camera.now);
    }
    assert_eq!(fill(&mut fanout, &mut camera, viewer, 100_000), 10);
    drain(&mut fanout, camera.now, EVERYTHING);
    fanout.offer(camera.now, 0, &camera.coded(true, 100_000));
    for _ in 0..9 {
        fanout.offer(camera.now, 0, &camera.coded(false, 100_000));
    }
    let before = fanout.counts(viewer);
    send_one(&mut fanout, camera.now);
    fanout.offer(camera.now, 0, &camera.coded(false, 100_000));
    assert_eq!(fanout.counts(viewer).dropped, before.dropped);
    fanout.offer(camera.now, 0, &camera.coded(false, 100_000));
    assert_eq!(fanout.counts(viewer).dropped, before.dropped + 1);
}

#[test]
fn pictures_take_no_room_from_messages_and_what_was_read_gives_some_back() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let viewer = fanout.add(camera.now, Path::Stream);
    fanout.play(viewer, 0);
    for _ in 0..9 {
        fanout.offer(camera.now, 0, &camera.next(100));
    }
    for _ in 0..queue::MESSAGES_MAX {
        assert!(fanout.send(camera.now, viewer, Arc::from(&b"x"[..])));
    }
    assert!(!fanout.send(camera.now, viewer, Arc::from(&b"x"[..])));

    let viewer = fanout.add(camera.now, Path::Stream);
    let long: Arc<[u8]> = Arc::from(vec![0; 40_000]);
    let send = |fanout: &mut Fanout| {
        (0..9).take_while(|_| fanout.send(camera.now, viewer, Arc::clone(&long))).count()
    };
    assert_eq!(send(&mut fanout), 2);
    while !matches!(send_one(&mut fanout, camera.now), Body::Message { bytes, .. } if bytes.len() > 1)
    {
    }
    assert_eq!(send(&mut fanout), 1, "one was read");
}

#[test]
fn a_udp_viewer_that_is_stopped_gets_its_messages_and_not_one_packet_more() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let viewer = fanout.add(camera.now, Path::Datagram);
    fanout.play(viewer, 0);
    let image = camera.next(100_000);
    fanout.offer(camera.now, 0, &image);
    fanout.offer(camera.now, 0, &camera.next(100));
    send_one(&mut fanout, camera.now);
    assert!(fanout.send(camera.now, viewer, Arc::from(&b"report"[..])));
    let counts = fanout.stop(viewer);
    let octets = image.payload_octets(0..BURST_PACKETS).into();
    assert_eq!(counts, Counts { packets: 32, octets, dropped: 0, drops: 0 });
    assert!(fanout.send(camera.now, viewer, Arc::from(&b"bye"[..])));
    fanout.handle_timeout(camera.now + BURST_PAUSE);
    assert_eq!(drain(&mut fanout, camera.now, EVERYTHING).concat_bytes(), b"reportbye");

    fanout.play(viewer, 0);
    for _ in 2..10 {
        fanout.offer(camera.now, 0, &camera.next(100));
    }
    assert_eq!(fanout.counts(viewer), Counts::default(), "nothing is promised before an IDR");
    // A picture that waits behind a reply is not sent either.
    assert!(fanout.send(camera.now, viewer, Arc::from(&b"reply"[..])));
    fanout.offer(camera.now, 0, &camera.next(100));
    fanout.stop(viewer);
    assert_eq!(drain(&mut fanout, camera.now, EVERYTHING).concat_bytes(), b"reply");
}

#[test]
fn a_loss_upstream_concerns_the_viewers_of_that_stream_alone() {
    let (mut fanout, mut camera) = (Fanout::default(), Camera::new());
    let viewers = [0, 1].map(|stream| {
        let viewer = fanout.add(camera.now, Path::Stream);
        fanout.play(viewer, stream);
        viewer
    });
    let images: Vec<_> = (0..4).map(|_| camera.next(100)).collect();
    for (index, image) in images.iter().enumerate() {
        if index == 2 {
            fanout.interrupt(0);
        }
        fanout.offer(camera.now, 0, image);
        fanout.offer(camera.now, 1, image);
    }
    let counts = viewers.map(|viewer| fanout.counts(viewer));
    // The first is named by the reply to PLAY; the second made room for the next IDR.
    assert_eq!((counts[0].packets, counts[0].dropped), (2, 3));
    assert_eq!((counts[1].packets, counts[1].dropped), (5, 0));
}
