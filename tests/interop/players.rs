//! The programs that people have, each over each transport: {FFmpeg, GStreamer, retina} x {TCP, UDP}
//! x {pattern, file}, and each with a wrong password.
//!
//! A player counts only when it decoded, not when it connected. FFmpeg runs a second time for what
//! it would otherwise conceal with a warning.

use std::process::Command;
use std::time::Duration;

use crate::camera::{Camera, credentials};
use crate::client::Lower;
use crate::digest::Credentials;
use crate::process::{self, FFMPEG, Finished};
use crate::{clip, retina_client, tunnel};

pub(crate) const GSTREAMER: [(&str, &[&str]); 3] = [
    ("gst-launch-1.0", &["--version"]),
    ("gst-inspect-1.0", &["rtspsrc"]),
    ("gst-inspect-1.0", &["avdec_h264"]),
];

/// Pictures that every player has to decode.
pub(crate) const PICTURES: usize = 75;
/// 75 pictures take 2.5 s; the rest is for a loaded machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn players_decode_the_pattern_over_tcp_and_udp() {
    let camera = Camera::start(&["--source", "pattern", "--size", "640x360", "--fps", "30"]);
    play_all(&camera);
}

#[test]
fn players_decode_a_file_over_tcp_and_udp() {
    let Some(clip) = clip::clip() else { return };
    let camera = Camera::start(&["--source", &format!("file:{}", clip.path.display())]);
    play_all(&camera);
}

#[test]
fn players_decode_over_tcp_and_udp_of_ipv6() {
    let (mut camera, urls) = tunnel::both_families();
    if let [_, ipv6] = &urls[..] {
        camera.url.clone_from(ipv6);
        play_all(&camera);
    }
}

/// Small enough for an emulated processor: `scripts/check cross` runs the static binary here.
#[test]
fn a_small_picture_streams_on_any_processor() {
    if !process::have(&[FFMPEG]) {
        return;
    }
    let camera = Camera::start(&["--source", "pattern", "--size", "320x240", "--fps", "10"]);
    for lower in [Lower::Tcp, Lower::Udp] {
        ffmpeg_decodes(&camera.url, lower);
    }
    assert!(camera.stop().0.success());
}

pub(crate) fn play_all(camera: &Camera) {
    let url = camera.url.as_str();
    for lower in [Lower::Tcp, Lower::Udp] {
        if process::have(&[FFMPEG]) {
            ffmpeg_decodes(url, lower);
            ffmpeg_conceals_nothing(url, lower);
        }
        if process::have(&GSTREAMER) {
            gstreamer_decodes(camera, lower);
        }
        retina_client::decodes(url, lower, PICTURES);
    }
}

/// Puts credentials into an RTSP URL, as a user types them.
pub(crate) fn login(url: &str, credentials: &Credentials) -> String {
    let escape = |text: &str| -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let escaped = text.bytes().map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        });
        escaped.collect()
    };
    let Credentials { user, password } = credentials;
    url.replacen("rtsp://", &format!("rtsp://{}:{}@", escape(user), escape(password)), 1)
}

fn option(lower: Lower) -> &'static str {
    match lower {
        Lower::Tcp => "tcp",
        Lower::Udp => "udp",
    }
}

fn ffmpeg(url: &str, lower: Lower, level: &str, pictures: usize, output: &[&str]) -> Finished {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", level, "-xerror", "-err_detect", "explode"]);
    command.args(["-rtsp_transport", option(lower), "-timeout", "5000000", "-i", url]);
    command.args(["-map", "0:v:0", "-frames:v", &pictures.to_string()]).args(output);
    process::run(&mut command, LIMIT)
}

fn ffmpeg_decodes(url: &str, lower: Lower) {
    let url = login(url, &credentials());
    let run = ffmpeg(&url, lower, "error", PICTURES, &["-f", "framemd5", "-"]);
    let pictures = run.stdout.lines().filter(|line| !line.starts_with('#')).count();
    assert!(run.success() && pictures == PICTURES, "{lower:?} {pictures}: {run:?}");
    assert!(run.stderr.trim().is_empty(), "{lower:?}: {}", run.stderr);
}

fn ffmpeg_conceals_nothing(url: &str, lower: Lower) {
    let url = login(url, &credentials());
    let run = ffmpeg(&url, lower, "warning", PICTURES, &["-f", "null", "-"]);
    assert!(run.success(), "{lower:?}: {run:?}");
    for complaint in ["missed", "bad cseq", "concealing", "non-existing PPS", "Non-monotonous"] {
        assert!(!run.stderr.contains(complaint), "{lower:?}: {}", run.stderr);
    }
}

fn gstreamer(url: &str, lower: Lower, credentials: &Credentials) -> Finished {
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-v", "rtspsrc", &format!("location={url}")]);
    command.args([&format!("protocols={}", option(lower)), "latency=0"]);
    command.arg(format!("user-id={}", credentials.user));
    command.arg(format!("user-pw={}", credentials.password));
    command.args(["!", "rtph264depay", "!", "h264parse", "!", "avdec_h264"]);
    command.args(["!", "identity", "name=count", "silent=false"]);
    // It ends the stream at the buffer with this number, before it has reported that one.
    command.args([&format!("eos-after={}", PICTURES + 1), "!", "fakesink"]);
    process::run(&mut command, LIMIT)
}

