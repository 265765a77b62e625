//! Plays an H.264 file in a loop as a camera would: its access units, one by one, in real time.
//!
//! Unit `n` is due at `start + n / fps` and carries that time, however often the file has begun
//! anew. A caller who comes late gets the units that he missed, no faster than twice the frame
//! rate; one who is later than [`MAX_LATENESS`] goes on from where he was, and the schedule
//! starts again at that moment. Capture times increase in any case.
//!
//! Not implemented: B pictures (they are played in decoding order, which viewers show wrongly;
//! the log says so) and interlaced video (each field would count as a picture).

mod units;

use std::path::{Path, PathBuf};
use std::time::Duration;

use units::{Progress, Units};

use super::{CodedSource, Error, Wait};
use crate::h264::{AccessUnit, Description, is_b_slice};
use crate::time::Instant;

/// A source that takes its access units from a file.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    units: Units,
    description: Description,
    fps: f64,
    /// When unit 0 was due: the first time somebody asked, or when the schedule started again.
    start: Option<Instant>,
    /// Number of the next unit, since `start`.
    next: u64,
    /// Half an interval after the last unit was handed out: what keeps a late caller from bursts.
    not_before: Instant,
}

impl File {
    /// Opens an Annex B byte stream and looks through its first group of pictures.
    ///
    /// The frame rate is `fps`, else what the stream says, else 30.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when it cannot be read, [`Error::BadFile`] when it cannot be played.
    pub fn open(path: &Path, fps: Option<f64>) -> Result<Self, Error> {
        let mut units = Units::open(path)?;
        let mut unit = AccessUnit::default();
        match units.next(&mut unit, Instant::ZERO)? {
            Progress::Unit => {}
            Progress::Busy | Progress::End => return Err(bad_file(path, units.fault())),
        }
        let sets = units.parameter_sets().ok_or_else(|| bad_file(path, units.fault()))?;
        let description = sets.describe().map_err(|_| bad_file(path, units.fault()))?;
        if sets.is_reordered() || has_b_slices(&mut units, &mut unit)? {
            log::warn!("capture: file has B pictures, motion will stutter path={}", path.display());
        }
        units.rewind()?;
        let is_usable = |fps: &f64| (MIN_FPS..=MAX_FPS).contains(fps);
        let known = [fps, description.fps].into_iter().flatten().find(is_usable);
        if known.is_none() {
            log::info!(
                "capture: file without frame rate path={} fps={DEFAULT_FPS}",
                path.display()
            );
        }
        Ok(Self {
            path: path.to_owned(),
            units,
            description,
            fps: known.unwrap_or(DEFAULT_FPS),
            start: None,
            next: 0,
            not_before: Instant::ZERO,
        })
    }

    /// What the file's first pictures look like.
    #[must_use]
    pub fn description(&self) -> Description {
        self.description
    }

    fn due(&self, start: Instant) -> Instant {
        // f64 holds whole picture numbers for millions of years.
        start + Duration::from_secs_f64(self.next as f64 / self.fps)
    }
}

impl CodedSource for File {
    fn wait(&self) -> Wait<'_> {
        let due = self.start.map_or(Instant::ZERO, |start| self.due(start));
        Wait::Until(due.max(self.not_before))
    }

    fn fps(&self) -> f64 {
        self.fps
    }

    fn size(&self) -> (u32, u32) {
        (self.description.width, self.description.height)
    }

    fn capture(&mut self, now: Instant, unit: &mut AccessUnit) -> Result<bool, Error> {
        let start = *self.start.get_or_insert(now);
        let mut due = self.due(start);
        if now < due.max(self.not_before) {
            return Ok(false);
        }
        if now.since(due) > MAX_LATENESS {
            // Later than all that was handed out, so capture times still increase.
            (self.start, self.next, due) = (Some(now), 0, now);
        }
        for _ in 0..2 {
            match self.units.next(unit, due)? {
                Progress::Unit => {
                    self.next += 1;
                    self.not_before = now + Duration::from_secs_f64(0.5 / self.fps);
                    return Ok(true);
                }
                Progress::Busy => return Ok(false),
                Progress::End => self.units.rewind()?,
            }
        }
        // A whole pass without a unit: the file has been changed since it was opened.
        Err(bad_file(&self.path, self.units.fault()))
    }
}

/// Whether there is a B slice in the group of pictures that `unit`, just read, begins.
fn has_b_slices(units: &mut Units, unit: &mut AccessUnit) -> Result<bool, Error> {
    for _ in 0..MAX_GOP_LEN {
        if unit.nal_units().any(is_b_slice) {
            return Ok(true);
        }
        let is_unit = matches!(units.next(unit, Instant::ZERO)?, Progress::Unit);
        if !is_unit || unit.is_idr() {
            break;
        }
    }
    Ok(false)
}

fn bad_file(path: &Path, reason: &'static str) -> Error {
    Error::BadFile { path: path.to_owned(), reason }
}

/// A caller later than this has been suspended or stuck; what he missed is not made up for.
const MAX_LATENESS: Duration = Duration::from_secs(1);
/// Access units that are searched for B slices: one second-long group at any rate in use.
const MAX_GOP_LEN: usize = 300;
/// Rates that a stream can mean; what lies outside is an encoder's placeholder.
const MIN_FPS: f64 = 0.1;
const MAX_FPS: f64 = 240.0;
const DEFAULT_FPS: f64 = 30.0;

#[cfg(test)]
mod tests;
