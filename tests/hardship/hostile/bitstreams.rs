//! Files of H.264 that are damaged or end where they should not, sizes of packets at which a NAL
//! unit just fits, and four viewers before there is a picture.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::peer::Random;
use crate::camera::{Camera, credentials};
use crate::client::{Client, Lower};
use crate::clip::{access_units, clip};
use crate::nal;
use crate::process;
use crate::stand;
use crate::validate::{Expect, validate};

fn path(name: &str) -> PathBuf {
    let name = format!("hostile-{name}-{}", std::process::id());
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The NAL units of the clip that every test plays.
fn units() -> Vec<Vec<u8>> {
    clip().unwrap().access_units.concat()
}

fn annexb(units: &[Vec<u8>]) -> Vec<u8> {
    nal::to_annexb(units.iter().map(Vec::as_slice))
}

/// Row 58: what can be played of these is, every picture of it.
#[test]
fn streams_with_odd_units_are_played_whole() {
    let units = units();
    let whole = clip().unwrap();
    let short_codes: Vec<u8> =
        units.iter().flat_map(|unit| [&[0, 0, 1][..], unit].concat()).collect();
    let empty_units: Vec<u8> = units
        .iter()
        .flat_map(|unit| [&[0, 0, 1, 0, 0, 1, 0, 0, 0, 1][..], unit].concat())
        .collect();
    let zeros: Vec<u8> =
        units.iter().flat_map(|unit| [&[0; 5_000][..], &[1], unit].concat()).collect();
    let before = [&b"RIFF\x00\xff"[..], &[0xff; 9_000], &annexb(&units)].concat();
    for (name, stream) in [
        ("short-codes", short_codes),
        ("empty-units", empty_units),
        ("zeros", zeros),
        ("something-before", before),
    ] {
        let file = path(name);
        fs::write(&file, &stream).unwrap();
        let camera = Camera::start_beside(&["--source", &format!("file:{}", file.display())]);
        plays(&camera, &Expect::of_clip(whole), name);
        fs::remove_file(file).unwrap();
    }
}

/// Row 58: a unit of 4 MB, and a level that changes, cost pictures up to the next IDR at most.
#[test]
fn a_unit_of_four_megabytes_and_a_new_level_are_survived() {
    let units = units();
    let huge = [vec![0x06], vec![0x55; 4 << 20]].concat();
    let middle = units.len() / 2;
    let with_huge = [&units[..middle], &[huge], &units[middle..]].concat();
    let other_level: Vec<Vec<u8>> = units
        .iter()
        .map(|unit| match nal::kind(unit) {
            nal::SPS => [&unit[..3], &[51], &unit[4..]].concat(),
            _ => unit.clone(),
        })
        .collect();
    for (name, stream) in
        [("huge", annexb(&with_huge)), ("level", [annexb(&units), annexb(&other_level)].concat())]
    {
        let file = path(name);
        fs::write(&file, &stream).unwrap();
        let camera = Camera::start_beside(&["--source", &format!("file:{}", file.display())]);
        let mut client = watch(&camera.url, Lower::Tcp);
        let round =
            Duration::from_secs_f64(access_units(&stream).len() as f64 / clip().unwrap().fps);
        client.listen(round + Duration::from_secs(2));
        assert!(!client.closed, "{name}");
        assert_eq!(client.teardown().status(), 200, "{name}");
        let expect = Expect {
            clip: None,
            gop: 3 * Expect::of_clip(clip().unwrap()).gop,
            ..Expect::of_clip(clip().unwrap())
        };
        let (findings, summary) = validate(&client.capture, &expect);
        // A description that was asked for before the change has the old parameter sets.
        let allowed = if name == "level" { &["S5"][..] } else { &[] };
        assert_eq!(
            findings.rules().into_iter().collect::<Vec<_>>(),
            allowed,
            "{}",
            findings.report()
        );
        assert!(summary.access_units > access_units(&stream).len() / 2, "{name}: {summary:?}");
        assert!(!camera.log().contains("panicked"), "{}", camera.log());
        fs::remove_file(file).unwrap();
    }
}

fn watch(url: &str, lower: Lower) -> Client {
    let mut client = Client::connect(&stand::without_login(url), &credentials());
    assert_eq!(client.describe().status(), 200);
    assert_eq!(client.setup(lower).status(), 200);
    assert_eq!(client.play().status(), 200);
    client
}

/// A viewer gets a second of what is expected.
fn plays(camera: &Camera, expect: &Expect<'_>, name: &str) {
    let mut client = watch(&camera.url, Lower::Tcp);
    client.listen(Duration::from_millis(1_500));
    assert_eq!(client.teardown().status(), 200, "{name}");
    let (findings, summary) = validate(&client.capture, expect);
    assert!(findings.violations.is_empty(), "{name}:\n{}", findings.report());
    assert!(summary.access_units > 20, "{name}: {summary:?}");
}

/// Row 58: without a picture to begin with, the camera says in words what is missing; with one, it
/// plays what there is.
#[test]
fn damaged_files_are_refused_in_words_or_played() {
    let units = units();
    let without = |kind: u8| -> Vec<Vec<u8>> {
        units.iter().filter(|unit| nal::kind(unit) != kind).cloned().collect()
    };
    let with_sps = |sps: &[u8]| -> Vec<Vec<u8>> {
        let other =
            |unit: &Vec<u8>| if nal::kind(unit) == nal::SPS { sps.to_vec() } else { unit.clone() };
        units.iter().map(other).collect()
    };
    let sps = units.iter().find(|unit| nal::kind(unit) == nal::SPS).unwrap();
    let noise = Random(58).bytes(200_000);
    for (name, stream) in [
        ("empty", Vec::new()),
        ("noise", noise.iter().map(|byte| byte | 1).collect()),
        ("zeros", vec![0; 1 << 20]),
        ("start codes", [0, 0, 1].repeat(100_000)),
        ("no SPS", annexb(&without(nal::SPS))),
        ("no PPS", annexb(&without(nal::PPS))),
        ("no IDR picture", annexb(&without(nal::IDR))),
        ("an SPS of one byte", annexb(&with_sps(&[0x67]))),
        ("an SPS of ones", annexb(&with_sps(&[0x67, 0xff, 0xff, 0xff, 0xff, 0xff]))),
        ("an SPS of zeros", annexb(&with_sps(&[0x67, 66, 0, 30, 0, 0, 3, 0, 0, 3, 0, 0]))),
        ("a picture of nothing", annexb(&with_sps(&sps_of_nothing(sps)))),
        ("half an SPS", annexb(&with_sps(&sps[..sps.len() / 2]))),
    ] {
        let (played, stderr) = attempt("refused", &stream);
        assert!(!played, "{name} is played");
        assert_eq!(
            stderr.lines().filter(|line| line.starts_with("ocellus: ")).count(),
            1,
            "{name}: {stderr}"
        );
    }
    let stream = annexb(&units);
    let mut random = Random(580);
    let mut played = 0;
    for number in 0..DAMAGES {
        let mut damaged = stream.clone();
        match number % 3 {
            0 => damaged.truncate(random.below(stream.len())),
            1 => drop(damaged.drain(..random.below(stream.len()))),
            _ => (0..200).for_each(|_| {
                // Most often where parameter sets are.
                let end = if random.below(2) == 0 { 100 } else { stream.len() };
                damaged[random.below(end)] ^= 1 << random.below(8);
            }),
        }
        played += usize::from(attempt("damaged", &damaged).0);
    }
    eprintln!("{played} of {DAMAGES} damaged files are played");
}

/// An SPS like this one, whose cropping leaves nothing.
fn sps_of_nothing(sps: &[u8]) -> Vec<u8> {
    let parsed = nal::parse_sps(sps).unwrap();
    let (width, height) = parsed.pixel_dimensions().unwrap();
    let mut bits = Bits::default();
    bits.put(32, u32::from_be_bytes([0x67, 66, 0xc0, 30]));
    // seq_parameter_set_id, log2_max_frame_num_minus4, pic_order_cnt_type, max_num_ref_frames.
    [0, 0, 2, 1].into_iter().for_each(|value| bits.put_ue(value));
    bits.put(1, 0);
    bits.put_ue(width.div_ceil(16) - 1);
    bits.put_ue(height.div_ceil(16) - 1);
    // frame_mbs_only_flag, direct_8x8_inference_flag, frame_cropping_flag.
    bits.put(3, 0b111);
    [0, width / 2, 0, height / 2].into_iter().for_each(|value| bits.put_ue(value));
    // No VUI, and the stop bit.
    bits.put(2, 0b01);
    bits.bytes()
}

#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn put(&mut self, count: u32, value: u32) {
        self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
    }

    fn put_ue(&mut self, value: u32) {
        let len = (value + 1).ilog2();
        self.put(len, 0);
        self.put(len + 1, value + 1);
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(8), false);
        self.0
            .chunks(8)
            .map(|byte| byte.iter().fold(0, |sum, &bit| sum << 1 | u8::from(bit)))
            .collect()
    }
}

