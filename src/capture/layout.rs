//! Finds the colour planes of a picture in the memory planes of a driver's buffer.
//!
//! V4L2, "YUV Formats": in single-allocation formats the colour planes follow each other without
//! padding, and the chroma lines of YU12 and YV12 have half the stride of luma; in the `M` formats
//! every colour plane has a memory plane with a stride of its own. A JPEG image is one plane, as
//! long as the driver says.

use crate::frame::{Colour, Matrix, PixelFormat, Plane};
use crate::sys::v4l2::{Colorimetry, Format, FourCc};

/// The formats that can be captured, cheapest to convert first.
pub(super) const USABLE: [(FourCc, PixelFormat); 12] = [
    (FourCc(*b"YU12"), PixelFormat::I420),
    (FourCc(*b"YM12"), PixelFormat::I420),
    (FourCc(*b"YV12"), PixelFormat::Yv12),
    (FourCc(*b"YM21"), PixelFormat::Yv12),
    (FourCc(*b"NV12"), PixelFormat::Nv12),
    (FourCc(*b"NM12"), PixelFormat::Nv12),
    (FourCc(*b"NV21"), PixelFormat::Nv21),
    (FourCc(*b"NM21"), PixelFormat::Nv21),
    (FourCc(*b"YUYV"), PixelFormat::Yuyv),
    (FourCc(*b"UYVY"), PixelFormat::Uyvy),
    (FourCc(*b"MJPG"), PixelFormat::Mjpeg),
    (FourCc(*b"JPEG"), PixelFormat::Mjpeg),
];

/// What a camera that encodes its pictures itself emits.
pub(super) const H264: FourCc = FourCc(*b"H264");

/// Every format that a camera can be used in.
pub(super) fn usable() -> Vec<FourCc> {
    USABLE.iter().map(|&(fourcc, _)| fourcc).chain([H264]).collect()
}

/// The format behind a four character code, if it can be captured.
pub(super) fn pixel_format(fourcc: FourCc) -> Option<PixelFormat> {
    USABLE.iter().find(|(known, _)| *known == fourcc).map(|&(_, format)| format)
}

/// Where the colour planes of one negotiated format lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    spans: [Span; 3],
    /// How many of `spans` there are.
    count: usize,
    is_jpeg: bool,
}

/// One colour plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    /// Which memory plane it lies in, and where there.
    memory: usize,
    offset: usize,
    stride: usize,
    /// Bytes of samples in a line, and lines.
    width: usize,
    rows: usize,
}

impl Span {
    /// Bytes from the start of the memory plane to the last sample's end.
    const fn end(&self) -> usize {
        self.offset + self.stride * self.rows.saturating_sub(1) + self.width
    }
}

impl Layout {
    /// The layout of what the driver answered to `VIDIOC_S_FMT`; `None` when its pictures have odd
    /// sizes or its memory planes are not those of the format.
    pub(super) fn new(format: &Format, pixels: PixelFormat) -> Option<Self> {
        let strides: Vec<usize> = format
            .memory()
            .iter()
            .map(|memory| usize::try_from(memory.stride))
            .collect::<Result<_, _>>()
            .ok()?;
        Self::with_strides(pixels, format.width, format.height, &strides)
    }

    fn with_strides(
        pixels: PixelFormat,
        width: u32,
        height: u32,
        strides: &[usize],
    ) -> Option<Self> {
        if width == 0 || height == 0 || !width.is_multiple_of(2) || !height.is_multiple_of(2) {
            return None;
        }
        let (width, height) = (usize::try_from(width).ok()?, usize::try_from(height).ok()?);
        let count = pixels.plane_count();
        let mut spans = [Span::default(); 3];
        let mut offset = 0;
        for (index, span) in spans.iter_mut().take(count).enumerate() {
            let (line, rows, share) = plane_size(pixels, index, width, height);
            let (memory, stride) = match strides {
                [luma] => (0, luma / share),
                many if many.len() == count => (index, many[index]),
                _ => return None,
            };
            if memory != 0 {
                offset = 0;
            }
            // Some drivers leave the stride out; nothing can be less than a line.
            let stride = stride.max(line);
            *span = Span { memory, offset, stride, width: line, rows };
            offset += stride * rows;
        }
        Some(Self { spans, count, is_jpeg: pixels == PixelFormat::Mjpeg })
    }

    /// Whether a buffer holds the whole picture; `filled` is what the driver wrote to a plane.
    pub(super) fn is_whole<'a>(&self, filled: impl Fn(usize) -> &'a [u8]) -> bool {
        if self.is_jpeg {
            return jpeg(filled(0)).is_some();
        }
        self.spans.iter().take(self.count).all(|span| filled(span.memory).len() >= span.end())
    }

    /// The colour planes in a buffer; empty ones where it is not whole.
    pub(super) fn planes<'a>(&self, filled: impl Fn(usize) -> &'a [u8]) -> [Plane<'a>; 3] {
        if self.is_jpeg {
            let bytes = jpeg(filled(0)).unwrap_or(&[]);
            return [Plane { bytes, stride: 0 }, Plane::default(), Plane::default()];
        }
        self.spans.map(|span| {
            let bytes = filled(span.memory).get(span.offset..span.end()).unwrap_or(&[]);
            Plane { bytes, stride: span.stride }
        })
    }
}

