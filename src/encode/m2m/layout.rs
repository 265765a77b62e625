//! Copies an I420 picture into an encoder's buffer, with the strides that the driver wants.
//!
//! V4L2, "YUV Formats": in single-allocation formats the colour planes follow each other, each of
//! the driver's own height; the chroma lines of YU12 have half the stride of luma. In the `M`
//! formats every colour plane has a memory plane with a stride of its own.

use std::array::from_fn;

use crate::frame::{Frame, PixelFormat};
use crate::sys::v4l2::{Format, FourCc, MAX_PLANES};

/// The raw formats that an encoder can be fed with, cheapest first.
pub(super) const USABLE: [FourCc; 4] =
    [FourCc(*b"YU12"), FourCc(*b"YM12"), FourCc(*b"NV12"), FourCc(*b"NM12")];

/// Where the colour planes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    width: usize,
    height: usize,
    /// Whether Cb and Cr share a plane, sample by sample.
    is_interleaved: bool,
    spans: [Span; 3],
    /// Bytes to be declared as used of each memory plane.
    used: [u32; MAX_PLANES],
    memory_count: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    memory: usize,
    offset: usize,
    stride: usize,
}

impl Layout {
    /// The layout of what the driver answered for pictures of `width` and `height`; `None` when
    /// they do not fit into it, or its memory planes are not those of the format.
    pub(super) fn new(format: &Format, width: u32, height: u32) -> Option<Self> {
        let memory: Vec<(usize, u32)> = format
            .memory()
            .iter()
            .map(|memory| Some((usize::try_from(memory.stride).ok()?, memory.size)))
            .collect::<Option<_>>()?;
        let size = (format.width.max(width), format.height);
        Self::with_memory(format.fourcc, (width, height), size, &memory)
            .filter(|_| format.width >= width)
    }

    fn with_memory(
        fourcc: FourCc,
        (width, height): (u32, u32),
        (driver_width, driver_height): (u32, u32),
        memory: &[(usize, u32)],
    ) -> Option<Self> {
        let is_interleaved = match &fourcc.0 {
            b"YU12" | b"YM12" => false,
            b"NV12" | b"NM12" => true,
            _ => return None,
        };
        if width % 2 != 0 || height % 2 != 0 || driver_height < height {
            return None;
        }
        let to_len = |value: u32| usize::try_from(value).ok();
        let (width, height) = (to_len(width)?, to_len(height)?);
        let (line, rows) = (to_len(driver_width)?, to_len(driver_height)?);
        let count = if is_interleaved { 2 } else { 3 };
        let mut spans = [Span::default(); 3];
        let mut offset = 0;
        for (index, span) in spans.iter_mut().take(count).enumerate() {
            let (divisor, rows) =
                if index == 0 { (1, rows) } else { (if is_interleaved { 1 } else { 2 }, rows / 2) };
            let (at, stride) = match memory {
                [(luma, _)] => (0, luma / divisor),
                many if many.len() == count => (index, many.get(index)?.0),
                _ => return None,
            };
            if at != 0 {
                offset = 0;
            }
            // Some drivers leave the stride out.
            let stride = if stride == 0 { line / divisor } else { stride };
            if stride < width / divisor {
                return None;
            }
            *span = Span { memory: at, offset, stride };
            offset += stride * rows;
            if offset > to_len(memory.get(at)?.1)? {
                return None;
            }
        }
        let used = from_fn(|index| memory.get(index).map_or(0, |&(_, size)| size));
        Some(Self { width, height, is_interleaved, spans, used, memory_count: memory.len() })
    }

    /// Bytes of each memory plane.
    pub(super) fn used(&self) -> &[u32] {
        self.used.get(..self.memory_count).unwrap_or(&[])
    }

