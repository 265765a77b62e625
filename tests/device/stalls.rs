//! A camera that says nothing at all, and one that fails again and again.

use std::time::Duration;

use ocellus::sys::clock;

use super::booted::{Booted, Check};
use super::client::Lower;
use super::listener::pause;
use super::viewer::is_live;

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("silent_camera_is_no_signal_until_it_says_something_again", silent),
    ("failing_again_and_again_leaves_nothing_behind", failing),
];

/// No buffer comes, and no error either.
fn silent(camera: &Booted) {
    let mut viewer = camera.viewer();
    let listener = camera.listener(Lower::Udp);
    let before = camera.metric(REOPENED);
    let began = clock::now();
    camera.bench.set("percentage_of_dropped_buffers", 100);
    while is_live(&viewer.next(PATIENCE)) {}
    let noticed = clock::now().since(began);
    assert_eq!(camera.metric("ocellus_source_live"), 0.0);
    for _ in 0..4 {
        assert!(!is_live(&viewer.next(PATIENCE)), "as long as nothing comes");
    }
    let reopened = camera.metric(REOPENED) - before;
    let ended = clock::now();
    camera.bench.set("percentage_of_dropped_buffers", 0);
    while !is_live(&viewer.next(PATIENCE)) {}
    let back = clock::now().since(ended);
    println!("  NO SIGNAL after {noticed:?}, reopened {reopened} times, back after {back:?}");
    (0..10).for_each(|_| assert!(is_live(&viewer.next(PATIENCE))));
    // A second without a picture is a stall; what was on its way comes before that.
    let after = Duration::from_millis(900)..Duration::from_secs(3);
    assert!(after.contains(&noticed), "{noticed:?}");
    assert!(back <= Duration::from_secs(2), "{back:?}");
    assert!(reopened >= 1.0, "{reopened}");
    assert_eq!(camera.metric("ocellus_source_live"), 1.0);
    camera.pid();
    listener.heard().assert_unbroken(Duration::from_millis(2_500));
}

/// Every fault that the driver can be told to make, for as long as CI has time.
fn failing(camera: &Booted) {
    let listener = camera.listener(Lower::Tcp);
    let cycle = |number: usize| {
        let before = camera.metric(REOPENED);
        for fault in FAULTS[number % FAULTS.len()] {
            camera.bench.set(fault, 1);
        }
        let deadline = clock::now() + PATIENCE;
        while camera.metric(REOPENED) <= before {
            assert!(clock::now() < deadline, "not reopened");
        }
        listener.wait_for_pictures(1);
    };
    // Whatever is made at the first of its kind.
    (0..FAULTS.len()).for_each(cycle);
    let count = || (settled_descriptors(camera), camera.threads());
    let (counts, memory) = (count(), camera.memory_kb());
    let (began, before) = (clock::now(), camera.metric(REOPENED));
    let mut cycles = 0;
    while clock::now().since(began) < TIME {
        cycle(cycles);
        cycles += 1;
    }
    let reopened = camera.metric(REOPENED) - before;
    let grown = camera.memory_kb().saturating_sub(memory);
    println!("  {cycles} faults, reopened {reopened} times, {counts:?}, {grown} kB more");
    assert!(reopened >= cycles as f64, "each was healed");
    // Connections of the past may be gone by now; more there must not be.
    let after = count();
    assert!(after.0 <= counts.0 && after.1 <= counts.1, "{counts:?}, then {after:?}");
    // 300 kB in the first hundred, and hardly any more after that.
    assert!(grown < 1_024, "{memory} kB and {grown} more");
    camera.pid();
    listener.heard().assert_unbroken(Duration::from_secs(2));
}

/// Without those of requests that are just being answered.
fn settled_descriptors(camera: &Booted) -> usize {
    let look = |_| {
        pause(Duration::from_millis(100));
        camera.descriptors()
    };
    (0..15).map(look).min().unwrap()
}

const REOPENED: &str = "ocellus_pictures_source_reopened_total";
const PATIENCE: Duration = Duration::from_secs(10);
const TIME: Duration = Duration::from_secs(12);
/// What the driver is told to do: to end the stream, and what to refuse when it is opened again.
const FAULTS: [&[&str]; 3] =
    [&[FATAL], &["inject_vidioc_streamon_error", FATAL], &["inject_vidioc_reqbufs_error", FATAL]];
const FATAL: &str = "inject_fatal_streaming_error";
