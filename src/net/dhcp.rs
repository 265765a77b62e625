//! Turns DHCP's answers, or their absence, into the lease that an interface should have.
//!
//! RFC 2131 by smoltcp's `dhcpv4::Socket`; RFC 2132 3.14 (host name) and 8.3 (NTP servers);
//! RFC 3927 1.9 and 2.11 for when a link-local address is used and dropped again.
//!
//! Not implemented: INIT-REBOOT (asking for the last address), DHCPDECLINE, DHCPRELEASE and
//! option overload (RFC 2132 9.3).
//!
//! smoltcp sees only what is DHCP's: the kernel answers all other packets for the leased address,
//! and two answers would end its connections.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4;
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpOption, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, HardwareAddress, IpCidr,
};

use super::entropy::Entropy;
use super::lease::{self, Answer, Details, Lease, Origin};
use super::link_local::{self, LinkLocal};
use super::queue::QueueDevice;
use crate::time::Instant;

/// A change of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There was no lease, and now there is.
    Acquired(Lease),
    /// The same address for longer; the rest may differ from before.
    Renewed(Lease),
    /// The address must no longer be used.
    Lost,
}

/// The DHCP client and link-local fallback of one interface.
pub struct Dhcp<'a> {
    mac: EthernetAddress,
    device: QueueDevice,
    interface: Interface,
    sockets: SocketSet<'a>,
    socket: SocketHandle,
    entropy: Entropy,
    /// Polls in a row that sent something and brought no lease; spaces the DISCOVERs.
    attempts: u32,
    /// Refusals and losses since the last lease; spaces the conversations.
    failures: u32,
    /// Until then nothing is sent: a server that refuses all it offers, or grants leases of no
    /// length, would otherwise be asked as fast as it answers.
    hold_until: Instant,
    link_local: LinkLocal,
    /// When link-local starts, while DHCP has brought nothing.
    fall_back_at: Option<Instant>,
    /// What the events have told so far.
    lease: Option<Lease>,
    /// When it runs out. smoltcp knows too, but forgets it in `restart`.
    expires_at: Option<Instant>,
    /// What the newest acknowledgement says beyond what smoltcp keeps of it.
    details: Details,
    socket_at: Option<Instant>,
    events: VecDeque<Event>,
}

/// Option 12 for [`Dhcp::new`]; none for a name that DHCP cannot carry.
#[must_use]
pub fn hostname_option(hostname: &str) -> Option<DhcpOption<'_>> {
    let data = hostname.as_bytes();
    (1..=MAX_HOSTNAME_LEN).contains(&data.len()).then_some(DhcpOption { kind: OPT_HOST_NAME, data })
}

