//! Thread 1 alone: passes access units on that somebody else has encoded.
//!
//! While the source is lost, a second thread closes it and opens it again, however long that takes,
//! and this one encodes a NO SIGNAL picture of the same size once a second.

use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::{debug, warn};

use super::capturing::{Failure, Tools, Woken, is_stopped, patience, reopen, wait};
use super::lane::stamp;
use super::placeholder::Placeholder;
use super::{Error, Notice, Outlet, Settings, Tell, spawn};
use crate::capture::{self, CodedSource, Coding, Source, Wait};
use crate::encode::{self, Encoder as _, OpenH264};
use crate::frame::Colour;
use crate::h264::AccessUnit;
use crate::ring::{Newest, Published, Stills, Taken};
use crate::sys::{clock, process};
use crate::time::Instant;

pub(super) struct Passing {
    pub(super) source: Option<Box<dyn CodedSource>>,
    pub(super) tools: Tools,
    pub(super) settings: Settings,
    pub(super) changes: Arc<Newest<Settings>>,
    pub(super) outlet: Outlet,
    pub(super) stills: Arc<Stills<AccessUnit>>,
    pub(super) tell: Tell,
    pub(super) is_ready: bool,
    pub(super) last_idr: Instant,
    /// When an IDR was last asked for because somebody wanted a single picture.
    pub(super) still_asked: Instant,
}

impl Passing {
    /// Passes access units on until told to stop.
    pub(super) fn run(mut self) {
        if let Err(errno) = process::shorten_turns() {
            debug!("capture: turns stay as they are error={errno}");
        }
        while let Some(mut source) = self.source.take() {
            let Err(failure) = self.pass(&mut *source) else { break };
            match self.replace(source, failure) {
                Ok(source) => self.source = source,
                Err(error) => {
                    log::error!("{error}");
                    // Nobody listens when the process is ending anyway.
                    let _ = self.tell.notices.send(Notice::Failed(error));
                }
            }
        }
    }

