//! Turns ARP packets into a claim on an IPv4 link-local address: probe, announce, defend.
//!
//! RFC 3927: 2.1 (selection), 2.2.1 (probing), 2.4 (announcing), 2.5 (conflicts).
//!
//! Not implemented: broadcasting the kernel's own ARP replies for the address (2.5, last paragraph).

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::wire::{ArpOperation, ArpRepr, EthernetAddress};

use super::entropy::Entropy;
use crate::time::Instant;

/// What became of the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The address is ours until told otherwise.
    Claimed(Ipv4Addr),
    /// Somebody else insists on it; another one is being probed.
    GivenUp,
}

#[derive(Debug)]
pub(super) struct LinkLocal {
    mac: EthernetAddress,
    /// Draws the addresses. Seeded by the MAC address, so that a camera finds its own again (2.1).
    addresses: Entropy,
    /// Draws the delays.
    delays: Entropy,
    /// The address in use, or to be tried next.
    candidate: Ipv4Addr,
    /// Conflicts since the claim was started; slows the search down (2.2.1).
    conflicts: u32,
    state: State,
    transmits: VecDeque<ArpRepr>,
    events: VecDeque<Event>,
}

#[derive(Debug)]
enum State {
    Off,
    /// `sent` probes are out; at `next_at` comes the next one, or after the last the claim.
    Probing {
        sent: u8,
        next_at: Instant,
    },
    /// The address is ours; `next_at` is when the next announcement is due, if any is.
    Claimed {
        announced: u8,
        next_at: Option<Instant>,
        defended_at: Option<Instant>,
    },
}

impl LinkLocal {
    pub(super) fn new(mac: EthernetAddress, seed: u64) -> Self {
        let octets = mac.0.iter().fold(0, |seed, &octet| (seed << 8) | u64::from(octet));
        let mut addresses = Entropy::new(octets);
        let candidate = draw(&mut addresses);
        Self {
            mac,
            addresses,
            delays: Entropy::new(seed),
            candidate,
            conflicts: 0,
            state: State::Off,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Starts to look for an address, unless it is being done.
    pub(super) fn start(&mut self, now: Instant) {
        if matches!(self.state, State::Off) {
            self.conflicts = 0;
            self.probe(now);
        }
    }

    /// Lets go of everything, without an event.
    pub(super) fn stop(&mut self) {
        self.state = State::Off;
        self.transmits.clear();
        self.events.clear();
    }

    pub(super) fn receive(&mut self, now: Instant, arp: &ArpRepr) {
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } = *arp
        else {
            return;
        };
        if source_hardware_addr == self.mac {
            return;
        }
        let uses = source_protocol_addr == self.candidate;
        // 2.2.1: an ARP probe for the same address is a conflict only while we probe ourselves.
        let probes = operation == ArpOperation::Request
            && source_protocol_addr.is_unspecified()
            && target_protocol_addr == self.candidate;
        match &mut self.state {
            State::Off => {}
            State::Probing { .. } if uses || probes => {
                self.draw_another();
                self.probe(now);
            }
            State::Claimed { defended_at, .. } if uses => {
                let again = defended_at.is_some_and(|at| now.since(at) < DEFEND_INTERVAL);
                if again {
                    // 2.5 (b): a second conflict within the interval ends the claim.
                    self.events.push_back(Event::GivenUp);
                    self.draw_another();
                    self.probe(now);
                } else {
                    *defended_at = Some(now);
                    self.announce();
                }
            }
            State::Probing { .. } | State::Claimed { .. } => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Probing { sent, next_at } if now >= next_at => {
                if sent == PROBE_NUM {
                    self.state = State::Claimed {
                        announced: 1,
                        next_at: Some(now + ANNOUNCE_INTERVAL),
                        defended_at: None,
                    };
                    self.events.push_back(Event::Claimed(self.candidate));
                    self.announce();
                } else {
                    self.send(Ipv4Addr::UNSPECIFIED);
                    let sent = sent + 1;
                    let wait = if sent == PROBE_NUM {
                        ANNOUNCE_WAIT
                    } else {
                        self.delays.delay(PROBE_MIN, PROBE_MAX - PROBE_MIN)
                    };
                    self.state = State::Probing { sent, next_at: now + wait };
                }
            }
            State::Claimed { announced, next_at: Some(at), defended_at } if now >= at => {
                let announced = announced + 1;
                let next_at = (announced < ANNOUNCE_NUM).then_some(now + ANNOUNCE_INTERVAL);
                self.state = State::Claimed { announced, next_at, defended_at };
                self.announce();
            }
            State::Off | State::Probing { .. } | State::Claimed { .. } => {}
        }
    }

    /// The next ARP packet, always to Ethernet's broadcast address.
    #[must_use]
    pub(super) fn poll_transmit(&mut self) -> Option<ArpRepr> {
        self.transmits.pop_front()
    }

    #[must_use]
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    #[must_use]
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Off => None,
            State::Probing { next_at, .. } => Some(next_at),
            State::Claimed { next_at, .. } => next_at,
        }
    }

    fn probe(&mut self, now: Instant) {
        let min =
            if self.conflicts >= MAX_CONFLICTS { RATE_LIMIT_INTERVAL } else { Duration::ZERO };
        let next_at = now + self.delays.delay(min, PROBE_WAIT);
        self.state = State::Probing { sent: 0, next_at };
    }

    fn draw_another(&mut self) {
        self.conflicts = self.conflicts.saturating_add(1);
        self.candidate = draw(&mut self.addresses);
    }

    fn announce(&mut self) {
        self.send(self.candidate);
    }

    /// Queues a request for the candidate: a probe when `source` is unspecified, else an
    /// announcement.
    fn send(&mut self, source: Ipv4Addr) {
        if self.transmits.len() < MAX_TRANSMITS {
            self.transmits.push_back(ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Request,
                source_hardware_addr: self.mac,
                source_protocol_addr: source,
                target_hardware_addr: EthernetAddress([0; 6]),
                target_protocol_addr: self.candidate,
            });
        }
    }
}

