//! A copy of the Raspberry Pi's card image, and mtools to look into its boot partition.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::guest::{Options, root};

pub(crate) fn image() -> PathBuf {
    root().join("target/images/ocellus-raspberrypi-arm64.img")
}

/// A fresh card of a size; removed when dropped.
pub(crate) struct Card(PathBuf);

impl Card {
    pub(crate) fn new(name: &str, len: u64) -> Self {
        let path = std::env::temp_dir().join(format!("ocellus-{}-{name}", std::process::id()));
        fs::copy(image(), &path).unwrap();
        // What lies behind the image takes no room on the host.
        OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn options(&self, board: &'static str) -> Options {
        Options { board, card: Some(self.0.clone()), ..Options::default() }
    }

    /// Type, first sector and number of sectors of the data partition.
    pub(crate) fn data(&self) -> (u8, u32, u32) {
        let mut entry = [0; 16];
        File::open(&self.0).unwrap().read_exact_at(&mut entry, 446 + 16).unwrap();
        let number = |at: usize| u32::from_le_bytes(*entry[at..].first_chunk().unwrap());
        (entry[4], number(8), number(12))
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        let card = OpenOptions::new().write(true).open(&self.0).unwrap();
        card.write_all_at(bytes, offset).unwrap();
    }

    /// Every byte of the boot partition, whether a file has it or not.
    pub(crate) fn boot_partition(&self) -> Vec<u8> {
        let mut bytes = vec![0; BOOT_LEN];
        File::open(&self.0).unwrap().read_exact_at(&mut bytes, BOOT_AT).unwrap();
        bytes
    }

    /// Puts a file on the boot partition, as a person does with the card in a reader.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let mut copy = self.mcopy(&["-o", "-", &format!("::{name}")]);
        let mut copy = copy.stdin(Stdio::piped()).spawn().unwrap();
        copy.stdin.take().unwrap().write_all(bytes).unwrap();
        assert!(copy.wait().unwrap().success(), "{name}");
    }

    /// A file of the boot partition.
    pub(crate) fn get(&self, name: &str) -> Option<Vec<u8>> {
        let output = self.mcopy(&[&format!("::{name}"), "-"]).output().unwrap();
        output.status.success().then_some(output.stdout)
    }

    fn mcopy(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("mcopy");
        let partition = format!("{}@@{BOOT_AT}", self.0.display());
        command.env("MTOOLS_SKIP_CHECK", "1").args(["-i", &partition]).args(arguments);
        command
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The boot partition: 4 to 60 MiB.
const BOOT_AT: u64 = 4 << 20;
const BOOT_LEN: usize = 56 << 20;
