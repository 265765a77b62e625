//! One access unit: the NAL units of one primary coded picture, in one reusable buffer.
//!
//! H.264 3.1, 7.4.1.2.
//!
//! The buffer is filled by one owner and then only read: it goes through the ring in an `Arc`,
//! and is filled again when the pool holds the last reference.

use std::ops::Range;
use std::time::Duration;

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
    encoded_in: Duration,
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
            encoded_in: Duration::ZERO,
            is_idr: false,
        }
    }

    /// Forgets the NAL units, keeps the buffer, and starts the access unit of `captured`.
    pub fn reset(&mut self, captured: Instant) {
        self.bytes.clear();
        self.nal_units.clear();
        self.captured = captured;
        self.encoded_in = Duration::ZERO;
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

    /// Puts one NAL unit, such as an SEI message, before the first slice: behind the delimiter and
    /// the parameter sets (H.264 7.4.1.2.3).
    ///
    /// # Errors
    ///
    /// As [`AccessUnit::push`]; the access unit is as it was.
    ///
    /// # Cost
    ///
    /// Moves the slices within the buffer, once.
    pub fn insert_before_slices(&mut self, nal: &[u8]) -> Result<(), TooLong> {
        if nal.is_empty() {
            return Ok(());
        }
        if self.bytes.len() + nal.len() > MAX_ACCESS_UNIT_LEN
            || self.nal_units.len() == MAX_NAL_UNITS
        {
            return Err(TooLong);
        }
        // A prefix NAL unit (type 14) belongs to the slice that follows it.
        let is_slice =
            |nal: &[u8]| nal_type(nal).is_some_and(|kind| kind.is_slice() || kind == NalType(14));
        let index = self.nal_units().position(is_slice).unwrap_or(self.nal_units.len());
        let at = self.nal_units.get(index).map_or(self.bytes.len(), |slice| slice.start);
        self.bytes.resize(self.bytes.len() + nal.len(), 0);
        if let Some(rest) = self.bytes.get_mut(at..) {
            rest.rotate_right(nal.len());
        }
        if let Some(place) = self.bytes.get_mut(at..at + nal.len()) {
            place.copy_from_slice(nal);
        }
        for range in self.nal_units.iter_mut().skip(index) {
            *range = range.start + nal.len()..range.end + nal.len();
        }
        self.nal_units.insert(index, at..at + nal.len());
        Ok(())
    }

    /// Replaces the contents by those of `other`, reusing this buffer.
    pub fn copy_from(&mut self, other: &Self) {
        self.bytes.clone_from(&other.bytes);
        self.nal_units.clone_from(&other.nal_units);
        self.captured = other.captured;
        self.encoded_in = other.encoded_in;
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

    /// How long the encoder took; zero when somebody else has encoded it.
    #[must_use]
    pub fn encoded_in(&self) -> Duration {
        self.encoded_in
    }

    /// Takes note of how long the encoder took.
    pub fn set_encoded_in(&mut self, took: Duration) {
        self.encoded_in = took;
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

    #[test]
    fn a_unit_of_exactly_the_limit_is_taken() {
        let long = vec![0x41; MAX_ACCESS_UNIT_LEN - 5];
        let mut unit = AccessUnit::default();
        unit.push(&long).unwrap();
        assert_eq!(unit.push(&[0x41; 6]), Err(TooLong));
        unit.push(&[0x41; 5]).unwrap();
        assert_eq!((unit.len(), unit.push(&[0x41])), (MAX_ACCESS_UNIT_LEN, Err(TooLong)));

        let mut unit = AccessUnit::default();
        unit.push(&long).unwrap();
        assert_eq!(unit.insert_before_slices(&[0x06; 6]), Err(TooLong));
        assert_eq!(unit.len(), long.len(), "as it was");
        unit.insert_before_slices(&[0x06; 5]).unwrap();
        assert_eq!(unit.insert_before_slices(&[0x06]), Err(TooLong));
    }

    #[test]
    fn the_time_that_encoding_took_is_of_one_unit_and_goes_with_its_copy() {
        let (mut unit, mut copy) = (AccessUnit::default(), AccessUnit::default());
        unit.set_encoded_in(Duration::from_millis(4));
        copy.copy_from(&unit);
        unit.reset(Instant::ZERO);
        let times = [unit, copy].map(|unit| unit.encoded_in().as_millis());
        assert_eq!(times, [0, 4]);
    }

    #[test]
    fn a_message_goes_behind_the_parameter_sets_and_before_every_slice() {
        let sei = [0x06, 5, 1, 0xff, 0x80];
        let idr = [&[0x09, 0x10][..], &[0x67, 1], &[0x68, 2, 3], &[0x65, 4, 5], &[0x65, 6]];
        for (nal_units, index) in [(&idr[..], 3), (&[&[0x41, 7, 8][..]], 0), (&idr[..2], 2)] {
            let mut unit = AccessUnit::default();
            for nal in nal_units {
                unit.push(nal).unwrap();
            }
            unit.insert_before_slices(&[]).unwrap();
            unit.insert_before_slices(&sei).unwrap();
            let mut wanted = nal_units.to_vec();
            wanted.insert(index, &sei);
            assert_eq!(unit.nal_units().collect::<Vec<_>>(), wanted);
            assert_eq!(unit.len(), wanted.concat().len());
        }
        let mut full = AccessUnit::default();
        for _ in 0..MAX_NAL_UNITS {
            full.push(&[0x41]).unwrap();
        }
        assert_eq!(full.insert_before_slices(&sei), Err(TooLong));
        assert_eq!(full.nal_units().len(), MAX_NAL_UNITS);
    }
}
