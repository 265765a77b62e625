//! Lists the machine's video nodes: what they offer, and why they can or cannot be the camera.
//!
//! Behind `ocellus probe` and `--source auto`. Opening a node for this disturbs nobody.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::layout;
use super::mode::Request;
use super::v4l2::{V4l2, open_camera};
use super::{Error, mode};
use crate::sys::v4l2::{self, FormatInfo, FrameInterval, FrameSize, Interval};

/// A video node and what it offers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Device {
    pub path: PathBuf,
    /// Empty, like the other names, for a node that could not be opened.
    pub card: String,
    pub driver: String,
    pub bus: String,
    pub formats: Vec<Format>,
    /// Why the node cannot be the camera; `None` when it can.
    pub problem: Option<String>,
}

/// A pixel format of a camera.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Format {
    pub fourcc: String,
    /// The driver's words.
    pub description: String,
    /// Whether Ocellus can capture in it.
    pub usable: bool,
    pub sizes: Vec<Size>,
}

/// A frame size of a format, or a range of them when `max` differs from `min`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Size {
    /// Width and height.
    pub min: (u32, u32),
    pub max: (u32, u32),
    /// Width and height grow in steps of these.
    pub step: (u32, u32),
    /// Rates in frames per second, highest first; both ends of ranges. For a range of sizes: those
    /// of the largest. Empty when the driver does not tell.
    pub fps: Vec<f64>,
}

/// Lists the video nodes in numeric order.
#[must_use]
pub fn probe() -> Vec<Device> {
    video_nodes().into_iter().map(describe).collect()
}

/// Opens and starts the first video node, in numeric order, that is a camera with a usable format.
///
/// The errors say why each node before it was passed over; with no camera, why every node was.
#[must_use]
pub fn first_working(wanted: Request) -> (Option<V4l2>, Vec<Error>) {
    let mut passed_over = Vec::new();
    for path in video_nodes() {
        match V4l2::open(path, wanted) {
            Ok(camera) => return (Some(camera), passed_over),
            Err(error) => passed_over.push(error),
        }
    }
    (None, passed_over)
}

/// The `/dev/videoN` in the order of N.
fn video_nodes() -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev").into_iter().flatten().filter_map(Result::ok);
    let mut nodes: Vec<(u32, PathBuf)> =
        entries.filter_map(|entry| Some((node_number(&entry.path())?, entry.path()))).collect();
    nodes.sort_unstable();
    nodes.into_iter().map(|(_, path)| path).collect()
}

fn node_number(path: &Path) -> Option<u32> {
    let digits = path.file_name()?.to_str()?.strip_prefix("video")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn describe(path: PathBuf) -> Device {
    let camera = match open_camera(&path) {
        Ok(camera) => camera,
        Err(error) => return closed(path, &error),
    };
    let formats: Vec<Format> = camera
        .formats()
        .unwrap_or_default()
        .into_iter()
        .map(|format| describe_format(&camera, format))
        .collect();
    let problem = (!formats.iter().any(|format| format.usable)).then(|| {
        let offered: Vec<_> = formats.iter().map(|format| format.fourcc.as_str()).collect();
        Error::NoUsableFormat { device: path.clone(), offered: offered.join(", ") }.to_string()
    });
    let info = camera.info().clone();
    Device { path, card: info.card, driver: info.driver, bus: info.bus, formats, problem }
}

fn closed(path: PathBuf, error: &Error) -> Device {
    // What a codec or a metadata node calls itself is worth showing.
    let info = v4l2::Device::open(&path).map(|node| node.info().clone()).ok();
    let (card, driver, bus) = info.map(|i| (i.card, i.driver, i.bus)).unwrap_or_default();
    Device { path, card, driver, bus, formats: Vec::new(), problem: Some(error.to_string()) }
}

fn describe_format(camera: &v4l2::Device, format: FormatInfo) -> Format {
    let sizes = camera.frame_sizes(format.fourcc).unwrap_or_default();
    let sizes: Vec<Size> = sizes
        .into_iter()
        .map(|offer| {
            let mut size = Size::from(offer);
            let (width, height) = size.max;
            let rates = camera.frame_intervals(format.fourcc, width, height);
            size.fps = rates_of(&rates.unwrap_or_default());
            size
        })
        .collect();
    // A driver that lists no sizes is asked for one when it is opened.
    let has_even_size = sizes.is_empty()
        || sizes.iter().any(|size| {
            let offer = FrameSize::from(size);
            let (width, height) = size.min;
            mode::fit_size(offer, &Request { width, height, fps: 1.0 }).is_some()
        });
    Format {
        usable: layout::pixel_format(format.fourcc).is_some() && has_even_size,
        fourcc: format.fourcc.to_string(),
        description: format.description,
        sizes,
    }
}

fn rates_of(offers: &[FrameInterval]) -> Vec<f64> {
    let mut rates: Vec<f64> = offers
        .iter()
        .flat_map(|offer| match *offer {
            FrameInterval::Discrete(interval) => [Some(interval), None],
            FrameInterval::Range { min, max } => [Some(min), Some(max)],
        })
        .filter_map(|interval| interval.and_then(Interval::fps))
        .collect();
    rates.sort_unstable_by(|a, b| b.total_cmp(a));
    rates.dedup();
    rates
}

impl From<FrameSize> for Size {
    fn from(offer: FrameSize) -> Self {
        let (min, max, step) = match offer {
            FrameSize::Discrete { width, height } => ((width, height), (width, height), (1, 1)),
            FrameSize::Stepwise {
                width_min,
                width_max,
                width_step,
                height_min,
                height_max,
                height_step,
            } => ((width_min, height_min), (width_max, height_max), (width_step, height_step)),
        };
        Self { min, max, step, fps: Vec::new() }
    }
}

impl From<&Size> for FrameSize {
    fn from(size: &Size) -> Self {
        Self::Stepwise {
            width_min: size.min.0,
            width_max: size.max.0,
            width_step: size.step.0,
            height_min: size.min.1,
            height_max: size.max.1,
            height_step: size.step.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbered_nodes_are_video_nodes() {
        let number = |name: &str| node_number(&Path::new("/dev").join(name));
        assert_eq!(number("video0"), Some(0));
        assert_eq!(number("video10"), Some(10));
        for name in ["video", "video-foo", "video1x", "video+1", "vbi0", "v4l-subdev0"] {
            assert_eq!(number(name), None, "{name}");
        }
    }

    #[test]
    fn rates_are_listed_once_and_highest_first() {
        let every = |denominator| Interval { numerator: 1, denominator };
        let offers = [
            FrameInterval::Discrete(every(10)),
            FrameInterval::Discrete(every(30)),
            FrameInterval::Range { min: every(60), max: every(10) },
            FrameInterval::Discrete(every(0)),
        ];
        assert_eq!(rates_of(&offers), [60.0, 30.0, 10.0]);
    }

    #[test]
    fn a_node_that_cannot_be_opened_says_why() {
        let device = describe(PathBuf::from("/dev/null"));
        let problem = "/dev/null: not a capture device: it is no video node";
        assert_eq!(device.problem.as_deref(), Some(problem));
        assert!(device.card.is_empty());
        let json = serde_json::to_value(&device).unwrap();
        assert_eq!(json["path"], "/dev/null");
        assert_eq!(json["formats"], serde_json::json!([]));
    }
}
