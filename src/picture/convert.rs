//! Converts what a source delivers to planar 4:2:0, turned as it is to be seen.
//!
//! Layouts as in the kernel's "Video for Linux: YUV formats"; sample values are not changed, so
//! matrix and range stay those of the source. 4:2:2 becomes 4:2:0 by the rounded mean of the
//! chroma of two rows, which puts chroma where MPEG-2 and H.264 expect it (H.264 figure E-1,
//! type 0).
//!
//! Not implemented: rotation by 90 degrees, and moving chroma by half a sample where a mirrored
//! picture or a JPEG image has it elsewhere.
//!
//! One pass: rows are written bottom up where a picture is to be turned, and reversed while they
//! are still in the first-level cache.

use std::fmt;

use thiserror::Error;

use super::mjpeg::{Decoded, Decoder};
use super::rows::{RowsMut, even_bytes, even_bytes_of_two, low, odd_bytes, odd_bytes_of_two, rows};
use super::{NEUTRAL, Picture};
use crate::frame::{Frame, PixelFormat, Plane};

/// The same picture as I420, read where it lies; `None` when its layout wants a [`Converter`].
#[must_use]
pub fn in_place<'a>(frame: &Frame<'a>) -> Option<Frame<'a>> {
    let [luma, second, third] = frame.planes;
    let planes = match frame.format {
        PixelFormat::I420 => frame.planes,
        PixelFormat::Yv12 => [luma, third, second],
        _ => return None,
    };
    Some(Frame { format: PixelFormat::I420, planes, ..*frame })
}

/// How a picture is to be turned before it is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orientation {
    /// Rotated by 180 degrees.
    pub is_upside_down: bool,
    /// Left and right swapped, after the rotation.
    pub is_mirrored: bool,
}

impl Orientation {
    pub(super) fn is_bottom_up(self) -> bool {
        self.is_upside_down
    }

    /// A rotation swaps left and right too.
    fn is_right_to_left(self) -> bool {
        self.is_upside_down != self.is_mirrored
    }
}

/// A JPEG image that is none, or not one of this picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Undecodable {
    pub reason: &'static str,
}

/// Converts pictures of any format and size.
#[derive(Default)]
pub struct Converter {
    orientation: Orientation,
    /// One row of `Cb Cr` pairs.
    pairs: Vec<u8>,
    decoder: Decoder,
}

impl Converter {
    #[must_use]
    pub fn new(orientation: Orientation) -> Self {
        Self { orientation, ..Self::default() }
    }

    /// Makes `into` the same picture as I420: the source's own may be given back.
    ///
    /// # Shape
    ///
    /// As [`Frame`] says. Rows that a plane is too short for keep what `into` had.
    ///
    /// # Errors
    ///
    /// [`Undecodable`] only for [`PixelFormat::Mjpeg`]: the camera's fault or the cable's. Then
    /// `into` has the frame's size, and its samples are those it had.
    ///
    /// # Panics
    ///
    /// As [`Picture::resize`].
    ///
    /// # Cost
    ///
    /// Reads and writes every sample once, and allocates only when the size changes. JPEG images
    /// take a pass more, and what [`Decoder`] says.
    pub fn convert(&mut self, frame: &Frame<'_>, into: &mut Picture) -> Result<(), Undecodable> {
        into.resize(frame.width, frame.height);
        let [first, second, third] = frame.planes;
        match frame.format {
            PixelFormat::I420 => self.copy([first, second, third], into),
            PixelFormat::Yv12 => self.copy([first, third, second], into),
            PixelFormat::Yuyv => self.unpack(first, even_bytes, odd_bytes_of_two, into),
            PixelFormat::Uyvy => self.unpack(first, odd_bytes, even_bytes_of_two, into),
            PixelFormat::Nv12 => {
                copy_rows(first, into.width, &mut into.luma, self.orientation);
                separate(second, into.width, [&mut into.cb, &mut into.cr], self.orientation);
            }
            PixelFormat::Nv21 => {
                copy_rows(first, into.width, &mut into.luma, self.orientation);
                separate(second, into.width, [&mut into.cr, &mut into.cb], self.orientation);
            }
            PixelFormat::Mjpeg => {
                let stride = into.width;
                match self.decoder.decode(first.bytes, into.width, into.height)? {
                    Decoded::Gray(bytes) => {
                        copy_rows(
                            Plane { bytes, stride },
                            stride,
                            &mut into.luma,
                            self.orientation,
                        );
                        into.cb.fill(NEUTRAL);
                        into.cr.fill(NEUTRAL);
                    }
                    Decoded::Colour(triples) => subsample(triples, into, self.orientation),
                }
            }
        }
        into.stamp(frame.colour, frame.captured);
        Ok(())
    }

