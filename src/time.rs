//! Turns clock readings into the time stamps of the wire: arithmetic only, no clock.
//!
//! RFC 3550 4 (NTP timestamps), RFC 6184 5.1 (90 kHz).
//!
//! `Instant` counts on the kernel's CLOCK_MONOTONIC, which is also what V4L2 stamps buffers with.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A point on CLOCK_MONOTONIC, in microseconds since its (arbitrary) origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The origin of the clock.
    pub const ZERO: Self = Self(0);

    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is the later one.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(micros(delay)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, delay: Duration) {
        *self = *self + delay;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, delay: Duration) -> Self {
        Self(self.0.saturating_sub(micros(delay)))
    }
}

/// A 90 kHz RTP timestamp, modulo 2^32 (RFC 3550 5.1, RFC 6184 5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RtpTimestamp(pub u32);

impl RtpTimestamp {
    /// Ticks per second of every H.264 stream (RFC 6184 5.1).
    pub const HZ: u32 = 90_000;

    /// The timestamp of `at` on a stream whose timestamps start `offset` ticks from the origin.
    ///
    /// 64-bit ticks are reduced last, so no precision is lost however long the machine is up.
    #[must_use]
    pub fn at(at: Instant, offset: u32) -> Self {
        Self::from_ticks(ticks(at), offset)
    }

    /// As [`RtpTimestamp::at`], from [`ticks`].
    #[must_use]
    pub fn from_ticks(ticks: u64, offset: u32) -> Self {
        Self(low_32(ticks).wrapping_add(offset))
    }
}

/// Ticks of 90 kHz from the origin of the clock to `at`.
#[must_use]
pub fn ticks(at: Instant) -> u64 {
    // 90 kHz over 1 MHz; u64 holds 65 000 years of microseconds times nine.
    at.0.saturating_mul(9) / 100
}

/// Seconds since 1900-01-01 UTC, 32.32 fixed point (RFC 3550 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NtpTimestamp(pub u64);

impl NtpTimestamp {
    /// From a Unix time. Wraps in 2036, as the format does (era 1).
    #[must_use]
    pub fn from_unix(since_1970: Duration) -> Self {
        let seconds = since_1970.as_secs().wrapping_add(UNIX_EPOCH_IN_NTP_S);
        let fraction = (u64::from(since_1970.subsec_nanos()) << 32) / 1_000_000_000;
        Self((seconds << 32) | fraction)
    }

    /// The Unix time. The upper half of the count is era 0, the lower one era 1 (RFC 4330 3): right
    /// from 1970 to 2104. What era 0 has before that, two years, is 1970.
    #[must_use]
    pub fn to_unix(self) -> Duration {
        let seconds = self.0 >> 32;
        let era = if seconds >> 31 == 0 { 1 << 32 } else { 0 };
        let fraction = self.0 & u64::from(u32::MAX);
        let nanos = low_32((fraction * 1_000_000_000) >> 32);
        let since_1970 = (seconds + era).checked_sub(UNIX_EPOCH_IN_NTP_S);
        since_1970.map_or(Duration::ZERO, |seconds| Duration::new(seconds, nanos))
    }

    /// The middle 32 bits: what a receiver report echoes as LSR (RFC 3550 6.4.1).
    #[must_use]
    pub const fn middle(self) -> u32 {
        low_32(self.0 >> 16)
    }

    /// `self` moved by `micros` of real time.
    #[must_use]
    pub fn offset_by_micros(self, micros: i64) -> Self {
        let fixed = (i128::from(micros) << 32) / 1_000_000;
        Self(low_64(i128::from(self.0) + fixed))
    }

    /// Microseconds from `earlier` to `self`, negative when `self` is the earlier one: whichever is
    /// nearer, so that an era may end in between (RFC 5905 6).
    #[must_use]
    pub fn micros_since(self, earlier: Self) -> i64 {
        let fixed = i128::from(self.0.wrapping_sub(earlier.0).cast_signed());
        i64::try_from((fixed * 1_000_000) >> 32).unwrap_or(i64::MAX)
    }
}

fn micros(delay: Duration) -> u64 {
    u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)
}

/// The part of a count that a field of 32 bits has, which is defined modulo 2^32.
#[allow(clippy::cast_possible_truncation, reason = "reduction modulo 2^32 is the definition")]
#[must_use]
pub const fn low_32(value: u64) -> u32 {
    value as u32
}

/// The field is defined modulo 2^64.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "reduction modulo 2^64 is the definition"
)]
const fn low_64(value: i128) -> u64 {
    value as u64
}

