//! Makes access units that a decoder can start with and go on with out of NAL units.
//!
//! H.264 7.4.1.2.3. Nothing comes out before an IDR picture with usable parameter sets, and nothing
//! between a damaged picture and the next such one. Every IDR picture comes with parameter sets:
//! the newest ones are kept, and put in where the stream has none. Filler data is left out.
//!
//! Not implemented: more than one SPS or PPS per stream, and noticing that the last slices of a
//! picture are missing.

use super::access_unit::{AccessUnit, TooLong};
use super::continuity::Continuity;
use super::nal::{NalType, nal_type};
use super::parameter_sets::ParameterSets;
use super::slice::begins_picture;

/// Completes access units, and says which can be handed out.
///
/// The unit under construction is the caller's: [`Assembler::push`] appends to it, the caller asks
/// [`is_complete_before`](super::is_complete_before) where it ends, and [`Assembler::admit`] has the
/// last word.
#[derive(Debug)]
pub struct Assembler {
    continuity: Continuity,
    /// The last ones seen; empty when there was none.
    sps: Vec<u8>,
    pps: Vec<u8>,
    /// The same two together, when they can be used.
    sets: Option<ParameterSets>,
    /// Holds an access unit while parameter sets are put into it.
    scratch: AccessUnit,
    has_nal_units: bool,
}

/// Why no access unit has been admitted yet, as far as the parameter sets tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    NalUnits,
    Sps,
    Pps,
    UsableParameterSets,
    /// Everything else was there.
    IdrPicture,
}

impl Assembler {
    /// Forgets everything: what comes next is the beginning of a stream.
    pub fn restart(&mut self) {
        self.continuity = Continuity::START;
        self.sps.clear();
        self.pps.clear();
        self.sets = None;
    }

    /// Something of the stream is missing here: nothing more until an IDR picture.
    pub fn interrupt(&mut self) {
        self.continuity.interrupt();
    }

    /// Whether only an IDR picture would be admitted now.
    #[must_use]
    pub fn needs_idr(&self) -> bool {
        self.continuity.is_broken()
    }

    /// The newest parameter sets; `None` when they cannot be used.
    #[must_use]
    pub fn parameter_sets(&self) -> Option<&ParameterSets> {
        self.sets.as_ref()
    }

    /// The first thing that an access unit would have needed.
    #[must_use]
    pub fn missing(&self) -> Missing {
        if !self.has_nal_units {
            Missing::NalUnits
        } else if self.sps.is_empty() {
            Missing::Sps
        } else if self.pps.is_empty() {
            Missing::Pps
        } else if self.sets.is_none() {
            Missing::UsableParameterSets
        } else {
            Missing::IdrPicture
        }
    }

    /// Appends the next NAL unit to `unit`, which begins again when that cannot be done.
    pub fn push(&mut self, unit: &mut AccessUnit, nal: Result<&[u8], TooLong>) {
        self.has_nal_units |= nal.is_ok();
        if nal.is_ok_and(|nal| nal_type(nal) == Some(NalType::FILLER)) {
            return;
        }
        if nal.and_then(|nal| unit.push(nal)).is_err() {
            // What is left of this picture is no picture; `admit` will see that.
            self.interrupt();
            unit.reset(unit.captured());
        }
    }

    /// Whether `unit`, now complete, can be handed out; puts in what an IDR picture lacks.
    ///
    /// # Cost
    ///
    /// Allocates only when parameter sets have changed.
    pub fn admit(&mut self, unit: &mut AccessUnit) -> bool {
        self.remember(unit);
        let is_slice = |nal: &&[u8]| nal_type(nal).is_some_and(NalType::is_slice);
        let Some(is_whole) = unit.nal_units().find(is_slice).map(begins_picture) else {
            return false;
        };
        let is_start = unit.is_idr() && is_whole && self.complete(unit);
        if !is_whole || (unit.is_idr() && !is_start) {
            self.interrupt();
        }
        self.continuity.admit(is_start, true)
    }

