//! Lists and sets a camera's controls: brightness, exposure, and vivid's fault injection.
//!
//! V4L2: `VIDIOC_QUERY_EXT_CTRL`, `VIDIOC_QUERYMENU`, `VIDIOC_G_CTRL`, `VIDIOC_S_CTRL`.
//!
//! Not implemented: 64-bit, text, array and compound controls; they are not listed.

use std::fmt;
use std::os::fd::AsFd;

use nix::errno::Errno;
use v4l::v4l_sys as abi;

use super::device::text;
use super::ioctl::{self, Plain, ioctl};
use super::{Device, Error};

/// A control that takes one 32-bit value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    id: u32,
    /// The driver's name in lower case, words joined by `_`: `auto_exposure`.
    pub name: String,
    pub kind: ControlKind,
    pub min: i64,
    pub max: i64,
    /// Values between are rounded by the driver.
    pub step: u64,
    pub default: i64,
}

/// What the value of a control means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    Integer,
    Boolean,
    /// The index of an entry; see [`Device::menu`].
    Menu,
    /// Nothing: setting it is pressing it.
    Button,
    Bitmask,
}

impl Device {
    /// The controls that can be set.
    ///
    /// # Errors
    ///
    /// [`Error`], when the driver went away.
    pub fn controls(&self) -> Result<Vec<Control>, Error> {
        let mut controls = Vec::new();
        let mut id = 0;
        for _ in 0..MAX_CONTROLS {
            let mut raw = abi::v4l2_query_ext_ctrl {
                id: id | abi::V4L2_CTRL_FLAG_NEXT_CTRL,
                ..Plain::zeroed()
            };
            match ioctl(self.as_fd(), &ioctl::VIDIOC_QUERY_EXT_CTRL, &mut raw) {
                Err(Error { errno: Errno::EINVAL | Errno::ENOTTY, .. }) => break,
                Err(error) => return Err(error),
                // A driver that does not move on would keep us for ever.
                Ok(()) if raw.id <= id => break,
                Ok(()) => id = raw.id,
            }
            controls.extend(Control::settable(&raw));
        }
        Ok(controls)
    }

    /// The control of a number of ours (`V4L2_CID_*`), when the driver has it and lets it be set.
    ///
    /// # Errors
    ///
    /// As [`Device::controls`].
    pub fn find_control(&self, id: u32) -> Result<Option<Control>, Error> {
        let mut raw = abi::v4l2_query_ext_ctrl { id, ..Plain::zeroed() };
        match ioctl(self.as_fd(), &ioctl::VIDIOC_QUERY_EXT_CTRL, &mut raw) {
            Err(Error { errno: Errno::EINVAL | Errno::ENOTTY, .. }) => return Ok(None),
            other => other?,
        }
        Ok(Control::settable(&raw))
    }

    /// The entries of a menu that can be chosen, with their indices; empty for what is no menu.
    #[must_use]
    pub fn menu(&self, control: &Control) -> Vec<(i64, String)> {
        if control.kind != ControlKind::Menu {
            return Vec::new();
        }
        let indices = (control.min..=control.max).take(MAX_CONTROLS);
        indices
            .filter_map(|index| {
                let number = u32::try_from(index).ok()?;
                let mut raw =
                    abi::v4l2_querymenu { id: control.id, index: number, ..Plain::zeroed() };
                // EINVAL: there is a hole in the menu.
                ioctl(self.as_fd(), &ioctl::VIDIOC_QUERYMENU, &mut raw).ok()?;
                // SAFETY: 32 bytes, all of them initialised, and every value of them is valid.
                let name = unsafe { raw.__bindgen_anon_1.name };
                Some((index, text(&name)))
            })
            .collect()
    }

    /// Sets the setting of an encoder nearest to `value`, if this device has it, and answers
    /// whether it has.
    ///
    /// # Errors
    ///
    /// As [`Device::set_control`].
    pub fn set_coding(&self, id: CodingControl, value: u32) -> Result<bool, Error> {
        let Some(control) = self.find_control(id.0)? else { return Ok(false) };
        let value = i64::from(value).min(control.max).max(control.min);
        self.set_control(&control, i32::try_from(value).unwrap_or(i32::MAX)).map(|()| true)
    }

    /// Sets a control.
    ///
    /// # Errors
    ///
    /// [`Error`]: ERANGE for a value that the driver does not round, EACCES for a control that is
    /// read-only now.
    pub fn set_control(&self, control: &Control, value: i32) -> Result<(), Error> {
        let mut raw = abi::v4l2_control { id: control.id, value };
        ioctl(self.as_fd(), &ioctl::VIDIOC_S_CTRL, &mut raw)
    }

