//! Detects motion in the luma of pictures: which zone something moves in, since when, until when.
//!
//! Pictures are reduced to the means of about 80 x 45 cells, which a model of the background tells
//! from what changed (`model`). Two changed cells side by side are motion; a zone reports it when
//! it has lasted, and its end when none was seen for a while. Something that stops is no longer
//! motion half a second later.
//!
//! Not implemented: telling what moves, zones that are not rectangles, and leaving out what moves
//! all the time (leaves, water): draw zones around that.

mod grid;
mod model;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Duration;

use grid::{Grid, STEP};
use model::Model;

use super::Area;
use crate::frame::{Frame, PixelFormat};
use crate::time::Instant;

/// What is looked for, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub zones: Vec<Zone>,
    /// How long there must be motion before it is reported; zero: at once.
    pub min_duration: Duration,
    /// How long there must be none before its end is reported.
    pub cool_down: Duration,
}

/// A part of the picture that is watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    pub name: String,
    /// Cells whose centres lie in it are watched: it should be a 40th of the picture wide and high.
    pub area: Area,
    /// 1 (only great changes) to 100 (slight ones too); 50 finds 1.5 steps of luma above noise.
    pub sensitivity: u8,
}

/// Motion began or ended in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Index into [`Settings::zones`].
    pub zone: usize,
    pub is_motion: bool,
    /// When the picture was captured that settled it.
    pub at: Instant,
}

/// Looks at one picture after the other.
#[derive(Debug)]
pub struct Detector {
    settings: Settings,
    grid: Grid,
    model: Model,
    zones: Vec<Watch>,
    /// Which cells of the zone at hand changed.
    changed: Vec<bool>,
}

impl Detector {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let zones = settings.zones.iter().map(|_| Watch::default()).collect();
        Self {
            settings,
            grid: Grid::new(0, 0),
            model: Model::default(),
            zones,
            changed: Vec::new(),
        }
    }

    /// Looks at a picture; a first one, or one of another size, only teaches what is there.
    ///
    /// [`Self::poll_event`], [`Self::is_moving`] and [`Self::level`] may answer differently
    /// afterwards. Pictures without a plane of luma are not looked at.
    ///
    /// # Cost
    ///
    /// Reads each luma sample once; allocates only when the size changes.
    pub fn look(&mut self, frame: &Frame<'_>) {
        if matches!(frame.format, PixelFormat::Yuyv | PixelFormat::Uyvy | PixelFormat::Mjpeg) {
            return;
        }
        let (width, height) = (frame.width as usize, frame.height as usize);
        if !self.grid.is_for(width, height) {
            self.grid = Grid::new(width, height);
            self.model = Model::default();
            self.changed = vec![false; self.grid.cells.len()];
            for (watch, zone) in self.zones.iter_mut().zip(&self.settings.zones) {
                watch.columns = inside(zone.area.x, zone.area.width, self.grid.columns);
                watch.rows = inside(zone.area.y, zone.area.height, self.grid.rows);
            }
        }
        if self.grid.cells.is_empty() {
            return;
        }
        self.grid.measure(frame.planes[0]);
        let may_be_motion = self.model.look(&self.grid.cells, frame.captured);
        for zone in 0..self.zones.len() {
            let moving = if may_be_motion { self.count_moving(zone) } else { 0 };
            let watch = &mut self.zones[zone];
            let cells = watch.columns.len() * watch.rows.len();
            watch.level = u8::try_from((100 * moving).div_ceil(cells.max(1))).unwrap_or(100);
            watch.update(moving > 0, frame.captured, &self.settings);
        }
    }

    /// There are no pictures any more: nothing moves.
    pub fn lose(&mut self, now: Instant) {
        for watch in &mut self.zones {
            (watch.since, watch.level) = (None, 0);
            if watch.is_moving {
                watch.change(false, now);
            }
        }
    }

    /// What changed since the last call, one zone at a time; `None` when all was told.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        let changed = self.zones.iter_mut().enumerate().find(|(_, watch)| !watch.is_told);
        changed.map(|(zone, watch)| {
            watch.is_told = true;
            Event { zone, is_motion: watch.is_moving, at: watch.changed_at }
        })
    }

    /// Whether motion was reported in a zone and its end was not.
    #[must_use]
    pub fn is_moving(&self, zone: usize) -> bool {
        self.zones.get(zone).is_some_and(|watch| watch.is_moving)
    }

    /// How much of a zone moved in the last picture: 0 (nothing) to 100 (all of it).
    #[must_use]
    pub fn level(&self, zone: usize) -> u8 {
        self.zones.get(zone).map_or(0, |watch| watch.level)
    }

    /// Counts the zone's cells that changed next to another one that did.
    fn count_moving(&mut self, zone: usize) -> usize {
        let (columns, watch) = (self.grid.columns, &self.zones[zone]);
        let sensitivity = i32::from(self.settings.zones[zone].sensitivity.clamp(1, 100));
        let least = LEAST_CHANGE * 50 / sensitivity;
        self.changed.fill(false);
        let mut is_any = false;
        for row in watch.rows.clone() {
            let cells = row * columns + watch.columns.start..row * columns + watch.columns.end;
            let differences = self.model.differences[cells.clone()].iter();
            let limits = differences.zip(&self.model.tolerances[cells.clone()]);
            for (changed, (difference, tolerance)) in self.changed[cells].iter_mut().zip(limits) {
                *changed = difference.abs() > tolerance + least;
                is_any |= *changed;
            }
        }
        if !is_any {
            return 0;
        }
        let is_changed = |column: usize, row: usize| {
            watch.columns.contains(&column)
                && watch.rows.contains(&row)
                && self.changed[row * columns + column]
        };
        let has_neighbour = |&(column, row): &(usize, usize)| {
            NEIGHBOURS.iter().any(|(x, y)| {
                is_changed(column.wrapping_add_signed(*x), row.wrapping_add_signed(*y))
            })
        };
        let cells = watch.rows.clone().flat_map(|row| watch.columns.clone().map(move |x| (x, row)));
        cells.filter(|&(column, row)| is_changed(column, row)).filter(has_neighbour).count()
    }
}

