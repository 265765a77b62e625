//! What differs between two configurations, and what a running camera has to do about it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Camera, Config, Error};

/// What it takes for a changed key to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Impact {
    /// Nothing: the next picture has it.
    Live,
    /// New parameter sets, and so an IDR picture.
    Idr,
    /// The source has to be opened again.
    Reopen,
    /// A new start of the camera.
    Restart,
}

/// A configuration of which one stream was changed while it runs.
#[derive(Clone, Debug)]
pub struct Change {
    /// All of it, valid.
    pub config: Config,
    /// Index of the stream.
    pub stream: usize,
    /// The greatest of all changed keys; [`Impact::Live`] when there is none.
    pub impact: Impact,
}

/// The paths of the keys that differ, and what each takes. A list is one key, but for `streams`
/// of the same number.
#[must_use]
pub fn difference(old: &Config, new: &Config) -> Vec<(String, Impact)> {
    let values = [old, new].map(|config| serde_json::to_value(config).unwrap_or_default());
    let mut paths = BTreeSet::new();
    walk("", &values[0], &values[1], &mut paths);
    let impact = |path: String| {
        let impact = impact_of(&path).unwrap_or(Impact::Restart);
        (path, impact)
    };
    paths.into_iter().map(impact).collect()
}

impl Config {
    /// This configuration with those keys of a stream that `json` has, as
    /// [`super::Stream::changed_by`] reads them; `None` when there is no such stream.
    ///
    /// # Errors
    ///
    /// The inner: as [`Config::from_json`].
    #[must_use]
    pub fn change(&self, stream: &str, json: &str) -> Option<Result<Change, Error>> {
        let index = self.streams.iter().position(|it| it.name.to_string() == stream)?;
        let changed = self.streams.get(index)?.changed_by(json);
        Some(changed.and_then(|changed| {
            let mut config = self.clone();
            if let Some(stream) = config.streams.get_mut(index) {
                *stream = changed;
            }
            config.validate()?;
            let impacts = difference(self, &config).into_iter().map(|(_, impact)| impact);
            let impact = impacts.max().unwrap_or(Impact::Live);
            Ok(Change { config, stream: index, impact })
        }))
    }

    /// The streams as JSON, with all their keys.
    #[must_use]
    pub fn streams_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.streams).unwrap_or_default();
        text.push('\n');
        text
    }
}

impl Config {
    /// Takes from `new` all that needs no restart, and leaves the rest as it is.
    pub fn adopt(&mut self, new: &Self) {
        let Camera { source, format, motion, .. } = &self.camera;
        let (source, format, zones) = (source.clone(), *format, motion.zones.clone());
        self.camera = Camera { source, format, ..new.camera.clone() };
        self.camera.motion.zones = zones;
        self.time.zone = new.time.zone.clone();
        let names = |config: &Self| config.streams.iter().map(|it| it.name).collect::<Vec<_>>();
        if names(self) == names(new) {
            self.streams.clone_from(&new.streams);
        }
    }
}

impl Change {
    /// What holds now and how it came to, as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let stream = serde_json::to_value(self.config.streams.get(self.stream));
        let answer = serde_json::json!({
            "stream": stream.unwrap_or_default(),
            "applied": self.impact.word(),
            "holds_until": "the next start",
        });
        format!("{answer:#}\n")
    }
}

impl Impact {
    /// For logs and answers.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Idr => "idr",
            Self::Reopen => "reopen",
            Self::Restart => "restart",
        }
    }
}

/// Collects the paths under which the two differ.
fn walk(path: &str, old: &Value, new: &Value, into: &mut BTreeSet<String>) {
    match (old, new) {
        // The names in it are the author's: it is one key, as a list is.
        (Value::Object(old), Value::Object(new)) if path != "camera.controls" => {
            members(path, old, new, into);
        }
        (Value::Array(old), Value::Array(new)) if path == "streams" && old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                walk(&format!("{path}[{index}]"), old, new, into);
            }
        }
        _ if old != new => drop(into.insert(path.to_owned())),
        _ => {}
    }
}

fn members(
    path: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    into: &mut BTreeSet<String>,
) {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let of = |members: &Map<String, Value>| members.get(key).cloned().unwrap_or_default();
        walk(&path, &of(old), &of(new), into);
    }
}

