//! The HTTP port as others use it: curl, Prometheus, players that tunnel, and those who mean harm.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::camera::{Camera, credentials};
use crate::client::{Client, Lower};
use crate::digest::{Challenge, Credentials};
use crate::openmetrics::Metrics;
use crate::players::{GSTREAMER, PICTURES, login};
use crate::process::{self, FFMPEG};
use crate::sandboxed::Folder;
use crate::tunnel::gstreamer_decodes;
use crate::validate::{Expect, validate};
use crate::{relay, retina_client};

pub(crate) const CURL: (&str, &[&str]) = ("curl", &["--version"]);
const SOURCE: [&str; 8] =
    ["--source", "pattern", "--size", "320x240", "--fps", "30", "--http", "127.0.0.1:0"];

/// Where a camera listens for HTTP, by its log.
pub(crate) fn address(camera: &Camera) -> SocketAddr {
    // The log may come later than the URL.
    let line = |log: &str| {
        let (_, after) = log.split_once("control: listening http=[")?;
        after.split_once('\n').map(|(line, _)| line.to_owned())
    };
    assert!(camera.comes_to_say(|log| line(log).is_some()));
    let after = line(&camera.log()).unwrap();
    after.trim_end_matches(']').parse().unwrap()
}

/// What curl gets: the status, and the body.
pub(crate) fn curl(url: &str, account: Option<&Credentials>, more: &[&str]) -> (u16, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "20", "--write-out", "\n%{http_code}"]).args(more);
    if let Some(Credentials { user, password }) = account {
        command.args(["--digest", "--user", &format!("{user}:{password}")]);
    }
    let run = process::run(command.arg(url), Duration::from_secs(25));
    assert!(run.success(), "{url}: {run:?}");
    let (body, status) = run.stdout.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// The camera is well, and says how much memory it has: it may still read what it opened.
pub(crate) fn is_well(camera: &Camera) {
    if process::have(&[CURL]) {
        let health = curl(&format!("http://{}/healthz", address(camera)), None, &[]);
        assert_eq!(health, (200, "ok\n".to_owned()));
        assert!(metrics(camera).value("process_resident_memory_bytes", &[]).unwrap() > 1e6);
    }
}

pub(crate) fn metrics(camera: &Camera) -> Metrics {
    let url = format!("http://{}/metrics", address(camera));
    let (status, body) = curl(&url, Some(&credentials()), &[]);
    assert_eq!(status, 200, "{body}");
    Metrics::parse(&body)
}

/// Asks for the metrics until they are as `wanted`.
pub(crate) fn metrics_when(camera: &Camera, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
    let asked = Instant::now();
    loop {
        let metrics = metrics(camera);
        if wanted(&metrics) {
            return metrics;
        }
        assert!(asked.elapsed() < Duration::from_secs(5), "{metrics:#?}");
    }
}

#[test]
fn the_metrics_are_open_metrics_and_follow_a_viewer_who_comes_and_goes() {
    if !process::have(&[CURL]) {
        return;
    }
    let camera = Camera::start(&SOURCE);
    let before = metrics(&camera);
    assert_eq!(before.value("ocellus_viewers", &[]), Some(0.0));
    assert!(before.value("process_resident_memory_bytes", &[]).unwrap() > 1e6);
    for lower in [Lower::Udp, Lower::Tcp] {
        let mut client = Client::connect(&camera.url, &credentials());
        assert_eq!(client.describe().status(), 200);
        assert_eq!(client.setup(lower).status(), 200);
        assert_eq!(client.play().status(), 200);
        client.listen(Duration::from_millis(2_500));
        let transport = if lower == Lower::Udp { "udp" } else { "tcp" };
        let labels = [("stream", "main"), ("transport", transport)];
        let during = metrics_when(&camera, |metrics| {
            metrics.value("ocellus_viewer_packets_total", &labels).is_some_and(|sent| sent > 30.0)
        });
        assert_eq!(during.value("ocellus_viewers", &[]), Some(1.0));
        assert!(during.value("ocellus_viewer_payload_bytes_total", &labels).unwrap() > 10_000.0);
        assert_eq!(during.value("ocellus_viewer_dropped_total", &labels), Some(0.0));
        assert!(during.value("ocellus_viewer_queue_age_seconds", &labels).unwrap() < 1.0);
        assert!(during.value("ocellus_capture_to_socket_seconds_count", &[]).unwrap() > 30.0);
        assert!(during.value("ocellus_picture_age_seconds", &[]).unwrap() < 5.0);
        for ((name, labels), &value) in &before.samples {
            let is_counted = before.types.iter().any(|(family, kind)| {
                name.starts_with(family.as_str()) && kind != "gauge" && name.ends_with("_total")
            });
            let after = during.samples[&(name.clone(), labels.clone())];
            assert!(!is_counted || after >= value, "{name} went from {value} to {after}");
        }
        assert_eq!(client.teardown().status(), 200);
        let is_gone = |metrics: &Metrics| metrics.value("ocellus_viewers", &[]) == Some(0.0);
        let after = metrics_when(&camera, is_gone);
        assert_eq!(after.value("ocellus_viewer_packets_total", &labels), None);
    }
    let ended = [("reason", "torn down")];
    assert_eq!(metrics(&camera).value("ocellus_sessions_ended_total", &ended), Some(2.0));
}

