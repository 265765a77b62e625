//! The video pipeline as its owner and viewers see it: two streams, what is drawn on pictures, what
//! changes while somebody watches, and what is shown when there is no signal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::camera::{Camera, credentials};
use crate::client::Lower;
use crate::nal::{self, parse_sps, split_annexb};
use crate::process::{self, FFMPEG};
use crate::retina_client::{self, Seen};
use crate::sandboxed::Folder;
use crate::web::{CURL, address, curl, metrics, metrics_when};
use crate::{clip, validate};

/// A configuration with a stream of 320x240 at 30 fps, what else `camera` says, and perhaps a sub
/// stream.
fn config(folder: &Folder, camera: &str, main: &str, sub: &str) -> PathBuf {
    let text = format!(
        r#"{{ "name": "back door", "camera": {{ {camera} "source": "pattern" }},
             "streams": [ {{ "name": "main", "width": 320, "height": 240, "fps": 30,
                             "bitrate_kbps": 1000 {main} }} {sub} ] }}"#
    );
    let path = folder.0.join("ocellus.json");
    fs::write(&path, text).unwrap();
    path
}

const SUB: &str = r#", { "name": "sub", "width": 160, "height": 120, "fps": 10,
                         "bitrate_kbps": 150 }"#;

fn start(config: &Path) -> Camera {
    Camera::start(&["--config", config.to_str().unwrap(), "--http", "127.0.0.1:0"])
}

fn sub_url(camera: &Camera) -> String {
    camera.url.replace("/main", "/sub")
}

fn watch(url: &str, pictures: usize) -> Seen {
    let seen = retina_client::play(url, Lower::Tcp, &credentials(), pictures).unwrap();
    assert_eq!(validate::decode(&seen.stream), Ok(pictures));
    seen
}

/// The sizes that the parameter sets of a stream name, one after the other.
fn sizes(seen: &Seen) -> Vec<(u32, u32)> {
    let sps = split_annexb(&seen.stream).into_iter().filter(|nal| nal::kind(nal) == nal::SPS);
    let mut sizes: Vec<_> =
        sps.map(|sps| parse_sps(sps).unwrap().pixel_dimensions().unwrap()).collect();
    sizes.dedup();
    sizes
}

/// The last picture of `count`, as luma.
fn luma(camera: &Camera, count: usize, (width, height): (usize, usize)) -> Vec<u8> {
    let seen = watch(&camera.url, count);
    let folder = Folder::new("luma");
    let (stream, raw) = (folder.0.join("seen.h264"), folder.0.join("seen.gray"));
    fs::write(&stream, &seen.stream).unwrap();
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "h264", "-i", stream.to_str().unwrap()]);
    ffmpeg.args(["-f", "rawvideo", "-pix_fmt", "gray", raw.to_str().unwrap()]);
    assert!(process::run(&mut ffmpeg, Duration::from_secs(20)).success());
    let pictures = fs::read(&raw).unwrap();
    pictures[pictures.len() - width * height..].to_vec()
}

fn patch(camera: &Camera, stream: &str, json: &str) -> (u16, String) {
    let url = format!("http://{}/api/streams/{stream}", address(camera));
    let more = ["--request", "PATCH", "--header", "Content-Type: application/json", "--data", json];
    curl(&url, Some(&credentials()), &more)
}

#[test]
fn main_and_sub_play_at_once_each_at_its_size_and_the_sub_stream_for_viewers_only() {
    if !process::have(&[FFMPEG, CURL]) {
        return;
    }
    let folder = Folder::new("sub");
    let camera = start(&config(&folder, "", "", SUB));
    let made = |camera: &Camera, stream| {
        let labels = [("stream", stream)];
        metrics(camera).value("ocellus_pictures_encoded_total", &labels).unwrap()
    };
    metrics_when(&camera, |metrics| {
        metrics.value("ocellus_pictures_encoded_total", &[("stream", "main")]).unwrap() > 30.0
    });
    assert!((made(&camera, "sub") - 1.0).abs() < 0.1, "one, for its parameter sets");
    let (main, sub) = thread::scope(|scope| {
        let main = scope.spawn(|| watch(&camera.url, 60));
        let sub = scope.spawn(|| watch(&sub_url(&camera), 20));
        (main.join().unwrap(), sub.join().unwrap())
    });
    assert_eq!((sizes(&main), sizes(&sub)), (vec![(320, 240)], vec![(160, 120)]));
    let ended = metrics_when(&camera, |metrics| metrics.value("ocellus_viewers", &[]) == Some(0.0));
    let before = ended.value("ocellus_pictures_encoded_total", &[("stream", "sub")]).unwrap();
    metrics_when(&camera, |metrics| {
        let label = [("stream", "main")];
        let value = |metrics: &crate::openmetrics::Metrics| {
            metrics.value("ocellus_pictures_encoded_total", &label).unwrap()
        };
        value(metrics) > value(&ended) + 30.0
    });
    assert!(made(&camera, "sub") <= before + 1.0, "nobody watches any more");
    // Ready once for each.
    let (status, _, rest) = camera.stop();
    assert!(status.success());
    assert_eq!(rest.iter().filter(|line| line.ends_with("/sub")).count(), 1, "{rest:?}");
}

