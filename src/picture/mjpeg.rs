//! Decodes a camera's JPEG images to interleaved samples.
//!
//! ITU-T T.81 as far as [`super::markers`] reads it. The headers are checked before the decoder
//! sees them: an image that is not of the picture's size costs nothing.
//!
//! Not implemented: decoding to planes. The decoder spreads chroma to every pixel (a triangle
//! filter), and the converter takes the mean again: sharp edges of colour become a little softer,
//! and where a side is no multiple of a block, the last column or row of chroma takes a share of
//! the padding behind it.

use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::Undecodable;
use super::markers::{HUFFMAN_TABLES, Headers, corrupt};

/// Samples of one image, top row first, no padding; full range as JFIF has them.
pub(super) enum Decoded<'a> {
    /// One byte per pixel.
    Gray(&'a [u8]),
    /// `Y Cb Cr` per pixel.
    Colour(&'a [u8]),
}

/// Decodes one image at a time.
///
/// An image that ends too early is refused, unless it is in its last row of blocks.
///
/// # Cost
///
/// Keeps the samples (3 bytes per pixel) and one image with its tables. The decoder inside is
/// made anew for every image and allocates rows of blocks: a few dozen times the width in bytes.
#[derive(Default)]
pub(super) struct Decoder {
    samples: Vec<u8>,
    /// The image with the tables it lacked.
    completed: Vec<u8>,
}

impl Decoder {
    /// Decodes an image that must be `width` x `height` pixels large.
    pub(super) fn decode(
        &mut self,
        jpeg: &[u8],
        width: usize,
        height: usize,
    ) -> Result<Decoded<'_>, Undecodable> {
        let headers = Headers::parse(jpeg)?;
        if (headers.width, headers.height) != (width, height) {
            return Err(Undecodable { reason: "a JPEG image of another size" });
        }
        // Without EOI, behind which the decoder makes up what is missing.
        let image = headers.image.get(..headers.end()?).ok_or_else(corrupt)?;
        let image = if headers.has_huffman_tables {
            image
        } else {
            let (before, scan) = image.split_at(headers.scan);
            self.completed.clear();
            for part in [before, &HUFFMAN_TABLES, scan] {
                self.completed.extend_from_slice(part);
            }
            &self.completed
        };
        let (colours, bytes_per_pixel) = match headers.components {
            1 => (ColorSpace::Luma, 1),
            _ => (ColorSpace::YCbCr, 3),
        };
        self.samples.resize(bytes_per_pixel * width * height, 0);
        // Strict: otherwise what is missing is filled with grey, and nobody is told.
        let options = DecoderOptions::default()
            .jpeg_set_out_colorspace(colours)
            .set_max_width(width)
            .set_max_height(height)
            .set_strict_mode(true);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(image), options);
        decoder.decode_headers().map_err(reason)?;
        // An Adobe marker, or components called R, G and B.
        if decoder.input_colorspace() != Some(colours) {
            return Err(Undecodable { reason: "a JPEG image that is not of Y, Cb and Cr" });
        }
        decoder.decode_into(&mut self.samples).map_err(reason)?;
        Ok(match colours {
            ColorSpace::Luma => Decoded::Gray(&self.samples),
            _ => Decoded::Colour(&self.samples),
        })
    }
}

fn reason(error: DecodeErrors) -> Undecodable {
    match error {
        DecodeErrors::FormatStatic(reason) => Undecodable { reason },
        _ => corrupt(),
    }
}

#[cfg(test)]
mod tests;
