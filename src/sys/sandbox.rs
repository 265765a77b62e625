//! Turns a process that can do what its user can into one that can do what a camera does.
//!
//! landlock(7) for files, by directories, so that device nodes which appear later are covered;
//! seccomp(2) for system calls (`filter`). Both hold for the calling thread and those that it
//! starts from then on, and cannot be undone: a process calls them before it has other threads.
//!
//! Not implemented: Landlock's network and ioctl rules, which Linux 6.1 does not have.

mod filter;

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc::{self, c_int, c_long};
use nix::sys::prctl;
use nix::sys::stat::Mode;

pub use filter::restrict_calls;

/// Leaves the thread no files but those beneath `read`, for reading, and beneath `read_write`.
///
/// What is open stays usable. Folders that do not exist are passed over. Nothing can be made,
/// removed, renamed or executed, whatever the lists say.
///
/// # Errors
///
/// ENOSYS or EOPNOTSUPP from a kernel without Landlock; then nothing has changed.
pub fn restrict_files(read: &[&Path], read_write: &[&Path]) -> io::Result<()> {
    let ruleset = create_ruleset()?;
    for (paths, rights) in [(read, READ), (read_write, READ | WRITE_FILE)] {
        for path in paths {
            // The standard library takes O_PATH for an access mode on musl, and drops it.
            match open(*path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
                Ok(beneath) => add_rule(&ruleset, &beneath, rights)?,
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    prctl::set_no_new_privs()?;
    // SAFETY: the first argument is an open descriptor of a ruleset, the second no flags.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    Errno::result(done)?;
    Ok(())
}

fn create_ruleset() -> io::Result<OwnedFd> {
    // SAFETY: with this flag the call takes no structure and returns a number.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, VERSION_FLAG)
    };
    // Unknown rights are refused, so only those are named that this kernel knows.
    let handled = match Errno::result(version)? {
        ..=1 => RIGHTS_1,
        2 => RIGHTS_2,
        _ => RIGHTS_3,
    };
    let attributes = RulesetAttributes { handled_access_fs: handled };
    let (pointer, len) = (&raw const attributes, size_of::<RulesetAttributes>());
    // SAFETY: the first argument points to a structure of the length in the second, laid out as
    // the kernel's first version of it, and outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, pointer, len, 0) };
    let fd = descriptor(Errno::result(fd)?)?;
    // SAFETY: the call has just opened it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn add_rule(ruleset: &OwnedFd, beneath: &OwnedFd, rights: u64) -> io::Result<()> {
    let rule = PathBeneath { allowed_access: rights, parent_fd: beneath.as_raw_fd() };
    // SAFETY: the descriptors are open, the third argument points to a structure of the kind that
    // the second names, laid out as the kernel's, which outlives the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            RULE_PATH_BENEATH,
            &raw const rule,
            0,
        )
    };
    Errno::result(done)?;
    Ok(())
}

fn descriptor(returned: c_long) -> io::Result<c_int> {
    c_int::try_from(returned).map_err(|_| Errno::EBADF.into())
}

/// `struct landlock_ruleset_attr`, as of its first version.
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: c_int,
}

const VERSION_FLAG: u32 = 1;
const RULE_PATH_BENEATH: c_int = 1;
const WRITE_FILE: u64 = 1 << 1;
/// Files and folders.
const READ: u64 = 1 << 2 | 1 << 3;
/// All rights of versions 1, 2 (refer) and 3 (truncate).
const RIGHTS_1: u64 = (1 << 13) - 1;
const RIGHTS_2: u64 = (1 << 14) - 1;
const RIGHTS_3: u64 = (1 << 15) - 1;

#[cfg(test)]
#[allow(clippy::print_stdout, reason = "a test that is passed over says so")]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;
    use std::thread;

    use super::*;

    /// In a thread of its own, which takes its restrictions along when it ends.
    fn restricted(calls: fn() -> io::Result<()>, work: impl FnOnce() + Send + 'static) {
        thread::spawn(move || {
            let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
            match restrict_files(&[&data, Path::new("/no/such/folder")], &[Path::new("/dev")]) {
                Ok(()) => {}
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)) =>
                {
                    // Without Landlock there is nothing to prove.
                    return;
                }
                Err(error) => panic!("{error}"),
            }
            calls().unwrap();
            work();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn files_are_read_where_it_is_allowed_and_nowhere_else() {
        restricted(restrict_calls, || {
            let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
            let some = fs::read_dir(&data)
                .unwrap()
                .filter_map(Result::ok)
                .find(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
            fs::read(some.unwrap().path()).unwrap();
            assert!(fs::read_dir("/dev").unwrap().count() > 0);
            for closed in ["/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/1/cmdline"] {
                let error = fs::read(closed).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{closed}");
            }
            let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
            assert_eq!(fs::read(here).unwrap_err().kind(), ErrorKind::PermissionDenied);
        });
    }

    #[test]
    fn devices_are_written_and_nothing_is_made() {
        restricted(restrict_calls, || {
            fs::write("/dev/null", "x").unwrap();
            let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
            for made in [data.join("made"), std::env::temp_dir().join("ocellus-made")] {
                let error = fs::write(&made, "x").unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", made.display());
            }
            assert!(fs::create_dir("/dev/made").is_err());
        });
    }

    #[test]
    fn files_alone_are_restricted_too() {
        restricted(
            || Ok(()),
            || {
                let error = fs::read("/etc/passwd").unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PermissionDenied);
                assert!(Command::new("/bin/true").status().is_err());
            },
        );
    }

    #[test]
    fn whoever_executes_a_program_dies() {
        const CHILD: &str = "OCELLUS_TEST_EXECUTES";
        if std::env::var_os(CHILD).is_some() {
            restrict_calls().unwrap();
            let error = nix::unistd::execv(c"/bin/true", &[c"true"]);
            panic!("still there: {error:?}");
        }
        let this = std::env::current_exe().unwrap();
        let name = "sys::sandbox::tests::whoever_executes_a_program_dies";
        let mut child = Command::new(this);
        child.args(["--exact", name, "--test-threads", "1"]).env(CHILD, "1");
        let status = child.output().unwrap().status;
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
    }
}