/// A buffer from the start of its JPEG image on; `None` when there is none near its beginning.
fn jpeg(bytes: &[u8]) -> Option<&[u8]> {
    let start = bytes.get(..SOI_REACH).unwrap_or(bytes).windows(2).position(|pair| pair == SOI)?;
    bytes.get(start..).filter(|image| image.len() >= JPEG_LEN_MIN)
}

/// Bytes per line and lines of a colour plane, and the luma stride's divisor for it.
const fn plane_size(
    pixels: PixelFormat,
    index: usize,
    width: usize,
    height: usize,
) -> (usize, usize, usize) {
    match (pixels, index) {
        (PixelFormat::Yuyv | PixelFormat::Uyvy, _) => (width * 2, height, 1),
        (_, 0) => (width, height, 1),
        (PixelFormat::Nv12 | PixelFormat::Nv21, _) => (width, height / 2, 1),
        (PixelFormat::I420 | PixelFormat::Yv12, _) => (width / 2, height / 2, 2),
        // As long as the driver says.
        (PixelFormat::Mjpeg, _) => (0, 1, 1),
    }
}

/// What the samples mean, with V4L2's defaults filled in.
///
/// videodev2.h: `V4L2_MAP_YCBCR_ENC_DEFAULT`, `V4L2_MAP_QUANTIZATION_DEFAULT`; for JPEG images
/// JFIF (ITU-T T.871 7), whatever the colorspace is.
pub(super) fn colour(driver: Colorimetry, pixels: PixelFormat) -> Colour {
    let is_jpeg = pixels == PixelFormat::Mjpeg;
    let encoding = match (driver.ycbcr_enc, driver.colorspace) {
        (ENC_DEFAULT, _) if is_jpeg => ENC_601,
        (ENC_DEFAULT, COLORSPACE_REC709 | COLORSPACE_DCI_P3) => ENC_709,
        (ENC_DEFAULT, COLORSPACE_BT2020) => ENC_BT2020,
        (ENC_DEFAULT, COLORSPACE_SMPTE240M) => ENC_SMPTE240M,
        (ENC_DEFAULT, _) => ENC_601,
        (stated, _) => stated,
    };
    let matrix = match encoding {
        // The last three are no BT.709, but nearer to it than to BT.601.
        ENC_709 | ENC_XV709 | ENC_BT2020 | ENC_BT2020_CONST_LUM | ENC_SMPTE240M => Matrix::Bt709,
        _ => Matrix::Bt601,
    };
    let full_range = match driver.quantization {
        QUANTIZATION_DEFAULT => is_jpeg || driver.colorspace == COLORSPACE_JPEG,
        stated => stated == QUANTIZATION_FULL_RANGE,
    };
    Colour { matrix, full_range }
}

