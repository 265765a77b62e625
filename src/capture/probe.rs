//! Lists the machine's video nodes: what they offer, and why they can or cannot be the camera.
//!
//! Behind `ocellus probe` and `--source auto`. Opening a node for this disturbs nobody.

use std::path::PathBuf;

use serde::Serialize;

use super::layout;
use super::mode::Request;
use super::node::{no_usable_format, open_camera};
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
    pub controls: Vec<Control>,
    /// Why the node cannot be the camera; `None` when it can.
    pub problem: Option<String>,
}

/// A control of a camera that can be set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Control {
    pub name: String,
    pub min: i64,
    pub max: i64,
    pub step: u64,
    pub default: i64,
    /// For those that are menus: the entries, by the values that choose them.
    pub menu: Vec<(i64, String)>,
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
    /// What `fps` was made of.
    #[serde(skip)]
    pub(super) intervals: Vec<FrameInterval>,
}

/// Lists the video nodes in numeric order.
#[must_use]
pub fn probe() -> Vec<Device> {
    v4l2::nodes().into_iter().map(describe).collect()
}

pub(super) fn describe(path: PathBuf) -> Device {
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
        let offered: Vec<_> = formats.iter().map(|format| format.fourcc.clone()).collect();
        no_usable_format(&path, &offered, &[], &layout::usable()).to_string()
    });
    let controls = controls_of(&camera);
    let info = camera.info().clone();
    Device { path, card: info.card, driver: info.driver, bus: info.bus, formats, controls, problem }
}

fn closed(path: PathBuf, error: &Error) -> Device {
    // What a codec or a metadata node calls itself is worth showing.
    let info = v4l2::Device::open(&path).map(|node| node.info().clone()).ok();
    let (card, driver, bus) = info.map(|i| (i.card, i.driver, i.bus)).unwrap_or_default();
    let (formats, controls) = (Vec::new(), Vec::new());
    Device { path, card, driver, bus, formats, controls, problem: Some(error.to_string()) }
}

fn controls_of(camera: &v4l2::Device) -> Vec<Control> {
    let controls = camera.controls().unwrap_or_default();
    let describe = |control: v4l2::Control| Control {
        menu: camera.menu(&control),
        name: control.name,
        min: control.min,
        max: control.max,
        step: control.step,
        default: control.default,
    };
    controls.into_iter().map(describe).collect()
}

fn describe_format(camera: &v4l2::Device, format: FormatInfo) -> Format {
    let sizes = camera.frame_sizes(format.fourcc).unwrap_or_default();
    let sizes: Vec<Size> = sizes
        .into_iter()
        .map(|offer| {
            let mut size = Size::from(offer);
            let (width, height) = size.max;
            let intervals = camera.frame_intervals(format.fourcc, width, height);
            size.intervals = intervals.unwrap_or_default();
            size.fps = rates_of(&size.intervals);
            size
        })
        .collect();
    // A driver that lists no sizes is asked for one when it is opened.
    let has_even_size = sizes.is_empty()
        || sizes.iter().any(|size| {
            let offer = FrameSize::from(size);
            let (width, height) = size.min;
            mode::fit_size(offer, &Request { width, height, fps: 1.0, format: None }).is_some()
        });
    Format {
        usable: layout::usable().contains(&format.fourcc) && has_even_size,
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
        Self { min, max, step, fps: Vec::new(), intervals: Vec::new() }
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
