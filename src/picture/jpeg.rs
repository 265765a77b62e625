//! Encodes I420 pictures as JPEG images.
//!
//! ITU-T T.81 baseline, 4:2:0, in the JFIF format (ITU-T T.871), whose samples are full range and
//! of BT.601's matrix, whatever the source's: others would look washed out, or red a little orange.
//!
//! Not implemented: other samplings, and encoding a picture as it is captured.

use jpeg_encoder::{Encoder, EncodingError, ImageBuffer, JpegColorType, SamplingFactor};
use thiserror::Error;

use super::NEUTRAL;
use crate::frame::{Colour, Frame, Matrix, PixelFormat, Plane};

/// Why there is no image: a side is zero, odd or above 65535.
#[derive(Debug, Error)]
#[error("a picture of {width}x{height} cannot be a JPEG image")]
pub struct Error {
    pub width: u32,
    pub height: u32,
    pub source: Option<EncodingError>,
}

/// Encodes one picture. `quality` is 1 to 100 as libjpeg counts it.
///
/// Samples that a plane is too short for are black.
///
/// # Errors
///
/// [`Error`] when a side is zero, odd or above 65535.
///
/// # Panics
///
/// When `frame` is not I420: the caller's mistake.
///
/// # Cost
///
/// Allocates the image and a few rows; nothing of it is for every picture of a stream.
pub fn encode(frame: &Frame<'_>, quality: u8) -> Result<Vec<u8>, Error> {
    assert_eq!(frame.format, PixelFormat::I420, "only I420 pictures are encoded");
    let error = |source| Error { width: frame.width, height: frame.height, source };
    let (Ok(width), Ok(height)) = (u16::try_from(frame.width), u16::try_from(frame.height)) else {
        return Err(error(None));
    };
    if !width.is_multiple_of(2) || !height.is_multiple_of(2) {
        return Err(error(None));
    }
    let mut image = Vec::new();
    let mut encoder = Encoder::new(&mut image, quality.clamp(1, 100));
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    let rows = Rows { planes: frame.planes, width, height, jfif: Jfif::of(frame.colour) };
    encoder.encode_image(rows).map_err(|source| error(Some(source)))?;
    Ok(image)
}

/// A picture as the encoder asks for it: row by row, chroma for every pixel. It takes the mean of
/// four again, which is the sample it was.
struct Rows<'a> {
    planes: [Plane<'a>; 3],
    width: u16,
    height: u16,
    jfif: Jfif,
}

impl ImageBuffer for Rows<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.width
    }

    fn height(&self) -> u16 {
        self.height
    }

    fn fill_buffers(&self, y: u16, [luma, cb, cr, _]: &mut [Vec<u8>; 4]) {
        let (y, width) = (usize::from(y), usize::from(self.width));
        let [luma_plane, cb_plane, cr_plane] = self.planes;
        let rows = row(luma_plane, y, width).zip(row(cb_plane, y / 2, width / 2));
        let Some(((luma_row, cb_row), cr_row)) = rows.zip(row(cr_plane, y / 2, width / 2)) else {
            luma.resize(luma.len() + width, 0);
            cb.resize(cb.len() + width, NEUTRAL);
            cr.resize(cr.len() + width, NEUTRAL);
            return;
        };
        let chroma_rows = cb_row.iter().zip(cr_row);
        for (&luma_pair, chroma) in luma_row.as_chunks::<2>().0.iter().zip(chroma_rows) {
            let (luma_pair, chroma) = self.jfif.samples(luma_pair, [*chroma.0, *chroma.1]);
            luma.extend(luma_pair);
            cb.extend([chroma[0]; 2]);
            cr.extend([chroma[1]; 2]);
        }
    }
}

fn row(plane: Plane<'_>, index: usize, len: usize) -> Option<&[u8]> {
    plane.bytes.get(index * plane.stride..)?.get(..len)
}

/// What a source's samples are in JFIF.
struct Jfif {
    matrix: Matrix,
    /// Every value in full range.
    luma: [i16; 256],
    /// The same, less [`NEUTRAL`].
    chroma: [i16; 256],
}

impl Jfif {
    fn of(colour: Colour) -> Self {
        let expanded = |zero: i16, steps: f32| {
            let from_zero = |sample| f32::from(i16::try_from(sample).unwrap_or(zero) - zero);
            #[allow(clippy::cast_possible_truncation, reason = "at most 298 either way")]
            std::array::from_fn(|sample| (from_zero(sample) * 255.0 / steps).round() as i16)
        };
        let (black, luma, chroma) =
            if colour.full_range { (0, 255.0, 255.0) } else { (16, 219.0, 224.0) };
        Self {
            matrix: colour.matrix,
            luma: expanded(black, luma),
            chroma: expanded(NEUTRAL.into(), chroma),
        }
    }

    /// Two pixels and the chroma they share, as Cb and Cr.
    fn samples(&self, luma: [u8; 2], chroma: [u8; 2]) -> ([u8; 2], [u8; 2]) {
        let luma = luma.map(|sample| i32::from(self.luma[usize::from(sample)]));
        let [cb, cr] = chroma.map(|sample| i32::from(self.chroma[usize::from(sample)]));
        let (more_luma, cb, cr) = match self.matrix {
            Matrix::Bt601 => (0, cb, cr),
            Matrix::Bt709 => (
                rounded(LUMA_OF_CB * cb + LUMA_OF_CR * cr),
                rounded(CB_OF_CB * cb + CB_OF_CR * cr),
                rounded(CR_OF_CB * cb + CR_OF_CR * cr),
            ),
        };
        let grey = i32::from(NEUTRAL);
        (luma.map(|luma| clamped(luma + more_luma)), [clamped(cb + grey), clamped(cr + grey)])
    }
}

/// From units of 1 / 65536.
fn rounded(product: i32) -> i32 {
    (product + (1 << 15)) >> 16
}

fn clamped(sample: i32) -> u8 {
    u8::try_from(sample.clamp(0, 255)).unwrap_or(NEUTRAL)
}

// From BT.709 to BT.601, in units of 1 / 65536: the product of the one's matrix to R, G and B
// (ITU-R BT.709-6 3.2) with the other's from them (ITU-R BT.601-7 2.5.1).
const LUMA_OF_CB: i32 = 6_657;
const LUMA_OF_CR: i32 = 12_850;
const CB_OF_CB: i32 = 64_871;
const CB_OF_CR: i32 = -7_252;
const CR_OF_CB: i32 = -4_748;
const CR_OF_CR: i32 = 64_448;

#[cfg(test)]
mod tests;
