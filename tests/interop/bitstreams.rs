//! Real bitstreams of x264 through the camera: what a viewer decodes is, bit for bit, what FFmpeg
//! decodes from the file.
//!
//! Every stream is made anew, played in a loop, recorded by FFmpeg for two rounds, and cut at the
//! first picture of the file. Both are decoded, and their pictures' checksums compared.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::camera::{Camera, credentials};
use crate::clip::{AccessUnit, access_units};
use crate::process::{self, FFMPEG};
use crate::{nal, players};

#[test]
fn baseline_arrives_bit_exactly() {
    if let Some(stream) = encode("baseline", SIZE, "baseline", "") {
        assert_eq!(profile(&stream), 66);
        arrives(&stream, "baseline");
    }
}

#[test]
fn main_profile_with_cabac_arrives_bit_exactly() {
    if let Some(stream) = encode("main", SIZE, "main", "cabac=1") {
        assert_eq!(profile(&stream), 77);
        arrives(&stream, "main");
    }
}

#[test]
fn four_slices_to_a_picture_arrive_bit_exactly() {
    if let Some(stream) = encode("slices", SIZE, "main", "slices=4") {
        let is_sliced =
            |unit: &AccessUnit| unit.iter().filter(|unit| nal::is_slice(unit)).count() == 4;
        assert!(access_units(&stream).iter().all(is_sliced));
        arrives(&stream, "slices");
    }
}

#[test]
fn a_stream_with_delimiters_arrives_bit_exactly() {
    if let Some(stream) = encode("aud", SIZE, "main", "aud=1") {
        assert!(access_units(&stream).iter().all(|unit| nal::kind(&unit[0]) == nal::AUD));
        arrives(&stream, "aud");
    }
}

#[test]
fn a_stream_without_vui_arrives_bit_exactly() {
    if let Some(stream) = encode("no-vui", SIZE, "baseline", "") {
        let units = nal::split_annexb(&stream);
        let bare = units.iter().map(|unit| match nal::kind(unit) {
            nal::SPS => without_vui(unit),
            _ => unit.to_vec(),
        });
        let bare: Vec<Vec<u8>> = bare.collect();
        let sps = bare.iter().find(|unit| nal::kind(unit) == nal::SPS).unwrap();
        assert!(nal::parse_sps(sps).unwrap().vui_parameters.is_none());
        arrives(&nal::to_annexb(bare.iter().map(Vec::as_slice)), "no-vui");
    }
}

#[test]
fn a_change_of_size_in_mid_stream_arrives_bit_exactly() {
    let small = encode("small", SIZE, "baseline", "");
    let large = encode("large", "640x480", "main", "");
    if let (Some(small), Some(large)) = (small, large) {
        arrives(&[small, large].concat(), "sizes");
    }
}

/// Plays `stream` and compares what arrives with it.
fn arrives(stream: &[u8], name: &str) {
    let file = path(name);
    std::fs::write(&file, stream).unwrap();
    let camera = Camera::start(&["--source", &format!("file:{}", file.display())]);
    let wanted = access_units(stream);
    let received = record(&camera, 2 * wanted.len() + 1, &path(&format!("{name}-received")));
    drop(camera);
    let received = access_units(&received);
    let slices = |unit: &AccessUnit| -> Vec<Vec<u8>> {
        unit.iter().filter(|nal| nal::is_slice(nal)).cloned().collect()
    };
    let first = slices(&wanted[0]);
    let start = received.iter().position(|unit| slices(unit) == first);
    let start = start.unwrap_or_else(|| panic!("{name}: the file's first picture never came"));
    let round = received.get(start..start + wanted.len());
    let round = round.unwrap_or_else(|| panic!("{name}: {} from {start} on", received.len()));
    let cut = path(&format!("{name}-cut"));
    std::fs::write(&cut, nal::to_annexb(round.iter().flatten().map(Vec::as_slice))).unwrap();
    let (from_file, from_camera) = (checksums(&file), checksums(&cut));
    assert_eq!(from_file.len(), wanted.len(), "{name}");
    assert!(from_file == from_camera, "{name}:\n{from_file:#?}\n{from_camera:#?}");
    eprintln!("{name}: {} pictures are the same bit for bit", from_file.len());
    for path in [file, cut] {
        let _ = std::fs::remove_file(path);
    }
}

