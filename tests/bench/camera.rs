//! The camera as a process: started, watched through /proc and strace, ended.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

pub(crate) struct Camera {
    child: Child,
    address: SocketAddr,
    log: thread::JoinHandle<String>,
}

/// What the kernel has accounted so far; times in seconds of CPU.
pub(crate) struct Usage {
    pub(crate) rss_kib: u64,
    pub(crate) cpu_s: f64,
    pub(crate) capture_s: f64,
    pub(crate) encode_s: f64,
    pub(crate) serve_s: f64,
}

impl Camera {
    pub(crate) fn binary() -> &'static str {
        env!("CARGO_BIN_EXE_ocellus")
    }

    fn command(address: &str) -> Command {
        let mut command = Command::new(Self::binary());
        command.args(["run", "--rtsp", address, "--no-auth", "--http", "off"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts a camera that lets everybody in, on a port of the kernel's choice.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Self::command("127.0.0.1:0").args(arguments).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let address = url.trim().strip_prefix("rtsp://").and_then(|url| url.split('/').next());
        let address = address.unwrap().parse().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Self { child, address, log }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts a camera, asks for OPTIONS until there is an answer, and ends it.
    pub(crate) fn time_to_first_reply() -> Duration {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let started = Instant::now();
        let mut command = Self::command(&free.to_string());
        let mut child = command.args(["--source", "pattern"]).spawn().unwrap();
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
        let id = self.child.id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Usage {
            rss_kib: rss.trim().trim_end_matches(" kB").parse().unwrap(),
            cpu_s: self.threads().iter().map(|(_, _, cpu)| cpu).sum(),
            capture_s: self.cpu_of("capture"),
            encode_s: self.cpu_of("encode"),
            serve_s: self.cpu_of("serve"),
        }
    }

    fn cpu_of(&self, name: &str) -> f64 {
        self.threads().iter().filter(|(_, other, _)| other == name).map(|(_, _, cpu)| cpu).sum()
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

    /// Calls of the server's thread within `time`, and the most frequent ones by name.
    pub(crate) fn count_syscalls(&self, time: Duration) -> (u64, String) {
        let threads = self.threads();
        let (serve, ..) = threads.iter().find(|(_, name, _)| name == "serve").unwrap();
        let mut strace = Command::new("strace")
            .args(["-c", "-p", &serve.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed (scripts/setup)");
        thread::sleep(time);
        kill(Pid::from_raw(strace.id().cast_signed()), Signal::SIGINT).unwrap();
        let mut table = String::new();
        strace.stderr.take().unwrap().read_to_string(&mut table).unwrap();
        strace.wait().unwrap();
        // % time, seconds, usecs/call, calls, [errors,] syscall
        let rows: Vec<(u64, &str)> = table
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let calls = fields.get(3)?.parse().ok()?;
                Some((calls, *fields.last()?)).filter(|(_, name)| *name != "total")
            })
            .collect();
        let calls = rows.iter().map(|(calls, _)| calls).sum();
        let mut names: Vec<_> = rows;
        names.sort_unstable_by(|a, b| b.cmp(a));
        let names: Vec<String> =
            names.iter().take(4).map(|(calls, name)| format!("{name} {calls}")).collect();
        (calls, names.join(", "))
    }

    /// Ends the camera and returns its log.
    pub(crate) fn stop(mut self) -> String {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
        self.log.join().unwrap()
    }
}
