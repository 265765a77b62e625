//! How the camera is reached: its name and its addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::Serialize;

use super::json::{self, Entry};
use super::{Error, NotAllowed, Wifi};

/// What the firmware does with the network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Network {
    /// One label of a host name (RFC 1123 2.1).
    pub hostname: String,
    /// Whether to ask for an IPv4 address, with a link-local one as the fallback.
    pub dhcp: bool,
    /// The IPv4 address where `dhcp` is false; with neither there is only IPv6.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_text")]
    pub address: Option<InterfaceAddress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// Name servers, best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// The wireless network to join, where there is a wireless interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wifi: Option<Wifi>,
}

/// An address and how much of it is the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    pub address: Ipv4Addr,
    pub prefix_len: u8,
}

impl Network {
    pub(super) fn read(entry: &Entry<'_>) -> Result<Self, Error> {
        let object = entry.object(&["hostname", "dhcp", "address", "gateway", "dns", "wifi"])?;
        let default = Self::default();
        let gateway = |entry: &Entry<'_>| entry.parsed_by(parse_gateway).map(Some);
        let server = |entry: &Entry<'_>| entry.parsed_by(parse_server);
        Ok(Self {
            hostname: object.get("hostname", default.hostname, |entry| {
                entry.text_that(
                    is_host_label,
                    "1 to 63 letters, digits and hyphens, with no hyphen at either end",
                )
            })?,
            dhcp: object.get("dhcp", default.dhcp, Entry::boolean)?,
            address: object.get("address", None, |entry| entry.parsed().map(Some))?,
            gateway: object.get("gateway", None, gateway)?,
            dns: object.get("dns", Vec::new(), |entry| entry.list(server))?,
            wifi: object.get("wifi", None, |entry| Wifi::read(entry).map(Some))?,
        })
    }

    /// The part of a whole configuration's text that is under `network`, whatever the rest says.
    ///
    /// # Errors
    ///
    /// As [`super::Config::from_json`], for this part.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let document = json::parse(text).map_err(Error::Syntax)?;
        let network = match document.get("network") {
            Some(value) => Self::read(&Entry::at("network", value))?,
            None => Self::default(),
        };
        network.validate()?;
        Ok(network)
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        let not_allowed = |key: &str, value: String, allowed: &str| {
            let path = format!("network.{key}");
            Err(Error::NotAllowed { path, value, allowed: allowed.into() })
        };
        if self.dns.len() > MAX_SERVERS {
            let value = format!("a list of {}", self.dns.len());
            return not_allowed("dns", value, "a list of at most 3 addresses");
        }
        let Some(own) = self.address else {
            return match (self.gateway, self.dns.first()) {
                (Some(gateway), _) => {
                    not_allowed("gateway", format!("\"{gateway}\""), "none without network.address")
                }
                (_, Some(_)) => not_allowed("dns", "a list".into(), "none without network.address"),
                (None, None) => Ok(()),
            };
        };
        if self.dhcp {
            let allowed = "an address only where network.dhcp is false";
            return not_allowed("address", format!("\"{own}\""), allowed);
        }
        match self.gateway {
            Some(gateway) if gateway == own.address || !own.reaches(gateway) => {
                let allowed = format!("another address of the network of {own}");
                not_allowed("gateway", format!("\"{gateway}\""), &allowed)
            }
            _ => Ok(()),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            hostname: "ocellus".into(),
            dhcp: true,
            address: None,
            gateway: None,
            dns: Vec::new(),
            wifi: None,
        }
    }
}

impl InterfaceAddress {
    /// Whether `other` may be a host of the same network.
    #[must_use]
    pub fn reaches(self, other: Ipv4Addr) -> bool {
        let host = self.host_bits();
        let (own, other) = (self.address.to_bits(), other.to_bits());
        own & !host == other & !host && other & host != 0 && other & host != host
    }

    fn host_bits(self) -> u32 {
        u32::MAX.checked_shr(self.prefix_len.into()).unwrap_or(0)
    }
}

impl FromStr for InterfaceAddress {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        let parse = || {
            let (address, prefix_len) = text.split_once('/')?;
            let own = Self { address: address.parse().ok()?, prefix_len: prefix_len.parse().ok()? };
            let is_length = prefix_len.bytes().all(|byte| byte.is_ascii_digit());
            let fits = (8..=30).contains(&own.prefix_len) && own.reaches(own.address);
            (is_length && fits && is_unicast(own.address)).then_some(own)
        };
        parse().ok_or(NotAllowed(ADDRESSES))
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

fn optional_text<S: serde::Serializer>(
    value: &Option<InterfaceAddress>,
    into: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => json::as_text(value, into),
        None => into.serialize_none(),
    }
}

