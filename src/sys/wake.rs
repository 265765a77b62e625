//! Wakes a thread that waits in epoll: an eventfd.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// One end wakes, the other waits; both may be any thread.
#[derive(Debug)]
pub struct Wake(EventFd);

impl Wake {
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn new() -> Result<Self, Errno> {
        EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map(Self)
    }

    /// Makes the descriptor readable, for good: level-triggered, it wakes until the end;
    /// edge-triggered, once more with every call.
    pub fn wake(&self) {
        // EAGAIN means that the counter is full, so the waiter will wake anyway.
        let _ = self.0.write(1);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