/// `None` for a key that nobody has thought of.
fn impact_of(path: &str) -> Option<Impact> {
    let key = match path.strip_prefix("streams[") {
        Some(rest) => &format!("streams.{}", rest.split_once("].")?.1),
        None => path,
    };
    Some(match key {
        // Another kind of source makes other threads.
        "camera.source" | "camera.format" => Impact::Restart,
        "camera.controls" => Impact::Reopen,
        "camera.rotate"
        | "camera.mirror"
        | "camera.overlay.time"
        | "camera.overlay.name"
        | "camera.masks"
        | "camera.motion.enabled"
        | "camera.motion.min_duration_s"
        | "camera.motion.cool_down_s" => Impact::Live,
        // The counters have the zones' names.
        "camera.motion.zones" => Impact::Restart,
        "streams.fps" | "streams.bitrate_kbps" | "streams.gop_s" | "streams.utc_sei" => {
            Impact::Live
        }
        // Main's size is the camera's.
        "streams.width" | "streams.height" if path.starts_with("streams[0]") => Impact::Reopen,
        "streams.width" | "streams.height" | "streams.encoder" => Impact::Idr,
        "time.zone" => Impact::Live,
        // Descriptions, rings and sockets are made at the start.
        "name" | "streams" | "streams.name" | "auth" | "users" | "time.ntp" => Impact::Restart,
        _ if ["rtsp.", "http.", "network."].iter().any(|start| key.starts_with(start)) => {
            Impact::Restart
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_adopted_is_all_that_needs_no_restart() {
        let [old, new] = all_keys();
        let mut adopted = old.clone();
        adopted.adopt(&new);
        let all = difference(&old, &new);
        let (left, taken) = (difference(&adopted, &new), difference(&old, &adopted));
        assert!(left.iter().all(|(_, impact)| *impact == Impact::Restart), "{left:?}");
        assert!(taken.iter().all(|(_, impact)| *impact != Impact::Restart), "{taken:?}");
        assert_eq!(left.len() + taken.len(), all.len());
        assert!(adopted.validate().is_ok());
    }

    const SUB: &str = r#"{ "streams": [{ "name": "main" }, { "name": "sub" }] }"#;

    /// A configuration with every key, and one in which every key has another value.
    fn all_keys() -> [Config; 2] {
        let one = r#"{ "streams": [{ "name": "main" }, { "name": "sub" }],
            "network": { "dhcp": false, "address": "192.0.2.2/24", "gateway": "192.0.2.1",
              "dns": ["192.0.2.1"], "wifi": { "ssid": "a", "psk": "12345678", "country": "DE" } },
            "rtsp": { "multicast": { "group": "239.1.1.1" },
              "tls": { "certificate": "/a", "key": "/b" } } }"#;
        let other = r#"{ "name": "x",
            "camera": { "source": "pattern", "format": "YUYV", "rotate": 180, "mirror": true,
              "controls": { "gain": 1 }, "overlay": { "time": true, "name": true },
              "masks": [{ "x": 0, "y": 0, "width": 1, "height": 1 }],
              "motion": { "enabled": true, "min_duration_s": 1, "cool_down_s": 1, "zones":
                [{ "name": "a", "x": 0, "y": 0, "width": 1, "height": 1 }] } },
            "streams": [
              { "name": "main", "width": 640, "height": 480, "fps": 20, "bitrate_kbps": 500,
                "gop_s": 2, "encoder": "m2m", "utc_sei": true },
              { "name": "sub", "width": 320, "height": 240, "fps": 5, "bitrate_kbps": 100,
                "gop_s": 2, "encoder": "openh264", "utc_sei": true }],
            "rtsp": { "listen": ["[::]:1"], "udp_ports": "9000-9001", "packet_size": 1000,
              "max_viewers": 5, "max_per_address": 3, "dscp": 1,
              "multicast": { "enabled": false, "group": "239.1.1.2", "port": 5006, "ttl": 2,
                "source_specific": true },
              "tls": { "listen": ["[::]:2"], "certificate": "/c", "key": "/d" } },
            "http": { "listen": [] },
            "users": [{ "name": "a", "role": "admin", "password": "p" }],
            "network": { "hostname": "y" },
            "time": { "ntp": ["a"], "zone": "UTC0" } }"#;
        [one, other].map(|text| Config::from_json(text).unwrap())
    }

    /// The paths of all values, by the rules of [`walk`].
    fn leaves(path: &str, value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) if path != "camera.controls" => {
                for (key, value) in members {
                    let dot = if path.is_empty() { "" } else { "." };
                    leaves(&format!("{path}{dot}{key}"), value, into);
                }
            }
            Value::Array(elements) if path == "streams" => {
                for (index, value) in elements.iter().enumerate() {
                    leaves(&format!("{path}[{index}]"), value, into);
                }
            }
            _ => drop(into.insert(path.to_owned())),
        }
    }

    #[test]
    fn every_key_has_an_impact_that_somebody_chose() {
        let mut all = BTreeSet::new();
        for config in all_keys() {
            leaves("", &serde_json::to_value(config).unwrap(), &mut all);
        }
        assert!(all.len() > 50, "{all:#?}");
        let forgotten: Vec<_> = all.iter().filter(|path| impact_of(path).is_none()).collect();
        assert!(forgotten.is_empty(), "{forgotten:?}");
        assert_eq!(impact_of("camera.new_key"), None);
        assert_eq!(impact_of("streams[0].new_key"), None);
    }

    #[test]
    fn every_key_that_differs_is_found() {
        let [one, other] = all_keys();
        let mut all = BTreeSet::new();
        for config in [&one, &other] {
            leaves("", &serde_json::to_value(config).unwrap(), &mut all);
        }
        let found: BTreeSet<String> =
            difference(&one, &other).into_iter().map(|(path, _)| path).collect();
        // The names of streams cannot differ in lists of the same length; `auth: false` needs
        // loopback.
        let mut missing: Vec<_> = all
            .iter()
            .filter(|path| {
                !found.iter().any(|it| it == *path || path.starts_with(&format!("{it}.")))
            })
            .collect();
        missing.retain(|path| !["streams[0].name", "streams[1].name", "auth"].contains(&&***path));
        assert!(missing.is_empty(), "{missing:?}");
        assert!(difference(&one, &one).is_empty());
    }

    #[test]
    fn each_kind_of_change_says_what_it_takes() {
        let impact = |text: &str| difference(&Config::default(), &Config::from_json(text).unwrap());
        for (text, path, wanted) in [
            (r#"{ "camera": { "source": "pattern" } }"#, "camera.source", Impact::Restart),
            (r#"{ "camera": { "format": "NV12" } }"#, "camera.format", Impact::Restart),
            (r#"{ "camera": { "controls": { "gain": 1 } } }"#, "camera.controls", Impact::Reopen),
            (r#"{ "camera": { "mirror": true } }"#, "camera.mirror", Impact::Live),
            (
                r#"{ "camera": { "overlay": { "time": true } } }"#,
                "camera.overlay.time",
                Impact::Live,
            ),
            (r#"{ "streams": [{ "name": "main", "fps": 10 }] }"#, "streams[0].fps", Impact::Live),
            (
                r#"{ "streams": [{ "name": "main", "width": 640 }] }"#,
                "streams[0].width",
                Impact::Reopen,
            ),
            (
                r#"{ "streams": [{ "name": "main", "encoder": "m2m" }] }"#,
                "streams[0].encoder",
                Impact::Idr,
            ),
            (SUB, "streams", Impact::Restart),
            (r#"{ "time": { "zone": "CET-1" } }"#, "time.zone", Impact::Live),
            (r#"{ "rtsp": { "dscp": 1 } }"#, "rtsp.dscp", Impact::Restart),
            (r#"{ "name": "x" }"#, "name", Impact::Restart),
        ] {
            assert_eq!(impact(text), [(path.to_owned(), wanted)]);
        }
        let user = r#"{ "users": [{ "name": "a", "role": "admin", "password": "tr0ub4dor" }] }"#;
        assert_eq!(format!("{:?}", impact(user)), r#"[("users", Restart)]"#);
    }

    #[test]
    fn a_running_stream_takes_what_it_can_change_and_nothing_else() {
        let config = Config::from_json(SUB).unwrap();
        let change = config.change("sub", r#"{ "fps": 5, "bitrate_kbps": 100 }"#).unwrap().unwrap();
        assert_eq!((change.stream, change.impact), (1, Impact::Live));
        let sub = &change.config.streams[1];
        assert_eq!((sub.fps, sub.bitrate_kbps, sub.gop_s, sub.size.width), (5, 100, 1.0, 640));
        let answer: Value = serde_json::from_str(&change.to_json()).unwrap();
        assert_eq!(answer["stream"]["bitrate_kbps"], 100);
        assert_eq!(
            (&answer["applied"], &answer["holds_until"]),
            (&"live".into(), &"the next start".into())
        );
        let change = config.change("main", r#"{ "width": 1920, "gop_s": 2 }"#).unwrap().unwrap();
        assert_eq!((change.stream, change.impact), (0, Impact::Reopen));
        assert_eq!(config.change("main", "{}").unwrap().unwrap().impact, Impact::Live);
        assert!(config.change("third", "{}").is_none());
        assert!(Config::default().change("sub", "{}").is_none());
        for (stream, json, start) in [
            ("main", r#"{ "fps": 61 }"#, "fps: 61 is not allowed; allowed is a whole number"),
            ("main", r#"{ "width": 3840, "height": 3840 }"#, "the document: 3840x3840 is not"),
            (
                "main",
                r#"{ "bitrate": 5 }"#,
                "bitrate: unknown key; the nearest known key is bitrate_kbps",
            ),
            ("main", r#"{ "encoder": "m2m" }"#, "encoder: unknown key"),
            ("main", r#"{ "fps": 5 }"#, "streams[1].fps: 10 is not allowed; allowed is at most 5"),
            ("sub", r#"{ "width": 1920 }"#, "streams[1].width: 1920 is not allowed; allowed is at"),
            ("main", "[]", "the document: a list is not allowed"),
            ("main", "{", "not JSON"),
            ("main", r#"{ "fps": 5, "fps": 6 }"#, "not JSON: the key \"fps\" is there twice"),
        ] {
            let message = config.change(stream, json).unwrap().unwrap_err().to_string();
            assert!(message.starts_with(start), "{message}");
        }
    }

    #[test]
    fn the_streams_in_json_are_those_of_the_configuration() {
        let config = Config::from_json(SUB).unwrap();
        let text = format!(r#"{{ "streams": {} }}"#, config.streams_json());
        assert_eq!(Config::from_json(&text).unwrap(), config);
    }
}