    fn copy(&self, [luma, cb, cr]: [Plane<'_>; 3], into: &mut Picture) {
        copy_rows(luma, into.width, &mut into.luma, self.orientation);
        copy_rows(cb, into.width / 2, &mut into.cb, self.orientation);
        copy_rows(cr, into.width / 2, &mut into.cr, self.orientation);
    }

    /// Packed 4:2:2, by where its luma and its chroma bytes are.
    fn unpack(
        &mut self,
        packed: Plane<'_>,
        luma_of: impl Fn(&[u8], &mut [u8]),
        chroma_of_two: impl Fn(&[u8], &[u8], &mut [u8]),
        into: &mut Picture,
    ) {
        self.pairs.resize(into.width, NEUTRAL);
        let mut source = rows(packed, 2 * into.width);
        for [luma_upper, luma_lower, cb, cr] in row_groups(into, self.orientation) {
            let Some(upper) = source.next() else { break };
            let lower = source.next().unwrap_or(upper);
            luma_of(upper, luma_upper);
            luma_of(lower, luma_lower);
            chroma_of_two(upper, lower, &mut self.pairs);
            even_bytes(&self.pairs, cb);
            odd_bytes(&self.pairs, cr);
            for row in [luma_upper, luma_lower, cb, cr] {
                turn(row, self.orientation);
            }
        }
    }
}

impl fmt::Debug for Converter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Converter({:?})", self.orientation)
    }
}

/// Interleaved `Y Cb Cr` of every pixel, to 4:2:0 by the rounded mean of four pixels' chroma.
fn subsample(triples: &[u8], into: &mut Picture, orientation: Orientation) {
    let mut source = triples.chunks_exact(3 * into.width);
    for [luma_upper, luma_lower, cb, cr] in row_groups(into, orientation) {
        let (Some(upper), Some(lower)) = (source.next(), source.next()) else { break };
        let upper = upper.as_chunks::<6>().0;
        let lower = lower.as_chunks::<6>().0;
        let luma = luma_upper.as_chunks_mut::<2>().0.iter_mut();
        let luma = luma.zip(luma_lower.as_chunks_mut::<2>().0);
        let chroma = cb.iter_mut().zip(cr.iter_mut());
        for (((luma_upper, luma_lower), (cb, cr)), (upper, lower)) in
            luma.zip(chroma).zip(upper.iter().zip(lower))
        {
            *luma_upper = [upper[0], upper[3]];
            *luma_lower = [lower[0], lower[3]];
            *cb = mean([upper[1], upper[4], lower[1], lower[4]]);
            *cr = mean([upper[2], upper[5], lower[2], lower[5]]);
        }
        for row in [luma_upper, luma_lower, cb, cr] {
            turn(row, orientation);
        }
    }
}

fn mean(samples: [u8; 4]) -> u8 {
    low((samples.map(u16::from).iter().sum::<u16>() + 2) >> 2)
}

/// The rows that two rows of a source go to: two of luma in the source's order, Cb and Cr.
fn row_groups(
    picture: &mut Picture,
    orientation: Orientation,
) -> impl Iterator<Item = [&mut [u8]; 4]> {
    let mut luma = RowsMut::new(&mut picture.luma, picture.width, orientation);
    let mut cb = RowsMut::new(&mut picture.cb, picture.width / 2, orientation);
    let mut cr = RowsMut::new(&mut picture.cr, picture.width / 2, orientation);
    std::iter::from_fn(move || Some([luma.next()?, luma.next()?, cb.next()?, cr.next()?]))
}

fn copy_rows(plane: Plane<'_>, len: usize, copy: &mut [u8], orientation: Orientation) {
    for (copy, row) in RowsMut::new(copy, len, orientation).zip(rows(plane, len)) {
        copy.copy_from_slice(row);
        turn(copy, orientation);
    }
}

/// Splits a plane of pairs into two planes of half its width.
fn separate(
    pairs: Plane<'_>,
    len: usize,
    [first, second]: [&mut [u8]; 2],
    orientation: Orientation,
) {
    let first = RowsMut::new(first, len / 2, orientation);
    let second = RowsMut::new(second, len / 2, orientation);
    for ((first, second), row) in first.zip(second).zip(rows(pairs, len)) {
        even_bytes(row, first);
        odd_bytes(row, second);
        turn(first, orientation);
        turn(second, orientation);
    }
}

fn turn(row: &mut [u8], orientation: Orientation) {
    if orientation.is_right_to_left() {
        row.reverse();
    }
}

#[cfg(test)]
mod tests;
