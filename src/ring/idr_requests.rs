//! "IDR, please": the one word that goes from consumers back to the encoder.
//!
//! A stream of IDR pictures costs bitrate for everybody, so the word is limited: forced IDRs are
//! 200 ms apart, and a bucket of 4 is refilled at 1 per second. When it is empty, the periodic IDR
//! serves. Requests that are waiting are one request.

use std::time::Duration;

use super::sync::{AtomicBool, AtomicU64, Ordering};
use crate::time::Instant;

/// Shared by all consumers of a stream and its encoder.
#[derive(Debug, Default)]
pub struct IdrRequests {
    is_pending: AtomicBool,
    /// The time, in microseconds, at which the bucket will be full again.
    ///
    /// One number holds the whole bucket: every request moves it one refill further.
    full_at: AtomicU64,
}

impl IdrRequests {
    /// Asks for an IDR; `false` when the bucket is empty.
    pub fn request(&self, now: Instant) -> bool {
        if self.is_pending.load(Ordering::Relaxed) {
            return true;
        }
        let now = now.as_micros();
        let spend = |full_at: u64| {
            let next = full_at.max(now) + REFILL_US;
            (next - now <= BUCKET_LEN * REFILL_US).then_some(next)
        };
        if self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_err() {
            return false;
        }
        self.is_pending.store(true, Ordering::Release);
        true
    }

    /// Whether somebody waits for an IDR.
    pub fn is_pending(&self) -> bool {
        self.is_pending.load(Ordering::Relaxed)
    }

    /// Whether the next picture shall be an IDR: somebody asked, and the last one is old enough.
    ///
    /// For the encoder's thread only. A request that comes too early stays.
    pub fn take(&self, now: Instant, last_idr: Instant) -> bool {
        now.since(last_idr) >= APART && self.is_pending.swap(false, Ordering::Relaxed)
    }

    /// An IDR was made anyway: what was asked for has been served, and costs nothing.
    ///
    /// Without that, a hundred players that start together would empty the bucket with two IDRs:
    /// for each, one asks for it and one more while it is being encoded.
    pub fn clear(&self) {
        if self.is_pending.swap(false, Ordering::Acquire) {
            // The request that is seen here has added as much before it became visible.
            self.full_at.fetch_sub(REFILL_US, Ordering::Relaxed);
        }
    }
}

/// Between two forced IDRs.
const APART: Duration = Duration::from_millis(200);
/// Forced IDRs in a burst: a household's players that start together.
const BUCKET_LEN: u64 = 4;
/// Time until one more is allowed, in microseconds.
const REFILL_US: u64 = 1_000_000;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    #[test]
    fn four_at_once_then_one_a_second() {
        let requests = IdrRequests::default();
        let mut granted = 0;
        for round in 0..20 {
            granted += u32::from(requests.request(at(1_000_000 + round)));
            requests.take(at(1_000_000 + round), Instant::ZERO);
        }
        assert_eq!(granted, 4);
        assert!(!requests.request(at(1_000_900)));
        assert!(requests.request(at(1_001_100)));
        assert!(requests.take(at(1_001_100), Instant::ZERO));
        assert!(!requests.request(at(1_001_101)));
    }

    #[test]
    fn a_hundred_joins_within_half_a_second_all_get_an_idr_soon() {
        let requests = IdrRequests::default();
        let (start, mut last_idr, mut waiting) = (1_000_000, at(1_000_000 - 1), Vec::new());
        // Pictures come every 33 ms and take 12 ms to encode; somebody joins every 5 ms.
        for millis in start..start + 1_000 {
            if (millis - start) % 5 == 0 && millis < start + 500 {
                requests.request(at(millis));
                waiting.push(millis);
            }
            let phase = (millis - start) % 33;
            if phase == 0 && requests.take(at(millis), last_idr) {
                last_idr = at(millis);
            }
            if phase == 12 && at(millis).since(last_idr) == Duration::from_millis(12) {
                requests.clear();
                assert!(waiting.iter().all(|joined| millis - joined <= 250), "{waiting:?}");
                waiting.clear();
            }
        }
        assert!(waiting.is_empty(), "{waiting:?}");
    }

    #[test]
    fn what_a_periodic_idr_serves_costs_nothing() {
        let requests = IdrRequests::default();
        for round in 0..100 {
            assert!(requests.request(at(1_000_000 + round)));
            requests.clear();
            requests.clear();
        }
        assert!(!requests.take(at(1_000_100), Instant::ZERO));
    }

    #[test]
    fn requests_that_wait_are_one_and_cost_one() {
        let requests = IdrRequests::default();
        assert!(!requests.is_pending());
        for _ in 0..100 {
            assert!(requests.request(at(5_000)));
        }
        assert!(!requests.take(at(5_000), at(4_900)), "100 ms after the last IDR is too early");
        assert!(requests.is_pending());
        assert!(requests.take(at(5_100), at(4_900)));
        assert!(!requests.is_pending());
        assert!(!requests.take(at(9_000), at(4_900)), "served");
    }

    #[test]
    fn the_first_moment_after_boot_has_a_full_bucket() {
        let requests = IdrRequests::default();
        assert!(requests.request(Instant::ZERO));
        assert!(!requests.take(Instant::ZERO, Instant::ZERO));
    }
}
