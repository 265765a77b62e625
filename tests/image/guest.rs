//! A booted image: its console as lines, its keyboard, and QEMU's monitor.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) struct Options {
    pub(crate) size: &'static str,
    pub(crate) fps: &'static str,
    pub(crate) bitrate: &'static str,
    pub(crate) append: &'static str,
    /// One of scripts/run-qemu's.
    pub(crate) board: &'static str,
    pub(crate) card: Option<PathBuf>,
    /// Files over those of the image, as cpio.
    pub(crate) archive: Option<PathBuf>,
    /// Whether a guest that restarts does so, instead of ending QEMU.
    pub(crate) reboot: bool,
    /// Whether the card's own configuration is used, instead of one with a fresh password.
    pub(crate) own_config: bool,
    /// The UDP ports of frames to the host and to the guest, instead of QEMU's own network.
    pub(crate) wire: Option<(u16, u16)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size: "320x240",
            fps: "10",
            bitrate: "500k",
            append: "",
            board: "qemu-virt",
            card: None,
            archive: None,
            reboot: false,
            own_config: false,
            wire: None,
        }
    }
}

pub(crate) struct Guest {
    process: Child,
    keyboard: Option<ChildStdin>,
    console: Receiver<String>,
    /// Every line that was received so far.
    log: Vec<String>,
    /// What run-qemu prints; nobody else needs to read it.
    urls: Option<Receiver<String>>,
    url: String,
    rtsp: u16,
    /// Two emulated machines at once would starve each other.
    _alone: MutexGuard<'static, ()>,
}

impl Guest {
    /// Returns when the stream's URL was printed.
    pub(crate) fn boot(options: &Options) -> Self {
        let mut guest = Self::start(options);
        let url = guest.urls.as_ref().and_then(|urls| urls.recv_timeout(BOOT).ok());
        guest.url = url.unwrap_or_else(|| panic!("no URL: {}", guest.text()));
        guest
    }

    /// Returns at once; there is no URL then.
    pub(crate) fn start(options: &Options) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (rtsp, mut udp) = free_ports();
        if options.wire.is_some() {
            // Only the guest has it then.
            udp = 8_000;
        }
        let wire = options.wire.map(|(host, guest)| format!("{host}:{guest}"));
        let mut command = Command::new(root().join("scripts/run-qemu"));
        command
            .args(["--rtsp", &rtsp.to_string(), "--udp", &udp.to_string()])
            .args(["--size", options.size, "--fps", options.fps, "--bitrate", options.bitrate])
            .args(["--append", options.append, "--timeout", "300", "--board", options.board])
            .args(options.card.iter().flat_map(|card| [OsStr::new("--card"), card.as_os_str()]))
            .args(options.archive.iter().flat_map(|file| [OsStr::new("--add"), file.as_os_str()]))
            .args(options.reboot.then_some("--reboot"))
            .args(options.own_config.then_some("--own-config"))
            .args(wire.iter().flat_map(|wire| ["--wire", wire]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let urls = Some(lines(process.stdout.take().unwrap()));
        let mut guest = Self::with(process, alone);
        (guest.urls, guest.rtsp) = (urls, rtsp);
        guest
    }

    /// Wraps a process whose standard error is the console.
    pub(crate) fn over(process: Child) -> Self {
        Self::with(process, ALONE.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with(mut process: Child, alone: MutexGuard<'static, ()>) -> Self {
        let console = lines(process.stderr.take().unwrap());
        let keyboard = process.stdin.take();
        let (log, url) = (Vec::new(), String::new());
        Self { process, keyboard, console, log, urls: None, url, rtsp: 0, _alone: alone }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The host's port that leads to the guest's RTSP.
    pub(crate) fn rtsp_port(&self) -> u16 {
        self.rtsp
    }

    /// The next line of the console that contains `text`.
    pub(crate) fn line(&mut self, text: &str) -> String {
        loop {
            let Ok(line) = self.console.recv_timeout(PATIENCE) else {
                panic!("no {text:?} on the console: {}", self.text());
            };
            self.log.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The next line of the console that contains either text.
    pub(crate) fn either(&mut self, one: &str, other: &str) -> String {
        loop {
            let line = self.line("");
            if line.contains(one) || line.contains(other) {
                return line;
            }
        }
    }

    /// The first line of the whole console that contains `text`.
    pub(crate) fn first_line(&mut self, text: &str) -> String {
        let found = self.log.iter().find(|line| line.contains(text)).cloned();
        found.unwrap_or_else(|| self.line(text))
    }

    /// Whether a line that was received so far contains `text`.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        self.log.iter().any(|line| line.contains(text))
    }

    /// How many of the lines that were received so far contain `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.log.iter().filter(|line| line.contains(text)).count()
    }

    /// Magic SysRq: a break on the serial line (Ctrl-a b), then a key.
    pub(crate) fn type_break_and(&mut self, key: &str) {
        self.type_text(&format!("\x01b{key}"));
    }

    /// One command to QEMU's monitor, which shares the terminal (Ctrl-a c).
    pub(crate) fn monitor(&mut self, command: &str) {
        self.type_text(&format!("\x01c{command}\n\x01c"));
    }

    fn type_text(&mut self, text: &str) {
        let keyboard = self.keyboard.as_mut().unwrap();
        keyboard.write_all(text.as_bytes()).unwrap();
        keyboard.flush().unwrap();
    }

    /// Signals what the wrapped process has started.
    pub(crate) fn signal_children(&self, signal: Signal) {
        for child in children(self.process.id()) {
            kill(Pid::from_raw(child.cast_signed()), signal).unwrap();
        }
    }

    /// Signals what process 1 has started.
    pub(crate) fn signal_camera(&self, signal: Signal) {
        for camera in children(self.process.id()).into_iter().flat_map(children) {
            kill(Pid::from_raw(camera.cast_signed()), signal).unwrap();
        }
    }

    fn text(&self) -> String {
        let rest: Vec<_> = self.console.try_iter().collect();
        format!("{:#?} {rest:#?}", self.log)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // scripts/run-qemu takes QEMU with it; SIGKILL would leave it behind.
        let _ = kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

/// Process 1 starts the camera from its main thread.
fn children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

pub(crate) fn image() -> PathBuf {
    root().join("target/images/qemu-virt/initramfs.cpio.zst")
}

/// The value of `key=` in a line of the console.
pub(crate) fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let found = line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {key} in: {line}"))
}

/// A line's time stamp.
pub(crate) fn stamp(line: &str) -> Duration {
    let seconds = line.split_once('[').unwrap().1.split_once(']').unwrap().0;
    Duration::from_secs_f64(seconds.trim().parse().unwrap())
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Reads lines in a thread of their own, so that waiting for one can end.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            if send.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    receive
}

/// A free TCP port, and the even one of two free UDP ports.
fn free_ports() -> (u16, u16) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for _ in 0..100 {
        let even = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() & !1;
        if UdpSocket::bind(("127.0.0.1", even)).is_ok()
            && UdpSocket::bind(("127.0.0.1", even | 1)).is_ok()
        {
            return (tcp, even);
        }
    }
    panic!("no free pair of UDP ports");
}

static ALONE: Mutex<()> = Mutex::new(());

/// Emulation on a busy machine: boot takes 5 to 15 s.
const BOOT: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(60);
