//! Negotiates the picture's format and rate with the driver.
//!
//! V4L2: `VIDIOC_G_FMT`, `VIDIOC_S_FMT`, `VIDIOC_TRY_FMT` with `v4l2_pix_format` or
//! `v4l2_pix_format_mplane`, whichever the node uses; `VIDIOC_G_PARM`, `VIDIOC_S_PARM`.

use std::fmt;
use std::os::fd::AsFd;
use std::str::FromStr;

use v4l::v4l_sys as abi;

use super::ioctl::{self, Call, Plain, ioctl};
use super::queue::is_multiplanar;
use super::{Device, Error, Interval, MAX_PLANES};

/// A four character code: how V4L2 names pixel formats.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub [u8; 4]);

impl From<u32> for FourCc {
    fn from(code: u32) -> Self {
        Self(code.to_le_bytes())
    }
}

impl From<FourCc> for u32 {
    fn from(fourcc: FourCc) -> Self {
        Self::from_le_bytes(fourcc.0)
    }
}

impl FromStr for FourCc {
    type Err = NotAFourCc;

    fn from_str(text: &str) -> Result<Self, NotAFourCc> {
        let code = <[u8; 4]>::try_from(text.as_bytes()).map_err(|_| NotAFourCc)?;
        // Codes of fewer characters end in spaces.
        code.iter().all(|byte| matches!(byte, b' '..=b'~')).then_some(Self(code)).ok_or(NotAFourCc)
    }
}

/// A text that is no four character code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not four ASCII characters")]
pub struct NotAFourCc;

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FourCc({self})")
    }
}

/// One memory plane of a format: a part of the buffer with a mapping of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bytes from one line to the next of the first colour plane in it.
    pub stride: u32,
    /// Bytes that the driver asks to be set aside.
    pub size: u32,
}

/// What the samples mean, in the kernel's numbers (`V4L2_COLORSPACE_*` and so on).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Colorimetry {
    pub colorspace: u32,
    pub ycbcr_enc: u32,
    pub quantization: u32,
}

/// A capture format as the driver states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub fourcc: FourCc,
    pub width: u32,
    pub height: u32,
    /// `V4L2_FIELD_*`.
    pub field: u32,
    pub colorimetry: Colorimetry,
    memory: [Memory; MAX_PLANES],
    memory_count: usize,
}

impl Format {
    /// The memory planes: one, unless the format is one of the `M` kind (NM12, YM12, …).
    #[must_use]
    pub fn memory(&self) -> &[Memory] {
        &self.memory[..self.memory_count]
    }

    fn from_single(pix: &abi::v4l2_pix_format) -> Self {
        let mut memory = [Memory::default(); MAX_PLANES];
        memory[0] = Memory { stride: pix.bytesperline, size: pix.sizeimage };
        // SAFETY: both variants of the union are a u32, and the kernel has written it.
        let ycbcr_enc = unsafe { pix.__bindgen_anon_1.ycbcr_enc };
        Self {
            fourcc: pix.pixelformat.into(),
            width: pix.width,
            height: pix.height,
            field: pix.field,
            colorimetry: Colorimetry {
                colorspace: pix.colorspace,
                ycbcr_enc,
                quantization: pix.quantization,
            },
            memory,
            memory_count: 1,
        }
    }

    fn from_multi(pix: &abi::v4l2_pix_format_mplane) -> Self {
        let planes = pix.plane_fmt;
        // SAFETY: both variants of the union are a u8, and the kernel has written it.
        let ycbcr_enc = unsafe { pix.__bindgen_anon_1.ycbcr_enc };
        Self {
            fourcc: { pix.pixelformat }.into(),
            width: pix.width,
            height: pix.height,
            field: pix.field,
            colorimetry: Colorimetry {
                colorspace: pix.colorspace,
                ycbcr_enc: ycbcr_enc.into(),
                quantization: pix.quantization.into(),
            },
            memory: planes
                .map(|plane| Memory { stride: plane.bytesperline, size: plane.sizeimage }),
            memory_count: usize::from(pix.num_planes).clamp(1, MAX_PLANES),
        }
    }
}

impl Device {
    /// The format in force.
    ///
    /// # Errors
    ///
    /// [`Error`]: EINVAL when this is no capture device.
    pub fn format(&self) -> Result<Format, Error> {
        let raw = abi::v4l2_format { type_: self.buffer_type(), ..Plain::zeroed() };
        self.exchange_format(&ioctl::VIDIOC_G_FMT, raw)
    }

    /// Sets the format and answers what the driver made of it, which may be something else.
    ///
    /// # Errors
    ///
    /// [`Error`]: EBUSY while somebody streams.
    pub fn set_format(&self, fourcc: FourCc, width: u32, height: u32) -> Result<Format, Error> {
        self.exchange_format(&ioctl::VIDIOC_S_FMT, self.raw_format(fourcc, width, height))
    }