impl<'a> Dhcp<'a> {
    /// A client that is ready to send its first DISCOVER.
    ///
    /// `options` go into every message. Answers `None` for a MAC address that no interface can
    /// have (multicast or zero).
    #[must_use]
    pub fn new(
        now: Instant,
        mac: [u8; 6],
        options: &'a [DhcpOption<'a>],
        seed: u64,
    ) -> Option<Self> {
        let mac = EthernetAddress(mac);
        if !mac.is_unicast() {
            return None;
        }
        let mut entropy = Entropy::new(seed);
        let mut device = QueueDevice::new();
        let mut config = Config::new(HardwareAddress::Ethernet(mac));
        config.random_seed = entropy.next();
        let interface = Interface::new(config, &mut device, smol(now));

        let mut socket = dhcpv4::Socket::new();
        socket.set_outgoing_options(options);
        socket.set_parameter_request_list(REQUESTED);
        // With a buffer, even an empty one, smoltcp reports every acknowledgement, not only those
        // that change something.
        socket.set_receive_packet_buffer(&mut []);
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);

        let link_local = LinkLocal::new(mac, entropy.next());
        let mut dhcp = Self {
            mac,
            device,
            interface,
            sockets,
            socket,
            entropy,
            attempts: 0,
            failures: 0,
            hold_until: now,
            link_local,
            fall_back_at: Some(now + FALL_BACK_AFTER),
            lease: None,
            expires_at: None,
            details: Details::default(),
            socket_at: Some(now),
            events: VecDeque::new(),
        };
        dhcp.poll_socket(now);
        Some(dhcp)
    }

    /// Takes one Ethernet frame; anything that is not for this machine is ignored.
    pub fn receive(&mut self, now: Instant, frame: &[u8]) {
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
            return;
        };
        match ethernet.ethertype() {
            EthernetProtocol::Arp => {
                let packet = ArpPacket::new_checked(ethernet.payload());
                let Ok(arp) = packet.and_then(|packet| ArpRepr::parse(&packet)) else {
                    return;
                };
                self.link_local.receive(now, &arp);
                self.drain_link_local(now);
                let is_reply =
                    matches!(arp, ArpRepr::EthernetIpv4 { operation: ArpOperation::Reply, .. });
                if is_reply && self.device.receive(frame) {
                    self.poll_socket(now);
                }
            }
            EthernetProtocol::Ipv4 => {
                let Some(answer) = Answer::parse(ethernet.payload(), self.mac) else {
                    return;
                };
                if self.device.receive(frame) {
                    if answer.refused {
                        self.hold(now);
                    }
                    self.details = answer.details;
                    self.poll_socket(now);
                }
            }
            _ => {}
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.socket_at.is_some_and(|at| now >= at) {
            self.poll_socket(now);
        }
        if self.expires_at.is_some_and(|at| now >= at) {
            self.lose(now);
        }
        if self.fall_back_at.is_some_and(|at| now >= at) {
            self.fall_back_at = None;
            self.link_local.start(now);
        }
        self.link_local.handle_timeout(now);
        self.drain_link_local(now);
    }

    /// Asks anew, because the cable may now lead into another network.
    ///
    /// A DHCP lease is kept until somebody says otherwise or it runs out (RFC 2131 3.7), so that a
    /// switch that restarts costs no connection. A link-local address is let go (RFC 3927 2.2).
    pub fn restart(&mut self, now: Instant) {
        self.link_local.stop();
        if matches!(&self.lease, Some(lease) if lease.origin == Origin::LinkLocal) {
            self.lease = None;
            self.events.push_back(Event::Lost);
        }
        self.fall_back_at = self.lease.is_none().then_some(now + FALL_BACK_AFTER);
        self.attempts = 0;
        let socket = self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.socket);
        socket.reset();
        // Its news is that the lease is gone, which is what we have just decided against.
        while socket.poll().is_some() {}
        self.forget_address();
        self.poll_socket(now);
    }

    /// The next frame to send; may answer anew after every `&mut` call.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.device.poll_transmit()
    }

    /// The next change of the lease; may answer anew after every `&mut` call.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.socket_at, self.expires_at, self.fall_back_at, self.link_local.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn poll_socket(&mut self, now: Instant) {
        let waiting = self.device.transmit_len();
        // RFC 2131 4.1: 4 s, doubled up to 64 s, give or take a second.
        let min = Duration::from_secs((4 << self.attempts.min(4)) - 1);
        let spacing = self.entropy.delay(min, Duration::from_secs(2));
        let socket = self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.socket);
        let mut retry = socket.get_retry_config();
        retry.discover_timeout = spacing.into();
        retry.initial_request_timeout = smoltcp::time::Duration::from_secs(4);
        socket.set_retry_config(retry);

        let at = smol(now);
        while self.interface.poll_ingress_single(at, &mut self.device, &mut self.sockets)
            != PollIngressSingleResult::None
        {
            self.drain_socket(now);
        }
        if now >= self.hold_until {
            self.interface.poll_egress(at, &mut self.device, &mut self.sockets);
            self.drain_socket(now);
        }
        if self.device.transmit_len() > waiting {
            self.attempts = self.attempts.saturating_add(1);
        }
        let due = self.interface.poll_at(at, &self.sockets).map(ours);
        self.socket_at = due.map(|at| at.max(self.hold_until));
    }

    /// Stays silent for a while: 1 s, doubled with each failure up to 64 s.
    fn hold(&mut self, now: Instant) {
        self.hold_until = now + Duration::from_secs(1 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
    }

    fn drain_socket(&mut self, now: Instant) {
        loop {
            let socket = self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.socket);
            match socket.poll() {
                None => return,
                Some(dhcpv4::Event::Deconfigured) => {
                    self.forget_address();
                    // The first poll of a new socket says this too.
                    if matches!(&self.lease, Some(lease) if lease.origin != Origin::LinkLocal) {
                        self.lose(now);
                    }
                }
                Some(dhcpv4::Event::Configured(config)) => {
                    let lease = Lease::from_dhcp(&config, &self.details);
                    let cidr = config.address;
                    self.interface.update_ip_addrs(|addresses| {
                        addresses.clear();
                        // It has just been emptied.
                        let _ = addresses.push(IpCidr::Ipv4(cidr));
                    });
                    self.interface.routes_mut().remove_default_ipv4_route();
                    if let Some(router) = lease.router {
                        // One route always fits.
                        let _ = self.interface.routes_mut().add_default_ipv4_route(router);
                    }
                    self.acquire(now, lease);
                }
            }
        }
    }

    fn acquire(&mut self, now: Instant, lease: Lease) {
        self.fall_back_at = None;
        self.expires_at = None;
        if let Origin::Dhcp { duration, .. } = lease.origin {
            self.link_local.stop();
            self.expires_at = Some(now + duration);
            if duration >= MIN_GOOD_DURATION {
                self.failures = 0;
            }
        }
        self.attempts = 0;
        let same = matches!(&self.lease, Some(held)
            if held.address == lease.address && held.prefix_len == lease.prefix_len);
        if self.lease.is_some() && !same {
            self.events.push_back(Event::Lost);
        }
        self.lease = Some(lease.clone());
        self.events.push_back(if same { Event::Renewed(lease) } else { Event::Acquired(lease) });
    }

    fn lose(&mut self, now: Instant) {
        self.hold(now);
        self.lease = None;
        self.expires_at = None;
        self.attempts = 0;
        self.fall_back_at = Some(now + FALL_BACK_AFTER);
        self.events.push_back(Event::Lost);
    }

    fn forget_address(&mut self) {
        self.interface.update_ip_addrs(heapless::Vec::clear);
        self.interface.routes_mut().remove_default_ipv4_route();
    }

    fn drain_link_local(&mut self, now: Instant) {
        while let Some(arp) = self.link_local.poll_transmit() {
            self.device.transmit(broadcast(&arp));
        }
        while let Some(event) = self.link_local.poll_event() {
            match event {
                link_local::Event::Claimed(address) => {
                    self.acquire(now, Lease::link_local(address))
                }
                link_local::Event::GivenUp => {
                    self.lease = None;
                    self.events.push_back(Event::Lost);
                }
            }
        }
    }
}

