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
