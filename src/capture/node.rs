//! Opens a capture node in the mode that fits a request best, and says what refusals mean.
//!
//! What cameras of uncompressed pictures and of H.264 have in common. Capture times are the
//! driver's, where they can be believed.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::mode::{self, Request};
use super::{Error, holder, layout};
use crate::sys::v4l2::{
    self, Device, Format, FourCc, FrameInterval, FrameSize, Lease, Queue, Role,
};
use crate::time::Instant;

/// A node in its mode, before its buffers.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) path: PathBuf,
    pub(super) device: Device,
    /// What the driver made of the mode chosen.
    pub(super) format: Format,
    pub(super) fps: f64,
}

impl Prepared {
    /// Sets the mode that fits best among those of `formats`, which come in order of their cost.
    ///
    /// # Errors
    ///
    /// [`Error::NoUsableFormat`], also when the request names another format; and what
    /// [`failure`] makes of a refusal.
    pub(super) fn new(path: PathBuf, wanted: &Request, formats: &[FourCc]) -> Result<Self, Error> {
        let device = open_camera(&path)?;
        let refused = |error| failure(&path, Some(&device), error);
        let offered = device.formats().map_err(refused)?;
        let mut candidates = Vec::new();
        for (cost, &format) in formats.iter().enumerate() {
            let is_offered = offered.iter().any(|offer| offer.fourcc == format);
            if is_offered && wanted.format.is_none_or(|wanted| wanted == format) {
                let sizes = offered_sizes(&device, format, wanted).map_err(refused)?;
                candidates.extend(mode::candidates(format, cost, &sizes, wanted));
            }
        }
        let unusable = || {
            let offered: Vec<_> = offered.iter().map(|offer| offer.fourcc.to_string()).collect();
            no_usable_format(&path, &offered, wanted.format.as_slice(), formats)
        };
        let (best, reason) = mode::choose(&candidates, wanted).ok_or_else(unusable)?;
        let format = device.set_format(best.format, best.width, best.height).map_err(refused)?;
        if !formats.contains(&format.fourcc) {
            return Err(unusable());
        }
        let interval = best.interval.unwrap_or_else(|| mode::interval_of(wanted.fps));
        let interval = device.set_interval(interval).ok().or(best.interval);
        let fps = interval.and_then(v4l2::Interval::fps).unwrap_or(wanted.fps);
        log::info!(
            "capture: chose {}x{}@{} {} because {}, and {} (asked {}x{}@{} of {})",
            format.width,
            format.height,
            rate(fps),
            format.fourcc,
            reason.size,
            reason.rate,
            wanted.width,
            wanted.height,
            rate(wanted.fps),
            path.display(),
        );
        Ok(Self { path, device, format, fps })
    }

    /// Says that the driver's answer to the mode is of no use.
    pub(super) fn unusable(&self) -> Error {
        no_usable_format(&self.path, &[self.format.fourcc.to_string()], &[], &layout::usable())
    }

    /// Starts the stream.
    ///
    /// # Errors
    ///
    /// What [`failure`] makes of a refusal.
    pub(super) fn start(self) -> Result<Node, Error> {
        let Self { path, device, .. } = self;
        let queue = Queue::start(&device, BUFFERS);
        let queue = queue.map_err(|error| failure(&path, Some(&device), error))?;
        Ok(Node { path, queue, device, has_warned: false })
    }
}

/// A node that streams.
#[derive(Debug)]
pub(super) struct Node {
    path: PathBuf,
    // Before `device`: the stream stops before the file is closed.
    queue: Queue,
    device: Device,
    /// Whether the missing time stamps were logged.
    has_warned: bool,
}

impl Node {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// Buffers that the driver has.
    pub(super) fn buffer_count(&self) -> usize {
        self.queue.len()
    }

    /// The oldest filled buffer, if there is one; never blocks.
    pub(super) fn dequeue(&self) -> Result<Option<Lease>, Error> {
        self.queue.dequeue().map_err(|error| failure(&self.path, Some(&self.device), error))
    }

