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

    /// Makes the descriptor readable. A wake that finds it readable already is the same wake.
    pub fn wake(&self) {
        // EAGAIN means that the counter is full, so the waiter will wake anyway.
        let _ = self.0.write(1);
    }

    /// Makes the descriptor unreadable again.
    pub fn clear(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
