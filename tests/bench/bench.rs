//! Measures what the README promises: latency, cost per viewer, memory, start-up, size.
//!
//! A program, not a test: it prints numbers and asserts nothing about them. Ratios within one run
//! mean something on a shared machine; times alone mean little. `scripts/bench` runs it.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program that measures real time over real sockets, and prints"
)]

mod camera;
mod floor;
mod viewer;

use std::thread;
use std::time::{Duration, Instant};

use camera::{Camera, Usage};
use viewer::{Transport, Viewers};

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let seconds = if quick { 3 } else { 15 };
    println!("| what | measured |\n|---|---|");
    size();
    start_up(if quick { 3 } else { 15 });
    joins(if quick { 3 } else { 20 });
    for (count, transport) in
        [(0, Transport::Tcp), (1, Transport::Tcp), (16, Transport::Tcp), (16, Transport::Udp)]
    {
        viewers(count, transport, Duration::from_secs(seconds));
    }
    for transport in [Transport::Tcp, Transport::Udp] {
        syscalls(10, transport);
    }
    floor::measure(if quick { 2_000 } else { 20_000 });
}

fn row(what: &str, measured: &str) {
    println!("| {what} | {measured} |");
}

fn size() {
    let len = std::fs::metadata(Camera::binary()).unwrap().len();
    row("binary, stripped, x86-64", &format!("{len} bytes"));
}

/// From exec to the first RTSP reply: the camera asks nobody and waits for no picture.
fn start_up(rounds: usize) {
    let mut times: Vec<Duration> = (0..rounds).map(|_| Camera::time_to_first_reply()).collect();
    row("exec to the first RTSP reply", &spread(&mut times));
}

/// From PLAY to the first packet of an IDR slice; joins far enough apart to find a full bucket.
fn joins(rounds: usize) {
    let camera = Camera::start(&["--source", "pattern", "--size", "1280x720", "--fps", "30"]);
    for transport in [Transport::Tcp, Transport::Udp] {
        let mut times: Vec<Duration> = (0..rounds)
            .map(|round| {
                // An odd pause, so that joins fall anywhere in a GOP.
                pause(Duration::from_millis(1_500 + 137 * (round as u64 % 8)));
                viewer::join(camera.address(), transport)
            })
            .collect();
        row(&format!("PLAY to first IDR packet, 720p30, {transport}"), &spread(&mut times));
    }
    camera.stop();
}

/// CPU, memory and latency with so many viewers of a 720p30 pattern at 2 Mbit/s.
fn viewers(count: usize, transport: Transport, time: Duration) {
    let camera = Camera::start(&["--source", "pattern", "--size", "1280x720", "--fps", "30"]);
    let viewers = Viewers::start(camera.address(), transport, count);
    pause(Duration::from_secs(2));
    let (before, started) = (camera.usage(), Instant::now());
    pause(time);
    let (after, took) = (camera.usage(), started.elapsed().as_secs_f64());
    let received = viewers.stop();
    let share = |from: f64, to: f64| 100.0 * (to - from) / took;
    let Usage { rss_kib, .. } = after;
    let who = format!("720p30, {count} viewers, {transport}");
    row(&format!("{who}: memory (RSS)"), &format!("{rss_kib} KiB"));
    row(
        &format!("{who}: CPU of one core"),
        &format!(
            "{:.1} % in all: capture {:.1}, encode {:.1}, serve {:.1}",
            share(before.cpu_s, after.cpu_s),
            share(before.capture_s, after.capture_s),
            share(before.encode_s, after.encode_s),
            share(before.serve_s, after.serve_s),
        ),
    );
    if count > 0 {
        let minutes = took / 60.0 * count as f64;
        let cost = (after.serve_s - before.serve_s) / minutes;
        row(&format!("{who}: serve, CPU-s per viewer and minute"), &format!("{cost:.4}"));
    }
    let log = camera.stop();
    let line = |event: &str| log.lines().rfind(|line| line.contains(event)).unwrap_or_default();
    let after = |line: &str, key: &str| {
        line.split_once(key).and_then(|(_, rest)| rest.split(']').next()).unwrap_or("?").to_owned()
    };
    if count > 0 {
        let latency = after(line("serve: done"), "capture_to_socket_us=[");
        row(&format!("{who}: capture to socket, µs"), &latency);
        let encoder = after(line("produce: done"), "encode_us=[");
        row(&format!("{who}: of that, the encoder, µs"), &encoder);
        assert!(received > 0, "the viewers received something");
    }
}

/// System calls of the server's thread, counted by the kernel through strace.
fn syscalls(count: usize, transport: Transport) {
    let camera = Camera::start(&["--source", "pattern", "--size", "1280x720", "--fps", "30"]);
    let viewers = Viewers::start(camera.address(), transport, count);
    pause(Duration::from_secs(1));
    let (calls, names) = camera.count_syscalls(Duration::from_secs(6));
    viewers.stop();
    let log = camera.stop();
    drop(log);
    let access_units = 6.0 * 30.0;
    let each = calls as f64 / access_units / count as f64;
    row(
        &format!("syscalls per access unit and viewer, {count} viewers, {transport}"),
        &format!("{each:.2} ({names})"),
    );
}

/// Median and extremes.
fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    let at = |share: usize| ms(times[(times.len() - 1) * share / 100]);
    format!("p50 {:.1} ms, min {:.1}, max {:.1} (n={})", at(50), at(0), at(100), times.len())
}

fn pause(time: Duration) {
    thread::sleep(time);
}
