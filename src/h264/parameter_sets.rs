//! SPS and PPS: what a decoder needs before the first slice.
//!
//! H.264 7.3.2.1, 7.3.2.2; RFC 6184 8.1 (`profile-level-id`).
//!
//! Not implemented: more than one SPS or PPS per stream.

use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::nal::{Nal, RefNal};
use thiserror::Error;

use super::access_unit::AccessUnit;
use super::nal::{NalType, nal_type};

/// The SPS and PPS of a stream, as NAL units without start code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSets {
    sps: Vec<u8>,
    pps: Vec<u8>,
}

/// What an SPS says about the pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Description {
    /// Width in luma samples, after cropping.
    pub width: u32,
    /// Height in luma samples, after cropping.
    pub height: u32,
    /// Pictures per second from the VUI's timing information, where present.
    pub fps: Option<f64>,
}

/// Why a pair of NAL units is not a usable pair of parameter sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    #[error("not a sequence parameter set")]
    NotAnSps,
    #[error("not a picture parameter set")]
    NotAPps,
    #[error("sequence parameter set cannot be parsed")]
    BadSps,
}

impl ParameterSets {
    /// Takes one SPS and one PPS.
    ///
    /// # Errors
    ///
    /// The source's fault: wrong `nal_unit_type`, too short, or an SPS that does not parse.
    pub fn new(sps: &[u8], pps: &[u8]) -> Result<Self, Error> {
        if nal_type(sps) != Some(NalType::SPS) || sps.len() < 4 {
            return Err(Error::NotAnSps);
        }
        if nal_type(pps) != Some(NalType::PPS) || pps.len() < 2 {
            return Err(Error::NotAPps);
        }
        let sets = Self { sps: sps.to_vec(), pps: pps.to_vec() };
        sets.describe().map(|_| sets)
    }

    /// Those of an access unit that carries both.
    #[must_use]
    pub fn of(unit: &AccessUnit) -> Option<Self> {
        Self::new(unit.find(NalType::SPS)?, unit.find(NalType::PPS)?).ok()
    }

    /// Whether `unit` carries exactly these; compares bytes and allocates nothing.
    #[must_use]
    pub fn are_in(&self, unit: &AccessUnit) -> bool {
        unit.find(NalType::SPS) == Some(&*self.sps) && unit.find(NalType::PPS) == Some(&*self.pps)
    }

    #[must_use]
    pub fn sps(&self) -> &[u8] {
        &self.sps
    }

    #[must_use]
    pub fn pps(&self) -> &[u8] {
        &self.pps
    }

    /// `profile_idc`, constraint flags, `level_idc`: the bytes after the SPS's header.
    ///
    /// RFC 6184 8.1
    #[must_use]
    pub fn profile_level_id(&self) -> [u8; 3] {
        self.sps.get(1..).and_then(|rest| rest.first_chunk().copied()).unwrap_or_default()
    }

    /// Whether the VUI says that pictures are shown in another order than they are sent.
    #[must_use]
    pub fn is_reordered(&self) -> bool {
        let nal = RefNal::new(&self.sps, &[], true);
        SeqParameterSet::from_bits(nal.rbsp_bits())
            .ok()
            .and_then(|sps| sps.vui_parameters?.bitstream_restrictions)
            .is_some_and(|restrictions| restrictions.max_num_reorder_frames > 0)
    }

