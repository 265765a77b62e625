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

use futures::StreamExt;
use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, delete_module};
use nix::poll::poll;
use nix::sys::reboot::{RebootMode, reboot};
use ocellus::sys::clock;
use ocellus::time::Instant;
use retina::client::{Credentials, Demuxed, PlayOptions, Session, SessionOptions, SetupOptions};
use retina::codec::CodecItem;

use super::bench::Bench;
use super::guest::Modules;

/// Starts the child and becomes the firmware.
#[allow(clippy::zombie_processes, reason = "the firmware reaps whatever ends")]
pub(super) fn run() -> ! {
    Command::new(SELF).arg(ARGUMENT).spawn().expect("this program is at /device");
    let error = Command::new("/init").exec();
    panic!("/init: {error}");
}

/// The child's whole life; the machine ends with it.
pub(super) fn child() -> ExitCode {
    let outcome = std::panic::catch_unwind(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(watch_and_pull());
    });
    let failed = usize::from(outcome.is_err());
    println!("device: result: {} passed, {failed} failed", 1 - failed);
    let refused = reboot(RebootMode::RB_POWER_OFF).expect_err("the machine is off");
    panic!("power off: {refused}");
}

async fn watch_and_pull() {
    let mut viewer = connect().await;
    for _ in 0..10 {
        picture(&mut viewer, Duration::from_secs(10)).await;
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
        while clock::now() < until {
            // What was on its way.
            let _ = tokio::time::timeout(until.since(clock::now()), viewer.next()).await;
        }
        let began = clock::now();
        modules.load("vivid", PARAMETERS);
        let loaded = clock::now();
        picture(&mut viewer, Duration::from_secs(10)).await;
        let back = clock::now();
        let (after, whole) = (back.since(loaded), back.since(began));
        println!("  away {away:?}: streams {after:?} after vivid was loaded, {whole:?} with that");
        assert!(whole <= Duration::from_secs(2), "{whole:?}");
        assert_eq!(shut_in_camera(), camera, "it was not started again");
        for _ in 0..10 {
            picture(&mut viewer, Duration::from_secs(10)).await;
        }
    }
}

/// The next picture of the one session there is.
async fn picture(viewer: &mut Demuxed, patience: Duration) {
    let deadline = clock::now() + patience;
    loop {
        let left = deadline.since(clock::now());
        match tokio::time::timeout(left, viewer.next()).await {
            Ok(Some(Ok(CodecItem::VideoFrame(_)))) => return,
            Ok(Some(Ok(_))) => {}
            Ok(other) => panic!("the session has ended: {:?}", other.map(|item| item.err())),
            Err(_) => panic!("no picture within {patience:?}"),
        }
    }
}

/// Plays, as soon as there is a camera that answers.
async fn connect() -> Demuxed {
    let deadline = clock::now() + Duration::from_secs(60);
    loop {
        match play().await {
            Ok(viewer) => return viewer,
            Err(error) if clock::now() >= deadline => panic!("no session: {error}"),
            Err(_) => pause(),
        }
    }
}

async fn play() -> Result<Demuxed, retina::Error> {
    let login = Credentials { username: "admin".into(), password: PASSWORD.into() };
    let options = SessionOptions::default().creds(Some(login));
    let mut session = Session::describe(URL.parse().unwrap(), options).await?;
    session.setup(0, SetupOptions::default()).await?;
    session.play(PlayOptions::default()).await?.demuxed()
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
const NODE: &str = "/dev/video0";
/// As in board/qemu-virt/modules.
const PARAMETERS: &str = "n_devs=1 node_types=0x1 multiplanar=1 input_types=0";
const URL: &str = "rtsp://127.0.0.1:554/main";
/// As in scripts/device-test; the machine has no network.
const PASSWORD: &str = "in-this-guest-only";
