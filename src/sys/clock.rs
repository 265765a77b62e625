//! The kernel's clocks: the only place where the time is read.

use std::time::Duration;

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

use crate::time::{Instant, NtpTimestamp};

/// CLOCK_MONOTONIC: what V4L2 stamps buffers with.
#[must_use]
pub fn now() -> Instant {
    Instant::from_micros(micros(ClockId::CLOCK_MONOTONIC))
}

/// CLOCK_REALTIME: for RTCP sender reports and log lines only.
#[must_use]
pub fn wall() -> NtpTimestamp {
    NtpTimestamp::from_unix(Duration::from_micros(micros(ClockId::CLOCK_REALTIME)))
}

fn micros(clock: ClockId) -> u64 {
    let reading = clock_gettime(clock).expect("these clocks exist on every Linux");
    u64::try_from(reading.num_microseconds()).unwrap_or(0)
}
