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
    fanout.handle_timeout(deadline);
    assert_eq!(fanout.poll_event(), Some(Event::Stalled(viewer)));
    assert_eq!(fanout.remove(viewer).packets, 3, "the SPS and two slices were queued");
    assert_eq!(fanout.remove(viewer), Counts::default());
    assert_ne!(fanout.add(camera.now, Path::Stream), viewer, "ids are not reused");
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
        assert_eq!(fanout.counts(viewer).packets, packets.count() as u64);
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
    loop {
        while let Some(transmit) = fanout.poll_transmit() {
            fanout.sent(camera.now, transmit.viewer, Sent::WouldBlock);
        }
        let Some(due) = fanout.poll_timeout() else { break };
        camera.now = due;
        fanout.handle_timeout(due);
    }
    assert_eq!(fanout.poll_event(), Some(Event::Stalled(viewer)));
    assert_eq!(camera.now.since(start), STALL_DEADLINE);
}
