//! Agrees with a driver on what goes in and what comes out.
//!
//! V4L2, "Memory-to-Memory Stateful Video Encoder Interface", "Initialization", steps 1 to 6.

use super::layout;
use crate::encode::{Error, Settings};
use crate::frame::{Colour, Matrix};
use crate::sys::v4l2::codec::CodecFormat;
use crate::sys::v4l2::{Colorimetry, Device, Direction, Format, FourCc, Interval};

/// Agrees with the driver on both formats, the coded one first; answers the raw one.
pub(super) fn negotiate(
    device: &Device,
    coded: FourCc,
    settings: &Settings,
    width: u32,
    height: u32,
) -> Result<Format, Error> {
    let wanted = CodecFormat {
        fourcc: coded,
        width,
        height,
        size: coded_len(width, height),
        colorimetry: colorimetry(settings.colour),
    };
    if device.set_codec_format(Direction::Capture, &wanted)?.fourcc != coded {
        return Err(Error::Unsuitable("it does not make the coded format"));
    }
    let offered = device.codec_formats(Direction::Output)?;
    let is_offered = |fourcc: &&FourCc| offered.iter().any(|format| format.fourcc == **fourcc);
    let none = Error::Unsuitable("it takes no raw format that we have");
    let &fourcc = layout::USABLE.iter().find(is_offered).ok_or(none)?;
    let wanted = CodecFormat { fourcc, size: 0, ..wanted };
    let given = device.set_codec_format(Direction::Output, &wanted)?;
    if given.fourcc == fourcc {
        Ok(given)
    } else {
        Err(Error::Unsuitable("it lists a raw format that it does not take"))
    }
}

/// Has the padding left out, where the driver's pictures are larger than ours.
pub(super) fn crop(device: &Device, format: &Format, width: u32, height: u32) -> Result<(), Error> {
    if (format.width, format.height) == (width, height) {
        return Ok(());
    }
    match device.set_codec_crop(width, height) {
        Ok(size) if size == (width, height) => Ok(()),
        Ok(_) => Err(Error::Unsuitable("it does not make pictures of this size")),
        // Whole macroblocks are what every encoder works on; the parameter sets tell the rest.
        Err(_) if format.width - width < 16 && format.height - height < 16 => Ok(()),
        Err(_) => Err(Error::Unsuitable("it does not make pictures of this size")),
    }
}

/// Half of a raw picture: no coded one is larger at any bitrate of ours.
fn coded_len(width: u32, height: u32) -> u32 {
    (width.saturating_mul(height) / 4 * 3).clamp(MIN_CODED_LEN, MAX_CODED_LEN)
}

const fn colorimetry(colour: Colour) -> Colorimetry {
    // videodev2.h: v4l2_colorspace, v4l2_ycbcr_encoding, v4l2_quantization.
    let (colorspace, ycbcr_enc) = match colour.matrix {
        Matrix::Bt601 => (1, 1),
        Matrix::Bt709 => (3, 2),
    };
    Colorimetry { colorspace, ycbcr_enc, quantization: if colour.full_range { 1 } else { 2 } }
}

/// Thousandths are exact for every rate that cameras have.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a frame rate in thousandths"
)]
pub(super) fn interval(fps: f64) -> Interval {
    Interval { numerator: 1000, denominator: (fps.clamp(1.0, 1000.0) * 1000.0).round() as u32 }
}

const MIN_CODED_LEN: u32 = 256 << 10;
/// `h264::MAX_ACCESS_UNIT_LEN`.
const MAX_CODED_LEN: u32 = 2 << 20;
