//! Plain atomics that everybody may name: counters, gauges and histograms.
//!
//! Written with relaxed ordering: each value stands for itself and orders nothing else. What is
//! counted for each viewer is handed over as a whole ([`Viewers`]): there is one lock, which the
//! writer never waits for. Names that change ([`Label`]) are written once in a while.

mod label;
mod motion;
mod pipeline;
mod server;
mod viewers;

pub use label::Label;
pub use motion::{Motion, MotionZone};
pub use pipeline::Pipeline;
pub use server::{Ending, Endings, Server};
pub use viewers::{Reception, Transport, Viewer, Viewers};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

use std::fmt;
use std::time::Duration;

/// Something that is only ever counted up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that goes up and down: the newest value is all that it knows.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations in buckets of about 6 % width, from 1 µs to more than an hour.
#[derive(Debug)]
pub struct Histogram {
    /// Bucket `i` counts durations whose [`bucket`] is `i`.
    buckets: [Counter; BUCKET_COUNT],
    sum_micros: Counter,
    max_micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum_micros: Counter::default(),
            max_micros: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(counter) = self.buckets.get(bucket(micros)) {
            counter.increment();
        }
        self.sum_micros.add(micros);
        self.max_micros.fetch_max(micros, Ordering::Relaxed);
    }

    /// Durations counted so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }

    /// How many of them were shorter than 2^`exponent` microseconds.
    #[must_use]
    pub fn count_below(&self, exponent: u32) -> u64 {
        let end = bucket(1_u64.checked_shl(exponent).unwrap_or(u64::MAX));
        self.buckets.iter().take(end).map(Counter::get).sum()
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros.get())
    }

    /// The smallest duration that `percent` of all are not above, to the bucket's width.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Duration {
        let wanted = (self.count() * percent).div_ceil(100);
        let mut seen = 0;
        for (index, counter) in self.buckets.iter().enumerate() {
            seen += counter.get();
            if seen >= wanted {
                return Duration::from_micros(upper_bound(index)).min(self.max());
            }
        }
        self.max()
    }

    /// The longest duration.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_micros.load(Ordering::Relaxed))
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50={} p99={} max={} mean={} n={}",
            self.percentile(50).as_micros(),
            self.percentile(99).as_micros(),
            self.max().as_micros(),
            self.sum_micros.get() / self.count().max(1),
            self.count(),
        )
    }
}

/// Index of the bucket for a duration: the exponent and four bits of mantissa.
fn bucket(micros: u64) -> usize {
    if micros < SUB_BUCKETS {
        return usize::try_from(micros).unwrap_or(0);
    }
    let exponent = u64::from(micros.ilog2()) - SUB_BITS;
    let mantissa = (micros >> exponent) - SUB_BUCKETS;
    let index = (exponent + 1) * SUB_BUCKETS + mantissa;
    usize::try_from(index).map_or(BUCKET_COUNT - 1, |index| index.min(BUCKET_COUNT - 1))
}

/// The longest duration that falls into bucket `index`, in microseconds.
fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB_BUCKETS {
        return index;
    }
    let (exponent, mantissa) = (index / SUB_BUCKETS - 1, index % SUB_BUCKETS);
    ((SUB_BUCKETS + mantissa + 1) << exponent) - 1
}

const SUB_BITS: u64 = 4;
const SUB_BUCKETS: u64 = 1 << SUB_BITS;
/// 2^32 µs is more than an hour: nothing here takes longer without being called a stall.
const BUCKET_COUNT: usize = 16 * 30;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_within_its_bucket() {
        let mut last = 0;
        for micros in (0..5_000).chain((5_000..4_000_000_000).step_by(1_234_567)) {
            let index = bucket(micros);
            assert!(index >= last, "buckets are in order");
            assert!(upper_bound(index) >= micros);
            assert!(index == 0 || upper_bound(index - 1) < micros);
            last = index;
        }
    }

    #[test]
    fn counts_below_powers_of_two_are_exact() {
        let histogram = Histogram::default();
        for micros in 0..5_000 {
            histogram.record(Duration::from_micros(micros));
        }
        for exponent in 0..=12 {
            assert_eq!(histogram.count_below(exponent), 1 << exponent);
        }
        for exponent in 13..70 {
            assert_eq!(histogram.count_below(exponent), 5_000);
        }
        assert_eq!(histogram.sum(), Duration::from_micros(4_999 * 2_500));
    }

    #[test]
    fn percentiles_of_one_to_a_hundred() {
        let histogram = Histogram::default();
        for micros in 1..=100 {
            histogram.record(Duration::from_micros(micros));
        }
        let p50 = histogram.percentile(50).as_micros();
        assert!((50..=53).contains(&p50), "{p50}");
        assert_eq!(histogram.percentile(100), Duration::from_micros(100));
        assert_eq!(histogram.max(), Duration::from_micros(100));
    }
}
