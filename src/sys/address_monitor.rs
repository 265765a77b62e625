//! Turns rtnetlink's address messages into the IPv6 addresses that the kernel gives itself.
//!
//! rtnetlink(7); RFC 4862 (SLAAC and duplicate address detection) is the kernel's.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockFlag, recv};

use super::netlink::{BUFFER_LEN, messages, open};

/// Hears of IPv6 addresses that come into use.
#[derive(Debug)]
pub struct AddressMonitor {
    fd: OwnedFd,
    /// Those in use; every router advertisement confirms them again.
    known: HashSet<(u32, Ipv6Addr)>,
    /// Not yet handed out.
    pending: Vec<(u32, Ipv6Addr)>,
}

impl AddressMonitor {
    /// # Errors
    ///
    /// Those of socket(2) and bind(2).
    pub fn open() -> io::Result<Self> {
        let fd = open(SockFlag::SOCK_NONBLOCK, RTMGRP_IPV6_IFADDR)?;
        Ok(Self { fd, known: HashSet::new(), pending: Vec::new() })
    }

    /// The next address, with its interface's index; `None` when all has been read.
    pub fn receive(&mut self) -> Option<(u32, Ipv6Addr)> {
        loop {
            if let Some(address) = self.pending.pop() {
                return Some(address);
            }
            let mut buffer = vec![0; BUFFER_LEN];
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(len) => {
                    for message in messages(buffer.get(..len).unwrap_or_default()) {
                        self.take(&message);
                    }
                }
                // Lost news of an address costs a line of the log.
                Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(_) => return None,
            }
        }
    }

    fn take(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) {
        match &message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => {
                if let Some(address) = usable(message)
                    && self.known.len() < MAX_KNOWN
                    && self.known.insert(address)
                {
                    self.pending.push(address);
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(message)) => {
                if let Some(address) = ipv6(message) {
                    self.known.remove(&address);
                }
            }
            _ => {}
        }
    }
}

impl AsFd for AddressMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn ipv6(message: &AddressMessage) -> Option<(u32, Ipv6Addr)> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(IpAddr::V6(address)) => Some((message.header.index, *address)),
        _ => None,
    })
}

/// An address that nobody else turned out to have.
fn usable(message: &AddressMessage) -> Option<(u32, Ipv6Addr)> {
    let unproven = AddressFlags::Tentative | AddressFlags::Dadfailed;
    let is_unproven = message.attributes.iter().any(|attribute| {
        matches!(attribute, AddressAttribute::Flags(flags) if flags.intersects(unproven))
    });
    if is_unproven { None } else { ipv6(message) }
}

/// linux/rtnetlink.h.
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
/// The kernel keeps 16 of each interface (max_addresses).
const MAX_KNOWN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(flags: AddressFlags) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = 2;
        message.attributes.push(AddressAttribute::Address(IpAddr::V6(ADDRESS)));
        message.attributes.push(AddressAttribute::Flags(flags));
        message
    }

    fn monitor() -> AddressMonitor {
        AddressMonitor::open().unwrap()
    }

    fn payload(message: RouteNetlinkMessage) -> NetlinkMessage<RouteNetlinkMessage> {
        NetlinkMessage::new(Default::default(), NetlinkPayload::InnerMessage(message))
    }

    #[test]
    fn an_address_is_told_once_when_it_is_proven_and_again_after_it_was_gone() {
        let mut monitor = monitor();
        let mut told = |message| {
            monitor.take(&payload(message));
            monitor.pending.pop()
        };
        let new = |flags| RouteNetlinkMessage::NewAddress(message(flags));
        assert_eq!(told(new(AddressFlags::Tentative)), None);
        assert_eq!(told(new(AddressFlags::Tentative | AddressFlags::Dadfailed)), None);
        assert_eq!(told(new(AddressFlags::empty())), Some((2, ADDRESS)));
        assert_eq!(told(new(AddressFlags::empty())), None);
        let gone = RouteNetlinkMessage::DelAddress(message(AddressFlags::empty()));
        assert_eq!(told(gone), None);
        assert_eq!(told(new(AddressFlags::Permanent)), Some((2, ADDRESS)));
    }

    const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
}
