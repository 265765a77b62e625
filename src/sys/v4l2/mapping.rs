//! Owns one memory-mapped plane of one buffer.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::os::raw::c_void;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::Error;

/// A mapping of a driver's memory, unmapped when dropped.
///
/// The mapping holds the kernel's memory by itself: it stays readable after the device was closed,
/// its buffers given back, or the camera unplugged.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<c_void>,
    len: NonZeroUsize,
}

// SAFETY: the mapping belongs to no thread.
unsafe impl Send for Mapping {}
// SAFETY: shared access only reads; `bytes_mut` takes the mapping for itself.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes at the offset by which the driver names a plane.
    ///
    /// # Errors
    ///
    /// [`Error`]: ENOMEM, or EINVAL for an empty plane.
    pub(super) fn new(fd: BorrowedFd<'_>, offset: u32, len: u32) -> Result<Self, Error> {
        let refused = |errno| Error { call: "mmap", errno };
        let len = usize::try_from(len).ok().and_then(NonZeroUsize::new);
        let len = len.ok_or_else(|| refused(Errno::EINVAL))?;
        // With 32-bit file offsets the upper half would be negative; no driver names planes so.
        #[allow(clippy::unnecessary_fallible_conversions, reason = "off_t is 32 bits on armv7")]
        let offset = offset.try_into().map_err(|_| refused(Errno::EOVERFLOW))?;
        // V4L2's "mmap()": drivers should support at least this combination of protections.
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: no address is asked for, so no other mapping can be replaced.
        let start = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, fd, offset) };
        Ok(Self { start: start.map_err(refused)?, len })
    }

    /// The bytes.
    ///
    /// # Safety
    ///
    /// - Nothing writes to the memory while the slice lives: the buffer is dequeued, and is not
    ///   queued before the slice is gone.
    pub(super) const unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: `start` is the start of `len` mapped bytes until `drop`, which the borrow of
        // `self` rules out; u8 has no alignment; the caller promises that nothing writes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len.get()) }
    }

    /// The bytes, to be written.
    ///
    /// # Safety
    ///
    /// - Nothing else reads or writes the memory while the slice lives: as for [`Mapping::bytes`].
    pub(super) const unsafe fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the mapping is writable, and borrowed by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len.get()) }
    }

    pub(super) const fn len(&self) -> usize {
        self.len.get()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are what mmap was given and gave; every slice borrows `self`.
        if let Err(errno) = unsafe { munmap(self.start, self.len.get()) } {
            log::debug!("capture: munmap: {}", errno.desc());
        }
    }
}
