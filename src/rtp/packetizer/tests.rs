//! A reader written from RFC 6184 alone takes the packets apart again.

use rtp_types::RtpPacket;

use super::*;
use crate::rtp::PAYLOAD_TYPE;

const PACKET_LEN_MAX: usize = 60;
const PAYLOAD_LEN_MAX: usize = PACKET_LEN_MAX - HEADER_LEN;

fn packetizer() -> Packetizer {
    Packetizer::new(Ssrc(0x1234_5678), 65_500, u32::MAX - 1000, PACKET_LEN_MAX)
}

fn unit(nals: &[Vec<u8>], captured: u64) -> AccessUnit {
    let mut unit = AccessUnit::default();
    unit.reset(Instant::from_micros(captured));
    for nal in nals {
        unit.push(nal).unwrap();
    }
    unit
}

fn nal(header: u8, len: usize) -> Vec<u8> {
    let mut nal = vec![header];
    nal.extend((1..len).map(|i| u8::try_from(i % 251).unwrap() | 1));
    nal
}

fn image(packetizer: &mut Packetizer, unit: &AccessUnit) -> WireImage {
    let mut image = WireImage::default();
    packetizer.packetize(unit, &mut image);
    image
}

/// Undoes RFC 6184 5.6, 5.7.1 and 5.8, and checks what each demands of a sender.
fn reassemble(image: &WireImage) -> Vec<Vec<u8>> {
    let mut nals: Vec<Vec<u8>> = Vec::new();
    let mut fragmented: Option<Vec<u8>> = None;
    for index in 0..image.packet_count() {
        let packet = RtpPacket::parse(image.packet(index)).unwrap();
        assert!(image.packet(index).len() <= PACKET_LEN_MAX);
        assert_eq!(packet.payload_type(), PAYLOAD_TYPE);
        assert_eq!(packet.timestamp(), image.timestamp().0);
        assert_eq!(packet.marker_bit(), index + 1 == image.packet_count());
        let offset = u16::try_from(index).unwrap();
        let expected = image.first_sequence().0.wrapping_add(offset);
        assert_eq!(packet.sequence_number(), expected);
        let payload = packet.payload();
        match payload[0] & 0x1f {
            24 => {
                let mut rest = &payload[1..];
                let mut count = 0;
                while let Some((size, tail)) = rest.split_first_chunk::<2>() {
                    let (nal, tail) = tail.split_at(usize::from(u16::from_be_bytes(*size)));
                    assert!(payload[0] & 0x60 >= nal[0] & 0x60);
                    nals.push(nal.to_vec());
                    (rest, count) = (tail, count + 1);
                }
                assert!(count >= 2 && rest.is_empty());
            }
            28 => {
                let (start, end) = (payload[1] & 0x80 != 0, payload[1] & 0x40 != 0);
                assert!(!(start && end) && payload[1] & 0x20 == 0 && payload.len() > 3);
                if start {
                    assert!(fragmented.is_none());
                    fragmented = Some(vec![payload[0] & 0xe0 | payload[1] & 0x1f]);
                }
                fragmented.as_mut().unwrap().extend(&payload[2..]);
                if end {
                    nals.extend(fragmented.take());
                }
            }
            1..=23 => nals.push(payload.to_vec()),
            other => unreachable!("packet type {other}"),
        }
        assert!(fragmented.is_none() || payload[0] & 0x1f == 28, "nothing between fragments");
    }
    assert!(fragmented.is_none());
    nals
}

#[test]
fn every_length_survives_the_round_trip() {
    let mut packetizer = packetizer();
    for len in 1..=8 * PAYLOAD_LEN_MAX {
        let nals = vec![nal(0x65, len)];
        let image = image(&mut packetizer, &unit(&nals, 0));
        assert_eq!(reassemble(&image), nals, "length {len}");
        assert_eq!(image.packet_count() == 1, len <= PAYLOAD_LEN_MAX, "length {len}");
    }
}

#[test]
fn small_nal_units_are_aggregated_and_parameter_sets_are_not() {
    let nals =
        vec![nal(0x67, 10), nal(0x68, 4), nal(0x06, 5), nal(0x65, 20), nal(0x65, 90), nal(0x65, 9)];
    let image = image(&mut packetizer(), &unit(&nals, 0));
    assert_eq!(reassemble(&image), nals);
    let kinds: Vec<u8> = (0..image.packet_count()).map(|i| image.packet(i)[12] & 0x1f).collect();
    assert_eq!(kinds, [7, 8, 24, 28, 28, 5]);
}