/// 2.1: 169.254.1.0 to 169.254.254.255, uniformly.
fn draw(addresses: &mut Entropy) -> Ipv4Addr {
    let offset = u32::try_from(addresses.below(254 * 256)).unwrap_or(0);
    Ipv4Addr::from_bits(Ipv4Addr::new(169, 254, 1, 0).to_bits() + offset)
}

// RFC 3927 section 9.
const PROBE_WAIT: Duration = Duration::from_secs(1);
const PROBE_NUM: u8 = 3;
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(2);
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
const ANNOUNCE_NUM: u8 = 2;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
const MAX_CONFLICTS: u32 = 10;
const RATE_LIMIT_INTERVAL: Duration = Duration::from_secs(60);
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Packets not yet taken: each timeout or conflict makes one, and the caller drains after each.
const MAX_TRANSMITS: usize = 4;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failing test")]
mod tests {
    use super::*;

    const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
    const OTHER: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);

    fn arp(source: Ipv4Addr, target: Ipv4Addr) -> ArpRepr {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: OTHER,
            source_protocol_addr: source,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: target,
        }
    }

    /// Lets time pass until the machine wants nothing more; what it sent, when, and its events.
    fn run(machine: &mut LinkLocal) -> (Vec<(Instant, ArpRepr)>, Vec<Event>) {
        let (mut sent, mut events) = (Vec::new(), Vec::new());
        while let Some(now) = machine.poll_timeout() {
            machine.handle_timeout(now);
            sent.extend(std::iter::from_fn(|| machine.poll_transmit()).map(|arp| (now, arp)));
            events.extend(std::iter::from_fn(|| machine.poll_event()));
        }
        (sent, events)
    }

    fn source(arp: &ArpRepr) -> Ipv4Addr {
        let ArpRepr::EthernetIpv4 { source_protocol_addr, .. } = *arp else {
            unreachable!("only Ethernet is sent")
        };
        source_protocol_addr
    }

    #[test]
    fn a_free_address_is_probed_three_times_claimed_and_announced_twice() {
        for seed in 0..100 {
            let mut machine = LinkLocal::new(MAC, seed);
            machine.start(Instant::ZERO);
            let (sent, events) = run(&mut machine);
            let claimed = machine.candidate;
            assert_eq!(events, [Event::Claimed(claimed)]);
            let sources: Vec<_> = sent.iter().map(|(_, arp)| source(arp)).collect();
            let none = Ipv4Addr::UNSPECIFIED;
            assert_eq!(sources, [none, none, none, claimed, claimed]);
            let at: Vec<_> = sent.iter().map(|&(at, _)| at).collect();
            let gaps: Vec<_> = at.windows(2).map(|pair| pair[1].since(pair[0])).collect();
            assert!(at[0].since(Instant::ZERO) <= PROBE_WAIT);
            assert!(gaps[..2].iter().all(|gap| (PROBE_MIN..=PROBE_MAX).contains(gap)));
            assert_eq!(gaps[2..], [ANNOUNCE_WAIT, ANNOUNCE_INTERVAL]);
        }
    }

    #[test]
    fn every_drawn_address_is_in_the_allowed_range() {
        let mut addresses = Entropy::new(7);
        for _ in 0..100_000 {
            let [a, b, c, _] = draw(&mut addresses).octets();
            assert_eq!((a, b), (169, 254));
            assert!((1..=254).contains(&c));
        }
    }

    #[test]
    fn a_camera_finds_its_own_address_again_after_a_restart() {
        assert_eq!(LinkLocal::new(MAC, 1).candidate, LinkLocal::new(MAC, 2).candidate);
        assert_ne!(LinkLocal::new(MAC, 1).candidate, LinkLocal::new(OTHER, 1).candidate);
    }

    #[test]
    fn a_conflict_while_probing_picks_another_address() {
        for probing in [false, true] {
            let mut machine = LinkLocal::new(MAC, 3);
            machine.start(Instant::ZERO);
            let first = machine.candidate;
            let heard = if probing { arp(Ipv4Addr::UNSPECIFIED, first) } else { arp(first, first) };
            machine.receive(Instant::ZERO, &heard);
            assert_ne!(machine.candidate, first);
            let (_, events) = run(&mut machine);
            assert_eq!(events, [Event::Claimed(machine.candidate)]);
        }
    }

    #[test]
    fn our_own_packets_heard_again_are_no_conflict() {
        let mut machine = LinkLocal::new(MAC, 3);
        machine.start(Instant::ZERO);
        let first = machine.candidate;
        let mut own = arp(Ipv4Addr::UNSPECIFIED, first);
        if let ArpRepr::EthernetIpv4 { source_hardware_addr, .. } = &mut own {
            *source_hardware_addr = MAC;
        }
        machine.receive(Instant::ZERO, &own);
        assert_eq!(machine.candidate, first);
    }

    #[test]
    fn ten_conflicts_slow_the_search_to_one_address_a_minute() {
        let mut machine = LinkLocal::new(MAC, 3);
        machine.start(Instant::ZERO);
        for count in 1..=12 {
            let candidate = machine.candidate;
            machine.receive(Instant::ZERO, &arp(candidate, candidate));
            let wait = machine.poll_timeout().unwrap().since(Instant::ZERO);
            assert_eq!(wait >= RATE_LIMIT_INTERVAL, count >= MAX_CONFLICTS, "{count}: {wait:?}");
        }
    }

    #[test]
    fn a_claimed_address_is_defended_once_and_given_up_on_the_second_conflict() {
        for (pause_s, kept) in [(9, false), (10, true)] {
            let mut machine = LinkLocal::new(MAC, 3);
            machine.start(Instant::ZERO);
            let _ = run(&mut machine);
            let claimed = machine.candidate;
            let now = Instant::from_micros(3_600_000_000);
            machine.receive(now, &arp(claimed, claimed));
            assert_eq!(machine.poll_transmit().as_ref().map(source), Some(claimed));
            assert_eq!(machine.poll_event(), None);
            let again = now + Duration::from_secs(pause_s);
            machine.receive(again, &arp(claimed, claimed));
            assert_eq!(machine.poll_event(), (!kept).then_some(Event::GivenUp));
            assert_eq!(machine.candidate == claimed, kept);
        }
    }

    #[test]
    fn a_question_for_a_claimed_address_is_no_conflict() {
        let mut machine = LinkLocal::new(MAC, 3);
        machine.start(Instant::ZERO);
        let _ = run(&mut machine);
        machine.receive(Instant::ZERO, &arp(Ipv4Addr::UNSPECIFIED, machine.candidate));
        machine.receive(Instant::ZERO, &arp(Ipv4Addr::new(169, 254, 9, 9), machine.candidate));
        assert_eq!(machine.poll_transmit(), None);
        assert_eq!(machine.poll_event(), None);
    }
}
