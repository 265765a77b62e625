//! Turns requests for addresses, routes and link states into rtnetlink messages, and back.
//!
//! rtnetlink(7), by netlink-packet-route over a plain socket.
//!
//! Not implemented: setting IPv6 (the kernel configures itself) and everything a camera does not need.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily as SocketFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind,
    recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// The index of the loopback interface, the first that every network namespace makes.
pub const LOOPBACK: u32 = 1;

/// A network interface, as the kernel last described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// None when the interface is not Ethernet-like (loopback, tunnels).
    pub mac: Option<[u8; 6]>,
    /// Whether the cable, or what stands for it, carries; a wireless one once it has its keys.
    pub carrier: bool,
    /// Whether the interface is gone.
    pub removed: bool,
}

/// Hears of interfaces: first all that exist, then every change.
#[derive(Debug)]
pub struct LinkMonitor {
    fd: OwnedFd,
    /// Messages of the last datagram that are still to be handed out, in reverse.
    pending: Vec<Link>,
}

impl LinkMonitor {
    /// # Errors
    ///
    /// Those of socket(2), bind(2) and send(2).
    pub fn open() -> io::Result<Self> {
        let fd = open(SockFlag::SOCK_NONBLOCK, RTMGRP_LINK)?;
        let monitor = Self { fd, pending: Vec::new() };
        monitor.ask_for_all()?;
        Ok(monitor)
    }

    /// The next description; `None` when all has been read.
    ///
    /// # Errors
    ///
    /// That of send(2), when the kernel had to drop messages and all interfaces are asked for anew.
    pub fn receive(&mut self) -> io::Result<Option<Link>> {
        loop {
            if let Some(link) = self.pending.pop() {
                return Ok(Some(link));
            }
            let mut buffer = vec![0; BUFFER_LEN];
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(len) => {
                    self.pending = messages(buffer.get(..len).unwrap_or_default())
                        .filter_map(|message| link(&message))
                        .collect();
                    self.pending.reverse();
                }
                Err(Errno::ENOBUFS) => self.ask_for_all()?,
                Err(Errno::EINTR) => {}
                Err(_) => return Ok(None),
            }
        }
    }

    fn ask_for_all(&self) -> io::Result<()> {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let bytes = request(message, NLM_F_DUMP, 1);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(())
    }
}

