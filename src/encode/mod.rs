//! Turns frames into access units.
//!
//! H.264 Constrained Baseline: no B slices, as many slices per picture as threads,
//! parameter sets before every IDR.
//!
//! Not implemented: stateless hardware encoders.

pub mod m2m;
mod openh264;
mod rate;
mod scene;

use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use thiserror::Error;

pub use self::m2m::M2m;
pub use self::openh264::OpenH264;
use crate::frame::{Colour, Frame};
use crate::h264::AccessUnit;
use crate::sys::v4l2;
use crate::time::Instant;

/// What an encoder is to make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Pictures per second that the rate control reckons with.
    pub fps: f64,
    pub bitrate_bps: u32,
    /// From one IDR to the next, by capture time.
    pub gop: Duration,
    /// What the VUI says about the samples.
    pub colour: Colour,
    /// Threads that one picture may be encoded by, each with slices of its own.
    pub threads: u16,
}

/// Makes H.264 of one size, picture by picture.
///
/// The first picture sets the size and becomes an IDR. Units come in the order of their pictures
/// and carry the capture times of these; parameter sets come before every IDR.
pub trait Encoder: std::fmt::Debug + Send {
    /// What it is, for logs and metrics: `openh264`, `m2m:/dev/video11`.
    fn name(&self) -> String;

    /// Takes one I420 picture, and writes the oldest unit that is complete into `unit`: an IDR when
    /// one is due, or `is_idr_wanted`.
    ///
    /// # Errors
    ///
    /// [`Error::BadFrame`] is the caller's fault; after any other the encoder is to be closed.
    fn encode(
        &mut self,
        frame: &Frame<'_>,
        is_idr_wanted: bool,
        unit: &mut AccessUnit,
    ) -> Result<Encoded, Error>;

    /// One more unit that is complete: encoders that work on several pictures at once catch up.
    ///
    /// # Errors
    ///
    /// As [`Encoder::encode`].
    fn more(&mut self, unit: &mut AccessUnit) -> Result<Encoded, Error> {
        unit.reset(unit.captured());
        Ok(Encoded::Skipped)
    }

    /// When the last IDR was captured.
    fn last_idr(&self) -> Option<Instant>;

    /// Goes on with another rate, bitrate or GOP.
    ///
    /// # Errors
    ///
    /// As [`Encoder::encode`].
    fn change(&mut self, settings: &Settings) -> Result<(), Error>;
}

/// What became of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// The access unit is complete.
    Unit,
    /// There is none: the rate control left this picture out, or the encoder is not done with it.
    Skipped,
}

/// Why a picture could not be encoded; the encoder is to be opened again.
#[derive(Debug, Error)]
pub enum Error {
    #[error("encoder: {0}")]
    OpenH264(#[from] crate::sys::encoder::Error),
    #[error("encoder: a picture of {width}x{height} with too few bytes, or not I420")]
    BadFrame { width: u32, height: u32 },
    #[error("encoder: {0}")]
    TooLong(#[from] crate::h264::TooLong),
    #[error("encoder: {0}")]
    Device(v4l2::Error),
    #[error("encoder: the device is gone")]
    Gone,
    #[error("encoder: nothing came out for {:.1} s", .0.as_secs_f64())]
    Stalled(Duration),
    /// The device works, but is of no use for this stream.
    #[error("encoder: of no use: {0}")]
    Unsuitable(&'static str),
}

impl From<v4l2::Error> for Error {
    fn from(error: v4l2::Error) -> Self {
        match error.errno {
            Errno::ENODEV | Errno::ENXIO | Errno::ENOENT => Self::Gone,
            _ => Self::Device(error),
        }
    }
}

/// Which encoder a stream is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first hardware encoder that works, else OpenH264.
    #[default]
    Auto,
    OpenH264,
    /// This memory-to-memory device, or the first that works; OpenH264 when it does not.
    M2m(Option<PathBuf>),
}
