//! What the checks share: opening the camera, waiting for its frames, pressing vivid's buttons.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ocellus::capture::{Coding, Error, RawFrame, RawSource, Request, V4l2, Wait, Wanted};
use ocellus::sys::clock;
use ocellus::sys::v4l2::{Device, FourCc, FrameSize};

/// Small and quick: the machine is emulated.
pub(super) const SMALL: Request = Request { width: 320, height: 180, fps: 30.0, format: None };

/// As [`SMALL`], for what opens cameras by themselves.
pub(super) fn small() -> Wanted {
    Wanted {
        request: SMALL,
        coding: Coding { bitrate_bps: 300_000, gop: Duration::from_secs(1) },
        pictures_for: None,
        controls: BTreeMap::new(),
        encoders: Vec::new(),
    }
}

/// One vivid.
pub(super) struct Bench {
    pub(super) device: PathBuf,
}

impl Bench {
    pub(super) fn new(device: PathBuf) -> Self {
        Self { device }
    }

    pub(super) fn path(&self) -> &Path {
        &self.device
    }

    pub(super) fn node(&self) -> Device {
        Device::open(&self.device).expect("vivid is there")
    }

    pub(super) fn camera(&self) -> V4l2 {
        V4l2::open(&self.device, SMALL).expect("vivid is free")
    }

    /// Sets one of vivid's controls, or presses one of its buttons.
    pub(super) fn set(&self, control: &str, value: i32) {
        let node = self.node();
        let controls = node.controls().unwrap();
        let control = controls
            .iter()
            .find(|known| known.name == control)
            .unwrap_or_else(|| panic!("no control {control} in {controls:?}"));
        node.set_control(control, value).unwrap();
    }

    /// The value that a control has now.
    pub(super) fn value(&self, control: &str) -> i32 {
        let node = self.node();
        let controls = node.controls().unwrap();
        node.control(controls.iter().find(|known| known.name == control).unwrap()).unwrap()
    }

    /// Whether the driver lists sizes and rates, as webcams do.
    pub(super) fn is_webcam(&self) -> bool {
        let sizes = self.node().frame_sizes(FourCc(*b"YUYV")).unwrap();
        sizes.iter().any(|size| matches!(size, FrameSize::Discrete { .. }))
    }
}

/// The next frame; panics when none comes within a few intervals.
pub(super) fn next(camera: &mut V4l2) -> RawFrame {
    try_next(camera).expect("the camera works")
}

/// The next frame, or why there are no more.
pub(super) fn try_next(camera: &mut V4l2) -> Result<RawFrame, Error> {
    let deadline = clock::now() + Duration::from_secs(5);
    while clock::now() < deadline {
        wait(camera);
        if let Some(frame) = camera.capture(clock::now())? {
            return Ok(frame);
        }
    }
    panic!("no frame within 5 s");
}

fn wait(camera: &V4l2) {
    let Wait::Readable(fd) = camera.wait() else { panic!("a camera is waited for by its fd") };
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(1000_u16)).unwrap();
}
