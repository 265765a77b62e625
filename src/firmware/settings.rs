//! Turns the camera's configuration file into the few values that process 1 itself needs.
//!
//! It reads leniently, unlike `config`: a mistake elsewhere in the file must not cost the network
//! over which it can be mended. The camera process is what judges the file.

use std::fs;
use std::path::Path;

use serde::Deserialize;

/// What process 1 takes from the configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// The file the camera is to read, if there is one.
    pub(super) path: Option<&'static str>,
    pub(super) hostname: String,
    pub(super) dhcp: bool,
    /// Time servers, best first.
    pub(super) ntp: Vec<String>,
}

impl Settings {
    pub(super) fn load() -> Self {
        let path = PATHS.iter().copied().find(|path| Path::new(path).exists());
        let text = path.map(fs::read_to_string).transpose().unwrap_or_else(|error| {
            log::error!("firmware: configuration cannot be read error={error}");
            None
        });
        let settings = Self::parse(path, &text.unwrap_or_default());
        log::info!("firmware: configuration path={}", path.unwrap_or("none"));
        settings
    }

    fn parse(path: Option<&'static str>, text: &str) -> Self {
        let file: File = serde_json::from_str(text).unwrap_or_default();
        let hostname = file.network.hostname.filter(|name| is_hostname(name));
        Self {
            path,
            hostname: hostname.unwrap_or_else(|| DEFAULT_HOSTNAME.to_owned()),
            dhcp: file.network.dhcp.unwrap_or(true),
            ntp: file.time.ntp,
        }
    }

    /// Gives the kernel the name.
    pub(super) fn apply_hostname(&self) {
        if let Err(errno) = nix::unistd::sethostname(&self.hostname) {
            log::error!("firmware: host name cannot be set error={errno}");
        }
    }
}

/// One label of a domain name (RFC 1123 2.1).
fn is_hostname(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    network: Network,
    time: Time,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Network {
    hostname: Option<String>,
    dhcp: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Time {
    ntp: Vec<String>,
}

/// The device's own configuration, then what the image brought.
const PATHS: [&str; 2] = ["/data/ocellus.json", "/etc/ocellus.json"];
const DEFAULT_HOSTNAME: &str = "ocellus";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, bool) {
        let settings = Settings::parse(None, text);
        (settings.hostname, settings.dhcp)
    }

    #[test]
    fn the_network_part_is_read_and_the_rest_left_to_the_camera() {
        let text =
            r#"{ "streams": "what?", "network": { "hostname": "gate", "dhcp": false, "x": 1 } }"#;
        assert_eq!(parse(text), ("gate".to_owned(), false));
    }

    #[test]
    fn a_file_that_says_nothing_usable_gives_the_defaults() {
        let long = format!(r#"{{ "network": {{ "hostname": "{}" }} }}"#, "x".repeat(64));
        for text in ["", "{", "[]", "{}", r#"{ "network": { "hostname": "a b" } }"#, &long] {
            assert_eq!(parse(text), ("ocellus".to_owned(), true), "{text}");
        }
    }
}
