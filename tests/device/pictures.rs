//! Checks that what arrives is the picture that vivid drew, in every format, on time.

use std::time::Duration;

use ocellus::capture::{Encoder, RawSource, Request, V4l2, choose, first_working, probe};
use ocellus::frame::{Frame, Matrix, PixelFormat};
use ocellus::sys::clock;
use ocellus::sys::v4l2::FourCc;

use super::bench::{Bench, SMALL, next, small};
use super::{Check, allocations};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("every_format_delivers_the_picture_that_was_drawn", every_format),
    ("the_colour_is_what_the_driver_states", the_colour),
    ("the_mode_is_the_one_that_fits_best", the_mode),
    ("the_rate_is_the_one_agreed_on", the_rate),
    ("nothing_is_allocated_per_frame", no_allocation),
    ("the_probe_finds_the_camera", the_probe),
];

const FORMATS: [[u8; 4]; 10] = [
    *b"YU12", *b"YV12", *b"NV12", *b"NV21", *b"YUYV", *b"UYVY", *b"YM12", *b"YM21", *b"NM12",
    *b"NM21",
];

fn every_format(bench: &Bench) {
    bench.set("test_pattern", RED);
    bench.set("osd_text_mode", NO_TEXT);
    let offered = bench.node().formats().unwrap();
    let mut report = String::new();
    let mut checked = 0;
    for fourcc in FORMATS.map(FourCc) {
        if !offered.iter().any(|format| format.fourcc == fourcc) {
            // The six with one memory plane are what every vivid has.
            assert!(fourcc.0.contains(&b'M'), "vivid has no {fourcc}");
            continue;
        }
        let mut camera = V4l2::open_in(bench.path(), SMALL, fourcc).unwrap();
        let mut last = None;
        for _ in 0..FRAMES {
            let raw = next(&mut camera);
            let frame = raw.frame();
            assert_is_red(&frame, fourcc);
            assert_is_recent(&frame);
            assert!(last.is_none_or(|last| last < frame.captured), "{fourcc}: time stands still");
            last = Some(frame.captured);
        }
        checked += 1;
        report += &format!(" {fourcc} {FRAMES} lost {},", camera.lost());
    }
    println!("  frames:{report} {checked} formats");
    bench.set("test_pattern", 0);
}

fn the_colour(bench: &Bench) {
    for (name, value, matrix) in
        [("colorspace", REC_709, Matrix::Bt709), ("colorspace", SMPTE_170M, Matrix::Bt601)]
    {
        bench.set(name, value);
        let mut camera = bench.camera();
        let colour = next(&mut camera).frame().colour;
        // HDMI has the colours of its timings, whatever the control says.
        if bench.is_webcam() {
            assert_eq!(colour.matrix, matrix, "{name} {value}");
        }
        assert!(!colour.full_range);
    }
    if bench.is_webcam() {
        bench.set("quantization", FULL_RANGE);
        let full_range = next(&mut bench.camera()).frame().colour.full_range;
        bench.set("quantization", 0);
        assert!(full_range);
    }
    bench.set("colorspace", SRGB);
}

fn the_mode(bench: &Bench) {
    // vivid's webcam has 320x180, 640x360, 640x480, 1280x720, 1920x1080 and 3840x2160, and the
    // fewer rates the larger the picture; its HDMI has every size and tells no rates.
    let webcam = bench.is_webcam();
    for ((asked_width, asked_height, asked_fps), (width, height, fps)) in [
        ((320, 240, 10.0), (640, 360, 10.0)),
        ((320, 180, 10.0), (320, 180, 10.0)),
        ((640, 360, 30.0), (640, 360, 30.0)),
        ((641, 360, 15.0), (1280, 720, 12.5)),
        ((640, 480, 20.0), (640, 480, 25.0)),
        ((8000, 8000, 1.0), (3840, 2160, 1.0)),
    ] {
        if !webcam && asked_width % 2 + asked_width / 1000 > 0 {
            continue;
        }
        let wanted =
            Request { width: asked_width, height: asked_height, fps: asked_fps, format: None };
        let mode = V4l2::open(bench.path(), wanted).unwrap().mode();
        println!("  asked {asked_width}x{asked_height}@{asked_fps}: {mode:?}");
        assert_eq!(mode.format, PixelFormat::I420);
        if webcam {
            assert_eq!((mode.width, mode.height), (width, height));
            assert!((mode.fps - fps).abs() < f64::EPSILON);
        } else {
            assert_eq!((mode.width, mode.height), (asked_width, asked_height));
        }
    }
}

