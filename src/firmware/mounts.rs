//! Turns an empty root into the file systems that Linux programs expect.
//!
//! proc(5), sysfs(5), tmpfs(5); devtmpfs is the kernel's own /dev.

use std::fs;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

/// Mounts everything, and goes on past what cannot be mounted, which is returned: there is no log
/// before /sys is mounted.
pub(super) fn mount_all() -> Vec<(&'static str, Errno)> {
    let mut failed = Vec::new();
    for Mount { kind, target, flags, data } in MOUNTS {
        // If it is missing, mount says so.
        let _ = fs::create_dir(target);
        let flags = MsFlags::MS_NOSUID | *flags;
        match mount(Some(*kind), *target, Some(*kind), flags, Some(*data)) {
            // Busy: the kernel (devtmpfs.mount=1) or a container has mounted it.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => failed.push((*target, errno)),
        }
    }
    failed
}

struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    data: &'static str,
}

const NODEV_NOEXEC: MsFlags = MsFlags::MS_NODEV.union(MsFlags::MS_NOEXEC);

const MOUNTS: &[Mount] = &[
    Mount { kind: "proc", target: "/proc", flags: NODEV_NOEXEC, data: "" },
    Mount { kind: "sysfs", target: "/sys", flags: NODEV_NOEXEC, data: "" },
    Mount { kind: "devtmpfs", target: "/dev", flags: MsFlags::MS_NOEXEC, data: "mode=0755" },
    Mount { kind: "tmpfs", target: "/run", flags: NODEV_NOEXEC, data: "mode=0755,size=8m" },
    Mount { kind: "tmpfs", target: "/tmp", flags: NODEV_NOEXEC, data: "mode=1777,size=16m" },
];
