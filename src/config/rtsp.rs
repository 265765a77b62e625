//! Where RTSP listens, and how media leaves.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::Serialize;

use super::json::{self, Entry};
use super::{Error, Multicast, NotAllowed, Tls};

/// The RTSP server's part of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rtsp {
    /// At least one address; port 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
    #[serde(serialize_with = "json::as_text")]
    pub udp_ports: UdpPorts,
    /// Bytes of an RTP packet with its header, without UDP and IP.
    pub packet_size: u32,
    pub max_viewers: u32,
    /// Connections from one address.
    pub max_per_address: u32,
    /// What queues on the way are told (RFC 2474); 0: nothing.
    pub dscp: u8,
    pub multicast: Multicast,
    pub tls: Tls,
}

/// The ports that RTP and RTCP leave from: an even one and the next (RFC 3550 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpPorts {
    rtp: u16,
}

impl Rtsp {
    pub(super) fn read(entry: &Entry<'_>) -> Result<Self, Error> {
        let object = entry.object(&KEYS)?;
        let default = Self::default();
        let packet_sizes = |entry: &Entry<'_>| entry.integer(PACKET_SIZES);
        let dscp = |entry: &Entry<'_>| {
            Ok(u8::try_from(entry.integer(0..=63)?).unwrap_or(VIDEO_SURVEILLANCE))
        };
        let viewers = |entry: &Entry<'_>| entry.integer(MAX_VIEWERS);
        Ok(Self {
            listen: object.get("listen", default.listen, |entry| {
                entry.list(|entry| entry.parsed_by(parse_address))
            })?,
            udp_ports: object.get("udp_ports", default.udp_ports, Entry::parsed)?,
            packet_size: object.get("packet_size", default.packet_size, packet_sizes)?,
            max_viewers: object.get("max_viewers", default.max_viewers, viewers)?,
            max_per_address: object.get("max_per_address", default.max_per_address, viewers)?,
            dscp: object.get("dscp", default.dscp, dscp)?,
            multicast: object.get("multicast", default.multicast, Multicast::read)?,
            tls: object.get("tls", default.tls, Tls::read)?,
        })
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        let not_allowed = |path: String, value: String, allowed: &str| Error::NotAllowed {
            path,
            value,
            allowed: allowed.into(),
        };
        if !LISTEN_COUNTS.contains(&self.listen.len()) {
            let value = format!("a list of {}", self.listen.len());
            return Err(not_allowed("rtsp.listen".into(), value, "a list of 1 to 8 addresses"));
        }
        for (index, address) in self.listen.iter().enumerate() {
            if address.port() != 0 && self.listen[..index].contains(address) {
                let (path, value) = (format!("rtsp.listen[{index}]"), format!("\"{address}\""));
                return Err(not_allowed(path, value, "an address that is not in the list yet"));
            }
        }
        self.tls.validate(&self.listen)
    }
}

impl Default for Rtsp {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0_u16; 8], 8554))],
            udp_ports: UdpPorts::default(),
            packet_size: 1372,
            max_viewers: 64,
            max_per_address: 16,
            dscp: VIDEO_SURVEILLANCE,
            multicast: Multicast::default(),
            tls: Tls::default(),
        }
    }
}

impl UdpPorts {
    #[must_use]
    pub const fn rtp(self) -> u16 {
        self.rtp
    }

    #[must_use]
    pub const fn rtcp(self) -> u16 {
        self.rtp + 1
    }
}

impl Default for UdpPorts {
    fn default() -> Self {
        Self { rtp: 8000 }
    }
}

impl FromStr for UdpPorts {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        let port = |text: &str| text.parse::<u16>().ok().filter(|&port| port > 0);
        let ports = text.split_once('-').and_then(|(rtp, rtcp)| Some((port(rtp)?, port(rtcp)?)));
        match ports {
            Some((rtp, rtcp)) if rtp.is_multiple_of(2) && rtcp == rtp + 1 => Ok(Self { rtp }),
            _ => Err(NotAllowed("an even port and the next one, like \"8000-8001\"")),
        }
    }
}

impl fmt::Display for UdpPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.rtp(), self.rtcp())
    }
}

/// Parses an address to listen on.
///
/// # Errors
///
/// [`NotAllowed`] for everything but a numeric address with a port.
pub fn parse_address(text: &str) -> Result<SocketAddr, NotAllowed> {
    text.parse()
        .map_err(|_| NotAllowed("ADDRESS:PORT, like 192.168.1.2:554, 0.0.0.0:8554 or [::]:8554"))
}

const KEYS: [&str; 8] = [
    "listen",
    "udp_ports",
    "packet_size",
    "max_viewers",
    "max_per_address",
    "dscp",
    "multicast",
    "tls",
];
/// RFC 4594 4.6: CS3 is for broadcast video, which names video surveillance. RFC 8325 has it in
/// Wi-Fi's queue for video.
const VIDEO_SURVEILLANCE: u8 = 24;
/// Below, headers are a third of the traffic; above, nothing fits an Ethernet frame over IPv4.
pub const PACKET_SIZES: RangeInclusive<u32> = 256..=1460;
/// The reactor is built for this many.
pub const MAX_VIEWERS: RangeInclusive<u32> = 1..=1024;
/// Addresses to listen on: IPv4 and IPv6 on four interfaces.
const LISTEN_COUNTS: RangeInclusive<usize> = 1..=LISTEN_COUNT_MAX;
pub(super) const LISTEN_COUNT_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_may_be_marked_with_six_bits() {
        let read = |dscp: &str| {
            crate::config::Config::from_json(&format!(r#"{{ "rtsp": {{ "dscp": {dscp} }} }}"#))
        };
        for dscp in 0..64 {
            assert_eq!(read(&dscp.to_string()).unwrap().rtsp.dscp, dscp);
        }
        for dscp in ["64", "-1", "255", "\"CS3\""] {
            assert!(read(dscp).is_err(), "{dscp}");
        }
    }

    #[test]
    fn only_an_even_port_and_the_next_are_a_pair() {
        for rtp in (2..=65_534).step_by(2) {
            let text = format!("{rtp}-{}", rtp + 1);
            let ports: UdpPorts = text.parse().unwrap();
            assert_eq!((ports.to_string(), ports.rtp(), ports.rtcp()), (text, rtp, rtp + 1));
        }
        for text in [
            "",
            "8000",
            "8000-",
            "-8001",
            "8001-8002",
            "8000-8002",
            "8000-8000",
            "0-1",
            "65536-65537",
            "8000-8001-8002",
            " 8000-8001",
        ] {
            assert!(text.parse::<UdpPorts>().is_err(), "{text:?}");
        }
    }
}
