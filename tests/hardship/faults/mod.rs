//! What happens to the machine under the camera: HOSTILE, section 2, as far as it can be done to a
//! process without hardware and without a kernel of its own. `rows` says where the rest is.
//!
//! Cameras that play the clip have next to nothing to do, so that several may run at once: faults
//! are mostly waited for.

mod disk;
mod limits;
mod links;
mod lossy;
mod processor;
mod record;
mod rows;
mod signals;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::camera::{Camera, credentials};
use crate::clip;

/// The program that is tested.
const BINARY: &str = env!("CARGO_BIN_EXE_ocellus");

/// `ocellus run`, started by way of `wrapper`: programs that change something and then become it.
fn run(wrapper: &[&str], arguments: &[&str]) -> Command {
    let account = credentials();
    let words = [wrapper, &[BINARY, "run", "--user", &account.user], arguments].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("OCELLUS_PASSWORD", &account.password);
    command.env("RUST_LOG", "info");
    command
}

/// On a port of the kernel's choice, without HTTP.
const QUIET: [&str; 4] = ["--rtsp", "127.0.0.1:0", "--http", "off"];

/// The clip, whose every byte is known.
fn clip() -> String {
    format!("file:{}", clip::clip().expect("the clip is in tests/data").path.display())
}

/// A camera that plays the clip beside others, started by way of `wrapper`.
fn clip_camera(wrapper: &[&str], arguments: &[&str]) -> Camera {
    let source = clip();
    let arguments = [&["--source", &source], &QUIET[..], arguments].concat();
    Camera::spawn_beside(&mut run(wrapper, &arguments))
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

fn pause(time: Duration) {
    thread::sleep(time);
}

/// Waits until `is_so`; how long that was, or `None` when it is not so within `limit`.
fn wait_until(limit: Duration, mut is_so: impl FnMut() -> bool) -> Option<Duration> {
    let began = Instant::now();
    loop {
        if is_so() {
            return Some(began.elapsed());
        }
        if began.elapsed() >= limit {
            return None;
        }
        pause(Duration::from_millis(20));
    }
}

/// Whether this process may do what only root may. Where all tools are required, it has to.
fn is_root() -> bool {
    let is_root = Uid::effective().is_root();
    let is_required = std::env::var_os("CI").is_some()
        || std::env::var("OCELLUS_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
    assert!(is_root || !is_required, "only root can do this, and tools are required");
    if !is_root {
        eprintln!("skipped: only root can do this");
    }
    is_root
}

/// A folder that goes when the test does.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ocellus-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
