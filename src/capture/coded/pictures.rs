//! Turns the bytes of a camera's buffers into access units with increasing capture times.
//!
//! V4L2, "V4L2_PIX_FMT_H264": a buffer holds one access unit. Parameter sets in a buffer of their
//! own are taken too, and buffers with several pictures. No I/O.
//!
//! Not implemented: pictures that lie in several buffers; they are damaged ones here.

use std::time::Duration;

use crate::capture::node::Losses;
use crate::h264::annexb::split_first;
use crate::h264::{
    AccessUnit, Assembler, NalType, ParameterSets, is_b_slice, is_complete_before, nal_type,
};
use crate::time::Instant;

/// A buffer as the driver hands it out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer<'a> {
    /// An Annex B byte stream.
    pub(super) bytes: &'a [u8],
    /// The driver's count of buffers, those included that it had to drop.
    pub(super) sequence: u32,
    pub(super) captured: Instant,
    /// Whether the driver says so.
    pub(super) is_damaged: bool,
}

/// The camera's stream cannot be passed on: it has B pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HasBPictures;

/// What has been seen of a camera's stream.
#[derive(Debug)]
pub(super) struct Pictures {
    assembler: Assembler,
    losses: Losses,
    /// When the last unit that was handed out was captured.
    last: Option<Instant>,
    /// Width and height, from `sets`; from the driver before there are any.
    size: (u32, u32),
    sets: Option<ParameterSets>,
    /// B pictures since the last IDR picture.
    b_pictures: u32,
}

impl Pictures {
    pub(super) fn new(size: (u32, u32)) -> Self {
        Self {
            assembler: Assembler::default(),
            losses: Losses::default(),
            last: None,
            size,
            sets: None,
            b_pictures: 0,
        }
    }

    pub(super) const fn size(&self) -> (u32, u32) {
        self.size
    }

    /// Pictures that were damaged, missing, or of no use without such a one.
    pub(super) const fn lost(&self) -> u64 {
        self.losses.damaged + self.losses.gaps
    }

    /// Whether nothing can be handed out before an IDR picture.
    pub(super) fn needs_idr(&self) -> bool {
        self.assembler.needs_idr()
    }

    /// Writes the next access unit that begins in `buffer` after `read` bytes into `unit`, if there
    /// is one; moves `read` behind it, or to the end.
    ///
    /// # Errors
    ///
    /// [`HasBPictures`], before the second one of a group is handed out.
    pub(super) fn next(
        &mut self,
        buffer: &Buffer<'_>,
        read: &mut usize,
        unit: &mut AccessUnit,
    ) -> Result<bool, HasBPictures> {
        if *read == 0 && !self.begin(buffer) {
            *read = buffer.bytes.len();
        }
        let tick = Duration::from_micros(1);
        let captured = self.last.map_or(buffer.captured, |last| buffer.captured.max(last + tick));
        while let Some(rest) = buffer.bytes.get(*read..).filter(|rest| !rest.is_empty()) {
            unit.reset(captured);
            *read = buffer.bytes.len() - self.gather(rest, unit).len();
            if self.admit(unit)? {
                self.last = Some(captured);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether anything in the buffer can be used.
    fn begin(&mut self, buffer: &Buffer<'_>) -> bool {
        let is_usable = !buffer.is_damaged && split_first(buffer.bytes).is_some();
        let gap = self.losses.sequence(buffer.sequence);
        if gap > 0 || !is_usable {
            self.assembler.interrupt();
        }
        self.losses.damaged += u64::from(!is_usable);
        is_usable
    }

    /// Collects the NAL units of one picture; answers what comes after them.
    fn gather<'a>(&mut self, mut rest: &'a [u8], unit: &mut AccessUnit) -> &'a [u8] {
        while let Some((nal, after)) = split_first(rest) {
            if is_complete_before(unit, nal) {
                return rest;
            }
            self.assembler.push(unit, Ok(nal));
            rest = after;
        }
        &[]
    }

    fn admit(&mut self, unit: &mut AccessUnit) -> Result<bool, HasBPictures> {
        let is_picture = unit.nal_units().any(|nal| nal_type(nal).is_some_and(NalType::is_slice));
        if !self.assembler.admit(unit) {
            // Before the first picture nothing is lost that anybody could have had.
            self.losses.damaged += u64::from(is_picture && self.last.is_some());
            return Ok(false);
        }
        if unit.is_idr() {
            self.b_pictures = 0;
            self.describe(unit);
        }
        // One alone may be a damaged picture of another kind.
        self.b_pictures += u32::from(unit.nal_units().any(is_b_slice));
        if self.b_pictures > 1 { Err(HasBPictures) } else { Ok(true) }
    }

    fn describe(&mut self, unit: &AccessUnit) {
        if self.sets.as_ref().is_some_and(|sets| sets.are_in(unit)) {
            return;
        }
        self.sets = ParameterSets::of(unit);
        let size = self.sets.as_ref().and_then(|sets| sets.describe().ok());
        if let Some(description) = size {
            self.size = (description.width, description.height);
        }
    }
}

#[cfg(test)]
mod tests;
