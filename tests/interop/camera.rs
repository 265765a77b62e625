//! Runs the camera as a user does: a child process, its URL on stdout, its log on stderr.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::digest::Credentials;

/// A running camera; killed by its own handle when dropped.
///
/// One at a time: two of them, with their viewers, are too much for two cores; but see
/// [`Camera::spawn_beside`].
#[derive(Debug)]
pub(crate) struct Camera {
    child: Child,
    /// The main stream's URL as printed.
    pub(crate) url: String,
    log: Arc<Mutex<String>>,
    lines: Mutex<mpsc::Receiver<String>>,
    _alone: Option<MutexGuard<'static, ()>>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Camera {
    /// Starts `ocellus run` with a password of its own and waits for the first URL.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(&credentials(), arguments)
    }

    pub(crate) fn start_with(credentials: &Credentials, arguments: &[&str]) -> Self {
        Self::spawn(&mut Self::command(credentials, arguments))
    }

    #[allow(dead_code, reason = "tests/hardship has cameras beside each other")]
    pub(crate) fn start_beside(arguments: &[&str]) -> Self {
        Self::spawn_beside(&mut Self::command(&credentials(), arguments))
    }

    fn command(credentials: &Credentials, arguments: &[&str]) -> Command {
        let mut command = binary();
        command.arg("run").args(arguments);
        command.args(["--rtsp", "127.0.0.1:0", "--user", &credentials.user]);
        if !arguments.contains(&"--http") {
            command.args(["--http", "off"]);
        }
        command.env("OCELLUS_PASSWORD", &credentials.password).env("RUST_LOG", "info");
        command
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::spawn_with(command, Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Starts it beside others: one that costs little, and has few viewers.
    #[allow(dead_code, reason = "tests/hardship has cameras beside each other")]
    pub(crate) fn spawn_beside(command: &mut Command) -> Self {
        Self::spawn_with(command, None)
    }

    fn spawn_with(command: &mut Command, alone: Option<MutexGuard<'static, ()>>) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut stderr = child.stderr.take().unwrap();
        let sink = Arc::clone(&log);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = stderr.read(&mut bytes) {
                sink.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..len]));
            }
        });
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut camera =
            Self { child, url: String::new(), log, lines: Mutex::new(lines), _alone: alone };
        let first = camera.lines.lock().unwrap().recv_timeout(READY);
        match first {
            Ok(line) => camera.url = line,
            Err(_) => panic!("it ended, or gave no URL within {READY:?}"),
        }
        camera
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything the camera wrote on stderr so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Whether the log is as `wanted`, now or soon: it comes through a pipe.
    pub(crate) fn comes_to_say(&self, wanted: impl Fn(&str) -> bool) -> bool {
        let asked = Instant::now();
        loop {
            if wanted(&self.log()) {
                return true;
            }
            if asked.elapsed() >= LOG_LAG {
                return false;
            }
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Asks for the end with SIGTERM; returns how it ended, how long it took, and its stdout since.
    pub(crate) fn stop(mut self) -> (ExitStatus, Duration, Vec<String>) {
        let asked = Instant::now();
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(id, Signal::SIGTERM).unwrap();
        // The stdout pipe ends with the process: its channel closes.
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.lock().unwrap().recv_timeout(READY) {
            rest.push(line);
        }
        let took = asked.elapsed();
        if took >= READY {
            self.child.kill().unwrap();
        }
        (self.child.wait().unwrap(), took, rest)
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("camera stderr:\n{}", self.log());
        }
    }
}

/// The camera that is tested: this build's, or the aarch64 one that `OCELLUS_BINARY` names.
fn binary() -> Command {
    let Some(binary) = std::env::var_os("OCELLUS_BINARY") else {
        return Command::new(env!("CARGO_BIN_EXE_ocellus"));
    };
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/run-target"));
    command.arg(binary);
    command
}

pub(crate) fn credentials() -> Credentials {
    Credentials { user: "admin".into(), password: "correct-horse-9".into() }
}

/// How long a start may take on a loaded two-core machine.
const READY: Duration = Duration::from_secs(20);
/// How late a line of the log may arrive.
const LOG_LAG: Duration = Duration::from_secs(2);