    /// Parses the SPS.
    ///
    /// # Errors
    ///
    /// [`Error::BadSps`]; never after [`ParameterSets::new`] has accepted it.
    pub fn describe(&self) -> Result<Description, Error> {
        let nal = RefNal::new(&self.sps, &[], true);
        let sps = SeqParameterSet::from_bits(nal.rbsp_bits()).map_err(|_| Error::BadSps)?;
        let (width, height) = sps.pixel_dimensions().map_err(|_| Error::BadSps)?;
        if width == 0 || height == 0 {
            return Err(Error::BadSps);
        }
        Ok(Description { width, height, fps: sps.fps().filter(|fps| fps.is_finite()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];

    /// Writes the syntax elements of 7.3.2.1.1 and E.1.1.
    #[derive(Default)]
    struct Bits(Vec<bool>);

    impl Bits {
        fn u(&mut self, len: u32, value: u32) -> &mut Self {
            self.0.extend((0..len).rev().map(|bit| value >> bit & 1 == 1));
            self
        }

        /// Exp-Golomb code (9.1).
        fn ue(&mut self, value: u32) -> &mut Self {
            let len = (value + 1).ilog2();
            self.u(len, 0).u(len + 1, value + 1)
        }

        /// An SPS of the Baseline profile; none of these values needs emulation prevention.
        fn into_sps(mut self) -> Vec<u8> {
            self.u(1, 1);
            let bytes = self.0.chunks(8).map(|bits| {
                bits.iter().enumerate().fold(0, |byte, (at, &bit)| byte | u8::from(bit) << (7 - at))
            });
            [0x67, 66, 0, 30].into_iter().chain(bytes).collect()
        }
    }

    /// 64x48 pixels but for what is cropped on the right and below; and a VUI, if there is one.
    fn sps(crop: Option<(u32, u32)>, vui: Option<&mut Bits>) -> Vec<u8> {
        let mut bits = Bits::default();
        bits.ue(0).ue(0).ue(2).ue(1).u(1, 0).ue(3).ue(2).u(1, 1).u(1, 1);
        bits.u(1, crop.is_some().into());
        if let Some((right, bottom)) = crop {
            bits.ue(0).ue(right / 2).ue(0).ue(bottom / 2);
        }
        bits.u(1, vui.is_some().into());
        vui.into_iter().for_each(|vui| bits.0.append(&mut vui.0));
        bits.into_sps()
    }

    /// A VUI with or without timing information and `max_num_reorder_frames`.
    fn vui(timing: Option<(u32, u32)>, reordered: Option<u32>) -> Bits {
        let mut bits = Bits::default();
        bits.u(4, 0).u(1, timing.is_some().into());
        if let Some((units, scale)) = timing {
            bits.u(32, units).u(32, scale).u(1, 1);
        }
        bits.u(3, 0).u(1, reordered.is_some().into());
        if let Some(reordered) = reordered {
            bits.u(1, 1).ue(0).ue(0).ue(10).ue(10).ue(reordered).ue(4);
        }
        bits
    }

    fn sets(sps: &[u8]) -> Result<ParameterSets, Error> {
        ParameterSets::new(sps, &PPS)
    }

    #[test]
    fn the_size_is_what_cropping_leaves_and_never_nothing() {
        for (crop, size) in [(None, (64, 48)), (Some((0, 2)), (64, 46)), (Some((60, 46)), (4, 2))] {
            let description = sets(&sps(crop, None)).unwrap().describe().unwrap();
            assert_eq!(
                (description.width, description.height, description.fps),
                (size.0, size.1, None)
            );
        }
        for crop in [(64, 0), (0, 48), (64, 48), (66, 0), (0, 50)] {
            assert_eq!(sets(&sps(Some(crop), None)), Err(Error::BadSps), "{crop:?}");
        }
    }

    #[test]
    fn a_size_that_no_number_holds_is_refused() {
        let huge = [u32::MAX - 1, u32::MAX >> 1, 1 << 28, (1 << 28) - 1];
        for (across, down) in huge.into_iter().flat_map(|it| [(it, 2), (3, it), (it, it)]) {
            for is_frame in [0, 1] {
                let mut bits = Bits::default();
                bits.ue(0).ue(0).ue(2).ue(1).u(1, 0).ue(across).ue(down).u(1, is_frame);
                bits.u(2, 1).u(2, 0);
                assert_eq!(sets(&bits.into_sps()), Err(Error::BadSps), "{across} {down}");
            }
        }
    }

    #[test]
    fn the_rate_is_that_of_the_timing_information() {
        for (timing, fps) in [(Some((0x101, 0x101 * 50)), Some(25.0)), (None, None)] {
            let sets = sets(&sps(None, Some(&mut vui(timing, None)))).unwrap();
            assert_eq!(sets.describe().unwrap().fps, fps);
        }
    }

    #[test]
    fn only_a_stream_that_says_so_is_reordered() {
        for (reordered, expected) in
            [(None, false), (Some(0), false), (Some(1), true), (Some(3), true)]
        {
            let sets = sets(&sps(None, Some(&mut vui(None, reordered)))).unwrap();
            assert_eq!(sets.is_reordered(), expected, "{reordered:?}");
        }
        assert!(!sets(&sps(None, None)).unwrap().is_reordered());
    }

    #[test]
    fn the_sets_of_a_unit_are_both_of_them() {
        let unit = |nals: &[&[u8]]| {
            let mut unit = AccessUnit::default();
            unit.reset(Instant::ZERO);
            nals.iter().for_each(|nal| unit.push(nal).unwrap());
            unit
        };
        let (good, other) = (sps(None, None), sps(Some((0, 2)), None));
        let idr = &[0x65, 0x88][..];
        let whole = unit(&[&good, &PPS, idr]);
        let sets = ParameterSets::of(&whole).unwrap();
        assert_eq!((sets.sps(), sets.pps()), (&*good, &PPS[..]));
        assert_eq!(sets.profile_level_id(), [66, 0, 30]);
        assert!(sets.are_in(&whole));
        for nals in [&[&good[..], idr][..], &[&PPS, idr], &[idr]] {
            assert!(!sets.are_in(&unit(nals)) && ParameterSets::of(&unit(nals)).is_none());
        }
        assert!(!sets.are_in(&unit(&[&other, &PPS, idr])));
        assert!(!sets.are_in(&unit(&[&good, &[0x68, 1], idr])));
    }

    #[test]
    fn what_is_no_parameter_set_is_refused() {
        let good = sps(None, None);
        assert_eq!(ParameterSets::new(&PPS, &PPS), Err(Error::NotAnSps));
        assert_eq!(ParameterSets::new(&good[..3], &PPS), Err(Error::NotAnSps));
        assert_eq!(ParameterSets::new(&good[..4], &PPS), Err(Error::BadSps));
        assert_eq!(ParameterSets::new(&good, &good), Err(Error::NotAPps));
        assert_eq!(ParameterSets::new(&good, &[0x68]), Err(Error::NotAPps));
        assert!(ParameterSets::new(&good, &[0x68, 1]).is_ok());
    }
}
