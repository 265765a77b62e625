//! Where the pictures come from, and what is done with each before it is encoded.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::json::{self, Entry};
use super::{Error, Motion, NotAllowed, Source};

/// The source of the pictures and the picture pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Camera {
    #[serde(serialize_with = "json::as_text")]
    pub source: Source,
    #[serde(serialize_with = "json::as_text")]
    pub format: Format,
    /// Degrees: 0 or 180.
    pub rotate: u32,
    /// Whether left and right change places, after the rotation.
    pub mirror: bool,
    /// Values for the device's controls, by V4L2's names as v4l2-ctl(1) spells them: small letters,
    /// digits, and one `_` for whatever else there is between them.
    pub controls: BTreeMap<String, i64>,
    pub overlay: Overlay,
    /// What nobody is to see.
    pub masks: Vec<Rectangle>,
    pub motion: Motion,
}

/// How a V4L2 device is to deliver pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The best that the device offers.
    #[default]
    Auto,
    /// This one, by V4L2's four characters.
    FourCc([u8; 4]),
}

/// What is written on the pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overlay {
    /// Date and time, in `time.zone`.
    pub time: bool,
    /// The camera's name.
    pub name: bool,
}

/// A part of the picture, in per cent of its width and height, from the left upper corner.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rectangle {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Camera {
    pub(super) fn read(entry: &Entry<'_>) -> Result<Self, Error> {
        let object = entry.object(&[
            "source", "format", "rotate", "mirror", "controls", "overlay", "masks", "motion",
        ])?;
        let default = Self::default();
        let mask = |entry: &Entry<'_>| {
            let rectangle = entry.object(&RECTANGLE_KEYS)?;
            Rectangle::read(entry, &rectangle)
        };
        Ok(Self {
            source: object.get("source", default.source, Entry::parsed)?,
            format: object.get("format", default.format, Entry::parsed)?,
            rotate: object.get("rotate", default.rotate, read_rotation)?,
            mirror: object.get("mirror", default.mirror, Entry::boolean)?,
            controls: object.get("controls", default.controls, read_controls)?,
            overlay: object.get("overlay", default.overlay, Overlay::read)?,
            masks: object.get("masks", default.masks, |entry| entry.short_list(MASKS_MAX, mask))?,
            motion: object.get("motion", default.motion, Motion::read)?,
        })
    }
}

impl FromStr for Format {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let four = <[u8; 4]>::try_from(text.as_bytes()).ok();
        // Names shorter than four characters end in spaces: "Y16 ".
        let four = four
            .filter(|four| four[0] != b' ' && four.iter().all(|byte| (b' '..=b'~').contains(byte)));
        four.map(Self::FourCc).ok_or(NotAllowed(FORMATS))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::FourCc(four) => four.iter().try_for_each(|&byte| write!(f, "{}", byte as char)),
        }
    }
}

impl Overlay {
    fn read(entry: &Entry<'_>) -> Result<Self, Error> {
        let object = entry.object(&["time", "name"])?;
        Ok(Self {
            time: object.get("time", false, Entry::boolean)?,
            name: object.get("name", false, Entry::boolean)?,
        })
    }
}

impl Rectangle {
    /// The whole picture.
    pub const ALL: Self = Self { x: 0.0, y: 0.0, width: 100.0, height: 100.0 };

    /// Reads the four keys of `object`, which is `entry`'s.
    pub(super) fn read(entry: &Entry<'_>, object: &json::Object<'_>) -> Result<Self, Error> {
        let side = |key| {
            object.require(key, "a number of per cent from 0 to 100", |entry| {
                entry.number(0.0..=100.0)
            })
        };
        let [x, y, width, height] = [side("x")?, side("y")?, side("width")?, side("height")?];
        let is_inside = x + width <= 100.0 + ROUNDING && y + height <= 100.0 + ROUNDING;
        if is_inside && width > 0.0 && height > 0.0 {
            return Ok(Self { x, y, width, height });
        }
        Err(Error::NotAllowed {
            path: entry.path().to_owned(),
            value: format!("{width} x {height} at {x}, {y}"),
            allowed: "a part of the picture that is not empty: x + width and y + height are at \
                      most 100"
                .into(),
        })
    }

    /// `x`, `y`, `width` and `height` as shares of the picture, from 0 to 1.
    #[must_use]
    pub fn shares(self) -> [f64; 4] {
        let [x, y] = [self.x / 100.0, self.y / 100.0];
        [x, y, (self.width / 100.0).min(1.0 - x), (self.height / 100.0).min(1.0 - y)]
    }
}

fn read_rotation(entry: &Entry<'_>) -> Result<u32, Error> {
    let degrees = entry.integer(0..=180).ok().filter(|degrees| [0, 180].contains(degrees));
    degrees.ok_or_else(|| entry.not_allowed("0 or 180"))
}

fn read_controls(entry: &Entry<'_>) -> Result<BTreeMap<String, i64>, Error> {
    let controls = entry.map(is_control, CONTROLS, Entry::whole)?;
    if controls.len() > CONTROLS_MAX {
        return Err(Error::NotAllowed {
            path: entry.path().to_owned(),
            value: format!("an object of {}", controls.len()),
            allowed: format!("an object of at most {CONTROLS_MAX}"),
        });
    }
    Ok(controls)
}

fn is_control(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(is_part)
}

pub(super) const RECTANGLE_KEYS: [&str; 4] = ["x", "y", "width", "height"];
const FORMATS: &str = "auto, or V4L2's four characters of a format, like YUYV, NV12, YU12, MJPG \
                       or H264";