#[test]
fn rate_bitrate_gop_and_size_change_while_somebody_watches() {
    if !process::have(&[FFMPEG, CURL]) {
        return;
    }
    let folder = Folder::new("change");
    let camera = start(&config(&folder, "", "", ""));
    let seen = thread::scope(|scope| {
        let viewer = scope.spawn(|| watch(&camera.url, 150));
        metrics_when(&camera, |metrics| metrics.value("ocellus_viewers", &[]) == Some(1.0));
        let (status, body) = patch(&camera, "main", r#"{ "bitrate_kbps": 300, "gop_s": 0.5 }"#);
        assert_eq!(status, 200, "{body}");
        assert!(body.contains(r#""applied": "live""#), "{body}");
        let (status, body) = patch(&camera, "main", r#"{ "width": 256, "height": 192 }"#);
        assert_eq!(status, 200, "{body}");
        let (status, body) = patch(&camera, "main", r#"{ "fps": 20 }"#);
        assert_eq!(status, 200, "{body}");
        viewer.join().unwrap()
    });
    assert_eq!(sizes(&seen), [(320, 240), (256, 192)], "one session");
    let idrs = seen.random_access_points;
    assert!(idrs >= 10, "{idrs} in 150 pictures at half a second each");
    let (status, body) =
        curl(&format!("http://{}/api/streams", address(&camera)), Some(&credentials()), &[]);
    assert_eq!(status, 200);
    for wanted in [r#""bitrate_kbps": 300"#, r#""width": 256"#, r#""fps": 20"#] {
        assert!(body.contains(wanted), "{body}");
    }
    for (stream, json, status, why) in [
        ("main", r#"{ "bitrate_kbps": 5 }"#, 400, "16 to 50000"),
        ("main", r#"{ "bitrate": 500 }"#, 400, "bitrate_kbps"),
        ("main", "[]", 400, "object"),
        ("sub", r#"{ "fps": 5 }"#, 404, ""),
    ] {
        let answer = patch(&camera, stream, json);
        assert!(answer.0 == status && answer.1.contains(why), "{json}: {answer:?}");
    }
}

#[test]
fn a_configuration_that_has_changed_is_read_again_on_sighup() {
    if !process::have(&[FFMPEG]) {
        return;
    }
    let folder = Folder::new("sighup");
    let path = config(&folder, "", "", "");
    let flags = ["--http", "127.0.0.1:0", "--fps", "15"];
    let camera = Camera::start(&[&["--config", path.to_str().unwrap()], &flags[..]].concat());
    let hang_up = || kill(Pid::from_raw(i32::try_from(camera.pid()).unwrap()), Signal::SIGHUP);
    fs::write(&path, r#"{ "streams": [ { "name": "main", "bitrate_kbps": 1 } ] }"#).unwrap();
    hang_up().unwrap();
    assert!(camera.comes_to_say(|log| log.contains("the configuration stays as it is")));
    config(&folder, r#""mirror": true,"#, r#", "gop_s": 0.5"#, "");
    hang_up().unwrap();
    assert!(camera.comes_to_say(|log| log.contains("changed camera.mirror")));
    assert!(camera.comes_to_say(|log| log.contains("changed streams[0].gop_s")));
    // What the command line says still wins, and nobody was locked out.
    let log = camera.log();
    assert!(!log.contains("changed streams[0].fps") && !log.contains("next start"), "{log}");
    // The pictures are still there.
    let seen = watch(&camera.url, 60);
    assert!(seen.random_access_points >= 3, "{}", seen.random_access_points);
}

#[test]
fn masks_hide_text_shows_and_motion_is_told() {
    if !process::have(&[FFMPEG, CURL]) {
        return;
    }
    let folder = Folder::new("drawn");
    let camera = start(&config(
        &folder,
        r#""masks": [ { "x": 25, "y": 25, "width": 50, "height": 50 } ],
           "overlay": { "time": true, "name": true },
           "motion": { "enabled": true },"#,
        "",
        "",
    ));
    let luma = luma(&camera, 40, (320, 240));
    let spread = |xs: std::ops::Range<usize>, ys: std::ops::Range<usize>| {
        let samples = ys.flat_map(|y| luma[y * 320..][xs.clone()].iter().copied());
        let (min, max) = samples.fold((255, 0), |(min, max), it| (it.min(min), it.max(max)));
        max - min
    };
    assert!(spread(84..236, 64..176) < 8, "behind the mask is nothing to be seen");
    // Light letters on dark, in two corners.
    assert!(spread(0..120, 0..16) > 80 && spread(0..80, 224..240) > 80);
    let moved = metrics_when(&camera, |metrics| {
        metrics.value("ocellus_motion_events_total", &[("zone", "all")]).is_some_and(|it| it > 0.0)
    });
    assert_eq!(moved.value("ocellus_motion", &[("zone", "all")]), Some(1.0));
    assert!(camera.comes_to_say(|log| log.contains("motion: begins zone=all")));
}

#[test]
fn a_snapshot_is_the_newest_picture_for_those_who_may_watch() {
    if !process::have(&[FFMPEG, CURL]) {
        return;
    }
    let Some(clip) = clip::clip() else { return };
    let folder = Folder::new("snapshot");
    let source = format!("file:{}", clip.path.display());
    for (arguments, size) in [
        (vec!["--source", "pattern", "--size", "320x240"], (320, 240)),
        (vec!["--source", &source], clip.size),
    ] {
        let camera = Camera::start(&[&arguments[..], &["--http", "127.0.0.1:0"]].concat());
        let url = format!("http://{}/snapshot.jpg", address(&camera));
        let jpeg = folder.0.join("snapshot.jpg");
        let save = ["--output", jpeg.to_str().unwrap()];
        assert_eq!(curl(&url, None, &save).0, 401);
        assert_eq!(curl(&url, Some(&credentials()), &save).0, 200);
        let mut probe = Command::new("ffprobe");
        probe.args(["-v", "error", "-show_entries", "stream=codec_name,width,height"]);
        probe.args(["-of", "csv=p=0", jpeg.to_str().unwrap()]);
        let said = process::run(&mut probe, Duration::from_secs(20));
        assert_eq!(said.stdout.trim(), format!("mjpeg,{},{}", size.0, size.1), "{said:?}");
    }
}

#[test]
fn every_access_unit_says_when_it_was_captured_if_asked_to() {
    if !process::have(&[FFMPEG]) {
        return;
    }
    let folder = Folder::new("utc");
    let camera = start(&config(&folder, "", r#", "utc_sei": true"#, ""));
    let seen = watch(&camera.url, 30);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
    let times: Vec<u128> = split_annexb(&seen.stream)
        .into_iter()
        .filter(|nal| nal::kind(nal) == nal::SEI)
        .map(|nal| utc_of(nal).unwrap())
        .collect();
    assert_eq!(times.len(), 30);
    assert!(times.iter().all(|&it| it <= now && now - it < 10_000_000), "{times:?}");
    let steps: Vec<u128> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The pattern is captured every 33,333 µs; the two clocks are read one after the other.
    assert!(steps.iter().all(|step| (30_000..37_000).contains(step)), "{steps:?}");
}

/// Reads the time out of an SEI NAL unit as MISB ST 0604 describes it.
fn utc_of(nal: &[u8]) -> Option<u128> {
    let rbsp = h264_reader::rbsp::decode_nal(nal).ok()?;
    let payload = rbsp.strip_prefix(&[5, 28])?.strip_prefix(b"MISPmicrosectime")?;
    let time = [1, 2, 4, 5, 7, 8, 10, 11].map(|at| payload[at]);
    assert_eq!([3, 6, 9].map(|at| payload[at]), [0xff; 3]);
    Some(u64::from_be_bytes(time).into())
}

#[test]
fn a_file_that_is_emptied_shows_no_signal_until_it_is_back() {
    if !process::have(&[FFMPEG, CURL]) {
        return;
    }
    let Some(clip) = clip::clip() else { return };
    let folder = Folder::new("emptied");
    let path = folder.0.join("clip.h264");
    let bytes = fs::read(&clip.path).unwrap();
    fs::write(&path, &bytes).unwrap();
    let source = format!("file:{}", path.display());
    let camera = Camera::start(&["--source", &source, "--http", "127.0.0.1:0"]);
    let is_live = |camera: &Camera, live: f64| {
        metrics_when(camera, |metrics| {
            let value = metrics.value("ocellus_source_live", &[]);
            value.is_some_and(|value| (value - live).abs() < 0.1)
        })
    };
    is_live(&camera, 1.0);
    // In place, so that the camera's descriptor sees it.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    is_live(&camera, 0.0);
    let seen = retina_client::play(&camera.url, Lower::Tcp, &credentials(), 3).unwrap();
    assert_eq!(sizes(&seen), [clip.size], "NO SIGNAL has the stream's own size");
    assert_eq!(seen.random_access_points, 3);
    fs::write(&path, &bytes).unwrap();
    is_live(&camera, 1.0);
    let seen = watch(&camera.url, 60);
    assert_eq!(sizes(&seen), [clip.size]);
}
