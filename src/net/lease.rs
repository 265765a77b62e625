//! Turns a DHCP server's message into the lease that an interface should have.
//!
//! RFC 2132 3.5 (router), 3.8 (name servers), 8.3 (NTP servers), 9.2 (lease time), 9.11 and 9.12
//! (T1 and T2); RFC 3927 for a lease without a server.

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::socket::dhcpv4;
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
    IpProtocol, Ipv4Packet, UdpPacket,
};

/// What the interface should be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub prefix_len: u8,
    pub router: Option<Ipv4Addr>,
    pub dns: Servers,
    pub ntp: Servers,
    pub origin: Origin,
}

impl Lease {
    pub(super) fn from_dhcp(config: &dhcpv4::Config<'_>, details: &Details) -> Self {
        Self {
            address: config.address.address(),
            prefix_len: config.address.prefix_len(),
            router: config.router.filter(|router| !router.is_unspecified()),
            dns: config.dns_servers.iter().copied().take(MAX_SERVERS).collect(),
            ntp: details.ntp.clone(),
            origin: Origin::Dhcp {
                server: config.server.identifier,
                duration: details.duration.unwrap_or(DEFAULT_DURATION),
                renew_after: details.renew_after,
                rebind_after: details.rebind_after,
            },
        }
    }

    pub(super) fn link_local(address: Ipv4Addr) -> Self {
        Self {
            address,
            prefix_len: 16,
            router: None,
            dns: Servers::new(),
            ntp: Servers::new(),
            origin: Origin::LinkLocal,
        }
    }
}

/// Where a lease comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Dhcp {
        server: Ipv4Addr,
        /// From the acknowledgement until the address is lost.
        duration: Duration,
        /// T1 and T2, where the server named them (RFC 2132 9.11, 9.12).
        renew_after: Option<Duration>,
        rebind_after: Option<Duration>,
    },
    /// Nobody answered (RFC 3927).
    LinkLocal,
}

/// Addresses of servers, as the DHCP server sorted them.
pub type Servers = heapless::Vec<Ipv4Addr, MAX_SERVERS>;

/// What a server's message says that smoltcp does not tell.
pub(super) struct Answer {
    /// A NAK for this client.
    pub(super) refused: bool,
    pub(super) details: Details,
}

impl Answer {
    /// Reads a server's message to a client; none for every other packet.
    pub(super) fn parse(packet: &[u8], mac: EthernetAddress) -> Option<Self> {
        let ip = Ipv4Packet::new_checked(packet).ok()?;
        if ip.next_header() != IpProtocol::Udp || ip.frag_offset() != 0 || ip.more_frags() {
            return None;
        }
        let udp = UdpPacket::new_checked(ip.payload()).ok()?;
        if (udp.src_port(), udp.dst_port()) != (DHCP_SERVER_PORT, DHCP_CLIENT_PORT) {
            return None;
        }
        let dhcp = DhcpPacket::new_checked(udp.payload()).ok()?;
        let repr = DhcpRepr::parse(&dhcp).ok()?;
        let seconds = |field: Option<u32>| field.map(|count| Duration::from_secs(count.into()));
        let mut ntp = Servers::new();
        for option in dhcp.options().filter(|option| option.kind == OPT_NTP_SERVERS) {
            let (addresses, _) = option.data.as_chunks::<4>();
            let addresses = addresses.iter().map(|&octets| Ipv4Addr::from(octets));
            let room = MAX_SERVERS - ntp.len();
            ntp.extend(addresses.filter(|address| !address.is_unspecified()).take(room));
        }
        Some(Self {
            refused: repr.message_type == DhcpMessageType::Nak
                && repr.client_hardware_address == mac,
            details: Details {
                ntp,
                duration: seconds(repr.lease_duration),
                renew_after: seconds(repr.renew_duration),
                rebind_after: seconds(repr.rebind_duration),
            },
        })
    }
}

/// Options of an acknowledgement that smoltcp does not hand on.
#[derive(Clone, Debug, Default)]
pub(super) struct Details {
    pub(super) ntp: Servers,
    pub(super) duration: Option<Duration>,
    pub(super) renew_after: Option<Duration>,
    pub(super) rebind_after: Option<Duration>,
}

/// Servers kept of each kind; smoltcp keeps as many.
pub const MAX_SERVERS: usize = 3;
pub(super) const OPT_NTP_SERVERS: u8 = 42;
/// What smoltcp assumes of a server that names no lease time.
const DEFAULT_DURATION: Duration = Duration::from_secs(120);
