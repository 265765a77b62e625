//! A server as a process: started, watched through /proc and strace, ended.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{fmt, fs};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::clip;

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ocellus,
    Gst,
    Floor,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ocellus => "ocellus",
            Self::Gst => "gst-rtsp-server",
            Self::Floor => "floor",
        })
    }
}

pub(crate) struct Server {
    kind: Kind,
    child: Child,
    address: SocketAddr,
    log: thread::JoinHandle<String>,
}

/// What the kernel has accounted so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) rss_kib: u64,
    /// Of it, what no file backs.
    pub(crate) anonymous_kib: u64,
    pub(crate) descriptors: usize,
    pub(crate) switches: u64,
    /// CPU seconds by thread.
    cpu: Vec<(String, f64)>,
}

impl Usage {
    pub(crate) fn cpu_s(&self) -> f64 {
        self.cpu.iter().map(|(_, cpu)| cpu).sum()
    }

    /// Of the threads that are called `name`.
    pub(crate) fn cpu_of(&self, name: &str) -> f64 {
        self.cpu.iter().filter(|(other, _)| other == name).map(|(_, cpu)| cpu).sum()
    }
}

impl Server {
    pub(crate) fn binary() -> &'static str {
        env!("CARGO_BIN_EXE_ocellus")
    }

    /// `keys` are further ones of the configuration, each with its comma.
    fn ocellus(address: &str, keys: &str) -> Command {
        // Everybody comes from one address here.
        let limits = r#""rtsp": { "max_viewers": 1024, "max_per_address": 1024 }"#;
        let config = clip::folder().join("ocellus.json");
        fs::write(&config, format!("{{ {keys} {limits} }}")).unwrap();
        let mut command = Command::new(Self::binary());
        command.arg("run").arg("--config").arg(config);
        command.args(["--rtsp", address, "--no-auth"]);
        command
    }

    /// Starts a camera that lets everybody in, on a port of the kernel's choice.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_configured("", &[&["--http", "off"], arguments].concat())
    }

    /// The same, with these keys in its configuration, and HTTP unless it is switched off.
    pub(crate) fn start_configured(keys: &str, arguments: &[&str]) -> Self {
        let mut command = Self::ocellus("127.0.0.1:0", keys);
        command.args(arguments);
        Self::spawn(Kind::Ocellus, command)
    }

    /// Starts a server of any kind that plays the clip, for `count` viewers.
    pub(crate) fn playing_clip(kind: Kind, clip: &Path, count: usize) -> Self {
        let command = match kind {
            Kind::Ocellus => {
                return Self::start(&["--source", &format!("file:{}", clip.display())]);
            }
            Kind::Gst => {
                let launcher = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/peer.py");
                // Debian's own: another Python would not find Debian's bindings.
                let mut command = Command::new("/usr/bin/python3");
                command.arg(launcher).arg(clip::timed_clip());
                command
            }
            Kind::Floor => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.arg("--as-floor").arg(clip).arg(count.to_string());
                command
            }
        };
        Self::spawn(kind, command)
    }

    /// Starts a server, which prints its address or URL when it is ready.
    fn spawn(kind: Kind, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let address = url.trim().trim_start_matches("rtsp://").split('/').next();
        let Some(Ok(address)) = address.map(str::parse) else {
            child.kill().unwrap();
            panic!("{kind} does not start: {}", log.join().unwrap());
        };
        Self { kind, child, address, log }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts a camera, asks for OPTIONS until there is an answer, and ends it.
    pub(crate) fn time_to_first_reply() -> Duration {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let started = Instant::now();
        let mut command = Self::ocellus(&free.to_string(), "");
        let mut child = command
            .args(["--source", "pattern", "--http", "off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut connection = loop {
            match TcpStream::connect(free) {
                Ok(connection) => break connection,
                Err(_) => assert!(started.elapsed() < Duration::from_secs(10)),
            }
        };
        write!(connection, "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n").unwrap();
        connection.read_exact(&mut [0; 12]).unwrap();
        let took = started.elapsed();
        child.kill().unwrap();
        child.wait().unwrap();
        took
    }

    pub(crate) fn usage(&self) -> Usage {
        let folder = format!("/proc/{}", self.child.id());
        let status = fs::read_to_string(format!("{folder}/status")).unwrap();
        let threads = self.threads();
        let switches = threads.iter().map(|(id, ..)| {
            let status = fs::read_to_string(format!("{folder}/task/{id}/status"));
            let status = status.unwrap_or_default();
            field(&status, "voluntary_ctxt_switches:")
                + field(&status, "nonvoluntary_ctxt_switches:")
        });
        Usage {
            rss_kib: field(&status, "VmRSS:"),
            anonymous_kib: field(&status, "RssAnon:"),
            descriptors: fs::read_dir(format!("{folder}/fd")).unwrap().count(),
            switches: switches.sum(),
            cpu: threads.into_iter().map(|(_, name, cpu)| (name, cpu)).collect(),
        }
    }

    /// Id, name and CPU seconds of every thread.
    fn threads(&self) -> Vec<(u32, String, f64)> {
        let folder = format!("/proc/{}/task", self.child.id());
        let second = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap() as f64;
        let tasks = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        tasks
            .map(|task| {
                let id = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
                let name = fs::read_to_string(task.join("comm")).unwrap().trim().to_owned();
                // schedstat counts nanoseconds where stat counts ticks of 10 ms.
                let cpu = match fs::read_to_string(task.join("schedstat")) {
                    Ok(text) => text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9,
                    Err(_) => {
                        let stat = fs::read_to_string(task.join("stat")).unwrap();
                        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
                        let ticks = fields.skip(11).take(2).map(|t| t.parse::<f64>().unwrap());
                        ticks.sum::<f64>() / second
                    }
                };
                (id, name, cpu)
            })
            .collect()
    }

    /// System calls of all threads within `time` by name, the most frequent first.
    pub(crate) fn count_syscalls(&self, time: Duration) -> Vec<(String, u64)> {
        let mut strace = Command::new("strace")
            .args(["-c", "-f", "-p", &self.child.id().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed (scripts/setup)");
        thread::sleep(time);
        kill(Pid::from_raw(strace.id().cast_signed()), Signal::SIGINT).unwrap();
        let mut table = String::new();
        strace.stderr.take().unwrap().read_to_string(&mut table).unwrap();
        strace.wait().unwrap();
        // % time, seconds, usecs/call, calls, [errors,] syscall
        let mut calls: Vec<(String, u64)> = table
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let count = fields.get(3)?.parse().ok()?;
                Some(((*fields.last()?).to_owned(), count)).filter(|(name, _)| name != "total")
            })
            .collect();
        calls.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        calls
    }

    /// Ends the server and returns its log.
    pub(crate) fn stop(mut self) -> String {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
        self.log.join().unwrap()
    }
}

/// The number behind `name` at the start of a line.
fn field(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
