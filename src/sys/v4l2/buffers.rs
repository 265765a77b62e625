//! Owns the driver's buffers of one direction of a codec.
//!
//! V4L2, "Streaming I/O (Memory Mapping)", "Memory-to-Memory Stateful Video Encoder Interface".
//!
//! A capture [`Queue`](super::Queue) hands buffers to whoever asks; a codec's are filled and read
//! by the one who has the [`Buffers`], so no lease is needed: a buffer's bytes are shown only while
//! it is ours, between its allocation or DQBUF and its QBUF.
//!
//! Closing the device ends the stream: there is nothing to do for a drop.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use v4l::v4l_sys as abi;

use super::ioctl::{self, ioctl};
use super::mapping::Mapping;
use super::queue::{
    Filled, buffer, exchange, is_multiplanar, map_buffer, plane_zeroed, request_buffers,
    request_memory, stream_type,
};
use super::{Device, Direction, Error, MAX_PLANES};
use crate::time::Instant;

/// The buffers of one direction.
#[derive(Debug)]
pub struct Buffers {
    buffers: Vec<Buffer>,
    fd: Arc<OwnedFd>,
    kind: abi::v4l2_buf_type,
    memory: abi::v4l2_memory,
}

#[derive(Debug)]
struct Buffer {
    planes: Vec<Mapping>,
    is_ours: bool,
}

/// A buffer that the driver has given back; it is ours until it is queued.
#[derive(Clone, Copy, Debug)]
pub struct Dequeued {
    index: usize,
    filled: Filled,
    /// Of a coded picture: the stamp of the raw one that it was made of.
    pub captured: Option<Instant>,
    /// `V4L2_BUF_FLAG_ERROR`: the picture could not be encoded.
    pub is_damaged: bool,
    /// `V4L2_BUF_FLAG_LAST`: the drain is complete.
    pub is_last: bool,
}

impl Dequeued {
    /// Which buffer it is.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }
}

