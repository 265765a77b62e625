#![allow(clippy::unwrap_used, reason = "tests may fail")]

use super::*;
use crate::frame::Colour;
use crate::h264::{NalType, ParameterSets, annexb, begins_picture, nal_type};

const CLIP: &[u8] = include_bytes!("../../../tests/data/clip-320x240.h264");

fn settings() -> Settings {
    Settings {
        fps: 10.0,
        bitrate_bps: 300_000,
        gop: Duration::from_secs(1),
        colour: Colour::default(),
        threads: 1,
    }
}

/// The clip that x264 made, cut into what an encoder would give buffer by buffer.
fn buffers() -> Vec<Vec<u8>> {
    let mut buffers: Vec<Vec<u8>> = Vec::new();
    let mut has_slice = true;
    for nal in annexb::nal_units(CLIP) {
        let begins = begins_picture(nal) || !nal_type(nal).is_some_and(NalType::is_slice);
        if has_slice && begins {
            buffers.push(Vec::new());
            has_slice = false;
        }
        has_slice |= nal_type(nal).is_some_and(NalType::is_slice);
        let buffer = buffers.last_mut().unwrap();
        buffer.extend([0, 0, 0, 1]);
        buffer.extend(nal);
    }
    buffers
}

fn kinds(unit: &AccessUnit) -> Vec<u8> {
    unit.nal_units().map(|nal| nal[0] & 0x1f).collect()
}

fn read(bitstream: &mut Bitstream, coded: &[u8]) -> (Content, AccessUnit) {
    let mut unit = AccessUnit::default();
    unit.reset(Instant::ZERO);
    let content = bitstream.read(coded, &mut unit).unwrap();
    (content, unit)
}

/// Without the NAL units of `unwanted` types.
fn without(coded: &[u8], unwanted: &[NalType]) -> Vec<u8> {
    annexb::nal_units(coded)
        .filter(|nal| !unwanted.contains(&nal_type(nal).unwrap()))
        .flat_map(|nal| [&[0, 0, 1], nal].concat())
        .collect()
}

#[test]
fn an_encoder_that_sends_parameter_sets_once_has_them_before_every_idr() {
    let mut bitstream = Bitstream::default();
    let buffers = buffers();
    let sets = read(&mut Bitstream::default(), &buffers[0]).1;
    let sets = ParameterSets::of(&sets).unwrap();
    let mut idrs = 0;
    for (index, buffer) in buffers.iter().enumerate() {
        let bare = without(buffer, &[NalType::SPS, NalType::PPS]);
        let (content, unit) = read(&mut bitstream, if index == 0 { buffer } else { &bare });
        assert_eq!(content, Content::Picture);
        assert_eq!(unit.is_idr(), sets.are_in(&unit), "{index}");
        idrs += usize::from(unit.is_idr());
        // The slices are those of the encoder, byte for byte.
        let slices = |nal: &&[u8]| nal_type(nal).is_some_and(NalType::is_slice);
        let expected: Vec<&[u8]> = annexb::nal_units(buffer).filter(slices).collect();
        assert_eq!(unit.nal_units().filter(slices).collect::<Vec<_>>(), expected, "{index}");
    }
    assert!(idrs >= 2, "{idrs} IDR pictures among {}", buffers.len());
}

#[test]
fn parameter_sets_in_a_buffer_of_their_own_are_no_picture() {
    let mut bitstream = Bitstream::default();
    let first = &buffers()[0];
    let headers = without(first, &[NalType::IDR_SLICE, NalType::SEI]);
    let picture = without(first, &[NalType::SPS, NalType::PPS]);
    assert_eq!(read(&mut Bitstream::default(), &picture).0, Content::Undecodable);
    let (content, unit) = read(&mut bitstream, &headers);
    assert!(content == Content::Headers && unit.is_empty());
    assert_eq!(read(&mut bitstream, &[]).0, Content::Headers);
    let (content, unit) = read(&mut bitstream, &picture);
    assert_eq!((content, unit.is_idr()), (Content::Picture, true));
    assert!(ParameterSets::of(&unit).is_some());
}