/// Encodes a moving picture; `None` when there is no FFmpeg.
fn encode(name: &str, size: &str, profile: &str, parameters: &str) -> Option<Vec<u8>> {
    if !process::have(&[FFMPEG]) {
        return None;
    }
    let path = path(&format!("{name}-made"));
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i"]);
    command.arg(format!("testsrc2=size={size}:rate=30:duration=1.5"));
    command.args(["-c:v", "libx264", "-pix_fmt", "yuv420p", "-profile:v", profile]);
    command.args(["-bf", "0", "-g", "15", "-threads", "1", "-x264-params"]);
    command.arg(format!("scenecut=0:{parameters}").trim_end_matches(':'));
    command.args(["-f", "h264"]).arg(&path);
    let made = process::run(&mut command, Duration::from_secs(60));
    assert!(made.success(), "{}", made.stderr);
    let stream = std::fs::read(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    Some(stream)
}

/// What FFmpeg receives, as it is, as a byte stream.
fn record(camera: &Camera, pictures: usize, path: &Path) -> Vec<u8> {
    let url = players::login(&camera.url, &credentials());
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-rtsp_transport", "tcp"]);
    command.args(["-timeout", "5000000", "-i", &url, "-map", "0:v:0", "-c", "copy"]);
    command.args(["-frames:v", &pictures.to_string(), "-f", "h264"]).arg(path);
    let run = process::run(&mut command, players::LIMIT);
    assert!(run.success(), "{run:?}");
    let stream = std::fs::read(path).unwrap();
    std::fs::remove_file(path).unwrap();
    stream
}

/// Size and MD5 of every picture that FFmpeg decodes from a file.
fn checksums(path: &Path) -> Vec<String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-xerror", "-err_detect", "explode"]);
    // Each picture in its own size: otherwise those after a change would be scaled.
    command.args(["-f", "h264", "-i"]).arg(path).args(["-map", "0:v:0", "-autoscale", "0"]);
    command.args(["-vsync", "passthrough", "-f", "framemd5", "-"]);
    let run = process::run(&mut command, Duration::from_secs(60));
    assert!(run.success() && run.stderr.trim().is_empty(), "{}: {run:?}", path.display());
    let lines = run.stdout.lines().filter(|line| !line.starts_with('#'));
    // Stream, two times and a duration come first.
    let sums = lines.map(|line| line.splitn(5, ',').last().unwrap().trim().to_owned());
    sums.collect()
}

/// The SPS with `vui_parameters_present_flag` 0 and nothing behind it (7.3.2.1.1, profiles without
/// chroma fields).
fn without_vui(sps: &[u8]) -> Vec<u8> {
    let mut bits = sps.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut kept = Vec::new();
    let mut take = |count: usize, kept: &mut Vec<u8>| {
        kept.extend(bits.by_ref().take(count));
        kept[kept.len() - count..].iter().fold(0_u32, |value, &bit| value << 1 | u32::from(bit))
    };
    let ue = |take: &mut dyn FnMut(usize, &mut Vec<u8>) -> u32, kept: &mut Vec<u8>| {
        let zeros = (0..32).take_while(|_| take(1, kept) == 0).count();
        (1 << zeros) - 1 + if zeros > 0 { take(zeros, kept) } else { 0 }
    };
    // Header, profile, constraints, level; seq_parameter_set_id, log2_max_frame_num_minus4.
    take(32, &mut kept);
    ue(&mut take, &mut kept);
    ue(&mut take, &mut kept);
    let order_type = ue(&mut take, &mut kept);
    assert!(matches!(order_type, 0 | 2), "x264 counts pictures in no other way");
    if order_type == 0 {
        ue(&mut take, &mut kept);
    }
    // max_num_ref_frames, its flag, width and height.
    ue(&mut take, &mut kept);
    take(1, &mut kept);
    ue(&mut take, &mut kept);
    ue(&mut take, &mut kept);
    assert_eq!(take(1, &mut kept), 1, "frames only");
    // direct_8x8_inference_flag, frame_cropping_flag.
    take(1, &mut kept);
    if take(1, &mut kept) == 1 {
        for _ in 0..4 {
            ue(&mut take, &mut kept);
        }
    }
    // No VUI, and the stop bit.
    kept.extend([0, 1]);
    kept.resize(kept.len().next_multiple_of(8), 0);
    kept.chunks(8).map(|byte| byte.iter().fold(0, |value, bit| value << 1 | bit)).collect()
}

fn profile(stream: &[u8]) -> u8 {
    let units = nal::split_annexb(stream);
    units.into_iter().find(|unit| nal::kind(unit) == nal::SPS).unwrap()[1]
}

fn path(name: &str) -> PathBuf {
    let name = format!("bitstream-{name}-{}.h264", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Whole macroblocks: the SPS needs no cropping.
const SIZE: &str = "320x240";
