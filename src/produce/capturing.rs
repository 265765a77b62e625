//! Thread 1: takes pictures from the source, and keeps the source alive.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::Reopen;
use crate::capture::{Error, RawFrame, RawSource, Source, Wait};
use crate::ring::Newest;
use crate::stats::Pipeline;
use crate::sys::{Wake, clock};
use crate::time::Instant;

pub(super) struct Capturing {
    pub(super) source: Box<dyn RawSource>,
    pub(super) reopen: Reopen,
    pub(super) frames: Arc<Newest<RawFrame>>,
    pub(super) stats: Arc<Pipeline>,
    pub(super) stop: Arc<Wake>,
}

/// Why a source is opened again.
pub(super) enum Failure {
    Source(Error),
    /// The device says nothing, not even that something is wrong.
    Stalled(Duration),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => error.fmt(f),
            Self::Stalled(after) => write!(f, "no picture for {} ms", after.as_millis()),
        }
    }
}

impl Capturing {
    /// Captures until told to stop.
    pub(super) fn run(mut self) {
        while let Err(failure) = self.capture() {
            let lost_before = self.source.lost();
            let Some(source) = reopen(&mut self.reopen, &self.stop, &failure) else { break };
            let Source::Raw(source) = source else { break };
            self.stats.reopened.increment();
            self.stats.lost.add(lost_before);
            self.source = source;
        }
        self.frames.close();
    }

    /// `Ok` when told to stop.
    fn capture(&mut self) -> Result<(), Failure> {
        let patience =
            STALL_MIN.max(Duration::from_secs_f64(10.0 / self.source.mode().fps.max(0.1)));
        let mut lost = 0;
        let mut last_picture = clock::now();
        loop {
            match wait(self.source.wait(), last_picture + patience, &self.stop) {
                Woken::Stop => return Ok(()),
                Woken::Late => return Err(Failure::Stalled(patience)),
                Woken::Ready => {}
            }
            while let Some(frame) = self.source.capture(clock::now()).map_err(Failure::Source)? {
                last_picture = clock::now();
                self.stats.captured.increment();
                if self.frames.put(frame).is_some() {
                    self.stats.superseded.increment();
                }
            }
            self.stats.lost.add(self.source.lost() - lost);
            lost = self.source.lost();
        }
    }
}

/// What ended a wait.
pub(super) enum Woken {
    Ready,
    Late,
    Stop,
}

/// Waits as the source says; never past `deadline` for a device, which is then late.
pub(super) fn wait(wait: Wait<'_>, deadline: Instant, stop: &Wake) -> Woken {
    let now = clock::now();
    let stop = stop.as_fd();
    match wait {
        Wait::Readable(device) => match poll(Some(device), stop, deadline.since(now)) {
            Polled::Stop => Woken::Stop,
            Polled::Device => Woken::Ready,
            Polled::Timeout => Woken::Late,
        },
        Wait::Until(due) => match poll(None, stop, due.since(now)) {
            Polled::Stop => Woken::Stop,
            _ => Woken::Ready,
        },
    }
}

enum Polled {
    Device,
    Stop,
    Timeout,
}

fn poll(device: Option<BorrowedFd<'_>>, stop: BorrowedFd<'_>, timeout: Duration) -> Polled {
    let mut fds = [stop, device.unwrap_or(stop)].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let count = if device.is_some() { 2 } else { 1 };
    // EINTR is a wake like any other: the caller looks again.
    let _ = ppoll(&mut fds[..count], Some(TimeSpec::from_duration(timeout)), None);
    let is_set = |fd: &PollFd<'_>| fd.revents().is_some_and(|flags| !flags.is_empty());
    if is_set(&fds[0]) {
        Polled::Stop
    } else if count == 2 && is_set(&fds[1]) {
        Polled::Device
    } else {
        Polled::Timeout
    }
}

/// Opens the source again, however long that takes; `None` when told to stop.
pub(super) fn reopen(reopen: &mut Reopen, stop: &Wake, failure: &Failure) -> Option<Source> {
    warn!("capture: lost the source reason=\"{failure}\"");
    let lost = clock::now();
    let mut pause = REOPEN_FIRST;
    loop {
        if let Polled::Stop = poll(None, stop.as_fd(), pause) {
            return None;
        }
        match reopen() {
            Ok(source) => {
                let gone = clock::now().since(lost);
                info!("capture: the source is back after_ms={}", gone.as_millis());
                return Some(source);
            }
            Err(error) => log::debug!("capture: still lost reason=\"{error}\""),
        }
        pause = (pause * 2).min(REOPEN_MAX);
    }
}

/// A device that is merely slow is not stalled.
const STALL_MIN: Duration = Duration::from_secs(1);
const REOPEN_FIRST: Duration = Duration::from_millis(100);
/// Back within two seconds of the camera's return.
const REOPEN_MAX: Duration = Duration::from_millis(1_600);
