//! Runs other programs for a bounded time and gives back what they wrote.
//!
//! Children are ended by their own handle when the limit passes; nothing is ever ended by name.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// What a program wrote and how it ended; `status` is `None` when the limit ended it.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: Option<ExitStatus>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

/// Runs `command` to its end, or kills it after `limit`.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Finished {
    let deadline = Instant::now() + limit;
    let spawned =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
    // Both pipes end when the program does: waiting for them needs no polling.
    let mut ended = (stdout.recv_timeout(left(deadline)), stderr.recv_timeout(left(deadline)));
    let timely = ended.0.is_ok() && ended.1.is_ok();
    if !timely {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    if ended.0.is_err() {
        ended.0 = stdout.recv_timeout(Duration::from_secs(5));
    }
    if ended.1.is_err() {
        ended.1 = stderr.recv_timeout(Duration::from_secs(5));
    }
    Finished {
        status: timely.then_some(status),
        stdout: ended.0.unwrap_or_default(),
        stderr: ended.1.unwrap_or_default(),
    }
}

/// Whether every one of `tools` runs here.
///
/// # Panics
///
/// When one is missing and `CI` or `OCELLUS_REQUIRE_TOOLS=1` asks for all of them.
pub(crate) fn have(tools: &[(&str, &[&str])]) -> bool {
    let required = std::env::var_os("CI").is_some()
        || std::env::var("OCELLUS_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
    for (tool, probe) in tools {
        let mut command = Command::new(tool);
        command.args(*probe).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if !command.status().is_ok_and(|status| status.success()) {
            assert!(!required, "{tool} {probe:?} does not run, and tools are required");
            eprintln!("skipped: {tool} {probe:?} does not run here");
            return false;
        }
    }
    true
}

pub(crate) const FFMPEG: (&str, &[&str]) = ("ffmpeg", &["-version"]);

fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}
