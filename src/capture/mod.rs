//! Pixels in: turns a camera, a drawing or a file into frames or access units with capture times.
//!
//! Sources name no clock: `produce` waits as [`Wait`] says and passes `now`.

mod camera;
mod choice;
mod coded;
mod controls;
mod file;
mod holder;
mod layout;
mod mode;
mod node;
mod pattern;
mod probe;
mod v4l2;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use thiserror::Error;

pub use camera::{Camera, first_working};
pub use choice::{Choice, Encoder, Wanted, choose};
pub use coded::CodedCamera;
pub use file::File;
pub use mode::Request;
pub use pattern::{DrawnFrame, Pattern};
pub use probe::{Control, Device, Format, Size, probe};
pub use v4l2::{MappedFrame, V4l2};

use crate::frame::{Frame, PixelFormat};
use crate::h264::AccessUnit;
use crate::time::Instant;

/// An opened source, by what it yields.
#[derive(Debug)]
pub enum Source {
    /// Uncompressed pictures: for the encoder.
    Raw(Box<dyn RawSource>),
    /// Access units that somebody else has encoded.
    Coded(Box<dyn CodedSource>),
}

/// What to wait for before the next call of `capture`.
#[derive(Clone, Copy, Debug)]
pub enum Wait<'a> {
    /// Until the device is readable (or says that it is gone).
    Readable(BorrowedFd<'a>),
    /// Until this time has come.
    Until(Instant),
}

/// The pictures a source delivers; both sides may differ from what was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mode {
    pub format: PixelFormat,
    pub width: u32,
    pub height: u32,
    pub fps: f64,
}

/// A source of uncompressed pictures.
pub trait RawSource: std::fmt::Debug + Send {
    /// What it delivers.
    fn mode(&self) -> Mode;
    /// What to wait for.
    fn wait(&self) -> Wait<'_>;
    /// Takes the next picture, if there is one; never blocks.
    ///
    /// # Errors
    ///
    /// [`Error`]: the device's fault. [`Error::Gone`] and [`Error::Os`] want the source reopened;
    /// a single damaged buffer is counted, not an error.
    fn capture(&mut self, now: Instant) -> Result<Option<RawFrame>, Error>;
    /// Pictures lost so far: damaged buffers, and gaps in the driver's sequence.
    fn lost(&self) -> u64;
}

/// A source of access units that are already H.264.
pub trait CodedSource: std::fmt::Debug + Send {
    /// What to wait for.
    fn wait(&self) -> Wait<'_>;
    /// Pictures per second, as far as the source knows.
    fn fps(&self) -> f64;
    /// Writes the next access unit into `unit`, if there is one; never blocks.
    ///
    /// The unit's capture time is that of the schedule (or the driver), and always increases.
    ///
    /// # Errors
    ///
    /// As [`RawSource::capture`]; [`Error::BPictures`] comes again if the source is reopened.
    fn capture(&mut self, now: Instant, unit: &mut AccessUnit) -> Result<bool, Error>;
    /// Width and height of the newest pictures.
    fn size(&self) -> (u32, u32);
    /// Pictures lost so far, as [`RawSource::lost`].
    fn lost(&self) -> u64 {
        0
    }
    /// Asks for an IDR picture soon; most sources cannot be asked.
    fn request_idr(&mut self) {}
    /// Goes on with other settings, as far as the source can.
    fn change(&mut self, _coding: Coding) {}
}

/// How a source that encodes is to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coding {
    pub bitrate_bps: u32,
    /// From one IDR picture to the next.
    pub gop: Duration,
}

/// One uncompressed picture, with the buffer that it lies in; dropping it gives the buffer back.
#[derive(Debug)]
pub enum RawFrame {
    /// A driver's buffer.
    Mapped(MappedFrame),
    /// The test pattern's.
    Drawn(DrawnFrame),
}

impl RawFrame {
    /// The picture.
    #[must_use]
    pub fn frame(&self) -> Frame<'_> {
        match self {
            Self::Mapped(frame) => frame.frame(),
            Self::Drawn(frame) => frame.frame(),
        }
    }
}

/// Why a source cannot be opened or has stopped.
#[derive(Debug, Error)]
pub enum Error {
    /// Another process has the device.
    #[error("{}: busy{}", device.display(), holder.as_ref().map(|who| format!(", held by {who}")).unwrap_or_default())]
    Busy { device: PathBuf, holder: Option<String> },
    /// There is no such device (any more).
    #[error("{}: no such device: it was unplugged, or its driver went away", device.display())]
    Gone { device: PathBuf },
    /// This user may not open the device.
    #[error("{}: permission denied; {hint}", device.display())]
    Denied { device: PathBuf, hint: String },
    /// The file or node gives no pictures.
    #[error("{}: not a capture device: it is {is}", device.display())]
    NotACamera { device: PathBuf, is: &'static str },
    /// Nothing that the camera offers can be used.
    #[error("{}: no usable format: it offers {offered}; usable are {usable}", device.display())]
    NoUsableFormat { device: PathBuf, offered: String, usable: String },
    /// The camera has no control of that name.
    #[error("{}: no control `{control}`; it has {offered}", device.display())]
    NoSuchControl { device: PathBuf, control: String, offered: String },
    /// The camera has no such value of a control.
    #[error("{}: control `{control}` cannot be {value}: allowed are {allowed}", device.display())]
    ControlRange { device: PathBuf, control: String, value: i64, allowed: String },
    /// The camera's own H.264 cannot be passed on.
    #[error("{}: sends B pictures: viewers would show them in the wrong order, and late; choose another format than H264", device.display())]
    BPictures { device: PathBuf },
    /// The file is no H.264 Annex B byte stream, or a broken one.
    #[error("{}: {reason}", path.display())]
    BadFile { path: PathBuf, reason: &'static str },
    /// Any other refusal of the kernel.
    #[error("{}: {call}: {}", path.display(), errno.desc())]
    Os { path: PathBuf, call: &'static str, errno: Errno },
}