    /// Keeps the parameter sets of `unit`.
    fn remember(&mut self, unit: &AccessUnit) {
        let mut is_changed = false;
        for (wanted, kept) in [(NalType::SPS, &mut self.sps), (NalType::PPS, &mut self.pps)] {
            if let Some(nal) = unit.find(wanted).filter(|nal| nal != kept) {
                kept.clear();
                kept.extend_from_slice(nal);
                is_changed = true;
            }
        }
        if is_changed {
            self.sets = ParameterSets::new(&self.sps, &self.pps).ok();
        }
    }

    /// Puts in the parameter sets that the IDR picture `unit` lacks; false when there are none.
    fn complete(&mut self, unit: &mut AccessUnit) -> bool {
        let Some(sets) = &self.sets else { return false };
        let has = |wanted| unit.find(wanted).is_some();
        if has(NalType::SPS) && has(NalType::PPS) {
            return true;
        }
        self.scratch.copy_from(unit);
        unit.reset(unit.captured());
        // 7.4.1.2.3: the delimiter comes first; the parameter sets before what refers to them.
        let is_delimiter = |nal: &&[u8]| nal_type(nal) == Some(NalType::AUD);
        let is_set = |nal: &&[u8]| matches!(nal_type(nal), Some(NalType::SPS | NalType::PPS));
        let delimiter = self.scratch.nal_units().filter(is_delimiter);
        let rest = self.scratch.nal_units().filter(|nal| !is_delimiter(nal) && !is_set(nal));
        let mut nals = delimiter.chain([sets.sps(), sets.pps()]).chain(rest);
        nals.try_for_each(|nal| unit.push(nal)).is_ok()
    }
}

impl Default for Assembler {
    fn default() -> Self {
        Self {
            continuity: Continuity::START,
            sps: Vec::new(),
            pps: Vec::new(),
            sets: None,
            scratch: AccessUnit::default(),
            has_nal_units: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h264::annexb::nal_units;
    use crate::h264::{MAX_ACCESS_UNIT_LEN, is_complete_before};
    use crate::time::Instant;

    const CLIP: &[u8] = include_bytes!("../../tests/data/clip-320x240.h264");

    /// Gives the NAL units one after the other; answers the types in each unit that is admitted.
    fn assemble<'a>(assembler: &mut Assembler, nals: &[&'a [u8]]) -> Vec<Vec<u8>> {
        let mut unit = AccessUnit::default();
        let mut admitted = Vec::new();
        for nal in nals.iter().copied().map(Some).chain([None]) {
            if nal.is_none_or(|nal: &'a [u8]| is_complete_before(&unit, nal)) {
                if assembler.admit(&mut unit) {
                    admitted.push(unit.nal_units().map(|nal| nal[0] & 0x1f).collect());
                }
                unit.reset(Instant::ZERO);
            }
            if let Some(nal) = nal {
                assembler.push(&mut unit, Ok(nal));
            }
        }
        admitted
    }

    #[test]
    fn sei_and_delimiters_stay_filler_goes_and_sets_are_put_behind_the_delimiter() {
        let clip: Vec<_> = nal_units(CLIP).collect();
        let (sps, pps) = (clip[0], clip[1]);
        let idr = clip.iter().find(|nal| nal_type(nal) == Some(NalType::IDR_SLICE)).unwrap();
        let (aud, sei, filler) = (&[0x09, 0xf0][..], &[0x06, 1, 1, 0, 0x80][..], &[0x0c, 0x80][..]);
        let mut assembler = Assembler::default();
        let nals = [aud, sps, pps, sei, idr, filler, aud, sei, idr, filler];
        let admitted = assemble(&mut assembler, &nals);
        assert_eq!(admitted, [[9, 7, 8, 6, 5], [9, 7, 8, 6, 5]]);
        assert!(!assembler.needs_idr());
    }

