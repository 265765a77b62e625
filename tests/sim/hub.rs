//! A switch with bad cables: frames are delayed, lost, duplicated and overtake each other.

use std::collections::BTreeMap;
use std::time::Duration;

use ocellus::time::Instant;
use smoltcp::wire::{EthernetAddress, EthernetFrame};

/// The cable between one node and the switch; each of its faults hits both directions.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) plugged: bool,
    pub(crate) delay: Duration,
    /// Up to this much more, drawn for each frame: a large one reorders.
    pub(crate) jitter: Duration,
    pub(crate) loss_percent: u64,
    pub(crate) duplicate_percent: u64,
}

impl Wire {
    pub(crate) const fn good() -> Self {
        Self {
            plugged: true,
            delay: Duration::from_micros(500),
            jitter: Duration::ZERO,
            loss_percent: 0,
            duplicate_percent: 0,
        }
    }
}

/// Nodes are known by the order in which they were attached.
#[derive(Debug)]
pub(crate) struct Hub {
    ports: Vec<(EthernetAddress, Wire)>,
    /// By time of arrival, then by age.
    flying: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sent: u64,
    random: Random,
}

impl Hub {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { ports: Vec::new(), flying: BTreeMap::new(), sent: 0, random: Random(seed) }
    }

    pub(crate) fn attach(&mut self, mac: EthernetAddress, wire: Wire) -> usize {
        self.ports.push((mac, wire));
        self.ports.len() - 1
    }

    pub(crate) fn wire(&mut self, node: usize) -> &mut Wire {
        &mut self.ports[node].1
    }

    /// Takes a frame from a node and lets it fly to everybody it is for.
    pub(crate) fn send(&mut self, now: Instant, from: usize, frame: &[u8]) {
        let target = EthernetFrame::new_checked(frame).unwrap().dst_addr();
        for to in (0..self.ports.len()).filter(|&to| to != from) {
            if !target.is_broadcast() && self.ports[to].0 != target {
                continue;
            }
            let duplicate = self.random.percent(self.ports[to].1.duplicate_percent);
            for _ in 0..=u8::from(duplicate) {
                self.fly(now, from, to, frame);
            }
        }
    }

    fn fly(&mut self, now: Instant, from: usize, to: usize, frame: &[u8]) {
        let mut at = now;
        for port in [from, to] {
            let wire = self.ports[port].1.clone();
            if !wire.plugged || self.random.percent(wire.loss_percent) {
                return;
            }
            at = at + wire.delay + self.random.up_to(wire.jitter);
        }
        self.sent += 1;
        self.flying.insert((at, self.sent), (to, frame.to_vec()));
    }

    /// When the next frame arrives.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.flying.keys().next().map(|&(at, _)| at)
    }

    /// The next frame that has arrived; none over a cable that was unplugged meanwhile.
    pub(crate) fn poll_arrived(&mut self, now: Instant) -> Option<(usize, Vec<u8>)> {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            let (_, (to, frame)) = self.flying.pop_first().unwrap();
            if self.ports[to].1.plugged {
                return Some((to, frame));
            }
        }
        None
    }
}

/// SplitMix64: repeatable, and that is all.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) const fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn up_to(&mut self, longest: Duration) -> Duration {
        let micros = u64::try_from(longest.as_micros()).unwrap();
        Duration::from_micros(self.below(micros + 1))
    }
}
