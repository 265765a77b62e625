//! Turns a function into a thread that survives panics: its work starts anew after a pause.
//!
//! Our own code has none to offer, but libraries might, and process 1 must outlive them.

use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::Duration;

use nix::poll::{PollTimeout, poll};

/// Runs `work` in a thread of that name until it returns.
pub(super) fn spawn(name: &str, mut work: impl FnMut() + Send + 'static) {
    let thread = name.to_owned();
    let run = move || {
        let mut pause = FIRST_PAUSE;
        // State that a panic left half changed is dropped: each turn builds its own.
        while panic::catch_unwind(AssertUnwindSafe(&mut work)).is_err() {
            log::error!("firmware: {thread} starts again after {pause:?}");
            wait(pause);
            pause = (pause * 2).min(MAX_PAUSE);
        }
    };
    if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(run) {
        log::error!("firmware: {name} cannot start error={error}");
    }
}

/// Lets time pass; a signal may end it early.
pub(super) fn wait(pause: Duration) {
    let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
    // Without descriptors it can only time out or be interrupted.
    let _ = poll(&mut [], timeout);
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
