//! What hours do: memory, descriptors and latency while viewers come and go every second.
//!
//! Every second one viewer comes by TCP and one by UDP, every fifth one more through HTTP and one by
//! TLS; each stays for some seconds, and leaves with a word or without. Two stay all the time: what
//! they are sent is timed by the kernel, from the capture to their sockets. `trend` says what of the
//! samples is growth and what is noise.
//!
//! `scripts/soak` runs it with the release binary, for as long as one likes; as a test among others
//! it is short and proves that it works.

mod crowd;
mod trend;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use self::crowd::{Crowd, Guests, Pair};
use self::trend::{Judgement, judge};
use crate::camera::Camera;
use crate::relay;
use crate::stand::{Usage, without_login};

/// Where the camera listens.
struct Doors {
    rtsp: SocketAddr,
    http: SocketAddr,
    through_http: SocketAddr,
    decrypted: SocketAddr,
}

/// The camera that lets everybody in by all doors, and what is said of it.
struct Patient {
    camera: Camera,
    doors: Doors,
}

/// One row of the table.
struct Sample {
    at: Duration,
    usage: Usage,
    /// In microseconds: median, and what one in a hundred is above.
    latency: (i64, i64),
    guests: u64,
}

impl Patient {
    fn start(folder: &Path) -> Self {
        let [config, certificate, key] =
            ["soak.json", "soak-certificate.pem", "soak-key.pem"].map(|name| folder.join(name));
        let tls = format!(r#""tls": {{ "certificate": {certificate:?}, "key": {key:?} }}"#);
        fs::write(&config, format!(r#"{{ "rtsp": {{ {tls}, "max_per_address": 64 }} }}"#)).unwrap();
        let binary = std::env::var("OCELLUS_SOAK_BINARY");
        let mut command = Command::new(binary.as_deref().unwrap_or(env!("CARGO_BIN_EXE_ocellus")));
        command.args(["run", "--source", "pattern", "--size", "640x360", "--no-auth"]);
        command.args(["--rtsp", "127.0.0.1:0", "--rtsps", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        // Nobody wants to keep lines about every guest for days; where it listens, `run` says.
        command.arg("--config").arg(&config).env("RUST_LOG", "warn,ocellus::run=info");
        let camera = Camera::spawn(&mut command);
        let log = camera.log();
        let rtsp = after(&without_login(&camera.url), "rtsp://");
        let http = after(&log, "listening http=[");
        let encrypted = log.split("encrypted urls=[\"").nth(1).unwrap().split('"').next().unwrap();
        let through_http = relay::through_http(&format!("rtsp://{rtsp}/main"));
        let decrypted = relay::decrypted(encrypted, &certificate);
        let [through_http, decrypted] = [through_http, decrypted].map(|url| after(&url, "rtsp://"));
        Self { camera, doors: Doors { rtsp, http, through_http, decrypted } }
    }

    /// The sum of a metric's samples.
    fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(self.doors.http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: camera\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let is_whole = rest.starts_with(['{', ' ']);
            rest.rsplit(' ').next()?.parse::<f64>().ok().filter(|_| is_whole)
        });
        values.sum()
    }
}

/// The address behind some words.
fn after(text: &str, words: &str) -> SocketAddr {
    let rest = text.split(words).nth(1).unwrap_or_else(|| panic!("no {words} in {text}"));
    rest.split(['/', ']', ',']).next().unwrap().parse().unwrap()
}

/// Of `90s`, `30m` or `72h`.
fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => panic!("{text}: 90s, 30m or 72h is meant"),
    };
    Duration::from_secs(number.parse::<u64>().unwrap() * seconds)
}

/// Takes samples while the crowd comes and goes.
fn live(patient: &Patient, time: Duration, csv: &mut String) -> (Vec<Sample>, Guests) {
    let doors = &patient.doors;
    let mut pair = Pair::join(doors.rtsp);
    let ways = [doors.rtsp, doors.through_http, doors.decrypted];
    let mut crowd = Crowd::new(ways);
    let interval = SAMPLED_EVERY.min(time / SAMPLES_MIN);
    let began = Instant::now();
    let (mut samples, mut due, mut said) = (Vec::new(), interval, Duration::ZERO);
    while began.elapsed() < time {
        crowd.handle(Instant::now());
        pair.listen();
        let at = began.elapsed();
        if at < due {
            continue;
        }
        due += interval;
        let latency = pair.latency();
        let usage = Usage::of(patient.camera.pid());
        let sample = Sample { at, usage, latency, guests: crowd.guests.came };
        writeln!(csv, "{}", sample.line(",")).unwrap();
        if said.is_zero() || at >= said + SAID_EVERY {
            said = at;
            println!("{}", sample.line("  "));
        }
        samples.push(sample);
    }
    pair.leave();
    (samples, crowd.leave())
}

impl Sample {
    fn line(&self, between: &str) -> String {
        let Usage { resident_kib, anonymous_kib, descriptors, threads, .. } = self.usage;
        let (median, high) = self.latency;
        let values = [
            format!("{:.1}", self.at.as_secs_f64()),
            format!("{resident_kib}"),
            format!("{anonymous_kib}"),
            format!("{descriptors}"),
            format!("{threads}"),
            format!("{median}"),
            format!("{high}"),
            format!("{}", self.guests),
        ];
        values.join(between)
    }
}

/// What may not grow: in the second half, when everything has been used once.
fn trends(samples: &[Sample]) -> Vec<Judgement> {
    let half = &samples[samples.len() / 2..];
    let points = |value: fn(&Sample) -> f64| -> Vec<(f64, f64)> {
        half.iter().map(|sample| (sample.at.as_secs_f64(), value(sample))).collect()
    };
    // Five milliseconds of what was watched: a picture that waits once more shows as 33.
    let watched = half[half.len() - 1].at - half[0].at;
    let late = 5_000.0 * 3_600.0 / watched.as_secs_f64();
    let memory = |name, value| {
        let points = points(value);
        judge(name, &points, MEMORY_PER_HOUR).allowing_a_step(&points)
    };
    vec![
        memory("RSS, KiB", |it| it.usage.resident_kib as f64),
        memory("anonymous, KiB", |it| it.usage.anonymous_kib as f64),
        judge("descriptors", &points(|it| it.usage.descriptors as f64), 0.0),
        judge("threads", &points(|it| it.usage.threads as f64), 0.0),
        judge("latency, median, µs", &points(|it| it.latency.0 as f64), late),
    ]
}

#[test]
fn viewers_come_and_go_every_second_and_nothing_grows() {
    let time = std::env::var("OCELLUS_SOAK").map_or(SHORTEST, |text| duration(&text));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let patient = Patient::start(folder);
    let before = Usage::of(patient.camera.pid());
    let heads =
        "seconds, RSS KiB, anonymous KiB, descriptors, threads, latency p50 and p99 µs, guests";
    println!("{heads}");
    let mut csv = format!("{heads}\n");
    let (samples, guests) = live(&patient, time, &mut csv);
    let table = folder.join("soak.csv");
    fs::write(&table, csv).unwrap();
    println!("{guests}\nevery sample is in {}", table.display());
    let trends = trends(&samples);
    trends.iter().for_each(|trend| println!("{trend}"));
    nobody_is_left(&patient, before, &guests);
    assert!(guests.late.is_empty() && guests.lost == 0, "{guests}");
    assert!(trends.iter().all(Judgement::is_well), "something grows");
    let log = patient.camera.log();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let (status, took, _) = patient.camera.stop();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// The counters know of nobody, and what everybody held is given back.
fn nobody_is_left(patient: &Patient, before: Usage, guests: &Guests) {
    let began = Instant::now();
    let is_over = || {
        let [plays, ended] = ["ocellus_plays_total", "ocellus_sessions_ended_total"]
            .map(|name| patient.metric(name));
        let usage = Usage::of(patient.camera.pid());
        let is_even = plays == ended && patient.metric("ocellus_viewers") == 0.0;
        let is_back = usage.descriptors <= before.descriptors;
        (is_even && is_back, (plays, ended, usage))
    };
    loop {
        let (is_over, what) = is_over();
        if is_over {
            let (plays, ended, usage) = what;
            println!("{plays} have played and {ended} ended; {usage:?}, at first {before:?}");
            // Guests, and the two who stayed.
            assert_eq!(plays, (guests.came + 2) as f64, "{guests}");
            return;
        }
        assert!(
            began.elapsed() < FORGOTTEN_AFTER,
            "somebody is left: {what:?}, at first {before:?}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// HOSTILE, in KiB.
const MEMORY_PER_HOUR: f64 = 100.0;
const SAMPLED_EVERY: Duration = Duration::from_secs(10);
/// Of a short run: enough for a trend of the second half.
const SAMPLES_MIN: u32 = 24;
const SAID_EVERY: Duration = Duration::from_secs(60);
/// As a test among others.
const SHORTEST: Duration = Duration::from_secs(24);
/// HOSTILE: a UDP session that nobody is heard of on is kept for 90 s.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(100);
