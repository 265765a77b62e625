//! Converts packed and semi-planar pictures to planar 4:2:0.
//!
//! Layouts as in the kernel's "Video for Linux: YUV formats"; sample values are not changed, so
//! matrix and range stay those of the source. 4:2:2 becomes 4:2:0 by the rounded mean of the
//! chroma of two rows, which puts chroma where MPEG-2 and H.264 expect it (H.264 figure E-1,
//! type 0).
//!
//! The loops are plain iterators over whole rows that the compiler turns into vector code. They
//! take pairs of bytes as words: with byte indices the same loops are ten times slower under
//! SSE2. The only intermediate is one row of chroma, which stays in the first-level cache.

use std::fmt;

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

/// Converts pictures of one size, one at a time, into a buffer of its own.
pub struct Converter {
    width: usize,
    height: usize,
    luma: Vec<u8>,
    cb: Vec<u8>,
    cr: Vec<u8>,
    /// One row of `Cb Cr` pairs.
    pairs: Vec<u8>,
}

impl Converter {
    /// Makes the buffer for pictures of `width` x `height` luma samples.
    ///
    /// # Panics
    ///
    /// When a side is odd or zero: sources deliver no such pictures.
    #[must_use]
    pub fn new(width: u32, height: u32) -> Self {
        assert!(
            width > 0 && height > 0 && width.is_multiple_of(2) && height.is_multiple_of(2),
            "{width}x{height} cannot be sampled 4:2:0"
        );
        let (width, height) = (width as usize, height as usize);
        let chroma = vec![NEUTRAL; width * height / 4];
        Self {
            width,
            height,
            luma: vec![BLACK; width * height],
            cb: chroma.clone(),
            cr: chroma,
            pairs: vec![NEUTRAL; width],
        }
    }

    /// Whether this converter is for pictures of that size.
    #[must_use]
    pub fn fits(&self, frame: &Frame<'_>) -> bool {
        (frame.width as usize, frame.height as usize) == (self.width, self.height)
    }

    /// The same picture as I420 in this converter's buffer: the source's own may be given back.
    ///
    /// # Shape
    ///
    /// As [`Frame`] says. Rows that a plane is too short for keep what the last picture had.
    ///
    /// # Panics
    ///
    /// When `frame` has another size than this converter: the caller's mistake.
    ///
    /// # Cost
    ///
    /// Reads and writes every sample once; allocates nothing.
    pub fn convert(&mut self, frame: &Frame<'_>) -> Frame<'_> {
        assert!(
            self.fits(frame),
            "a converter for {}x{} was given {}x{}",
            self.width,
            self.height,
            frame.width,
            frame.height
        );
        let [first, second, third] = frame.planes;
        match frame.format {
            PixelFormat::I420 => self.copy([first, second, third]),
            PixelFormat::Yv12 => self.copy([first, third, second]),
            PixelFormat::Yuyv => self.unpack(first, even_bytes, odd_bytes_of_two),
            PixelFormat::Uyvy => self.unpack(first, odd_bytes, even_bytes_of_two),
            PixelFormat::Nv12 => {
                copy_rows(first, self.width, &mut self.luma);
                separate(second, self.width, &mut self.cb, &mut self.cr);
            }
            PixelFormat::Nv21 => {
                copy_rows(first, self.width, &mut self.luma);
                separate(second, self.width, &mut self.cr, &mut self.cb);
            }
        }
        Frame {
            format: PixelFormat::I420,
            width: frame.width,
            height: frame.height,
            colour: frame.colour,
            captured: frame.captured,
            planes: self.planes(),
        }
    }

    fn copy(&mut self, [luma, cb, cr]: [Plane<'_>; 3]) {
        copy_rows(luma, self.width, &mut self.luma);
        copy_rows(cb, self.width / 2, &mut self.cb);
        copy_rows(cr, self.width / 2, &mut self.cr);
    }

    /// Packed 4:2:2, by where its luma and its chroma bytes are.
    fn unpack(
        &mut self,
        packed: Plane<'_>,
        luma_of: impl Fn(&[u8], &mut [u8]),
        chroma_of_two: impl Fn(&[u8], &[u8], &mut [u8]),
    ) {
        let chroma_width = self.width / 2;
        let mut source = rows(packed, 2 * self.width);
        let chroma = self.cb.chunks_exact_mut(chroma_width);
        let chroma = chroma.zip(self.cr.chunks_exact_mut(chroma_width));
        for (luma, (cb, cr)) in self.luma.chunks_exact_mut(2 * self.width).zip(chroma) {
            let Some(upper) = source.next() else { break };
            let lower = source.next().unwrap_or(upper);
            let (luma_upper, luma_lower) = luma.split_at_mut(self.width);
            luma_of(upper, luma_upper);
            luma_of(lower, luma_lower);
            chroma_of_two(upper, lower, &mut self.pairs);
            even_bytes(&self.pairs, cb);
            odd_bytes(&self.pairs, cr);
        }
    }

    fn planes(&self) -> [Plane<'_>; 3] {
        let chroma = self.width / 2;
        [
            Plane { bytes: &self.luma, stride: self.width },
            Plane { bytes: &self.cb, stride: chroma },
            Plane { bytes: &self.cr, stride: chroma },
        ]
    }
}

impl fmt::Debug for Converter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Converter({}x{})", self.width, self.height)
    }
}

