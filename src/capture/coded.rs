//! Turns a camera that emits H.264 into access units: sets its encoder, passes on what can be used.
//!
//! V4L2 "Codec Control Reference", for the drivers that have such controls (`bcm2835-v4l2`); UVC
//! cameras that offer `H264` have none and are taken as they are.
//!
//! The camera is told not to repeat its parameter sets (raspberrypi/linux#4520: doing so stops some
//! firmware after hours); they are kept and put in here.
//!
//! Not implemented: UVC extension units, so bitrate and GOP of such cameras are their own choice.

mod pictures;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pictures::{Buffer, Pictures};

use super::mode::Request;
use super::node::{Node, Prepared, failure};
use super::{CodedSource, Coding, Error, Wait, controls, layout};
use crate::h264::AccessUnit;
use crate::sys::v4l2::{CodingControl, Control, Device, Info, Lease};
use crate::time::Instant;

/// A camera that streams H.264.
#[derive(Debug)]
pub struct CodedCamera {
    // Before `node`: it holds a buffer.
    reading: Option<Reading>,
    node: Node,
    pictures: Pictures,
    fps: f64,
}

/// A buffer that has not been read to its end.
#[derive(Debug)]
struct Reading {
    lease: Lease,
    captured: Instant,
    /// Bytes that have been read.
    read: usize,
}

impl CodedCamera {
    /// Opens a camera in the mode that fits best, sets its encoder, and starts it.
    ///
    /// # Errors
    ///
    /// As [`V4l2::open`](super::V4l2::open); [`Error::NoUsableFormat`] when it does not offer H.264.
    pub fn open(path: impl Into<PathBuf>, wanted: Request, coding: Coding) -> Result<Self, Error> {
        let wanted = Request { format: Some(layout::H264), ..wanted };
        let prepared = Prepared::new(path.into(), &wanted, &[layout::H264])?;
        let (fps, format) = (prepared.fps, prepared.format);
        let (width, height) = (format.width, format.height);
        let settings = settings(coding, fps).into_iter().chain(constant(width, height, fps));
        set(&prepared.path, &prepared.device, settings);
        let pictures = Pictures::new((width, height));
        Ok(Self { reading: None, node: prepared.start()?, pictures, fps })
    }

    /// The device's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.node.path()
    }

    /// What the driver says of the camera.
    #[must_use]
    pub const fn info(&self) -> &Info {
        self.node.device().info()
    }

    /// As [`V4l2::controls`](super::V4l2::controls).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn controls(&self) -> Result<Vec<Control>, Error> {
        controls::list(&self.node)
    }

    /// As [`V4l2::apply_controls`](super::V4l2::apply_controls).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn apply_controls(&self, values: &BTreeMap<String, i64>) -> Result<(), Error> {
        controls::apply(&self.node, values.iter().map(|(name, &value)| (name.as_str(), value)))
    }

    /// The buffer to read on in; `None` when the driver has none.
    fn reading(&mut self, now: Instant) -> Result<Option<Reading>, Error> {
        if let Some(reading) = self.reading.take() {
            return Ok(Some(reading));
        }
        let Some(lease) = self.node.dequeue()? else { return Ok(None) };
        let captured = if lease.is_damaged() { now } else { self.node.captured(&lease, now) };
        Ok(Some(Reading { lease, captured, read: 0 }))
    }
}

impl CodedSource for CodedCamera {
    fn wait(&self) -> Wait<'_> {
        if self.reading.is_some() {
            return Wait::Until(Instant::ZERO);
        }
        Wait::Readable(self.node.as_fd())
    }

    fn fps(&self) -> f64 {
        self.fps
    }

    fn size(&self) -> (u32, u32) {
        self.pictures.size()
    }

    fn lost(&self) -> u64 {
        self.pictures.lost()
    }

    fn capture(&mut self, now: Instant, unit: &mut AccessUnit) -> Result<bool, Error> {
        // Once round the buffers at most: a driver that only delivers damage must not keep us.
        for _ in 0..self.node.buffer_count() {
            let Some(mut reading) = self.reading(now)? else { return Ok(false) };
            let buffer = Buffer {
                bytes: reading.lease.plane(0),
                sequence: reading.lease.sequence(),
                captured: reading.captured,
                is_damaged: reading.lease.is_damaged(),
            };
            let needed_idr = self.pictures.needs_idr();
            let outcome = self.pictures.next(&buffer, &mut reading.read, unit);
            if reading.read < buffer.bytes.len() {
                self.reading = Some(reading);
            }
            if self.pictures.needs_idr() && !needed_idr {
                self.request_idr();
            }
            match outcome {
                Ok(false) => {}
                Ok(true) => return Ok(true),
                Err(pictures::HasBPictures) => {
                    return Err(Error::BPictures { device: self.node.path().to_owned() });
                }
            }
        }
        Ok(false)
    }

    fn request_idr(&mut self) {
        set(self.node.path(), self.node.device(), [(CodingControl::FORCE_KEY_FRAME, 1)]);
    }

    fn change(&mut self, coding: Coding) {
        set(self.node.path(), self.node.device(), settings(coding, self.fps));
    }
}

