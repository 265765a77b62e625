//! Turns a driver's coded buffer into an access unit with parameter sets of our own keeping.
//!
//! H.264 7.4.1.2.3, Annex B. One access unit per buffer; parameter sets may come in a buffer of
//! their own. They are kept and put before every IDR picture, because a driver that is asked to
//! repeat them may stop after some hours (bcm2835-codec, after about 20,000 pictures).
//!
//! Not implemented: more than one SPS or PPS per stream.

use crate::h264::{AccessUnit, NalType, TooLong, annexb, is_b_slice, nal_type};

/// The parameter sets that came last.
#[derive(Debug, Default)]
pub(super) struct Bitstream {
    sps: Vec<u8>,
    pps: Vec<u8>,
}

/// What a coded buffer held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A picture; the access unit is complete.
    Picture,
    /// No picture: parameter sets, or nothing at all.
    Headers,
    /// An IDR picture before any parameter sets: nobody could decode it.
    Undecodable,
    /// A picture that is shown in another order than it is sent.
    BSlice,
    /// The driver says that it could not encode the picture.
    Damaged,
}

impl Bitstream {
    /// Fills `unit`, which was reset for this picture, with what viewers need of `coded`: no access
    /// unit delimiters, no filler.
    ///
    /// # Errors
    ///
    /// [`TooLong`]: the driver's fault.
    ///
    /// # Cost
    ///
    /// Two passes over the start codes, one copy of the bytes.
    pub(super) fn read(&mut self, coded: &[u8], unit: &mut AccessUnit) -> Result<Content, TooLong> {
        let (mut is_idr, mut has_slice) = (false, false);
        for nal in annexb::nal_units(coded) {
            match nal_type(nal) {
                Some(NalType::SPS) => keep(&mut self.sps, nal),
                Some(NalType::PPS) => keep(&mut self.pps, nal),
                Some(NalType::IDR_SLICE) => (is_idr, has_slice) = (true, true),
                Some(_) if is_b_slice(nal) => return Ok(Content::BSlice),
                Some(kind) => has_slice |= kind.is_slice(),
                None => {}
            }
        }
        if !has_slice {
            return Ok(Content::Headers);
        }
        if is_idr {
            if self.sps.is_empty() || self.pps.is_empty() {
                return Ok(Content::Undecodable);
            }
            unit.push(&self.sps)?;
            unit.push(&self.pps)?;
        }
        for nal in annexb::nal_units(coded) {
            let is_sent = nal_type(nal).is_some_and(|kind| kind.is_slice() || kind == NalType::SEI);
            if is_sent {
                unit.push(nal)?;
            }
        }
        Ok(Content::Picture)
    }
}

fn keep(kept: &mut Vec<u8>, nal: &[u8]) {
    kept.clear();
    kept.extend_from_slice(nal);
}
