//! Lists what a capture node offers: formats, their frame sizes, and the sizes' frame intervals.
//!
//! V4L2: `VIDIOC_ENUM_FMT`, `VIDIOC_ENUM_FRAMESIZES`, `VIDIOC_ENUM_FRAMEINTERVALS`. Drivers may
//! leave out the latter two; the lists are then empty.

use std::os::fd::AsFd;

use nix::errno::Errno;
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::v4l_sys as abi;

use super::device::text;
use super::ioctl::{self, Plain, ioctl};
use super::{Device, Error, FourCc};

/// A pixel format that a node offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatInfo {
    pub fourcc: FourCc,
    /// The driver's words.
    pub description: String,
}

/// A frame size, or a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameSize {
    Discrete {
        width: u32,
        height: u32,
    },
    /// A continuous range is one with steps of 1.
    Stepwise {
        width_min: u32,
        width_max: u32,
        width_step: u32,
        height_min: u32,
        height_max: u32,
        height_step: u32,
    },
}

/// Seconds from one frame to the next, as a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub numerator: u32,
    pub denominator: u32,
}

impl Interval {
    /// Frames per second; `None` for a fraction that is no rate.
    #[must_use]
    pub fn fps(self) -> Option<f64> {
        (self.numerator != 0 && self.denominator != 0)
            .then(|| f64::from(self.denominator) / f64::from(self.numerator))
    }
}

/// A frame interval, or a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameInterval {
    Discrete(Interval),
    /// `min` is the shortest, so the highest rate. Steps are not kept: drivers round.
    Range {
        min: Interval,
        max: Interval,
    },
}

impl Device {
    /// The pixel formats, in the driver's order.
    ///
    /// # Errors
    ///
    /// [`Error`], when the driver went away.
    pub fn formats(&self) -> Result<Vec<FormatInfo>, Error> {
        self.formats_of(self.buffer_type())
    }

    pub(super) fn formats_of(&self, kind: abi::v4l2_buf_type) -> Result<Vec<FormatInfo>, Error> {
        list(|index| {
            let mut format = abi::v4l2_fmtdesc { index, type_: kind, ..Plain::zeroed() };
            ioctl(self.as_fd(), &ioctl::VIDIOC_ENUM_FMT, &mut format)?;
            let fourcc = FourCc::from(format.pixelformat);
            Ok(Some(FormatInfo { fourcc, description: text(&format.description) }))
        })
    }

    /// The frame sizes of a format.
    ///
    /// # Errors
    ///
    /// As [`Device::formats`].
    pub fn frame_sizes(&self, fourcc: FourCc) -> Result<Vec<FrameSize>, Error> {
        let pixel_format = fourcc.into();
        list(|index| {
            let mut size = abi::v4l2_frmsizeenum { index, pixel_format, ..Plain::zeroed() };
            ioctl(self.as_fd(), &ioctl::VIDIOC_ENUM_FRAMESIZES, &mut size)?;
            Ok(FrameSizeEnum::try_from(size).ok().map(FrameSize::from))
        })
    }

    /// The frame intervals of a format at one size.
    ///
    /// # Errors
    ///
    /// As [`Device::formats`].
    pub fn frame_intervals(
        &self,
        fourcc: FourCc,
        width: u32,
        height: u32,
    ) -> Result<Vec<FrameInterval>, Error> {
        let pixel_format = fourcc.into();
        list(|index| {
            let mut interval =
                abi::v4l2_frmivalenum { index, pixel_format, width, height, ..Plain::zeroed() };
            ioctl(self.as_fd(), &ioctl::VIDIOC_ENUM_FRAMEINTERVALS, &mut interval)?;
            Ok(FrameIntervalEnum::try_from(interval).ok().map(FrameInterval::from))
        })
    }
}

/// Asks for index 0, 1, … until the driver says EINVAL (the end) or ENOTTY (it keeps no list).
///
/// What `entry` cannot name (`None`: a kind newer than this program) is left out.
fn list<T>(mut entry: impl FnMut(u32) -> Result<Option<T>, Error>) -> Result<Vec<T>, Error> {
    let mut entries = Vec::new();
    for index in 0..MAX_ENTRIES {
        match entry(index) {
            Ok(found) => entries.extend(found),
            Err(Error { errno: Errno::EINVAL | Errno::ENOTTY, .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(entries)
}

impl From<FrameSizeEnum> for FrameSize {
    fn from(size: FrameSizeEnum) -> Self {
        match size {
            FrameSizeEnum::Discrete(size) => {
                Self::Discrete { width: size.width, height: size.height }
            }
            FrameSizeEnum::Stepwise(range) => Self::Stepwise {
                width_min: range.min_width,
                width_max: range.max_width,
                width_step: range.step_width.max(1),
                height_min: range.min_height,
                height_max: range.max_height,
                height_step: range.step_height.max(1),
            },
        }
    }
}

impl From<FrameIntervalEnum> for FrameInterval {
    fn from(interval: FrameIntervalEnum) -> Self {
        match interval {
            FrameIntervalEnum::Discrete(interval) => Self::Discrete(interval.into()),
            FrameIntervalEnum::Stepwise(range) => {
                Self::Range { min: range.min.into(), max: range.max.into() }
            }
        }
    }
}

impl From<v4l::Fraction> for Interval {
    fn from(fraction: v4l::Fraction) -> Self {
        Self { numerator: fraction.numerator, denominator: fraction.denominator }
    }
}

/// More than any driver lists; a driver that never says EINVAL must not keep us.
const MAX_ENTRIES: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_where_the_driver_says_so() {
        let refuse = |errno| Err(Error { call: "VIDIOC_ENUM_FMT", errno });
        let upto_3 = |index| if index < 3 { Ok(Some(index)) } else { refuse(Errno::EINVAL) };
        assert_eq!(list(upto_3), Ok(vec![0, 1, 2]));
        assert_eq!(list::<u32>(|_| refuse(Errno::ENOTTY)), Ok(vec![]));
        assert_eq!(list::<u32>(|_| refuse(Errno::ENODEV)).map_err(|e| e.errno), Err(Errno::ENODEV));
        let endless = list(|index| Ok((index % 2 == 0).then_some(index)));
        assert_eq!(endless.map(|all| all.len()), Ok(128));
    }

    #[test]
    fn an_interval_that_is_no_rate_has_none() {
        assert_eq!(Interval { numerator: 1, denominator: 30 }.fps(), Some(30.0));
        assert_eq!(Interval { numerator: 0, denominator: 30 }.fps(), None);
        assert_eq!(Interval { numerator: 1, denominator: 0 }.fps(), None);
    }
}
