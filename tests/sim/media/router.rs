//! Joins all hosts by links that delay, lose, double, damage and reorder packets.
//!
//! A packet crosses the link of its sender and that of its receiver. What a link does to it is
//! drawn from the router's own numbers, in the order in which packets come.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ocellus::time::Instant;

use crate::hub::Random;

/// The link between a host and the router: the same for both directions.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) is_up: bool,
    pub(crate) delay: Duration,
    /// Up to this much more, drawn for each packet.
    pub(crate) jitter: Duration,
    /// Whether packets may overtake each other for it.
    pub(crate) reorders: bool,
    /// In percent: that a packet is lost after one that was not, and after one that was.
    pub(crate) loss: (u64, u64),
    pub(crate) duplicate_percent: u64,
    pub(crate) corrupt_percent: u64,
    /// Longer packets vanish.
    pub(crate) mtu: usize,
    pub(crate) bytes_per_second: Option<u64>,
}

impl Link {
    pub(crate) const fn good(delay: Duration) -> Self {
        Self {
            is_up: true,
            delay,
            jitter: Duration::ZERO,
            reorders: false,
            loss: (0, 0),
            duplicate_percent: 0,
            corrupt_percent: 0,
            mtu: 1_500,
            bytes_per_second: None,
        }
    }
}

/// What one direction of a link remembers.
#[derive(Clone, Copy, Debug, Default)]
struct Direction {
    has_lost: bool,
    busy_until: Instant,
    last_arrival: Instant,
}

#[derive(Debug)]
struct Port {
    address: Ipv4Addr,
    link: Link,
    directions: [Direction; 2],
}

/// Hosts are known by the order in which they were attached.
#[derive(Debug)]
pub(crate) struct Router {
    ports: Vec<Port>,
    /// By time of arrival, then by age.
    flying: BTreeMap<(Instant, u64), (Way, Vec<u8>)>,
    sent: u64,
    random: Random,
    /// Of all that has arrived: when, where and what.
    pub(crate) digest: u64,
}

impl Router {
    pub(crate) const fn new(seed: u64) -> Self {
        let random = Random(seed);
        Self { ports: Vec::new(), flying: BTreeMap::new(), sent: 0, random, digest: 0 }
    }

    pub(crate) fn attach(&mut self, address: Ipv4Addr, link: Link) {
        self.ports.push(Port { address, link, directions: [Direction::default(); 2] });
    }

    pub(crate) fn link(&mut self, host: usize) -> &mut Link {
        &mut self.ports[host].link
    }

    /// Takes a packet from a host.
    pub(crate) fn send(&mut self, now: Instant, from: usize, packet: Vec<u8>) {
        self.enter(now, (from, OUT), packet);
    }

    /// Brings a packet from the router on its way; one for a group goes to all but the sender.
    fn forward(&mut self, now: Instant, from: usize, packet: &[u8]) {
        let to = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
        // What hosts say about their groups is between them and the router.
        if packet[9] == IGMP {
            return;
        }
        for host in 0..self.ports.len() {
            if host != from && (to.is_multicast() || self.ports[host].address == to) {
                self.enter(now, (host, IN), packet.to_vec());
            }
        }
    }

    fn enter(&mut self, now: Instant, way: Way, mut packet: Vec<u8>) {
        let chance = self.ports[way.0].link.duplicate_percent;
        if chance > 0 && self.random.percent(chance) {
            let mut twin = packet.clone();
            if let Some(at) = self.cross(now, way, &mut twin) {
                self.fly(at, way, twin);
            }
        }
        if let Some(at) = self.cross(now, way, &mut packet) {
            self.fly(at, way, packet);
        }
    }

    fn fly(&mut self, at: Instant, way: Way, packet: Vec<u8>) {
        self.sent += 1;
        self.flying.insert((at, self.sent), (way, packet));
    }

    /// When a packet that enters a link at `at` leaves it; `None` when it never does.
    fn cross(&mut self, at: Instant, (port, direction): Way, packet: &mut [u8]) -> Option<Instant> {
        let random = &mut self.random;
        let Port { link, directions, .. } = &mut self.ports[port];
        let state = &mut directions[direction];
        let (first, next) = link.loss;
        let chance = if state.has_lost { next } else { first };
        state.has_lost = chance > 0 && random.percent(chance);
        if !link.is_up || state.has_lost || packet.len() > link.mtu {
            return None;
        }
        let mut departs = at;
        if let Some(bytes_per_second) = link.bytes_per_second {
            let len = u64::try_from(packet.len()).unwrap();
            departs = at.max(state.busy_until);
            if departs.since(at) > BUFFERED {
                return None;
            }
            departs += Duration::from_micros(len * 1_000_000 / bytes_per_second);
            state.busy_until = departs;
        }
        if link.corrupt_percent > 0 && random.percent(link.corrupt_percent) {
            let bit = random.below(8 * u64::try_from(packet.len()).unwrap());
            packet[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
        }
        let mut arrival = departs + link.delay;
        if !link.jitter.is_zero() {
            arrival += random.up_to(link.jitter);
        }
        if !link.reorders {
            arrival = arrival.max(state.last_arrival);
        }
        state.last_arrival = arrival;
        Some(arrival)
    }

    /// When the next packet gets to the end of a link.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.flying.keys().next().map(|&(at, _)| at)
    }

    /// The next packet that has arrived; none over a link that went down meanwhile.
    pub(crate) fn poll_arrived(&mut self, now: Instant) -> Option<(usize, Vec<u8>)> {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            let ((at, _), ((port, direction), packet)) = self.flying.pop_first().unwrap();
            if !self.ports[port].link.is_up {
                continue;
            }
            if direction == IN {
                self.note(at, port, &packet);
                return Some((port, packet));
            }
            self.forward(at, port, &packet);
        }
        None
    }

    fn note(&mut self, at: Instant, to: usize, packet: &[u8]) {
        let head = [at.as_micros(), u64::try_from(to).unwrap()];
        let words = packet.chunks(8).map(|chunk| {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(bytes)
        });
        for word in head.into_iter().chain(words) {
            // FNV-1a, by words.
            self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }
}

/// A host's link, and from the host or to it.
type Way = (usize, usize);

const IGMP: u8 = 2;
const OUT: usize = 0;
const IN: usize = 1;
/// What waits longer for its turn on a slow link is dropped by the router.
const BUFFERED: Duration = Duration::from_millis(500);
