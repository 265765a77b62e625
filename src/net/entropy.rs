//! Turns one seed into the delays and addresses that RFC 2131 and RFC 3927 want randomized.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): nothing here is a secret.

use std::time::Duration;

#[derive(Debug)]
pub(super) struct Entropy(u64);

impl Entropy {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(super) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A delay from `min` to `min + spread`.
    pub(super) fn delay(&mut self, min: Duration, spread: Duration) -> Duration {
        let micros = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX);
        min + Duration::from_micros(self.below(micros.saturating_add(1).max(1)))
    }
}