    /// Whether `frame` is a picture of this size with all its bytes.
    pub(super) fn takes(&self, frame: &Frame<'_>) -> bool {
        let holds = |index: usize, width: usize, rows: usize| {
            frame.planes.get(index).is_some_and(|plane| {
                let needed = plane.stride.checked_mul(rows.saturating_sub(1));
                plane.stride >= width
                    && needed.is_some_and(|bytes| plane.bytes.len() >= bytes + width)
            })
        };
        frame.format == PixelFormat::I420
            && usize::try_from(frame.width) == Ok(self.width)
            && usize::try_from(frame.height) == Ok(self.height)
            && holds(0, self.width, self.height)
            && (1..3).all(|index| holds(index, self.width / 2, self.height / 2))
    }

    /// Copies a picture that the layout [takes](Layout::takes) into one memory plane, which is as
    /// long as [`Layout::used`] says, or the picture is cut.
    ///
    /// # Cost
    ///
    /// One copy of the picture's bytes in this memory plane.
    pub(super) fn copy(&self, frame: &Frame<'_>, memory: usize, to: &mut [u8]) {
        let [y, cb, cr] = &frame.planes;
        let rows = |index: usize| {
            let span = self.spans[index];
            (span.memory == memory).then_some((span.offset, span.stride.max(1)))
        };
        if let Some((offset, stride)) = rows(0) {
            copy_rows(to, offset, stride, y.bytes, y.stride, self.width, self.height);
        }
        let (width, height) = (self.width / 2, self.height / 2);
        if self.is_interleaved {
            let Some((offset, stride)) = rows(1) else { return };
            let lines = to.get_mut(offset..).unwrap_or_default().chunks_mut(stride);
            let from = cb.bytes.chunks(cb.stride.max(1)).zip(cr.bytes.chunks(cr.stride.max(1)));
            for (line, (cb, cr)) in lines.zip(from).take(height) {
                let (pairs, _) = line.as_chunks_mut::<2>();
                for (pair, (&cb, &cr)) in pairs.iter_mut().zip(cb.iter().zip(cr)).take(width) {
                    *pair = [cb, cr];
                }
            }
        } else {
            for (index, plane) in [(1, cb), (2, cr)] {
                if let Some((offset, stride)) = rows(index) {
                    copy_rows(to, offset, stride, plane.bytes, plane.stride, width, height);
                }
            }
        }
    }
}

