//! Which encoder a stream is to have, as users write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::NotAllowed;

/// An encoder of H.264.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Encoder {
    /// The camera's own H.264, else a V4L2 M2M device, else OpenH264.
    #[default]
    Auto,
    /// In software.
    OpenH264,
    /// A V4L2 M2M device: this one, or the first that there is.
    M2m(Option<PathBuf>),
}

impl FromStr for Encoder {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "openh264" => Ok(Self::OpenH264),
            None if text == "m2m" => Ok(Self::M2m(None)),
            Some(("m2m", device)) if device.starts_with('/') => Ok(Self::M2m(Some(device.into()))),
            _ => Err(NotAllowed("auto, openh264, m2m or m2m:/dev/videoN")),
        }
    }
}

impl fmt::Display for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::OpenH264 => f.write_str("openh264"),
            Self::M2m(None) => f.write_str("m2m"),
            Self::M2m(Some(device)) => write!(f, "m2m:{}", device.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoders_survive_the_way_to_text_and_back() {
        for text in ["auto", "openh264", "m2m", "m2m:/dev/video11"] {
            assert_eq!(text.parse::<Encoder>().unwrap().to_string(), text);
        }
        for text in ["", "Auto", "x264", "m2m:", "m2m:video0", "openh264:", "/dev/video11"] {
            assert!(text.parse::<Encoder>().is_err(), "{text:?}");
        }
    }
}
