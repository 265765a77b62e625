//! What a stream looks like and who encodes it.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::Serialize;

use super::json::{self, Entry, Object};
use super::{Encoder, Error, NotAllowed};

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
    #[serde(serialize_with = "json::as_text")]
    pub encoder: Encoder,
    /// Whether each picture says in an SEI message when it was captured (MISB ST 0604).
    pub utc_sei: bool,
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
    /// What a stream of this name is when nothing else is said of it.
    #[must_use]
    pub fn new(name: StreamName) -> Self {
        let (size, fps, bitrate_kbps) = match name {
            StreamName::Main => (Size { width: 1280, height: 720 }, 30, 2_000),
            StreamName::Sub => (Size { width: 640, height: 360 }, 10, 300),
        };
        let encoder = Encoder::Auto;
        Self { name, size, fps, bitrate_kbps, gop_s: 1.0, encoder, utc_sei: false }
    }

    pub(super) fn read(entry: &Entry<'_>) -> Result<Self, Error> {
        let object = entry.object(&[
            "name",
            "width",
            "height",
            "fps",
            "bitrate_kbps",
            "gop_s",
            "encoder",
            "utc_sei",
        ])?;
        let name = object.require("name", STREAM_NAMES, |entry| entry.parsed())?;
        let default = Self::new(name);
        Ok(Self {
            encoder: object.get("encoder", default.encoder.clone(), Entry::parsed)?,
            utc_sei: object.get("utc_sei", default.utc_sei, Entry::boolean)?,
            ..default.changed(entry, &object)?
        })
    }

    /// This stream with those keys of a JSON object that may change while it runs:
    /// `bitrate_kbps`, `fps`, `gop_s`, `width`, `height`. What must hold between streams is for
    /// [`super::Config::validate`] to say.
    ///
    /// # Errors
    ///
    /// As [`super::Config::from_json`].
    pub fn changed_by(&self, json: &str) -> Result<Self, Error> {
        let document = json::parse(json).map_err(Error::Syntax)?;
        let entry = Entry::root(&document);
        let object = entry.object(&["bitrate_kbps", "fps", "gop_s", "width", "height"])?;
        self.changed(&entry, &object)
    }

    /// This stream with what `object`, which is `entry`'s, says of size, rate and bits.
    fn changed(&self, entry: &Entry<'_>, object: &Object<'_>) -> Result<Self, Error> {
        let size = Size {
            width: object.get("width", self.size.width, read_side)?,
            height: object.get("height", self.size.height, read_side)?,
        };
        if !size.fits() {
            return Err(Error::NotAllowed {
                path: entry.path_in_words(),
                value: size.to_string(),
                allowed: SIZES.into(),
            });
        }
        Ok(Self {
            size,
            fps: object.get("fps", self.fps, |entry| entry.integer(FPS))?,
            bitrate_kbps: object
                .get("bitrate_kbps", self.bitrate_kbps, |entry| entry.integer(BITRATES_KBPS))?,
            gop_s: object.get("gop_s", self.gop_s, |entry| entry.number(GOPS_S))?,
            ..self.clone()
        })
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self::new(StreamName::Main)
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
    let not_allowed = |path: &str, value: String, allowed: &str| {
        Err(Error::NotAllowed { path: path.into(), value, allowed: allowed.into() })
    };
    let quoted = |stream: &Stream| format!("\"{}\"", stream.name);
    let (main, others) = match streams {
        [] => {
            let allowed = "a list of \"main\" and, if you like, \"sub\"";
            return not_allowed("streams", "an empty list".into(), allowed);
        }
        [main, others @ ..] => (main, others),
    };
    if main.name != StreamName::Main {
        let allowed = "\"main\": it is required and comes first";
        return not_allowed("streams[0].name", quoted(main), allowed);
    }
    for (index, stream) in others.iter().enumerate() {
        let path = |key: &str| format!("streams[{}].{key}", index + 1);
        if streams[..=index].iter().any(|earlier| earlier.name == stream.name) {
            return not_allowed(&path("name"), quoted(stream), "a name that no other stream has");
        }
        for (key, value, main) in [
            ("width", stream.size.width, main.size.width),
            ("height", stream.size.height, main.size.height),
            ("fps", stream.fps, main.fps),
        ] {
            if value > main {
                let allowed = format!("at most {main}, as main has");
                return not_allowed(&path(key), value.to_string(), &allowed);
            }
        }
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
