//! The camera's device goes away and comes back while a viewer watches.

use std::time::Duration;

use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, delete_module};
use nix::poll::poll;
use ocellus::sys::clock;
use ocellus::time::Instant;

use super::booted::{Booted, Check};
use super::guest::Modules;
use super::viewer::is_live;

pub(super) const CHECKS: &[(&str, Check)] =
    &[("replugged_camera_streams_again_within_two_seconds", replug)];

fn replug(camera: &Booted) {
    let mut viewer = camera.viewer();
    let plug = Plug { modules: Modules::read(), camera };
    // The pauses between attempts grow for as long as the device is away.
    for away in [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(4)] {
        camera.bench.set("disconnect", 1);
        unload();
        assert!(!camera.bench.path().exists());
        let until = clock::now() + away;
        let mut stood_in_for = 0;
        // What was on its way, and what stands in for the camera: one a second, the first at once.
        // A busy machine shows them late.
        while clock::now() < until || stood_in_for < away.as_secs().max(1) {
            assert!(clock::now() < until + LATE, "{stood_in_for} NO SIGNAL in {away:?}");
            let left = (until + LATE).since(clock::now());
            let shown = viewer.next_within(left);
            stood_in_for += u64::from(shown.is_some_and(|shown| !is_live(&shown)));
        }
        let began = clock::now();
        plug.load();
        let loaded = clock::now();
        while !is_live(&viewer.next(PATIENCE)) {}
        let back = clock::now();
        let (after, whole) = (back.since(loaded), back.since(began));
        println!(
            "  away {away:?}: {stood_in_for} NO SIGNAL; streams {after:?} after vivid was loaded, \
             {whole:?} with that"
        );
        assert!(whole <= Duration::from_secs(2), "{whole:?}");
        camera.pid();
        for _ in 0..10 {
            assert!(is_live(&viewer.next(PATIENCE)));
        }
    }
}

/// Leaves the camera plugged in, for the checks after a failure.
struct Plug<'a> {
    modules: Modules,
    camera: &'a Booted,
}

impl Plug<'_> {
    fn load(&self) {
        self.modules.load("vivid", PARAMETERS);
    }
}

impl Drop for Plug<'_> {
    fn drop(&mut self) {
        self.load();
        self.camera.tell_time_of_start();
    }
}

/// Unloads vivid as soon as the camera has let go of it.
fn unload() {
    let deadline: Instant = clock::now() + Duration::from_secs(5);
    loop {
        match delete_module(c"vivid", DeleteModuleFlags::O_NONBLOCK) {
            Ok(()) => return,
            Err(Errno::EAGAIN) if clock::now() < deadline => pause(),
            Err(errno) => panic!("vivid cannot be unloaded: {errno}"),
        }
    }
}

/// Nothing tells when to look again.
fn pause() {
    poll(&mut [], 50_u16).unwrap();
}

const PATIENCE: Duration = Duration::from_secs(10);
const LATE: Duration = Duration::from_secs(2);
/// As in board/qemu-virt/modules.
const PARAMETERS: &str = "n_devs=1 node_types=0x1 multiplanar=1 input_types=0";
