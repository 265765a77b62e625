//! Checks the whole camera on a kernel's device: what a viewer sees is what the sensor has given,
//! and no fault of the driver ends his session.
//!
//! The camera is the program at `/ocellus`, which `scripts/device-test` puts there.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ocellus::capture::{RawSource as _, Request, V4l2};
use ocellus::picture::{Converter, Orientation, Picture};
use ocellus::sys::clock;
use ocellus::sys::netlink::Netlink;
use ocellus::sys::v4l2::FourCc;

use super::Check;
use super::bench::{Bench, next};
use super::viewer::{Shown, Viewer};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("streamed_pictures_are_those_of_the_sensor", pictures),
    ("streamed_sessions_outlive_the_driver_s_faults", faults),
];

const ASKED: Request = Request { width: 320, height: 180, fps: 10.0, format: None };

fn pictures(bench: &Bench) {
    if !bench.is_webcam() {
        println!("  the same formats as elsewhere");
        return;
    }
    bench.set("test_pattern", COLOUR_BARS);
    bench.set("osd_text_mode", NO_TEXT);
    let offered: Vec<FourCc> =
        bench.node().formats().unwrap().into_iter().map(|format| format.fourcc).collect();
    let mut checked = 0;
    for fourcc in FORMATS.map(FourCc) {
        if !offered.contains(&fourcc) {
            continue;
        }
        let raw = grab(bench, fourcc);
        let camera = Camera::start(bench, &fourcc.to_string());
        let mut viewer = Viewer::connect(&camera.url, None);
        // The rate control takes some pictures to get there.
        let shown = (0..25).map(|_| viewer.next(PATIENCE)).last().unwrap();
        let psnr = psnr(&raw, &shown);
        println!("  {fourcc}: Y {:.1} dB, Cb {:.1} dB, Cr {:.1} dB", psnr[0], psnr[1], psnr[2]);
        assert!(psnr.iter().all(|&db| db >= 35.0), "{fourcc}: {psnr:?}");
        checked += 1;
    }
    assert!(checked >= 1, "vivid offers none of {FORMATS:?}: {offered:?}");
}

fn faults(bench: &Bench) {
    if !bench.is_webcam() {
        println!("  the same faults as elsewhere");
        return;
    }
    bench.set("test_pattern", WHITE);
    let camera = Camera::start(bench, "auto");
    let mut viewer = Viewer::connect(&camera.url, None);
    see_pictures(&mut viewer, 10);
    for _ in 0..5 {
        bench.set("inject_v4l2_buf_flag_error", 1);
        see_pictures(&mut viewer, 3);
    }
    bench.set("percentage_of_dropped_buffers", 60);
    see_pictures(&mut viewer, 10);
    bench.set("percentage_of_dropped_buffers", 0);
    for _ in 0..3 {
        let began = clock::now();
        bench.set("inject_fatal_streaming_error", 1);
        // What was on its way, then perhaps NO SIGNAL, then pictures.
        see_pictures(&mut viewer, 15);
        println!("  15 pictures {:?} after a fatal error", clock::now().since(began));
    }
    // The next start is refused once.
    bench.set("inject_vidioc_streamon_error", 1);
    bench.set("inject_fatal_streaming_error", 1);
    see_pictures(&mut viewer, 15);
}

/// Waits until so many pictures have come that are no NO SIGNAL.
fn see_pictures(viewer: &mut Viewer, count: usize) {
    let deadline = clock::now() + PATIENCE;
    let mut seen = 0;
    while seen < count {
        assert!(clock::now() < deadline, "{seen} of {count} pictures");
        seen += usize::from(viewer.next(PATIENCE).brightness() > DARK);
    }
}

/// What the sensor gives, as I420.
fn grab(bench: &Bench, fourcc: FourCc) -> Picture {
    let mut camera = V4l2::open_in(bench.path(), ASKED, fourcc).unwrap();
    let frame = next(&mut camera);
    assert_eq!((camera.mode().width, camera.mode().height), (ASKED.width, ASKED.height));
    let mut picture = Picture::default();
    Converter::new(Orientation::default()).convert(&frame.frame(), &mut picture).unwrap();
    picture
}

/// Of each plane, in dB.
fn psnr(raw: &Picture, shown: &Shown) -> [f64; 3] {
    let frame = raw.frame();
    assert_eq!((shown.width, shown.height), (frame.width as usize, frame.height as usize));
    std::array::from_fn(|plane| {
        let (wanted, got) = (frame.planes[plane].bytes, &shown.planes[plane]);
        assert_eq!(wanted.len(), got.len());
        let squares = wanted.iter().zip(got).map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2));
        let mean = squares.sum::<f64>() / wanted.len() as f64;
        10.0 * (255.0_f64.powi(2) / mean.max(1e-3)).log10()
    })
}

/// A running camera; it ends with this.
struct Camera {
    process: Child,
    url: String,
}

impl Camera {
    fn start(bench: &Bench, format: &str) -> Self {
        // Nobody else has brought it up.
        let mut netlink = Netlink::open().unwrap();
        netlink.set_up(LOOPBACK).unwrap();
        let config = format!(
            r#"{{ "camera": {{ "source": "v4l2:{}", "format": "{format}" }},
                 "streams": [ {{ "name": "main", "width": 320, "height": 180, "fps": 10,
                                 "bitrate_kbps": 600 }} ],
                 "rtsp": {{ "listen": ["127.0.0.1:0"] }}, "http": {{ "listen": [] }},
                 "auth": false }}"#,
            bench.path().display()
        );
        std::fs::write(CONFIG, config).unwrap();
        assert!(Path::new(PROGRAM).exists(), "scripts/device-test puts the camera at {PROGRAM}");
        let mut process = Command::new(PROGRAM)
            .args(["run", "--config", CONFIG])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("rtsp://"), "{url:?}");
        Self { process, url: url.trim_end().to_owned() }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const PROGRAM: &str = "/ocellus";
const CONFIG: &str = "/streamed.json";
const PATIENCE: Duration = Duration::from_secs(20);
/// Luma between that of NO SIGNAL and that of white.
const DARK: u64 = 120;
/// Index of `lo`, which every network namespace has first.
const LOOPBACK: u32 = 1;
const FORMATS: [[u8; 4]; 4] = [*b"YUYV", *b"NV12", *b"YU12", *b"NM12"];
// vivid's menus: Test Pattern, OSD Text Mode.
const COLOUR_BARS: i32 = 0;
const WHITE: i32 = 6;
const NO_TEXT: i32 = 2;
