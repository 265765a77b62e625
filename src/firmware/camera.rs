//! Turns this binary into the camera process: its user, its limits, its pipes for beats and words.
//!
//! The camera is nobody to the machine: its own user, the group of the video nodes, no file that it
//! may write, no home. It shuts itself in as soon as it has read its configuration
//! (`OCELLUS_SANDBOX`), before it talks to anybody.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::Resource;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, fchown, pipe2, read};

use super::journal;
use super::settings::IDENTITY;
use crate::sys::process::{self, Identity};
use crate::time::Instant;

/// A camera process that was started.
#[derive(Debug)]
pub(super) struct Camera {
    pid: Pid,
    /// `None` when it has closed its end.
    beats: Option<OwnedFd>,
}

impl Camera {
    /// Starts a camera; `started` is when process 1 was.
    pub(super) fn start(started: Instant, config: Option<&'static str>) -> io::Result<Self> {
        let identity = Some(IDENTITY).filter(|path| Path::new(path).exists());
        for path in config.into_iter().chain(identity) {
            let Err(error) = give_to_camera(Path::new(path)) else { continue };
            log::error!("firmware: {path} cannot be given to the camera error={error}");
        }
        match Self::spawn(started, config, Some(CAMERA)) {
            // Only where these users do not exist, which is in a container.
            Err(error) if is_unmapped(&error) => {
                log::warn!("firmware: camera has no user of its own error={error}");
                Self::spawn(started, config, None)
            }
            done => done,
        }
    }

    fn spawn(
        started: Instant,
        config: Option<&'static str>,
        identity: Option<Identity>,
    ) -> io::Result<Self> {
        let (said, says) = io::pipe()?;
        let (beats, beating) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("ocellus").args(["run", "--no-generated-user"]).current_dir("/").env_clear();
        if let Some(path) = config {
            command.arg("--config").arg(path);
        }
        if let Some(level) = std::env::var_os("RUST_LOG") {
            command.env("RUST_LOG", level);
        }
        command.stdin(Stdio::null()).stdout(says.try_clone()?).stderr(says);
        command.env(STARTED_VARIABLE, started.as_micros().to_string());
        command.env(SANDBOX_VARIABLE, "1");
        process::unblock_signals(&mut command);
        process::pass_on(&mut command, HEARTBEAT_VARIABLE, beating);
        if let Some(identity) = identity {
            process::run_as(&mut command, identity);
        }
        // The handle is dropped, not waited for: the supervisor waits for everybody.
        let child = command.spawn()?;
        journal::follow_camera(said);
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        if let Err(error) = fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE) {
            log::warn!("firmware: oom_score_adj cannot be set pid={pid} error={error}");
        }
        Ok(Self { pid, beats: Some(beats) })
    }

    pub(super) const fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable when there are beats.
    pub(super) fn beats(&self) -> Option<BorrowedFd<'_>> {
        self.beats.as_ref().map(AsFd::as_fd)
    }

    /// Takes the beats that have come; whether there were any.
    pub(super) fn take_beats(&mut self) -> bool {
        let Some(pipe) = &self.beats else { return false };
        let mut beats = [0; 64];
        match read(pipe, &mut beats) {
            Ok(0) => {
                // Closed, and readable for ever.
                self.beats = None;
                false
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }

    pub(super) fn kill(&self) {
        if let Err(errno) = kill(self.pid, Signal::SIGKILL) {
            log::error!("firmware: camera cannot be killed pid={} error={errno}", self.pid);
        }
    }
}

/// Lets the camera read its configuration, which holds passwords and stays closed to all others.
///
/// The folder stays root's: the camera can neither replace the file nor put a link in its place.
fn give_to_camera(path: &Path) -> io::Result<()> {
    let no_link = OFlag::O_NOFOLLOW.bits();
    let file = OpenOptions::new().read(true).custom_flags(no_link).open(path)?;
    let is_for_all = |mode: u32, bit: u32| mode & bit != 0;
    if !is_for_all(file.metadata()?.mode(), 0o004) {
        fchown(&file, Some(CAMERA.uid), Some(CAMERA.gid))?;
    }
    if let Some(folder) = path.parent() {
        let mode = fs::metadata(folder)?.mode() & 0o7777;
        if !is_for_all(mode, 0o001) {
            fs::set_permissions(folder, Permissions::from_mode(mode | 0o011))?;
        }
    }
    Ok(())
}

fn is_unmapped(error: &io::Error) -> bool {
    [Errno::EINVAL, Errno::EPERM].map(|errno| Some(errno as i32)).contains(&error.raw_os_error())
}

/// The group that may open video, media and M2M nodes; the number is Debian's.
pub(super) const VIDEO_GROUP: Gid = Gid::from_raw(44);

const CAMERA: Identity = Identity {
    uid: Uid::from_raw(900),
    gid: Gid::from_raw(900),
    groups: &[VIDEO_GROUP],
    limits: &[
        (Resource::RLIMIT_CORE, 0),
        // Connections and devices; what strangers may open has its own, lower limits.
        (Resource::RLIMIT_NOFILE, 1024),
        // Threads.
        (Resource::RLIMIT_NPROC, 64),
        // Lets the thread that captures run first.
        (Resource::RLIMIT_RTPRIO, 1),
    ],
};

/// When memory is short, it goes first: it alone is back within a second.
const OOM_SCORE: &str = "500";

/// Tells the camera when process 1 started: microseconds of CLOCK_MONOTONIC.
const STARTED_VARIABLE: &str = "OCELLUS_PID1_START_US";
const HEARTBEAT_VARIABLE: &str = "OCELLUS_HEARTBEAT_FD";
const SANDBOX_VARIABLE: &str = "OCELLUS_SANDBOX";
