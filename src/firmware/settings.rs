//! Turns the camera's configuration file into the few values that process 1 itself needs.
//!
//! It reads leniently, unlike `config`: a mistake elsewhere in the file must not cost the network
//! over which it can be mended. The camera process is what judges the file.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use serde::Deserialize;

use super::mdns::Announcement;
use crate::config::{self, Config, Error};

/// What process 1 takes from the configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// The file the camera is to read, if there is one.
    pub(super) path: Option<&'static str>,
    /// What people call the camera.
    pub(super) name: String,
    pub(super) hostname: String,
    pub(super) rtsp_port: u16,
    pub(super) dhcp: bool,
    /// Addresses, where DHCP gives none.
    pub(super) fixed: Option<Fixed>,
    pub(super) wifi: Option<config::Wifi>,
    /// Time servers, best first.
    pub(super) ntp: Vec<String>,
}

/// What an interface is given without DHCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fixed {
    pub(super) address: config::InterfaceAddress,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) dns: Vec<IpAddr>,
}

impl Fixed {
    fn of(network: config::Network) -> Option<Self> {
        let config::Network { address, gateway, dns, .. } = network;
        address.map(|address| Self { address, gateway, dns })
    }
}

impl Settings {
    pub(super) fn load() -> Self {
        let path = Some(PATH).filter(|path| Path::new(path).exists());
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
        let network = config::Network::from_json(text).unwrap_or_else(|error| {
            // Without a file there is nothing to complain of.
            if path.is_some() {
                log::error!("firmware: configuration error={error}");
            }
            config::Network::default()
        });
        let hostname = file.network.hostname.filter(|name| is_hostname(name));
        let listen = file.rtsp.listen.iter().flatten().find_map(|address| address.parse().ok());
        Self {
            path,
            name: file.name.unwrap_or_else(|| DEFAULT_HOSTNAME.to_owned()),
            rtsp_port: listen.unwrap_or(RTSP).port(),
            hostname: hostname.unwrap_or_else(|| DEFAULT_HOSTNAME.to_owned()),
            dhcp: file.network.dhcp.unwrap_or(true),
            wifi: network.wifi.clone(),
            fixed: Fixed::of(network),
            ntp: file.time.ntp,
        }
    }

    /// What the neighbours are told.
    pub(super) fn announcement(&self) -> Announcement {
        let (name, hostname) = (self.name.clone(), self.hostname.clone());
        Announcement { name, hostname, port: self.rtsp_port }
    }

    /// Gives the kernel the name.
    pub(super) fn apply_hostname(&self) {
        if let Err(errno) = nix::unistd::sethostname(&self.hostname) {
            log::error!("firmware: host name cannot be set error={errno}");
        }
    }
}

/// Reads a configuration as the firmware does: RTSP and HTTP have their own ports, unless the text says
/// others, and the certificate has its own place.
pub(super) fn parse_config(text: &str) -> Result<Config, Error> {
    let mut config = Config::from_json(text)?;
    let file: File = serde_json::from_str(text).unwrap_or_default();
    if let Some(path) = config.rtsp.tls.certificate {
        return Err(Error::NotAllowed {
            path: "rtsp.tls.certificate".into(),
            value: format!("{:?}", path.display().to_string()),
            allowed: format!("none here; put the certificate and its key into {IDENTITY_GIVEN}"),
        });
    }
    if file.rtsp.listen.is_none() {
        config.rtsp.listen = vec![RTSP];
    }
    // A camera without passwords is for this machine alone.
    if file.rtsp.tls.listen.is_none() && config.auth {
        config.rtsp.tls.listen = vec![RTSPS];
    }
    if file.http.listen.is_none() {
        config.http.listen = vec![HTTP];
    }
    config.validate()?;
    Ok(config)
}

