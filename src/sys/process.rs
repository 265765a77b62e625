//! Turns a process that is to be started into one with a clean slate.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::SigSet;

/// Lets the process receive the signals that this thread blocks.
///
/// The mask is inherited, and PID 1 reads its signals from a descriptor.
pub fn unblock_signals(command: &mut Command) {
    let unblock = || SigSet::empty().thread_set_mask().map_err(Into::into);
    // SAFETY: between fork and exec only async-signal-safe functions may run. The closure calls
    // pthread_sigmask, which is one, on a set that lives on its stack; it allocates nothing, takes
    // no lock, and an error is made of a number only.
    unsafe { command.pre_exec(unblock) };
}
