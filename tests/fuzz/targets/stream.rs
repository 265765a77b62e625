//! H.264 as a camera or a file might send it: the splitter, the readers, the assembler, the
//! packetizer and back.

use std::time::Duration;

use ocellus::h264::annexb::{self, Splitter};
use ocellus::h264::{
    AccessUnit, Assembler, MAX_NAL_UNITS, NalType, ParameterSets, begins_picture, is_b_slice,
    is_complete_before, level_idc, nal_type, sei,
};
use ocellus::rtp::{Packetizer, Ssrc, WireImage};
use ocellus::time::{Instant, RtpTimestamp, ticks};

use super::depacketizer::{Depacketizer, Packet};
use super::input::{Input, pieces};

/// Any bytes: the same NAL units come out however they arrive, none of them empty or with a start
/// code in it; and NAL units that are written out come back.
pub(super) fn annexb(bytes: &[u8]) {
    let (&seed, stream) = bytes.split_first().unwrap_or((&0, bytes));
    let whole: Vec<&[u8]> = annexb::nal_units(stream).collect();
    for nal in &whole {
        assert!(nal.last().is_some_and(|&last| last != 0));
        assert!(!nal.windows(3).any(|three| three == [0, 0, 1]));
    }
    assert_eq!(split(std::iter::once(stream)), whole);
    assert_eq!(split(stream.chunks(1)), whole);
    assert_eq!(split(pieces(stream, seed)), whole);
    let mut written = vec![0; usize::from(seed % 3)];
    for nal in &whole {
        written.extend([0, 0, 1]);
        written.extend_from_slice(nal);
        written.extend(vec![0; nal.len() % 3]);
    }
    assert_eq!(split(pieces(&written, seed)), whole);
    let Some((first, rest)) = annexb::split_first(stream) else {
        assert!(whole.is_empty());
        return;
    };
    assert_eq!((first, annexb::nal_units(rest).count()), (whole[0], whole.len() - 1));
}

fn split<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let (mut splitter, mut nals) = (Splitter::default(), Vec::new());
    let mut drain = |splitter: &mut Splitter| {
        while let Some(nal) = splitter.peek() {
            nals.push(nal.expect("far below the limit").to_vec());
            splitter.consume();
        }
    };
    for piece in pieces {
        splitter.receive(piece);
        drain(&mut splitter);
    }
    splitter.end();
    drain(&mut splitter);
    nals
}

/// One NAL unit and what is read of it: nothing panics, and what is accepted makes sense.
pub(super) fn parameter_sets(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (size, fps) = (input.number::<4>(), f64::from_bits(input.number::<8>()));
    let level = level_idc(size as u32 & 0xffff, (size >> 16) as u32, fps, 2_000);
    assert!((9..=62).contains(&level), "{level}");
    let (pps, sps) = (input.some(), input.0);
    let _ = (begins_picture(sps), is_b_slice(sps));
    if let Some((micros, status)) = sei::parse_utc_sei(sps) {
        let again = sei::parse_utc_sei(&sei::utc_sei(micros, sei::is_locked(status)));
        let (again, status_again) = again.expect("the camera's own");
        assert_eq!((again, sei::is_locked(status_again)), (micros, sei::is_locked(status)));
    }
    let Ok(sets) = ParameterSets::new(sps, pps) else { return };
    let description = sets.describe().expect("it was accepted");
    assert!(description.width > 0 && description.height > 0);
    assert!(description.fps.is_none_or(f64::is_finite));
    assert_eq!(sets.profile_level_id(), sps[1..4]);
    let _ = sets.is_reordered();
    let mut unit = AccessUnit::default();
    for nal in [sps, pps] {
        unit.push(nal).expect("short");
    }
    assert!(sets.are_in(&unit) && ParameterSets::of(&unit) == Some(sets));
}

/// A byte stream, cut and interrupted: what comes out begins with an IDR picture that has its
/// parameter sets, and does so again after everything that was lost.
pub(super) fn assembler(bytes: &[u8]) {
    let (&seed, stream) = bytes.split_first().unwrap_or((&0, bytes));
    let (mut splitter, mut assembler) = (Splitter::default(), Assembler::default());
    let (mut unit, mut is_broken) = (AccessUnit::default(), true);
    for (index, piece) in pieces(stream, seed | 7).enumerate() {
        splitter.receive(piece);
        if index % 16 == usize::from(seed >> 4) {
            match seed & 3 {
                0 => assembler.interrupt(),
                1 => assembler.restart(),
                _ => {}
            }
            is_broken |= seed & 3 < 2;
        }
        while let Some(nal) = splitter.peek() {
            if nal.is_ok_and(|nal| is_complete_before(&unit, nal)) {
                take(&mut assembler, &mut unit, &mut is_broken);
                unit.reset(Instant::ZERO);
            }
            assembler.push(&mut unit, nal);
            splitter.consume();
        }
    }
    take(&mut assembler, &mut unit, &mut is_broken);
    let _ = assembler.missing();
}

