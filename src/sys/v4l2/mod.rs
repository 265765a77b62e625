//! Turns a V4L2 node into formats, controls and queues of mapped buffers.
//!
//! Linux media userspace API, "Video for Linux API": devices of the CAPTURE direction and encoders,
//! single- and multi-planar, with memory-mapped streaming I/O. The structures and ioctl numbers are the `v4l`
//! crate's; the queue is ours, so that a buffer is owned by whoever dequeued it.
//!
//! Not implemented: DMABUF and user pointers, decoders, cropping of cameras.

mod buffers;
pub mod codec;
mod controls;
mod device;
mod enumerate;
mod format;
mod ioctl;
mod mapping;
mod queue;

use nix::errno::Errno;
use thiserror::Error;

pub use buffers::{Buffers, Dequeued};
pub use codec::Direction;
pub use controls::{CodingControl, Control, ControlKind};
pub use device::{Device, Info, Role, nodes};
pub use enumerate::{FormatInfo, FrameInterval, FrameSize, Interval};
pub use format::{Colorimetry, Format, FourCc, Memory};
pub use queue::{Lease, Queue};

/// A refusal of the kernel, and what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{call}: {}", errno.desc())]
pub struct Error {
    /// The system call or ioctl, by its name in the documentation.
    pub call: &'static str,
    pub errno: Errno,
}

/// Memory planes that one buffer can have (`VIDEO_MAX_PLANES`).
pub const MAX_PLANES: usize = 8;
