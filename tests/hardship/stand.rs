//! The test stand: viewers who behave, and what the kernel says of the camera.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::unistd::{SysconfVar, sysconf};

use crate::camera::{Camera, credentials};
use crate::client::{Client, Lower};
use crate::clip;
use crate::validate::{Expect, Summary, validate};

/// A camera that plays the clip, whose every byte is known, with these arguments as well.
pub(crate) fn camera(arguments: &[&str]) -> Camera {
    Camera::start(&[&["--source", &clip_source()], arguments].concat())
}

/// The same beside others.
pub(crate) fn camera_beside(arguments: &[&str]) -> Camera {
    Camera::start_beside(&[&["--source", &clip_source()], arguments].concat())
}

fn clip_source() -> String {
    format!("file:{}", clip::clip().expect("the clip is in tests/data").path.display())
}

/// One who watches in a thread of its own, and wants every packet.
#[derive(Debug)]
pub(crate) struct Viewer {
    lower: Lower,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Client>,
}

impl Viewer {
    /// Plays the stream at `url`.
    pub(crate) fn watch(url: &str, lower: Lower) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (url, stop) = (without_login(url), Arc::clone(&is_over));
        let mut client = Client::connect(&url, &credentials());
        assert_eq!(client.describe().status(), 200);
        assert_eq!(client.setup(lower).status(), 200);
        assert_eq!(client.play().status(), 200);
        let thread = thread::spawn(move || {
            let mut asked = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                client.listen(Duration::from_millis(100));
                if asked.elapsed() >= KEEP_ALIVE {
                    assert_eq!(client.keep_alive("GET_PARAMETER").status(), 200);
                    asked = Instant::now();
                }
            }
            client
        });
        Self { lower, is_over, thread }
    }

    /// Leaves, and judges what came: everything the clip has, and no rule broken.
    pub(crate) fn judge(self) -> Summary {
        self.judge_by(&Expect::of_clip(clip::clip().unwrap()))
    }

    /// The same of another source than the clip.
    pub(crate) fn judge_by(self, expect: &Expect<'_>) -> Summary {
        let lower = self.lower;
        let client = self.leave();
        let (findings, summary) = validate(&client.capture, expect);
        assert!(findings.violations.is_empty(), "{lower:?}:\n{}", findings.report());
        summary
    }

    /// Leaves with all that came, for somebody else to judge.
    pub(crate) fn leave(self) -> Client {
        let lower = self.lower;
        let mut client = self.stop();
        assert!(!client.closed, "{lower:?}: the camera has hung up");
        assert_eq!(client.teardown().status(), 200);
        client
    }

    /// Listens no more, and says nothing: for one who has been hung up on, or is to be.
    pub(crate) fn stop(self) -> Client {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The same URL without user and password: [`Client`] has its own.
pub(crate) fn without_login(url: &str) -> String {
    let rest = url.strip_prefix("rtsp://").expect("an rtsp URL");
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    format!("rtsp://{rest}")
}

/// What the kernel has accounted for the camera so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) resident_kib: u64,
    /// Of its memory, what no file backs.
    pub(crate) anonymous_kib: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: u64,
    /// CPU time of all threads, in ticks of 10 ms.
    pub(crate) cpu: Duration,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // proc(5): utime and stime are the 14th and the 15th, and the 2nd may have spaces.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        let second = u64::try_from(sysconf(SysconfVar::CLK_TCK).unwrap().unwrap()).unwrap();
        Self {
            resident_kib: field(&status, "VmRSS:"),
            anonymous_kib: field(&status, "RssAnon:"),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            threads: field(&status, "Threads:"),
            cpu: Duration::from_millis(ticks * 1_000 / second),
        }
    }
}

/// The number behind `name` at the start of a line of proc(5)'s status.
fn field(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    value.split_whitespace().next().unwrap().parse().unwrap()
}

/// Well before the minute that the camera advertises.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