fn copy_rows(
    to: &mut [u8],
    offset: usize,
    stride: usize,
    from: &[u8],
    from_stride: usize,
    width: usize,
    rows: usize,
) {
    let lines = to.get_mut(offset..).unwrap_or_default().chunks_mut(stride);
    for (line, from) in lines.zip(from.chunks(from_stride.max(1))).take(rows) {
        let len = width.min(line.len()).min(from.len());
        line[..len].copy_from_slice(&from[..len]);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail")]
mod tests {
    use super::*;
    use crate::frame::{Colour, Plane};
    use crate::time::Instant;

    /// Samples that say which plane and place they are of; strides wider than the picture.
    fn samples(tag: u8, stride: usize, rows: usize) -> Vec<u8> {
        (0..stride * rows)
            .map(|at| tag + u8::try_from((at / stride * 8 + at % stride) % 60).unwrap())
            .collect()
    }

    fn with_frame<T>(check: impl FnOnce(&Frame<'_>) -> T) -> T {
        let (y, cb, cr) = (samples(0, 12, 6), samples(64, 7, 3), samples(128, 6, 3));
        check(&Frame {
            format: PixelFormat::I420,
            width: 8,
            height: 6,
            colour: Colour::default(),
            captured: Instant::ZERO,
            planes: [
                Plane { bytes: &y, stride: 12 },
                Plane { bytes: &cb, stride: 7 },
                Plane { bytes: &cr, stride: 6 },
            ],
        })
    }

    /// Reads a sample back out of the driver's memory, by the words of the format's description.
    fn assert_whole(
        layout: &Layout,
        memory: &[Vec<u8>],
        chroma: impl Fn(usize, usize, usize) -> (usize, usize),
    ) {
        let sample = |tag: u8, x: usize, y: usize| tag + u8::try_from((y * 8 + x) % 60).unwrap();
        let stride = layout.spans[0].stride;
        for (x, y) in (0..8).flat_map(|x| (0..6).map(move |y| (x, y))) {
            assert_eq!(memory[0][y * stride + x], sample(0, x, y), "luma {x},{y}");
        }
        for (x, y) in (0..4).flat_map(|x| (0..3).map(move |y| (x, y))) {
            for (index, tag) in [(0, 64), (1, 128)] {
                let (plane, at) = chroma(index, x, y);
                assert_eq!(memory[plane][at], sample(tag, x, y), "chroma {index} {x},{y}");
            }
        }
    }

    fn filled(layout: &Layout, frame: &Frame<'_>) -> Vec<Vec<u8>> {
        assert!(layout.takes(frame));
        let mut memory: Vec<Vec<u8>> =
            layout.used().iter().map(|&size| vec![255; size as usize]).collect();
        for (index, plane) in memory.iter_mut().enumerate() {
            layout.copy(frame, index, plane);
        }
        memory
    }

    #[test]
    fn a_picture_lies_where_each_format_says_with_the_drivers_strides_and_heights() {
        let new = |fourcc: &[u8; 4], memory: &[(usize, u32)]| {
            Layout::with_memory(FourCc(*fourcc), (8, 6), (16, 8), memory).unwrap()
        };
        with_frame(|frame| {
            let layout = new(b"YU12", &[(16, 192)]);
            assert_whole(&layout, &filled(&layout, frame), |index, x, y| {
                (0, 16 * 8 + index * 8 * 4 + y * 8 + x)
            });
            let layout = new(b"NV12", &[(16, 200)]);
            assert_whole(&layout, &filled(&layout, frame), |index, x, y| {
                (0, 16 * 8 + y * 16 + 2 * x + index)
            });
            let layout = new(b"YM12", &[(16, 128), (12, 48), (10, 40)]);
            assert_whole(&layout, &filled(&layout, frame), |index, x, y| {
                (1 + index, y * [12, 10][index] + x)
            });
            let layout = new(b"NM12", &[(20, 160), (18, 72)]);
            assert_whole(&layout, &filled(&layout, frame), |index, x, y| {
                (1, y * 18 + 2 * x + index)
            });
            let no_stride = new(b"YU12", &[(0, 192)]);
            assert_eq!(no_stride.spans, new(b"YU12", &[(16, 192)]).spans);
        });
    }

    #[test]
    fn nothing_outside_the_picture_is_written() {
        let memory = [(16, 192)];
        let layout = Layout::with_memory(FourCc(*b"YU12"), (8, 6), (16, 8), &memory).unwrap();
        with_frame(|frame| {
            let written = filled(&layout, frame)[0].iter().filter(|&&byte| byte != 255).count();
            assert_eq!(written, 8 * 6 * 3 / 2);
        });
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let new = |fourcc: &[u8; 4], size, driver, memory: &[(usize, u32)]| {
            Layout::with_memory(FourCc(*fourcc), size, driver, memory)
        };
        for (case, layout) in [
            ("packed", new(b"YUYV", (8, 6), (8, 6), &[(16, 96)])),
            ("odd", new(b"YU12", (7, 6), (8, 6), &[(8, 72)])),
            ("short lines", new(b"YU12", (8, 6), (8, 6), &[(6, 72)])),
            ("too few lines", new(b"YU12", (8, 6), (8, 4), &[(8, 72)])),
            ("too few bytes", new(b"YU12", (8, 6), (8, 6), &[(8, 71)])),
            ("two planes of three", new(b"YM12", (8, 6), (8, 6), &[(8, 48), (4, 12)])),
        ] {
            assert_eq!(layout, None, "{case}");
        }
        let layout = new(b"YU12", (8, 6), (8, 6), &[(8, 72)]).unwrap();
        with_frame(|frame| {
            let nv12 = Frame { format: PixelFormat::Nv12, ..*frame };
            let wide = Frame { width: 10, ..*frame };
            let mut short = *frame;
            short.planes[2].bytes = &frame.planes[2].bytes[..10];
            assert!(!layout.takes(&nv12) && !layout.takes(&wide) && !layout.takes(&short));
        });
    }
}
