//! Where pictures come from, as users write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::NotAllowed;

/// A source of pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The first V4L2 capture device that works, else the test pattern.
    #[default]
    Auto,
    /// The test pattern.
    Pattern,
    /// This V4L2 device.
    V4l2(PathBuf),
    /// This H.264 Annex B file, in a loop and as it is.
    File(PathBuf),
}

impl FromStr for Source {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "pattern" => Ok(Self::Pattern),
            Some(("v4l2", device)) if device.starts_with('/') => Ok(Self::V4l2(device.into())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err(NotAllowed("auto, pattern, v4l2:/dev/videoN or file:CLIP.h264")),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Pattern => f.write_str("pattern"),
            Self::V4l2(device) => write!(f, "v4l2:{}", device.display()),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_the_way_to_text_and_back() {
        for text in ["auto", "pattern", "v4l2:/dev/video0", "file:a b:c.h264", "file:/x"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "Auto",
            "auto:",
            "pattern:x",
            "v4l2",
            "v4l2:",
            "v4l2:video0",
            "file:",
            "/dev/video0",
        ] {
            assert!(text.parse::<Source>().is_err(), "{text:?}");
        }
    }
}
