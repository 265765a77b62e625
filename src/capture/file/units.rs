//! Reads the access units of an Annex B file, from its first IDR picture to its end.
//!
//! Hands out only what a decoder can start with and go on with: nothing before an IDR picture
//! with usable parameter sets, and nothing between a damaged picture and the next such one.
//! Every IDR picture comes with parameter sets, inserted where the file has none.
//!
//! Not implemented: more than one SPS or PPS per stream, and noticing that the last picture of
//! a cut file is not whole.

use std::fmt;
use std::io::{self, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::capture::Error;
use crate::h264::annexb::Splitter;
use crate::h264::{
    AccessUnit, Continuity, NalType, ParameterSets, begins_picture, is_complete_before, nal_type,
};
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
    continuity: Continuity,
    /// The last ones read since the beginning of the file; empty when there was none.
    sps: Vec<u8>,
    pps: Vec<u8>,
    /// The same two together, when they can be used.
    sets: Option<ParameterSets>,
    /// Holds an access unit while parameter sets are put into it.
    scratch: AccessUnit,
    /// Whether there was a NAL unit at all.
    has_nal_units: bool,
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
            continuity: Continuity::START,
            sps: Vec::new(),
            pps: Vec::new(),
            sets: None,
            scratch: AccessUnit::default(),
            has_nal_units: false,
        })
    }

    /// Starts again at the beginning of the file.
    pub(super) fn rewind(&mut self) -> Result<(), Error> {
        self.file.rewind().map_err(|error| os_error(&self.path, "lseek", &error))?;
        self.splitter.reset();
        self.is_at_end = false;
        self.continuity = Continuity::START;
        // An IDR picture ahead of all parameter sets stays dropped in every round.
        self.sps.clear();
        self.pps.clear();
        self.sets = None;
        Ok(())
    }

    /// Those that the last IDR picture was, or would be, handed out with.
    pub(super) fn parameter_sets(&self) -> Option<&ParameterSets> {
        self.sets.as_ref()
    }

    /// Why reading has not come to an access unit.
    pub(super) fn fault(&self) -> &'static str {
        if !self.has_nal_units {
            "no start code: not an H.264 Annex B byte stream"
        } else if self.sps.is_empty() {
            "no sequence parameter set"
        } else if self.pps.is_empty() {
            "no picture parameter set"
        } else if self.sets.is_none() {
            "parameter sets that cannot be used"
        } else if self.is_at_end {
            "no IDR picture after its parameter sets"
        } else {
            "no IDR picture in its first 16 MiB"
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
            if progress != Progress::Unit || self.admits(unit) {
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
                    self.continuity.interrupt();
                    return Ok(Progress::Busy);
                }
                *budget -= 1;
                self.read()?;
                continue;
            };
            self.has_nal_units |= nal.is_ok();
            if nal.is_ok_and(|nal| is_complete_before(unit, nal)) {
                return Ok(Progress::Unit);
            }
            if nal.and_then(|nal| unit.push(nal)).is_err() {
                // What is left of this picture is no picture; `admits` will see that.
                self.continuity.interrupt();
                unit.reset(unit.captured());
            }
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

    /// Whether `unit` can be handed out; completes it when it is an IDR picture.
    fn admits(&mut self, unit: &mut AccessUnit) -> bool {
        self.remember(unit);
        let is_slice = |nal: &&[u8]| nal_type(nal).is_some_and(NalType::is_slice);
        let Some(is_whole) = unit.nal_units().find(is_slice).map(begins_picture) else {
            return false;
        };
        let is_start = unit.is_idr() && is_whole && self.complete(unit);
        if !is_whole || (unit.is_idr() && !is_start) {
            self.continuity.interrupt();
        }
        self.continuity.admit(is_start, true)
    }

    /// Keeps the parameter sets of `unit`; allocates only when they are not those kept already.
    fn remember(&mut self, unit: &AccessUnit) {
        let mut is_changed = false;
        for (wanted, kept) in [(NalType::SPS, &mut self.sps), (NalType::PPS, &mut self.pps)] {
            if let Some(nal) = unit.find(wanted).filter(|nal| nal != kept) {
                kept.clear();
                kept.extend_from_slice(nal);
                is_changed = true;
            }
        }
        if is_changed {
            self.sets = ParameterSets::new(&self.sps, &self.pps).ok();
        }
    }

    /// Puts in the parameter sets that the IDR picture `unit` lacks; false when there are none.
    fn complete(&mut self, unit: &mut AccessUnit) -> bool {
        let Some(sets) = &self.sets else { return false };
        let has = |wanted| unit.find(wanted).is_some();
        if has(NalType::SPS) && has(NalType::PPS) {
            return true;
        }
        self.scratch.copy_from(unit);
        unit.reset(unit.captured());
        // 7.4.1.2.3: the delimiter comes first; the parameter sets before what refers to them.
        let is_delimiter = |nal: &&[u8]| nal_type(nal) == Some(NalType::AUD);
        let is_set = |nal: &&[u8]| matches!(nal_type(nal), Some(NalType::SPS | NalType::PPS));
        let delimiter = self.scratch.nal_units().filter(is_delimiter);
        let rest = self.scratch.nal_units().filter(|nal| !is_delimiter(nal) && !is_set(nal));
        let mut nals = delimiter.chain([sets.sps(), sets.pps()]).chain(rest);
        nals.try_for_each(|nal| unit.push(nal)).is_ok()
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
