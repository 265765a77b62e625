//! Turns signals into a camera process that always runs, until the machine is to stop.
//!
//! signalfd(2), waitpid(2). Process 1 inherits every orphan, so it reaps all children and knows
//! its own among them by process id.
//!
//! Not implemented: the camera's own user, sandbox and heartbeat.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::shutdown::Why;
use super::worker;
use crate::sys::{clock, process};
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Supervisor {
    started: Instant,
    /// The configuration that the camera is given.
    config: Option<&'static str>,
    camera: Camera,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug)]
enum Camera {
    Running {
        pid: Pid,
        since: Instant,
    },
    /// Not running; to be started at `at`.
    Due {
        at: Instant,
    },
}

impl Supervisor {
    pub(super) const fn new(started: Instant, config: Option<&'static str>) -> Self {
        let camera = Camera::Due { at: Instant::ZERO };
        Self { started, config, camera, backoff: Backoff::new() }
    }

    /// Keeps the camera alive until a signal asks for the end.
    pub(super) fn run(mut self, signals: &SigSet) -> Why {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(signals, flags);
        if let Err(errno) = &signals {
            log::error!("firmware: signals cannot be read, polling instead error={errno}");
        }
        let signals = signals.ok();
        loop {
            self.reap();
            self.start_if_due();
            self.wait(signals.as_ref());
            if let Some(why) = signals.as_ref().and_then(asked_to_stop) {
                return why;
            }
        }
    }

    fn wait(&self, signals: Option<&SignalFd>) {
        let now = clock::now();
        // With nothing due, once a minute costs nothing and forgives a lost signal.
        let longest = if signals.is_some() { Duration::from_secs(60) } else { POLLING };
        let pause = match self.camera {
            Camera::Running { .. } => longest,
            Camera::Due { at } => at.since(now).min(longest),
        };
        let Some(signals) = signals else {
            worker::wait(pause);
            return;
        };
        // Rounded up: a millisecond early would be a turn for nothing.
        let timeout = PollTimeout::try_from(pause + Duration::from_millis(1));
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        // An interruption is a turn for nothing too.
        let _ = poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX));
    }

    fn start_if_due(&mut self) {
        let now = clock::now();
        let Camera::Due { at } = self.camera else { return };
        if now < at {
            return;
        }
        let mut command = Command::new("/proc/self/exe");
        command.arg0("ocellus").arg("run");
        if let Some(path) = self.config {
            command.arg("--config").arg(path);
        }
        command.env(STARTED_VARIABLE, self.started.as_micros().to_string());
        process::unblock_signals(&mut command);
        self.camera = match command.spawn() {
            // The handle is dropped, not waited for: `reap` waits for everybody.
            Ok(child) => {
                let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
                let (starts, ms) = (self.backoff.starts, now.since(self.started).as_millis());
                log::info!(
                    "firmware: camera started pid={pid} restarts={starts} since_start_ms={ms}"
                );
                Camera::Running { pid, since: now }
            }
            Err(error) => {
                let delay = self.backoff.next(Duration::ZERO);
                log::error!("firmware: camera cannot start, retry={delay:?} error={error}");
                Camera::Due { at: now + delay }
            }
        };
    }

    fn reap(&mut self) {
        // Ends with StillAlive, or with ECHILD when there are no children at all.
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let Some(gone) = status.pid() else { return };
            if let Camera::Running { pid, since } = self.camera
                && pid == gone
                && matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..))
            {
                let now = clock::now();
                let delay = self.backoff.next(now.since(since));
                let status = describe(status);
                log::error!("firmware: camera died pid={pid} {status} restart_in={delay:?}");
                self.camera = Camera::Due { at: now + delay };
            }
        }
    }
}

/// How long to wait before the camera is started again.
#[derive(Debug)]
struct Backoff {
    /// Restarts so far.
    starts: u32,
    delay: Duration,
}

impl Backoff {
    const fn new() -> Self {
        Self { starts: 0, delay: FIRST_DELAY }
    }

    /// The delay after a camera that ran for `ran`: doubled each time, unless it ran well.
    fn next(&mut self, ran: Duration) -> Duration {
        if ran >= RAN_WELL {
            self.delay = FIRST_DELAY;
        }
        self.starts = self.starts.saturating_add(1);
        let delay = self.delay;
        self.delay = (delay * 2).min(MAX_DELAY);
        delay
    }
}

/// What the signals that are waiting ask for: the last word counts.
fn asked_to_stop(signals: &SignalFd) -> Option<Why> {
    let mut why = None;
    while let Ok(Some(info)) = signals.read_signal() {
        let signal = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok());
        match signal {
            // SIGINT is what the kernel makes of ctrl-alt-del.
            Some(Signal::SIGINT | Signal::SIGTERM) => why = Some(Why::Restart),
            Some(Signal::SIGUSR1 | Signal::SIGUSR2 | Signal::SIGPWR) => why = Some(Why::PowerOff),
            _ => {}
        }
    }
    why
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit={code}"),
        WaitStatus::Signaled(_, signal, _) => format!("signal={signal}"),
        other => format!("status={other:?}"),
    }
}

/// Tells the camera when process 1 started: microseconds of CLOCK_MONOTONIC.
const STARTED_VARIABLE: &str = "OCELLUS_PID1_START_US";

const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(10);
/// A camera that lived this long did not die of how it was started.
const RAN_WELL: Duration = Duration::from_secs(30);
/// Between looks at the children when no signal tells of them.
const POLLING: Duration = Duration::from_millis(500);

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a failing test")]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_comes_within_a_second_and_a_crash_loop_slows_down() {
        let mut backoff = Backoff::new();
        let delays: Vec<_> = (0..12).map(|_| backoff.next(Duration::from_millis(5))).collect();
        assert!(delays.iter().take(3).all(|&delay| delay < Duration::from_secs(1)));
        assert!(delays.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(delays.last(), Some(&MAX_DELAY));
    }

    #[test]
    fn a_camera_that_ran_well_is_restarted_at_once_again() {
        let mut backoff = Backoff::new();
        for _ in 0..12 {
            backoff.next(Duration::ZERO);
        }
        assert_eq!(backoff.next(RAN_WELL), FIRST_DELAY);
    }
}
