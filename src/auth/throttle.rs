//! Slows down the guessing of passwords.
//!
//! After `MAX_FAILURES` within a minute, attempts from an address are looked at one at a time,
//! a quarter of a second apart, and each failure is answered `PENALTY` later. Right credentials
//! wait for their turn only, never for the penalty of others: a recorder with an old password
//! must not lock its host out. That the verdict itself waits for a turn is what makes hanging up
//! early useless to a guesser.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use log::warn;

use crate::time::Instant;

/// Recent failures by network.
#[derive(Debug, Default)]
pub struct Throttle {
    networks: BTreeMap<IpAddr, Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    /// When the latest failures were, oldest first; `MAX_FAILURES` at most.
    times: VecDeque<Instant>,
    /// When the next attempt may be looked at, while throttled.
    turn: Instant,
}

impl Throttle {
    /// When an attempt from `peer` may be looked at: `now`, or later.
    #[must_use]
    pub fn turn(&self, now: Instant, peer: IpAddr) -> Instant {
        match self.networks.get(&network(peer)) {
            Some(failures) if failures.is_throttled(now) => failures.turn.max(now),
            _ => now,
        }
    }

    /// Notes a failure of `peer`; returns when to answer it.
    pub fn failed(&mut self, now: Instant, peer: IpAddr) -> Instant {
        let network = network(peer);
        self.make_room(now, network);
        let failures = self.networks.entry(network).or_default();
        let was_throttled = failures.is_throttled(now);
        if failures.times.len() == MAX_FAILURES {
            failures.times.pop_front();
        }
        failures.times.push_back(now);
        if was_throttled {
            failures.turn = now + TURN;
            return now + PENALTY;
        }
        if failures.is_throttled(now) {
            warn!("auth: logins slowed down peer={network} failures={MAX_FAILURES}");
        }
        now
    }

    /// Forgets what is over; if that is not enough, who failed longest ago.
    fn make_room(&mut self, now: Instant, network: IpAddr) {
        if self.networks.len() < MAX_NETWORKS || self.networks.contains_key(&network) {
            return;
        }
        self.networks.retain(|_, failures| now.since(failures.latest()) < WINDOW);
        if self.networks.len() >= MAX_NETWORKS {
            let oldest = self.networks.iter().min_by_key(|(_, failures)| failures.latest());
            if let Some((&oldest, _)) = oldest {
                self.networks.remove(&oldest);
            }
        }
    }
}

impl Failures {
    fn is_throttled(&self, now: Instant) -> bool {
        let oldest = self.times.front().copied().unwrap_or_default();
        self.times.len() == MAX_FAILURES && now.since(oldest) < WINDOW
    }

    fn latest(&self) -> Instant {
        self.times.back().copied().unwrap_or_default()
    }
}

/// An IPv4 address, or the 64 bits of an IPv6 address that its owner cannot choose.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A person with three passwords in mind, and a recorder with four streams and an old one, stay
/// below it for a while.
const MAX_FAILURES: usize = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// How long a failure waits for its answer.
pub const PENALTY: Duration = Duration::from_secs(5);
/// Four guesses a second are 345 600 a day; a random password of eight letters has 10^14.
const TURN: Duration = Duration::from_millis(250);
/// Some 40 kB; who can fail from more networks than that has a botnet.
const MAX_NETWORKS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    fn peer() -> IpAddr {
        "192.0.2.7".parse().unwrap()
    }

    #[test]
    fn the_eleventh_failure_of_a_minute_is_answered_late() {
        let mut throttle = Throttle::default();
        for n in 0..10 {
            assert_eq!(throttle.turn(at(n), peer()), at(n));
            assert_eq!(throttle.failed(at(n), peer()), at(n));
        }
        assert_eq!(throttle.turn(at(10), peer()), at(10));
        assert_eq!(throttle.failed(at(10), peer()), at(5_010));
        assert_eq!(throttle.turn(at(11), peer()), at(260));
        assert_eq!(throttle.turn(at(300), peer()), at(300));
        let other = "192.0.2.8".parse().unwrap();
        assert_eq!(throttle.failed(at(11), other), at(11));
        assert_eq!(throttle.turn(at(11), other), at(11));
    }

    #[test]
    fn ten_failures_in_more_than_a_minute_slow_nobody_down() {
        let mut throttle = Throttle::default();
        for n in 0..100 {
            assert_eq!(throttle.failed(at(n * 6_000), peer()), at(n * 6_000));
        }
        assert_eq!(throttle.failed(at(599_900), peer()), at(604_900));
        assert_eq!(throttle.failed(at(700_000), peer()), at(700_000));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_failed_last() {
        let mut throttle = Throttle::default();
        for n in 0..10_000_u32 {
            throttle.failed(at(u64::from(n)), Ipv6Addr::from_bits(u128::from(n) << 64).into());
            assert!(throttle.networks.len() <= MAX_NETWORKS);
        }
        let last = Ipv6Addr::from_bits(9_999 << 64);
        assert!(throttle.networks.contains_key(&last.into()));
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_their_failures() {
        let mut throttle = Throttle::default();
        for n in 0..11_u128 {
            throttle.failed(at(0), Ipv6Addr::from_bits((1 << 64) | n).into());
        }
        let sibling = Ipv6Addr::from_bits((1 << 64) | 99).into();
        assert_eq!(throttle.turn(at(1), sibling), at(250));
        assert_eq!(throttle.turn(at(1), Ipv6Addr::from_bits(2 << 64).into()), at(1));
    }

    #[test]
    fn a_full_table_forgets_who_failed_longest_ago_and_nobody_who_is_slowed_down() {
        let other = |n: u32| IpAddr::from(Ipv6Addr::from_bits(u128::from(n) << 64));
        let mut throttle = Throttle::default();
        for _ in 0..10 {
            throttle.failed(at(9_000), peer());
        }
        for n in 1..=255 {
            throttle.failed(at(10_000 + u64::from(n)), other(n));
        }
        assert_eq!(throttle.failed(at(11_000), peer()), at(16_000), "it needs no other's place");
        assert_eq!(throttle.networks.len(), MAX_NETWORKS);
        throttle.failed(at(12_000), other(256));
        assert_eq!(throttle.failed(at(13_000), peer()), at(18_000));
        let is_known = |n| throttle.networks.contains_key(&other(n));
        assert_eq!([1, 2, 255, 256].map(is_known), [false, true, true, true]);
    }

    #[test]
    fn who_is_slowed_down_no_more_is_looked_at_at_once() {
        let mut throttle = Throttle::default();
        for n in 0..10 {
            throttle.failed(at(n), peer());
        }
        throttle.failed(at(59_990), peer());
        assert_eq!(throttle.turn(at(59_991), peer()), at(60_240));
        assert_eq!(throttle.turn(at(60_001), peer()), at(60_001));
    }
}
