//! Where peers meet the camera: it, two viewers who behave, and what must be as before when a group
//! of inputs is over.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Add;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::peer::Stranger;
use super::web;
use crate::camera::Camera;
use crate::client::Lower;
use crate::stand::{self, Usage, Viewer};

/// A camera on all its ports, and who watches it.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) camera: Camera,
    viewers: [Viewer; 2],
    pub(super) rtsp: SocketAddr,
    pub(super) rtsps: SocketAddr,
    pub(super) http: SocketAddr,
    /// How many addresses have been given to strangers.
    strangers: AtomicU32,
    /// Whether a group has failed, so that nobody has to wait for others.
    has_failed: AtomicBool,
    /// What the camera needs for its viewers alone.
    calm: Calm,
}

#[derive(Clone, Copy, Debug)]
struct Calm {
    descriptors: usize,
    threads: u64,
    cpu_per_second: Duration,
}

/// What was done to the camera.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Harm {
    /// What was sent that means harm: requests, packets, connections.
    pub(super) inputs: usize,
    /// Sessions that were set up on the way: a camera says when they begin, play and end.
    pub(super) sessions: usize,
}

impl Add for Harm {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { inputs: self.inputs + other.inputs, sessions: self.sessions + other.sessions }
    }
}

impl Ground {
    pub(super) fn open() -> Self {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        let camera = stand::camera(&["--http", "127.0.0.1:0", "--rtsps", "127.0.0.1:0"]);
        assert!(camera.comes_to_say(|log| log.contains("control: listening")));
        let log = camera.log();
        let address = |before: &str, after: char| {
            let (_, rest) = log.split_once(before).unwrap_or_else(|| panic!("{before}: {log}"));
            rest.split(after).next().unwrap().parse().unwrap()
        };
        let viewers = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
        let mut ground = Self {
            rtsp: camera.url.split('/').nth(2).unwrap().parse().unwrap(),
            rtsps: address("urls=[\"rtsps://", '/'),
            http: address("listening http=[", ']'),
            camera,
            viewers,
            strangers: AtomicU32::new(0),
            has_failed: AtomicBool::new(false),
            calm: Calm { descriptors: 0, threads: 0, cpu_per_second: Duration::ZERO },
        };
        // What is made when it is first needed is there by now.
        web::is_well(&ground);
        let cpu_per_second = ground.cpu_of_a_second();
        let Usage { descriptors, threads, .. } = ground.usage();
        ground.calm = Calm { descriptors, threads, cpu_per_second };
        ground
    }

    pub(super) fn usage(&self) -> Usage {
        Usage::of(self.camera.pid())
    }

    /// Somebody with a login, from an address that nobody has come from.
    pub(super) fn stranger(&self) -> Stranger {
        Stranger::meet(self.rtsp, self.address())
    }

    /// An address of the loopback network that nobody has come from.
    pub(super) fn address(&self) -> Ipv4Addr {
        let number = self.strangers.fetch_add(1, Ordering::Relaxed);
        // Viewers come from 127.0.0.1.
        Ipv4Addr::from_bits(0x7f01_0001 + (number / 250) * 256 + number % 250)
    }

    /// Runs one group of inputs, and checks that the camera is then as it was.
    pub(super) fn withstands(&self, name: &str, group: impl FnOnce(&Self) -> Harm) -> Harm {
        let lines_before = self.camera.log().lines().count();
        let began = Instant::now();
        let _failed = Failed(&self.has_failed);
        let harm = group(self);
        let took = began.elapsed();
        web::is_well(self);
        self.has_given_back(name);
        self.is_at_rest(name);
        let log = self.camera.log();
        let lines: Vec<&str> = log.lines().skip(lines_before).collect();
        // A session that is left may end while a later group goes on.
        let is_of_group = |line: &&&str| !line.contains("rtsp: session ended");
        let said = lines.iter().filter(is_of_group).count();
        let lines_max = LINES_PER_SESSION * harm.sessions + LINES_OF_THE_CAMERA;
        assert!(said <= lines_max, "{name}: {said} lines\n{}", lines.join("\n"));
        for line in &lines {
            assert!(line.len() <= LINE_LEN_MAX, "{name}: a line of {} bytes", line.len());
            let is_fault = ["panicked", "ERROR"].iter().any(|word| line.contains(word));
            assert!(!is_fault, "{name}: {line}");
        }
        let (inputs, lines, memory) = (harm.inputs, lines.len(), self.usage().anonymous_kib);
        eprintln!("{name}: {inputs} inputs, {lines} lines of log, {memory} KiB, {took:.1?}");
        harm
    }

    /// How many the camera has beside those that it needs for its viewers.
    pub(super) fn descriptors_of_peers(&self) -> usize {
        self.usage().descriptors.saturating_sub(self.calm.descriptors)
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Descriptors and threads are those that the viewers need.
    fn has_given_back(&self, name: &str) {
        let asked = Instant::now();
        loop {
            let Usage { descriptors, threads, .. } = self.usage();
            // A thread of the web side's pool lives for seconds after its work.
            if descriptors == self.calm.descriptors && threads <= self.calm.threads + 1 {
                return;
            }
            let lost = format!("{descriptors} descriptors, {threads} threads; {:?}", self.calm);
            assert!(asked.elapsed() < GIVEN_BACK, "{name}: {lost}");
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Nothing spins: a second costs what it costs with the viewers alone.
    fn is_at_rest(&self, name: &str) {
        let cpu = self.cpu_of_a_second();
        let most = self.calm.cpu_per_second + SPARE_CPU;
        assert!(cpu <= most, "{name}: {cpu:?} in a second of rest, and {most:?} is allowed");
    }

    fn cpu_of_a_second(&self) -> Duration {
        let (began, before) = (Instant::now(), self.usage().cpu);
        while began.elapsed() < Duration::from_secs(1) {
            thread::park_timeout(Duration::from_secs(1).saturating_sub(began.elapsed()));
        }
        self.usage().cpu - before
    }

    /// Waits until the log has what is `wanted`.
    pub(super) fn comes_to_say(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> bool {
        let asked = Instant::now();
        while asked.elapsed() < limit {
            if self.camera.comes_to_say(&wanted) {
                return true;
            }
        }
        false
    }

    /// What the viewers got is everything, and nothing else.
    pub(super) fn judge(self) {
        for viewer in self.viewers {
            let summary = viewer.judge();
            eprintln!("{summary:?}");
            assert!(summary.access_units > 60, "{summary:?}");
        }
    }
}

/// Notes a panic.
struct Failed<'a>(&'a AtomicBool);

impl Drop for Failed<'_> {
    fn drop(&mut self) {
        self.0.fetch_or(thread::panicking(), Ordering::Relaxed);
    }
}

/// It is set up, plays, and was slow.
const LINES_PER_SESSION: usize = 3;
/// What a camera says by itself: its counters, once a minute; and that guessers are slowed down.
const LINES_OF_THE_CAMERA: usize = 6;
/// The counters' own line.
const LINE_LEN_MAX: usize = 600;
/// Last words take two seconds, and a web connection without a request ten.
const GIVEN_BACK: Duration = Duration::from_secs(15);
/// A loop that spins takes the whole second.
const SPARE_CPU: Duration = Duration::from_millis(300);
