//! A live encoder: how soon the first picture comes, and what the camera takes altogether.

use std::time::{Duration, Instant};

use crate::load::Load;
use crate::pause;
use crate::report::Report;
use crate::server::Server;
use crate::session::{Dialogue, Session, Transport};

fn camera() -> Server {
    Server::start(&["--source", "pattern", "--size", "1280x720", "--fps", "30"])
}

fn sessions(server: &Server, transport: Transport, count: usize) -> Vec<Session> {
    (0..count).map(|_| Session::open(server.address(), transport, Dialogue::Rtsp)).collect()
}

/// From PLAY to the first IDR packet; joins far enough apart to find a full bucket.
pub(crate) fn one_by_one(transport: Transport, rounds: usize) -> Vec<Duration> {
    let server = camera();
    let times = (0..rounds).flat_map(|round| {
        // An odd pause, so that joins fall anywhere in a GOP.
        pause(Duration::from_millis(1_500 + 137 * (round as u64 % 8)));
        join(&server, transport, 1, Duration::ZERO)
    });
    let times = times.collect();
    server.stop();
    times
}

/// The same of `count` joins within half a second.
pub(crate) fn at_once(transport: Transport, count: usize) -> Vec<Duration> {
    let server = camera();
    pause(Duration::from_secs(5));
    let times = join(&server, transport, count, Duration::from_millis(500));
    server.stop();
    times
}

fn join(server: &Server, transport: Transport, count: usize, over: Duration) -> Vec<Duration> {
    let load = Load::start(sessions(server, transport, count), over);
    assert!(load.all_joined(Duration::from_secs(10)), "a viewer got no picture");
    load.stop().first_idr
}

/// CPU, memory and latency with so many viewers of a 720p30 pattern at 2 Mbit/s.
pub(crate) fn live(report: &mut Report, count: usize, transport: Transport, time: Duration) {
    let server = camera();
    let load = Load::start(sessions(&server, transport, count), Duration::from_millis(500));
    assert!(load.all_joined(Duration::from_secs(10)), "a viewer got no picture");
    pause(Duration::from_secs(2));
    let (before, started) = (server.usage(), Instant::now());
    load.measure();
    pause(time);
    let (after, took) = (server.usage(), started.elapsed().as_secs_f64());
    load.stop();
    let share = |from: f64, to: f64| 100.0 * (to - from) / took;
    let thread = |name: &str| share(before.cpu_of(name), after.cpu_of(name));
    let who = format!("720p30 live, {count} viewers, {transport}");
    let memory = format!("{} KiB, {} anonymous", after.rss_kib, after.anonymous_kib);
    report.row(&format!("{who}: memory (RSS)"), &memory);
    report.row(
        &format!("{who}: CPU of one core"),
        &format!(
            "{:.1} % in all: capture {:.1}, encode {:.1}, serve {:.1}",
            share(before.cpu_s(), after.cpu_s()),
            thread("capture"),
            thread("encode"),
            thread("serve"),
        ),
    );
    let log = server.stop();
    let line = |event: &str| log.lines().rfind(|line| line.contains(event)).unwrap_or_default();
    let after = |line: &str, key: &str| {
        line.split_once(key).and_then(|(_, rest)| rest.split(']').next()).unwrap_or("?").to_owned()
    };
    if count > 0 {
        let latency = after(line("serve: done"), "capture_to_socket_us=[");
        report.row(&format!("{who}: capture to socket, µs"), &latency);
        let own = after(line("serve: done"), "own_share_us=[");
        report.row(&format!("{who}: of that, all but the encoder, µs"), &own);
        let encoder = after(line("produce: done"), "encode_us=[");
        report.row(&format!("{who}: of that, the encoder, µs"), &encoder);
    }
}
