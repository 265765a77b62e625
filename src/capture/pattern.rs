//! Plays a moving test pattern as a camera would: a picture without any device.
//!
//! Picture `n` is due at exactly `start + n / fps` and carries that time; the counter in the
//! picture is `n`, so that pictures lost anywhere downstream leave a gap that can be read off
//! the screen. A caller who comes late gets the newest picture that is due: the pattern's time
//! never runs behind.
//!
//! Pictures lie in a pool of [`POOL_LEN`] canvases. Nothing is allocated after construction.

mod drawing;

use std::sync::Arc;
use std::time::Duration;

use drawing::{Canvas, Drawing};

use super::{Error, Mode, RawFrame, RawSource, Wait};
use crate::frame::{Colour, Frame, PixelFormat};
use crate::time::Instant;

/// A source that draws its pictures itself.
#[derive(Debug)]
pub struct Pattern {
    mode: Mode,
    drawing: Drawing,
    /// A canvas is free when nobody else holds a reference.
    pool: Vec<Arc<Canvas>>,
    /// When picture 0 was due: the first time somebody asked.
    start: Option<Instant>,
    /// Number of the next picture.
    next: u64,
    lost: u64,
}

impl Pattern {
    /// Draws everything that does not move into every canvas of the pool.
    ///
    /// # Panics
    ///
    /// When a side is odd or zero, or `fps` is not a positive number: configurations are checked
    /// for that.
    #[must_use]
    pub fn new(width: u32, height: u32, fps: f64) -> Self {
        assert!(fps.is_finite() && fps > 0.0, "{fps} pictures per second");
        let drawing = Drawing::new(width, height);
        let pool = (0..POOL_LEN).map(|_| Arc::new(drawing.background())).collect();
        let mode = Mode { format: PixelFormat::I420, width, height, fps };
        Self { mode, drawing, pool, start: None, next: 0, lost: 0 }
    }

    fn due(&self, start: Instant, number: u64) -> Instant {
        // f64 holds whole picture numbers for millions of years.
        start + Duration::from_secs_f64(number as f64 / self.mode.fps)
    }

    /// The newest picture that is due at `now`, which is `self.next` or a later one.
    fn newest(&self, start: Instant, now: Instant) -> u64 {
        let elapsed = now.since(start).as_secs_f64() * self.mode.fps;
        // Pictures are due on whole microseconds, so the quotient may be one off either way.
        let mut number = floor(elapsed).saturating_sub(1).max(self.next);
        while self.due(start, number + 1) <= now {
            number += 1;
        }
        number
    }
}

impl RawSource for Pattern {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn wait(&self) -> Wait<'_> {
        Wait::Until(self.start.map_or(Instant::ZERO, |start| self.due(start, self.next)))
    }

    fn capture(&mut self, now: Instant) -> Result<Option<RawFrame>, Error> {
        let start = *self.start.get_or_insert(now);
        if now < self.due(start, self.next) {
            return Ok(None);
        }
        let number = self.newest(start, now);
        self.lost += number - self.next;
        self.next = number + 1;
        let captured = self.due(start, number);
        let is_free = |slot: &mut Arc<Canvas>| Arc::get_mut(slot).is_some();
        let Some(index) = self.pool.iter_mut().position(is_free) else {
            self.lost += 1;
            return Ok(None);
        };
        let slot = &mut self.pool[index];
        let canvas = Arc::get_mut(slot).expect("only the pool can make a second reference");
        self.drawing.update(canvas, number, captured);
        Ok(Some(RawFrame::Drawn(DrawnFrame { canvas: Arc::clone(slot) })))
    }

    fn lost(&self) -> u64 {
        self.lost
    }
}

/// A drawn picture; dropping it gives the canvas back.
#[derive(Debug)]
pub struct DrawnFrame {
    canvas: Arc<Canvas>,
}

impl DrawnFrame {
    /// The picture: I420, rows without gaps.
    #[must_use]
    pub fn frame(&self) -> Frame<'_> {
        let (width, height) = self.canvas.size();
        Frame {
            format: PixelFormat::I420,
            width,
            height,
            colour: Colour::default(),
            captured: self.canvas.captured(),
            planes: self.canvas.planes(),
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and durations are not negative"
)]
fn floor(number: f64) -> u64 {
    number as u64
}

