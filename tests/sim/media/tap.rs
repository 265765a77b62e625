//! Listens at the camera's own cable: every packet that it sends or gets.
//!
//! What goes out by UDP is held against who asked for it, and followed in the order of sending. No
//! loss happens before this point, so there is no excuse.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ocellus::rtsp::{LEAVING_TIMEOUT, SESSION_TIMEOUT};
use ocellus::time::Instant;
use smoltcp::wire::{Icmpv4Packet, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};

use super::camera::RTP_PORT;
use super::reports::{Reports, has_bye};
use super::strict::{Packet, Strict};
use super::truth::{Checked, Rule, Truth, broken, hold};

/// What players tell about what they have agreed with the camera.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    /// This RTP address shall get packets, the next port RTCP; asked for over the connection from
    /// `carrier`.
    Asked { rtp: SocketAddr, carrier: SocketAddr },
    /// Nothing is sent now: the session is set up, or paused.
    Fresh { rtp: SocketAddr, is_new: bool },
    /// RTP-Info: the first packet.
    Promised { rtp: SocketAddr, first: (u16, u32) },
    /// Torn down by its viewer.
    Over { rtp: SocketAddr, carrier: SocketAddr },
}

#[derive(Debug, Default)]
pub(crate) struct Tap {
    /// By RTP address.
    flows: BTreeMap<SocketAddr, Flow>,
    /// Hosts that have ever said something.
    heard: Vec<Ipv4Addr>,
    /// When something last came over TCP, by the address it came from.
    streams: BTreeMap<SocketAddr, Instant>,
    /// Packets that went by UDP.
    pub(crate) datagrams: u64,
}

/// What goes to one UDP address.
#[derive(Debug, Default)]
struct Flow {
    /// Who has asked for it, by the address of the connection, and the last sign of life.
    askers: BTreeMap<SocketAddr, Asker>,
    strict: Strict,
    reports: Reports,
    /// Sequence number and timestamp of IDRs' first packets, newest last.
    starts: Vec<(u16, u32)>,
    is_fresh: bool,
    packets: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Asker {
    alive: Instant,
    /// Said BYE, and nothing since.
    left: Option<Instant>,
}

impl Tap {
    pub(crate) fn note(&mut self, now: Instant, note: &Note) -> Checked<()> {
        match *note {
            Note::Asked { rtp, carrier } => {
                let flow = self.flows.entry(rtp).or_default();
                if !rtp.ip().is_multicast() {
                    flow.askers.clear();
                }
                flow.askers.insert(carrier, Asker { alive: now, left: None });
            }
            Note::Fresh { rtp, is_new } if !rtp.ip().is_multicast() => {
                let flow = self.flows.entry(rtp).or_default();
                flow.strict.cut();
                flow.is_fresh = true;
                flow.starts.clear();
                if is_new {
                    (flow.strict, flow.reports, flow.packets) = Default::default();
                }
            }
            Note::Fresh { .. } => {}
            Note::Promised { rtp, first } => {
                let starts = self.flows.get(&rtp).map_or(&[][..], |flow| &flow.starts);
                // Others watch the same group: it is one of the IDRs.
                let is_true = match rtp.ip().is_multicast() {
                    true => starts.contains(&first),
                    false => starts.first() == Some(&first),
                };
                hold(is_true, Rule::RtpInfo, || format!("{rtp}: {first:?}, but sent {starts:?}"))?;
            }
            Note::Over { rtp, carrier } => {
                if let Some(flow) = self.flows.get_mut(&rtp) {
                    flow.askers.remove(&carrier);
                    flow.strict.cut();
                }
            }
        }
        Ok(())
    }

    /// A viewer over TCP has not been silent for longer than the kernel bears.
    pub(crate) fn check_stream(&self, now: Instant, peer: SocketAddr) -> Checked<()> {
        let Some(&heard) = self.streams.get(&peer) else { return Ok(()) };
        hold(now.since(heard) <= SILENCE_MAX, Rule::Outlived, || {
            format!("{peer} is counted, and silent for {:?}", now.since(heard))
        })
    }

    /// A packet for the camera; what it says that cannot be reached.
    pub(crate) fn incoming(&mut self, now: Instant, packet: &[u8]) -> Option<SocketAddr> {
        if !is_intact(packet) {
            return None;
        }
        let (from, _) = addresses(packet);
        if !self.heard.contains(&from) {
            self.heard.push(from);
        }
        match packet[9] {
            TCP => {
                let header_len = 4 * usize::from(packet[IP_LEN + 12] >> 4);
                let carrier = SocketAddr::new(from.into(), port(packet, IP_LEN));
                self.streams.insert(carrier, now);
                if packet.len() > IP_LEN + header_len {
                    let flows = self.flows.values_mut();
                    let askers = flows.filter_map(|flow| flow.askers.get_mut(&carrier));
                    askers.for_each(|asker| *asker = Asker { alive: now, left: None });
                }
                None
            }
            UDP => {
                let rtp = SocketAddr::new(from.into(), port(packet, IP_LEN) & !1);
                let is_bye = has_bye(&packet[IP_LEN + UDP_LEN..]);
                let flow = self.flows.get_mut(&rtp);
                for asker in flow.into_iter().flat_map(|flow| flow.askers.values_mut()) {
                    // A second BYE changes nothing.
                    let left = is_bye.then(|| asker.left.unwrap_or(now));
                    *asker = Asker { alive: now, left };
                }
                None
            }
            ICMP if packet[IP_LEN..IP_LEN + 2] == PORT_UNREACHABLE => {
                let inner = packet.get(IP_LEN + 8..).filter(|it| it.len() >= IP_LEN + 4)?;
                let (_, to) = addresses(inner);
                Some(SocketAddr::new(to.into(), port(inner, IP_LEN + 2)))
            }
            _ => None,
        }
    }

