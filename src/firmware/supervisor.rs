//! Turns signals and beats into a camera process that always runs, until the machine is to stop.
//!
//! signalfd(2), waitpid(2). Process 1 inherits every orphan, so it reaps all children and knows
//! its own among them by process id.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::camera::Camera;
use super::pulse::Pulse;
use super::shutdown::Why;
use super::watchdog::Feeder;
use super::{memory, worker};
use crate::sys::clock;
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Supervisor {
    /// When process 1 was.
    started: Instant,
    /// The configuration that the camera is given.
    config: Option<&'static str>,
    state: State,
    /// Cameras started before this one.
    restarts: u32,
    pulse: Pulse,
    watchdog: Feeder,
    /// When to say what memory is used.
    report: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Running(Camera),
    /// To be started at that time.
    Due(Instant),
}

impl Supervisor {
    pub(super) const fn new(
        started: Instant,
        config: Option<&'static str>,
        watchdog: Feeder,
    ) -> Self {
        let state = State::Due(Instant::ZERO);
        Self { started, config, state, restarts: 0, pulse: Pulse::new(), watchdog, report: None }
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
            self.follow_beats();
            self.start_if_due();
            self.handle_timeouts();
            self.wait(signals.as_ref());
            if let Some(why) = signals.as_ref().and_then(asked_to_stop) {
                // A restart that hangs is one more thing that a watchdog is for.
                if why == Why::PowerOff {
                    self.watchdog.stop();
                }
                return why;
            }
        }
    }

    fn wait(&self, signals: Option<&SignalFd>) {
        let now = clock::now();
        // With nothing due, once a minute costs nothing and forgives a lost signal.
        let longest = if signals.is_some() { Duration::from_secs(60) } else { POLLING };
        let camera = match &self.state {
            State::Running(_) => self.pulse.deadline(),
            State::Due(at) => *at,
        };
        let due = [Some(camera), self.watchdog.poll_timeout(), self.report];
        let due = due.into_iter().flatten().min().unwrap_or(camera);
        let pause = due.since(now).min(longest);
        let Some(signals) = signals else {
            worker::wait(pause);
            return;
        };
        // Rounded up: a millisecond early would be a turn for nothing.
        let timeout = PollTimeout::try_from(pause + Duration::from_millis(1));
        let beats = match &self.state {
            State::Running(camera) => camera.beats(),
            State::Due(_) => None,
        };
        let fds = [Some(signals.as_fd()), beats].into_iter().flatten();
        let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // An interruption is a turn for nothing too.
        let _ = poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX));
    }

    fn start_if_due(&mut self) {
        let now = clock::now();
        let State::Due(at) = self.state else { return };
        if now < at {
            return;
        }
        self.pulse.started(now);
        self.state = match Camera::start(self.started, self.config) {
            Ok(camera) => {
                let (pid, ms) = (camera.pid(), now.since(self.started).as_millis());
                let restarts = self.restarts;
                log::info!(
                    "firmware: camera started pid={pid} restarts={restarts} since_start_ms={ms}"
                );
                State::Running(camera)
            }
            Err(error) => {
                let delay = self.pulse.ended(now);
                log::error!("firmware: camera cannot start, retry={delay:?} error={error}");
                State::Due(now + delay)
            }
        };
        self.restarts = self.restarts.saturating_add(1);
    }

    /// Takes the camera's beats; kills it when it should have beaten and has not.
    fn follow_beats(&mut self) {
        let State::Running(camera) = &mut self.state else { return };
        let now = clock::now();
        if camera.take_beats() {
            if self.pulse.beaten(now) {
                let pid = camera.pid();
                let ms = now.since(self.started).as_millis();
                log::info!("firmware: camera beats pid={pid} since_start_ms={ms}");
                self.report.get_or_insert(now + FIRST_REPORT);
            }
        } else if self.pulse.is_overdue(now) {
            log::error!("firmware: camera does not beat, killing it pid={}", camera.pid());
            camera.kill();
        }
    }

    fn handle_timeouts(&mut self) {
        let now = clock::now();
        self.watchdog.handle_timeout(now, self.pulse.is_hopeless());
        if self.report.is_some_and(|due| due <= now) {
            memory::report();
            self.report = Some(now + REPORT_INTERVAL);
        }
    }

    fn reap(&mut self) {
        // Ends with StillAlive, or with ECHILD when there are no children at all.
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let Some(gone) = status.pid() else { return };
            if let State::Running(camera) = &mut self.state
                && camera.pid() == gone
                && matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..))
            {
                let now = clock::now();
                // Its last words count: it may have beaten just before.
                if camera.take_beats() {
                    self.pulse.beaten(now);
                }
                let delay = self.pulse.ended(now);
                let status = describe(status);
                log::error!("firmware: camera died pid={gone} {status} restart_in={delay:?}");
                self.state = State::Due(now + delay);
            }
        }
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

/// Between looks at the children when no signal tells of them.
const POLLING: Duration = Duration::from_millis(500);
/// After the first beat: when start-up is over.
const FIRST_REPORT: Duration = Duration::from_secs(10);
const REPORT_INTERVAL: Duration = Duration::from_secs(600);
