//! Thread 2: turns the newest picture into access units, and watches over thread 1.
//!
//! While the source is lost, every stream gets a NO SIGNAL picture of its own size once a second. A
//! thread 1 that a driver does not let go of is abandoned, and a fresh one started; should that
//! one be stuck too, or nothing come of it, the process ends, for the supervisor.

use std::sync::Arc;
use std::time::Duration;

use log::{error, info, warn};

use super::capturing::{Capturing, Tools, is_stopped, patience};
use super::intake::Intake;
use super::lane::Lane;
use super::placeholder::Placeholder;
use super::studio::{Studio, give_still};
use super::{Error, Notice, Settings, Tell, spawn};
use crate::capture::RawFrame;
use crate::frame::Colour;
use crate::ring::{Newest, Taken};
use crate::sys::clock;
use crate::time::Instant;

pub(super) struct Encoding {
    pub(super) intake: Arc<Intake>,
    /// For a new thread 1.
    pub(super) tools: Tools,
    pub(super) studio: Studio,
    pub(super) lanes: Vec<Lane>,
    pub(super) settings: Settings,
    pub(super) changes: Arc<Newest<Settings>>,
    pub(super) tell: Tell,
    pub(super) placeholder: Placeholder,
    /// Size and colours of the newest picture: main's.
    pub(super) shape: ((u32, u32), Colour),
    pub(super) fps: f64,
    /// When a thread 1 was abandoned of which nothing has been made good yet.
    pub(super) abandoned: Option<Instant>,
}

impl Encoding {
    /// Encodes until there are no more pictures.
    pub(super) fn run(mut self) {
        if let Err(error) = self.encode() {
            error!("{error}");
            // Nobody listens when the process is ending anyway.
            let _ = self.tell.notices.send(Notice::Failed(error));
        }
    }

    fn encode(&mut self) -> Result<(), Error> {
        let mut last_picture = clock::now();
        loop {
            let asked = clock::now();
            let taken = self.intake.frames.take(POLL);
            self.take_changes();
            match taken {
                Taken::Value(raw) => match self.show(raw)? {
                    Some(true) => last_picture = clock::now(),
                    // Damaged: as if none had come.
                    Some(false) => self.miss(last_picture)?,
                    None => {}
                },
                // Thread 1 would say so, unless a driver holds it.
                Taken::TimedOut if is_stopped(&self.tools.stop) => return Ok(()),
                // The whole process stood still: thread 1 has yet to come by.
                Taken::TimedOut if clock::now().since(asked) >= PAUSED => {
                    last_picture = clock::now();
                }
                Taken::TimedOut => self.miss(last_picture)?,
                Taken::Closed => return Ok(()),
            }
        }
    }

    /// Answers as [`Studio::show`].
    fn show(&mut self, raw: RawFrame) -> Result<Option<bool>, Error> {
        let frame = raw.frame();
        self.shape = ((frame.width, frame.height), frame.colour);
        let fps = self.intake.fps().unwrap_or(self.fps);
        let is_back = self.placeholder.is_shown();
        if is_back {
            self.lanes.iter_mut().for_each(Lane::start_anew);
        }
        if is_back || (fps - self.fps).abs() > f64::EPSILON {
            self.fps = fps;
            self.apply();
        }
        let is_shown = self.studio.show(raw, &mut self.lanes, &self.tell)?;
        if is_shown == Some(true) {
            self.abandoned = None;
            self.lanes.iter().for_each(|lane| lane.stats().is_live.set(1));
            if self.placeholder.end() {
                info!("produce: signal is back");
            }
        }
        Ok(is_shown)
    }

    /// No picture has come: perhaps a placeholder is due.
    fn miss(&mut self, last_picture: Instant) -> Result<(), Error> {
        let now = clock::now();
        self.watch_capture(now)?;
        let silence = now.since(last_picture);
        let reason = self.intake.why_lost().or_else(|| {
            let is_late = silence >= patience(self.fps);
            is_late.then(|| format!("no picture for {} s", silence.as_secs()))
        });
        let Some(reason) = reason else { return Ok(()) };
        let mut is_asked = false;
        for lane in &mut self.lanes {
            is_asked |= lane.is_needed(now) && lane.is_idr_asked();
        }
        if !self.placeholder.is_due(now, is_asked) {
            return Ok(());
        }
        if self.placeholder.begin(now) {
            warn!("produce: NO SIGNAL reason=\"{reason}\"");
            self.tell.main.source_fault.set(&reason);
            self.lanes.iter().for_each(|lane| self.studio.lose(now, lane.stats()));
            self.lanes.iter_mut().for_each(Lane::start_anew);
        }
        let (main_size, colour) = self.shape;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if !lane.is_needed(now) {
                continue;
            }
            let size = lane.size().unwrap_or(main_size);
            let clock = &self.settings.clock;
            let frame = self.placeholder.draw(now, size, colour, &reason, clock);
            lane.publish(&frame, &self.tell)?;
            lane.stats().placeholders.increment();
            if index == 0 {
                give_still(&frame, &self.tell);
            }
        }
        Ok(())
    }

    /// Starts a new thread 1 when the old one does not answer.
    fn watch_capture(&mut self, now: Instant) -> Result<(), Error> {
        let is_hopeless = self.abandoned.is_some_and(|since| now.since(since) >= HOPELESS_AFTER);
        if is_hopeless && self.intake.is_busy() {
            return Err(Error::Stuck);
        }
        if !self.intake.is_stuck(now) {
            return Ok(());
        }
        if self.abandoned.replace(now).is_some() {
            return Err(Error::Stuck);
        }
        warn!("produce: abandoning a capture thread that does not answer");
        self.intake.abandon();
        self.intake = Arc::new(Intake::new(now));
        let (intake, tools) = (Arc::clone(&self.intake), self.tools.clone());
        let capturing = Capturing { source: None, intake, tools };
        // It is not waited for at the end: it may be stuck as well.
        spawn("capture", move || capturing.run()).map(drop).map_err(|_| Error::Stuck)
    }

    fn take_changes(&mut self) {
        if let Taken::Value(settings) = self.changes.take(Duration::ZERO) {
            self.settings = settings.clone();
            self.studio.change(settings);
            self.apply();
        }
    }

    fn apply(&mut self) {
        for (lane, stream) in self.lanes.iter_mut().zip(&self.settings.streams) {
            lane.change(stream.clone(), self.fps);
        }
    }
}

/// Between two looks at whether the source is well.
const POLL: Duration = Duration::from_millis(200);
/// A look that took so much longer was no fault of the source's.
const PAUSED: Duration = Duration::from_secs(1);
/// When an abandoned thread 1 still has the device after this time, only a fresh process helps.
const HOPELESS_AFTER: Duration = Duration::from_secs(20);