fn parse_gateway(text: &str) -> Result<Ipv4Addr, NotAllowed> {
    let address = text.parse().ok().filter(|&address| is_unicast(address));
    address.ok_or(NotAllowed("an IPv4 address, like 192.168.1.1"))
}

fn parse_server(text: &str) -> Result<IpAddr, NotAllowed> {
    let address = text.parse().ok().filter(|address: &IpAddr| {
        !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
    });
    address.ok_or(NotAllowed("the address of a name server, like 192.168.1.1"))
}

fn is_unicast(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    !address.is_loopback() && (1..224).contains(&first)
}

fn is_host_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

const ADDRESSES: &str =
    "an IPv4 address of a host and the length of its network's prefix, like 192.168.1.20/24";
/// As many as resolv.conf(5) takes.
const MAX_SERVERS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(network: &str) -> Result<Network, String> {
        let text = format!(r#"{{ "streams": 1, "network": {network} }}"#);
        Network::from_json(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_fixed_address_is_read_whatever_the_rest_of_the_document_says() {
        let network = read(
            r#"{ "dhcp": false, "address": "192.0.2.10/24", "gateway": "192.0.2.1",
                 "dns": ["192.0.2.1", "2001:db8::53"] }"#,
        );
        let network = network.unwrap();
        let own = network.address.unwrap();
        assert_eq!((own.to_string().as_str(), own.prefix_len), ("192.0.2.10/24", 24));
        assert_eq!(network.gateway, Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(network.dns.len(), 2);
        let text = serde_json::to_string(&network).unwrap();
        assert_eq!(read(&text).unwrap(), network);
        assert_eq!(Network::from_json("{}").unwrap(), Network::default());
    }

    #[test]
    fn every_prefix_has_a_network_and_a_broadcast_address_that_are_no_hosts() {
        for prefix_len in 8..=30_u8 {
            let host: u32 = u32::MAX >> prefix_len;
            let network = Ipv4Addr::new(172, 16, 0, 0).to_bits() & !host;
            for (bits, fine) in [
                (network, false),
                (network + 1, true),
                (network + host - 1, true),
                (network + host, false),
            ] {
                let text = format!("{}/{prefix_len}", Ipv4Addr::from_bits(bits));
                assert_eq!(text.parse::<InterfaceAddress>().is_ok(), fine, "{text}");
            }
        }
        for text in [
            "",
            "192.0.2.10",
            "192.0.2.10/",
            "192.0.2.10/7",
            "192.0.2.10/31",
            "192.0.2.10/+24",
            "127.0.0.2/8",
            "224.0.0.5/24",
            "0.0.0.1/8",
            "192.0.2/24",
            "2001:db8::1/64",
            " 192.0.2.1/24",
        ] {
            assert!(text.parse::<InterfaceAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_that_do_not_go_together_are_refused_in_words() {
        let cases = [
            (
                r#"{ "address": "192.0.2.10/24" }"#,
                r#"network.address: "192.0.2.10/24" is not allowed; allowed is an address only where network.dhcp is false"#,
            ),
            (
                r#"{ "dhcp": false, "address": "192.0.2.10/24", "gateway": "192.0.3.1" }"#,
                r#"network.gateway: "192.0.3.1" is not allowed; allowed is another address of the network of 192.0.2.10/24"#,
            ),
            (
                r#"{ "dhcp": false, "address": "192.0.2.10/24", "gateway": "192.0.2.10" }"#,
                r#"network.gateway: "192.0.2.10" is not allowed; allowed is another address of the network of 192.0.2.10/24"#,
            ),
            (
                r#"{ "gateway": "192.0.2.1" }"#,
                r#"network.gateway: "192.0.2.1" is not allowed; allowed is none without network.address"#,
            ),
            (
                r#"{ "dns": ["192.0.2.1"] }"#,
                "network.dns: a list is not allowed; allowed is none without network.address",
            ),
            (
                r#"{ "dhcp": false, "address": "192.0.2.10/24", "dns": ["::1"] }"#,
                r#"network.dns[0]: "::1" is not allowed; allowed is the address of a name server, like 192.168.1.1"#,
            ),
            (
                r#"{ "adress": "192.0.2.10/24" }"#,
                "network.adress: unknown key; the nearest known key is network.address",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(read(text).unwrap_err(), message);
        }
    }
}
