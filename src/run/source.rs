//! Opens the source that the configuration names, and says what was chosen and why.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use log::{info, warn};
use ocellus::capture::{
    self, Camera, Choice, Coding, Device, Error, File, Pattern, Request, Source, Wanted,
};
use ocellus::cli::RunArgs;
use ocellus::config::{self, Config};
use ocellus::encode;
use ocellus::produce::Reopen;
use ocellus::sys::v4l2::FourCc;
use serde::Serialize;

use super::live::wants_pictures;

/// An open source, and how to open it again.
pub(super) struct Chosen {
    pub(super) source: Source,
    pub(super) reopen: Reopen,
    /// What `reopen` opens.
    pub(super) origin: Arc<Mutex<Origin>>,
    /// Pictures per second, where the source knows.
    pub(super) fps: Option<f64>,
}

/// A source that needs no more choosing.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    Pattern(Request),
    V4l2(PathBuf, Wanted),
    File(PathBuf, Option<f64>),
}

impl Origin {
    fn open(&self) -> Result<(Source, f64), Error> {
        match self {
            Self::Pattern(Request { width, height, fps, .. }) => {
                let pattern = Pattern::new(*width, *height, *fps);
                Ok((Source::Raw(Box::new(pattern)), *fps))
            }
            Self::V4l2(path, wanted) => Ok(opened(Camera::open(path, wanted)?)),
            Self::File(path, fps) => {
                let file = File::open(path, *fps)?;
                let fps = capture::CodedSource::fps(&file);
                Ok((Source::Coded(Box::new(file)), fps))
            }
        }
    }
}

impl Origin {
    /// Is to be as `config` says the next time.
    pub(super) fn follow(&mut self, config: &Config, is_coded: bool) {
        let Ok(new) = wanted(config) else { return };
        match self {
            Self::Pattern(request) => *request = new.request,
            Self::V4l2(_, wanted) => *wanted = new,
            Self::File(..) => {}
        }
        self.keep_kind(is_coded);
    }

    /// Stays a source of pictures, or of access units: the threads are made for one of them.
    fn keep_kind(&mut self, is_coded: bool) {
        let Self::V4l2(_, wanted) = self else { return };
        if is_coded {
            wanted.pictures_for = None;
            wanted.request.format = Some(FourCc(*b"H264"));
        } else {
            wanted.pictures_for.get_or_insert("a camera that has begun with pictures");
        }
    }

    /// Pictures per second that are asked of the source; `None` when it is its own choice.
    pub(super) fn fps(&self) -> Option<f64> {
        match self {
            Self::Pattern(request) => Some(request.fps),
            Self::V4l2(_, wanted) => Some(wanted.request.fps),
            Self::File(..) => None,
        }
    }
}

fn opened(camera: Camera) -> (Source, f64) {
    let fps = camera.fps();
    (camera.into(), fps)
}

/// Opens what the configuration names.
pub(super) fn choose(config: &Config, args: &RunArgs) -> anyhow::Result<Chosen> {
    let wanted = wanted(config)?;
    let origin = match &config.camera.source {
        config::Source::Auto => return Ok(first_camera(wanted)),
        config::Source::Pattern => Origin::Pattern(wanted.request),
        config::Source::V4l2(path) => Origin::V4l2(path.clone(), wanted),
        config::Source::File(path) => Origin::File(path.clone(), args.fps.map(f64::from)),
    };
    let opened = origin.open()?;
    info!("capture: source={}", config.camera.source);
    Ok(chosen(origin, opened))
}

/// What the configuration wants of a camera.
fn wanted(config: &Config) -> anyhow::Result<Wanted> {
    let stream = config.streams.first().context("streams: none")?;
    Ok(Wanted {
        request: Request {
            width: stream.size.width,
            height: stream.size.height,
            fps: f64::from(stream.fps),
            format: match config.camera.format {
                config::Format::Auto => None,
                config::Format::FourCc(code) => Some(FourCc(code)),
            },
        },
        coding: Coding {
            bitrate_bps: stream.bitrate_kbps * 1_000,
            gop: Duration::from_secs_f64(stream.gop_s),
        },
        pictures_for: wants_pictures(config),
        controls: config.camera.controls.clone(),
        encoders: match stream.encoder {
            config::Encoder::OpenH264 => Vec::new(),
            _ => hardware_encoders(),
        },
    })
}

/// Names of the encoders that could be used, as they name themselves.
fn hardware_encoders() -> Vec<String> {
    let nodes = encode::m2m::probe().into_iter().filter(|node| node.problem.is_none());
    nodes.map(|node| format!("m2m:{}", node.path.display())).collect()
}