/// What is known about one zone.
#[derive(Debug)]
struct Watch {
    columns: Range<usize>,
    rows: Range<usize>,
    level: u8,
    is_moving: bool,
    changed_at: Instant,
    /// Whether `poll_event` has said so.
    is_told: bool,
    /// Since when there has been motion that may not have lasted yet.
    since: Option<Instant>,
    seen_at: Instant,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            columns: 0..0,
            rows: 0..0,
            level: 0,
            is_moving: false,
            changed_at: Instant::ZERO,
            is_told: true,
            since: None,
            seen_at: Instant::ZERO,
        }
    }
}

impl Watch {
    fn update(&mut self, is_seen: bool, now: Instant, settings: &Settings) {
        if is_seen {
            self.seen_at = now;
            let since = *self.since.get_or_insert(now);
            if !self.is_moving && now.since(since) >= settings.min_duration {
                self.change(true, now);
            }
        } else if self.is_moving {
            if now.since(self.seen_at) >= settings.cool_down {
                self.change(false, now);
                self.since = None;
            }
        } else if now.since(self.seen_at) > GAP_MAX {
            self.since = None;
        }
    }

    fn change(&mut self, is_moving: bool, now: Instant) {
        (self.is_moving, self.changed_at) = (is_moving, now);
        // A beginning that nobody was told of needs no end.
        self.is_told = !self.is_told;
    }
}

/// The cells, of `count` along one side of the picture, whose centres lie in an area.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "conversions of floats saturate, and not-a-number becomes zero"
)]
fn inside(start: f64, len: f64, count: usize) -> Range<usize> {
    let first = |share: f64| ((share * count as f64 - 0.5).ceil() as usize).min(count);
    first(start)..first(start + len)
}

const NEIGHBOURS: [(isize, isize); 8] =
    [(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)];
/// The least change above noise that counts at a sensitivity of 50.
const LEAST_CHANGE: i32 = STEP * 3 / 2;
/// Motion may be lost for so long and still be the same.
const GAP_MAX: Duration = Duration::from_millis(300);
