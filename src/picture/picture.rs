//! One I420 picture in memory of our own: what is drawn on, scaled into and encoded from.

use std::fmt;

use crate::frame::{Colour, Frame, PixelFormat, Plane};
use crate::time::Instant;

/// An I420 picture; both sides even.
#[derive(Clone, Default)]
pub struct Picture {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) colour: Colour,
    pub(super) captured: Instant,
    /// `width * height` samples, top row first.
    pub(super) luma: Vec<u8>,
    /// A quarter as many each.
    pub(super) cb: Vec<u8>,
    pub(super) cr: Vec<u8>,
}

impl Picture {
    /// A black picture.
    ///
    /// # Panics
    ///
    /// When a side is odd or zero: sources and configurations have no such pictures.
    #[must_use]
    pub fn new(width: u32, height: u32) -> Self {
        let mut picture = Self::default();
        picture.resize(width, height);
        picture
    }

    /// Makes this a picture of that size: black if it had another one, else as it was.
    ///
    /// # Panics
    ///
    /// As [`Picture::new`].
    ///
    /// # Cost
    ///
    /// Allocates only when the size changes.
    pub fn resize(&mut self, width: u32, height: u32) {
        assert!(
            width > 0 && height > 0 && width.is_multiple_of(2) && height.is_multiple_of(2),
            "{width}x{height} cannot be sampled 4:2:0"
        );
        let (width, height) = (width as usize, height as usize);
        if (width, height) != (self.width, self.height) {
            (self.width, self.height) = (width, height);
            self.luma = vec![BLACK; width * height];
            self.cb = vec![NEUTRAL; width * height / 4];
            self.cr = self.cb.clone();
        }
    }

    /// Says what the samples mean and when they were captured.
    pub fn stamp(&mut self, colour: Colour, captured: Instant) {
        (self.colour, self.captured) = (colour, captured);
    }

    /// The picture as encoders read it.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "`resize` took both sides as u32")]
    pub fn frame(&self) -> Frame<'_> {
        let chroma = self.width / 2;
        Frame {
            format: PixelFormat::I420,
            width: self.width as u32,
            height: self.height as u32,
            colour: self.colour,
            captured: self.captured,
            planes: [
                Plane { bytes: &self.luma, stride: self.width },
                Plane { bytes: &self.cb, stride: chroma },
                Plane { bytes: &self.cr, stride: chroma },
            ],
        }
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

/// Luma of a picture that was never written.
const BLACK: u8 = 16;
/// Chroma without colour.
pub(super) const NEUTRAL: u8 = 128;
