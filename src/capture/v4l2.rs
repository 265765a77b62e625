//! Turns a V4L2 capture node into frames: runs the queue, counts what is lost.
//!
//! A buffer that the driver calls damaged, or that is too short for its format, is counted and goes
//! back; a gap in the driver's sequence is counted too.
//!
//! Not implemented: interlaced fields in buffers of their own, cropping.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layout::{self, Layout};
use super::mode::Request;
use super::node::{Losses, Node, Prepared};
use super::{Error, Mode, RawFrame, RawSource, Wait, controls};
use crate::frame::{Colour, Frame};
use crate::sys::v4l2::{Control, Format, FourCc, Info, Lease};
use crate::time::Instant;

/// A camera that streams pictures: uncompressed ones, or JPEG images.
#[derive(Debug)]
pub struct V4l2 {
    node: Node,
    negotiated: Arc<Negotiated>,
    losses: Losses,
}

impl V4l2 {
    /// Opens a camera in the mode that fits best, and starts it.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] when there is no such device, [`Error::Denied`] and [`Error::Busy`] when it
    /// is not for us (now), [`Error::NotACamera`], [`Error::NoUsableFormat`]; [`Error::Os`] for
    /// whatever else the kernel refuses.
    pub fn open(path: impl Into<PathBuf>, wanted: Request) -> Result<Self, Error> {
        let formats = layout::USABLE.map(|(fourcc, _)| fourcc);
        let prepared = Prepared::new(path.into(), &wanted, &formats)?;
        let format = prepared.format;
        let unusable = || prepared.unusable();
        let pixels = layout::pixel_format(format.fourcc).ok_or_else(unusable)?;
        let layout = Layout::new(&format, pixels).filter(|_| is_whole_frame(&format));
        let layout = layout.ok_or_else(unusable)?;
        let Format { width, height, .. } = format;
        let mode = Mode { format: pixels, width, height, fps: prepared.fps };
        let colour = layout::colour(format.colorimetry, pixels);
        let negotiated = Arc::new(Negotiated { mode, layout, colour });
        Ok(Self { node: prepared.start()?, negotiated, losses: Losses::default() })
    }

    /// As [`V4l2::open`], in one format.
    ///
    /// # Errors
    ///
    /// As [`V4l2::open`]; [`Error::NoUsableFormat`] when the camera has no such format.
    pub fn open_in(
        path: impl Into<PathBuf>,
        wanted: Request,
        format: FourCc,
    ) -> Result<Self, Error> {
        Self::open(path, Request { format: Some(format), ..wanted })
    }

    /// The device's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.node.path()
    }

    /// What the driver says of the camera.
    #[must_use]
    pub const fn info(&self) -> &Info {
        self.node.device().info()
    }

    /// The controls that can be set, with their ranges.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`], or [`Error::Os`].
    pub fn controls(&self) -> Result<Vec<Control>, Error> {
        controls::list(&self.node)
    }

    /// Sets a control by its name in v4l2-ctl's spelling (`brightness`, `auto_exposure`).
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchControl`], [`Error::ControlRange`], or [`Error::Os`] when the driver refuses
    /// the value.
    pub fn set_control(&self, name: &str, value: i32) -> Result<(), Error> {
        controls::apply(&self.node, [(name, i64::from(value))])
    }

    /// Sets every control of `values`, by its name: modes first, because they lock values.
    ///
    /// # Errors
    ///
    /// As [`V4l2::set_control`], for the first one that could not be set; the others are set.
    pub fn apply_controls(&self, values: &BTreeMap<String, i64>) -> Result<(), Error> {
        controls::apply(&self.node, values.iter().map(|(name, &value)| (name.as_str(), value)))
    }

    /// The frame in a buffer, or `None` (and counted) when it is damaged.
    fn accept(&mut self, lease: Lease, now: Instant) -> Option<MappedFrame> {
        self.losses.sequence(lease.sequence());
        if lease.is_damaged() || !self.negotiated.layout.is_whole(|index| lease.plane(index)) {
            self.losses.damaged += 1;
            return None;
        }
        let captured = self.node.captured(&lease, now);
        Some(MappedFrame { captured, lease, negotiated: Arc::clone(&self.negotiated) })
    }
}

impl RawSource for V4l2 {
    fn mode(&self) -> Mode {
        self.negotiated.mode
    }

    fn wait(&self) -> Wait<'_> {
        Wait::Readable(self.node.as_fd())
    }

    fn capture(&mut self, now: Instant) -> Result<Option<RawFrame>, Error> {
        // Once round the buffers at most: a driver that only delivers damage must not keep us.
        for _ in 0..self.node.buffer_count() {
            let Some(lease) = self.node.dequeue()? else { return Ok(None) };
            if let Some(frame) = self.accept(lease, now) {
                return Ok(Some(RawFrame::Mapped(frame)));
            }
        }
        Ok(None)
    }

    fn lost(&self) -> u64 {
        self.losses.damaged + self.losses.gaps
    }
}

/// A picture in a driver's buffer; dropping it gives the buffer back.
#[derive(Debug)]
pub struct MappedFrame {
    lease: Lease,
    negotiated: Arc<Negotiated>,
    captured: Instant,
}

impl MappedFrame {
    /// The picture.
    #[must_use]
    pub fn frame(&self) -> Frame<'_> {
        let Negotiated { mode, layout, colour } = &*self.negotiated;
        Frame {
            format: mode.format,
            width: mode.width,
            height: mode.height,
            colour: *colour,
            captured: self.captured,
            planes: layout.planes(|index| self.lease.plane(index)),
        }
    }
}

/// What the driver and we agreed on; every frame shares it.
#[derive(Debug)]
struct Negotiated {
    mode: Mode,
    layout: Layout,
    colour: Colour,
}

/// Whether a buffer holds a whole frame: progressive, or both fields interleaved.
const fn is_whole_frame(format: &Format) -> bool {
    // videodev2.h, v4l2_field: NONE, INTERLACED, INTERLACED_TB, INTERLACED_BT.
    matches!(format.field, 1 | 4 | 8 | 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_camera_is_told_so() {
        let wanted = Request { width: 640, height: 360, fps: 15.0, format: None };
        let said = |path: &str| V4l2::open(path, wanted).expect_err("no camera").to_string();
        assert_eq!(said("/dev/null"), "/dev/null: not a capture device: it is no video node");
        assert!(said("/dev/no-such-node").starts_with("/dev/no-such-node: no such device"));
    }
}
