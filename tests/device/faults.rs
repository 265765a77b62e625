//! Checks what becomes of the driver's faults: counted, told, and over when they are over.

use nix::errno::Errno;
use ocellus::capture::{Error, RawSource, V4l2};

use super::Check;
use super::bench::{Bench, SMALL, next, try_next};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("frames_that_the_driver_dropped_are_counted", dropped),
    ("damaged_buffers_are_counted_and_not_delivered", damaged),
    ("buffers_that_the_driver_did_not_take_back_are_not_lost", not_taken_back),
    ("a_refused_start_is_told_and_leaves_nothing_behind", refused_start),
    ("a_fatal_error_ends_the_stream_and_reopening_heals_it", fatal),
    ("an_unplugged_camera_is_gone", unplugged),
];

fn dropped(bench: &Bench) {
    let mut camera = bench.camera();
    drop(next(&mut camera));
    let before = camera.lost();
    bench.set("percentage_of_dropped_buffers", 60);
    for _ in 0..30 {
        drop(next(&mut camera));
    }
    bench.set("percentage_of_dropped_buffers", 0);
    let lost = camera.lost() - before;
    println!("  60 % dropped: {lost} lost beside 30 delivered");
    // 45 are expected; fewer than 20 or more than 100 would be one in a million.
    assert!((20..=100).contains(&lost), "{lost}");
}

fn damaged(bench: &Bench) {
    let mut camera = bench.camera();
    drop(next(&mut camera));
    let before = camera.lost();
    let mut gaps = 0;
    for _ in 0..5 {
        bench.set("inject_v4l2_buf_flag_error", 1);
        // Up to four buffers were filled before the button was pressed.
        for _ in 0..5 {
            drop(next(&mut camera));
        }
        gaps = camera.lost() - before;
    }
    println!("  5 damaged: {gaps} lost");
    assert!(gaps >= 5, "{gaps}");
}

/// As often as there are buffers, and more.
fn not_taken_back(bench: &Bench) {
    let mut camera = bench.camera();
    for _ in 0..8 {
        drop(next(&mut camera));
        bench.set("inject_vidioc_qbuf_error", 1);
        drop(next(&mut camera));
    }
    drop(next(&mut camera));
}

fn refused_start(bench: &Bench) {
    drop(bench.camera());
    bench.set("inject_vidioc_streamon_error", 1);
    let error = V4l2::open(bench.path(), SMALL).expect_err("vivid refuses once");
    println!("  {error}");
    assert!(matches!(error, Error::Os { call: "VIDIOC_STREAMON", .. }), "{error:?}");
    drop(next(&mut bench.camera()));
}

fn fatal(bench: &Bench) {
    let mut camera = bench.camera();
    drop(next(&mut camera));
    bench.set("inject_fatal_streaming_error", 1);
    let error = (0..10).find_map(|_| try_next(&mut camera).err()).expect("the stream has ended");
    println!("  {error}");
    assert!(matches!(error, Error::Os { call: "VIDIOC_DQBUF", errno: Errno::EIO, .. }));
    drop(camera);
    drop(next(&mut bench.camera()));
}

fn unplugged(bench: &Bench) {
    let mut camera = bench.camera();
    let held = next(&mut camera);
    let picture = held.frame().planes[0].bytes.to_vec();
    bench.set("disconnect", 1);
    let error = (0..10).find_map(|_| try_next(&mut camera).err()).expect("the camera is gone");
    println!("  {error}");
    assert!(matches!(error, Error::Gone { .. }), "{error:?}");
    let again = V4l2::open(bench.path(), SMALL).expect_err("it stays gone");
    assert!(matches!(again, Error::Gone { .. }), "{again:?}");
    // Whoever still looks at the last picture is not hurt.
    drop(camera);
    assert_eq!(held.frame().planes[0].bytes, picture);
}
