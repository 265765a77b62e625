//! Turns a decision to stop into a machine that is off or starts again, with its data written.

use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sync};

use super::{journal, storage, worker};
use crate::sys::clock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Restart,
    PowerOff,
}

/// Ends every process, writes everything, and leaves the rest to the kernel.
pub(super) fn now(why: Why) -> ! {
    log::info!("firmware: shutting down why={why:?}");
    for (signal, patience) in [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, GRACE)] {
        // -1 is everybody but ourselves; an error means that nobody is left.
        let _ = kill(Pid::from_raw(-1), signal);
        let end = clock::now() + patience;
        while clock::now() < end && !all_reaped() {
            worker::wait(Duration::from_millis(20));
        }
    }
    sync();
    storage::shut_down();
    log::info!("firmware: down");
    journal::flush();
    let mode = match why {
        Why::Restart => RebootMode::RB_AUTOBOOT,
        Why::PowerOff => RebootMode::RB_POWER_OFF,
    };
    let Err(errno) = reboot(mode);
    log::error!("firmware: the kernel refuses to stop error={errno}");
    // Process 1 must not end.
    loop {
        worker::wait(Duration::from_secs(60));
    }
}

fn all_reaped() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return false,
            Ok(_) => {}
            Err(_) => return true,
        }
    }
}

/// The camera stops within a second of SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
