//! The wall clock as one viewer is told it: it never jumps within a session.
//!
//! RFC 3550 6.4.1 (SR). DESIGN of the camera: steps of up to a second are slewed, larger ones are
//! for sessions that start later.

use crate::time::{Instant, NtpTimestamp};

/// Maps [`Instant`]s to NTP time for the sender reports of one viewer.
#[derive(Clone, Copy, Debug)]
pub struct SenderClock {
    at: Instant,
    ntp: NtpTimestamp,
}

impl SenderClock {
    /// Takes the wall clock as it stands when the viewer starts.
    #[must_use]
    pub fn new(now: Instant, wall: NtpTimestamp) -> Self {
        Self { at: now, ntp: wall }
    }

    /// The NTP time to report for `now`, while the wall clock says `wall`.
    ///
    /// A wall clock that is off by at most [`STEP_MAX_US`] is approached by [`SLEW_PPM`]; one that
    /// is further off was stepped, and is not followed.
    pub fn ntp(&mut self, now: Instant, wall: NtpTimestamp) -> NtpTimestamp {
        let elapsed = i64::try_from(now.since(self.at).as_micros()).unwrap_or(i64::MAX);
        let kept = self.ntp.offset_by_micros(elapsed);
        let off = wall.micros_since(kept);
        let slew_max = elapsed / 1_000_000 * SLEW_PPM;
        let slewed = if off.abs() <= STEP_MAX_US { off.clamp(-slew_max, slew_max) } else { 0 };
        *self = Self { at: now, ntp: kept.offset_by_micros(slewed) };
        self.ntp
    }
}

/// Microseconds per second that the reported clock may run faster or slower.
const SLEW_PPM: i64 = 500;
/// A second: what NTP daemons slew, too.
const STEP_MAX_US: i64 = 1_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run(step_micros: i64) -> (i64, i64) {
        let start = NtpTimestamp::from_unix(Duration::from_secs(1_800_000_000));
        let mut clock = SenderClock::new(Instant::from_micros(7), start);
        let mut now = Instant::from_micros(7);
        let (mut last, mut rate_max) = (start, 0);
        for round in 1..=2_000 {
            now += Duration::from_secs(5);
            let wall = start.offset_by_micros(round * 5_000_000 + step_micros);
            let ntp = clock.ntp(now, wall);
            rate_max = rate_max.max((ntp.micros_since(last) - 5_000_000).abs());
            last = ntp;
        }
        (last.micros_since(start) - 2_000 * 5_000_000, rate_max)
    }

    #[test]
    fn a_small_step_is_slewed_at_500_ppm() {
        for step in [-900_000, -3, 0, 900_000] {
            let (off, rate) = run(step);
            assert!((off - step).abs() <= 5, "{step}: {off}");
            let is_large = step.abs() > 2_500;
            assert!(rate <= 2_501 && (rate >= 2_499 || !is_large), "{step}: {rate} µs in 5 s");
        }
    }

    #[test]
    fn a_large_step_is_not_followed_by_a_running_session() {
        for step in [-3_600_000_000, 3_600_000_000] {
            let (off, rate) = run(step);
            assert!(off.abs() <= 5 && rate <= 1, "{step}: {off} {rate}");
        }
    }
}
