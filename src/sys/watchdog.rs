//! The watchdog timer: a device that starts the machine anew unless it is fed.
//!
//! Documentation/watchdog/watchdog-api.rst: opening starts the timer, every write sets it back,
//! and a `V` before closing (magic close) stops it.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::libc::c_int;
use nix::unistd::write;

/// A timer that runs.
#[derive(Debug)]
pub struct Watchdog {
    device: OwnedFd,
    timeout: Duration,
}

impl Watchdog {
    /// Starts the timer: about `timeout`, as near as the device can.
    ///
    /// # Errors
    ///
    /// Those of open(2); EBUSY when somebody else feeds it.
    pub fn start(path: &Path, timeout: Duration) -> io::Result<Self> {
        let device = OwnedFd::from(OpenOptions::new().write(true).open(path)?);
        let mut seconds = c_int::try_from(timeout.as_secs()).unwrap_or(c_int::MAX);
        // SAFETY: the descriptor is open, and the call reads and writes the int that it is given.
        let set = unsafe { set_timeout(device.as_raw_fd(), &raw mut seconds) };
        if set.is_err() {
            // It keeps its own, which it tells.
            // SAFETY: the descriptor is open, and the call writes the int that it is given.
            unsafe { get_timeout(device.as_raw_fd(), &raw mut seconds) }?;
        }
        let timeout = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        Ok(Self { device, timeout })
    }

    /// What the device made of the time that was asked for.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets the timer back.
    ///
    /// # Errors
    ///
    /// Those of write(2).
    pub fn feed(&self) -> io::Result<()> {
        write(&self.device, b"\0")?;
        Ok(())
    }

    /// Stops the timer. Without this, closing leaves it running.
    ///
    /// # Errors
    ///
    /// Those of write(2). A device that cannot be stopped goes on without saying so.
    pub fn stop(self) -> io::Result<()> {
        write(&self.device, b"V")?;
        Ok(())
    }
}

nix::ioctl_readwrite!(set_timeout, b'W', 6, c_int);
nix::ioctl_read!(get_timeout, b'W', 7, c_int);
