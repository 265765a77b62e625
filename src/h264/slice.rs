//! Reads the first two fields of slice headers, and tells access units apart by them.
//!
//! H.264 7.3.3, 7.4.1.2.3, 7.4.1.2.4.
//!
//! Not implemented: the rest of 7.4.1.2.4. A picture begins with the slice of its first
//! macroblock; arbitrary slice order and redundant pictures (Baseline only, and no camera's)
//! would be cut wrongly.

use h264_reader::nal::{Nal, RefNal};
use h264_reader::rbsp::BitRead;

use super::access_unit::AccessUnit;
use super::nal::{NalType, nal_type};

/// Whether `nal` is a slice that holds the first macroblock of its picture.
#[must_use]
pub fn begins_picture(nal: &[u8]) -> bool {
    let has_header = matches!(nal_type(nal), Some(NalType(1 | 2 | 5)));
    // `first_mb_in_slice` is ue(v): zero is a single 1 bit (9.1).
    has_header && nal.get(1).is_some_and(|byte| byte & 0x80 != 0)
}

/// Whether `nal` is a slice that may refer to later pictures: a B slice (table 7-6).
#[must_use]
pub fn is_b_slice(nal: &[u8]) -> bool {
    if !matches!(nal_type(nal), Some(NalType(1 | 2))) {
        return false;
    }
    // Two ue(v) fit well into what is read here, emulation prevention bytes included.
    let nal = nal.get(..MAX_FIELDS_LEN).unwrap_or(nal);
    let mut bits = RefNal::new(nal, &[], false).rbsp_bits();
    bits.read_ue("first_mb_in_slice").is_ok() && matches!(bits.read_ue("slice_type"), Ok(1 | 6))
}

/// Whether `nal` is the first of a new access unit, when `unit` holds those before it.
///
/// 7.4.1.2.3: what may precede a picture ends the access unit of the picture before.
#[must_use]
pub fn is_complete_before(unit: &AccessUnit, nal: &[u8]) -> bool {
    let is_slice = |nal: &[u8]| nal_type(nal).is_some_and(NalType::is_slice);
    let may_begin = match nal_type(nal) {
        Some(NalType::AUD | NalType::SPS | NalType::PPS | NalType::SEI | NalType(14..=18)) => true,
        _ => begins_picture(nal),
    };
    may_begin && unit.nal_units().any(is_slice)
}

/// Header byte, and the longest `first_mb_in_slice` and `slice_type` with room to spare.
const MAX_FIELDS_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    fn unit(nals: &[&[u8]]) -> AccessUnit {
        let mut unit = AccessUnit::default();
        unit.reset(Instant::ZERO);
        for nal in nals {
            unit.push(nal).unwrap();
        }
        unit
    }

    #[test]
    fn only_slices_with_the_first_macroblock_begin_a_picture() {
        for header in [0x41, 0x42, 0x65, 0x01] {
            assert!(begins_picture(&[header, 0x80]));
            assert!(!begins_picture(&[header, 0x40]), "first_mb_in_slice is 1");
        }
        for nal in [&[][..], &[0x65], &[0x67, 0x80], &[0x43, 0x80], &[0xe5, 0x80]] {
            assert!(!begins_picture(nal), "{nal:x?}");
        }
    }

    #[test]
    fn b_slices_are_those_of_types_1_and_6() {
        // first_mb_in_slice 0 is `1`; slice_type k is the Exp-Golomb code of k.
        for (bits, is_b) in [
            (0b1100_0000, false), // 0: P
            (0b1010_0000, true),  // 1: B
            (0b1011_0000, false), // 2: I
            (0b1001_1000, false), // 5: P
            (0b1001_1100, true),  // 6: B
            (0b1000_1000, false), // 7: I
        ] {
            assert_eq!(is_b_slice(&[0x01, bits, 0xff]), is_b, "{bits:b}");
        }
        assert!(is_b_slice(&[0x01, 0b0100_1000, 0xff]), "the second slice of a picture");
        assert!(!is_b_slice(&[0x65, 0b1010_0000, 0xff]), "an IDR picture has none");
        for nal in [&[][..], &[0x01], &[0x01, 0], &[0x01, 0x80]] {
            assert!(!is_b_slice(nal), "{nal:x?}");
        }
    }

    #[test]
    fn an_access_unit_ends_before_what_may_precede_the_next_picture() {
        let sliced = unit(&[&[0x67, 1], &[0x68, 1], &[0x65, 0x88]]);
        for nal in
            [&[0x09, 0x10][..], &[0x67, 1], &[0x68, 1], &[0x06, 1], &[0x0e, 1], &[0x41, 0x9a]]
        {
            assert!(is_complete_before(&sliced, nal), "{nal:x?}");
        }
        // More slices of the same picture, filler, end of sequence, auxiliary pictures.
        for nal in [&[0x65, 0x40][..], &[0x0c, 0xff], &[0x0a], &[0x13, 0x80], &[]] {
            assert!(!is_complete_before(&sliced, nal), "{nal:x?}");
        }
        let begun = unit(&[&[0x09, 0x10], &[0x67, 1]]);
        for nal in [&[0x68, 1][..], &[0x06, 1], &[0x65, 0x88]] {
            assert!(!is_complete_before(&begun, nal), "{nal:x?}");
        }
    }
}
