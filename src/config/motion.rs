//! Where motion is looked for in the picture, and how much of it counts.

use serde::Serialize;

use super::Error;
use super::camera::{RECTANGLE_KEYS, Rectangle};
use super::document::is_name;
use super::json::Entry;

/// Whether and where motion is detected.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Motion {
    pub enabled: bool,
    /// None: the whole picture, see [`Motion::watched`].
    pub zones: Vec<Zone>,
    /// Seconds that motion has to last before it is said.
    pub min_duration_s: f64,
    /// Seconds without motion before it is said to be over.
    pub cool_down_s: f64,
}

/// One part of the picture that is watched by itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Zone {
    pub name: String,
    #[serde(flatten)]
    pub area: Rectangle,
    /// From 1, where only much motion counts, to 100.
    pub sensitivity: u32,
}

impl Motion {
    pub(super) fn read(entry: &Entry<'_>) -> Result<Self, Error> {
        let object = entry.object(&["enabled", "zones", "min_duration_s", "cool_down_s"])?;
        let default = Self::default();
        let zones =
            object.get("zones", default.zones, |entry| entry.short_list(ZONES_MAX, Zone::read))?;
        for (index, zone) in zones.iter().enumerate() {
            if zones[..index].iter().any(|earlier| earlier.name == zone.name) {
                return Err(Error::NotAllowed {
                    path: format!("{}.zones[{index}].name", entry.path()),
                    value: format!("{:?}", zone.name),
                    allowed: "a name that no other zone has".into(),
                });
            }
        }
        Ok(Self {
            enabled: object.get("enabled", default.enabled, Entry::boolean)?,
            zones,
            min_duration_s: object.get("min_duration_s", default.min_duration_s, |entry| {
                entry.number(0.0..=MIN_DURATION_MAX_S)
            })?,
            cool_down_s: object.get("cool_down_s", default.cool_down_s, |entry| {
                entry.number(0.0..=COOL_DOWN_MAX_S)
            })?,
        })
    }

    /// The zones, or the whole picture as zone `all` where there are none.
    #[must_use]
    pub fn watched(&self) -> Vec<Zone> {
        if self.zones.is_empty() {
            let (name, area) = ("all".to_owned(), Rectangle::ALL);
            return vec![Zone { name, area, sensitivity: SENSITIVITY }];
        }
        self.zones.clone()
    }
}

impl Default for Motion {
    fn default() -> Self {
        Self { enabled: false, zones: Vec::new(), min_duration_s: 0.0, cool_down_s: 10.0 }
    }
}

impl Zone {
    fn read(entry: &Entry<'_>) -> Result<Self, Error> {
        let [x, y, width, height] = RECTANGLE_KEYS;
        let object = entry.object(&["name", x, y, width, height, "sensitivity"])?;
        let names = "1 to 64 characters, none of them a control character";
        Ok(Self {
            name: object.require("name", names, |entry| entry.text_that(is_name, names))?,
            area: Rectangle::read(entry, &object)?,
            sensitivity: object.get("sensitivity", SENSITIVITY, |entry| entry.integer(1..=100))?,
        })
    }
}

/// Each costs time in every picture.
const ZONES_MAX: usize = 16;
const SENSITIVITY: u32 = 50;
/// Longer than anything moves without a rest.
const MIN_DURATION_MAX_S: f64 = 60.0;
const COOL_DOWN_MAX_S: f64 = 3600.0;

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn motion(keys: &str) -> Result<Motion, String> {
        let config = Config::from_json(&format!(r#"{{ "camera": {{ "motion": {{ {keys} }} }} }}"#));
        config.map(|config| config.camera.motion).map_err(|error| error.to_string())
    }

    #[test]
    fn without_zones_the_whole_picture_is_watched() {
        let all = motion(r#""enabled": true"#).unwrap().watched();
        assert_eq!(all.len(), 1);
        assert_eq!((&*all[0].name, all[0].area, all[0].sensitivity), ("all", Rectangle::ALL, 50));
        let zone = r#"{ "name": "door", "x": 10, "y": 20.5, "width": 30, "height": 40, "sensitivity": 70 }"#;
        let read = motion(&format!(r#""zones": [{zone}]"#)).unwrap();
        let area = Rectangle { x: 10.0, y: 20.5, width: 30.0, height: 40.0 };
        let wanted = Zone { name: "door".into(), area, sensitivity: 70 };
        assert_eq!(read.zones, [wanted]);
        assert_eq!(read.watched(), read.zones);
    }

    #[test]
    fn what_is_wrong_with_a_zone_is_named_with_its_path() {
        let area = r#""x": 0, "y": 0, "width": 50, "height": 50"#;
        for (zones, start) in [
            (format!("{{ {area} }}"), "camera.motion.zones[0].name: missing"),
            (format!(r#"{{ "name": "", {area} }}"#), r#"camera.motion.zones[0].name: "" is not"#),
            (
                format!(r#"{{ "name": "a", {area}, "sensitivity": 0 }}"#),
                "camera.motion.zones[0].sensitivity: 0 is not",
            ),
            (
                format!(r#"{{ "name": "a", {area}, "sensitivity": 101 }}"#),
                "camera.motion.zones[0].sensitivity: 101 is not",
            ),
            (
                format!(r#"{{ "name": "a", {area} }}, {{ "name": "a", {area} }}"#),
                r#"camera.motion.zones[1].name: "a" is not allowed; allowed is a name that no"#,
            ),
            (
                r#"{ "name": "a", "x": 60, "y": 0, "width": 50, "height": 50 }"#.into(),
                "camera.motion.zones[0]: 50 x 50 at 60, 0 is not",
            ),
            (r#"{ "name": "a" }"#.into(), "camera.motion.zones[0].x: missing"),
        ] {
            let message = motion(&format!(r#""zones": [{zones}]"#)).unwrap_err();
            assert!(message.starts_with(start), "{message}");
        }
        for (keys, start) in [
            (r#""min_duration_s": -0.1"#, "camera.motion.min_duration_s: -0.1 is not"),
            (r#""min_duration_s": 61"#, "camera.motion.min_duration_s: 61 is not"),
            (r#""cool_down_s": 3601"#, "camera.motion.cool_down_s: 3601 is not"),
            (
                r#""cooldown_s": 1"#,
                "camera.motion.cooldown_s: unknown key; the nearest known key is camera.motion.cool_down_s",
            ),
            (r#""enabled": 1"#, "camera.motion.enabled: 1 is not"),
        ] {
            let message = motion(keys).unwrap_err();
            assert!(message.starts_with(start), "{message}");
        }
        let many = |count: usize| {
            let zones: Vec<_> =
                (0..count).map(|n| format!(r#"{{ "name": "{n}", {area} }}"#)).collect();
            motion(&format!(r#""zones": [{}]"#, zones.join(",")))
        };
        assert_eq!(many(16).unwrap().zones.len(), 16);
        assert!(many(17).unwrap_err().starts_with("camera.motion.zones: a list of 17 is not"));
    }
}
