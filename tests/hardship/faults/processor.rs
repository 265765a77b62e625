//! A processor that others want too, and one that has become slow.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{QUIET, pause, record, run, send};
use crate::camera::Camera;
use crate::client::Lower;
use crate::stand::Viewer;

fn camera(size: &str, fps: &str) -> Camera {
    let source = ["--source", "pattern", "--size", size, "--fps", fps];
    // Alone: the others would be starved as well.
    let mut command = run(&[], &[&source[..], &QUIET].concat());
    Camera::spawn(&mut command)
}

/// The longest of the delays between two moments of a capture, and pictures per second there.
fn seen(delays: &[(Duration, f64)], from: Duration, to: Duration) -> (f64, f64) {
    let there = delays.iter().filter(|(at, _)| (from..to).contains(at));
    let longest = there.clone().map(|(_, delay)| *delay).fold(0.0, f64::max);
    (longest, there.count() as f64 / (to - from).as_secs_f64())
}

#[test]
fn others_who_want_the_processor_too_cost_pictures_at_most_and_no_latency() {
    let camera = camera("640x360", "30");
    let viewer = Viewer::watch(&camera.url, Lower::Tcp);
    let until = Instant::now() + Duration::from_secs(8);
    let greedy = || while Instant::now() < until {};
    let cores = thread::available_parallelism().map_or(2, std::num::NonZero::get);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(greedy))));
    let client = viewer.leave();
    let packets = record::packets(&client.capture);
    assert_eq!(record::missing(&packets), 0);
    let delays = record::delays(&client.capture);
    let (longest, rate) = seen(&delays, Duration::from_secs(1), Duration::from_secs(8));
    eprintln!("{rate:.1} pictures per second, at most {longest:.3} s late");
    assert!(rate > 3.0 && longest < LATEST, "{rate:.1} per second, {longest:.3} s late");
}

/// Lets the camera run for a quarter of the time only.
fn throttle(camera: &Camera, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        send(camera.pid(), Signal::SIGSTOP);
        pause(Duration::from_millis(30));
        send(camera.pid(), Signal::SIGCONT);
        pause(Duration::from_millis(10));
    }
}

#[test]
fn a_processor_of_a_quarter_the_speed_costs_pictures_and_no_latency() {
    let camera = camera("1920x1080", "60");
    let viewer = Viewer::watch(&camera.url, Lower::Tcp);
    pause(Duration::from_secs(4));
    throttle(&camera, Duration::from_secs(8));
    pause(Duration::from_secs(2));
    let client = viewer.leave();
    assert_eq!(record::missing(&record::packets(&client.capture)), 0);
    let delays = record::delays(&client.capture);
    let at = Duration::from_secs;
    let [full, early, late] =
        [(1, 4), (5, 8), (8, 11)].map(|(from, to)| seen(&delays, at(from), at(to)));
    eprintln!("longest delay and pictures per second: {full:.3?}, slow {early:.3?}, {late:.3?}");
    assert!(late.1 < full.1 * 0.8 && late.1 > 1.0, "{full:?} {early:?} {late:?}");
    // Nothing piles up: what is captured while the encoder is busy is never queued.
    assert!(early.0 < LATEST && late.0 < LATEST, "{full:?} {early:?} {late:?}");
}

/// A few pictures, and a loaded machine.
const LATEST: f64 = 1.0;