    /// The value of a control.
    ///
    /// # Errors
    ///
    /// [`Error`]: EACCES for buttons.
    pub fn control(&self, control: &Control) -> Result<i32, Error> {
        let mut raw = abi::v4l2_control { id: control.id, value: 0 };
        ioctl(self.as_fd(), &ioctl::VIDIOC_G_CTRL, &mut raw)?;
        Ok(raw.value)
    }
}

impl Control {
    /// A control that no device has.
    #[cfg(test)]
    pub(crate) fn new(name: &str, kind: ControlKind, range: std::ops::RangeInclusive<i64>) -> Self {
        let (min, max) = range.into_inner();
        Self { id: 0, name: name.to_owned(), kind, min, max, step: 1, default: min }
    }

    /// `None` for what takes no 32-bit value, and for what cannot be set.
    fn settable(raw: &abi::v4l2_query_ext_ctrl) -> Option<Self> {
        let kind = match raw.type_ {
            abi::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER => ControlKind::Integer,
            abi::v4l2_ctrl_type_V4L2_CTRL_TYPE_BOOLEAN => ControlKind::Boolean,
            abi::v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU
            | abi::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU => ControlKind::Menu,
            abi::v4l2_ctrl_type_V4L2_CTRL_TYPE_BUTTON => ControlKind::Button,
            abi::v4l2_ctrl_type_V4L2_CTRL_TYPE_BITMASK => ControlKind::Bitmask,
            _ => return None,
        };
        let closed = abi::V4L2_CTRL_FLAG_DISABLED | abi::V4L2_CTRL_FLAG_READ_ONLY;
        (raw.nr_of_dims == 0 && raw.flags & closed == 0).then(|| Self {
            id: raw.id,
            name: plain_name(&raw.name),
            kind,
            min: raw.minimum,
            max: raw.maximum,
            step: raw.step,
            default: raw.default_value,
        })
    }
}

/// A setting of an encoder, which a camera that emits H.264 is too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodingControl(u32, &'static str);

impl CodingControl {
    /// Bits per second.
    pub const BITRATE: Self = Self(abi::V4L2_CID_MPEG_VIDEO_BITRATE, "bitrate");
    /// 0: variable, 1: constant.
    pub const BITRATE_MODE: Self = Self(abi::V4L2_CID_MPEG_VIDEO_BITRATE_MODE, "bitrate mode");
    /// Pictures from one IDR picture to the next.
    pub const H264_I_PERIOD: Self = Self(abi::V4L2_CID_MPEG_VIDEO_H264_I_PERIOD, "IDR period");
    /// Pictures from one intra picture to the next.
    pub const GOP_SIZE: Self = Self(abi::V4L2_CID_MPEG_VIDEO_GOP_SIZE, "GOP size");
    /// B pictures between two others.
    pub const B_FRAMES: Self = Self(abi::V4L2_CID_MPEG_VIDEO_B_FRAMES, "B pictures");
    /// Whether parameter sets come with every IDR picture.
    pub const REPEAT_SEQ_HEADER: Self =
        Self(abi::V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER, "repeated parameter sets");
    /// `V4L2_MPEG_VIDEO_H264_LEVEL_*`.
    pub const H264_LEVEL: Self = Self(abi::V4L2_CID_MPEG_VIDEO_H264_LEVEL, "level");
    /// A button.
    pub const FORCE_KEY_FRAME: Self =
        Self(abi::V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, "forced IDR picture");
}

impl fmt::Display for CodingControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }
}

/// `White Balance, Auto` is `white_balance_auto`: the form that v4l2-ctl made usual.
fn plain_name(raw: &[std::os::raw::c_char]) -> String {
    let mut name = String::new();
    for byte in raw.iter().map(|&char| char.to_ne_bytes()[0]).take_while(|&byte| byte != 0) {
        if byte.is_ascii_alphanumeric() {
            name.push(char::from(byte.to_ascii_lowercase()));
        } else if !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
    }
    name.truncate(name.trim_end_matches('_').len());
    name
}

/// Ten times what the richest driver has.
const MAX_CONTROLS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_names_become_one_word() {
        let name = |text: &[u8]| {
            let raw: Vec<_> =
                text.iter().map(|&byte| std::os::raw::c_char::from_ne_bytes([byte])).collect();
            plain_name(&raw)
        };
        assert_eq!(name(b"White Balance, Auto\0junk"), "white_balance_auto");
        assert_eq!(name(b"Percentage of Dropped Buffers"), "percentage_of_dropped_buffers");
        assert_eq!(name(b"Gain (dB)\0"), "gain_db");
        assert_eq!(name(b"\xff\xfe\0"), "");
    }
}
