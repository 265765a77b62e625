//! What happens to a picture before it is encoded: turned, masked, looked at, scaled and written on.
//!
//! One pass from the driver's buffer into a picture of our own, and none where the layout is I420
//! and nothing is to be changed. The order is: masks before everything that looks or copies, so that
//! what is behind them is nowhere; motion and scaling before the text, which is drawn on every
//! stream at its own size.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use log::info;

use super::lane::Lane;
use super::{Settings, Tell};
use crate::capture::RawFrame;
use crate::encode;
use crate::frame::Frame;
use crate::picture::motion::Detector;
use crate::picture::{Converter, Corner, Overlay, Picture, Scaler, in_place, mask};
use crate::stats::{Motion, Pipeline};
use crate::sys::clock;
use crate::time::{Instant, NtpTimestamp};

pub(super) struct Studio {
    settings: Settings,
    converter: Converter,
    /// The newest picture, where it is not read in place.
    whole: Picture,
    detector: Option<Detector>,
    motion: Arc<Motion>,
    /// By stream: what is drawn on, and scaled into.
    desks: Vec<Desk>,
    /// The time as text, written anew for every picture.
    text: String,
    /// Time spent since main's last picture on those that were not main's.
    spent: Duration,
}

#[derive(Default)]
struct Desk {
    scaler: Scaler,
    scaled: Picture,
    time: Overlay,
    name: Overlay,
}

impl Studio {
    pub(super) fn new(settings: Settings, motion: Arc<Motion>) -> Self {
        let mut studio = Self {
            converter: Converter::new(settings.orientation),
            whole: Picture::default(),
            detector: None,
            motion,
            desks: settings.streams.iter().map(|_| Desk::default()).collect(),
            text: String::new(),
            spent: Duration::ZERO,
            settings,
        };
        studio.detector = studio.settings.motion.clone().map(Detector::new);
        studio
    }

    /// Goes on as `settings` say.
    pub(super) fn change(&mut self, settings: Settings) {
        if settings.orientation != self.settings.orientation {
            self.converter = Converter::new(settings.orientation);
        }
        if settings.motion != self.settings.motion {
            self.detector = settings.motion.clone().map(Detector::new);
            self.motion.forget();
        }
        self.settings = settings;
    }

    /// There are no pictures for now.
    pub(super) fn lose(&mut self, now: Instant, stats: &Pipeline) {
        if let Some(detector) = &mut self.detector {
            detector.lose(now);
            tell(detector, &self.settings, &self.motion);
        }
        stats.is_live.set(0);
    }

    /// Makes one picture of the source into the units of all lanes that want it. The source's buffer
    /// goes back as soon as it has been read. Answers whether it was a picture; `None`: nobody
    /// wanted to know.
    ///
    /// # Errors
    ///
    /// When a lane has no encoder any more.
    pub(super) fn show(
        &mut self,
        raw: RawFrame,
        lanes: &mut [Lane],
        tell: &Tell,
    ) -> Result<Option<bool>, encode::Error> {
        let began = clock::now();
        let captured = raw.frame().captured;
        let Some((main, others)) = lanes.split_first_mut() else { return Ok(None) };
        let is_main = main.wants(captured);
        let mut wanted = 0_u32;
        for (index, lane) in others.iter_mut().enumerate() {
            wanted |= u32::from(lane.wants(captured)) << index;
        }
        if !is_main && wanted == 0 && self.detector.is_none() {
            return Ok(None);
        }
        let is_drawn_on = self.settings.is_drawn_on();
        let mut held = None;
        if is_drawn_on || in_place(&raw.frame()).is_none() {
            if let Err(error) = self.converter.convert(&raw.frame(), &mut self.whole) {
                log::debug!("produce: {error}");
                main.stats().undecodable.increment();
                return Ok(Some(false));
            }
            drop(raw);
            mask::cover(&mut self.whole, &self.settings.masks);
            main.stats().convert_time.record(clock::now().since(began));
        } else {
            held = Some(raw);
        }
        let frame = held.as_ref().map(RawFrame::frame);
        let in_place = frame.as_ref().and_then(in_place);
        {
            let frame = in_place.unwrap_or_else(|| self.whole.frame());
            look(&mut self.detector, &self.settings, &self.motion, main.stats(), &frame);
            for (index, lane) in others.iter().enumerate().filter(|(i, _)| wanted & 1 << i != 0) {
                let desk = &mut self.desks[index + 1];
                let (width, height) = lane.size().unwrap_or((frame.width, frame.height));
                let started = clock::now();
                desk.scaled.resize(width, height);
                desk.scaler.scale(&frame, &mut desk.scaled);
                lane.stats().scale_time.record(clock::now().since(started));
            }
        }
        if is_main {
            if in_place.is_none() {
                write(&self.settings, &mut self.desks[0], &mut self.whole, &mut self.text, main);
            }
            let frame = in_place.unwrap_or_else(|| self.whole.frame());
            main.publish(&frame, tell)?;
            give_still(&frame, tell);
        }
        // The driver wants its buffer back before the smaller streams are encoded.
        drop(held);
        for (index, lane) in others.iter_mut().enumerate().filter(|(i, _)| wanted & 1 << i != 0) {
            let desk = &mut self.desks[index + 1];
            let mut scaled = std::mem::take(&mut desk.scaled);
            write(&self.settings, desk, &mut scaled, &mut self.text, lane);
            let published = lane.publish(&scaled.frame(), tell);
            desk.scaled = scaled;
            published?;
        }
        self.spent += clock::now().since(began);
        if is_main {
            main.spent(captured, std::mem::take(&mut self.spent));
        }
        Ok(Some(true))
    }
}