/// A camera with a guest beside the admin, and the guest.
fn camera_with_guest(folder: &Folder) -> (Camera, Credentials) {
    let file = folder.0.join("ocellus.json");
    let guest = Credentials { user: "guest".into(), password: "look-here-7".into() };
    let text =
        r#"{ "users": [ { "name": "guest", "role": "viewer", "password": "look-here-7" } ] }"#;
    fs::write(&file, text).unwrap();
    (Camera::start(&[&SOURCE[..], &["--config", file.to_str().unwrap()]].concat()), guest)
}

#[test]
fn everybody_sees_health_accounts_see_metrics_and_the_admin_the_log() {
    if !process::have(&[CURL]) {
        return;
    }
    let folder = Folder::new("web");
    let (camera, guest) = camera_with_guest(&folder);
    let admin = credentials();
    let wrong = Credentials { password: "a-guess".into(), ..admin.clone() };
    let url = |path: &str| format!("http://{}{path}", address(&camera));
    for (path, account, more, status) in [
        ("/", None, &[][..], 200),
        ("/healthz", None, &[], 200),
        ("/healthz?x=1", None, &["--http1.0"], 200),
        ("/healthz", None, &["--head"], 200),
        ("/healthz", None, &["--data", "x"], 405),
        ("/metrics", None, &[], 401),
        ("/metrics", Some(&wrong), &[], 401),
        ("/metrics", Some(&guest), &[], 200),
        ("/metrics?x=1", Some(&guest), &[], 200),
        ("/metrics", Some(&admin), &[], 200),
        ("/log", None, &[], 401),
        ("/log", Some(&wrong), &[], 401),
        ("/log", Some(&guest), &[], 403),
        ("/log", Some(&admin), &[], 200),
        ("/snapshot.jpg", None, &[], 401),
        ("/snapshot.jpg", Some(&wrong), &[], 401),
        ("/main", None, &[], 404),
        ("/../../etc/passwd", None, &["--path-as-is"], 404),
        ("/metrics", None, &["--basic", "--user", "guest:look-here-7"], 401),
    ] {
        assert_eq!(curl(&url(path), account, more).0, status, "{path} {account:?} {more:?}");
    }
    assert_eq!(curl(&url("/healthz"), None, &[]).1, "ok\n");
    let (_, log) = curl(&url("/log"), Some(&admin), &[]);
    assert!(log.contains("serve: listening rtsp="), "{log}");
    for account in [&admin, &guest] {
        assert!(!log.contains(&account.password));
    }
}

#[test]
fn accounts_see_the_streams_and_the_admin_alone_may_change_them() {
    if !process::have(&[CURL]) {
        return;
    }
    let folder = Folder::new("streams");
    let (camera, guest) = camera_with_guest(&folder);
    let admin = credentials();
    let url = |path: &str| format!("http://{}/api/streams{path}", address(&camera));
    assert_eq!(curl(&url(""), None, &[]).0, 401);
    for account in [&guest, &admin] {
        let (status, streams) = curl(&url(""), Some(account), &[]);
        assert_eq!(status, 200);
        for key in [r#""name": "main""#, r#""fps": 30"#, r#""width": 320"#] {
            assert!(streams.contains(key), "{streams}");
        }
    }
    let json = ["--request", "PATCH", "--header", "Content-Type: application/json"];
    let plain = ["--request", "PATCH"];
    let wrong = "fps: 61 is not allowed; allowed is a whole number from 1 to 60\n";
    for (path, account, more, body, answer) in [
        ("/main", None, &json[..], "{}", (401, "name and password, please\n")),
        ("/main", Some(&guest), &json, "{}", (403, "for the admin only\n")),
        ("/main", Some(&admin), &plain, "{}", (415, "Content-Type: application/json, please\n")),
        ("/third", Some(&admin), &json, "{}", (404, "no such stream\n")),
        ("/main", Some(&admin), &json, "{ \"fps\": 61 }", (400, wrong)),
    ] {
        let asked = curl(&url(path), account, &[more, &["--data", body]].concat());
        assert_eq!(asked, (answer.0, answer.1.to_owned()), "{path} {account:?}");
    }
}

