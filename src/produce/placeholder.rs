//! The NO SIGNAL picture: when it is due, and what it shows.

use std::fmt;
use std::time::Duration;

use super::ClockText;
use super::studio::wall_at;
use crate::frame::{Colour, Frame};
use crate::picture::{Picture, no_signal};
use crate::time::Instant;

/// Pictures in place of those that do not come: one per second, and sooner for who waits for one.
#[derive(Default)]
pub(super) struct Placeholder {
    picture: Picture,
    /// When the last one was made; `None` while there is a signal.
    last: Option<Instant>,
    time: String,
}

impl Placeholder {
    /// There is a signal; answers whether there was none before.
    pub(super) fn end(&mut self) -> bool {
        self.last.take().is_some()
    }

    /// Whether there was none when last heard of.
    pub(super) fn is_shown(&self) -> bool {
        self.last.is_some()
    }

    /// Whether one has to be made now, as far as time goes, or because `is_asked`.
    pub(super) fn is_due(&self, now: Instant, is_asked: bool) -> bool {
        self.last.is_none_or(|last| now.since(last) >= if is_asked { APART_MIN } else { INTERVAL })
    }

    /// Takes note that the one of `now` is being made; answers whether it is the first.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        self.last.replace(now).is_none()
    }

    /// Draws one of that size.
    pub(super) fn draw(
        &mut self,
        now: Instant,
        (width, height): (u32, u32),
        colour: Colour,
        reason: &str,
        clock: &ClockText,
    ) -> Frame<'_> {
        self.picture.resize(width, height);
        self.picture.stamp(colour, now);
        self.time.clear();
        (clock.0)(wall_at(now), &mut self.time);
        no_signal::draw(&mut self.picture, reason, &self.time);
        self.picture.frame()
    }
}

impl fmt::Debug for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placeholder").field("last", &self.last).finish_non_exhaustive()
    }
}

const INTERVAL: Duration = Duration::from_secs(1);
/// As forced IDRs.
const APART_MIN: Duration = Duration::from_millis(200);
