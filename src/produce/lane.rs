//! One stream's way from the picture to the ring: its rate, its overlay, its encoder.

use std::sync::Arc;
use std::time::Duration;

use log::info;

use super::encoders::Encoders;
use super::pace::Pace;
use super::studio::wall_at;
use super::{Notice, Outlet, Stream, Tell};
use crate::encode::{self, Encoded};
use crate::frame::Frame;
use crate::h264::sei::utc_sei;
use crate::h264::{AccessUnit, TooLong};
use crate::ring::Published;
use crate::stats::Pipeline;
use crate::sys::clock;
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Lane {
    index: usize,
    stream: Stream,
    outlet: Outlet,
    encoders: Encoders,
    pace: Pace,
    /// Whether the next picture has to be an IDR, whoever asks and however often.
    is_idr_due: bool,
    /// Whether a unit was ever made.
    is_ready: bool,
    /// Whether one has to be made whoever watches: nobody knows the parameter sets.
    is_owed: bool,
    /// When somebody watched last.
    watched: Option<Instant>,
}

impl Lane {
    pub(super) fn new(index: usize, stream: Stream, outlet: Outlet, source_fps: f64) -> Self {
        let name = stream.name.clone();
        let encoders = Encoders::new(name, stream.encoder.clone(), Arc::clone(&outlet.stats));
        let pace = Pace::new(source_fps, stream.encode.fps);
        let lane = Self {
            index,
            stream,
            outlet,
            encoders,
            pace,
            is_idr_due: true,
            is_ready: false,
            is_owed: true,
            watched: None,
        };
        lane.say_rate();
        lane
    }

    /// Its own size; `None`: the source's.
    pub(super) fn size(&self) -> Option<(u32, u32)> {
        self.stream.size
    }

    pub(super) fn stats(&self) -> &Pipeline {
        &self.outlet.stats
    }

    /// Goes on as `stream` says, from a source of that rate.
    pub(super) fn change(&mut self, stream: Stream, source_fps: f64) {
        let is_same = stream.size == self.stream.size
            && stream.encode == self.stream.encode
            && stream.encoder == self.stream.encoder;
        self.is_owed |= !is_same;
        self.encoders.choose(stream.encoder.clone());
        self.pace.change(source_fps, stream.encode.fps);
        self.stream = stream;
        self.say_rate();
    }

    /// Whether the picture captured then is to be made into a unit.
    pub(super) fn wants(&mut self, captured: Instant) -> bool {
        if !self.is_needed(captured) {
            return false;
        }
        let is_admitted = self.pace.admits(captured) || self.is_idr_due;
        if !is_admitted {
            self.outlet.stats.left_out.increment();
        }
        is_admitted
    }

    /// Main always is; the others are while somebody watches, and once for their parameter sets.
    pub(super) fn is_needed(&mut self, now: Instant) -> bool {
        if self.index == 0 {
            return true;
        }
        if self.outlet.watchers.get() == 0 {
            let is_long_ago = self.watched.is_none_or(|last| now.since(last) >= CLOSE_AFTER);
            if !self.is_owed && is_long_ago {
                self.encoders.close();
            }
            self.is_idr_due |= !self.is_owed;
            return self.is_owed;
        }
        self.watched = Some(now);
        true
    }

    /// The next picture will be an IDR: nothing before it has to do with it.
    pub(super) fn start_anew(&mut self) {
        self.is_idr_due = true;
    }

    /// Whether somebody waits for an IDR, so that the next picture should not be waited for.
    pub(super) fn is_idr_asked(&self) -> bool {
        self.outlet.idr_requests.is_pending()
    }

    /// Encodes one picture and passes the units on that are complete.
    ///
    /// # Errors
    ///
    /// When there is no encoder any more.
    pub(super) fn publish(&mut self, frame: &Frame<'_>, tell: &Tell) -> Result<(), encode::Error> {
        let started = clock::now();
        let settings = encode::Settings { fps: self.pace.fps(), ..self.stream.encode };
        match self.encode(frame, &settings, tell) {
            Ok(()) => {}
            Err(error) => self.encoders.failed(frame.captured, error)?,
        }
        self.outlet.stats.encode_time.record(clock::now().since(started));
        Ok(())
    }

    /// Takes note of what a picture took in all, and steps the rate when that is too much.
    pub(super) fn spent(&mut self, captured: Instant, busy: Duration) {
        if !self.pace.spent(captured, busy) {
            return;
        }
        let (fps, millis) = (self.pace.fps(), busy.as_millis());
        info!("encode: new rate stream={} fps={fps:.1} picture_ms={millis}", self.stream.name);
        self.say_rate();
    }

    fn say_rate(&self) {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "float casts saturate, and a rate is positive"
        )]
        self.outlet.stats.fps_limit_milli.set((self.pace.fps() * 1_000.0) as u64);
    }

    fn encode(
        &mut self,
        frame: &Frame<'_>,
        settings: &encode::Settings,
        tell: &Tell,
    ) -> Result<(), encode::Error> {
        let last_idr = self.encoders.last_idr();
        let Outlet { publisher, idr_requests, stats, .. } = &mut self.outlet;
        let encoder = self.encoders.of(frame, settings)?;
        let is_asked = idr_requests.take(frame.captured, last_idr);
        let is_idr_wanted = is_asked || self.is_idr_due;
        let mut is_first = true;
        let mut has_idr = false;
        loop {
            let published = publisher.publish(|unit| {
                let began = clock::now();
                let encoded = if is_first {
                    encoder.encode(frame, is_idr_wanted, unit)?
                } else {
                    encoder.more(unit)?
                };
                unit.set_encoded_in(clock::now().since(began));
                // A unit that is full goes without.
                if encoded == Encoded::Unit
                    && self.stream.has_utc
                    && let Err(error) = stamp(unit)
                {
                    log::debug!("encode: no time in this access unit reason=\"{error}\"");
                }
                has_idr |= unit.is_idr();
                Ok::<_, encode::Error>(encoded == Encoded::Unit)
            })?;
            match published {
                Published::Yes => {
                    stats.encoded.increment();
                    tell.wake.wake();
                    self.is_owed = false;
                    if !self.is_ready {
                        self.is_ready = true;
                        // Nobody listens when the process is ending anyway.
                        let _ = tell.notices.send(Notice::Ready { stream: self.index });
                    }
                }
                Published::Nothing if is_first => stats.skipped.increment(),
                Published::NoSlot if is_first => {
                    // The encoder was not even asked, and all consumers wait for an IDR now.
                    self.is_idr_due = true;
                    return Ok(());
                }
                Published::Nothing | Published::NoSlot => break,
            }
            is_first = false;
        }
        if has_idr {
            idr_requests.clear();
            stats.forced_idr.add(u64::from(is_asked));
        }
        // It has been told: asked again while it works on that picture, it would make two.
        self.is_idr_due = false;
        self.encoders.worked();
        Ok(())
    }
}

/// Puts the wall time of the capture before the slices (MISB ST 0604).
pub(super) fn stamp(unit: &mut AccessUnit) -> Result<(), TooLong> {
    let micros = wall_at(unit.captured()).to_unix().as_micros();
    let micros = u64::try_from(micros).unwrap_or(u64::MAX);
    unit.insert_before_slices(&utc_sei(micros, clock::is_synchronized()))
}

/// An encoder that nobody needs is closed after this time: players come back.
const CLOSE_AFTER: Duration = Duration::from_secs(10);