/// The configuration of a camera that nobody has configured: it lets nobody in.
pub(super) fn default_config() -> Config {
    let mut config = Config::default();
    config.rtsp.listen = vec![RTSP];
    config.rtsp.tls.listen = vec![RTSPS];
    config.http.listen = vec![HTTP];
    config
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
    name: Option<String>,
    rtsp: Rtsp,
    http: Http,
    network: Network,
    time: Time,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Http {
    listen: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rtsp {
    listen: Option<Vec<String>>,
    tls: Tls,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tls {
    listen: Option<Vec<String>>,
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

/// Where the configuration of this run lies, for process 1 and for the camera.
pub(super) const PATH: &str = "/run/ocellus.json";
/// Certificate and key of this run, where the camera reads them.
pub(super) const IDENTITY: &str = "/run/ocellus-identity.pem";
/// The same, as a person brings them on the boot partition.
pub(super) const IDENTITY_GIVEN: &str = "identity.pem";
/// RTSP's own port (RFC 2326 3.2), on all addresses of both families.
const RTSP: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 554);
/// RTSP over TLS (IANA, rtsps).
const RTSPS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 322);
/// HTTP's own port (RFC 9110 4.2.1).
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 80);
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
    fn the_announcement_names_the_camera_and_its_first_port() {
        let text = r#"{ "name": "door", "rtsp": { "listen": ["[::]:554", "[::]:8554"] } }"#;
        let announced = Settings::parse(None, text).announcement();
        assert_eq!((announced.name.as_str(), announced.port), ("door", 554));
        let announced = Settings::parse(None, "").announcement();
        assert_eq!((announced.name.as_str(), announced.port), ("ocellus", 554));
    }

    #[test]
    fn a_fixed_address_is_taken_only_from_a_network_part_without_mistakes() {
        let fixed = |key: &str| {
            let network = format!(r#"{{ "dhcp": false, "{key}": "192.0.2.10/24" }}"#);
            let settings =
                Settings::parse(None, &format!(r#"{{ "users": 1, "network": {network} }}"#));
            assert!(!settings.dhcp);
            settings.fixed.map(|fixed| fixed.address.to_string())
        };
        assert_eq!(fixed("address"), Some("192.0.2.10/24".to_owned()));
        assert_eq!(fixed("adress"), None);
    }

    #[test]
    fn rtsp_is_on_its_own_port_unless_the_file_says_another() {
        let listen = |text: &str| parse_config(text).unwrap().rtsp.listen;
        for text in ["{}", r#"{ "rtsp": {} }"#, r#"{ "rtsp": { "max_viewers": 2 } }"#] {
            assert_eq!(listen(text), ["[::]:554".parse().unwrap()], "{text}");
        }
        let said = r#"{ "rtsp": { "listen": ["[::]:8554"] } }"#;
        assert_eq!(listen(said), ["[::]:8554".parse().unwrap()]);
        assert_eq!(default_config(), parse_config("{}").unwrap());
        assert!(default_config().auth && default_config().users.is_empty());
    }

    #[test]
    fn encryption_is_on_its_own_port_unless_the_file_says_otherwise() {
        let listen = |text: &str| parse_config(text).unwrap().rtsp.tls.listen;
        for text in ["{}", r#"{ "rtsp": { "listen": ["[::]:8554"] } }"#] {
            assert_eq!(listen(text), ["[::]:322".parse().unwrap()], "{text}");
        }
        assert!(listen(r#"{ "rtsp": { "tls": { "listen": [] } } }"#).is_empty());
        let open =
            r#"{ "auth": false, "rtsp": { "listen": ["[::1]:554"] }, "http": { "listen": [] } }"#;
        assert!(listen(open).is_empty());
        let own = r#"{ "rtsp": { "tls": { "certificate": "/a", "key": "/a" } } }"#;
        let error = parse_config(own).unwrap_err().to_string();
        assert!(error.contains("rtsp.tls.certificate: \"/a\"") && error.contains(IDENTITY_GIVEN));
    }

    #[test]
    fn http_is_on_its_own_port_unless_the_file_says_otherwise() {
        let listen = |text: &str| parse_config(text).unwrap().http.listen;
        for text in ["{}", r#"{ "http": {} }"#] {
            assert_eq!(listen(text), ["[::]:80".parse().unwrap()], "{text}");
        }
        assert_eq!(default_config().http, parse_config("{}").unwrap().http);
        assert!(listen(r#"{ "http": { "listen": [] } }"#).is_empty());
        let said = r#"{ "http": { "listen": ["[::]:8080"] } }"#;
        assert_eq!(listen(said), ["[::]:8080".parse().unwrap()]);
    }

    #[test]
    fn a_file_that_opens_the_camera_to_strangers_is_refused() {
        for text in [r#"{ "auth": false }"#, r#"{ "auth": false, "rtsp": {} }"#] {
            assert!(matches!(parse_config(text), Err(Error::OpenToStrangers { .. })), "{text}");
        }
    }

    #[test]
    fn a_file_that_says_nothing_usable_gives_the_defaults() {
        let long = format!(r#"{{ "network": {{ "hostname": "{}" }} }}"#, "x".repeat(64));
        for text in ["", "{", "[]", "{}", r#"{ "network": { "hostname": "a b" } }"#, &long] {
            assert_eq!(parse(text), ("ocellus".to_owned(), true), "{text}");
        }
    }
}
