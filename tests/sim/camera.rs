//! The camera: `net::Dhcp`, and a kernel that has the address it is told to have.
//!
//! Every frame and every event is held against what must always be true.

use std::net::Ipv4Addr;

use ocellus::net::{Dhcp, Event, Lease, Origin};
use ocellus::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Ipv4Packet,
};

pub(crate) const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

pub(crate) struct Camera {
    pub(crate) client: Dhcp<'static>,
    /// What the kernel's interface has.
    pub(crate) held: Option<Lease>,
    pub(crate) events: Vec<(Instant, Event)>,
    /// A bug between the client and everybody else.
    pub(crate) planted: Option<Bug>,
    out: Vec<Vec<u8>>,
    /// The last frame that spoke for an address.
    spoken: Option<Vec<u8>>,
}

/// What a client could do wrong, each to see that somebody notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    LosesTwice,
    MisreadsTheTerm,
    RenewsAnother,
    SpeaksForWhatItLost,
    TakesASecondOne,
}

impl Camera {
    pub(crate) fn new(now: Instant, seed: u64) -> Self {
        let client = Dhcp::new(now, MAC.0, &[], seed).unwrap();
        let mut camera = Self {
            client,
            held: None,
            events: Vec::new(),
            planted: None,
            out: Vec::new(),
            spoken: None,
        };
        camera.drain(now);
        camera
    }

    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        self.held.as_ref().map(|lease| lease.address)
    }

    pub(crate) fn has_dhcp(&self) -> bool {
        self.held.as_ref().is_some_and(|lease| matches!(lease.origin, Origin::Dhcp { .. }))
    }

    pub(crate) fn receive(&mut self, now: Instant, frame: &[u8]) {
        self.out.extend(self.held.as_ref().and_then(|lease| answer_arp(lease.address, frame)));
        match self.planted {
            Some(Bug::MisreadsTheTerm) => self.client.receive(now, &with_a_longer_term(frame)),
            _ => self.client.receive(now, frame),
        }
        self.drain(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now);
        self.drain(now);
    }

    /// The carrier is back.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.client.restart(now);
        self.drain(now);
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.out.is_empty()).then(|| self.out.remove(0))
    }

    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.client.poll_event() {
            for event in self.mistake(event) {
                self.obey(now, event);
            }
        }
        while let Some(frame) = self.client.poll_transmit() {
            self.say(now, frame);
        }
        if self.planted == Some(Bug::SpeaksForWhatItLost) && self.held.is_none() {
            let again = self.spoken.take();
            again.into_iter().for_each(|frame| self.say(now, frame));
        }
    }

    fn obey(&mut self, now: Instant, event: Event) {
        match &event {
            Event::Acquired(lease) => {
                assert_eq!(self.held, None, "a second address at {now:?}: {lease:?}");
                self.held = Some(lease.clone());
            }
            Event::Renewed(lease) => {
                let held = self.address();
                assert_eq!(held, Some(lease.address), "renewed another one at {now:?}");
                self.held = Some(lease.clone());
            }
            Event::Lost => {
                assert!(self.held.take().is_some(), "nothing to lose at {now:?}");
            }
        }
        self.events.push((now, event));
    }

    fn say(&mut self, now: Instant, frame: Vec<u8>) {
        if let Some(source) = source(&frame) {
            assert_eq!(self.address(), Some(source), "sent from a lost address at {now:?}");
            self.spoken = Some(frame.clone());
        }
        self.out.push(frame);
    }

    /// What the planted bug makes of an event.
    fn mistake(&self, event: Event) -> Vec<Event> {
        match (self.planted, event) {
            (Some(Bug::LosesTwice), Event::Lost) => vec![Event::Lost; 2],
            (Some(Bug::RenewsAnother), Event::Renewed(lease)) => {
                let address = Ipv4Addr::from(u32::from(lease.address) ^ 1);
                vec![Event::Renewed(Lease { address, ..lease })]
            }
            (Some(Bug::TakesASecondOne), Event::Acquired(lease)) => {
                vec![Event::Acquired(lease.clone()), Event::Acquired(lease)]
            }
            (_, event) => vec![event],
        }
    }
}

/// The same, and ten times the lease if it grants one (RFC 2132 9.2).
fn with_a_longer_term(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let granted = [51, 4, 0, 0, 0x02, 0x58];
    if let Some(at) = frame.windows(granted.len()).position(|bytes| bytes == granted) {
        frame[at + 4..at + 6].copy_from_slice(&6_000_u16.to_be_bytes());
        // Behind Ethernet's and IP's 34 bytes; 0 is no checksum (RFC 768).
        frame[34 + 6..34 + 8].fill(0);
    }
    frame
}

/// The protocol address that a frame speaks for, if it speaks for any.
fn source(frame: &[u8]) -> Option<Ipv4Addr> {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    let source = match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => Ipv4Packet::new_checked(ethernet.payload()).unwrap().src_addr(),
        EthernetProtocol::Arp => {
            let packet = ArpPacket::new_checked(ethernet.payload()).unwrap();
            let ArpRepr::EthernetIpv4 { source_protocol_addr, .. } =
                ArpRepr::parse(&packet).unwrap()
            else {
                panic!("only Ethernet is sent")
            };
            source_protocol_addr
        }
        other => panic!("the client sent {other}"),
    };
    (!source.is_unspecified()).then_some(source)
}

/// What the kernel says when somebody asks for its address.
fn answer_arp(held: Ipv4Addr, frame: &[u8]) -> Option<Vec<u8>> {
    let (asker, request) = parse_arp(frame)?;
    let ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = request
    else {
        return None;
    };
    (target_protocol_addr == held && source_protocol_addr != held)
        .then(|| arp(MAC, asker, ArpOperation::Reply, (held, source_protocol_addr)))
}

pub(crate) fn parse_arp(frame: &[u8]) -> Option<(EthernetAddress, ArpRepr)> {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    if ethernet.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    let packet = ArpPacket::new_checked(ethernet.payload()).unwrap();
    Some((ethernet.src_addr(), ArpRepr::parse(&packet).unwrap()))
}

/// An ARP frame; `addresses` are the source's and the target's.
pub(crate) fn arp(
    from: EthernetAddress,
    to: EthernetAddress,
    operation: ArpOperation,
    addresses: (Ipv4Addr, Ipv4Addr),
) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: from,
        source_protocol_addr: addresses.0,
        target_hardware_addr: if to.is_broadcast() { EthernetAddress([0; 6]) } else { to },
        target_protocol_addr: addresses.1,
    };
    let ethernet = EthernetRepr { src_addr: from, dst_addr: to, ethertype: EthernetProtocol::Arp };
    let mut frame =
        EthernetFrame::new_unchecked(vec![0; ethernet.buffer_len() + repr.buffer_len()]);
    ethernet.emit(&mut frame);
    repr.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    frame.into_inner()
}
