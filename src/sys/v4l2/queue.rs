//! Hands out the driver's buffers as leases: who holds a lease owns the buffer.
//!
//! V4L2, "Streaming I/O (Memory Mapping)": `VIDIOC_REQBUFS`, `VIDIOC_QUERYBUF`, `VIDIOC_QBUF`,
//! `VIDIOC_DQBUF`, `VIDIOC_STREAMON`, `VIDIOC_STREAMOFF`.
//!
//! One [`Queue`] is one generation of buffers, from REQBUFS to REQBUFS(0). Its mappings live in an
//! `Arc` that every [`Lease`] holds, so that neither stopping nor closing nor an unplug unmaps what
//! somebody reads. The generation's descriptor lies behind a mutex and is taken out by the stop, so
//! that a lease which comes back later cannot queue its index into a successor's buffers.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::raw::c_int;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use v4l::v4l_sys as abi;

use super::ioctl::{self, Call, Plain, ioctl, ioctl_with_addresses};
use super::mapping::Mapping;
use super::{Device, Error, MAX_PLANES};
use crate::time::Instant;

/// A streaming capture queue; dropping it stops the stream and gives the buffers back.
#[derive(Debug)]
pub struct Queue {
    fd: Arc<OwnedFd>,
    generation: Arc<Generation>,
}

impl Queue {
    /// Allocates, maps and queues buffers, and starts the stream.
    ///
    /// The driver may give more or fewer than `count` buffers, but not none.
    ///
    /// # Errors
    ///
    /// [`Error`]: EBUSY when another file owns the buffers, ENOMEM, and whatever the driver says
    /// to STREAMON (ENOSPC: no USB bandwidth; EIO or EPIPE: hardware).
    pub fn start(device: &Device, count: u32) -> Result<Self, Error> {
        let fd = Arc::clone(&device.fd);
        let kind = device.buffer_type();
        let given = request_buffers(fd.as_fd(), kind, count)?;
        if given == 0 {
            return Err(Error { call: "VIDIOC_REQBUFS", errno: Errno::ENOMEM });
        }
        let buffers = (0..given)
            .map(|index| map_buffer(fd.as_fd(), kind, index))
            .collect::<Result<Vec<_>, _>>()
            .inspect_err(|_| release_buffers(fd.as_fd(), kind))?;
        let refused = Mutex::new(Vec::with_capacity(buffers.len()));
        let generation =
            Generation { fd: Mutex::new(Some(Arc::clone(&fd))), kind, buffers, refused };
        // From here on `Queue::drop` gives the buffers back.
        let queue = Self { fd, generation: Arc::new(generation) };
        for index in 0..given {
            queue_buffer(queue.fd.as_fd(), kind, index)?;
        }
        ioctl(queue.fd.as_fd(), &ioctl::VIDIOC_STREAMON, &mut stream_type(kind))?;
        Ok(queue)
    }

    /// Buffers that the driver gave.
    #[must_use]
    pub fn len(&self) -> usize {
        self.generation.buffers.len()
    }

    /// Whether the driver gave no buffers, which [`Queue::start`] takes for an error.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A memory plane of a buffer as a DMABUF, for another device to read: the buffer itself, not
    /// a copy. Who imports it has to hold the buffer's lease while the other device reads.
    ///
    /// # Errors
    ///
    /// [`Error`]: ENOTTY or EINVAL from drivers that cannot share their memory.
    pub fn export(&self, index: u32, plane: u32) -> Result<OwnedFd, Error> {
        let kind = self.generation.kind;
        let flags = export_flags();
        let mut raw =
            abi::v4l2_exportbuffer { type_: kind, index, plane, flags, ..Plain::zeroed() };
        ioctl(self.fd.as_fd(), &ioctl::VIDIOC_EXPBUF, &mut raw)?;
        // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw.fd) })
    }

