//! The second guest: the whole firmware, with its camera shut in as on a board.
//!
//! This program starts as the guest's first process, leaves a child behind, and becomes the
//! firmware (`/init`), which knows nothing of it. The child is everything that happens to a camera:
//! the hand that pulls the plug, the network, the clock, the other programs; and all its viewers.

use std::cell::RefCell;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};
use ocellus::sys::clock;

use super::bench::Bench;
use super::client::Lower;
use super::digest::{Challenge, Credentials};
use super::listener::{Listener, Manners, pause};
use super::viewer::{Viewer, is_live};
use super::{CheckOf, limits, network, replug, silence, stalls, wall_clock};

/// A check of the second guest.
pub(super) type Check = CheckOf<Booted>;

const CHECKS: &[&[(&str, Check)]] = &[
    replug::CHECKS,
    stalls::CHECKS,
    wall_clock::CHECKS,
    network::CHECKS,
    limits::CHECKS,
    silence::CHECKS,
];

/// The camera as the firmware started it.
pub(super) struct Booted {
    /// vivid.
    pub(super) bench: Bench,
    /// A UDP viewer who has said nothing since PLAY.
    pub(super) silent: Listener,
    pid: u32,
    /// Of its web server, for the next request.
    challenge: RefCell<Option<Challenge>>,
}

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
        let filter = std::env::var("checks").unwrap_or_default();
        super::run_all("firmware", &Booted::find(), &CHECKS.concat(), &filter)
    });
    let (passed, failed) = outcome.unwrap_or((0, 1));
    println!("device: result: {passed} passed, {failed} failed");
    let refused = reboot(RebootMode::RB_POWER_OFF).expect_err("the machine is off");
    panic!("power off: {refused}");
}

impl Booted {
    /// Waits until the camera plays.
    fn find() -> Self {
        drop(viewer());
        let bench = Bench::new(NODE.into());
        let manners = Manners { is_silent: true, ..Manners::of(Lower::Udp) };
        let silent = Listener::start(&manners, &credentials());
        let camera = Self { bench, silent, pid: shut_in_camera(), challenge: RefCell::default() };
        println!("  sandboxed camera pid={}", camera.pid);
        camera.tell_time_of_start();
        camera
    }

    /// From now on, buffers are stamped with the time at which vivid begins to fill them. By default
    /// it is that of the end of the picture, which for vivid lies in the future.
    pub(super) fn tell_time_of_start(&self) {
        self.bench.set("timestamp_source", 1);
    }

    /// One more viewer, who looks at the pictures and sees some of the camera's.
    #[allow(clippy::unused_self, reason = "there is none without a camera")]
    pub(super) fn viewer(&self) -> Viewer {
        let mut viewer = viewer();
        let deadline = clock::now() + PATIENCE;
        let mut live = 0;
        while live < 10 {
            assert!(clock::now() < deadline, "the camera gives pictures");
            live = if is_live(&viewer.next(PATIENCE)) { live + 1 } else { 0 };
        }
        viewer
    }

    /// One more viewer, who looks at the packets.
    pub(super) fn listener(&self, lower: Lower) -> Listener {
        Listener::start(&Manners::of(lower), &credentials())
    }

    /// The camera's process, which is still the one of the start.
    pub(super) fn pid(&self) -> u32 {
        assert_eq!(shut_in_camera(), self.pid, "it was not started again");
        self.pid
    }

    pub(super) fn memory_kb(&self) -> u64 {
        self.status("VmRSS")
    }

    pub(super) fn threads(&self) -> u64 {
        self.status("Threads")
    }

    pub(super) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap().count()
    }

    /// Processor time that it has used.
    pub(super) fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        // proc(5): the name is in parentheses, utime and stime are fields 14 and 15.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1_000 / CLOCK_TICKS_HZ)
    }

    /// The part of one processor that it uses, over that time.
    pub(super) fn load(&self, time: Duration) -> f64 {
        let (began, before) = (clock::now(), self.processor_time());
        pause(time);
        let used = self.processor_time() - before;
        used.as_secs_f64() / clock::now().since(began).as_secs_f64()
    }

    /// The value of one of its metrics, of all labels together.
    pub(super) fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics");
        let rows = page.lines().filter_map(|line| {
            let (row, value) = line.rsplit_once(' ')?;
            let is_it = row.split('{').next() == Some(name);
            is_it.then(|| value.parse::<f64>().unwrap())
        });
        let values: Vec<f64> = rows.collect();
        assert!(!values.is_empty(), "no {name} in {page}");
        values.iter().sum()
    }

    /// A page of its web server, by the challenge of the page before while that is good.
    fn get(&self, path: &str) -> String {
        let mut challenge = self.challenge.borrow_mut();
        for _ in 0..2 {
            let answer = challenge.as_ref().map(|it| it.answer(&credentials(), "GET", path));
            let header = answer.map(|it| format!("Authorization: {it}\r\n")).unwrap_or_default();
            let page = request(path, &header);
            if page.starts_with("HTTP/1.1 200 ") {
                return page;
            }
            let headers = page.lines().filter_map(|line| line.split_once(": "));
            let offers = headers.filter(|it| it.0.eq_ignore_ascii_case("WWW-Authenticate"));
            *challenge = offers.filter_map(|(_, value)| Challenge::parse(value)).next_back();
        }
        panic!("no {path}");
    }

    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        field(&status, name)[0].parse().unwrap()
    }
}

fn viewer() -> Viewer {
    let login = retina::client::Credentials { username: USER.into(), password: PASSWORD.into() };
    Viewer::connect(URL, Some(login))
}

impl Manners<'static> {
    /// Those of a viewer in the camera itself.
    pub(super) const fn of(lower: Lower) -> Self {
        Self { url: URL, lower, namespace: None, is_silent: false }
    }
}

pub(super) fn credentials() -> Credentials {
    Credentials { user: USER.into(), password: PASSWORD.into() }
}

fn request(path: &str, header: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&WEB, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let text = format!("GET {path} HTTP/1.1\r\nHost: camera\r\n{header}Connection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
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

pub(super) const ARGUMENT: &str = "--child-viewer";
const SELF: &str = "/device";
const NODE: &str = "/dev/video0";
pub(super) const URL: &str = "rtsp://127.0.0.1:554/main";
const WEB: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);
// As in scripts/device-test; nobody else can reach the machine.
const USER: &str = "admin";
const PASSWORD: &str = "in-this-guest-only";
const PATIENCE: Duration = Duration::from_secs(20);
/// USER_HZ is 100 on every architecture that Linux has here.
const CLOCK_TICKS_HZ: u64 = 100;
