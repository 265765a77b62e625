//! Checks that buffers belong to whoever holds them, and that nothing is left behind.

use ocellus::capture::{RawFrame, RawSource, V4l2};
use ocellus::sys::clock;
use ocellus::sys::v4l2::{Lease, Queue};

use super::Check;
use super::bench::{Bench, SMALL, next};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("a_frame_outlives_its_camera", a_frame_outlives_its_camera),
    ("a_late_lease_is_not_queued_into_the_next_generation", a_late_lease),
    ("frames_can_be_dropped_on_another_thread", another_thread),
    ("a_caller_who_keeps_every_buffer_starves_only_himself", starvation),
    ("fifty_cycles_leave_no_descriptor_and_no_mapping", no_leak),
];

fn a_frame_outlives_its_camera(bench: &Bench) {
    let mut camera = bench.camera();
    let held = next(&mut camera);
    let picture = luma(&held);
    drop(camera);
    assert_eq!(luma(&held), picture);
    // The camera is free at once, and its new stream does not write into the old buffers.
    let mut camera = bench.camera();
    for _ in 0..10 {
        drop(next(&mut camera));
    }
    assert_eq!(luma(&held), picture);
    drop(held);
    for _ in 0..10 {
        drop(next(&mut camera));
    }
}

fn a_late_lease(bench: &Bench) {
    let device = bench.node();
    device.set_format(ocellus::sys::v4l2::FourCc(*b"YUYV"), SMALL.width, SMALL.height).unwrap();
    let queue = Queue::start(&device, 4).unwrap();
    let late: Vec<Lease> = (0..2).map(|_| dequeue(&queue)).collect();
    drop(queue);
    let queue = Queue::start(&device, 4).unwrap();
    let held: Vec<Lease> = (0..queue.len()).map(|_| dequeue(&queue)).collect();
    // Every buffer of the new generation is ours: had the late ones been queued into it, the
    // driver would fill them again.
    drop(late);
    let until = clock::now() + std::time::Duration::from_millis(300);
    while clock::now() < until {
        assert!(queue.dequeue().unwrap().is_none(), "a foreign buffer is in the queue");
    }
    drop(held);
    for _ in 0..8 {
        drop(dequeue(&queue));
    }
}

fn another_thread(bench: &Bench) {
    let mut camera = bench.camera();
    let (sender, receiver) = std::sync::mpsc::sync_channel::<RawFrame>(1);
    let reader = std::thread::spawn(move || {
        receiver.into_iter().map(|frame| usize::from(luma(&frame)[0] != 1)).sum::<usize>()
    });
    for _ in 0..30 {
        sender.send(next(&mut camera)).unwrap();
    }
    drop(camera);
    drop(sender);
    assert_eq!(reader.join().unwrap(), 30);
}

fn starvation(bench: &Bench) {
    let mut camera = bench.camera();
    let mut held = Vec::new();
    // However many buffers the driver gave: take them all.
    let deadline = clock::now() + std::time::Duration::from_secs(2);
    while clock::now() < deadline {
        held.extend(camera.capture(clock::now()).unwrap());
    }
    assert!(held.len() >= 4, "{} buffers", held.len());
    println!("  {} buffers", held.len());
    held.clear();
    for _ in 0..8 {
        drop(next(&mut camera));
    }
    // What passed meanwhile is counted.
    assert!(camera.lost() > 0);
}

fn no_leak(bench: &Bench) {
    drop(bench.camera());
    let before = held_by_us();
    for cycle in 0..50 {
        let mut camera = V4l2::open(bench.path(), SMALL).unwrap();
        let frame = next(&mut camera);
        // Both orders.
        if cycle % 2 == 0 {
            drop(camera);
            drop(frame);
        } else {
            drop(frame);
            drop(camera);
        }
    }
    assert_eq!(held_by_us(), before);
    println!("  descriptors and mappings before and after: {before:?}");
}

/// Open descriptors, and mappings of video nodes.
fn held_by_us() -> (usize, usize) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (descriptors, maps.lines().filter(|line| line.contains("/dev/video")).count())
}

fn dequeue(queue: &Queue) -> Lease {
    let deadline = clock::now() + std::time::Duration::from_secs(5);
    while clock::now() < deadline {
        if let Some(lease) = queue.dequeue().unwrap() {
            return lease;
        }
    }
    panic!("no buffer within 5 s");
}

fn luma(frame: &RawFrame) -> Vec<u8> {
    frame.frame().planes[0].bytes.to_vec()
}
