//! One access unit: the NAL units of one primary coded picture, in one reusable buffer.
//!
//! H.264 3.1, 7.4.1.2.
//!
//! The buffer is filled by one owner and then only read: it goes through the ring in an `Arc`,
//! and is filled again when the pool holds the last reference.

use std::ops::Range;

use thiserror::Error;

use super::nal::{NalType, nal_type};
use crate::time::Instant;

/// NAL units of one coded picture, in decoding order, without start codes.
#[derive(Debug, Default)]
pub struct AccessUnit {
    /// NAL units back to back: header byte first, emulation prevention bytes in place.
    bytes: Vec<u8>,
    /// Where each NAL unit lies in `bytes`; never empty ranges.
    nal_units: Vec<Range<usize>>,
    captured: Instant,
    is_idr: bool,
}

/// The access unit has outgrown [`MAX_ACCESS_UNIT_LEN`] or [`MAX_NAL_UNITS`]; it must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("access unit over {MAX_ACCESS_UNIT_LEN} bytes or {MAX_NAL_UNITS} NAL units")]
pub struct TooLong;

impl AccessUnit {
    /// An empty access unit whose buffer holds `len` bytes before it has to grow.
    #[must_use]
    pub fn with_capacity(len: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(len),
            nal_units: Vec::with_capacity(MAX_NAL_UNITS),
            captured: Instant::ZERO,
            is_idr: false,
        }
    }

    /// Forgets the NAL units, keeps the buffer, and starts the access unit of `captured`.
    pub fn reset(&mut self, captured: Instant) {
        self.bytes.clear();
        self.nal_units.clear();
        self.captured = captured;
        self.is_idr = false;
    }

    /// Appends one NAL unit; an empty one is ignored.
    ///
    /// # Shape
    ///
    /// `nal`: header byte first, no start code, emulation prevention bytes in place.
    ///
    /// # Errors
    ///
    /// [`TooLong`] when a limit is passed: the source's fault. The access unit is then incomplete.
    pub fn push(&mut self, nal: &[u8]) -> Result<(), TooLong> {
        if nal.is_empty() {
            return Ok(());
        }
        let start = self.bytes.len();
        if start + nal.len() > MAX_ACCESS_UNIT_LEN || self.nal_units.len() == MAX_NAL_UNITS {
            return Err(TooLong);
        }
        self.is_idr |= nal_type(nal) == Some(NalType::IDR_SLICE);
        self.bytes.extend_from_slice(nal);
        self.nal_units.push(start..self.bytes.len());
        Ok(())
    }

    /// Replaces the contents by those of `other`, reusing this buffer.
    pub fn copy_from(&mut self, other: &Self) {
        self.bytes.clone_from(&other.bytes);
        self.nal_units.clone_from(&other.nal_units);
        self.captured = other.captured;
        self.is_idr = other.is_idr;
    }

    /// The NAL units in decoding order.
    pub fn nal_units(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        self.nal_units.iter().map(|range| self.bytes.get(range.clone()).unwrap_or(&[]))
    }

    /// The first NAL unit of `wanted` type.
    #[must_use]
    pub fn find(&self, wanted: NalType) -> Option<&[u8]> {
        self.nal_units().find(|nal| nal_type(nal) == Some(wanted))
    }

    /// Bytes of all NAL units together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nal_units.is_empty()
    }

    /// Whether decoding may start here: it holds a slice of an IDR picture.
    #[must_use]
    pub fn is_idr(&self) -> bool {
        self.is_idr
    }

    /// When the picture was captured.
    #[must_use]
    pub fn captured(&self) -> Instant {
        self.captured
    }
}

/// Bytes of one access unit: an intra picture of 4K video fits; what does not is no camera's.
pub const MAX_ACCESS_UNIT_LEN: usize = 2 << 20;
/// NAL units in one access unit: delimiter, parameter sets, SEI, and up to 32 slices fit twice.
pub const MAX_NAL_UNITS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nal_units_come_back_in_order_and_an_idr_slice_is_noticed() {
        let mut unit = AccessUnit::with_capacity(64);
        unit.reset(Instant::from_micros(7));
        for nal in [&[0x67, 1][..], &[0x68, 2, 3], &[], &[0x65, 4]] {
            unit.push(nal).unwrap();
        }
        assert!(unit.is_idr());
        assert_eq!(unit.captured(), Instant::from_micros(7));
        let nals: Vec<&[u8]> = unit.nal_units().collect();
        assert_eq!(nals, [&[0x67, 1][..], &[0x68, 2, 3], &[0x65, 4]]);
        assert_eq!(unit.find(NalType::PPS), Some(&[0x68, 2, 3][..]));
        unit.reset(Instant::ZERO);
        assert!(unit.is_empty() && !unit.is_idr());
    }

    #[test]
    fn a_unit_over_a_limit_is_refused() {
        let mut unit = AccessUnit::default();
        assert_eq!(unit.push(&vec![0x41; MAX_ACCESS_UNIT_LEN + 1]), Err(TooLong));
        for _ in 0..MAX_NAL_UNITS {
            unit.push(&[0x41]).unwrap();
        }
        assert_eq!(unit.push(&[0x41]), Err(TooLong));
    }
}
