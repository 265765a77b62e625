//! Lists and sets a camera's controls: brightness, exposure, and vivid's fault injection.
//!
//! V4L2: `VIDIOC_QUERY_EXT_CTRL`, `VIDIOC_G_CTRL`, `VIDIOC_S_CTRL`.
//!
//! Not implemented: 64-bit, text, array and compound controls; they are not listed.

use std::os::fd::AsFd;

use nix::errno::Errno;
use v4l::v4l_sys as abi;

use super::ioctl::{self, Plain, ioctl};
use super::{Device, Error};

/// A control that takes one 32-bit value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    id: u32,
    /// The driver's name in lower case, words joined by `_`: `auto_exposure`.
    pub name: String,
    pub min: i64,
    pub max: i64,
    pub default: i64,
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
            if is_settable(&raw) {
                controls.push(Control {
                    id,
                    name: plain_name(&raw.name),
                    min: raw.minimum,
                    max: raw.maximum,
                    default: raw.default_value,
                });
            }
        }
        Ok(controls)
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

const fn is_settable(raw: &abi::v4l2_query_ext_ctrl) -> bool {
    let simple = matches!(
        raw.type_,
        abi::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER
            | abi::v4l2_ctrl_type_V4L2_CTRL_TYPE_BOOLEAN
            | abi::v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU
            | abi::v4l2_ctrl_type_V4L2_CTRL_TYPE_BUTTON
            | abi::v4l2_ctrl_type_V4L2_CTRL_TYPE_BITMASK
            | abi::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU
    );
    let closed = abi::V4L2_CTRL_FLAG_DISABLED | abi::V4L2_CTRL_FLAG_READ_ONLY;
    simple && raw.nr_of_dims == 0 && raw.flags & closed == 0
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