fn the_rate(bench: &Bench) {
    if !bench.is_webcam() {
        return;
    }
    let mut camera = V4l2::open(bench.path(), Request { fps: 10.0, ..SMALL }).unwrap();
    assert!((camera.mode().fps - 10.0).abs() < f64::EPSILON, "{:?}", camera.mode());
    let first = next(&mut camera).frame().captured;
    let lost = camera.lost();
    let last = (0..20).map(|_| next(&mut camera).frame().captured).last().unwrap();
    let intervals = 20 + camera.lost() - lost;
    let millis = last.since(first).as_millis() / u128::from(intervals);
    println!("  one frame each {millis} ms over {intervals} intervals");
    assert!((95..=105).contains(&millis), "{millis} ms");
}

fn no_allocation(bench: &Bench) {
    let mut camera = bench.camera();
    drop(next(&mut camera));
    let before = allocations::count();
    for _ in 0..FRAMES {
        let frame = next(&mut camera);
        assert!(!frame.frame().planes[0].bytes.is_empty());
    }
    assert_eq!(allocations::count() - before, 0);
}

fn the_probe(bench: &Bench) {
    let devices = probe();
    let device = devices.iter().find(|device| device.path == bench.path()).unwrap();
    println!("  {}", serde_json::to_string(device).unwrap());
    assert_eq!((device.driver.as_str(), &device.problem), ("vivid", &None));
    assert!(device.formats.iter().any(|format| format.fourcc == "NV12" && format.usable));
    assert!(device.formats.iter().any(|format| format.fourcc == "RGB3" && !format.usable));
    let choice = choose(device, &small()).unwrap();
    println!("  {}", choice.sentence);
    assert_eq!((choice.format, choice.encoder), (FourCc(*b"YU12"), Encoder::OpenH264));
    let (camera, passed_over) = first_working(&small());
    assert_eq!(camera.unwrap().info().driver, "vivid");
    println!("  passed over: {passed_over:?}");
}

/// Asserts that the stamp is on our clock. vivid stamps with the time at which the frame ought to
/// end, which is up to one interval ahead.
fn assert_is_recent(frame: &Frame<'_>) {
    let (now, second) = (clock::now(), Duration::from_secs(1));
    assert!(frame.captured < now + second, "from the future");
    assert!(now < frame.captured + second, "{:?} old", now.since(frame.captured));
}

/// Asserts that the picture is red all over, in the encoding that its frame states.
fn assert_is_red(frame: &Frame<'_>, fourcc: FourCc) {
    // BT.601 and BT.709 in limited range, of R'G'B' (1, 0, 0).
    let (luma, cb, cr) = match frame.colour.matrix {
        Matrix::Bt601 => (81, 90, 240),
        Matrix::Bt709 => (63, 102, 240),
    };
    let (width, height) =
        (usize::try_from(frame.width).unwrap(), usize::try_from(frame.height).unwrap());
    for (x, y) in [(0, 0), (width - 2, 0), (width / 2, height / 2), (width - 2, height - 2)] {
        let found = sample(frame, x, y);
        let near = |found: u8, wanted: i32| (i32::from(found) - wanted).abs() <= 3;
        assert!(
            near(found.0, luma) && near(found.1, cb) && near(found.2, cr),
            "{fourcc} at {x},{y}: {found:?} is no red: {:?}",
            frame.colour
        );
    }
}

/// Y, Cb and Cr at an even column and row.
fn sample(frame: &Frame<'_>, x: usize, y: usize) -> (u8, u8, u8) {
    let at = |plane: usize, byte: usize, row: usize| {
        let plane = frame.planes[plane];
        plane.bytes[row * plane.stride + byte]
    };
    match frame.format {
        PixelFormat::Yuyv => (at(0, 2 * x, y), at(0, 2 * x + 1, y), at(0, 2 * x + 3, y)),
        PixelFormat::Uyvy => (at(0, 2 * x + 1, y), at(0, 2 * x, y), at(0, 2 * x + 2, y)),
        PixelFormat::Nv12 => (at(0, x, y), at(1, x, y / 2), at(1, x + 1, y / 2)),
        PixelFormat::Nv21 => (at(0, x, y), at(1, x + 1, y / 2), at(1, x, y / 2)),
        PixelFormat::I420 => (at(0, x, y), at(1, x / 2, y / 2), at(2, x / 2, y / 2)),
        PixelFormat::Yv12 => (at(0, x, y), at(2, x / 2, y / 2), at(1, x / 2, y / 2)),
        PixelFormat::Mjpeg => unreachable!("vivid compresses nothing"),
    }
}

const FRAMES: usize = 30;
// vivid's menus: Test Pattern, OSD Text Mode, Colorspace, Quantization.
const RED: i32 = 7;
const NO_TEXT: i32 = 2;
const SMPTE_170M: i32 = 0;
const REC_709: i32 = 1;
const SRGB: i32 = 2;
const FULL_RANGE: i32 = 1;
