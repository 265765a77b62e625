//! Thread 1: takes pictures from the source, and keeps the source alive.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::{info, warn};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::Reopen;
use super::intake::Intake;
use super::loss::Loss;
use crate::capture::{Error, RawSource, Source, Wait};
use crate::stats::Pipeline;
use crate::sys::{Wake, clock, process};
use crate::time::Instant;

/// What thread 1 works with, whichever source it has.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) reopen: Reopen,
    /// Set when the source is to be opened again, because it is to be another one.
    pub(super) is_reopen_wanted: Arc<AtomicBool>,
    pub(super) stats: Arc<Pipeline>,
    pub(super) stop: Arc<Wake>,
    pub(super) loss: Arc<Loss>,
}

impl Tools {
    /// The source has given a picture.
    pub(super) fn is_there(&self) {
        if let Some(gone) = self.loss.end(clock::now()) {
            info!("capture: the source is back after_ms={}", gone.as_millis());
        }
    }
}

pub(super) struct Capturing {
    /// `None`: to be opened first.
    pub(super) source: Option<Box<dyn RawSource>>,
    pub(super) intake: Arc<Intake>,
    pub(super) tools: Tools,
}

/// Why a source is opened again.
pub(super) enum Failure {
    Source(Error),
    /// The device says nothing, not even that something is wrong.
    Stalled(Duration),
    /// Its settings have changed.
    Changed,
    /// The thread that had it does not answer.
    Stuck,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => error.fmt(f),
            Self::Stalled(after) => write!(f, "no picture for {} ms", after.as_millis()),
            Self::Changed => f.write_str("new settings"),
            Self::Stuck => f.write_str("the device's driver does not answer"),
        }
    }
}

impl Capturing {
    /// Captures until told to stop, or abandoned.
    pub(super) fn run(mut self) {
        // A device waits for nobody: its buffers are to be back before it needs them. A source
        // without a device draws its pictures here, which must not starve the others.
        let is_device =
            self.source.as_ref().is_none_or(|source| matches!(source.wait(), Wait::Readable(_)));
        if is_device && let Err(errno) = process::hurry_thread() {
            warn!("capture: no priority for the thread error={errno}");
        }
        let mut source = self.source.take();
        loop {
            let failure = match &mut source {
                Some(source) => match self.capture(&mut **source) {
                    Ok(()) => break,
                    Err(failure) => failure,
                },
                None => Failure::Stuck,
            };
            // A change is no fault, unless nothing comes of it.
            if !matches!(failure, Failure::Changed) {
                self.intake.is_lost(failure.to_string());
            }
            // Before it is opened again: it holds the device's buffers, and its name.
            drop(source.take());
            let raw = |source| match source {
                Source::Raw(source) => Some(source),
                Source::Coded(_) => None,
            };
            let is_needed = || self.intake.come_by(clock::now());
            let refused = |error: &Error| self.intake.is_refused(error);
            source = reopen(&self.tools, &failure, raw, (is_needed, refused));
            if source.is_none() {
                break;
            }
        }
        self.intake.frames.close();
    }

    /// `Ok` when told to stop, or not needed any more.
    fn capture(&self, source: &mut dyn RawSource) -> Result<(), Failure> {
        let Tools { stats, stop, is_reopen_wanted, .. } = &self.tools;
        let patience = patience(source.mode().fps);
        let mut lost = 0;
        let mut last_picture = clock::now();
        self.intake.is_well(source.mode().fps);
        loop {
            let now = clock::now();
            if !self.intake.come_by(now) {
                return Ok(());
            }
            let woken = wait(source.wait(), (last_picture + patience).min(now + COME_BY), stop);
            match woken {
                Woken::Stop => return Ok(()),
                Woken::Late | Woken::Ready => {}
            }
            if is_reopen_wanted.swap(false, Ordering::Relaxed) {
                return Err(Failure::Changed);
            }
            while let Some(frame) = source.capture(clock::now()).map_err(Failure::Source)? {
                last_picture = clock::now();
                self.tools.is_there();
                stats.captured.increment();
                if self.intake.frames.put(frame).is_some() {
                    stats.superseded.increment();
                }
            }
            stats.lost.add(source.lost() - lost);
            lost = source.lost();
            // Whether nothing came, or only what is no picture.
            if clock::now() >= last_picture + patience {
                return Err(Failure::Stalled(patience));
            }
        }
    }
}

