//! Turns a [`Config`] into two files that survive power cuts, and back into a [`Config`].
//!
//! Each file is one line, `ocellus-config 1 sha256=HEX`, and then the JSON that the sum is of. Both
//! hold the same configuration; the second, `.good`, is written when the first is safe, and is read
//! when the first is damaged or not understood. A file without the first line was put there by a
//! person: it is taken if it is a configuration.
//!
//! Not implemented: reading what a later version wrote; such a file is left for it and not read.

use std::fmt::Write as _;
use std::io;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::Config;
use super::disk::{Disk, replace};

/// The configuration of a device, on its disk.
#[derive(Debug)]
pub struct Store<D> {
    disk: D,
}

/// What was found.
#[derive(Debug)]
pub struct Loaded {
    /// The default configuration when nothing usable was found: it lets nobody in.
    pub config: Config,
    pub origin: Origin,
    /// Files that want [`Store::save`] to put them right.
    pub faults: Vec<Fault>,
}

/// Where a configuration came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Current,
    LastGood,
    /// There was none, or none that could be used.
    None,
}

/// A file that is not what it should be.
#[derive(Debug, Error)]
#[error("{file}: {what}")]
pub struct Fault {
    pub file: &'static str,
    pub what: What,
}

/// What is wrong with a file.
#[derive(Debug, Error)]
pub enum What {
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    #[error("is missing")]
    Missing,
    #[error("is damaged: {0}")]
    Damaged(&'static str),
    #[error("was written by a later version of this program")]
    Newer,
    #[error(transparent)]
    Refused(#[from] super::Error),
    #[error("is older than {CURRENT}")]
    Behind,
}

impl<D: Disk> Store<D> {
    pub const fn new(disk: D) -> Self {
        Self { disk }
    }

    /// Makes this the configuration, whatever happens later.
    ///
    /// # Errors
    ///
    /// The disk's. The configuration that [`Store::load`] finds is then this one or the one before.
    pub fn save(&mut self, config: &Config) -> io::Result<()> {
        let text = emit(&config.to_json());
        // One after the other: at every moment at least one of them is whole and on the disk.
        replace(&mut self.disk, CURRENT, text.as_bytes())?;
        replace(&mut self.disk, LAST_GOOD, text.as_bytes())
    }

    /// Reads the configuration; there is always one to start with.
    #[must_use]
    pub fn load(&self) -> Loaded {
        let (current, last_good) = (self.read(CURRENT), self.read(LAST_GOOD));
        let fault = |file, what| Fault { file, what };
        match (current, last_good) {
            (Ok(config), last_good) => {
                let fault = match last_good {
                    Ok(copy) if copy == config => None,
                    Ok(_) => Some(fault(LAST_GOOD, What::Behind)),
                    Err(what) => Some(fault(LAST_GOOD, what)),
                };
                Loaded { config, origin: Origin::Current, faults: fault.into_iter().collect() }
            }
            (Err(what), Ok(config)) => {
                Loaded { config, origin: Origin::LastGood, faults: vec![fault(CURRENT, what)] }
            }
            // Nothing at all is how a new device begins.
            (Err(What::Missing), Err(What::Missing)) => {
                Loaded { config: Config::default(), origin: Origin::None, faults: Vec::new() }
            }
            (Err(current), Err(last_good)) => Loaded {
                config: Config::default(),
                origin: Origin::None,
                faults: vec![fault(CURRENT, current), fault(LAST_GOOD, last_good)],
            },
        }
    }

    fn read(&self, name: &str) -> Result<Config, What> {
        let bytes = self.disk.read(name).map_err(What::Unreadable)?;
        parse(&bytes.ok_or(What::Missing)?)
    }
}

/// The file that holds this text.
fn emit(json: &str) -> String {
    format!("{FORMAT}{VERSION} sha256={}\n{json}", sum(json))
}

fn parse(bytes: &[u8]) -> Result<Config, What> {
    // A file that was created, but whose bytes never reached the disk.
    if bytes.iter().all(|&byte| byte == 0) {
        return Err(What::Damaged("it is empty"));
    }
    let text = str::from_utf8(bytes).map_err(|_| What::Damaged("it is no text"))?;
    let Some(rest) = text.strip_prefix(FORMAT) else {
        return Ok(Config::from_json(text)?);
    };
    let (header, json) = rest.split_once('\n').ok_or(What::Damaged("it ends in its first line"))?;
    let (version, wanted) =
        header.split_once(" sha256=").ok_or(What::Damaged("its first line has no checksum"))?;
    if version != VERSION {
        return Err(What::Newer);
    }
    if sum(json) != wanted {
        return Err(What::Damaged("its checksum is wrong"));
    }
    Ok(Config::from_json(json)?)
}

fn sum(json: &str) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(json) {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Every name that [`Store`] gives a file: what a factory reset has to erase.
pub const STORE_FILES: [&str; 4] =
    [CURRENT, LAST_GOOD, "ocellus.json.new", "ocellus.json.good.new"];
const CURRENT: &str = "ocellus.json";
const LAST_GOOD: &str = "ocellus.json.good";

const FORMAT: &str = "ocellus-config ";
const VERSION: &str = "1";

#[cfg(test)]
mod tests;
