//! Turns a folder of a file system into the configuration's `Disk`, and secrets in it into zeros.
//!
//! A secret is overwritten where it lies: FAT, and ext4 without data journalling, write a block of
//! a file to the same place again. Bytes that a rename replaced are overwritten too, as soon as the
//! new name is safe.
//!
//! Not implemented: what an SD card's own controller keeps of overwritten sectors is out of reach,
//! and so are the blocks of a save that a power cut ended.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::sys::uio::pwrite;
use nix::unistd::{fsync, ftruncate};

use crate::config::Disk;

/// A folder; its files are for their owner alone.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Files that have lost their names; they still hold what they held.
    replaced: Vec<OwnedFd>,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), replaced: Vec::new() }
    }
}

impl Disk for Folder {
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Not truncated first: what an earlier save left there is overwritten, not let go.
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.join(name))?;
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path.join(name))?.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let to = self.path.join(to);
        let replaced = OpenOptions::new().write(true).open(&to);
        fs::rename(self.path.join(from), &to)?;
        self.replaced.extend(replaced.map(OwnedFd::from));
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        sync_folder(&self.path)?;
        for fd in self.replaced.drain(..) {
            if let Err(errno) = overwrite(&fd) {
                log::warn!("firmware: replaced bytes cannot be overwritten error={errno}");
            }
        }
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        read(&self.path.join(name))
    }
}

/// The first bytes of a file, more than a configuration may have; `None` when there is no file.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match OpenOptions::new().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_READ_LEN).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Overwrites a file's clusters with zeros, truncates it, and removes it, each step safe before the
/// next. Nothing is done when there is no file.
pub(super) fn erase(path: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => OwnedFd::from(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    overwrite(&file)?;
    remove(path)
}

/// Overwrites what removed files have left behind: fills the folder's file system with zeros in a
/// file `name`, and removes that. Repeated after a power cut, it finds the file and goes on.
pub(super) fn erase_free_space(folder: &Path, name: &str) -> io::Result<()> {
    let path = folder.join(name);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    // FAT gives a page whole or not at all, so the last clusters are asked for one by one.
    let mut filled = Ok(());
    for len in [ZEROS.len(), SECTOR_LEN] {
        while filled.is_ok() {
            filled = file.write_all(ZEROS.get(..len).unwrap_or_default());
        }
        match &filled {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => filled = file.sync_all(),
            _ => break,
        }
    }
    drop(file);
    // A full file system would take no answer to the person.
    remove(&path)?;
    filled
}

/// Removes a file for good, with its folder's entry on the disk.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        done => done?,
    }
    path.parent().map_or(Ok(()), sync_folder)
}

/// Whether a power cut ended [`erase`] here: then at least one sector is zeros, and no text has
/// such a sector.
pub(super) fn is_half_erased(bytes: &[u8]) -> bool {
    bytes.chunks(SECTOR_LEN).any(|sector| sector.iter().all(|&byte| byte == 0))
}

fn overwrite(file: &OwnedFd) -> Result<(), Errno> {
    let stat = fstat(file)?;
    let len = u64::try_from(stat.st_size).unwrap_or(0);
    // On FAT, the size of a cluster: behind the end may be what a longer file left there.
    let cluster_len = u64::try_from(stat.st_blksize).unwrap_or(1).max(1);
    let (end, mut at) = (len.next_multiple_of(cluster_len), 0);
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        let zeros = ZEROS.get(..left).unwrap_or(&ZEROS);
        match pwrite(file.as_fd(), zeros, i64::try_from(at).map_err(|_| Errno::EFBIG)?)? {
            0 => return Err(Errno::EIO),
            written => at += written as u64,
        }
    }
    fsync(file)?;
    ftruncate(file, 0)?;
    fsync(file)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).open(path)?.sync_all()
}

static ZEROS: [u8; 16 << 10] = [0; 16 << 10];
/// What a card writes whole or not at all.
const SECTOR_LEN: usize = 512;
/// A configuration, rounded up to the largest cluster, and more than that.
const MAX_READ_LEN: u64 = 1 << 20;

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::config::{Config, Origin, Store};

    /// A folder that is removed at the end.
    pub(in crate::firmware) struct Scratch(pub(in crate::firmware) PathBuf);

    impl Scratch {
        pub(in crate::firmware) fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("ocellus-folder-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_store_on_a_real_folder_keeps_the_newest_configuration_for_its_owner_alone() {
        let scratch = Scratch::new();
        for name in ["first", "a much longer second name", "third"] {
            let config = Config { name: name.into(), ..Config::default() };
            Store::new(Folder::new(&scratch.0)).save(&config).unwrap();
            let found = Store::new(Folder::new(&scratch.0)).load();
            assert_eq!((found.config, found.origin), (config, Origin::Current));
            assert!(found.faults.is_empty(), "{:?}", found.faults);
        }
        for file in fs::read_dir(&scratch.0).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{file:?}");
        }
    }

    #[test]
    fn a_shorter_text_leaves_nothing_of_the_longer_one() {
        let scratch = Scratch::new();
        let mut folder = Folder::new(&scratch.0);
        folder.write("file", b"a long text").unwrap();
        folder.write("file", b"short").unwrap();
        assert_eq!(folder.read("file").unwrap().unwrap(), b"short");
        assert_eq!(folder.read("none").unwrap(), None);
    }

    #[test]
    fn what_a_rename_replaced_is_zeros_once_the_name_is_safe() {
        let scratch = Scratch::new();
        let mut folder = Folder::new(&scratch.0);
        folder.write("old", b"secret").unwrap();
        // A second name shows what becomes of the bytes.
        fs::hard_link(scratch.0.join("old"), scratch.0.join("witness")).unwrap();
        folder.write("new", b"public").unwrap();
        folder.rename("new", "old").unwrap();
        assert_eq!(folder.read("witness").unwrap().unwrap(), b"secret", "not before it is safe");
        folder.sync_dir().unwrap();
        assert_eq!(folder.read("witness").unwrap().unwrap(), b"");
        assert_eq!(folder.read("old").unwrap().unwrap(), b"public");
    }

    #[test]
    fn an_erased_file_is_gone_and_a_missing_one_is_no_error() {
        let scratch = Scratch::new();
        let path = scratch.0.join("file");
        for len in [0, 1, 511, 512, 513, 4096, 70_000] {
            fs::write(&path, vec![b'x'; len]).unwrap();
            fs::hard_link(&path, scratch.0.join("witness")).unwrap();
            erase(&path).unwrap();
            assert!(!path.exists());
            assert_eq!(fs::read(scratch.0.join("witness")).unwrap(), b"", "{len}");
            fs::remove_file(scratch.0.join("witness")).unwrap();
            erase(&path).unwrap();
        }
    }

    #[test]
    fn an_interrupted_erasure_is_known_by_a_sector_of_zeros() {
        let text = "{ \"name\": \"gate\" } ".repeat(100).into_bytes();
        assert!(!is_half_erased(&text));
        let utf16: Vec<u8> = text.iter().flat_map(|&byte| [byte, 0]).collect();
        assert!(!is_half_erased(&utf16), "a text in another encoding is the person's");
        assert!(!is_half_erased(&[]));
        for sector in 0..text.len().div_ceil(512) {
            let mut torn = text.clone();
            torn.chunks_mut(512).nth(sector).unwrap().fill(0);
            assert!(is_half_erased(&torn), "{sector}");
        }
    }
}