/// How long a source may be silent: longer than one that is merely slow.
pub(super) fn patience(fps: f64) -> Duration {
    STALL_MIN.max(Duration::from_secs_f64(10.0 / fps.max(0.1)))
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

/// Whether the threads are to end.
pub(super) fn is_stopped(stop: &Wake) -> bool {
    matches!(poll(None, stop.as_fd(), Duration::ZERO), Polled::Stop)
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

/// Opens the source again, however long that takes, until it is one that `pick` takes.
///
/// `refused` is told why it cannot be opened. `None` when told to stop, or when the caller is not
/// needed any more.
pub(super) fn reopen<T>(
    tools: &Tools,
    failure: &Failure,
    pick: impl Fn(Source) -> Option<T>,
    (is_needed, refused): (impl Fn() -> bool, impl Fn(&Error)),
) -> Option<T> {
    let is_changed = matches!(failure, Failure::Changed);
    if tools.loss.begin(clock::now(), is_changed) {
        warn!("capture: lost the source reason=\"{failure}\"");
    } else {
        log::debug!("capture: not back reason=\"{failure}\"");
    }
    loop {
        if !is_needed() {
            return None;
        }
        if let Polled::Stop = poll(None, tools.stop.as_fd(), tools.loss.pause()) {
            return None;
        }
        tools.is_reopen_wanted.store(false, Ordering::Relaxed);
        match (tools.reopen)().map(&pick) {
            Ok(Some(source)) => {
                tools.stats.reopened.increment();
                return Some(source);
            }
            Ok(None) => warn!("capture: still lost reason=\"it is of another kind now\""),
            Err(error) => {
                log::debug!("capture: still lost reason=\"{error}\"");
                refused(&error);
            }
        }
    }
}

/// A device that is merely slow is not stalled.
const STALL_MIN: Duration = Duration::from_secs(1);
/// Between two signs of life of this thread.
const COME_BY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::*;
    use crate::capture::{Mode, Pattern, RawFrame};
    use crate::ring::Taken;

    /// A device that can be opened once at a time, gives three pictures, and fails.
    #[derive(Debug)]
    struct Exclusive {
        pattern: Pattern,
        left: u32,
        is_open: Arc<Mutex<bool>>,
        is_damaged: bool,
    }

    impl Exclusive {
        fn open(is_open: &Arc<Mutex<bool>>, is_damaged: bool) -> Result<Source, Error> {
            let mut open = is_open.lock().expect("no test panics with it");
            if std::mem::replace(&mut *open, true) {
                return Err(Error::Busy { device: "/dev/video0".into(), holder: None });
            }
            let pattern = Pattern::new(64, 64, 60.0);
            let is_open = Arc::clone(is_open);
            Ok(Source::Raw(Box::new(Self { pattern, left: 3, is_open, is_damaged })))
        }
    }

    impl Drop for Exclusive {
        fn drop(&mut self) {
            *self.is_open.lock().expect("no test panics with it") = false;
        }
    }

    impl RawSource for Exclusive {
        fn mode(&self) -> Mode {
            self.pattern.mode()
        }

        fn wait(&self) -> Wait<'_> {
            self.pattern.wait()
        }

        fn capture(&mut self, now: Instant) -> Result<Option<RawFrame>, Error> {
            let Some(frame) = self.pattern.capture(now)? else { return Ok(None) };
            match self.left.checked_sub(1) {
                Some(left) => self.left = left,
                None if self.is_damaged => return Ok(None),
                None => return Err(Error::Gone { device: "/dev/video0".into() }),
            }
            Ok(Some(frame))
        }

        fn lost(&self) -> u64 {
            u64::from(3 - self.left)
        }
    }

    fn pictures_after_a_failure(is_damaged: bool) {
        let is_open = Arc::new(Mutex::new(false));
        let Ok(Source::Raw(first)) = Exclusive::open(&is_open, is_damaged) else {
            unreachable!("it is closed");
        };
        let stop = Arc::new(Wake::new().expect("an eventfd"));
        let intake = Arc::new(Intake::new(clock::now()));
        let stats = Arc::new(Pipeline::default());
        let device = Arc::clone(&is_open);
        let tools = Tools {
            reopen: Arc::new(move || Exclusive::open(&device, is_damaged)),
            is_reopen_wanted: Arc::default(),
            stats: Arc::clone(&stats),
            stop: Arc::clone(&stop),
            loss: Arc::default(),
        };
        let capturing = Capturing { source: Some(first), intake: Arc::clone(&intake), tools };
        let thread = thread::spawn(move || capturing.run());
        while stats.captured.get() < 7 {
            let taken = intake.frames.take(Duration::from_secs(20));
            assert!(matches!(taken, Taken::Value(_)));
        }
        stop.wake();
        thread.join().expect("it ends when told to");
        assert_eq!(stats.reopened.get(), 2);
        assert!((6..=9).contains(&stats.lost.get()), "{}", stats.lost.get());
        assert!(!*is_open.lock().expect("no test panics with it"), "closed at the end");
    }

    #[test]
    fn a_device_that_fails_is_closed_before_it_is_opened_again() {
        pictures_after_a_failure(false);
    }

    #[test]
    fn a_device_that_is_busy_but_gives_no_picture_is_opened_again() {
        pictures_after_a_failure(true);
    }
}