/// Looks at one access unit, if it is handed out.
fn take(assembler: &mut Assembler, unit: &mut AccessUnit, is_broken: &mut bool) {
    let before: Vec<Vec<u8>> = unit.nal_units().map(<[u8]>::to_vec).collect();
    if !assembler.admit(unit) {
        *is_broken |= assembler.needs_idr();
        return;
    }
    let nals: Vec<&[u8]> = unit.nal_units().collect();
    let is = |wanted: NalType| move |nal: &&[u8]| nal_type(nal) == Some(wanted);
    let is_slice = |nal: &&[u8]| nal_type(nal).is_some_and(NalType::is_slice);
    let first_slice = nals.iter().position(is_slice).expect("a picture");
    assert!(begins_picture(nals[first_slice]) && nals.len() <= MAX_NAL_UNITS);
    assert!(!nals.iter().any(is(NalType::FILLER)));
    assert!(unit.is_idr() || !*is_broken, "a picture without the one it refers to");
    if unit.is_idr() {
        let sets = assembler.parameter_sets().expect("an IDR picture was admitted");
        assert!(sets.are_in(unit));
        let [sps, pps] =
            [NalType::SPS, NalType::PPS].map(|kind| nals.iter().position(is(kind)).unwrap());
        // Where the stream had both, they are where it had them.
        let had =
            [NalType::SPS, NalType::PPS].map(|kind| before.iter().any(|nal| is(kind)(&&**nal)));
        assert!(sps < first_slice && pps < first_slice || had == [true, true]);
        *is_broken = false;
    } else {
        assert_eq!(nals, before);
    }
}

/// Access units of any NAL units, by packets of any size: a reader written from RFC 6184 alone gets
/// the same NAL units, and the headers are those of one stream.
pub(super) fn packetizer(bytes: &[u8]) {
    let mut input = Input(bytes);
    let len_max = 15 + input.number::<2>() as usize % 1_500;
    let (ssrc, sequence) = (input.number::<4>() as u32, input.number::<2>() as u16);
    let offset = input.number::<4>() as u32;
    let mut packetizer = Packetizer::new(Ssrc(ssrc), sequence, offset, len_max);
    let (mut expected, mut last) = (packetizer.next_sequence().0, None);
    assert!(expected > 1);
    let (mut unit, mut image) = (AccessUnit::default(), WireImage::default());
    let mut captured = Instant::from_micros(input.number::<6>());
    for _ in 0..16 {
        unit.reset(captured);
        for _ in 0..1 + input.below(40) {
            let _ = unit.push(&nal(&mut input, len_max));
        }
        packetizer.packetize(&unit, &mut image);
        // The types that RFC 6184 leaves to H.264.
        let is_h264 = |nal: &&[u8]| (1..=23).contains(&(nal[0] & 0x1f));
        let wanted: Vec<&[u8]> = unit.nal_units().filter(is_h264).collect();
        let mut depacketizer = Depacketizer::default();
        for index in 0..image.packet_count() {
            let bytes = image.packet(index);
            assert!(bytes.len() <= len_max, "{} of {len_max}", bytes.len());
            let packet = Packet::parse(bytes);
            assert_eq!((packet.ssrc, packet.sequence), (ssrc, expected));
            assert_eq!(packet.timestamp, image.timestamp().0);
            assert_eq!(packet.is_marked, index + 1 == image.packet_count());
            expected = expected.wrapping_add(1);
            depacketizer.receive(packet.payload);
        }
        assert_eq!(depacketizer.finish(), wanted);
        is_framed(&image);
        // At least a tick after the last one, and the capture's where that allows it.
        let captured_ticks = ticks(captured);
        let ticks = last.map_or(captured_ticks, |last: u64| captured_ticks.max(last + 1));
        assert_eq!(image.timestamp(), RtpTimestamp::from_ticks(ticks, offset));
        last = Some(ticks);
        if input.is_empty() {
            break;
        }
        // Forwards and backwards.
        let step = Duration::from_micros(input.number::<3>());
        captured =
            if step.subsec_nanos().is_multiple_of(2) { captured + step } else { captured - step };
    }
    assert_eq!(packetizer.next_sequence().0, expected);
}

/// A NAL unit of a drawn type and length; lengths around the packet's are the likeliest.
fn nal(input: &mut Input<'_>, len_max: usize) -> Vec<u8> {
    let header = input.byte();
    let len = match input.byte() {
        short @ 0..=127 => usize::from(short),
        near @ 128..=191 => (len_max + usize::from(near - 128)).saturating_sub(44),
        long => usize::from(long - 191) * len_max / 8 + usize::from(long & 3),
    };
    let content = input.take(len.min(16));
    (0..len)
        .map(|at| if at == 0 { header } else { content.get(at).map_or(at as u8, |&byte| byte) })
        .collect()
}

/// The bytes for TCP are the packets with their prefixes, and the runs for UDP are all of them.
fn is_framed(image: &WireImage) {
    let mut bytes = image.bytes();
    for index in 0..image.packet_count() {
        assert_eq!(image.packet_at(image.bytes().len() - bytes.len()), index);
        let (prefix, rest) = bytes.split_at(WireImage::PREFIX_LEN);
        let (packet, rest) = rest.split_at(usize::from(u16::from_be_bytes([prefix[2], prefix[3]])));
        assert_eq!((prefix[0], prefix[1], packet), (b'$', 0, image.packet(index)));
        bytes = rest;
    }
    assert!(bytes.is_empty());
    let mut next = 0;
    for run in image.runs(0..image.packet_count()) {
        assert_eq!(run.start, next);
        next = run.end;
        let lens: Vec<usize> = run.map(|index| image.packet(index).len()).collect();
        let (last, others) = lens.split_last().expect("a run of none");
        assert!(others.iter().all(|len| len == &lens[0]) && *last <= lens[0] && lens.len() <= 64);
    }
    assert_eq!(next, image.packet_count());
}
