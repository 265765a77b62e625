//! Says who has a device open, and who may: what a refusal wants to be told with.
//!
//! proc(5): `/proc/PID/fd`, `/proc/PID/comm`. Processes of other users are invisible without root.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

/// The processes that have the device at `path` open, as `name (pid 123)`, joined by commas.
///
/// `except` is the caller's own descriptor, which is not counted.
pub(super) fn holders(path: &Path, except: Option<BorrowedFd<'_>>) -> Option<String> {
    let device = fs::metadata(path).ok().filter(|meta| meta.file_type().is_char_device())?.rdev();
    let own = except.map(|fd| (std::process::id(), fd.as_raw_fd()));
    let processes = fs::read_dir("/proc").ok()?;
    let mut pids: Vec<u32> = processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| {
            let own = own.and_then(|(me, fd)| (me == pid).then_some(fd));
            has_open(pid, device, own).unwrap_or(false)
        })
        .collect();
    pids.sort_unstable();
    let names: Vec<String> = pids.into_iter().map(describe).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Whether a process has the device open by another descriptor than `except`.
fn has_open(pid: u32, device: u64, except: Option<i32>) -> Option<bool> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let found = descriptors.filter_map(Result::ok).any(|entry| {
        let fd = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        // Follows the link, so that renamed and deleted nodes count too.
        let is_it = fs::metadata(entry.path())
            .is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == device);
        is_it && (fd.is_none() || fd != except)
    });
    Some(found)
}

fn describe(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = name.trim_end();
    format!("{} (pid {pid})", if name.is_empty() { "?" } else { name })
}

/// What would let this process open the device: who owns it, and the group to join.
pub(super) fn permission_hint(path: &Path) -> String {
    let Ok(meta) = fs::metadata(path) else {
        return "a directory on the way is closed to this user".to_owned();
    };
    let group = Group::from_gid(Gid::from_raw(meta.gid())).ok().flatten();
    let group = group.map_or_else(|| meta.gid().to_string(), |group| group.name);
    let user = User::from_uid(Uid::effective()).ok().flatten();
    let user = user.map_or_else(|| Uid::effective().to_string(), |user| user.name);
    hint(meta.mode(), &group, &user)
}

fn hint(mode: u32, group: &str, user: &str) -> String {
    const GROUP_READ_WRITE: u32 = 0o060;
    let mode = mode & 0o7777;
    if mode & GROUP_READ_WRITE == GROUP_READ_WRITE && group != "root" {
        format!("group {group} may open it (mode {mode:04o}): `usermod -aG {group} {user}`")
    } else {
        format!("its mode is {mode:04o}, group {group}: run as its owner, or let a group open it")
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn a_process_that_has_the_device_open_is_named() {
        // No other test of this crate opens this device.
        let path = Path::new("/dev/full");
        let fd = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        let me = format!("(pid {})", std::process::id());
        assert!(holders(path, None).unwrap().contains(&me));
        assert!(!holders(path, Some(fd.as_fd())).unwrap_or_default().contains(&me));
        let second = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        assert!(holders(path, Some(fd.as_fd())).unwrap().contains(&me));
        drop((fd, second));
        assert!(!holders(path, None).unwrap_or_default().contains(&me));
    }

    #[test]
    fn what_is_no_device_is_held_by_nobody() {
        assert_eq!(holders(Path::new("/proc/self/status"), None), None);
        assert_eq!(holders(Path::new("/dev/no-such-node"), None), None);
    }

    #[test]
    fn the_hint_names_a_group_only_if_joining_it_helps() {
        assert_eq!(
            hint(0o20660, "video", "ada"),
            "group video may open it (mode 0660): `usermod -aG video ada`"
        );
        assert!(hint(0o20600, "video", "ada").contains("mode is 0600"));
        assert!(!hint(0o20660, "root", "ada").contains("usermod"));
    }
}