    /// A packet of the camera's.
    pub(crate) fn outgoing(&mut self, now: Instant, truth: &Truth, packet: &[u8]) -> Checked<()> {
        let (_, to) = addresses(packet);
        if packet[9] != UDP {
            return hold(to.is_multicast() || self.heard.contains(&to), Rule::Stranger, || {
                format!("to {to}, which never said a word")
            });
        }
        self.datagrams += 1;
        let (from, to_port) = (port(packet, IP_LEN), port(packet, IP_LEN + 2));
        let is_rtp = from == RTP_PORT;
        let rtp_port = if is_rtp { to_port } else { to_port.wrapping_sub(1) };
        let rtp = SocketAddr::new(IpAddr::V4(to), rtp_port);
        let Some(flow) = self.flows.get_mut(&rtp).filter(|flow| !flow.askers.is_empty()) else {
            return broken(Rule::Stranger, format!("to {to}:{to_port}, which did not ask"));
        };
        // Who listens to a group may be silent for as long as the connection is there.
        let is_held = |carrier| {
            let heard = self.streams.get(carrier).filter(|_| to.is_multicast());
            heard.is_some_and(|&heard| now.since(heard) <= SILENCE_MAX + SESSION_TIMEOUT)
        };
        let mut askers = flow.askers.iter();
        let is_alive = askers.any(|(carrier, asker)| asker.is_alive(now) || is_held(carrier));
        hold(is_alive, Rule::Outlived, || format!("to {rtp}, which is gone: {:?}", flow.askers))?;
        let bytes = &packet[IP_LEN + UDP_LEN..];
        if is_rtp { flow.media(truth, bytes) } else { flow.report(now, truth, bytes) }
    }
}

impl Flow {
    fn media(&mut self, truth: &Truth, bytes: &[u8]) -> Checked<()> {
        let packet = Packet::parse(bytes, truth)?;
        if packet.is_sps() {
            self.starts.push((packet.sequence, packet.timestamp));
            // The first one stays: RTP-Info may name it.
            if self.starts.len() > STARTS {
                self.starts.remove(1);
            }
        }
        hold(!self.is_fresh || packet.is_sps(), Rule::Sequence, || {
            format!("{} is first, and no IDR", packet.sequence)
        })?;
        self.is_fresh = false;
        self.packets += 1;
        self.strict.packet(truth, bytes).map(|_| ())
    }

    fn report(&mut self, now: Instant, truth: &Truth, bytes: &[u8]) -> Checked<()> {
        let count = self.reports.receive(now, truth, bytes)?;
        if self.reports.has_ended {
            // A group begins anew for who comes next.
            (self.reports, self.packets) = Default::default();
            self.strict.cut();
            self.is_fresh = true;
            return Ok(());
        }
        // What is dropped behind a report was counted in it.
        let is_true =
            if self.strict.has_gap { count >= self.packets } else { count == self.packets };
        hold(is_true, Rule::Report, || format!("{count} packets reported, {} sent", self.packets))
    }
}

impl Asker {
    fn is_alive(&self, now: Instant) -> bool {
        now.since(self.alive) <= SESSION_TIMEOUT + SLACK
            && self.left.is_none_or(|left| now.since(left) <= LEAVING_TIMEOUT + SLACK)
    }
}

fn addresses(packet: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
    let at = |at: usize| Ipv4Addr::from(*packet[at..at + 4].as_array().unwrap());
    (at(12), at(16))
}

/// What was damaged on the way is nobody's word.
fn is_intact(packet: &[u8]) -> bool {
    let Ok(ip) = Ipv4Packet::new_checked(packet) else { return false };
    let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
    let payload = ip.payload();
    ip.verify_checksum()
        && match ip.next_header() {
            IpProtocol::Tcp => {
                TcpPacket::new_checked(payload).is_ok_and(|it| it.verify_checksum(&from, &to))
            }
            IpProtocol::Udp => {
                UdpPacket::new_checked(payload).is_ok_and(|it| it.verify_checksum(&from, &to))
            }
            IpProtocol::Icmp => {
                Icmpv4Packet::new_checked(payload).is_ok_and(|it| it.verify_checksum())
            }
            _ => true,
        }
}

fn port(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

const IP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const PORT_UNREACHABLE: [u8; 2] = [3, 3];
/// IDRs that are remembered for a PLAY whose answer is late.
const STARTS: usize = 64;
/// Two times fifteen seconds, and what the timers of the stack are late.
const SILENCE_MAX: Duration = Duration::from_secs(33);
/// PLAY counts as a sign of life when it is answered, which is up to a second later.
const SLACK: Duration = Duration::from_secs(2);