impl fmt::Debug for Studio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Studio").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Looks for motion.
fn look(
    detector: &mut Option<Detector>,
    settings: &Settings,
    motion: &Motion,
    stats: &Pipeline,
    frame: &Frame<'_>,
) {
    let Some(detector) = detector else { return };
    let started = clock::now();
    detector.look(frame);
    tell(detector, settings, motion);
    stats.motion_time.record(clock::now().since(started));
}

/// Says where motion begins and ends.
fn tell(detector: &mut Detector, settings: &Settings, motion: &Motion) {
    let Some(settings) = &settings.motion else { return };
    while let Some(event) = detector.poll_event() {
        let name = settings.zones.get(event.zone).map_or("", |zone| &zone.name);
        info!("motion: {} zone={name}", if event.is_motion { "begins" } else { "ends" });
        motion.set(event.zone, event.is_motion);
    }
}

/// Writes name and time on a picture of our own.
fn write(
    settings: &Settings,
    desk: &mut Desk,
    picture: &mut Picture,
    text: &mut String,
    lane: &Lane,
) {
    let overlay = &settings.overlay;
    if !overlay.has_time && overlay.name.is_none() {
        return;
    }
    let started = clock::now();
    if overlay.has_time {
        text.clear();
        (settings.clock.0)(wall_at(picture.frame().captured), text);
        desk.time.draw(picture, Corner::TopLeft, text);
    }
    if let Some(name) = &overlay.name {
        desk.name.draw(picture, Corner::BottomLeft, name);
    }
    lane.stats().overlay_time.record(clock::now().since(started));
}

/// The wall time of a moment of the past.
pub(super) fn wall_at(captured: Instant) -> NtpTimestamp {
    let mut attempts = 0;
    loop {
        let (before, wall, after) = (clock::now(), clock::wall(), clock::now());
        attempts += 1;
        // Another thread's turn between the two clocks would be taken for time that has passed.
        if after.since(before) < CLOCKS_APART || attempts == CLOCK_ATTEMPTS {
            let age = i64::try_from(before.since(captured).as_micros()).unwrap_or(0);
            return wall.offset_by_micros(-age);
        }
    }
}

/// Gives a copy to whoever has asked for one.
pub(super) fn give_still(frame: &Frame<'_>, tell: &Tell) {
    if tell.stills.is_asked() {
        let mut still = Picture::default();
        // An I420 picture converts without fail.
        if Converter::new(crate::picture::Orientation::default()).convert(frame, &mut still).is_ok()
        {
            tell.stills.give(still);
        }
    }
}

/// More than reading three clocks takes.
const CLOCKS_APART: Duration = Duration::from_micros(50);
const CLOCK_ATTEMPTS: u32 = 4;
