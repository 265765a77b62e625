//! RTSP through HTTP as FFmpeg and GStreamer open it, over both families, with a password.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::camera::{Camera, credentials};
use crate::players::{GSTREAMER, LIMIT, PICTURES, login};
use crate::process::{self, FFMPEG};

pub(crate) const SOURCE: [&str; 6] = ["--source", "pattern", "--size", "640x360", "--fps", "30"];

/// A camera that listens on both families, and its URLs.
pub(crate) fn both_families() -> (Camera, Vec<String>) {
    let mut arguments = SOURCE.to_vec();
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    if has_ipv6 {
        arguments.extend(["--rtsp", "[::1]:0"]);
    }
    let camera = Camera::start(&arguments);
    let urls = urls(&camera);
    assert_eq!(urls.len(), 1 + usize::from(has_ipv6), "{}", camera.log());
    (camera, urls)
}

/// The URLs by all addresses that the camera listens on.
pub(crate) fn urls(camera: &Camera) -> Vec<String> {
    let log = camera.log();
    let listening = log.split("listening rtsp=[").nth(1).unwrap().lines().next().unwrap();
    let addresses = listening.strip_suffix(']').unwrap().split(", ");
    addresses.map(|address| format!("rtsp://{address}/main")).collect()
}

#[test]
fn ffmpeg_and_gstreamer_decode_through_http_over_both_families() {
    let (camera, urls) = both_families();
    for url in &urls {
        if process::have(&[FFMPEG]) {
            let mut command = Command::new("ffmpeg");
            command.args(["-nostdin", "-v", "error", "-xerror", "-err_detect", "explode"]);
            command.args(["-rtsp_transport", "http", "-i", &login(url, &credentials())]);
            command.args(["-map", "0:v:0", "-frames:v", &PICTURES.to_string()]);
            let run = process::run(command.args(["-f", "framemd5", "-"]), LIMIT);
            let pictures = run.stdout.lines().filter(|line| !line.starts_with('#')).count();
            assert!(run.success() && pictures == PICTURES, "{url} {pictures}: {run:?}");
            assert!(run.stderr.trim().is_empty(), "{url}: {}", run.stderr);
        }
        if process::have(&GSTREAMER) {
            gstreamer_decodes(&url.replacen("rtsp:", "rtsph:", 1), &[]);
        }
    }
    assert_eq!(camera.log().matches("rtsp: playing").count(), 2 * urls.len());
}

/// Decodes what is at `url`, with more properties for the source.
pub(crate) fn gstreamer_decodes(url: &str, more: &[&str]) {
    let account = credentials();
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-v", "rtspsrc", &format!("location={url}"), "latency=0"]).args(more);
    command.arg(format!("user-id={}", account.user));
    command.arg(format!("user-pw={}", account.password));
    command.args(["!", "rtph264depay", "!", "h264parse", "!", "avdec_h264"]);
    command.args(["!", "identity", "name=count", "silent=false"]);
    command.args([&format!("eos-after={}", PICTURES + 1), "!", "fakesink"]);
    let run = process::run(&mut command, LIMIT);
    let pictures = run.stdout.lines().filter(|line| line.contains("count: last-message = chain"));
    assert!(pictures.count() >= PICTURES, "{url}: {:?} {}", run.status, run.stderr);
}

#[test]
fn a_stranger_on_the_rtsp_port_who_speaks_http_is_told_so_and_sent_away() {
    let camera = Camera::start(&SOURCE);
    let address = camera.url.split('/').nth(2).unwrap();
    let address: SocketAddr = address.rsplit('@').next().unwrap().parse().unwrap();
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: camera\r\n\r\n", "404"),
        ("POST /main HTTP/1.0\r\nx-sessioncookie: nobody\r\n\r\n", "404"),
        ("DELETE /main HTTP/1.0\r\nx-sessioncookie: nobody\r\n\r\n", "405"),
    ] {
        let mut stream = connect(address);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.0 {status} ")), "{answer}");
    }
    let mut out = connect(address);
    out.write_all(b"GET / HTTP/1.0\r\nx-sessioncookie: c\r\n\r\n").unwrap();
    let mut answer = [0; 15];
    out.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.0 200 OK");
    let mut way_in = connect(address);
    let options = STANDARD.encode("OPTIONS * RTSP/1.0\r\nCSeq: 7\r\n\r\n");
    write!(way_in, "POST / HTTP/1.0\r\nx-sessioncookie: c\r\n\r\n{options}").unwrap();
    let mut answers = Vec::new();
    while !answers.ends_with(b"SET_PARAMETER\r\n\r\n") {
        let mut byte = [0];
        out.read_exact(&mut byte).unwrap();
        answers.push(byte[0]);
    }
    // With the way out, the way in ends.
    drop(out);
    assert_eq!(way_in.read(&mut [0]).unwrap(), 0);
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}