    /// `Ok` when told to stop.
    fn pass(&mut self, source: &mut dyn CodedSource) -> Result<(), Failure> {
        self.outlet.stats.is_live.set(1);
        let patience = patience(source.fps());
        let mut has_warned = false;
        let mut last_unit = clock::now();
        let mut lost = 0;
        loop {
            // A file is never late: the schedule is its own.
            let is_device = matches!(source.wait(), Wait::Readable(_));
            match wait(source.wait(), last_unit + patience, &self.tools.stop) {
                Woken::Stop => return Ok(()),
                Woken::Late if is_device => return Err(Failure::Stalled(patience)),
                Woken::Ready | Woken::Late => {}
            }
            self.take_changes(source)?;
            self.ask_for_idr(source);
            let published = self.publish(source).map_err(Failure::Source)?;
            self.outlet.stats.lost.add(source.lost() - lost);
            lost = source.lost();
            match published {
                Published::Yes => last_unit = clock::now(),
                Published::Nothing if is_device && clock::now().since(last_unit) >= patience => {
                    return Err(Failure::Stalled(patience));
                }
                Published::Nothing => {}
                Published::NoSlot => {
                    if !std::mem::replace(&mut has_warned, true) {
                        warn!("capture: the consumers hold every access unit; dropping");
                    }
                    // The device stays readable, so there would be no wait at all.
                    let pause = Wait::Until(clock::now() + POLL / 20);
                    if let Woken::Stop =
                        wait(pause, Instant::from_micros(u64::MAX), &self.tools.stop)
                    {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Passes on who wants an IDR: viewers, or somebody who wants a single picture.
    fn ask_for_idr(&mut self, source: &mut dyn CodedSource) {
        let now = clock::now();
        let is_for_viewers = self.outlet.idr_requests.take(now, self.last_idr);
        self.outlet.stats.forced_idr.add(u64::from(is_for_viewers));
        let is_for_still = self.stills.is_asked() && now.since(self.still_asked) >= STILLS_APART;
        if is_for_still {
            self.still_asked = now;
        }
        if is_for_viewers || is_for_still {
            source.request_idr();
        }
    }

    fn publish(&mut self, source: &mut dyn CodedSource) -> Result<Published, capture::Error> {
        let Outlet { publisher, idr_requests, stats, .. } = &mut self.outlet;
        let has_utc = self.settings.streams.first().is_some_and(|stream| stream.has_utc);
        let published = publisher.publish(|unit| {
            if !source.capture(clock::now(), unit)? {
                return Ok(false);
            }
            if unit.is_idr() {
                self.last_idr = unit.captured();
                idr_requests.clear();
                if self.stills.is_asked() {
                    let mut still = AccessUnit::default();
                    still.copy_from(unit);
                    self.stills.give(still);
                }
            }
            // A unit that is full goes without.
            if has_utc && let Err(error) = stamp(unit) {
                debug!("capture: no time in this access unit reason=\"{error}\"");
            }
            Ok(true)
        })?;
        if published == Published::Yes {
            stats.captured.increment();
            stats.encoded.increment();
            self.tools.is_there();
            self.tell.wake.wake();
            self.say_ready();
        }
        Ok(published)
    }

    fn say_ready(&mut self) {
        if !self.is_ready {
            self.is_ready = true;
            // Nobody listens when the process is ending anyway.
            let _ = self.tell.notices.send(Notice::Ready { stream: 0 });
        }
    }

    /// Takes new settings; another source is not among those that a source can take.
    fn take_changes(&mut self, source: &mut dyn CodedSource) -> Result<(), Failure> {
        if let Taken::Value(settings) = self.changes.take(Duration::ZERO) {
            if let Some(stream) = settings.streams.first() {
                let encode::Settings { bitrate_bps, gop, .. } = stream.encode;
                source.change(Coding { bitrate_bps, gop });
            }
            self.settings = settings;
        }
        if self.tools.is_reopen_wanted.swap(false, std::sync::atomic::Ordering::Relaxed) {
            return Err(Failure::Changed);
        }
        Ok(())
    }

    /// Closes a source that has failed and gets another; `None` when told to stop.
    fn replace(
        &mut self,
        source: Box<dyn CodedSource>,
        failure: Failure,
    ) -> Result<Option<Box<dyn CodedSource>>, Error> {
        // What a stranger's parameter sets say is not always what can be encoded.
        let (width, height) = source.size();
        let width = width.clamp(SIDE_MIN, LONG_SIDE_MAX) & !1;
        let height_max = if width > SHORT_SIDE_MAX { SHORT_SIDE_MAX } else { LONG_SIDE_MAX };
        let size = (width, height.clamp(SIDE_MIN, height_max) & !1);
        let reason = Arc::new(Mutex::new(failure.to_string()));
        let newest_reason = Arc::clone(&reason);
        let begin = match failure {
            Failure::Changed => clock::now() + patience(source.fps()),
            _ => clock::now(),
        };
        let (tools, (opened, opening)) = (self.tools.clone(), channel());
        spawn("reopen", move || {
            drop(source);
            let coded = |source| match source {
                Source::Coded(source) => Some(source),
                Source::Raw(_) => None,
            };
            let refused = |error: &capture::Error| {
                *newest_reason.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
            };
            // Whoever waited may be gone.
            let _ = opened.send(reopen(&tools, &failure, coded, (|| true, refused)));
        })
        .map_err(|_| Error::Stuck)?;
        let settings = encode::Settings {
            fps: 1.0,
            bitrate_bps: PLACEHOLDER_BPS,
            gop: Duration::ZERO,
            colour: Colour::default(),
            threads: 1,
        };
        let mut encoder = OpenH264::open(&settings)?;
        let mut placeholder = Placeholder::default();
        loop {
            match next(&opening, POLL) {
                Some(source) => return Ok(source),
                // The other thread would say so, unless a driver holds it.
                None if is_stopped(&self.tools.stop) => return Ok(None),
                None if clock::now() < begin => {}
                None => {
                    let reason = reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    self.hold_out(&mut encoder, &mut placeholder, size, &reason)?;
                }
            }
        }
    }

    /// Makes a placeholder if one is due.
    fn hold_out(
        &mut self,
        encoder: &mut OpenH264,
        placeholder: &mut Placeholder,
        size: (u32, u32),
        reason: &str,
    ) -> Result<(), Error> {
        let now = clock::now();
        let Outlet { publisher, idr_requests, stats, .. } = &mut self.outlet;
        if !placeholder.is_due(now, idr_requests.is_pending()) {
            return Ok(());
        }
        if placeholder.begin(now) {
            stats.is_live.set(0);
            warn!("produce: NO SIGNAL reason=\"{reason}\"");
            stats.source_fault.set(reason);
        }
        let clock = &self.settings.clock;
        let frame = placeholder.draw(now, size, Colour::default(), reason, clock);
        let published = publisher.publish(|unit| {
            let encoded = encoder.encode(&frame, true, unit)?;
            if encoded == encode::Encoded::Unit && self.stills.is_asked() {
                let mut still = AccessUnit::default();
                still.copy_from(unit);
                self.stills.give(still);
            }
            Ok::<_, encode::Error>(encoded == encode::Encoded::Unit)
        })?;
        if published == Published::Yes {
            self.last_idr = now;
            idr_requests.clear();
            stats.placeholders.increment();
            self.tell.wake.wake();
            self.say_ready();
        }
        Ok(())
    }
}

/// What the thread that opens the source has come to, if it has within `patience`.
fn next<T>(opening: &Receiver<Option<T>>, patience: Duration) -> Option<Option<T>> {
    match opening.recv_timeout(patience) {
        Ok(opened) => Some(opened),
        Err(_) => match opening.try_recv() {
            Ok(opened) => Some(opened),
            Err(TryRecvError::Empty) => None,
            // A panic would have ended the process.
            Err(TryRecvError::Disconnected) => Some(None),
        },
    }
}

/// Between two looks at whether somebody waits for a picture.
const POLL: Duration = Duration::from_millis(100);
/// Between two IDRs for single pictures.
const STILLS_APART: Duration = Duration::from_secs(1);
/// What the software encoder takes.
const SIDE_MIN: u32 = 16;
const SHORT_SIDE_MAX: u32 = 2160;
const LONG_SIDE_MAX: u32 = 3840;
/// What a flat picture needs at most.
const PLACEHOLDER_BPS: u32 = 500_000;
