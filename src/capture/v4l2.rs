//! Turns a V4L2 capture node into frames: picks the mode, runs the queue, counts what is lost.
//!
//! Capture times are the driver's. A buffer that the driver calls damaged, or that is too short
//! for its format, is counted and goes back; a gap in the driver's sequence is counted too.
//!
//! Not implemented: MJPEG and H.264 cameras, interlaced fields in buffers of their own, cropping.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::holder;
use super::layout::{self, Layout};
use super::mode::{self, Candidate, Request};
use super::{Error, Mode, RawFrame, RawSource, Wait};
use crate::frame::{Colour, Frame};
use crate::sys::v4l2::{self, Device, Format, FourCc, Info, Lease, Queue, Role};
use crate::time::Instant;

/// A streaming camera.
#[derive(Debug)]
pub struct V4l2 {
    path: PathBuf,
    // Before `device`: the stream stops before the file is closed.
    queue: Queue,
    device: Device,
    negotiated: Arc<Negotiated>,
    losses: Losses,
}

impl V4l2 {
    /// Opens a camera in the mode that fits best, and starts it.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] when there is no such device, [`Error::Denied`] and [`Error::Busy`] when it
    /// is not for us (now), [`Error::NotACamera`], [`Error::NoUsableFormat`]; [`Error::Os`] for
    /// whatever else the kernel refuses.
    pub fn open(path: impl Into<PathBuf>, wanted: Request) -> Result<Self, Error> {
        Self::open_among(path.into(), wanted, |_| true)
    }

    /// As [`V4l2::open`], in one format.
    ///
    /// # Errors
    ///
    /// As [`V4l2::open`]; [`Error::NoUsableFormat`] when the camera has no such format.
    pub fn open_in(
        path: impl Into<PathBuf>,
        wanted: Request,
        format: FourCc,
    ) -> Result<Self, Error> {
        Self::open_among(path.into(), wanted, |offered| offered == format)
    }

    fn open_among(
        path: PathBuf,
        wanted: Request,
        is_wanted: impl Fn(FourCc) -> bool,
    ) -> Result<Self, Error> {
        let device = open_camera(&path)?;
        let refused = |error| failure(&path, Some(&device), error);
        let mut candidates = candidates(&device, &wanted).map_err(refused)?;
        candidates.retain(|candidate| is_wanted(candidate.format));
        let unusable = || no_usable_format(&path, &device);
        let (best, reason) = mode::choose(&candidates, &wanted).ok_or_else(unusable)?;
        let format = device.set_format(best.format, best.width, best.height).map_err(refused)?;
        let pixels = layout::pixel_format(format.fourcc).ok_or_else(unusable)?;
        let layout = Layout::new(&format, pixels).filter(|_| is_whole_frame(&format));
        let layout = layout.ok_or_else(unusable)?;
        let interval =
            device.set_interval(best.interval.unwrap_or_else(|| mode::interval_of(wanted.fps)));
        let fps = interval.ok().or(best.interval).and_then(v4l2::Interval::fps);
        let mode = Mode {
            format: pixels,
            width: format.width,
            height: format.height,
            fps: fps.unwrap_or(wanted.fps),
        };
        let queue = Queue::start(&device, BUFFERS).map_err(refused)?;
        log::info!(
            "capture: chose {}x{}@{} {} because {}, and {} (asked {}x{}@{} of {})",
            mode.width,
            mode.height,
            rate(mode.fps),
            format.fourcc,
            reason.size,
            reason.rate,
            wanted.width,
            wanted.height,
            rate(wanted.fps),
            path.display(),
        );
        let colour = layout::colour(format.colorimetry);
        let negotiated = Arc::new(Negotiated { mode, layout, colour });
        Ok(Self { path, queue, device, negotiated, losses: Losses::default() })
    }

    /// The device's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the driver says of the camera.
    #[must_use]
    pub const fn info(&self) -> &Info {
        self.device.info()
    }

