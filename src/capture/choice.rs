//! Chooses how a camera is used: its own H.264, or pictures and who encodes them; says why.
//!
//! A camera's own H.264 costs nothing, so it wins where it fits as well as any other format and
//! nobody has to see the pictures. Then come pictures in the cheapest format that fits, with a
//! hardware encoder before OpenH264. Arithmetic only: opens nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use super::mode::{self, Candidate, Reason, Request};
use super::node::{listed, rate};
use super::{Coding, Device, Format, layout};
use crate::frame::PixelFormat;
use crate::sys::v4l2::{FourCc, FrameInterval, FrameSize, Interval};

/// What is wanted of a camera.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub request: Request,
    /// For a camera that encodes itself.
    pub coding: Coding,
    /// What pictures are needed for, such as `the overlay`; `None` when H.264 is all that is wanted.
    pub pictures_for: Option<&'static str>,
    /// Values of controls, by name.
    pub controls: BTreeMap<String, i64>,
    /// Names of the hardware encoders that there are, best first.
    pub encoders: Vec<String>,
}

impl Wanted {
    /// Whether a camera may be used in a format, as far as it depends on what is wanted.
    pub(super) fn can_use(&self, format: FourCc) -> bool {
        format != layout::H264 || self.pictures_for.is_none()
    }
}

/// How a camera is used.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    #[serde(serialize_with = "as_text")]
    pub format: FourCc,
    pub width: u32,
    pub height: u32,
    /// `None` when the driver does not tell.
    pub fps: Option<f64>,
    #[serde(serialize_with = "as_text")]
    pub encoder: Encoder,
    /// The whole choice and its reasons, in one sentence without a full stop.
    pub sentence: String,
}

/// Who encodes; its text is the name that logs and metrics use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// The camera itself.
    Camera,
    /// A memory-to-memory device, by its name.
    Hardware(String),
    OpenH264,
}

impl fmt::Display for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Camera => "camera",
            Self::Hardware(name) => name,
            Self::OpenH264 => "openh264",
        })
    }
}

/// Chooses among what a camera offers.
///
/// # Errors
///
/// Why the camera cannot be used, in words.
pub fn choose(device: &Device, wanted: &Wanted) -> Result<Choice, String> {
    if let Some(problem) = &device.problem {
        return Err(problem.clone());
    }
    let Some((best, fit)) = mode::choose(&candidates(device, wanted), &wanted.request) else {
        return Err(refusal(device, wanted));
    };
    let Candidate { format, width, height, interval, .. } = best;
    let encoder = if format == layout::H264 {
        Encoder::Camera
    } else {
        wanted.encoders.first().cloned().map_or(Encoder::OpenH264, Encoder::Hardware)
    };
    let fps = interval.and_then(Interval::fps);
    let at = fps.map_or_else(String::new, |fps| format!("@{}", rate(fps)));
    let way = way(&encoder, format);
    let reasons = reasons(device, wanted, &encoder, fit).join(", ");
    let sentence = format!("{format} at {width}x{height}{at}, {way}: {reasons}");
    Ok(Choice { format, width, height, fps, encoder, sentence })
}

/// Every mode that could be used; the camera's own H.264 is the cheapest of formats.
fn candidates(device: &Device, wanted: &Wanted) -> Vec<Candidate<FourCc>> {
    let ranked = [layout::H264].into_iter().chain(layout::USABLE.map(|(format, _)| format));
    let mut candidates = Vec::new();
    for (cost, fourcc) in ranked.enumerate() {
        let is_forced_out = wanted.request.format.is_some_and(|forced| forced != fourcc);
        if is_forced_out || !wanted.can_use(fourcc) {
            continue;
        }
        if let Some(format) = find(device, fourcc) {
            let sizes = sizes(format, &wanted.request);
            candidates.extend(mode::candidates(fourcc, cost, &sizes, &wanted.request));
        }
    }
    candidates
}

fn find(device: &Device, fourcc: FourCc) -> Option<&Format> {
    let name = fourcc.to_string();
    device.formats.iter().find(|format| format.fourcc == name)
}