const CONTROLS: &str = "a control's name of small letters, digits and _, like \"brightness\"";
/// Devices have some thirty.
const CONTROLS_MAX: usize = 64;
/// Each costs time in every picture.
const MASKS_MAX: usize = 16;
/// In per cent: decimals like 33.3 + 66.7 may add up to a hair more than 100.
const ROUNDING: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn camera(keys: &str) -> Result<Camera, String> {
        let config = Config::from_json(&format!(r#"{{ "camera": {{ {keys} }} }}"#));
        config.map(|config| config.camera).map_err(|error| error.to_string())
    }

    #[test]
    fn formats_survive_the_way_to_text_and_back() {
        for text in ["auto", "YUYV", "NV12", "YU12", "MJPG", "H264", "Y16 "] {
            assert_eq!(text.parse::<Format>().unwrap().to_string(), text);
        }
        for text in ["", "YUY", "YUYV2", "Auto0", " YUY", "YU\tV", "ÄÖ3"] {
            assert!(text.parse::<Format>().is_err(), "{text:?}");
        }
        let message = camera(r#""format": "yuv""#).unwrap_err();
        assert!(message.starts_with(r#"camera.format: "yuv" is not allowed"#), "{message}");
    }

    #[test]
    fn pictures_are_turned_by_nothing_or_a_half() {
        assert_eq!(camera(r#""rotate": 180, "mirror": true"#).unwrap().rotate, 180);
        for degrees in ["90", "270", "360", "-180", "180.5", "\"180\""] {
            let message = camera(&format!(r#""rotate": {degrees}"#)).unwrap_err();
            let wanted = format!("camera.rotate: {degrees} is not allowed; allowed is 0 or 180");
            assert_eq!(message, wanted);
        }
        let message = camera(r#""mirror": 1"#).unwrap_err();
        assert_eq!(message, "camera.mirror: 1 is not allowed; allowed is true or false");
    }

    #[test]
    fn controls_are_names_with_whole_numbers() {
        let read = camera(r#""controls": { "brightness": -12, "gain_2": 9000000000 }"#).unwrap();
        let wanted = [("brightness".to_owned(), -12), ("gain_2".to_owned(), 9_000_000_000)];
        assert_eq!(read.controls, BTreeMap::from(wanted));
        for (control, start) in [
            (r#""Brightness": 1"#, r#"camera.controls: "Brightness" is not allowed"#),
            (r#""": 1"#, r#"camera.controls: "" is not allowed"#),
            (r#""a b": 1"#, r#"camera.controls: "a b" is not allowed"#),
            (r#""gain": 1.5"#, "camera.controls.gain: 1.5 is not allowed"),
            (r#""gain": "1""#, r#"camera.controls.gain: "1" is not allowed"#),
        ] {
            let message = camera(&format!(r#""controls": {{ {control} }}"#)).unwrap_err();
            assert!(message.starts_with(start), "{message}");
        }
        let many = |count: usize| {
            let controls: Vec<_> = (0..count).map(|n| format!("\"c{n}\": 0")).collect();
            camera(&format!(r#""controls": {{ {} }}"#, controls.join(",")))
        };
        assert_eq!(many(64).unwrap().controls.len(), 64);
        assert!(many(65).unwrap_err().contains("an object of at most 64"));
        assert!(camera(r#""controls": []"#).unwrap_err().contains("an object, in braces"));
    }

    #[test]
    fn masks_are_inside_the_picture_and_not_empty() {
        let mask = |x: f64, y: f64, width: f64, height: f64| {
            camera(&format!(
                r#""masks": [{{ "x": {x}, "y": {y}, "width": {width}, "height": {height} }}]"#
            ))
        };
        let read = mask(33.3, 0.0, 66.7, 0.5).unwrap().masks;
        assert_eq!(read, [Rectangle { x: 33.3, y: 0.0, width: 66.7, height: 0.5 }]);
        assert_eq!(mask(0.0, 0.0, 100.0, 100.0).unwrap().masks, [Rectangle::ALL]);
        for [x, y, width, height] in [
            [50.0, 0.0, 50.1, 1.0],
            [0.0, 99.0, 1.0, 1.1],
            [0.0, 0.0, 0.0, 1.0],
            [1.0, 1.0, 1.0, 0.0],
        ] {
            let message = mask(x, y, width, height).unwrap_err();
            assert!(message.starts_with("camera.masks[0]: "), "{message}");
            assert!(message.contains("not empty"), "{message}");
        }
        let message = mask(-1.0, 0.0, 2.0, 2.0).unwrap_err();
        assert!(message.starts_with("camera.masks[0].x: -1 is not allowed"), "{message}");
        let message = camera(r#""masks": [{ "x": 1, "y": 1, "width": 5 }]"#).unwrap_err();
        assert!(message.starts_with("camera.masks[0].height: missing"), "{message}");
        let one = r#"{ "x": 1, "y": 1, "width": 5, "height": 5 }"#;
        let many =
            |count: usize| camera(&format!(r#""masks": [{}]"#, [one].repeat(count).join(",")));
        assert_eq!(many(16).unwrap().masks.len(), 16);
        assert!(many(17).unwrap_err().starts_with("camera.masks: a list of 17 is not allowed"));
    }

    #[test]
    fn shares_never_leave_the_picture() {
        for tenth in 0..1_000 {
            let x = f64::from(tenth) / 10.0;
            let rectangle = Rectangle { x, y: x, width: 100.0 - x, height: 0.1 };
            let [x, y, width, height] = rectangle.shares();
            assert!(x + width <= 1.0 && y + height <= 1.0 && width > 0.0, "{rectangle:?}");
        }
    }
}
