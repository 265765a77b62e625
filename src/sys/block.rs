//! Turns a disk's device node into sectors, and a changed partition table into the kernel's partitions.
//!
//! open(2), pread(2), pwrite(2), fsync(2); linux/fs.h: BLKRRPART.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::uio::{pread, pwrite};
use nix::unistd::fsync;

/// A disk that is open.
#[derive(Debug)]
pub struct Disk(OwnedFd);

impl Disk {
    /// # Errors
    ///
    /// Those of open(2).
    pub fn open(path: &Path, writable: bool) -> io::Result<Self> {
        let access = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
        Ok(Self(open(path, access | OFlag::O_CLOEXEC, Mode::empty())?))
    }

    /// # Errors
    ///
    /// `UnexpectedEof` behind the end, else those of pread(2).
    pub fn read_sector(&self, index: u64) -> io::Result<[u8; SECTOR_LEN]> {
        let mut sector = [0; SECTOR_LEN];
        let len = pread(&self.0, &mut sector, offset(index)?)?;
        if len < SECTOR_LEN { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(sector) }
    }

    /// Returns when the disk says that it has the sector.
    ///
    /// # Errors
    ///
    /// `WriteZero` behind the end, else those of pwrite(2) and fsync(2).
    pub fn write_sector(&self, index: u64, sector: &[u8; SECTOR_LEN]) -> io::Result<()> {
        if pwrite(&self.0, sector, offset(index)?)? < SECTOR_LEN {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(fsync(&self.0)?)
    }

    /// Makes the kernel read the partition table again; device nodes of new partitions exist
    /// afterwards.
    ///
    /// # Errors
    ///
    /// EBUSY while any partition of the disk is mounted; ENOTTY for what is no disk.
    pub fn reread_partitions(&self) -> io::Result<()> {
        // SAFETY: BLKRRPART takes no argument and touches no memory of this process; the descriptor
        // is open because `self` owns it.
        unsafe { blkrrpart(self.0.as_raw_fd()) }?;
        Ok(())
    }
}

fn offset(index: u64) -> io::Result<i64> {
    let bytes = index.checked_mul(SECTOR_LEN as u64).and_then(|bytes| i64::try_from(bytes).ok());
    bytes.ok_or_else(|| Errno::EOVERFLOW.into())
}

nix::ioctl_none!(
    /// linux/fs.h: `_IO(0x12, 95)`.
    blkrrpart,
    0x12,
    95
);

/// Bytes; the kernel's unit of addresses on every disk.
pub const SECTOR_LEN: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_come_back_and_none_lies_behind_the_end() {
        let path = std::env::temp_dir().join(format!("ocellus-block-{}", std::process::id()));
        std::fs::write(&path, [7; 2 * SECTOR_LEN + 100]).unwrap();
        let disk = Disk::open(&path, true).unwrap();
        disk.write_sector(1, &[9; SECTOR_LEN]).unwrap();
        assert_eq!(disk.read_sector(0).unwrap(), [7; SECTOR_LEN]);
        assert_eq!(disk.read_sector(1).unwrap(), [9; SECTOR_LEN]);
        for index in [2, 3, u64::MAX / 512, u64::MAX] {
            assert!(disk.read_sector(index).is_err(), "{index}");
        }
        let error = disk.reread_partitions().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ENOTTY as i32));
        std::fs::remove_file(path).unwrap();
    }
}