/// What the probe found; a driver that lists no sizes may well have the one asked for.
fn sizes(format: &Format, request: &Request) -> Vec<(FrameSize, Vec<FrameInterval>)> {
    if format.sizes.is_empty() {
        let (width, height) = (request.width, request.height);
        return vec![(FrameSize::Discrete { width, height }, Vec::new())];
    }
    format.sizes.iter().map(|size| (FrameSize::from(size), size.intervals.clone())).collect()
}

fn way(encoder: &Encoder, format: FourCc) -> String {
    let is_jpeg = layout::pixel_format(format) == Some(PixelFormat::Mjpeg);
    let decoded = if is_jpeg { "decoded and " } else { "" };
    match encoder {
        Encoder::Camera => "the camera's own, passed on as it is".to_owned(),
        Encoder::Hardware(name) => format!("{decoded}encoded by {name}"),
        Encoder::OpenH264 => format!("{decoded}encoded by OpenH264 (software)"),
    }
}

fn reasons(device: &Device, wanted: &Wanted, encoder: &Encoder, fit: Reason) -> Vec<String> {
    let mut reasons = Vec::new();
    let is_forced = wanted.request.format.is_some();
    if is_forced {
        reasons.push("the configuration names the format".to_owned());
    }
    match (encoder, wanted.pictures_for) {
        (Encoder::Camera, _) => reasons.push("nothing else has to see the pictures".to_owned()),
        _ if find(device, layout::H264).is_none() => {
            reasons.push("the camera offers no H.264".to_owned());
        }
        (_, Some(what)) => reasons.push(format!("{what} needs pictures")),
        _ if !is_forced => reasons.push("the camera's own H.264 fits less well".to_owned()),
        _ => {}
    }
    if *encoder == Encoder::OpenH264 {
        reasons.push("there is no hardware encoder".to_owned());
    }
    reasons.extend([fit.size.to_owned(), fit.rate.to_owned()]);
    reasons
}

