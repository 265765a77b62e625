//! Turns the card that the machine was started from into /boot and /data.
//!
//! The card is the disk whose first partition carries our volume label. /boot is mounted read-only;
//! who writes there makes it writable for as long. /data is made at the first start: its place is
//! reserved in the partition table, formatted, and then marked complete, so that a power cut at any
//! point either leads to the same steps again or finds the work done. What is complete is checked,
//! and never formatted again.
//!
//! Not implemented: cards of other makers of partition tables (GPT), disks behind USB.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::partitions::{self, Data, Table};
use super::{command_line, worker};
use crate::sys::block::Disk;
use crate::sys::uevent::{Received, UeventSocket};
use crate::sys::{clock, process};

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Table(#[from] partitions::Error),
    #[error("the second partition is not ours")]
    Foreign,
    #[error("{call} failed: {source}")]
    Io { call: &'static str, source: io::Error },
    #[error("{program} took longer than {PROGRAM_LIMIT:?}")]
    Slow { program: &'static str },
    #[error("{program} ended with {status}")]
    Program { program: &'static str, status: std::process::ExitStatus },
}

/// Whether the image says that it lives on a card; a machine without one starts from memory alone.
pub(super) fn is_expected() -> bool {
    command_line::has("card")
}

/// Finds the card and mounts it; whatever of that fails, the folders stay those of the initramfs.
///
/// Modules for the card and its file systems are loaded, or being loaded, and nobody reaps children.
pub(super) fn bring_up() {
    let started = clock::now();
    let Some(mut card) = wait_for_card() else {
        log::error!("storage: no card with label {LABEL:?} within {CARD_WAIT:?}, nothing is kept");
        return;
    };
    log::info!("storage: card found disk={} sectors={}", card.name, card.sectors);
    // The kernel reads a table again only as long as nothing of the disk is mounted.
    let reserved = card.reserve_data();
    say("/boot", card.mount(1, BOOT, "vfat", MsFlags::MS_RDONLY, "utf8,umask=0077"));
    let mounted = reserved.and_then(|()| card.prepare_data());
    say("/data", mounted);
    let took_ms = clock::now().since(started).as_millis();
    log::info!("storage: done took_ms={took_ms}");
}

/// Leaves the card consistent; nobody uses it any more.
pub(super) fn shut_down() {
    for target in [DATA, BOOT] {
        // Not mounted is the usual reason.
        let _ = umount2(target, MntFlags::empty());
    }
}

fn say(target: &str, result: Result<(), Error>) {
    match result {
        Ok(()) => log::info!("storage: mounted target={target}"),
        Err(error) => log::error!("storage: {target} is not mounted error={error}"),
    }
}

/// The kernel announces disks and partitions; each announcement is a reason to look again.
fn wait_for_card() -> Option<Card> {
    // Listening comes first: a card that appears during the look is then seen at the next one.
    let socket = UeventSocket::open().ok();
    let end = clock::now() + CARD_WAIT;
    let mut buffer = vec![0; MAX_UEVENT_LEN];
    loop {
        if let Some(card) = Card::find() {
            return Some(card);
        }
        let left = end.since(clock::now());
        if left.is_zero() {
            return None;
        }
        let Some(socket) = &socket else {
            worker::wait(left.min(POLLING));
            continue;
        };
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        // An interruption is a look for nothing.
        let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        while !matches!(socket.receive(&mut buffer), Received::Empty) {}
    }
}

#[derive(Debug)]
struct Card {
    /// The kernel's name of the disk.
    name: String,
    sectors: u64,
    table: Table,
}

impl Card {
    fn find() -> Option<Self> {
        let disks = fs::read_dir(DISKS).ok()?.filter_map(Result::ok);
        let mut names: Vec<_> =
            disks.filter_map(|disk| disk.file_name().into_string().ok()).collect();
        names.sort();
        names.iter().filter(|name| is_card(name)).find_map(|name| Self::read(name))
    }

    /// The card, if `name` is one of ours.
    fn read(name: &str) -> Option<Self> {
        let folder = Path::new(DISKS).join(name);
        if folder.join("partition").exists() {
            return None;
        }
        let disk = Disk::open(&Path::new("/dev").join(name), false).ok()?;
        let table = Table::parse(disk.read_sector(0).ok()?)?;
        let boot = disk.read_sector(table.boot_first()).ok()?;
        if partitions::fat32_label(&boot)? != LABEL.as_bytes() {
            return None;
        }
        let sectors = fs::read_to_string(folder.join("size")).ok()?.trim().parse().ok()?;
        Some(Self { name: name.to_owned(), sectors, table })
    }

    /// The first start's first step.
    fn reserve_data(&mut self) -> Result<(), Error> {
        if self.table.data() != Data::Absent {
            return Ok(());
        }
        self.table.reserve_data(self.sectors)?;
        let disk = self.write_table()?;
        disk.reread_partitions().map_err(|source| Error::Io { call: "BLKRRPART", source })
    }

    /// Formats what is not complete, checks what is, and mounts it.
    fn prepare_data(&mut self) -> Result<(), Error> {
        match self.table.data() {
            Data::Foreign | Data::Absent => return Err(Error::Foreign),
            Data::Reserved => {
                log::info!("storage: data partition is being made");
                run(MKE2FS, MKE2FS_ARGUMENTS, &self.partition(2), 0)?;
                self.table.complete_data();
                self.write_table()?;
            }
            Data::Complete => {
                let checked = run(E2FSCK, &["-p"], &self.partition(2), E2FSCK_REPAIRED);
                if let Err(error) = checked {
                    // Nobody is there who could answer its questions.
                    log::error!("storage: data partition is being repaired error={error}");
                    run(E2FSCK, &["-f", "-y"], &self.partition(2), E2FSCK_REPAIRED)?;
                }
            }
        }
        self.mount(2, DATA, "ext4", MsFlags::MS_NOATIME, "errors=remount-ro,noinit_itable")
    }

    fn mount(
        &self,
        index: u32,
        target: &'static str,
        kind: &'static str,
        flags: MsFlags,
        data: &'static str,
    ) -> Result<(), Error> {
        // If it is missing, mount says so.
        let _ = fs::create_dir(target);
        let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some(self.partition(index).as_str()), target, Some(kind), flags, Some(data))
            .map_err(|errno| Error::Io { call: "mount", source: errno.into() })
    }

    /// Returns when the card has the first sector.
    fn write_table(&self) -> Result<Disk, Error> {
        let disk = Disk::open(&Path::new("/dev").join(&self.name), true);
        let written = disk.and_then(|disk| {
            disk.write_sector(0, self.table.sector())?;
            Ok(disk)
        });
        written.map_err(|source| Error::Io { call: "writing the partition table", source })
    }

    /// `mmcblk0p1`, but `vda1`.
    fn partition(&self, index: u32) -> String {
        let separator =
            if self.name.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
        format!("/dev/{}{separator}{index}", self.name)
    }
}

/// SD cards and eMMC, and QEMU's disks.
fn is_card(name: &str) -> bool {
    ["mmcblk", "vd"].iter().any(|prefix| name.starts_with(prefix))
}

/// Runs one of e2fsprogs; `tolerated` are the bits of its status that are no failure.
fn run(
    program: &'static str,
    arguments: &[&str],
    device: &str,
    tolerated: i32,
) -> Result<(), Error> {
    let mut command = Command::new(program);
    // What it says goes to the console, like our own words.
    command.args(arguments).arg(device).stdin(Stdio::null()).stdout(Stdio::null());
    process::unblock_signals(&mut command);
    let mut child = command.spawn().map_err(|source| Error::Io { call: program, source })?;
    let end = clock::now() + PROGRAM_LIMIT;
    let status = loop {
        let status = child.try_wait().map_err(|source| Error::Io { call: program, source })?;
        match status {
            Some(status) => break status,
            None if clock::now() < end => worker::wait(PROGRAM_POLLING),
            None => {
                // It may hang in the card's driver, where no signal reaches it; it is not waited for.
                let _ = child.kill();
                return Err(Error::Slow { program });
            }
        }
    };
    match status.code() {
        Some(code) if code & !tolerated == 0 => Ok(()),
        _ => Err(Error::Program { program, status }),
    }
}

/// The volume label that board/*/post-image gives to the FAT partition, padded as it is stored.
const LABEL: &str = "OCELLUS    ";
const BOOT: &str = "/boot";
const DATA: &str = "/data";
const DISKS: &str = "/sys/class/block";

const MKE2FS: &str = "/sbin/mke2fs";
/// Everything is written at once, so that the kernel has nothing left to write when pictures flow;
/// few inodes and a small journal keep that short on large cards.
const MKE2FS_ARGUMENTS: &[&str] = &[
    "-q",
    "-F",
    "-t",
    "ext4",
    "-b",
    "4096",
    "-m",
    "0",
    "-N",
    "4096",
    "-J",
    "size=4",
    "-L",
    "ocellus-data",
    "-E",
    "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
];
const E2FSCK: &str = "/sbin/e2fsck";
/// e2fsck(8): errors were corrected; a restart would be good if it were the root.
const E2FSCK_REPAIRED: i32 = 0b11;

/// Both take less than 2 s for 16 GB; a card that fails must not cost the pictures.
const PROGRAM_LIMIT: Duration = Duration::from_secs(60);
const PROGRAM_POLLING: Duration = Duration::from_millis(10);
/// Cards answer within a second or two; a slow one must not cost the pictures.
const CARD_WAIT: Duration = Duration::from_secs(10);
/// Between looks when the kernel cannot be listened to.
const POLLING: Duration = Duration::from_millis(200);
/// The kernel's UEVENT_BUFFER_SIZE is 2048, and a header comes before it.
const MAX_UEVENT_LEN: usize = 8192;