/// Canvases: one being drawn, one waiting, one being encoded, one to spare.
const POOL_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn due(pattern: &Pattern) -> Instant {
        match pattern.wait() {
            Wait::Until(due) => due,
            Wait::Readable(_) => panic!("a pattern has no file descriptor"),
        }
    }

    fn captured(pattern: &mut Pattern, now: Instant) -> Option<Instant> {
        pattern.capture(now).unwrap().map(|raw| raw.frame().captured)
    }

    #[test]
    fn pictures_are_due_at_start_plus_n_over_fps_without_drift() {
        for fps in [1.0, 7.0, 25.0, 30_000.0 / 1_001.0, 30.0, 60.0] {
            let mut pattern = Pattern::new(16, 16, fps);
            for n in 0..2_000_u32 {
                let now = due(&pattern).max(at(5_000_000));
                assert_eq!(captured(&mut pattern, now), Some(now));
                let exact = 5e6 + 1e6 * f64::from(n) / fps;
                assert!((now.as_micros() as f64 - exact).abs() <= 1.0, "{n} at {fps}");
                assert_eq!(captured(&mut pattern, now), None);
            }
            assert_eq!(pattern.lost(), 0);
        }
    }

    #[test]
    fn a_late_caller_gets_the_newest_picture_and_the_skipped_are_counted() {
        let mut pattern = Pattern::new(16, 16, 25.0);
        assert!(captured(&mut pattern, at(0)).is_some());
        // Late by less than a picture: nothing is skipped.
        assert_eq!(captured(&mut pattern, at(79_999)), Some(at(40_000)));
        assert_eq!(pattern.lost(), 0);
        assert_eq!(captured(&mut pattern, at(80_000)), Some(at(80_000)));
        // 3, 4 and 5 are over when 6 is due.
        assert_eq!(captured(&mut pattern, at(240_001)), Some(at(240_000)));
        assert_eq!(pattern.lost(), 3);
        let week = 7 * 86_400 * 1_000_000;
        assert_eq!(captured(&mut pattern, at(week)), Some(at(week)));
        assert_eq!(pattern.lost(), 3 + 7 * 86_400 * 25 - 7);
        assert_eq!(due(&pattern), at(week + 40_000));
    }

    #[test]
    fn without_a_free_canvas_the_picture_is_lost_and_counted() {
        let mut pattern = Pattern::new(16, 16, 10.0);
        let mut held = Vec::new();
        for n in 0..POOL_LEN as u64 {
            held.push(pattern.capture(at(n * 100_000)).unwrap().unwrap());
        }
        let before: Vec<Vec<u8>> =
            held.iter().map(|raw| raw.frame().planes[0].bytes.to_vec()).collect();
        assert!(captured(&mut pattern, at(400_000)).is_none());
        assert_eq!(pattern.lost(), 1);
        for (raw, before) in held.iter().zip(&before) {
            assert_eq!(raw.frame().planes[0].bytes, before, "a held picture never changes");
        }
        held.pop();
        assert_eq!(captured(&mut pattern, at(500_000)), Some(at(500_000)));
        assert_eq!(pattern.lost(), 1);
    }

    #[test]
    fn the_planes_are_those_of_i420() {
        for (width, height) in [(2, 2), (16, 32), (322, 240)] {
            let mut pattern = Pattern::new(width, height, 30.0);
            let raw = pattern.capture(at(1)).unwrap().unwrap();
            let frame = raw.frame();
            assert_eq!(
                (frame.format, frame.width, frame.height),
                (PixelFormat::I420, width, height)
            );
            let (width, height) = (width as usize, height as usize);
            assert_eq!(frame.planes.map(|plane| plane.stride), [width, width / 2, width / 2]);
            let len = width * height;
            assert_eq!(frame.planes.map(|plane| plane.bytes.len()), [len, len / 4, len / 4]);
        }
    }

    #[test]
    fn a_reused_canvas_shows_what_a_fresh_one_would() {
        let mut reused = Pattern::new(160, 120, 30.0);
        for n in 0..300_u64 {
            let now = at(n * 1_000_000 / 30 + 1);
            let raw = reused.capture(now).unwrap();
            // A fresh pattern that is asked twice shows picture `n` on an untouched canvas.
            let mut fresh = Pattern::new(160, 120, 30.0);
            let first = fresh.capture(at(1)).unwrap();
            if n == 0 {
                continue;
            }
            let second = fresh.capture(now).unwrap().unwrap();
            drop(first);
            let raw = raw.unwrap();
            let planes = |raw: &RawFrame| raw.frame().planes.map(|plane| plane.bytes.to_vec());
            let (shown, wanted) = (planes(&raw), planes(&second));
            assert!(shown == wanted, "picture {n} differs");
        }
    }
}
