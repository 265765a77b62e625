//! One uncompressed picture as it lies in memory: planes, strides, format, capture time.
//!
//! A [`Frame`] borrows its bytes from whoever holds the buffer (`capture::RawFrame`), so it
//! cannot outlive the buffer's return to the driver.

use crate::time::Instant;

/// How a picture is laid out: its samples, 8 bits each, 4:2:2 or 4:2:0; or one JPEG image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Packed 4:2:2, `Y0 Cb Y1 Cr`.
    Yuyv,
    /// Packed 4:2:2, `Cb Y0 Cr Y1`.
    Uyvy,
    /// Planar 4:2:0, Y then interleaved CbCr.
    Nv12,
    /// Planar 4:2:0, Y then interleaved CrCb.
    Nv21,
    /// Planar 4:2:0, Y, Cb, Cr (V4L2's YU12); the encoder's own format.
    I420,
    /// Planar 4:2:0, Y, Cr, Cb.
    Yv12,
    /// A JPEG image (ITU-T T.81), possibly without Huffman tables: `planes[0]` holds its bytes, and
    /// its stride means nothing.
    Mjpeg,
}

impl PixelFormat {
    /// Planes that [`Frame::planes`] fills for this format: 1, 2 or 3.
    #[must_use]
    pub const fn plane_count(self) -> usize {
        match self {
            Self::Yuyv | Self::Uyvy | Self::Mjpeg => 1,
            Self::Nv12 | Self::Nv21 => 2,
            Self::I420 | Self::Yv12 => 3,
        }
    }
}

/// What the sample values mean: the matrix and range an H.264 VUI announces (H.264 E.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Colour {
    pub matrix: Matrix,
    /// Whether luma uses 0..=255 instead of 16..=235.
    pub full_range: bool,
}

/// Matrix coefficients, by the standard that defines them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Matrix {
    /// ITU-R BT.601: V4L2's default for everything that is not HDTV.
    #[default]
    Bt601,
    /// ITU-R BT.709.
    Bt709,
}

/// One plane of samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plane<'a> {
    /// `rows * stride` bytes, top row first; the last row may stop at the picture's width.
    pub bytes: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// One uncompressed picture.
///
/// # Shape
///
/// - `planes`: the first [`PixelFormat::plane_count`] are filled, in the format's own order (so
///   `Yv12` has Cr in `planes[1]`); the rest are empty.
/// - `width`, `height`: luma samples, both even.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub format: PixelFormat,
    pub width: u32,
    pub height: u32,
    pub colour: Colour,
    /// When the sensor began (or the driver says it finished) this picture.
    pub captured: Instant,
    pub planes: [Plane<'a>; 3],
}