impl fmt::Debug for Dhcp<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // smoltcp's interface cannot be shown.
        let mut shown = formatter.debug_struct("Dhcp");
        shown.field("lease", &self.lease).field("link_local", &self.link_local);
        shown.finish_non_exhaustive()
    }
}

/// The Ethernet frame of an ARP packet to everybody.
fn broadcast(arp: &ArpRepr) -> Vec<u8> {
    let ArpRepr::EthernetIpv4 { source_hardware_addr, .. } = *arp else {
        return Vec::new();
    };
    let ethernet = EthernetRepr {
        src_addr: source_hardware_addr,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    };
    let mut frame = EthernetFrame::new_unchecked(vec![0; ethernet.buffer_len() + arp.buffer_len()]);
    ethernet.emit(&mut frame);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    frame.into_inner()
}

fn smol(at: Instant) -> SmolInstant {
    SmolInstant::from_micros(i64::try_from(at.as_micros()).unwrap_or(i64::MAX))
}

fn ours(at: SmolInstant) -> Instant {
    Instant::from_micros(u64::try_from(at.total_micros()).unwrap_or(0))
}

/// Unanswered time after which an interface gets a link-local address: two DISCOVERs, and long
/// before a user gives up. DHCP is asked on, and wins when it answers.
pub const FALL_BACK_AFTER: Duration = Duration::from_secs(10);

/// A label of the domain name system (RFC 1035 2.3.4).
const MAX_HOSTNAME_LEN: usize = 63;
const OPT_HOST_NAME: u8 = 12;
/// Subnet mask, router, domain name servers, NTP servers.
const REQUESTED: &[u8] = &[1, 3, 6, lease::OPT_NTP_SERVERS];
/// Leases shorter than this are treated like refusals when they end.
const MIN_GOOD_DURATION: Duration = Duration::from_secs(60);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failing test")]
mod tests;
