//! The five operations that a configuration is kept with.
//!
//! What POSIX promises after a power cut is little: bytes written are there once `sync` has
//! returned, names are there once `sync_dir` has returned, and until then any part of either may
//! be there, in any order. `rename` alone is whole or not at all. `store` is written for that, and
//! its test disk does all of it; the real one is the firmware's.

use std::io;

/// One folder of a file system; every name is that of a file directly in it.
pub trait Disk {
    /// Makes the file hold these bytes and nothing else, and creates it if need be.
    ///
    /// # Errors
    ///
    /// The system's; the file may then hold anything.
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Waits until the file's bytes survive a power cut; its name may not.
    ///
    /// # Errors
    ///
    /// The system's; nothing is known about the bytes then.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Gives the file another name, in place of the file that has it.
    ///
    /// # Errors
    ///
    /// The system's.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Waits until all names survive a power cut.
    ///
    /// # Errors
    ///
    /// The system's; nothing is known about the names then.
    fn sync_dir(&mut self) -> io::Result<()>;

    /// The file's bytes, or `None` when there is no such file.
    ///
    /// # Errors
    ///
    /// The system's.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
}

/// Replaces a file so that a power cut leaves the old bytes or the new ones.
///
/// # Errors
///
/// The first operation's that failed; the old bytes or the new ones are there even then.
pub fn replace(disk: &mut impl Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!("{name}.new");
    disk.write(&new, bytes)?;
    disk.sync(&new)?;
    disk.rename(&new, name)?;
    disk.sync_dir()
}