    #[test]
    fn what_is_missing_is_named_in_the_order_in_which_it_is_needed() {
        let clip: Vec<_> = nal_units(CLIP).collect();
        let (sps, pps, p_slice) = (clip[0], clip[1], &[0x41, 0x9a, 1][..]);
        // Baseline, level 3, and then nothing that can be parsed.
        let bad_sps = &[0x67, 66, 0, 30, 0xff][..];
        let cases: [(&[&[u8]], Missing); 5] = [
            (&[], Missing::NalUnits),
            (&[pps, p_slice], Missing::Sps),
            (&[sps, p_slice], Missing::Pps),
            (&[bad_sps, pps, p_slice], Missing::UsableParameterSets),
            (&[sps, pps, p_slice], Missing::IdrPicture),
        ];
        for (nals, missing) in cases {
            let mut assembler = Assembler::default();
            assert!(assemble(&mut assembler, nals).is_empty());
            assert_eq!(assembler.missing(), missing);
        }
    }

    #[test]
    fn a_nal_unit_that_is_too_long_costs_everything_up_to_the_next_idr_picture() {
        let clip: Vec<_> = nal_units(CLIP).collect();
        let huge = vec![0x55; MAX_ACCESS_UNIT_LEN + 1];
        for damage in [Ok(&huge[..]), Err(TooLong)] {
            let mut assembler = Assembler::default();
            assert!(!assemble(&mut assembler, &clip[..10]).is_empty());
            let mut unit = AccessUnit::default();
            assembler.push(&mut unit, Ok(&[0x41, 0x9a, 1]));
            assembler.push(&mut unit, damage);
            assert!(unit.is_empty() && assembler.needs_idr());
            assert!(assemble(&mut assembler, &[&[0x41, 0x9a, 1]]).is_empty());
            assert!(!assemble(&mut assembler, &clip[..10]).is_empty());
        }
    }

    #[test]
    fn pictures_follow_their_idr_until_one_is_damaged() {
        let clip: Vec<_> = nal_units(CLIP).collect();
        let (sps, pps) = (clip[0], clip[1]);
        let idr = clip.iter().find(|nal| nal_type(nal) == Some(NalType::IDR_SLICE)).unwrap();
        let p = &[0x41, 0x9a, 1][..];
        let without_first_macroblock = &[0x41, 0x5a, 1][..];
        let bad_sps = &[0x67, 66, 0, 30, 0xff][..];
        let (aud, first) = (&[0x09, 0xf0][..], [vec![7, 8, 5], vec![1]]);
        for damage in [&[aud, without_first_macroblock][..], &[bad_sps, idr]] {
            let mut assembler = Assembler::default();
            let nals = [&[sps, pps, idr, p][..], damage, &[aud, p, sps, idr, p]].concat();
            let admitted = assemble(&mut assembler, &nals);
            // What comes with the last one, without a PPS, gets the one that is known.
            assert_eq!(admitted, [&first[..], &first].concat(), "{damage:x?}");
            assert!(!assembler.needs_idr());
            assert_eq!(assembler.parameter_sets(), ParameterSets::new(sps, pps).ok().as_ref());
        }
    }

    #[test]
    fn another_stream_does_not_get_the_parameter_sets_of_the_one_before() {
        let clip: Vec<_> = nal_units(CLIP).collect();
        let idr = clip.iter().find(|nal| nal_type(nal) == Some(NalType::IDR_SLICE)).unwrap();
        let mut assembler = Assembler::default();
        assert_eq!(assemble(&mut assembler, &[clip[0], clip[1], idr]).len(), 1);
        assembler.restart();
        assert!(assembler.needs_idr() && assembler.parameter_sets().is_none());
        assert_eq!(assembler.missing(), Missing::Sps);
        assert!(assemble(&mut assembler, &[idr, &[0x41, 0x9a, 1]]).is_empty());
        assert_eq!(assemble(&mut assembler, &[clip[0], clip[1], idr]).len(), 1);
    }
}