/// Lets the camera play a file for a moment: whether it does, and what it says.
fn attempt(name: &str, stream: &[u8]) -> (bool, String) {
    let file = path(name);
    fs::write(&file, stream).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocellus"));
    let source = format!("file:{}", file.display());
    command.args(["run", "--source", &source, "--rtsp", "127.0.0.1:0", "--http", "off"]);
    let run = process::run(command.env("OCELLUS_PASSWORD", "x"), Duration::from_millis(500));
    // By its own end, with a code: not by a signal.
    if let Some(status) = run.status {
        assert!(matches!(status.code(), Some(1 | 2)), "{status:?}: {}", run.stderr);
        assert!(run.stderr.contains(&file.display().to_string()), "{}", run.stderr);
    }
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    assert!(run.stderr.len() < 4_000, "{}", run.stderr);
    (run.status.is_none(), run.stderr)
}

/// Row 59: packets in which a NAL unit of the clip fits just not, exactly, and with a byte to spare.
#[test]
fn a_unit_at_the_limit_of_a_packet_is_never_a_fragment_of_one() {
    let lengths = units().iter().map(Vec::len).filter(|len| (300..1_400).contains(len)).min();
    let unit_len = lengths.expect("a unit that a packet can be made to fit");
    for packet_len in [unit_len + 11, unit_len + 12, unit_len + 13] {
        let file = path("packets.json");
        fs::write(&file, format!(r#"{{ "rtsp": {{ "packet_size": {packet_len} }} }}"#)).unwrap();
        let camera = stand::camera_beside(&["--config", file.to_str().unwrap()]);
        let expect = Expect { packet_len_max: packet_len, ..Expect::of_clip(clip().unwrap()) };
        let watchers = [Lower::Tcp, Lower::Udp].map(|lower| {
            let url = camera.url.clone();
            thread::spawn(move || {
                let mut client = watch(&url, lower);
                // All of the clip.
                client.listen(Duration::from_millis(3_500));
                assert_eq!(client.teardown().status(), 200);
                client
            })
        });
        for watcher in watchers {
            let client = watcher.join().unwrap();
            let (findings, summary) = validate(&client.capture, &expect);
            assert!(findings.violations.is_empty(), "{packet_len}:\n{}", findings.report());
            assert!(summary.access_units > 60, "{packet_len}: {summary:?}");
        }
        fs::remove_file(file).unwrap();
    }
}

/// Row 28: the port is open before the first picture is there.
#[test]
fn four_who_play_while_the_camera_starts_are_all_served() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocellus"));
    command.args(["run", "--source", "pattern", "--size", "320x240", "--http", "off"]);
    command.args(["--rtsp", &port.to_string(), "--user", "admin"]);
    command.env("OCELLUS_PASSWORD", credentials().password).stdin(Stdio::null());
    let viewers = [Lower::Tcp, Lower::Udp, Lower::Tcp, Lower::Udp];
    let watchers = viewers.map(|lower| thread::spawn(move || watch_from_the_start(port, lower)));
    let camera = Camera::spawn_beside(&mut command);
    for watcher in watchers {
        let client = watcher.join().unwrap();
        let (findings, summary) = validate(&client.capture, &Expect::pattern((320, 240)));
        assert!(findings.violations.is_empty(), "{}", findings.report());
        assert!(summary.access_units > 20, "{summary:?}");
    }
    drop(camera);
}

fn watch_from_the_start(port: SocketAddr, lower: Lower) -> Client {
    let began = Instant::now();
    while std::net::TcpStream::connect(port).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "nobody listens");
        thread::park_timeout(Duration::from_millis(1));
    }
    let mut client = watch(&format!("rtsp://{port}/main"), lower);
    client.listen(Duration::from_millis(1_500));
    assert_eq!(client.teardown().status(), 200);
    client
}

const DAMAGES: usize = 30;