#[test]
fn what_a_player_would_take_for_a_packet_of_many_is_left_out() {
    for header in [0x60, 0x78, 0x79, 0x7c, 0x1d, 0x7f] {
        for len in [1, 5, 200] {
            let nals = [nal(header, len), nal(0x65, 20), nal(header, len), nal(0x41, 3)];
            let image = image(&mut packetizer(), &unit(&nals, 0));
            assert_eq!(reassemble(&image), [nal(0x65, 20), nal(0x41, 3)], "{header:#x}");
        }
    }
}

#[test]
fn every_mix_of_lengths_survives_the_round_trip() {
    let mut packetizer = packetizer();
    for seed in 0_usize..4_000 {
        let count = 1 + seed % 40;
        let nals: Vec<_> =
            (0..count).map(|i| nal(0x41, 1 + (seed * 31 + i * i * 17) % 120)).collect();
        assert_eq!(reassemble(&image(&mut packetizer, &unit(&nals, 0))), nals);
    }
}

#[test]
fn the_sequence_goes_on_across_access_units_and_its_wrap() {
    let mut packetizer = packetizer();
    let mut next = packetizer.next_sequence();
    for round in 0..100 {
        let image = image(&mut packetizer, &unit(&[nal(0x65, 200)], round));
        assert_eq!(image.first_sequence(), next);
        let count = u16::try_from(image.packet_count()).unwrap();
        next = SequenceNumber(next.0.wrapping_add(count));
    }
    assert!(next.0 < 65_500, "the test went over the wrap");
}

#[test]
fn timestamps_follow_the_capture_and_never_stand_still_or_go_back() {
    let mut packetizer = packetizer();
    let mut stamps = Vec::new();
    for captured in [1_000_000, 1_033_333, 1_033_333, 900_000, 1_100_000] {
        stamps.push(image(&mut packetizer, &unit(&[nal(0x41, 9)], captured)).timestamp());
    }
    let steps: Vec<u32> = stamps.windows(2).map(|w| w[1].0.wrapping_sub(w[0].0)).collect();
    assert_eq!(steps, [2_999, 1, 1, 5_999]);
    assert_eq!(stamps[4], packetizer.timestamp_at(Instant::from_micros(1_100_000)));
}

#[test]
fn the_image_is_framed_for_channel_0_and_its_runs_are_equal() {
    let nals = vec![nal(0x67, 10), nal(0x68, 4), nal(0x65, 4_000)];
    let image = image(&mut packetizer(), &unit(&nals, 0));
    let mut rest = image.bytes();
    for index in 0..image.packet_count() {
        assert_eq!(rest[..2], [b'$', 0]);
        let len = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        assert_eq!(&rest[4..4 + len], image.packet(index));
        let end = image.packet_end(index);
        assert_eq!((image.packet_at(end - 1), image.packet_at(end)), (index, index + 1));
        rest = &rest[4 + len..];
    }
    assert!(rest.is_empty());
    for from in 0..image.packet_count() {
        let mut next = from;
        for run in image.runs(from..image.packet_count()) {
            assert_eq!(run.start, next);
            let len = image.packet(run.start).len();
            for index in run.clone() {
                let this = image.packet(index).len();
                assert!(this == len || (this < len && index + 1 == run.end));
            }
            next = run.end;
        }
        assert_eq!(next, image.packet_count());
    }
}

#[test]
fn an_aggregate_is_as_forbidden_and_as_important_as_the_units_inside() {
    let headers = || (0..8_u8).map(|bits| bits << 5 | 1);
    for (first, second) in headers().flat_map(|first| headers().map(move |it| (first, it))) {
        let nals = [first, second, 0x01].map(|header| nal(header, 3));
        let image = image(&mut packetizer(), &unit(&nals, 0));
        let header = image.packet(0)[HEADER_LEN];
        let is_forbidden = [first, second].iter().any(|it| it & 0x80 != 0);
        assert_eq!((header & 0x80 != 0, header & 0x1f), (is_forbidden, 24));
        assert_eq!(header >> 5 & 3, (first >> 5 & 3).max(second >> 5 & 3), "{first:x} {second:x}");
    }
}

#[test]
fn many_small_nal_units_are_aggregated_by_sixteen() {
    let mut packetizer = Packetizer::new(Ssrc(1), 100, 0, 1_372);
    let unit = unit(&vec![nal(0x41, 10); 40], 0);
    let image = image(&mut packetizer, &unit);
    let lens: Vec<_> = (0..image.packet_count()).map(|i| image.packet(i).len()).collect();
    assert_eq!(lens, [16, 16, 8].map(|count| HEADER_LEN + 1 + count * 12));
}