    /// When the picture in a buffer was taken: the driver's stamp, or `now`.
    pub(super) fn captured(&mut self, lease: &Lease, now: Instant) -> Instant {
        // A stamp far off would hold the stream's time, and with it the encoder, until the clock
        // has caught up. vivid stamps up to one picture ahead.
        let captured = lease
            .captured()
            .filter(|&at| at.since(now) <= STAMP_AHEAD_MAX && now.since(at) <= STAMP_BEHIND_MAX);
        if captured.is_none() && !self.has_warned {
            self.has_warned = true;
            log::warn!(
                "capture: {}: the driver does not stamp with the monotonic clock; using arrival",
                self.path.display()
            );
        }
        captured.unwrap_or(now)
    }
}

/// What never reached the caller.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub(super) damaged: u64,
    pub(super) gaps: u64,
    last_sequence: Option<u32>,
}

impl Losses {
    /// Counts the frames between the last sequence number and this one, modulo 2^32; answers how
    /// many there are.
    pub(super) fn sequence(&mut self, sequence: u32) -> u64 {
        // Backwards or not at all: the driver restarted its count, or keeps none.
        let gap = self
            .last_sequence
            .map(|last| sequence.wrapping_sub(last))
            .filter(|step| (1..u32::MAX / 2).contains(step))
            .map_or(0, |step| u64::from(step - 1));
        self.gaps += gap;
        self.last_sequence = Some(sequence);
        gap
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

/// The sizes of a format with their intervals; a driver that lists none is asked what it would do.
fn offered_sizes(
    device: &Device,
    format: FourCc,
    wanted: &Request,
) -> Result<Vec<(FrameSize, Vec<FrameInterval>)>, v4l2::Error> {
    let mut sizes = device.frame_sizes(format)?;
    if sizes.is_empty() {
        let tried = device.try_format(format, wanted.width, wanted.height)?;
        sizes.push(FrameSize::Discrete { width: tried.width, height: tried.height });
    }
    let mut with_intervals = Vec::new();
    for size in sizes {
        if let Some((width, height)) = mode::fit_size(size, wanted) {
            with_intervals.push((size, device.frame_intervals(format, width, height)?));
        }
    }
    Ok(with_intervals)
}

/// Says that nothing of what is offered is among `wanted` (empty: whatever is usable) and `usable`.
pub(super) fn no_usable_format(
    path: &Path,
    offered: &[String],
    wanted: &[FourCc],
    usable: &[FourCc],
) -> Error {
    let is_wanted = |format: &&FourCc| wanted.is_empty() || wanted.contains(format);
    let mut names: Vec<_> = usable.iter().filter(is_wanted).map(FourCc::to_string).collect();
    if names.is_empty() {
        // What is wanted could not be used from any camera.
        names = usable.iter().map(FourCc::to_string).collect();
    }
    let (offered, usable) = (listed(offered), listed(&names));
    Error::NoUsableFormat { device: path.to_owned(), offered, usable }
}

pub(super) fn listed(words: &[String]) -> String {
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

/// Says what a refusal of the kernel means for a camera.
pub(super) fn failure(path: &Path, device: Option<&Device>, error: v4l2::Error) -> Error {
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
pub(super) fn rate(fps: f64) -> f64 {
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

    #[test]
    fn a_camera_without_a_usable_format_is_told_what_would_be() {
        let said = |wanted: &[FourCc]| {
            let offered = ["RGB3".to_owned()];
            let path = Path::new("/dev/video0");
            no_usable_format(path, &offered, wanted, &layout::usable()).to_string()
        };
        let all = "/dev/video0: no usable format: it offers RGB3; usable are YU12, YM12, YV12, \
                   YM21, NV12, NM12, NV21, NM21, YUYV, UYVY, MJPG, JPEG, H264";
        assert_eq!(said(&[]), all);
        assert_eq!(said(&[FourCc(*b"RGB3")]), all);
        assert!(said(&[FourCc(*b"YUYV")]).ends_with("it offers RGB3; usable are YUYV"));
    }
}
