//! Another host that wants the camera's link-local address (RFC 3927).

use std::net::Ipv4Addr;
use std::time::Duration;

use ocellus::time::Instant;
use smoltcp::wire::{ArpOperation, ArpRepr, EthernetAddress};

use super::camera;

pub(crate) const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 1, 1]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Has the address, and answers whoever asks for it.
    Owns,
    /// Asks for it, as a host does before use, and takes it if nobody objects.
    Probes,
    /// Says that it is its own, again and again.
    Insists,
}

pub(crate) struct Rival {
    pub(crate) address: Ipv4Addr,
    pub(crate) manner: Manner,
    /// When it speaks next by itself, and how long after that again.
    pub(crate) next_at: Option<Instant>,
    pub(crate) every: Duration,
    /// Answers to its probes: somebody has the address.
    pub(crate) objections: u32,
    pub(crate) out: Vec<Vec<u8>>,
}

impl Rival {
    pub(crate) const fn new(address: Ipv4Addr, manner: Manner, at: Instant) -> Self {
        let next_at = if matches!(manner, Manner::Owns) { None } else { Some(at) };
        let every = Duration::from_secs(2);
        Self { address, manner, next_at, every, objections: 0, out: Vec::new() }
    }

    pub(crate) fn receive(&mut self, frame: &[u8]) {
        let Some((
            asker,
            ArpRepr::EthernetIpv4 { operation, source_protocol_addr, target_protocol_addr, .. },
        )) = camera::parse_arp(frame)
        else {
            return;
        };
        if source_protocol_addr == self.address {
            self.objections += 1;
        }
        let is_asked = operation == ArpOperation::Request && target_protocol_addr == self.address;
        if is_asked && self.manner == Manner::Owns && source_protocol_addr != self.address {
            let addresses = (self.address, source_protocol_addr);
            self.out.push(camera::arp(MAC, asker, ArpOperation::Reply, addresses));
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.next_at.is_none_or(|at| now < at) {
            return;
        }
        let source = match self.manner {
            Manner::Probes => Ipv4Addr::UNSPECIFIED,
            Manner::Owns | Manner::Insists => self.address,
        };
        let everybody = EthernetAddress::BROADCAST;
        let addresses = (source, self.address);
        self.out.push(camera::arp(MAC, everybody, ArpOperation::Request, addresses));
        self.next_at = Some(now + self.every);
    }
}
