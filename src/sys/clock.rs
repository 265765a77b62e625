//! The kernel's clocks: the only place where the time is read, and where it is set.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::{ClockId, clock_gettime, clock_settime};

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

/// Whether somebody keeps CLOCK_REALTIME right: what it says is the time then, and not just a
/// number that goes up.
#[must_use]
pub fn is_synchronized() -> bool {
    // SAFETY: as in `slew`; zeros in `modes` only ask.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is a `timex` that lives through the call, which the kernel reads and writes.
    let clock = unsafe { libc::adjtimex(&raw mut state) };
    clock >= 0 && state.status & libc::STA_UNSYNC == 0
}

/// Takes note that CLOCK_REALTIME has just been compared with a server's, and found to be right to
/// `error`. The kernel forgets it by itself, hours later, when nobody says so again.
///
/// # Errors
///
/// Those of adjtimex(2): no privilege.
pub fn synchronized(error: Duration) -> io::Result<()> {
    // SAFETY: as in `slew`.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = libc::ADJ_STATUS | libc::ADJ_ESTERROR | libc::ADJ_MAXERROR;
    let micros = libc::c_long::try_from(error.as_micros()).map_err(io::Error::other)?;
    (change.esterror, change.maxerror) = (micros, micros);
    // SAFETY: `change` is a `timex` that lives through the call, which the kernel reads and writes.
    let state = unsafe { libc::adjtimex(&raw mut change) };
    Ok(Errno::result(state).map(drop)?)
}

/// Sets CLOCK_REALTIME at once.
///
/// # Errors
///
/// Those of clock_settime(2): no privilege.
pub fn step(since_1970: Duration) -> io::Result<()> {
    Ok(clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(since_1970))?)
}

/// Moves CLOCK_REALTIME by `micros` at 500 ppm, instead of what an earlier call has still to do.
///
/// # Errors
///
/// Those of adjtimex(2): no privilege.
pub fn slew(micros: i64) -> io::Result<()> {
    // SAFETY: `timex` is integers and padding only, for which zeros are values; in `modes` they
    // mean that nothing is to be changed.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = libc::ADJ_OFFSET_SINGLESHOT;
    change.offset = libc::c_long::try_from(micros).map_err(io::Error::other)?;
    // SAFETY: `change` is a `timex` that lives through the call, which the kernel reads and writes.
    let state = unsafe { libc::adjtimex(&raw mut change) };
    Ok(Errno::result(state).map(drop)?)
}

fn micros(clock: ClockId) -> u64 {
    let reading = clock_gettime(clock).expect("these clocks exist on every Linux");
    u64::try_from(reading.num_microseconds()).unwrap_or(0)
}
