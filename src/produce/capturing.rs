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
use crate::sys::{Wake, clock, process};
use crate::time::Instant;

pub(super) struct Capturing {
    pub(super) source: Option<Box<dyn RawSource>>,
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
        // A device waits for nobody: its buffers are to be back before it needs them. A source
        // without a device draws its pictures here, which must not starve the others.
        let is_device =
            self.source.as_ref().is_some_and(|source| matches!(source.wait(), Wait::Readable(_)));
        if is_device && let Err(errno) = process::hurry_thread() {
            warn!("capture: no priority for the thread error={errno}");
        }
        while let Some(mut source) = self.source.take() {
            let Err(failure) = self.capture(&mut *source) else { break };
            // Before it is opened again: it holds the device's buffers, and its name.
            drop(source);
            let Some(Source::Raw(source)) = reopen(&mut self.reopen, &self.stop, &failure) else {
                break;
            };
            self.stats.reopened.increment();
            self.source = Some(source);
        }
        self.frames.close();
    }

    /// `Ok` when told to stop.
    fn capture(&self, source: &mut dyn RawSource) -> Result<(), Failure> {
        let patience = STALL_MIN.max(Duration::from_secs_f64(10.0 / source.mode().fps.max(0.1)));
        let mut lost = 0;
        let mut last_picture = clock::now();
        loop {
            match wait(source.wait(), last_picture + patience, &self.stop) {
                Woken::Stop => return Ok(()),
                Woken::Late => return Err(Failure::Stalled(patience)),
                Woken::Ready => {}
            }
            while let Some(frame) = source.capture(clock::now()).map_err(Failure::Source)? {
                last_picture = clock::now();
                self.stats.captured.increment();
                if self.frames.put(frame).is_some() {
                    self.stats.superseded.increment();
                }
            }
            self.stats.lost.add(source.lost() - lost);
            lost = source.lost();
            // Readable, but with nothing in it that is a picture.
            if clock::now() >= last_picture + patience {
                return Err(Failure::Stalled(patience));
            }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::*;
    use crate::capture::{Mode, Pattern};
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
        let frames = Arc::new(Newest::default());
        let stats = Arc::new(Pipeline::default());
        let device = Arc::clone(&is_open);
        let capturing = Capturing {
            source: Some(first),
            reopen: Box::new(move || Exclusive::open(&device, is_damaged)),
            frames: Arc::clone(&frames),
            stats: Arc::clone(&stats),
            stop: Arc::clone(&stop),
        };
        let thread = thread::spawn(move || capturing.run());
        while stats.captured.get() < 7 {
            assert!(matches!(frames.take(Duration::from_secs(20)), Taken::Value(_)));
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