/// The rows of a plane, each cut to `len` bytes; ends before a row that is shorter.
fn rows(plane: Plane<'_>, len: usize) -> impl Iterator<Item = &[u8]> {
    plane.bytes.chunks(plane.stride.max(1)).map_while(move |row| row.get(..len))
}

fn copy_rows(plane: Plane<'_>, len: usize, copy: &mut [u8]) {
    for (copy, row) in copy.chunks_exact_mut(len).zip(rows(plane, len)) {
        copy.copy_from_slice(row);
    }
}

/// Splits a plane of pairs into two planes of half its width.
fn separate(pairs: Plane<'_>, len: usize, first: &mut [u8], second: &mut [u8]) {
    let halves = first.chunks_exact_mut(len / 2).zip(second.chunks_exact_mut(len / 2));
    for ((first, second), row) in halves.zip(rows(pairs, len)) {
        even_bytes(row, first);
        odd_bytes(row, second);
    }
}

/// `half[i] = row[2 * i]`
fn even_bytes(row: &[u8], half: &mut [u8]) {
    for (byte, pair) in half.iter_mut().zip(row.as_chunks().0) {
        *byte = low(u16::from_le_bytes(*pair));
    }
}

/// `half[i] = row[2 * i + 1]`
fn odd_bytes(row: &[u8], half: &mut [u8]) {
    for (byte, pair) in half.iter_mut().zip(row.as_chunks().0) {
        *byte = low(u16::from_le_bytes(*pair) >> 8);
    }
}

/// Rounded means of the even bytes of two rows.
fn even_bytes_of_two(upper: &[u8], lower: &[u8], half: &mut [u8]) {
    let pairs = upper.as_chunks().0.iter().zip(lower.as_chunks().0);
    for (byte, (upper, lower)) in half.iter_mut().zip(pairs) {
        let sum = (u16::from_le_bytes(*upper) & 0xff) + (u16::from_le_bytes(*lower) & 0xff);
        *byte = low((sum + 1) >> 1);
    }
}