    /// Sets a control by its name in v4l2-ctl's spelling (`brightness`, `auto_exposure`).
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchControl`], or [`Error::Os`] when the driver refuses the value.
    pub fn set_control(&self, name: &str, value: i32) -> Result<(), Error> {
        let refused = |error| failure(&self.path, Some(&self.device), error);
        let controls = self.device.controls().map_err(refused)?;
        let Some(control) = controls.iter().find(|control| control.name == name) else {
            let offered: Vec<_> = controls.into_iter().map(|control| control.name).collect();
            return Err(Error::NoSuchControl {
                device: self.path.clone(),
                control: name.to_owned(),
                offered: listed(&offered),
            });
        };
        self.device.set_control(control, value).map_err(refused)
    }

    /// The frame in a buffer, or `None` (and counted) when it is damaged.
    fn accept(&mut self, lease: Lease, now: Instant) -> Option<MappedFrame> {
        self.losses.sequence(lease.sequence());
        if lease.is_damaged() || !self.negotiated.layout.is_whole(|index| lease.plane(index)) {
            self.losses.damaged += 1;
            return None;
        }
        // A stamp far off would hold the stream's time, and with it the encoder, until the clock
        // has caught up. vivid stamps up to one picture ahead.
        let captured = lease
            .captured()
            .filter(|&at| at.since(now) <= STAMP_AHEAD_MAX && now.since(at) <= STAMP_BEHIND_MAX);
        if captured.is_none() && !self.losses.unstamped {
            self.losses.unstamped = true;
            log::warn!(
                "capture: {}: the driver does not stamp with the monotonic clock; using arrival",
                self.path.display()
            );
        }
        Some(MappedFrame {
            captured: captured.unwrap_or(now),
            lease,
            negotiated: Arc::clone(&self.negotiated),
        })
    }
}

impl RawSource for V4l2 {
    fn mode(&self) -> Mode {
        self.negotiated.mode
    }

    fn wait(&self) -> Wait<'_> {
        Wait::Readable(self.device.as_fd())
    }

    fn capture(&mut self, now: Instant) -> Result<Option<RawFrame>, Error> {
        // Once round the buffers at most: a driver that only delivers damage must not keep us.
        for _ in 0..self.queue.len() {
            let lease = match self.queue.dequeue() {
                Ok(Some(lease)) => lease,
                Ok(None) => return Ok(None),
                Err(error) => return Err(failure(&self.path, Some(&self.device), error)),
            };
            if let Some(frame) = self.accept(lease, now) {
                return Ok(Some(RawFrame::Mapped(frame)));
            }
        }
        Ok(None)
    }

    fn lost(&self) -> u64 {
        self.losses.damaged + self.losses.gaps
    }
}

/// A picture in a driver's buffer; dropping it gives the buffer back.
#[derive(Debug)]
pub struct MappedFrame {
    lease: Lease,
    negotiated: Arc<Negotiated>,
    captured: Instant,
}

impl MappedFrame {
    /// The picture.
    #[must_use]
    pub fn frame(&self) -> Frame<'_> {
        let Negotiated { mode, layout, colour } = &*self.negotiated;
        Frame {
            format: mode.format,
            width: mode.width,
            height: mode.height,
            colour: *colour,
            captured: self.captured,
            planes: layout.planes(|index| self.lease.plane(index)),
        }
    }
}

/// What the driver and we agreed on; every frame shares it.
#[derive(Debug)]
struct Negotiated {
    mode: Mode,
    layout: Layout,
    colour: Colour,
}

/// What never reached the caller.
#[derive(Debug, Default)]
struct Losses {
    damaged: u64,
    gaps: u64,
    last_sequence: Option<u32>,
    /// Whether the missing time stamps were logged.
    unstamped: bool,
}

impl Losses {
    /// Counts the frames between the last sequence number and this one, modulo 2^32.
    fn sequence(&mut self, sequence: u32) {
        if let Some(last) = self.last_sequence {
            let step = sequence.wrapping_sub(last);
            // Backwards or not at all: the driver restarted its count, or keeps none.
            if (1..u32::MAX / 2).contains(&step) {
                self.gaps += u64::from(step - 1);
            }
        }
        self.last_sequence = Some(sequence);
    }
}

/// Opens a node that must be a camera.
pub(super) fn open_camera(path: &Path) -> Result<Device, Error> {
    let device = Device::open(path).map_err(|error| failure(path, None, error))?;
    match device.info().role() {
        Role::Capture { .. } => Ok(device),
        role => Err(Error::NotACamera { device: path.to_owned(), is: role_name(role) }),
    }
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Capture { .. } => "a capture device",
        Role::CaptureWithoutStreaming => "a capture device without memory-mapped buffers",
        Role::Codec => "an encoder, decoder or scaler",
        Role::Output => "a video output",
        Role::Metadata => "a metadata node",
        Role::Other => "a video node without pictures",
    }
}

/// Every mode of a usable format, each offered range cut down to what fits best.
fn candidates(device: &Device, wanted: &Request) -> Result<Vec<Candidate<FourCc>>, v4l2::Error> {
    let offered = device.formats()?;
    let mut candidates = Vec::new();
    for (cost, (fourcc, _)) in layout::USABLE.iter().enumerate() {
        if !offered.iter().any(|format| format.fourcc == *fourcc) {
            continue;
        }
        for (width, height) in sizes(device, *fourcc, wanted)? {
            let intervals = device.frame_intervals(*fourcc, width, height)?;
            let candidate = |interval| Candidate { format: *fourcc, cost, width, height, interval };
            let mut rates: Vec<_> = intervals
                .into_iter()
                .filter_map(|offer| mode::fit_interval(offer, wanted))
                .map(|interval| candidate(Some(interval)))
                .collect();
            if rates.is_empty() {
                rates.push(candidate(None));
            }
            candidates.append(&mut rates);
        }
    }
    Ok(candidates)
}

/// The even sizes of a format; a driver that lists none is asked what it would do.
fn sizes(
    device: &Device,
    fourcc: FourCc,
    wanted: &Request,
) -> Result<Vec<(u32, u32)>, v4l2::Error> {
    let listed = device.frame_sizes(fourcc)?;
    if listed.is_empty() {
        let format = device.try_format(fourcc, wanted.width, wanted.height)?;
        let size = v4l2::FrameSize::Discrete { width: format.width, height: format.height };
        return Ok(mode::fit_size(size, wanted).into_iter().collect());
    }
    Ok(listed.into_iter().filter_map(|offer| mode::fit_size(offer, wanted)).collect())
}

/// Whether a buffer holds a whole frame: progressive, or both fields interleaved.
const fn is_whole_frame(format: &Format) -> bool {
    // videodev2.h, v4l2_field: NONE, INTERLACED, INTERLACED_TB, INTERLACED_BT.
    matches!(format.field, 1 | 4 | 8 | 9)
}

fn no_usable_format(path: &Path, device: &Device) -> Error {
    let offered: Vec<_> =
        device.formats().unwrap_or_default().iter().map(|f| f.fourcc.to_string()).collect();
    Error::NoUsableFormat { device: path.to_owned(), offered: listed(&offered) }
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

/// Says what a refusal of the kernel means for a camera.
fn failure(path: &Path, device: Option<&Device>, error: v4l2::Error) -> Error {
    match (error.call, error.errno) {
        (_, Errno::ENODEV | Errno::ENXIO) | ("open", Errno::ENOENT) => {
            Error::Gone { device: path.to_owned() }
        }
        (_, Errno::EBUSY) => Error::Busy {
            device: path.to_owned(),
            holder: holder::holders(path, device.map(AsFd::as_fd)),
        },
        ("open", Errno::EACCES | Errno::EPERM) => {
            Error::Denied { device: path.to_owned(), hint: holder::permission_hint(path) }
        }
        ("VIDIOC_QUERYCAP", Errno::ENOTTY | Errno::EINVAL) => {
            Error::NotACamera { device: path.to_owned(), is: "no video node" }
        }
        (call, errno) => Error::Os { path: path.to_owned(), call, errno },
    }
}

/// A rate with as many decimals as it needs, two at most.
fn rate(fps: f64) -> f64 {
    (fps * 100.0).round() / 100.0
}

/// One with the driver, one arriving, one waiting in the slot, one being converted.
const BUFFERS: u32 = 4;
/// A picture at 1 fps, and then some.
const STAMP_AHEAD_MAX: Duration = Duration::from_secs(2);
/// A driver that hands pictures over later than this is no camera's.
const STAMP_BEHIND_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_across_the_wrap_and_not_before_the_first_frame() {
        let mut losses = Losses::default();
        for (sequence, gaps) in [
            (u32::MAX - 3, 0),
            (u32::MAX - 2, 0),
            (u32::MAX, 1),
            (1, 2),
            (2, 2),
            (7, 6),
            // The driver restarted its count.
            (0, 6),
            (1, 6),
            // The driver keeps none.
            (1, 6),
            (1, 6),
        ] {
            losses.sequence(sequence);
            assert_eq!(losses.gaps, gaps, "at {sequence}");
        }
    }

    #[test]
    fn what_is_no_camera_is_told_so() {
        let wanted = Request { width: 640, height: 360, fps: 15.0 };
        let said = |path: &str| V4l2::open(path, wanted).expect_err("no camera").to_string();
        assert_eq!(said("/dev/null"), "/dev/null: not a capture device: it is no video node");
        assert!(said("/dev/no-such-node").starts_with("/dev/no-such-node: no such device"));
    }

    #[test]
    fn refusals_keep_their_meaning() {
        let failure =
            |call, errno| failure(Path::new("/dev/full"), None, v4l2::Error { call, errno });
        assert!(matches!(failure("VIDIOC_DQBUF", Errno::ENODEV), Error::Gone { .. }));
        assert!(matches!(failure("open", Errno::ENOENT), Error::Gone { .. }));
        assert!(matches!(failure("VIDIOC_S_FMT", Errno::EBUSY), Error::Busy { .. }));
        assert!(matches!(failure("open", Errno::EACCES), Error::Denied { .. }));
        // EACCES from S_CTRL is no matter of permissions.
        assert!(matches!(failure("VIDIOC_S_CTRL", Errno::EACCES), Error::Os { .. }));
        let other = failure("VIDIOC_DQBUF", Errno::EIO).to_string();
        assert_eq!(other, "/dev/full: VIDIOC_DQBUF: I/O error");
    }
}