impl AsFd for LinkMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Changes the kernel's interfaces; each call waits for the kernel's answer.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// # Errors
    ///
    /// Those of socket(2) and bind(2).
    pub fn open() -> io::Result<Self> {
        let fd = open(SockFlag::empty(), 0)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_TIMEOUT_S))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sets an interface up (administratively).
    ///
    /// # Errors
    ///
    /// What the kernel answers, or a timeout.
    pub fn set_up(&mut self, interface: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = interface;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.call(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Gives an interface an address; the prefix's route comes with it.
    ///
    /// # Errors
    ///
    /// What the kernel answers, or a timeout.
    pub fn add_address(
        &mut self,
        interface: u32,
        address: Ipv4Addr,
        prefix_len: u8,
    ) -> io::Result<()> {
        let mut message = address_message(interface, address, prefix_len);
        if let Some(host_bits) = u32::MAX.checked_shr(prefix_len.into())
            && prefix_len < 31
        {
            let broadcast = Ipv4Addr::from_bits(address.to_bits() | host_bits);
            message.attributes.push(AddressAttribute::Broadcast(broadcast));
        }
        self.call(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes an address away, and with it the routes that go out from it.
    ///
    /// # Errors
    ///
    /// What the kernel answers, or a timeout.
    pub fn remove_address(
        &mut self,
        interface: u32,
        address: Ipv4Addr,
        prefix_len: u8,
    ) -> io::Result<()> {
        let message = address_message(interface, address, prefix_len);
        self.call(RouteNetlinkMessage::DelAddress(message), 0)
    }

    /// Sends everything without a nearer route out of `interface`, by way of `router`.
    ///
    /// The lower `priority` is, the more is the route preferred.
    ///
    /// # Errors
    ///
    /// What the kernel answers, or a timeout.
    pub fn set_default_route(
        &mut self,
        interface: u32,
        source: Ipv4Addr,
        router: Ipv4Addr,
        priority: u32,
    ) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Dhcp;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(router)));
        message.attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(source)));
        message.attributes.push(RouteAttribute::Oif(interface));
        message.attributes.push(RouteAttribute::Priority(priority));
        self.call(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn call(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request(message, flags | NLM_F_ACK, self.sequence);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut buffer = vec![0; BUFFER_LEN];
        // Answers to calls that timed out may still come; every one is looked at at most once.
        for _ in 0..MAX_STALE_ANSWERS {
            let len = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for answer in messages(buffer.get(..len).unwrap_or_default()) {
                if answer.header.sequence_number == self.sequence
                    && let NetlinkPayload::Error(error) = answer.payload
                {
                    return error.code.map_or(Ok(()), |_| Err(error.to_io()));
                }
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

pub(super) fn open(flags: SockFlag, groups: u32) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    let protocol = SockProtocol::NetlinkRoute;
    let fd = socket(SocketFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

pub(super) fn request(message: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The messages of one datagram; ends at the first that does not fit.
pub(super) fn messages(bytes: &[u8]) -> impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
        if len < HEADER_LEN {
            return None;
        }
        let message = rest.get(..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(NetlinkMessage::deserialize(message))
    })
    // A kind that the library cannot read is none that was asked for.
    .filter_map(Result::ok)
}

fn link(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<Link> {
    let (link, removed) = match &message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => (link, false),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => (link, true),
        _ => return None,
    };
    let ethernet = link.header.link_layer_type == LinkLayerType::Ether;
    let (mut name, mut mac) = (String::new(), None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name.clone_from(value),
            LinkAttribute::Address(octets) if ethernet => mac = octets.as_slice().try_into().ok(),
            _ => {}
        }
    }
    // Not before wpa_supplicant says so is a wireless one running (RFC 2863's "dormant").
    let wanted = LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running;
    let carrier = link.header.flags.contains(wanted);
    Some(Link { index: link.header.index, name, mac, carrier, removed })
}

fn address_message(interface: u32, address: Ipv4Addr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix_len;
    message.header.index = interface;
    if address.is_link_local() {
        message.header.scope = AddressScope::Link;
    }
    message.attributes.push(AddressAttribute::Address(address.into()));
    message.attributes.push(AddressAttribute::Local(address.into()));
    message
}

/// linux/rtnetlink.h.
const RTMGRP_LINK: u32 = 1;
/// `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// The kernel fills dumps up to this size when the reader offers it.
pub(super) const BUFFER_LEN: usize = 32 * 1024;
/// The kernel answers in microseconds; this only keeps a fault from hanging its caller.
const ANSWER_TIMEOUT_S: i64 = 2;
const MAX_STALE_ANSWERS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_among_those_that_exist() {
        let mut monitor = LinkMonitor::open().unwrap();
        let links: Vec<_> = std::iter::from_fn(|| monitor.receive().unwrap()).collect();
        let loopback = links.iter().find(|link| link.index == LOOPBACK).unwrap();
        assert_eq!((loopback.name.as_str(), loopback.mac, loopback.removed), ("lo", None, false));
    }

    #[test]
    fn the_kernel_reports_its_refusal() {
        let mut netlink = Netlink::open().unwrap();
        let refused = netlink.set_up(u32::MAX >> 1).unwrap_err();
        let errno = Errno::from_raw(refused.raw_os_error().unwrap());
        assert!(matches!(errno, Errno::ENODEV | Errno::EPERM), "{errno}");
    }

    #[test]
    fn damaged_datagrams_are_read_as_far_as_they_go() {
        let bytes = request(RouteNetlinkMessage::GetLink(LinkMessage::default()), 0, 7);
        let mut two = bytes.clone();
        two.extend_from_slice(&bytes);
        for len in 0..=two.len() {
            assert_eq!(messages(&two[..len]).count(), len / bytes.len(), "cut at {len}");
        }
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(messages(&[0xff; 64]).count(), 0);
    }
}