/// Rounded means of the odd bytes of two rows.
fn odd_bytes_of_two(upper: &[u8], lower: &[u8], half: &mut [u8]) {
    let pairs = upper.as_chunks().0.iter().zip(lower.as_chunks().0);
    for (byte, (upper, lower)) in half.iter_mut().zip(pairs) {
        let sum = (u16::from_le_bytes(*upper) >> 8) + (u16::from_le_bytes(*lower) >> 8);
        *byte = low((sum + 1) >> 1);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the low byte is what is wanted")]
fn low(word: u16) -> u8 {
    word as u8
}

/// What a row shows before it was ever written.
const BLACK: u8 = 16;
const NEUTRAL: u8 = 128;

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small test sizes")]
mod tests {
    use super::*;
    use crate::frame::{Colour, Matrix};
    use crate::time::Instant;

    const FORMATS: [PixelFormat; 6] = [
        PixelFormat::Yuyv,
        PixelFormat::Uyvy,
        PixelFormat::Nv12,
        PixelFormat::Nv21,
        PixelFormat::I420,
        PixelFormat::Yv12,
    ];

    /// Noise that differs from byte to byte and from plane to plane.
    fn noise(len: usize, seed: u32) -> Vec<u8> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// Buffers for one picture: `extra` bytes after every row but the last.
    fn buffers(
        format: PixelFormat,
        width: usize,
        height: usize,
        extra: usize,
    ) -> Vec<(Vec<u8>, usize)> {
        let shapes = match format {
            PixelFormat::Yuyv | PixelFormat::Uyvy => vec![(2 * width, height)],
            PixelFormat::Nv12 | PixelFormat::Nv21 => vec![(width, height), (width, height / 2)],
            PixelFormat::I420 | PixelFormat::Yv12 => {
                vec![(width, height), (width / 2, height / 2), (width / 2, height / 2)]
            }
        };
        let buffer = |(plane, (row, rows)): (usize, (usize, usize))| {
            let stride = row + extra + plane;
            (noise(stride * (rows - 1) + row, (width * height + plane + 1) as u32), stride)
        };
        shapes.into_iter().enumerate().map(buffer).collect()
    }

    fn frame(
        format: PixelFormat,
        width: usize,
        height: usize,
        buffers: &[(Vec<u8>, usize)],
    ) -> Frame<'_> {
        let mut planes = [Plane::default(); 3];
        for (plane, (bytes, stride)) in planes.iter_mut().zip(buffers) {
            *plane = Plane { bytes, stride: *stride };
        }
        let colour = Colour { matrix: Matrix::Bt709, full_range: true };
        let captured = Instant::from_micros(42);
        Frame { format, width: width as u32, height: height as u32, colour, captured, planes }
    }

    /// One sample, by the formats' definitions: plane 0 is Y, 1 is Cb, 2 is Cr.
    fn reference(frame: &Frame<'_>, plane: usize, x: usize, y: usize) -> u8 {
        let at = |plane: usize, x: usize, y: usize| {
            let Plane { bytes, stride } = frame.planes[plane];
            bytes[y * stride + x]
        };
        let packed = |offset: usize| {
            let mean = |a: u8, b: u8| ((f64::from(a) + f64::from(b)) / 2.0).round() as u8;
            mean(at(0, 4 * x + offset, 2 * y), at(0, 4 * x + offset, 2 * y + 1))
        };
        match (frame.format, plane) {
            (PixelFormat::Yuyv, 0) => at(0, 2 * x, y),
            (PixelFormat::Yuyv, 1) => packed(1),
            (PixelFormat::Yuyv, _) => packed(3),
            (PixelFormat::Uyvy, 0) => at(0, 2 * x + 1, y),
            (PixelFormat::Uyvy, 1) => packed(0),
            (PixelFormat::Uyvy, _) => packed(2),
            (PixelFormat::Nv12, 1) | (PixelFormat::Nv21, 2) => at(1, 2 * x, y),
            (PixelFormat::Nv12, 2) | (PixelFormat::Nv21, 1) => at(1, 2 * x + 1, y),
            (PixelFormat::Yv12, 1) => at(2, x, y),
            (PixelFormat::Yv12, 2) => at(1, x, y),
            (_, plane) => at(plane, x, y),
        }
    }

    fn assert_equals_reference(converted: &Frame<'_>, source: &Frame<'_>) {
        let (width, height) = (source.width as usize, source.height as usize);
        for plane in 0..3 {
            let shift = usize::from(plane > 0);
            for y in 0..height >> shift {
                for x in 0..width >> shift {
                    let Plane { bytes, stride } = converted.planes[plane];
                    let (got, wanted) = (bytes[y * stride + x], reference(source, plane, x, y));
                    assert_eq!(
                        got, wanted,
                        "{:?} {width}x{height} plane {plane} at {x},{y}",
                        source.format
                    );
                }
            }
        }
    }

    #[test]
    fn every_format_and_size_equals_the_definition_sample_by_sample() {
        for format in FORMATS {
            for width in (2..=70).step_by(2) {
                for (height, extra) in [(2, 0), (4, 1), (6, 13), (10, 0)] {
                    let buffers = buffers(format, width, height, extra);
                    let source = frame(format, width, height, &buffers);
                    let mut converter = Converter::new(width as u32, height as u32);
                    let converted = converter.convert(&source);
                    assert_eq!(converted.format, PixelFormat::I420);
                    assert_eq!((converted.width, converted.height), (source.width, source.height));
                    assert_eq!(
                        (converted.colour, converted.captured),
                        (source.colour, source.captured)
                    );
                    assert_equals_reference(&converted, &source);
                }
            }
        }
    }

    #[test]
    fn only_planar_pictures_are_read_where_they_lie() {
        for format in FORMATS {
            let buffers = buffers(format, 16, 8, 0);
            let source = frame(format, 16, 8, &buffers);
            let Some(same) = in_place(&source) else {
                assert_ne!(format.plane_count(), 3, "{format:?}");
                continue;
            };
            assert_eq!(same.planes[0].bytes.as_ptr(), buffers[0].0.as_ptr());
            assert_equals_reference(&same, &source);
        }
    }

    #[test]
    fn a_picture_leaves_nothing_behind_in_the_next() {
        let mut converter = Converter::new(34, 6);
        for (index, format) in FORMATS.into_iter().chain(FORMATS).enumerate() {
            let buffers = buffers(format, 34, 6, index);
            let source = frame(format, 34, 6, &buffers);
            assert_equals_reference(&converter.convert(&source), &source);
        }
    }

    #[test]
    fn planes_that_are_too_short_are_read_as_far_as_they_go() {
        for format in FORMATS {
            let whole = buffers(format, 16, 8, 3);
            for cut in 0..=whole[0].0.len() {
                let mut short = whole.clone();
                for (bytes, _) in &mut short {
                    bytes.truncate(cut);
                }
                let source = frame(format, 16, 8, &short);
                let mut converter = Converter::new(16, 8);
                let converted = converter.convert(&source);
                let complete = cut == whole[0].0.len();
                if complete {
                    assert_equals_reference(&converted, &source);
                }
            }
            let none = Frame { planes: [Plane::default(); 3], ..frame(format, 16, 8, &whole) };
            let _ = Converter::new(16, 8).convert(&none);
        }
    }

    #[test]
    #[should_panic(expected = "a converter for 16x8 was given 8x16")]
    fn a_picture_of_another_size_is_our_own_mistake() {
        let buffers = buffers(PixelFormat::I420, 8, 16, 0);
        let _ = Converter::new(16, 8).convert(&frame(PixelFormat::I420, 8, 16, &buffers));
    }
}
