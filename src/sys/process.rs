//! Turns a process that is to be started into one with a clean slate: its signals, descriptors,
//! user and limits; and a thread into one that does not wait for others.
//!
//! credentials(7), setrlimit(2), sched(7).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::uio::pread;
use nix::unistd::{Gid, SysconfVar, Uid, setgroups, setresgid, setresuid, sysconf};

/// Lets the process receive the signals that this thread blocks.
///
/// The mask is inherited, and PID 1 reads its signals from a descriptor.
pub fn unblock_signals(command: &mut Command) {
    let unblock = || SigSet::empty().thread_set_mask().map_err(Into::into);
    // SAFETY: between fork and exec only async-signal-safe functions may run. The closure calls
    // pthread_sigmask, which is one, on a set that lives on its stack; it allocates nothing, takes
    // no lock, and an error is made of a number only.
    unsafe { command.pre_exec(unblock) };
}

/// Lets the process have `fd`, under the number that it has here and that `variable` tells.
pub fn pass_on(command: &mut Command, variable: &str, fd: OwnedFd) {
    command.env(variable, fd.as_raw_fd().to_string());
    let keep =
        move || fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop).map_err(io::Error::from);
    // SAFETY: between fork and exec only async-signal-safe functions may run. The closure calls
    // fcntl, which is one, on a descriptor that it owns; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(keep) };
}

/// Takes over the pipe whose descriptor's number is in the environment; `None` without one.
///
/// # Errors
///
/// When the number is none, or names anything but an inherited pipe.
pub fn inherited_pipe(variable: &str) -> io::Result<Option<OwnedFd>> {
    let Ok(number) = std::env::var(variable) else { return Ok(None) };
    let number = number.parse().ok().filter(|&number: &i32| number > 2).ok_or(Errno::EINVAL)?;
    // SAFETY: the number is not -1, and the borrow does not outlive this function. Should nothing
    // be open under it, the calls below say EBADF, and only plain system calls are made with it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = FdFlag::from_bits_retain(fcntl(borrowed, FcntlArg::F_GETFD)?);
    let kind = SFlag::from_bits_truncate(fstat(borrowed)?.st_mode) & SFlag::S_IFMT;
    if flags.contains(FdFlag::FD_CLOEXEC) || kind != SFlag::S_IFIFO {
        return Err(Errno::EBADF.into());
    }
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: the descriptor is open, and nobody else in this process owns it: whatever we open has
    // FD_CLOEXEC from the start, so one without it was inherited, and now has it, so that a second
    // call is refused above.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Who a process is, and how much it may use.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub uid: Uid,
    pub gid: Gid,
    /// Supplementary groups.
    pub groups: &'static [Gid],
    /// Both soft and hard.
    pub limits: &'static [(Resource, u64)],
}

/// Makes the process start as `identity`, for good: no program that it could run gives it more.
pub fn run_as(command: &mut Command, identity: Identity) {
    let become_it = move || {
        let Identity { uid, gid, groups, limits } = identity;
        for &(resource, limit) in limits {
            setrlimit(resource, limit, limit)?;
        }
        setgroups(groups)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        prctl::set_no_new_privs()?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe functions may run. The closure makes
    // system calls by thin wrappers that allocate nothing; those of the C library that would tell
    // other threads find none, because fork(2) copies only the calling thread.
    unsafe { command.pre_exec(become_it) };
}

/// How much memory this process holds, whatever files it is left later.
#[derive(Debug)]
pub struct ResidentMemory(OwnedFd);

impl ResidentMemory {
    /// # Errors
    ///
    /// Without proc(5).
    pub fn open() -> nix::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        open("/proc/self/statm", flags, Mode::empty()).map(Self)
    }

    /// Reads it.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let mut text = [0; 128];
        let len = pread(&self.0, &mut text, 0).ok()?;
        let text = str::from_utf8(text.get(..len)?).ok()?;
        let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
        let page_len = sysconf(SysconfVar::PAGE_SIZE).ok()??;
        Some(pages * u64::try_from(page_len).ok()?)
    }
}

/// Lets the calling thread run before all others, as far as RLIMIT_RTPRIO lets it.
///
/// `Ok(false)` without such a limit: then nothing has changed.
///
/// # Errors
///
/// Those of sched_setscheduler(2).
pub fn hurry_thread() -> nix::Result<bool> {
    let (limit, _) = getrlimit(Resource::RLIMIT_RTPRIO)?;
    if limit == 0 {
        return Ok(false);
    }
    // The kernel's struct sched_param has one field; musl's has more, and its own function refuses.
    let priority: libc::c_int = 1;
    // SAFETY: the third argument points to the int that the call reads, which outlives it; 0 means
    // the calling thread; nothing is kept.
    let done = unsafe {
        libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_RR, &raw const priority)
    };
    Errno::result(done).map(|_| true)
}

/// Asks for short turns for the calling thread: having slept, it runs before threads with longer
/// ones, instead of waiting for the end of theirs, which is up to a tick of the kernel away.
///
/// For threads that do little, often. Takes nothing from the others over time, and needs no
/// privilege. Kernels before 6.12 keep all turns alike.
///
/// # Errors
///
/// Those of sched_setattr(2).
pub fn shorten_turns() -> nix::Result<()> {
    let mut attributes = scheduling()?;
    attributes.sched_runtime = TURN_NS;
    // SAFETY: the second argument points to a `sched_attr` that says its own size, which the call
    // reads and which outlives it; 0 means the calling thread, and no flags; nothing is kept.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    Errno::result(done).map(drop)
}

/// How the calling thread is scheduled.
fn scheduling() -> nix::Result<libc::sched_attr> {
    // SAFETY: `sched_attr` is integers only, for which zeros are values.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let len = size_of::<libc::sched_attr>();
    // SAFETY: the second argument points to a `sched_attr` of the length that the third one says,
    // which the call fills and which outlives it; 0 means the calling thread, and no flags.
    let done = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, len, 0) };
    Errno::result(done).map(|_| attributes)
}

/// The shortest that there is.
const TURN_NS: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_asks_for_short_turns_changes_in_nothing_else() {
        let asking = || {
            let before = scheduling().unwrap();
            shorten_turns().unwrap();
            let after = scheduling().unwrap();
            assert_eq!(after.sched_policy, before.sched_policy);
            assert_eq!(after.sched_nice, before.sched_nice);
            // A kernel that does not know them says what it said before.
            assert!([TURN_NS, before.sched_runtime].contains(&after.sched_runtime));
        };
        std::thread::spawn(asking).join().unwrap();
    }

    #[test]
    fn memory_that_is_used_is_seen() {
        let memory = ResidentMemory::open().unwrap();
        let before = memory.bytes().unwrap();
        assert!(before > 1 << 20);
        let used = std::hint::black_box(vec![1_u8; 32 << 20]);
        assert!(memory.bytes().unwrap() >= before + (24 << 20), "{before}");
        drop(used);
    }
}
