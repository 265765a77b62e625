//! Reads what the validator needs out of NAL units, with `h264-reader` as the parser.
//!
//! H.264 7.3.1, 7.3.3 and 7.4.1.2: unit types, the start of slice headers, and where access units
//! begin.

use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::rbsp::{BitRead, BitReader, decode_nal};

pub(crate) const SLICE: u8 = 1;
pub(crate) const IDR: u8 = 5;
pub(crate) const SEI: u8 = 6;
pub(crate) const SPS: u8 = 7;
pub(crate) const PPS: u8 = 8;
pub(crate) const AUD: u8 = 9;

/// Returns `nal_unit_type`, 0 for an empty slice.
pub(crate) fn kind(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |header| header & 0x1f)
}

pub(crate) fn is_slice(nal: &[u8]) -> bool {
    (SLICE..=IDR).contains(&kind(nal))
}

/// The first fields of a slice header (7.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SliceStart {
    pub(crate) first_mb: u32,
    /// `slice_type` modulo 5: 0 P, 1 B, 2 I, 3 SP, 4 SI.
    pub(crate) slice_type: u32,
}

pub(crate) fn slice_start(nal: &[u8]) -> Option<SliceStart> {
    // The header is read from the first bytes, so that a damaged tail cannot hide it.
    let rbsp = decode_nal(nal.get(..nal.len().min(24))?).ok()?;
    let mut bits = BitReader::new(&rbsp[..]);
    let first_mb = bits.read_ue("first_mb_in_slice").ok()?;
    let slice_type = bits.read_ue("slice_type").ok()? % 5;
    Some(SliceStart { first_mb, slice_type })
}

/// Whether a NAL unit with these first bytes begins an access unit when it follows a slice.
///
/// H.264 7.4.1.2.3, and 7.4.1.2.4 in the form that holds without arbitrary slice order: a slice at
/// macroblock 0 begins a picture.
pub(crate) fn begins_access_unit(nal: &[u8]) -> bool {
    match kind(nal) {
        // first_mb_in_slice is ue(v): a leading one bit is the value 0.
        SLICE..=IDR => nal.get(1).is_some_and(|byte| byte & 0x80 != 0),
        SEI..=AUD | 14..=18 => true,
        _ => false,
    }
}

pub(crate) fn parse_sps(nal: &[u8]) -> Result<SeqParameterSet, String> {
    let rbsp = decode_nal(nal).map_err(|error| error.to_string())?;
    SeqParameterSet::from_bits(BitReader::new(&rbsp[..])).map_err(|error| format!("{error:?}"))
}

/// Cuts an Annex B byte stream (B.1) into NAL units without start codes.
pub(crate) fn split_annexb(stream: &[u8]) -> Vec<&[u8]> {
    let mut starts: Vec<usize> = Vec::new();
    for at in 0..stream.len().saturating_sub(3) {
        if stream[at..at + 3] == [0, 0, 1] {
            starts.push(at + 3);
        }
    }
    let ends = starts.iter().skip(1).map(|start| start - 3).chain([stream.len()]);
    let trim = |nal: &'_ [u8]| nal.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    starts.iter().zip(ends).map(|(&from, to)| &stream[from..to]).map(|n| &n[..trim(n)]).collect()
}

/// Writes NAL units as an Annex B byte stream.
pub(crate) fn to_annexb<'a>(nals: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    nals.fold(Vec::new(), |mut stream, nal| {
        stream.extend_from_slice(&[0, 0, 0, 1]);
        stream.extend_from_slice(nal);
        stream
    })
}