/// One request on a connection of its own: the answer, and how long it took.
fn ask(address: SocketAddr, path: &str, authorization: &str) -> (String, Duration) {
    let asked = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: camera\r\nConnection: close\r\n");
    write!(stream, "{head}{authorization}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer, asked.elapsed())
}

/// Takes a challenge, and answers it.
fn log_in(address: SocketAddr, account: &Credentials) -> (String, Duration) {
    let (challenged, _) = ask(address, "/metrics", "");
    let challenge = challenged.lines().find_map(|line| line.strip_prefix("www-authenticate: "));
    let challenge = Challenge::parse(challenge.unwrap()).unwrap();
    let answer = challenge.answer(account, "GET", "/metrics");
    ask(address, "/metrics", &format!("Authorization: {answer}\r\n"))
}

#[test]
fn guesses_are_answered_late_after_ten_and_the_right_password_never() {
    let camera = Camera::start(&SOURCE);
    let address = address(&camera);
    let wrong = Credentials { password: "a-guess".into(), ..credentials() };
    for number in 0..10 {
        let (answer, took) = log_in(address, &wrong);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(took < Duration::from_secs(4), "{number}: {took:?}");
    }
    thread::scope(|scope| {
        let guesses: Vec<_> = (0..3).map(|_| scope.spawn(|| log_in(address, &wrong))).collect();
        let (answer, took) = log_in(address, &credentials());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(took < Duration::from_secs(4), "{took:?}");
        for guess in guesses {
            let (answer, took) = guess.join().unwrap();
            assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
            assert!(took >= Duration::from_secs(5), "{took:?}");
        }
    });
    let (answer, _) = ask(address, "/healthz", "");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let twice = "Authorization: Digest a=b\r\nAuthorization: Digest a=b\r\n";
    for malformed in ["Authorization: Digest username\r\n", twice] {
        let (answer, _) = ask(address, "/metrics", malformed);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

/// Sends `bytes`, and reads until the camera closes: what it said, and how long that took.
fn provoke(address: SocketAddr, bytes: &[u8]) -> (String, Duration) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // It may have closed in the middle.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("still open: {answer:?}"),
        _ => (String::from_utf8_lossy(&answer).into_owned(), began.elapsed()),
    }
}

/// Sends a head one byte at a time, until the camera has had enough.
fn drip(address: SocketAddr) -> Duration {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    loop {
        let written = stream.write_all(b"A");
        match stream.read(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && written.is_ok() => {}
            _ => return began.elapsed(),
        }
        assert!(began.elapsed() < Duration::from_secs(30), "it is still let talk");
    }
}

fn hostile(address: SocketAddr) {
    let get = "GET /healthz HTTP/1.1\r\nHost: camera\r\n";
    let long = format!("{get}x: {}\r\n\r\n", "y".repeat(20_000));
    let many = format!("{get}{}\r\n", "x: y\r\n".repeat(100));
    let body = "POST /healthz HTTP/1.1\r\nHost: c\r\nContent-Length: 999999999\r\n\r\n";
    let wrapped = body.replace("999999999", "18446744073709551617");
    let negative = body.replace("999999999", "-1");
    let smuggled = body.replace("Host: c", "Content-Length: 5");
    let close = "Connection: close\r\n";
    for (bytes, status) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], "HTTP/1.1 400 "),
        (&[0; 5_000], "HTTP/1.1 400 "),
        (b"OPTIONS rtsp://camera/main RTSP/1.0\r\nCSeq: 1\r\n\r\n", "HTTP/1.1 400 "),
        (b"GET /healthz HTTP/9.9\r\n\r\n", "HTTP/1.1 400 "),
        (long.as_bytes(), "HTTP/1.1 431 "),
        (many.as_bytes(), "HTTP/1.1 431 "),
        (body.replace("\r\n\r\n", &format!("\r\n{close}\r\n")).as_bytes(), "HTTP/1.1 405 "),
        (wrapped.as_bytes(), "HTTP/1.1 400 "),
        (negative.as_bytes(), "HTTP/1.1 400 "),
        (smuggled.as_bytes(), "HTTP/1.1 400 "),
        (format!("{get}Authorization: \0\r\n\r\n").as_bytes(), "HTTP/1.1 400 "),
    ] {
        let (answer, _) = provoke(address, bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
        // What is not read any more may reset the connection before the answer is.
        let is_lost = answer.is_empty() && bytes.len() > 4_096;
        assert!(answer.starts_with(status) || is_lost, "{shown}: {answer}");
    }
    let (answer, took) = provoke(address, b"GET / HTTP/1.1\r\nHost: ");
    assert!(answer.is_empty() && took > Duration::from_secs(8), "{took:?} {answer}");
    let kept_open = provoke(address, format!("{get}\r\n").as_bytes());
    assert!(kept_open.0.starts_with("HTTP/1.1 200 "), "{kept_open:?}");
    assert!(kept_open.1 < Duration::from_secs(15), "{kept_open:?}");
}

