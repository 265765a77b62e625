//! Opens the source that the configuration names, and says what was chosen and why.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use log::{info, warn};
use ocellus::capture::{self, Device, Error, File, Pattern, RawSource as _, Request, Source, V4l2};
use ocellus::cli::RunArgs;
use ocellus::config::{self, Config};
use ocellus::produce::Reopen;

/// An open source, and how to open it again.
pub(super) struct Chosen {
    pub(super) source: Source,
    pub(super) reopen: Reopen,
    /// Pictures per second, where the source knows.
    pub(super) fps: Option<f64>,
}

/// A source that needs no more choosing.
#[derive(Clone, Debug)]
enum Origin {
    Pattern(Request),
    V4l2(PathBuf, Request),
    File(PathBuf, Option<f64>),
}

impl Origin {
    fn open(&self) -> Result<(Source, f64), Error> {
        match self {
            Self::Pattern(Request { width, height, fps }) => {
                let pattern = Pattern::new(*width, *height, *fps);
                Ok((Source::Raw(Box::new(pattern)), *fps))
            }
            Self::V4l2(path, wanted) => Ok(camera(V4l2::open(path, *wanted)?)),
            Self::File(path, fps) => {
                let file = File::open(path, *fps)?;
                let fps = capture::CodedSource::fps(&file);
                Ok((Source::Coded(Box::new(file)), fps))
            }
        }
    }
}

fn camera(camera: V4l2) -> (Source, f64) {
    let fps = camera.mode().fps;
    (Source::Raw(Box::new(camera)), fps)
}

/// Opens what the configuration names.
pub(super) fn choose(config: &Config, args: &RunArgs) -> anyhow::Result<Chosen> {
    let stream = config.streams.first().context("streams: none")?;
    let wanted = Request {
        width: stream.size.width,
        height: stream.size.height,
        fps: f64::from(stream.fps),
    };
    let origin = match &config.camera.source {
        config::Source::Auto => return Ok(first_camera(wanted)),
        config::Source::Pattern => Origin::Pattern(wanted),
        config::Source::V4l2(path) => Origin::V4l2(path.clone(), wanted),
        config::Source::File(path) => Origin::File(path.clone(), args.fps.map(f64::from)),
    };
    let opened = origin.open()?;
    info!("capture: source={}", config.camera.source);
    Ok(chosen(origin, opened))
}

/// The first camera that works, else the test pattern.
fn first_camera(wanted: Request) -> Chosen {
    let (found, passed_over) = capture::first_working(wanted);
    for error in &passed_over {
        warn!("capture: passed over {error}");
    }
    if let Some(found) = found {
        info!(
            "capture: source=v4l2:{} chosen as the first camera that works",
            found.path().display()
        );
        let origin = Origin::V4l2(found.path().to_owned(), wanted);
        return chosen(origin, camera(found));
    }
    info!("capture: source=pattern because no camera was found");
    let pattern = Pattern::new(wanted.width, wanted.height, wanted.fps);
    chosen(Origin::Pattern(wanted), (Source::Raw(Box::new(pattern)), wanted.fps))
}

fn chosen(origin: Origin, (source, fps): (Source, f64)) -> Chosen {
    let reopen = Box::new(move || origin.open().map(|(source, _)| source));
    Chosen { source, reopen, fps: (fps > 0.0).then_some(fps) }
}

/// What `ocellus probe` says to people.
pub(crate) fn describe(devices: &[Device]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |words: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{words}");
    };
    for device in devices {
        line(format_args!(
            "{}  {} ({}, {})",
            device.path.display(),
            device.card,
            device.driver,
            device.bus
        ));
        for format in &device.formats {
            let usable = if format.usable { "" } else { ", not usable" };
            line(format_args!("    {}  {}{usable}", format.fourcc, format.description));
            for size in &format.sizes {
                let (width, height) = size.max;
                let range = if size.min == size.max { "" } else { "up to " };
                line(format_args!("        {range}{width}x{height}  {:?} fps", size.fps));
            }
        }
        if let Some(problem) = &device.problem {
            line(format_args!("    cannot be the camera: {problem}"));
        }
    }
    line(format_args!("encoders: OpenH264 (software)"));
    match devices.iter().find(|device| device.problem.is_none()) {
        Some(device) => line(format_args!(
            "run would choose v4l2:{}, the first camera that works",
            device.path.display()
        )),
        None => line(format_args!("run would choose the test pattern, because there is no camera")),
    }
    text
}