    /// What [`Device::set_format`] would answer, without a change.
    ///
    /// # Errors
    ///
    /// As [`Device::format`].
    pub fn try_format(&self, fourcc: FourCc, width: u32, height: u32) -> Result<Format, Error> {
        self.exchange_format(&ioctl::VIDIOC_TRY_FMT, self.raw_format(fourcc, width, height))
    }

    /// Sets the frame interval, if the driver can, and answers the one in force.
    ///
    /// # Errors
    ///
    /// [`Error`]: ENOTTY or EINVAL from drivers that know no rate.
    pub fn set_interval(&self, wanted: Interval) -> Result<Interval, Error> {
        let mut parm = abi::v4l2_streamparm { type_: self.buffer_type(), ..Plain::zeroed() };
        ioctl(self.as_fd(), &ioctl::VIDIOC_G_PARM, &mut parm)?;
        // SAFETY: the kernel wrote `capture`, as it does for both capture types.
        let capture = unsafe { &mut parm.parm.capture };
        if capture.capability & abi::V4L2_CAP_TIMEPERFRAME == 0 {
            return Ok(interval(capture));
        }
        capture.timeperframe =
            abi::v4l2_fract { numerator: wanted.numerator, denominator: wanted.denominator };
        ioctl(self.as_fd(), &ioctl::VIDIOC_S_PARM, &mut parm)?;
        self.interval()
    }

    /// The frame interval in force.
    ///
    /// # Errors
    ///
    /// As [`Device::set_interval`].
    pub fn interval(&self) -> Result<Interval, Error> {
        let mut parm = abi::v4l2_streamparm { type_: self.buffer_type(), ..Plain::zeroed() };
        ioctl(self.as_fd(), &ioctl::VIDIOC_G_PARM, &mut parm)?;
        // SAFETY: the kernel wrote `capture`, as it does for both capture types.
        Ok(interval(unsafe { &parm.parm.capture }))
    }

    /// A request for a progressive picture, everything else left to the driver.
    fn raw_format(&self, fourcc: FourCc, width: u32, height: u32) -> abi::v4l2_format {
        let mut raw = abi::v4l2_format { type_: self.buffer_type(), ..Plain::zeroed() };
        if is_multiplanar(raw.type_) {
            raw.fmt.pix_mp.width = width;
            raw.fmt.pix_mp.height = height;
            raw.fmt.pix_mp.pixelformat = fourcc.into();
            raw.fmt.pix_mp.field = abi::v4l2_field_V4L2_FIELD_NONE;
        } else {
            raw.fmt.pix.width = width;
            raw.fmt.pix.height = height;
            raw.fmt.pix.pixelformat = fourcc.into();
            raw.fmt.pix.field = abi::v4l2_field_V4L2_FIELD_NONE;
        }
        raw
    }

    /// Performs one of the calls on `v4l2_format`, for the buffer type that `raw` names.
    pub(super) fn exchange_format(
        &self,
        call: &Call<abi::v4l2_format>,
        mut raw: abi::v4l2_format,
    ) -> Result<Format, Error> {
        ioctl(self.as_fd(), call, &mut raw)?;
        if is_multiplanar(raw.type_) {
            // SAFETY: for the multi-planar type, which `raw.type_` is, the kernel wrote `pix_mp`.
            Ok(Format::from_multi(unsafe { &raw.fmt.pix_mp }))
        } else {
            // SAFETY: for the single-planar type, which `raw.type_` is, the kernel wrote `pix`.
            Ok(Format::from_single(unsafe { &raw.fmt.pix }))
        }
    }
}

const fn interval(parm: &abi::v4l2_captureparm) -> Interval {
    let fraction = parm.timeperframe;
    Interval { numerator: fraction.numerator, denominator: fraction.denominator }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_four_character_code_reads_as_its_characters() {
        assert_eq!(FourCc::from(0x5659_5559).to_string(), "YUYV");
        assert_eq!(u32::from(FourCc(*b"NV12")), 0x3231_564e);
        // Y16 in big endian order: bit 31 is set.
        assert_eq!(FourCc(*b"Y16\xa0").to_string(), "Y16\\xa0");
    }

    #[test]
    fn a_driver_that_claims_too_many_planes_is_cut_to_what_fits() {
        let mut raw = abi::v4l2_format::zeroed();
        raw.fmt.pix_mp.num_planes = 200;
        // SAFETY: all zeroes but one field, which is valid for integers.
        let format = Format::from_multi(unsafe { &raw.fmt.pix_mp });
        assert_eq!(format.memory().len(), MAX_PLANES);
        raw.fmt.pix_mp.num_planes = 0;
        // SAFETY: as above.
        let format = Format::from_multi(unsafe { &raw.fmt.pix_mp });
        assert_eq!(format.memory().len(), 1);
    }
}
