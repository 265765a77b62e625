//! Reads the access units of an Annex B file, from its first IDR picture to its end.
//!
//! What can be handed out of them is for [`Assembler`] to say.

use std::fmt;
use std::io::{self, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::capture::Error;
use crate::h264::annexb::Splitter;
use crate::h264::{AccessUnit, Assembler, Missing, ParameterSets, is_complete_before};
use crate::time::Instant;

#[allow(clippy::disallowed_types, reason = "this module owns the file that it plays")]
type OpenFile = std::fs::File;

/// A file that is being read, and what the reading needs to remember.
pub(super) struct Units {
    path: PathBuf,
    file: OpenFile,
    piece: Box<[u8]>,
    splitter: Splitter,
    /// Whether `file` has no more bytes.
    is_at_end: bool,
    assembler: Assembler,
}

/// What a call of [`Units::next`] has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// An access unit has been read.
    Unit,
    /// [`MAX_PIECES`] have been read without one; the next call goes on.
    Busy,
    /// The file has ended.
    End,
}

impl Units {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let os = |error| os_error(path, "open", &error);
        // Asked first, because opening a FIFO would wait for its writer.
        let metadata = std::fs::metadata(path).map_err(os)?;
        if !metadata.is_file() {
            return Err(Error::BadFile { path: path.to_owned(), reason: "not a regular file" });
        }
        Ok(Self {
            path: path.to_owned(),
            file: OpenFile::open(path).map_err(os)?,
            piece: vec![0; PIECE_LEN].into(),
            splitter: Splitter::default(),
            is_at_end: false,
            assembler: Assembler::default(),
        })
    }

    /// Starts again at the beginning of the file.
    pub(super) fn rewind(&mut self) -> Result<(), Error> {
        self.file.rewind().map_err(|error| os_error(&self.path, "lseek", &error))?;
        self.splitter.reset();
        self.is_at_end = false;
        // An IDR picture ahead of all parameter sets stays dropped in every round.
        self.assembler.restart();
        Ok(())
    }

    /// Those that the last IDR picture was, or would be, handed out with.
    pub(super) fn parameter_sets(&self) -> Option<&ParameterSets> {
        self.assembler.parameter_sets()
    }

    /// Why reading has not come to an access unit.
    pub(super) fn fault(&self) -> &'static str {
        match self.assembler.missing() {
            Missing::NalUnits => "no start code: not an H.264 Annex B byte stream",
            Missing::Sps => "no sequence parameter set",
            Missing::Pps => "no picture parameter set",
            Missing::UsableParameterSets => "parameter sets that cannot be used",
            Missing::IdrPicture if self.is_at_end => "no IDR picture after its parameter sets",
            Missing::IdrPicture => "no IDR picture in its first 16 MiB",
        }
    }

    /// Reads the next access unit into `unit`, which is worth nothing unless the answer is
    /// [`Progress::Unit`].
    pub(super) fn next(
        &mut self,
        unit: &mut AccessUnit,
        captured: Instant,
    ) -> Result<Progress, Error> {
        let mut budget = MAX_PIECES;
        loop {
            unit.reset(captured);
            let progress = self.gather(unit, &mut budget)?;
            if progress != Progress::Unit || self.assembler.admit(unit) {
                return Ok(progress);
            }
        }
    }

    /// Collects NAL units up to the first of the next access unit.
    fn gather(&mut self, unit: &mut AccessUnit, budget: &mut usize) -> Result<Progress, Error> {
        loop {
            let Some(nal) = self.splitter.peek() else {
                if self.is_at_end {
                    return Ok(if unit.is_empty() { Progress::End } else { Progress::Unit });
                }
                if *budget == 0 {
                    self.assembler.interrupt();
                    return Ok(Progress::Busy);
                }
                *budget -= 1;
                self.read()?;
                continue;
            };
            if nal.is_ok_and(|nal| is_complete_before(unit, nal)) {
                return Ok(Progress::Unit);
            }
            self.assembler.push(unit, nal);
            self.splitter.consume();
        }
    }

    fn read(&mut self) -> Result<(), Error> {
        match self.file.read(&mut self.piece) {
            Ok(0) => {
                self.is_at_end = true;
                self.splitter.end();
            }
            Ok(len) => self.splitter.receive(&self.piece[..len]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(os_error(&self.path, "read", &error)),
        }
        Ok(())
    }
}

impl fmt::Debug for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Units").field("path", &self.path).finish_non_exhaustive()
    }
}

fn os_error(path: &Path, call: &'static str, error: &io::Error) -> Error {
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    Error::Os { path: path.to_owned(), call, errno }
}

/// Bytes read at a time.
const PIECE_LEN: usize = 64 << 10;
/// Pieces read in one call: 16 MiB of anything but pictures, then the caller has a say.
const MAX_PIECES: usize = (16 << 20) / PIECE_LEN;