/// What may change while the camera streams.
fn settings(coding: Coding, fps: f64) -> [(CodingControl, u32); 3] {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "float casts saturate, and both factors are positive"
    )]
    let gop_len = (coding.gop.as_secs_f64() * fps).round().max(1.0) as u32;
    [
        (CodingControl::BITRATE, coding.bitrate_bps),
        (CodingControl::H264_I_PERIOD, gop_len),
        (CodingControl::GOP_SIZE, gop_len),
    ]
}

/// What holds as long as the camera streams.
fn constant(width: u32, height: u32, fps: f64) -> [(CodingControl, u32); 4] {
    const CONSTANT_BITRATE: u32 = 1;
    [
        (CodingControl::BITRATE_MODE, CONSTANT_BITRATE),
        (CodingControl::B_FRAMES, 0),
        (CodingControl::REPEAT_SEQ_HEADER, 0),
        (CodingControl::H264_LEVEL, level(width, height, fps)),
    ]
}

/// Sets what the device has; a refusal leaves the driver's own choice in force.
fn set(path: &Path, device: &Device, settings: impl IntoIterator<Item = (CodingControl, u32)>) {
    for (control, value) in settings {
        if let Err(error) = device.set_coding(control, value) {
            let error = failure(path, Some(device), error);
            log::warn!("capture: the {control} of the camera stays as it is: {error}");
        }
    }
}

/// The lowest level, in the kernel's numbers, that allows the pictures; 3.1 at least.
///
/// H.264 table A-1: macroblocks per second, macroblocks per picture.
fn level(width: u32, height: u32, fps: f64) -> u32 {
    let macroblocks = width.div_ceil(16).saturating_mul(height.div_ceil(16));
    let per_second = f64::from(macroblocks) * fps;
    let fits = |&&(rate, size, _): &&(f64, u32, u32)| per_second <= rate && macroblocks <= size;
    LEVELS.iter().find(fits).map_or(LEVEL_5_2, |&(_, _, level)| level)
}

/// MaxMBPS, MaxFS, `V4L2_MPEG_VIDEO_H264_LEVEL_*`.
const LEVELS: [(f64, u32, u32); 5] = [
    (108_000.0, 3_600, 9),
    (216_000.0, 5_120, 10),
    (245_760.0, 8_192, 11),
    (522_240.0, 8_704, 13),
    (983_040.0, 36_864, 15),
];
const LEVEL_5_2: u32 = 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_level_is_the_lowest_that_allows_the_pictures() {
        for (width, height, fps, wanted) in [
            (320, 240, 10.0, 9),
            (1280, 720, 30.0, 9),
            (1280, 720, 60.0, 10),
            (1920, 1080, 30.0, 11),
            (1920, 1080, 60.0, 13),
            (3840, 2160, 30.0, 15),
            (3840, 2160, 60.0, 16),
        ] {
            assert_eq!(level(width, height, fps), wanted, "{width}x{height}@{fps}");
        }
    }

    #[test]
    fn a_gop_is_as_many_pictures_as_come_in_its_time() {
        let of = |millis, fps| {
            let coding = Coding { bitrate_bps: 1, gop: Duration::from_millis(millis) };
            settings(coding, fps)[1].1
        };
        assert_eq!((of(1000, 30.0), of(2000, 29.97), of(500, 15.0)), (30, 60, 8));
        assert_eq!(of(10, 5.0), 1);
    }

    #[test]
    fn a_camera_that_is_none_is_told_so() {
        let wanted = Request { width: 640, height: 360, fps: 15.0, format: None };
        let coding = Coding { bitrate_bps: 1_000_000, gop: Duration::from_secs(1) };
        let error = CodedCamera::open("/dev/null", wanted, coding).expect_err("no camera");
        assert_eq!(error.to_string(), "/dev/null: not a capture device: it is no video node");
    }
}