/// The first camera that works, else the test pattern.
fn first_camera(wanted: Wanted) -> Chosen {
    let (found, passed_over) = capture::first_working(&wanted);
    for error in &passed_over {
        warn!("capture: passed over {error}");
    }
    if let Some(found) = found {
        info!(
            "capture: source=v4l2:{} chosen as the first camera that works",
            found.path().display()
        );
        let origin = Origin::V4l2(found.path().to_owned(), wanted);
        return chosen(origin, opened(found));
    }
    info!("capture: source=pattern because no camera was found");
    let Request { width, height, fps, .. } = wanted.request;
    let pattern = Pattern::new(width, height, fps);
    chosen(Origin::Pattern(wanted.request), (Source::Raw(Box::new(pattern)), fps))
}

fn chosen(origin: Origin, (source, fps): (Source, f64)) -> Chosen {
    let mut origin = origin;
    origin.keep_kind(matches!(source, Source::Coded(_)));
    let origin = Arc::new(Mutex::new(origin));
    let what = Arc::clone(&origin);
    let reopen = Arc::new(move || {
        // Opening takes its time: whoever changes it meanwhile must not wait.
        let origin = what.lock().unwrap_or_else(PoisonError::into_inner).clone();
        origin.open().map(|(source, _)| source)
    });
    Chosen { source, reopen, origin, fps: (fps > 0.0).then_some(fps) }
}

/// A video node, and how `run` would use it.
#[derive(Serialize)]
struct Probed<'a> {
    #[serde(flatten)]
    device: &'a Device,
    choice: Option<Choice>,
}

/// What `ocellus probe` says to programs.
pub(crate) fn describe_as_json(devices: &[Device]) -> anyhow::Result<String> {
    let wanted = wanted(&Config::default())?;
    let choose = |device| capture::choose(device, &wanted).ok();
    let probed: Vec<_> =
        devices.iter().map(|device| Probed { device, choice: choose(device) }).collect();
    Ok(serde_json::to_string_pretty(&probed).context("probe")? + "\n")
}

/// What `ocellus probe` says to people.
pub(crate) fn describe(devices: &[Device]) -> anyhow::Result<String> {
    let wanted = wanted(&Config::default())?;
    let mut text: String = devices.iter().map(describe_device).collect();
    for node in encode::m2m::probe() {
        let problem = node.problem.map(|why| format!(", not usable: {why}")).unwrap_or_default();
        text += &format!(
            "encoder: m2m:{}  {} ({}){problem}\n",
            node.path.display(),
            node.card,
            node.driver
        );
    }
    text += "encoder: openh264  OpenH264, in software\n";
    let mut choices = devices
        .iter()
        .filter_map(|device| Some((device, capture::choose(device, &wanted).ok()?.sentence)));
    text += &match choices.next() {
        Some((device, sentence)) => format!(
            "run would choose v4l2:{}, the first camera that works: {sentence}\n",
            device.path.display()
        ),
        None => "run would choose the test pattern, because there is no camera\n".to_owned(),
    };
    Ok(text)
}

fn describe_device(device: &Device) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |words: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{words}");
    };
    let Device { path, card, driver, bus, .. } = device;
    line(format_args!("{}  {card} ({driver}, {bus})", path.display()));
    for format in &device.formats {
        let usable = if format.usable { "" } else { ", not usable" };
        line(format_args!("    {}  {}{usable}", format.fourcc, format.description));
        for size in &format.sizes {
            let (width, height) = size.max;
            let range = if size.min == size.max { "" } else { "up to " };
            line(format_args!("        {range}{width}x{height}  {:?} fps", size.fps));
        }
    }
    for capture::Control { name, min, max, default, menu, .. } in &device.controls {
        line(format_args!("    control {name}  {min} to {max}, usually {default}"));
        for (value, meaning) in menu {
            line(format_args!("        {value}  {meaning}"));
        }
    }
    if let Some(problem) = &device.problem {
        line(format_args!("    cannot be the camera: {problem}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_says_what_run_would_do_and_why() {
        let device = Device {
            path: "/dev/video0".into(),
            card: "Cam".into(),
            driver: "uvcvideo".into(),
            bus: "usb-1".into(),
            formats: vec![capture::Format {
                fourcc: "YUYV".into(),
                description: "YUYV 4:2:2".into(),
                usable: true,
                sizes: Vec::new(),
            }],
            controls: vec![capture::Control {
                name: "brightness".into(),
                min: -64,
                max: 64,
                step: 1,
                default: 0,
                menu: Vec::new(),
            }],
            problem: None,
        };
        let text = describe(std::slice::from_ref(&device)).unwrap();
        assert!(text.contains("\n    control brightness  -64 to 64, usually 0\n"), "{text}");
        assert!(text.contains(
            "run would choose v4l2:/dev/video0, the first camera that works: YUYV at 1280x720, \
             encoded by OpenH264 (software): the camera offers no H.264"
        ));
        let json: serde_json::Value =
            serde_json::from_str(&describe_as_json(&[device]).unwrap()).unwrap();
        assert_eq!(json[0]["path"], "/dev/video0");
        assert_eq!(json[0]["choice"]["format"], "YUYV");
        let nothing = "run would choose the test pattern, because there is no camera\n";
        assert!(describe(&[]).unwrap().ends_with(nothing));
    }
}