/// Seconds from 1900-01-01 to 1970-01-01 (RFC 868).
const UNIX_EPOCH_IN_NTP_S: u64 = 2_208_988_800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_90_000_ticks_across_the_wrap() {
        let offset = u32::MAX - 10;
        let a = RtpTimestamp::at(Instant::from_micros(5_000_000), offset);
        let b = RtpTimestamp::at(Instant::from_micros(6_000_000), offset);
        assert_eq!(b.0.wrapping_sub(a.0), RtpTimestamp::HZ);
    }

    #[test]
    fn timestamps_stay_exact_after_years_of_uptime() {
        let years = 20 * 365 * 86_400 * 1_000_000_u64;
        let a = RtpTimestamp::at(Instant::from_micros(years), 0);
        let b = RtpTimestamp::at(Instant::from_micros(years + 33_333), 0);
        assert!((2_999..=3_000).contains(&b.0.wrapping_sub(a.0)));
    }

    #[test]
    fn a_second_is_a_second_at_every_wrap_of_every_counter() {
        let second = Duration::from_secs(1);
        // In microseconds: 2^31 and 2^32 of them, of milliseconds (49.7 days) and of seconds; 2^31
        // and 2^32 ticks of 90 kHz (13 h 15 min); 2^63 ns.
        let halves = [1_u64, 1_000, 1_000_000].map(|unit| unit << 31);
        let wraps = halves.into_iter().chain([(1 << 31) / 9 * 100, (1 << 63) / 1_000]);
        for wrap in wraps.flat_map(|half| [half, 2 * half]) {
            for micros in (wrap - 1_500_000..=wrap + 500_000).step_by(100_003) {
                let (before, after) =
                    (Instant::from_micros(micros), Instant::from_micros(micros) + second);
                assert_eq!((after.since(before), after - second), (second, before), "{micros}");
                assert!(after > before);
                let [before, after] = [before, after].map(|at| RtpTimestamp::at(at, u32::MAX - 7));
                assert_eq!(after.0.wrapping_sub(before.0), RtpTimestamp::HZ, "{micros}");
            }
        }
        // Unix times: the 2^31st second (2038), the end of NTP's era 0 (2036), the 2^32nd (2106).
        for wrap in [1_u64 << 31, (1 << 32) - UNIX_EPOCH_IN_NTP_S, 1 << 32] {
            for millis in (wrap * 1_000 - 1_500..=wrap * 1_000 + 500).step_by(100) {
                let before = NtpTimestamp::from_unix(Duration::from_millis(millis));
                let after = NtpTimestamp::from_unix(Duration::from_millis(millis + 1_000));
                assert_eq!(after.0.wrapping_sub(before.0), 1 << 32, "{millis}");
                assert_eq!(after.micros_since(before), 1_000_000, "{millis}");
                assert_eq!(before.micros_since(after), -1_000_000, "{millis}");
                assert_eq!(before.offset_by_micros(1_000_000), after, "{millis}");
            }
        }
    }

    #[test]
    fn ntp_of_the_unix_epoch() {
        let ntp = NtpTimestamp::from_unix(Duration::from_millis(500));
        assert_eq!(ntp.0, (2_208_988_800 << 32) | (1 << 31));
        assert_eq!(ntp.middle(), 0x7e80_8000);
    }

    #[test]
    fn ntp_times_of_both_eras_lead_back_to_unix_times() {
        for seconds in [0, 1, 1_800_000_000, 2_085_978_495, 2_085_978_496, 4_233_462_143] {
            for nanos in [0, 1_000, 999_999_000] {
                let unix = Duration::new(seconds, nanos);
                let back = NtpTimestamp::from_unix(unix).to_unix();
                assert!(unix.abs_diff(back) <= Duration::from_nanos(1), "{unix:?} {back:?}");
            }
        }
    }

    #[test]
    fn ntp_times_before_1970_are_the_unix_epoch() {
        for seconds in [1 << 31, (1 << 31) + 1, UNIX_EPOCH_IN_NTP_S - 1] {
            assert_eq!(NtpTimestamp(seconds << 32).to_unix(), Duration::ZERO);
        }
    }

    #[test]
    fn ntp_offsets_round_trip() {
        let ntp = NtpTimestamp::from_unix(Duration::from_secs(1_800_000_000));
        for micros in [-3_600_000_000, -1, 0, 1, 999_999, 3_600_000_000] {
            let moved = ntp.offset_by_micros(micros);
            assert!((moved.micros_since(ntp) - micros).abs() <= 1);
        }
    }
}