    /// Takes the oldest filled buffer, if there is one; never blocks.
    ///
    /// # Errors
    ///
    /// [`Error`]: ENODEV when the device is gone, EIO when the driver has given up.
    ///
    /// # Cost
    ///
    /// One system call, no allocation; the lease's drop is one more call.
    pub fn dequeue(&self) -> Result<Option<Lease>, Error> {
        self.give_back();
        let kind = self.generation.kind;
        let mut planes = [plane_zeroed(); MAX_PLANES];
        let mut raw = buffer(kind, 0);
        match exchange(self.fd.as_fd(), &ioctl::VIDIOC_DQBUF, &mut raw, &mut planes) {
            Err(Error { errno: Errno::EAGAIN, .. }) => return Ok(None),
            other => other?,
        }
        let index = usize::try_from(raw.index).unwrap_or(usize::MAX);
        let Some(mappings) = self.generation.buffers.get(index) else {
            return Err(Error { call: "VIDIOC_DQBUF: index of no buffer", errno: Errno::EIO });
        };
        let mut filled = [Filled::default(); MAX_PLANES];
        for (filled, (plane, mapping)) in filled.iter_mut().zip(planes.iter().zip(mappings)) {
            *filled = Filled::new(plane, mapping.len());
        }
        Ok(Some(Lease {
            generation: Arc::clone(&self.generation),
            index: raw.index,
            filled,
            sequence: raw.sequence,
            captured: captured(&raw),
            is_damaged: raw.flags & abi::V4L2_BUF_FLAG_ERROR != 0,
        }))
    }

    /// Offers the driver again what it did not take back: it could soon have nothing to fill.
    fn give_back(&self) {
        let Generation { kind, .. } = *self.generation;
        let is_refused = |&index: &u32| queue_buffer(self.fd.as_fd(), kind, index).is_err();
        self.generation.refused().retain(is_refused);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // After this no lease can queue anything: see the module's header.
        *self.generation.fd() = None;
        let kind = self.generation.kind;
        if let Err(error) = ioctl(self.fd.as_fd(), &ioctl::VIDIOC_STREAMOFF, &mut stream_type(kind))
        {
            log::debug!("capture: {error}");
        }
        release_buffers(self.fd.as_fd(), kind);
    }
}

/// What leases share: the mappings, and the way back to the driver while there is one.
#[derive(Debug)]
struct Generation {
    fd: Mutex<Option<Arc<OwnedFd>>>,
    kind: abi::v4l2_buf_type,
    /// By buffer index, then by memory plane.
    buffers: Vec<Vec<Mapping>>,
    /// Buffers that are neither leased nor with the driver, which refused them. Has room for all.
    refused: Mutex<Vec<u32>>,
}

