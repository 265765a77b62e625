//! What a stream looks like: size, rate, bits.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::Serialize;

use super::json::Entry;
use super::{Error, NotAllowed};

/// One encoding of the camera's pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stream {
    pub name: StreamName,
    #[serde(flatten)]
    pub size: Size,
    /// Pictures per second.
    pub fps: u32,
    pub bitrate_kbps: u32,
    /// Seconds from one IDR picture to the next.
    pub gop_s: f64,
}

/// The streams that a camera can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamName {
    #[default]
    Main,
    Sub,
}

/// Width and height in luma samples: even, and what level 5.1 allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

impl Stream {
    pub(super) fn read(entry: &Entry<'_>) -> Result<Self, Error> {
        let object = entry.object(&["name", "width", "height", "fps", "bitrate_kbps", "gop_s"])?;
        let default = Self::default();
        let width = object.get("width", default.size.width, read_side)?;
        let size = object.get("height", Size { width, ..default.size }, |entry| {
            Ok(Size { width, height: read_side(entry)? })
        })?;
        if !size.fits() {
            return Err(Error::NotAllowed {
                path: entry.path().to_owned(),
                value: size.to_string(),
                allowed: SIZES.into(),
            });
        }
        Ok(Self {
            name: object.require("name", STREAM_NAMES, |entry| entry.parsed())?,
            size,
            fps: object.get("fps", default.fps, |entry| entry.integer(FPS))?,
            bitrate_kbps: object
                .get("bitrate_kbps", default.bitrate_kbps, |entry| entry.integer(BITRATES_KBPS))?,
            gop_s: object.get("gop_s", default.gop_s, |entry| entry.number(GOPS_S))?,
        })
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            name: StreamName::Main,
            size: Size { width: 1280, height: 720 },
            fps: 30,
            bitrate_kbps: 2_000,
            gop_s: 1.0,
        }
    }
}

impl FromStr for StreamName {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        match text {
            "main" => Ok(Self::Main),
            "sub" => Ok(Self::Sub),
            _ => Err(NotAllowed(STREAM_NAMES)),
        }
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "main",
            Self::Sub => "sub",
        })
    }
}

impl Size {
    fn fits(self) -> bool {
        self.width.min(self.height) <= SHORT_SIDE_MAX
    }
}

impl FromStr for Size {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        let side = |text: &str| text.parse().ok().filter(|&side| is_side(side));
        let (width, height) = text.split_once(['x', 'X']).ok_or(NotAllowed(SIZES))?;
        match (side(width), side(height)) {
            (Some(width), Some(height)) => Some(Self { width, height }),
            _ => None,
        }
        .filter(|size| size.fits())
        .ok_or(NotAllowed(SIZES))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// What must hold for the streams together.
pub(super) fn validate(streams: &[Stream]) -> Result<(), Error> {
    let not_allowed = |index: usize, value: StreamName, allowed: &str| Error::NotAllowed {
        path: format!("streams[{index}].name"),
        value: format!("{:?}", value.to_string()),
        allowed: allowed.into(),
    };
    for (index, stream) in streams.iter().enumerate() {
        if streams[..index].iter().any(|earlier| earlier.name == stream.name) {
            return Err(not_allowed(index, stream.name, "a name that no other stream has"));
        }
        if stream.name == StreamName::Sub {
            return Err(not_allowed(
                index,
                stream.name,
                "\"main\": a sub stream is not supported yet",
            ));
        }
    }
    if streams.is_empty() {
        return Err(Error::NotAllowed {
            path: "streams".into(),
            value: "an empty list".into(),
            allowed: "a list of one stream, \"main\"".into(),
        });
    }
    Ok(())
}

fn read_side(entry: &Entry<'_>) -> Result<u32, Error> {
    let side = entry.integer(0..=u32::MAX).ok().filter(|&side| is_side(side));
    side.ok_or_else(|| entry.not_allowed("an even number from 32 to 3840"))
}

fn is_side(len: u32) -> bool {
    SIDES.contains(&len) && len.is_multiple_of(2)
}

const STREAM_NAMES: &str = "\"main\" or \"sub\"";
const SIZES: &str = "WIDTHxHEIGHT, both even and at least 32, and at most 3840x2160 or 2160x3840";
/// Luma samples: encoders want two macroblocks at least; OpenH264 takes no more.
const SIDES: RangeInclusive<u32> = 32..=3840;
/// OpenH264's limit for the shorter side.
const SHORT_SIDE_MAX: u32 = 2160;
/// Pictures per second that the software encoder takes.
pub const FPS: RangeInclusive<u32> = 1..=60;
/// From a slide show to what a gigabit network carries to some viewers.
pub const BITRATES_KBPS: RangeInclusive<u32> = 16..=50_000;
const GOPS_S: RangeInclusive<f64> = 0.1..=60.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_survive_the_way_to_text_and_back() {
        for text in ["32x32", "1280x720", "3840x2160", "2160x3840"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "x",
            "1280",
            "1280x",
            "x720",
            "1280x720x2",
            "0x0",
            "30x32",
            "1281x720",
            "1280x721",
            "3842x64",
            "2162x2162",
            "-2x720",
            "1280 x 720",
            "99999999999x2",
            "1280*720",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }
}