/// Takes all connections that one address may have, and finds that there are no more.
fn hoard(address: SocketAddr) {
    let held: Vec<TcpStream> = (0..30).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut refused = 0;
    for mut stream in held.iter() {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        refused += usize::from(!matches!(stream.read(&mut [0]),
            Err(error) if error.kind() == ErrorKind::WouldBlock));
    }
    assert!((22..30).contains(&refused), "{refused} of 30 were refused");
}

#[test]
fn who_means_harm_to_http_is_sent_away_in_time_and_a_viewer_loses_nothing() {
    let camera = Camera::start(&SOURCE);
    let address = address(&camera);
    let watched = thread::scope(|scope| {
        let viewer = scope.spawn(|| {
            let mut client = Client::connect(&camera.url, &credentials());
            assert_eq!(client.describe().status(), 200);
            assert_eq!(client.setup(Lower::Tcp).status(), 200);
            assert_eq!(client.play().status(), 200);
            client.listen(Duration::from_secs(25));
            assert_eq!(client.teardown().status(), 200);
            client
        });
        let drips: Vec<_> = (0..3).map(|_| scope.spawn(move || drip(address))).collect();
        hostile(address);
        for drip in drips {
            let took = drip.join().unwrap();
            assert!(took > Duration::from_secs(8) && took < Duration::from_secs(15), "{took:?}");
        }
        hoard(address);
        viewer.join().unwrap()
    });
    let expect = Expect::pattern((320, 240));
    let (findings, summary) = validate(&watched.capture, &expect);
    assert!(findings.violations.is_empty(), "{}", findings.report());
    assert!(summary.access_units > 600, "{summary:?}");
    // And the port is there for others again.
    let (answer, _) = ask(address, "/healthz", "");
    assert!(answer.ends_with("ok\n"), "{answer}");
    assert!(!camera.log().contains("panicked"), "{}", camera.log());
}

#[test]
fn players_tunnel_through_the_http_port_with_the_password_and_only_with_it() {
    tunnelled("127.0.0.1:0");
    if TcpListener::bind("[::1]:0").is_ok() {
        tunnelled("[::1]:0");
    }
}

fn tunnelled(listen: &str) {
    let camera = Camera::start(&[&SOURCE[..6], &["--http", listen]].concat());
    let url = format!("rtsp://{}/main", address(&camera));
    if process::have(&[FFMPEG]) {
        let ffmpeg = |account: &Credentials, pictures: usize| {
            let mut command = Command::new("ffmpeg");
            command.args(["-nostdin", "-v", "error", "-xerror", "-err_detect", "explode"]);
            command.args(["-rtsp_transport", "http", "-i", &login(&url, account)]);
            command.args(["-map", "0:v:0", "-frames:v", &pictures.to_string()]);
            process::run(command.args(["-f", "framemd5", "-"]), Duration::from_secs(30))
        };
        let run = ffmpeg(&credentials(), PICTURES);
        let pictures = run.stdout.lines().filter(|line| !line.starts_with('#')).count();
        assert!(run.success() && pictures == PICTURES, "{pictures}: {run:?}");
        let wrong = Credentials { password: "a-guess".into(), ..credentials() };
        let run = ffmpeg(&wrong, 1);
        assert!(!run.success() && run.stderr.contains("401"), "{run:?}");
    }
    if process::have(&GSTREAMER) {
        gstreamer_decodes(&url.replacen("rtsp:", "rtsph:", 1), &[]);
    }
    retina_client::decodes(&relay::through_http(&url), Lower::Tcp, PICTURES);
    // Who speaks no RTSP in the tunnel is RTSP's guest already, with its status and its deadlines.
    let request = b"GET /main HTTP/1.1\r\nx-sessioncookie: alone\r\n\r\n";
    let (answer, took) = provoke(address(&camera), request);
    assert!(answer.contains("application/x-rtsp-tunnelled"), "{answer}");
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(9), "{took:?}");
}