impl Generation {
    fn fd(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        // A poisoned lock holds a descriptor as good as any: nothing in here is half-changed.
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, Vec<u32>> {
        // As above.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A filled buffer, owned until it is dropped; the drop queues it again.
#[derive(Debug)]
pub struct Lease {
    generation: Arc<Generation>,
    index: u32,
    filled: [Filled; MAX_PLANES],
    sequence: u32,
    captured: Option<Instant>,
    is_damaged: bool,
}

impl Lease {
    /// The bytes that the driver wrote to a memory plane; empty when there is no such plane.
    #[must_use]
    pub fn plane(&self, index: usize) -> &[u8] {
        let buffer = usize::try_from(self.index).ok().and_then(|i| self.generation.buffers.get(i));
        let Some(mapping) = buffer.and_then(|planes| planes.get(index)) else { return &[] };
        // SAFETY: this lease is the one owner of a dequeued buffer, and the slice borrows it, so
        // the buffer is queued (by `drop`) only after the slice is gone. After STREAMOFF the
        // driver writes to no buffer.
        let bytes = unsafe { mapping.bytes() };
        let filled = self.filled.get(index).copied().unwrap_or_default();
        bytes.get(filled.start..filled.end).unwrap_or(&[])
    }

    /// Which of the queue's buffers it is, for [`Queue::export`].
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// The driver's count of frames, those included that it had to drop.
    #[must_use]
    pub const fn sequence(&self) -> u32 {
        self.sequence
    }

    /// When the driver says the picture was taken; `None` when it did not stamp with
    /// CLOCK_MONOTONIC, and the caller should use the present time.
    #[must_use]
    pub const fn captured(&self) -> Option<Instant> {
        self.captured
    }

    /// Whether the driver says that the data may be corrupt (`V4L2_BUF_FLAG_ERROR`).
    #[must_use]
    pub const fn is_damaged(&self) -> bool {
        self.is_damaged
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Held over the call, so that the stop cannot come between the look and the QBUF.
        let fd = self.generation.fd();
        let Some(fd) = fd.as_ref() else { return };
        if let Err(error) = queue_buffer(fd.as_fd(), self.generation.kind, self.index) {
            log::debug!("capture: {error}");
            self.generation.refused().push(self.index);
        }
    }
}

/// The part of a memory plane that holds data.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filled {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Filled {
    /// `bytesused` counts from the start of the plane, `data_offset` included.
    pub(super) fn new(plane: &abi::v4l2_plane, len: usize) -> Self {
        let within = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX).min(len);
        let end = within(plane.bytesused);
        Self { start: within(plane.data_offset).min(end), end }
    }
}

/// `None` unless the stamp is on CLOCK_MONOTONIC; zero is what drivers leave that have none.
fn captured(raw: &abi::v4l2_buffer) -> Option<Instant> {
    if raw.flags & abi::V4L2_BUF_FLAG_TIMESTAMP_MASK != abi::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC {
        return None;
    }
    // `time_t` is 32 or 64 bits wide.
    #[allow(clippy::useless_conversion, reason = "32 bits on some targets")]
    let (seconds, micros) = (i64::from(raw.timestamp.tv_sec), i64::from(raw.timestamp.tv_usec));
    let micros = seconds.checked_mul(1_000_000)?.checked_add(micros)?;
    u64::try_from(micros).ok().filter(|&micros| micros != 0).map(Instant::from_micros)
}

/// REQBUFS: allocates `count` buffers, or frees them all; answers how many there are.
pub(super) fn request_buffers(
    fd: BorrowedFd<'_>,
    kind: abi::v4l2_buf_type,
    count: u32,
) -> Result<u32, Error> {
    request_memory(fd, kind, abi::v4l2_memory_V4L2_MEMORY_MMAP, count)
}

/// As [`request_buffers`], with memory of another kind: REQBUFS makes room for it only.
pub(super) fn request_memory(
    fd: BorrowedFd<'_>,
    kind: abi::v4l2_buf_type,
    memory: abi::v4l2_memory,
    count: u32,
) -> Result<u32, Error> {
    let mut raw = abi::v4l2_requestbuffers { count, type_: kind, memory, ..Plain::zeroed() };
    ioctl(fd, &ioctl::VIDIOC_REQBUFS, &mut raw)?;
    Ok(raw.count)
}

/// REQBUFS(0): ends our ownership of the driver's queue.
///
/// What is still mapped is orphaned, not freed (`V4L2_BUF_CAP_SUPPORTS_ORPHANED_BUFS`). Closing
/// alone would not do: a lease's mapping keeps the kernel's file, and so the ownership, alive.
fn release_buffers(fd: BorrowedFd<'_>, kind: abi::v4l2_buf_type) {
    if let Err(error) = request_buffers(fd, kind, 0) {
        log::debug!("capture: {error}");
    }
}

/// QUERYBUF, then one mapping for each memory plane.
pub(super) fn map_buffer(
    fd: BorrowedFd<'_>,
    kind: abi::v4l2_buf_type,
    index: u32,
) -> Result<Vec<Mapping>, Error> {
    let mut planes = [plane_zeroed(); MAX_PLANES];
    let mut raw = buffer(kind, index);
    exchange(fd, &ioctl::VIDIOC_QUERYBUF, &mut raw, &mut planes)?;
    let count = if is_multiplanar(kind) { raw.length } else { 1 };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    planes
        .iter()
        .take(count)
        .map(|plane| {
            // SAFETY: for MMAP buffers the kernel writes `mem_offset`, and `exchange` copies it
            // there for single-planar ones.
            let offset = unsafe { plane.m.mem_offset };
            Mapping::new(fd, offset, plane.length)
        })
        .collect()
}

fn queue_buffer(fd: BorrowedFd<'_>, kind: abi::v4l2_buf_type, index: u32) -> Result<(), Error> {
    let mut planes = [plane_zeroed(); MAX_PLANES];
    exchange(fd, &ioctl::VIDIOC_QBUF, &mut buffer(kind, index), &mut planes)
}

/// Performs one of the calls on `v4l2_buffer`, and gives single-planar answers the shape of
/// multi-planar ones: `planes[0]` says where, how long and how full.
pub(super) fn exchange(
    fd: BorrowedFd<'_>,
    call: &Call<abi::v4l2_buffer>,
    raw: &mut abi::v4l2_buffer,
    planes: &mut [abi::v4l2_plane; MAX_PLANES],
) -> Result<(), Error> {
    if is_multiplanar(raw.type_) {
        raw.m.planes = planes.as_mut_ptr();
        raw.length = PLANES_LEN;
    }
    // SAFETY: for a multi-planar type the kernel follows `m.planes`, which points to `length`
    // planes that outlive the call; for a single-planar MMAP or DMABUF buffer, and in the planes of
    // such buffers, it follows no address.
    unsafe { ioctl_with_addresses(fd, call, raw) }?;
    if !is_multiplanar(raw.type_) {
        // SAFETY: for a single-planar MMAP buffer the kernel wrote `offset` (or left it as it was
        // initialised, zero, or the descriptor of a DMABUF); any way all its bytes are set.
        planes[0].m.mem_offset = unsafe { raw.m.offset };
        planes[0].length = raw.length;
        planes[0].bytesused = raw.bytesused;
    }
    Ok(())
}

/// An MMAP buffer by its index, everything else zero.
pub(super) const fn buffer(kind: abi::v4l2_buf_type, index: u32) -> abi::v4l2_buffer {
    // SAFETY: integers, unions of integers and one raw pointer: all zeroes is a valid value.
    let zeroed: abi::v4l2_buffer = unsafe { std::mem::zeroed() };
    abi::v4l2_buffer { index, type_: kind, memory: abi::v4l2_memory_V4L2_MEMORY_MMAP, ..zeroed }
}

pub(super) const fn plane_zeroed() -> abi::v4l2_plane {
    // SAFETY: integers and a union of integers: all zeroes is a valid value.
    unsafe { std::mem::zeroed() }
}

pub(super) const fn is_multiplanar(kind: abi::v4l2_buf_type) -> bool {
    matches!(
        kind,
        abi::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE
            | abi::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE
    )
}

/// `O_RDONLY | O_CLOEXEC`, which EXPBUF takes as unsigned.
const fn export_flags() -> u32 {
    OFlag::O_CLOEXEC.bits().cast_unsigned()
}

/// STREAMON and STREAMOFF take a pointer to a C `int`.
pub(super) const fn stream_type(kind: abi::v4l2_buf_type) -> c_int {
    kind.cast_signed()
}

/// [`MAX_PLANES`] in the kernel's type.
const PLANES_LEN: u32 = 8;
const _: () = assert!(MAX_PLANES == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_cannot_claim_more_than_the_plane() {
        for (data_offset, bytesused, start, end) in [
            (0, 100, 0, 100),
            (16, 80, 16, 80),
            (0, 101, 0, 100),
            (90, 80, 80, 80),
            (u32::MAX, u32::MAX, 100, 100),
        ] {
            let plane = abi::v4l2_plane { data_offset, bytesused, ..plane_zeroed() };
            let filled = Filled::new(&plane, 100);
            assert_eq!((filled.start, filled.end), (start, end));
        }
    }

    #[test]
    fn only_stamps_of_the_monotonic_clock_are_capture_times() {
        let stamped = |flags, tv_sec, tv_usec| {
            let timestamp = abi::timeval { tv_sec, tv_usec };
            captured(&abi::v4l2_buffer { flags, timestamp, ..buffer(1, 0) })
        };
        let monotonic = abi::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
        assert_eq!(stamped(monotonic, 7, 5), Some(Instant::from_micros(7_000_005)));
        assert_eq!(stamped(abi::V4L2_BUF_FLAG_TIMESTAMP_COPY, 7, 5), None);
        assert_eq!(stamped(abi::V4L2_BUF_FLAG_TIMESTAMP_UNKNOWN, 7, 5), None);
        assert_eq!(stamped(monotonic, 0, 0), None);
        assert_eq!(stamped(monotonic, -1, 0), None);
    }
}
