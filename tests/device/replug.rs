//! The whole camera, shut in as on a board, while its device goes away and comes back.
//!
//! This program starts as the guest's first process, leaves a child behind, and becomes the
//! firmware (`/init`), which knows nothing of it. The child is the hand that pulls the plug, and a
//! viewer who keeps watching.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, delete_module};
use nix::poll::poll;
use nix::sys::reboot::{RebootMode, reboot};
use ocellus::sys::clock;
use ocellus::time::Instant;
use retina::client::Credentials;

use super::bench::Bench;
use super::guest::Modules;
use super::viewer::{Shown, Viewer};

/// Starts the child and becomes the firmware.
#[allow(clippy::zombie_processes, reason = "the firmware reaps whatever ends")]
pub(super) fn run() -> ! {
    Command::new(SELF).arg(ARGUMENT).spawn().expect("this program is at /device");
    let error = Command::new("/init").exec();
    panic!("/init: {error}");
}

/// The child's whole life; the machine ends with it.
pub(super) fn child() -> ExitCode {
    let outcome = std::panic::catch_unwind(watch_and_pull);
    let failed = usize::from(outcome.is_err());
    println!("device: result: {} passed, {failed} failed", 1 - failed);
    let refused = reboot(RebootMode::RB_POWER_OFF).expect_err("the machine is off");
    panic!("power off: {refused}");
}

fn watch_and_pull() {
    let login = Credentials { username: "admin".into(), password: PASSWORD.into() };
    let mut viewer = Viewer::connect(URL, Some(login));
    for _ in 0..10 {
        assert!(is_live(&viewer.next(PATIENCE)));
    }
    let modules = Modules::read();
    let camera = shut_in_camera();
    println!("  sandboxed camera pid={camera}");
    // The pauses between attempts grow for as long as the device is away.
    for away in [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(4)] {
        Bench::new(NODE.into()).set("disconnect", 1);
        unload();
        assert!(!Path::new(NODE).exists());
        let until = clock::now() + away;
        let mut stood_in_for = 0;
        while let Some(left) = Some(until.since(clock::now())).filter(|left| !left.is_zero()) {
            // What was on its way, and what stands in for the camera.
            let shown = viewer.next_within(left);
            stood_in_for += u64::from(shown.is_some_and(|shown| !is_live(&shown)));
        }
        // One a second, and the first at once.
        assert!(stood_in_for >= away.as_secs(), "{stood_in_for} NO SIGNAL in {away:?}");
        let began = clock::now();
        modules.load("vivid", PARAMETERS);
        let loaded = clock::now();
        while !is_live(&viewer.next(PATIENCE)) {}
        let back = clock::now();
        let (after, whole) = (back.since(loaded), back.since(began));
        println!(
            "  away {away:?}: {stood_in_for} NO SIGNAL; streams {after:?} after vivid was loaded, \
             {whole:?} with that"
        );
        assert!(whole <= Duration::from_secs(2), "{whole:?}");
        assert_eq!(shut_in_camera(), camera, "it was not started again");
        for _ in 0..10 {
            assert!(is_live(&viewer.next(PATIENCE)));
        }
    }
}

/// vivid's bars are bright, the NO SIGNAL picture is dark.
fn is_live(shown: &Shown) -> bool {
    shown.brightness() > DARK
}

/// The camera's process, which must be restricted in every way that the firmware promises.
fn shut_in_camera() -> u32 {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        Some((pid, fs::read_to_string(format!("/proc/{pid}/status")).ok()?))
    });
    let is_camera = |status: &str| field(status, "Uid") == ["900"; 4];
    let found: Vec<_> = pids.filter(|(_, status)| is_camera(status)).collect();
    let [(pid, status)] = &found[..] else { panic!("not one camera: {found:?}") };
    for (name, value) in [("Groups", "44"), ("NoNewPrivs", "1"), ("Seccomp", "2")] {
        assert_eq!(field(status, name), [value], "{status}");
    }
    *pid
}

/// A field of /proc/PID/status.
fn field<'a>(status: &'a str, name: &str) -> Vec<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(value).unwrap_or_default().split_whitespace().collect()
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

pub(super) const ARGUMENT: &str = "--child-viewer";
const SELF: &str = "/device";
const PATIENCE: Duration = Duration::from_secs(10);
/// Mean luma between those of the two.
const DARK: u64 = 60;
const NODE: &str = "/dev/video0";
/// As in board/qemu-virt/modules.
const PARAMETERS: &str = "n_devs=1 node_types=0x1 multiplanar=1 input_types=0";
const URL: &str = "rtsp://127.0.0.1:554/main";
/// As in scripts/device-test; the machine has no network.
const PASSWORD: &str = "in-this-guest-only";