impl Buffers {
    /// Allocates and maps buffers. The driver may give more or fewer than `count`, but not none.
    ///
    /// # Errors
    ///
    /// [`Error`]: ENOMEM, or EBUSY while the direction streams.
    pub fn allocate(device: &Device, direction: Direction, count: u32) -> Result<Self, Error> {
        let kind = device.codec_buffer_type(direction);
        let fd = Arc::clone(&device.fd);
        let given = request_buffers(fd.as_fd(), kind, count)?;
        if given == 0 {
            return Err(Error { call: "VIDIOC_REQBUFS", errno: Errno::ENOMEM });
        }
        let buffers = (0..given)
            .map(|index| {
                map_buffer(fd.as_fd(), kind, index).map(|planes| Buffer { planes, is_ours: true })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { buffers, fd, kind, memory: abi::v4l2_memory_V4L2_MEMORY_MMAP })
    }

    /// Makes room for buffers of another device, which are given with [`Buffers::queue_shared`].
    ///
    /// # Errors
    ///
    /// [`Error`]: EINVAL from drivers that cannot import memory.
    pub fn for_shared(device: &Device, direction: Direction, count: u32) -> Result<Self, Error> {
        let kind = device.codec_buffer_type(direction);
        let fd = Arc::clone(&device.fd);
        let memory = abi::v4l2_memory_V4L2_MEMORY_DMABUF;
        let given = request_memory(fd.as_fd(), kind, memory, count)?;
        if given == 0 {
            return Err(Error { call: "VIDIOC_REQBUFS", errno: Errno::ENOMEM });
        }
        let buffers = (0..given).map(|_| Buffer { planes: Vec::new(), is_ours: true }).collect();
        Ok(Self { buffers, fd, kind, memory })
    }

    /// Buffers that the driver gave.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether there are none, which [`Buffers::allocate`] takes for an error.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// The first buffer that is ours.
    #[must_use]
    pub fn free(&self) -> Option<usize> {
        self.buffers.iter().position(|buffer| buffer.is_ours)
    }

    /// The memory plane of a buffer, to be filled; empty when the buffer is not ours, or has no
    /// such plane.
    pub fn plane_mut(&mut self, index: usize, plane: usize) -> &mut [u8] {
        let buffer = self.buffers.get_mut(index).filter(|buffer| buffer.is_ours);
        match buffer.and_then(|buffer| buffer.planes.get_mut(plane)) {
            // SAFETY: the buffer is not queued, so the driver leaves it alone, and `queue` needs
            // `self`, which the slice borrows.
            Some(mapping) => unsafe { mapping.bytes_mut() },
            None => &mut [],
        }
    }

    /// What the driver wrote to the first memory plane; empty once the buffer is queued again.
    #[must_use]
    pub fn bytes(&self, dequeued: &Dequeued) -> &[u8] {
        let buffer = self.buffers.get(dequeued.index).filter(|buffer| buffer.is_ours);
        let Some(mapping) = buffer.and_then(|buffer| buffer.planes.first()) else { return &[] };
        // SAFETY: the buffer is not queued, so the driver leaves it alone, and `queue` needs
        // `self`, which the slice borrows.
        let bytes = unsafe { mapping.bytes() };
        bytes.get(dequeued.filled.start..dequeued.filled.end).unwrap_or(&[])
    }

    /// Gives a buffer to the driver.
    ///
    /// # Shape
    ///
    /// `used`: bytes of each memory plane that hold the picture; none for a buffer to be written.
    ///
    /// # Errors
    ///
    /// [`Error`]: EINVAL for a length over the plane's, or a buffer that is not ours.
    pub fn queue(&mut self, index: usize, captured: Instant, used: &[u32]) -> Result<(), Error> {
        let mut planes = [plane_zeroed(); MAX_PLANES];
        for (plane, &used) in planes.iter_mut().zip(used) {
            plane.bytesused = used;
        }
        self.queue_planes(index, captured, planes)
    }

    /// Gives the driver a buffer of another device: one DMABUF for each memory plane, and how many
    /// bytes long the plane is, all of them filled. It must not change before this index is dequeued.
    ///
    /// # Errors
    ///
    /// [`Error`]: EINVAL for one that is smaller than the format needs, or an index that is not
    /// ours.
    pub fn queue_shared(
        &mut self,
        index: usize,
        captured: Instant,
        shared: &[(BorrowedFd<'_>, u32)],
    ) -> Result<(), Error> {
        let mut planes = [plane_zeroed(); MAX_PLANES];
        for (plane, (fd, used)) in planes.iter_mut().zip(shared) {
            plane.m.fd = fd.as_raw_fd();
            (plane.bytesused, plane.length) = (*used, *used);
        }
        self.queue_planes(index, captured, planes)
    }

    fn queue_planes(
        &mut self,
        index: usize,
        captured: Instant,
        mut planes: [abi::v4l2_plane; MAX_PLANES],
    ) -> Result<(), Error> {
        let refused = Error { call: "VIDIOC_QBUF", errno: Errno::EINVAL };
        let ours = self.buffers.get_mut(index).filter(|buffer| buffer.is_ours).ok_or(refused)?;
        let index = u32::try_from(index).map_err(|_| refused)?;
        let mut raw = abi::v4l2_buffer { memory: self.memory, ..buffer(self.kind, index) };
        raw.field = abi::v4l2_field_V4L2_FIELD_NONE;
        raw.timestamp = timeval(captured);
        if !is_multiplanar(self.kind) {
            (raw.bytesused, raw.length) = (planes[0].bytesused, planes[0].length);
            if self.memory == abi::v4l2_memory_V4L2_MEMORY_DMABUF {
                // SAFETY: `queue_shared` set it, or it is zero.
                raw.m.fd = unsafe { planes[0].m.fd };
            }
        }
        exchange(self.fd.as_fd(), &ioctl::VIDIOC_QBUF, &mut raw, &mut planes)?;
        ours.is_ours = false;
        Ok(())
    }

    /// Takes back the oldest buffer that the driver is done with; never blocks.
    ///
    /// # Errors
    ///
    /// [`Error`]: EPIPE after the buffer marked LAST, ENODEV when the device is gone, EIO when the
    /// driver has given up.
    ///
    /// # Cost
    ///
    /// One system call, no allocation.
    pub fn dequeue(&mut self) -> Result<Option<Dequeued>, Error> {
        let mut planes = [plane_zeroed(); MAX_PLANES];
        let mut raw = abi::v4l2_buffer { memory: self.memory, ..buffer(self.kind, 0) };
        match exchange(self.fd.as_fd(), &ioctl::VIDIOC_DQBUF, &mut raw, &mut planes) {
            Err(Error { errno: Errno::EAGAIN, .. }) => return Ok(None),
            other => other?,
        }
        let index = usize::try_from(raw.index).unwrap_or(usize::MAX);
        let Some(buffer) = self.buffers.get_mut(index) else {
            return Err(Error { call: "VIDIOC_DQBUF: index of no buffer", errno: Errno::EIO });
        };
        buffer.is_ours = true;
        let len = buffer.planes.first().map_or(0, Mapping::len);
        Ok(Some(Dequeued {
            index,
            filled: Filled::new(&planes[0], len),
            captured: stamp(raw.timestamp),
            is_damaged: raw.flags & abi::V4L2_BUF_FLAG_ERROR != 0,
            is_last: raw.flags & abi::V4L2_BUF_FLAG_LAST != 0,
        }))
    }

    /// Starts the direction.
    ///
    /// # Errors
    ///
    /// [`Error`]: whatever the driver says to STREAMON.
    pub fn start(&mut self) -> Result<(), Error> {
        ioctl(self.fd.as_fd(), &ioctl::VIDIOC_STREAMON, &mut stream_type(self.kind))
    }

    /// Stops the direction: every buffer is ours again, and what the driver held is lost.
    ///
    /// # Errors
    ///
    /// [`Error`]: ENODEV when the device is gone.
    pub fn stop(&mut self) -> Result<(), Error> {
        ioctl(self.fd.as_fd(), &ioctl::VIDIOC_STREAMOFF, &mut stream_type(self.kind))?;
        for buffer in &mut self.buffers {
            buffer.is_ours = true;
        }
        Ok(())
    }
}

/// The stamp that an encoder copies from the raw picture to the coded one.
fn timeval(captured: Instant) -> abi::timeval {
    let micros = captured.as_micros();
    abi::timeval {
        tv_sec: (micros / MICROS).try_into().unwrap_or_default(),
        tv_usec: (micros % MICROS).try_into().unwrap_or_default(),
    }
}

fn stamp(raw: abi::timeval) -> Option<Instant> {
    let (seconds, micros) = (u64::try_from(raw.tv_sec).ok()?, u64::try_from(raw.tv_usec).ok()?);
    Some(Instant::from_micros(seconds.checked_mul(MICROS)?.checked_add(micros)?))
}

const MICROS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_as_it_was_given() {
        for micros in [0, 1, 999_999, 1_000_000, 86_400_000_001, 2_147_483_647_999_999] {
            let captured = Instant::from_micros(micros);
            assert_eq!(stamp(timeval(captured)), Some(captured));
        }
        assert_eq!(stamp(abi::timeval { tv_sec: -1, tv_usec: 0 }), None);
    }
}
