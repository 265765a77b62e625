//! Turns frames into access units.
//!
//! H.264 Constrained Baseline: no B slices, one slice per picture, parameter sets before every IDR.
//!
//! Not implemented: hardware encoders, changing size or bitrate while running.

mod openh264;

use std::time::Duration;

use thiserror::Error;

pub use self::openh264::OpenH264;
use crate::frame::Colour;

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
}

/// What became of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// The access unit is complete.
    Unit,
    /// The rate control left this picture out.
    Skipped,
}

/// Why a picture could not be encoded; the encoder is to be opened again.
#[derive(Debug, Error)]
pub enum Error {
    #[error("encoder: {0}")]
    OpenH264(#[from] ::openh264::Error),
    #[error("encoder: a picture of {width}x{height} with too few bytes, or not I420")]
    BadFrame { width: u32, height: u32 },
    #[error("encoder: {0}")]
    TooLong(#[from] crate::h264::TooLong),
}
