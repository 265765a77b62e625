//! Whether streams may be asked for by multicast, and which groups they go to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::json::Entry;
use super::{Error, NotAllowed};

/// The groups of the camera. Nothing is sent to them before somebody asks for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Multicast {
    pub enabled: bool,
    /// Of the main stream; each further stream has the next address and the next even port.
    /// `None`: one for each family, made from the hardware address, so that cameras do not meet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<IpAddr>,
    /// RTP's, an even one; RTCP's is the next.
    pub port: u16,
    /// 1: not past the first router. Who routes multicast knows how far it is to go.
    pub ttl: u8,
    /// RFC 4607: viewers join for this camera alone, for which their network needs IGMPv3 or MLDv2.
    pub source_specific: bool,
}

impl Multicast {
    pub(super) fn read(entry: &Entry<'_>) -> Result<Self, Error> {
        let object = entry.object(&["enabled", "group", "port", "ttl", "source_specific"])?;
        let default = Self::default();
        let port = |entry: &Entry<'_>| match entry.integer(2..=65_534)? {
            port if port.is_multiple_of(2) => Ok(u16::try_from(port).unwrap_or(default.port)),
            _ => Err(entry.not_allowed("an even number from 2 to 65534")),
        };
        let ttl = |entry: &Entry<'_>| Ok(u8::try_from(entry.integer(1..=255)?).unwrap_or(1));
        Ok(Self {
            enabled: object.get("enabled", default.enabled, Entry::boolean)?,
            group: object.get("group", None, |entry| Ok(Some(entry.parsed_by(parse_group)?)))?,
            port: object.get("port", default.port, port)?,
            ttl: object.get("ttl", default.ttl, ttl)?,
            source_specific: object.get(
                "source_specific",
                default.source_specific,
                Entry::boolean,
            )?,
        })
    }
}

impl Default for Multicast {
    fn default() -> Self {
        // RFC 3551 8: the port that is registered for RTP.
        Self { enabled: true, group: None, port: 5004, ttl: 1, source_specific: false }
    }
}

fn parse_group(text: &str) -> Result<IpAddr, NotAllowed> {
    let is_usable = |address: &IpAddr| match address {
        IpAddr::V4(address) => is_usable_v4(*address),
        IpAddr::V6(address) => is_usable_v6(*address),
    };
    text.parse().ok().filter(is_usable).ok_or(NotAllowed(
        "a multicast address that is not reserved, like 239.255.12.34 or ff15::1234",
    ))
}

/// 224.0.0.0/24 is for routing protocols (RFC 5771 4), and never leaves the link.
fn is_usable_v4(address: Ipv4Addr) -> bool {
    address.is_multicast() && !matches!(address.octets(), [224, 0, 0, _])
}

/// Scopes from the link on; flags for groups that nobody has assigned (RFC 4291 2.7): well-known
/// ones belong to protocols.
fn is_usable_v6(address: Ipv6Addr) -> bool {
    let [first, ..] = address.segments();
    let (flags, scope) = (first >> 4 & 0xf, first & 0xf);
    address.is_multicast() && flags & 1 == 1 && (2..=14).contains(&scope)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn read(multicast: &str) -> Result<Config, String> {
        let text = format!(r#"{{ "rtsp": {{ "multicast": {multicast} }} }}"#);
        Config::from_json(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_comes_back() {
        for group in ["224.0.1.0", "232.1.2.3", "239.255.255.255", "ff15::1", "ff3e::8000:1"] {
            let config = read(&format!(
                r#"{{ "enabled": false, "group": "{group}", "port": 65534, "ttl": 255,
                      "source_specific": true }}"#
            ));
            let config = config.unwrap();
            let multicast = &config.rtsp.multicast;
            assert_eq!(multicast.group.unwrap().to_string(), group);
            assert_eq!((multicast.port, multicast.ttl, multicast.enabled), (65_534, 255, false));
            assert!(multicast.source_specific);
            assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
        }
        assert_eq!(read("{}").unwrap(), Config::default());
    }

    #[test]
    fn what_is_no_group_and_what_is_somebodys_is_refused_in_words() {
        for group in [
            "192.0.2.1",
            "224.0.0.1",
            "224.0.0.255",
            "240.0.0.1",
            "::1",
            "fe80::1",
            "ff02::1",
            "ff05::2",
            "ff11::1",
            "ff1f::1",
            "ff15::1%2",
            "239.255.1.2/16",
            "group",
            "",
        ] {
            assert_eq!(
                read(&format!(r#"{{ "group": "{group}" }}"#)).unwrap_err(),
                format!(
                    "rtsp.multicast.group: \"{group}\" is not allowed; allowed is a multicast \
                     address that is not reserved, like 239.255.12.34 or ff15::1234"
                )
            );
        }
        for (text, message) in [
            (
                r#"{ "port": 5005 }"#,
                "rtsp.multicast.port: 5005 is not allowed; allowed is an even number from 2 to 65534",
            ),
            (
                r#"{ "ttl": 0 }"#,
                "rtsp.multicast.ttl: 0 is not allowed; allowed is a whole number from 1 to 255",
            ),
            (
                r#"{ "groups": "239.255.1.1" }"#,
                "rtsp.multicast.groups: unknown key; the nearest known key is rtsp.multicast.group",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), message);
        }
        for port in [0, 1, 65_535, 65_536] {
            assert!(read(&format!(r#"{{ "port": {port} }}"#)).is_err(), "{port}");
        }
    }
}