/// ITU-T T.81 B.1.1.3: start of image.
const SOI: &[u8] = &[0xff, 0xd8];
/// Bytes in which an image begins; some cameras put a few in front.
const SOI_REACH: usize = 16;
/// Shorter than the headers of any image.
const JPEG_LEN_MIN: usize = 64;
// videodev2.h: v4l2_colorspace, v4l2_ycbcr_encoding, v4l2_quantization.
const COLORSPACE_SMPTE240M: u32 = 2;
const COLORSPACE_REC709: u32 = 3;
const COLORSPACE_JPEG: u32 = 7;
const COLORSPACE_BT2020: u32 = 10;
const COLORSPACE_DCI_P3: u32 = 12;
const ENC_DEFAULT: u32 = 0;
const ENC_601: u32 = 1;
const ENC_709: u32 = 2;
const ENC_XV709: u32 = 4;
const ENC_BT2020: u32 = 6;
const ENC_BT2020_CONST_LUM: u32 = 7;
const ENC_SMPTE240M: u32 = 8;
const QUANTIZATION_DEFAULT: u32 = 0;
const QUANTIZATION_FULL_RANGE: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(pixels: PixelFormat, width: u32, height: u32, strides: &[usize]) -> Layout {
        Layout::with_strides(pixels, width, height, strides).expect("a sane format")
    }

    #[test]
    fn chroma_follows_luma_in_a_single_allocation() {
        let bytes: Vec<u8> = (0..=255).collect();
        // 4 x 2 with lines of 16 bytes.
        let planes = layout(PixelFormat::I420, 4, 2, &[16]).planes(|_| &bytes[..]);
        assert_eq!(planes[0].bytes, &bytes[..20]);
        assert_eq!((planes[1].bytes, planes[1].stride), (&bytes[32..34], 8));
        assert_eq!((planes[2].bytes, planes[2].stride), (&bytes[40..42], 8));
        let planes = layout(PixelFormat::Nv12, 4, 2, &[16]).planes(|_| &bytes[..]);
        assert_eq!((planes[1].bytes, planes[1].stride), (&bytes[32..36], 16));
        assert!(planes[2].bytes.is_empty());
        let planes = layout(PixelFormat::Yuyv, 4, 2, &[16]).planes(|_| &bytes[..]);
        assert_eq!((planes[0].bytes, planes[0].stride), (&bytes[..24], 16));
    }

    #[test]
    fn planes_of_their_own_start_at_zero() {
        let memory = [vec![1_u8; 64], vec![2; 64], vec![3; 64]];
        let planes =
            layout(PixelFormat::Yv12, 4, 4, &[8, 32, 2]).planes(|index| &memory[index][..]);
        assert_eq!((planes[0].bytes.len(), planes[0].stride), (8 * 3 + 4, 8));
        assert_eq!((planes[1].bytes, planes[1].stride), (&memory[1][..34], 32));
        assert_eq!((planes[2].bytes, planes[2].stride), (&memory[2][..4], 2));
    }

    #[test]
    fn a_buffer_is_whole_exactly_from_its_last_sample_on() {
        for (_, pixels) in USABLE.into_iter().filter(|(_, pixels)| *pixels != PixelFormat::Mjpeg) {
            let layout = layout(pixels, 6, 4, &[16]);
            let last = layout.spans.iter().map(Span::end).max().unwrap();
            for len in 0..last + 20 {
                let bytes = vec![0; len];
                assert_eq!(layout.is_whole(|_| &bytes), len >= last, "{pixels:?} {len}");
                // And never a panic for one that is not.
                let _ = layout.planes(|_| &bytes);
            }
        }
    }

    #[test]
    fn a_stride_that_the_driver_left_out_is_a_line() {
        assert_eq!(layout(PixelFormat::Yuyv, 6, 4, &[0]).spans[0].stride, 12);
        assert_eq!(layout(PixelFormat::I420, 6, 4, &[0]).spans[1].stride, 3);
    }

    #[test]
    fn odd_pictures_and_foreign_planes_have_no_layout() {
        for (width, height) in [(5, 4), (4, 5), (0, 4), (4, 0)] {
            assert_eq!(Layout::with_strides(PixelFormat::Yuyv, width, height, &[64]), None);
        }
        assert_eq!(Layout::with_strides(PixelFormat::I420, 4, 4, &[8, 8]), None);
        assert_eq!(Layout::with_strides(PixelFormat::Nv12, 4, 4, &[]), None);
    }

    #[test]
    fn defaults_depend_on_the_colorspace() {
        let of = |colorspace, ycbcr_enc, quantization| {
            let driver = Colorimetry { colorspace, ycbcr_enc, quantization };
            let colour = colour(driver, PixelFormat::Yuyv);
            (colour.matrix, colour.full_range)
        };
        let srgb = 8;
        assert_eq!(of(srgb, 0, 0), (Matrix::Bt601, false));
        assert_eq!(of(0, 0, 0), (Matrix::Bt601, false));
        assert_eq!(of(COLORSPACE_REC709, 0, 0), (Matrix::Bt709, false));
        assert_eq!(of(COLORSPACE_JPEG, 0, 0), (Matrix::Bt601, true));
        assert_eq!(of(COLORSPACE_JPEG, 0, 2), (Matrix::Bt601, false));
        assert_eq!(of(srgb, ENC_709, QUANTIZATION_FULL_RANGE), (Matrix::Bt709, true));
        assert_eq!(of(COLORSPACE_REC709, ENC_601, 2), (Matrix::Bt601, false));
    }
    #[test]
    fn jpeg_images_have_full_range_and_bt_601_unless_the_driver_states_otherwise() {
        let of = |colorspace, ycbcr_enc, quantization| {
            let driver = Colorimetry { colorspace, ycbcr_enc, quantization };
            let colour = colour(driver, PixelFormat::Mjpeg);
            (colour.matrix, colour.full_range)
        };
        for colorspace in [0, COLORSPACE_REC709, COLORSPACE_JPEG, 8] {
            assert_eq!(of(colorspace, 0, 0), (Matrix::Bt601, true));
            assert_eq!(of(colorspace, ENC_709, 2), (Matrix::Bt709, false));
        }
    }

    #[test]
    fn a_jpeg_image_is_as_long_as_the_driver_says_and_begins_with_its_marker() {
        let jpeg = layout(PixelFormat::Mjpeg, 640, 480, &[0]);
        let image = [&[0xff, 0xd8, 0xff, 0xc4][..], &[7; 100]].concat();
        let bytes = |buffer: &[u8]| jpeg.planes(|_| buffer)[0].bytes.to_vec();
        assert!(jpeg.is_whole(|_| &image));
        assert_eq!(bytes(&image), image);
        let shifted = [&[0; 8][..], &image].concat();
        assert!(jpeg.is_whole(|_| &shifted));
        assert_eq!(bytes(&shifted), image);
        for buffer in [&[][..], &[0xff, 0xd8], &[7; 4096], &[&[0; 64][..], &image].concat()] {
            assert!(!jpeg.is_whole(|_| buffer), "{} bytes", buffer.len());
            assert!(bytes(buffer).is_empty());
        }
    }
}