/// Why nothing of a usable camera can be used.
fn refusal(device: &Device, wanted: &Wanted) -> String {
    let offered: Vec<_> = device.formats.iter().map(|format| format.fourcc.clone()).collect();
    let offered = listed(&offered);
    match (wanted.request.format, wanted.pictures_for) {
        (Some(layout::H264), Some(what)) => {
            format!("the configuration names H264, but {what} needs pictures")
        }
        (Some(format), _) => {
            format!("the configuration names {format}, but the camera offers {offered}")
        }
        (None, Some(what)) => format!("{what} needs pictures, but the camera offers {offered}"),
        (None, None) => format!("the camera offers {offered}, none of it in an even size"),
    }
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::capture::Size;

    fn format(fourcc: &str, sizes: &[(u32, u32, u32)]) -> Format {
        let size = |&(width, height, fps): &(u32, u32, u32)| Size {
            fps: vec![f64::from(fps)],
            intervals: vec![FrameInterval::Discrete(Interval { numerator: 1, denominator: fps })],
            ..Size::from(FrameSize::Discrete { width, height })
        };
        Format {
            fourcc: fourcc.to_owned(),
            description: String::new(),
            usable: true,
            sizes: sizes.iter().map(size).collect(),
        }
    }

    fn device(formats: Vec<Format>) -> Device {
        Device {
            path: PathBuf::from("/dev/video0"),
            card: String::new(),
            driver: String::new(),
            bus: String::new(),
            formats,
            controls: Vec::new(),
            problem: None,
        }
    }

    fn wanted() -> Wanted {
        Wanted {
            request: Request { width: 1280, height: 720, fps: 30.0, format: None },
            coding: Coding { bitrate_bps: 2_000_000, gop: Duration::from_secs(1) },
            pictures_for: None,
            controls: BTreeMap::new(),
            encoders: Vec::new(),
        }
    }

    /// As many webcams: YUYV is slow at large sizes, MJPEG is not.
    fn webcam() -> Vec<Format> {
        vec![
            format("YUYV", &[(640, 480, 30), (1280, 720, 10)]),
            format("MJPG", &[(640, 480, 30), (1280, 720, 30)]),
        ]
    }

    #[test]
    fn a_cameras_own_h264_is_passed_on_when_nobody_needs_pictures() {
        let mut formats = webcam();
        formats.push(format("H264", &[(1280, 720, 30)]));
        let device = device(formats);
        let with_encoder = Wanted { encoders: vec!["m2m:/dev/video11".to_owned()], ..wanted() };
        let choice = choose(&device, &with_encoder).unwrap();
        assert_eq!((choice.encoder, choice.fps), (Encoder::Camera, Some(30.0)));
        assert_eq!(
            choice.sentence,
            "H264 at 1280x720@30, the camera's own, passed on as it is: nothing else has to see \
             the pictures, the size is the one asked for, the rate is the one asked for"
        );
        let with_overlay = Wanted { pictures_for: Some("the overlay"), ..with_encoder };
        let choice = choose(&device, &with_overlay).unwrap();
        assert_eq!(choice.encoder, Encoder::Hardware("m2m:/dev/video11".to_owned()));
        assert_eq!(
            choice.sentence,
            "MJPG at 1280x720@30, decoded and encoded by m2m:/dev/video11: the overlay needs \
             pictures, the size is the one asked for, the rate is the one asked for"
        );
    }

    #[test]
    fn h264_that_fits_less_well_is_left_alone() {
        let mut formats = webcam();
        formats.push(format("H264", &[(640, 480, 30)]));
        let choice = choose(&device(formats), &wanted()).unwrap();
        assert_eq!((choice.format, choice.encoder), (FourCc(*b"MJPG"), Encoder::OpenH264));
        assert!(choice.sentence.contains("own H.264 fits less well"), "{}", choice.sentence);
    }

    #[test]
    fn mjpeg_is_taken_only_where_nothing_cheaper_reaches_size_and_rate() {
        let chosen = |width, height, fps| {
            let request = Request { width, height, fps, format: None };
            choose(&device(webcam()), &Wanted { request, ..wanted() }).unwrap()
        };
        assert_eq!(chosen(640, 480, 30.0).format, FourCc(*b"YUYV"));
        assert_eq!(chosen(1280, 720, 10.0).format, FourCc(*b"YUYV"));
        assert_eq!(chosen(1280, 720, 30.0).format, FourCc(*b"MJPG"));
        assert_eq!(
            chosen(640, 480, 30.0).sentence,
            "YUYV at 640x480@30, encoded by OpenH264 (software): the camera offers no H.264, \
             there is no hardware encoder, the size is the one asked for, the rate is the one \
             asked for"
        );
    }

    #[test]
    fn a_format_that_the_configuration_names_is_the_only_one() {
        let forced = |format: &[u8; 4]| Wanted {
            request: Request { format: Some(FourCc(*format)), ..wanted().request },
            ..wanted()
        };
        let choice = choose(&device(webcam()), &forced(b"YUYV")).unwrap();
        assert_eq!((choice.format, choice.fps), (FourCc(*b"YUYV"), Some(10.0)));
        assert!(choice.sentence.contains("the configuration names the format"));
        let refusal = choose(&device(webcam()), &forced(b"H264")).unwrap_err();
        assert_eq!(refusal, "the configuration names H264, but the camera offers YUYV, MJPG");
    }

    #[test]
    fn masks_are_never_left_out_to_pass_h264_on() {
        let device = device(vec![format("H264", &[(1280, 720, 30)])]);
        let masked = Wanted { pictures_for: Some("the privacy mask"), ..wanted() };
        let refusal = choose(&device, &masked).unwrap_err();
        assert_eq!(refusal, "the privacy mask needs pictures, but the camera offers H264");
        assert_eq!(choose(&device, &wanted()).unwrap().encoder, Encoder::Camera);
    }

    #[test]
    fn a_driver_without_lists_is_expected_to_have_what_is_asked_for() {
        let choice = choose(&device(vec![format("YUYV", &[])]), &wanted()).unwrap();
        assert_eq!((choice.width, choice.height, choice.fps), (1280, 720, None));
        let json = serde_json::to_value(&choice).unwrap();
        assert_eq!((&json["format"], &json["encoder"]), (&"YUYV".into(), &"openh264".into()));
    }
}