#[test]
fn delimiters_and_filler_are_left_out() {
    let mut coded = vec![0, 0, 0, 1, 9, 0x10];
    coded.extend(&buffers()[0]);
    coded.extend([0, 0, 1, 12, 0xff, 0xff, 0x80, 0, 0, 1, 11]);
    let (content, unit) = read(&mut Bitstream::default(), &coded);
    assert_eq!(content, Content::Picture);
    let kinds = kinds(&unit);
    assert!(kinds.starts_with(&[7, 8]) && kinds.contains(&5), "{kinds:?}");
    assert!(kinds.iter().all(|kind| [7, 8, 6, 5].contains(kind)), "{kinds:?}");
}

#[test]
fn a_picture_that_is_shown_later_than_it_is_sent_is_noticed() {
    // first_mb_in_slice 0, slice_type 1 (B).
    assert_eq!(read(&mut Bitstream::default(), &[0, 0, 1, 1, 0b1010_0000, 1]).0, Content::BSlice);
}

#[test]
fn garbage_gives_a_unit_only_where_it_reads_as_a_picture() {
    let mut state = 1_u64;
    for len in 0..300 {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            [0, 0, 0, 1, 0x65, 0x67, 0x80][usize::try_from((state >> 33) % 7).unwrap()]
        };
        let coded: Vec<u8> = (0..len).map(|_| next()).collect();
        let (content, unit) = read(&mut Bitstream::default(), &coded);
        assert_eq!(content == Content::Picture, !unit.is_empty());
        assert!(!unit.is_idr(), "there is no picture parameter set");
    }
}

fn at(picture: u64) -> Instant {
    Instant::from_micros(1_000_000 + picture * 100_000)
}

/// Runs 40 pictures through a driver that lags, makes IDRs when told to, and loses some.
fn idrs(lag: u64, wanted: &[u64], lost: &[u64]) -> Vec<u64> {
    let mut cadence = Cadence::new(&settings());
    let mut idrs = vec![];
    let mut forced = vec![0];
    for now in 0..40 {
        if cadence.must_force(at(now), wanted.contains(&now)) {
            forced.push(now);
        }
        if let Some(out) = now.checked_sub(lag).filter(|out| !lost.contains(out)) {
            let is_idr = forced.contains(&out);
            cadence.came(at(out), is_idr);
            if is_idr {
                idrs.push(out);
            }
        }
    }
    idrs
}

#[test]
fn an_idr_comes_once_a_second_and_when_asked_for() {
    assert_eq!(idrs(0, &[], &[]), [0, 10, 20, 30]);
    assert_eq!(idrs(0, &[14], &[]), [0, 10, 14, 24, 34]);
    assert_eq!(idrs(3, &[14], &[]), [0, 10, 14, 24, 34]);
}

#[test]
fn several_who_ask_at_once_get_one_idr() {
    assert_eq!(idrs(3, &[14, 15, 16], &[]), [0, 10, 14, 24, 34]);
}

#[test]
fn an_idr_that_the_driver_loses_is_asked_for_again() {
    assert_eq!(idrs(0, &[], &[10]), [0, 12, 22, 32]);
    assert_eq!(idrs(0, &[15], &[15]), [0, 10, 17, 27, 37]);
    assert_eq!(idrs(0, &[], &[0]), [2, 12, 22, 32], "also the very first one");
}

#[test]
fn without_a_device_there_is_nothing_to_open() {
    let opened = M2m::open(Path::new("/dev/no-such-node"), &settings(), 320, 240);
    assert!(matches!(opened, Err(Error::Gone)));
    let opened = M2m::open(Path::new("/dev/null"), &settings(), 320, 240);
    assert!(matches!(opened, Err(Error::Device(_))));
}