fn gstreamer_decodes(camera: &Camera, lower: Lower) {
    let run = gstreamer(&camera.url, lower, &credentials());
    let pictures = run.stdout.lines().filter(|line| line.contains("count: last-message = chain"));
    let pictures = pictures.count();
    let tail: String = run.stdout.lines().rev().take(5).collect();
    let is_well = run.success() || cancelled_its_pause(&run, camera);
    if !run.success() {
        eprintln!("{lower:?}: GStreamer ended with {:?}: {}", run.status, run.stderr);
    }
    assert!(is_well, "{lower:?} {pictures}: {:?} {} {tail}", run.status, run.stderr);
    assert!(pictures >= PICTURES, "{lower:?}: {pictures} pictures, {}", run.stderr);
}

/// Whether GStreamer cancelled its own PAUSE after the end of the stream, in these words exactly.
///
/// GStreamer 1.22 leaves PLAYING with PAUSE on its own thread, and at once cancels that for TEARDOWN.
/// A send that was cancelled before its first byte is reported as the end of the file. On the wire:
/// the CSeq of PAUSE is missing, TEARDOWN with the next one is answered, and GStreamer closes first.
/// Hence the look into the camera's log: in such a run it got TEARDOWN for this viewer, the last that
/// played, which a connection that it had closed could not have carried. Not to offer PAUSE would be
/// the only way around it, and would keep everybody from pausing.
fn cancelled_its_pause(run: &Finished, camera: &Camera) -> bool {
    let origins: Vec<&str> =
        run.stderr.lines().filter(|line| line.contains("gstrtspsrc.c")).collect();
    let reasons = run.stderr.lines().filter(|line| line.starts_with("Could not"));
    let mut errors = run.stderr.lines().filter(|line| line.starts_with("ERROR"));
    let is_torn_down = |log: &str| {
        let Some((_, since)) = log.rsplit_once("rtsp: playing session=") else { return false };
        let id = since.split(' ').next().unwrap_or(since);
        let ended = format!("rtsp: session ended session={id} ");
        since.lines().any(|line| line.contains(&ended) && line.ends_with("why=\"torn down\""))
    };
    camera.comes_to_say(is_torn_down)
        && run.stdout.contains("Got EOS from element")
        && errors.all(|line| line.ends_with("rtspsrc0: Could not write to resource."))
        && matches!(origins[..], [send, pause]
            if send.contains("gst_rtspsrc_try_send ()") && pause.contains("gst_rtspsrc_pause ()"))
        && reasons.eq(["Could not send message. (Received end-of-file)"; 2])
}

#[test]
fn every_player_is_let_in_with_the_password_and_only_with_it() {
    let wrong = Credentials { password: "not-this-one".into(), ..credentials() };
    let camera = Camera::start(&["--source", "pattern", "--size", "320x240", "--fps", "30"]);
    let url = camera.url.as_str();
    if process::have(&[FFMPEG]) {
        let run = ffmpeg(&login(url, &wrong), Lower::Tcp, "error", 1, &["-f", "null", "-"]);
        assert!(!run.success() && run.stderr.contains("401"), "{run:?}");
        let run = ffmpeg(url, Lower::Tcp, "error", 1, &["-f", "null", "-"]);
        assert!(!run.success() && run.stderr.contains("401"), "{run:?}");
        ffmpeg_decodes(url, Lower::Tcp);
    }
    if process::have(&GSTREAMER) {
        let run = gstreamer(url, Lower::Tcp, &wrong);
        assert!(run.status.is_some() && !run.success(), "{run:?}");
        assert!(run.stderr.contains("Unauthorized"), "{}", run.stderr);
        gstreamer_decodes(&camera, Lower::Tcp);
    }
    let refused = retina_client::play(url, Lower::Tcp, &wrong, 1).map(|seen| seen.pictures);
    assert!(refused.as_ref().is_err_and(|error| error.contains("401")), "{refused:?}");
    retina_client::decodes(url, Lower::Tcp, PICTURES);
}

#[test]
fn a_password_of_reserved_characters_and_umlauts_gets_every_player_in() {
    let hard = Credentials { user: "admin".into(), password: "p@ss:/%#ä?&\\ß".into() };
    let size = ["--source", "pattern", "--size", "320x240", "--fps", "30"];
    let camera = Camera::start_with(&hard, &size);
    if process::have(&[FFMPEG]) {
        let url = login(&camera.url, &hard);
        let run = ffmpeg(&url, Lower::Tcp, "error", 5, &["-f", "framemd5", "-"]);
        assert!(run.success(), "{run:?}");
    }
    retina_client::play(&camera.url, Lower::Tcp, &hard, 5).unwrap();
}
