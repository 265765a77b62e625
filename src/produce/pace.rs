//! Which pictures of the source become pictures of a stream: its own rate, and less when the board
//! is too slow for it.
//!
//! A stream that is slower than its source takes the pictures nearest to its own schedule. When
//! encoding takes longer than a picture lasts, every second picture, every third and so on is left
//! out on purpose: evenly, instead of whichever comes while the encoder is busy. Latency stays what
//! one picture takes. Times are those of the captures; there is no clock here.

use std::time::Duration;

use crate::time::Instant;

/// The schedule of one stream.
#[derive(Debug)]
pub(super) struct Pace {
    source_fps: f64,
    wanted_fps: f64,
    /// Every how manieth of the wanted pictures is taken: 1, unless the board is too slow.
    divisor: u32,
    /// When the next picture is due; `None` before the first.
    due: Option<Instant>,
    /// What a picture takes, on average over about the last [`MEMORY`] of them.
    busy: f64,
    /// Since when the divisor should be another one, and whether a larger one.
    strain: Option<(Instant, bool)>,
}

impl Pace {
    pub(super) fn new(source_fps: f64, wanted_fps: f64) -> Self {
        Self { source_fps, wanted_fps, divisor: 1, due: None, busy: 0.0, strain: None }
    }

    /// Goes on with other rates; what is known of the board stays.
    pub(super) fn change(&mut self, source_fps: f64, wanted_fps: f64) {
        (self.source_fps, self.wanted_fps) = (source_fps, wanted_fps);
        self.due = None;
    }

    /// Pictures per second that the encoder will be given.
    pub(super) fn fps(&self) -> f64 {
        self.full_fps() / f64::from(self.divisor)
    }

    fn full_fps(&self) -> f64 {
        self.wanted_fps.min(self.source_fps)
    }

    /// Whether the picture captured then is one of this stream's. Each may be asked for once.
    pub(super) fn admits(&mut self, captured: Instant) -> bool {
        let fps = self.fps();
        if fps >= self.source_fps * NEARLY_ALL {
            return true;
        }
        let interval = Duration::from_secs_f64(1.0 / fps);
        let half_picture = Duration::from_secs_f64(0.5 / self.source_fps);
        let due = self.due.unwrap_or(captured);
        if captured + half_picture < due {
            return false;
        }
        // A gap in the source starts the schedule anew.
        let next = due + interval;
        self.due = Some(if captured > next { captured + interval } else { next });
        true
    }

    /// Takes note of what an admitted picture took; answers whether [`Pace::fps`] has changed.
    pub(super) fn spent(&mut self, captured: Instant, busy: Duration) -> bool {
        // Opening an encoder, with the first picture, is no measure of those to come.
        let busy = if self.busy == 0.0 {
            busy.as_secs_f64().min(AIRY / self.fps())
        } else {
            busy.as_secs_f64()
        };
        self.busy += (busy - self.busy) / if self.busy == 0.0 { 1.0 } else { MEMORY };
        let is_slow = self.busy * self.fps() > SLOW;
        let is_quick =
            self.divisor > 1 && self.busy * self.full_fps() / f64::from(self.divisor - 1) < QUICK;
        if !is_slow && !is_quick {
            self.strain = None;
            return false;
        }
        let since = match self.strain {
            Some((since, was_slow)) if was_slow == is_slow => since,
            _ => captured,
        };
        self.strain = Some((since, is_slow));
        if captured.since(since) < if is_slow { SLOW_FOR } else { QUICK_FOR } {
            return false;
        }
        self.strain = None;
        let before = self.divisor;
        self.divisor = if is_slow { self.bearable() } else { self.divisor - 1 };
        self.due = None;
        self.divisor != before
    }

    /// The smallest divisor that leaves the board some air.
    fn bearable(&self) -> u32 {
        // One picture per second is the least.
        let max = float_to_u32(self.full_fps()).max(1);
        let bears = |divisor: &u32| self.busy * self.full_fps() / f64::from(*divisor) <= AIRY;
        (1..=max).find(bears).unwrap_or(max)
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float casts saturate, and a rate is positive"
)]
fn float_to_u32(value: f64) -> u32 {
    value as u32
}

/// Pictures that the average remembers.
const MEMORY: f64 = 16.0;
/// Shares of its time that the thread is busy: above which the board is too slow, to which a step
/// down is to lead, and below which there is room for a step up.
const SLOW: f64 = 0.95;
const AIRY: f64 = 0.8;
const QUICK: f64 = 0.7;
/// How long that has to last.
const SLOW_FOR: Duration = Duration::from_secs(2);
const QUICK_FOR: Duration = Duration::from_secs(10);
/// A camera's 29.97 is what people mean by 30.
const NEARLY_ALL: f64 = 0.97;

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small test numbers")]
mod tests {
    use super::*;

    fn at(source_fps: f64, number: u64) -> Instant {
        Instant::from_micros(5_000_000 + (number as f64 * 1e6 / source_fps) as u64)
    }

    fn admitted(pace: &mut Pace, source_fps: f64, count: u64) -> Vec<u64> {
        (0..count).filter(|&number| pace.admits(at(source_fps, number))).collect()
    }

    #[test]
    fn a_slower_stream_takes_pictures_evenly_and_as_many_as_it_wants() {
        for (source, wanted) in [(30.0, 10.0), (30.0, 15.0), (30.0, 7.0), (25.0, 10.0), (60.0, 1.0)]
        {
            let taken = admitted(&mut Pace::new(source, wanted), source, 600);
            let expected = 600.0 * wanted / source;
            assert!(
                (taken.len() as f64 - expected).abs() <= 1.0,
                "{source} {wanted}: {}",
                taken.len()
            );
            let steps: Vec<u64> = taken.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let (least, most) = (steps.iter().min().unwrap(), steps.iter().max().unwrap());
            assert!(most - least <= 1, "{source} {wanted}: {steps:?}");
        }
    }

    #[test]
    fn a_stream_as_fast_as_its_source_takes_everything() {
        for (source, wanted) in [(30.0, 30.0), (29.97, 30.0), (10.0, 30.0)] {
            assert_eq!(admitted(&mut Pace::new(source, wanted), source, 100).len(), 100);
        }
    }

    #[test]
    fn a_gap_is_not_made_up_for() {
        let mut pace = Pace::new(30.0, 10.0);
        assert!(pace.admits(at(30.0, 0)));
        let after: Vec<bool> = (3_000..3_009).map(|number| pace.admits(at(30.0, number))).collect();
        assert_eq!(after.iter().filter(|&&taken| taken).count(), 3);
        assert!(after[0]);
    }

    /// Runs pictures that take `busy` each, by their seconds; the rates that it came to, and when.
    fn live(pace: &mut Pace, seconds: std::ops::Range<u64>, busy: Duration) -> Vec<(u64, f64)> {
        let mut changes = Vec::new();
        for number in seconds.start * 30..seconds.end * 30 {
            let captured = at(30.0, number);
            if pace.admits(captured) && pace.spent(captured, busy) {
                changes.push((number / 30, pace.fps()));
            }
        }
        changes
    }

    #[test]
    fn a_board_that_is_too_slow_steps_down_once_and_up_again_when_it_can() {
        let mut pace = Pace::new(30.0, 30.0);
        assert_eq!(live(&mut pace, 0..20, Duration::from_millis(20)), []);
        // 50 ms a picture: 20 pictures a second at most, so every second one is taken.
        let down = live(&mut pace, 20..80, Duration::from_millis(50));
        assert_eq!(down.iter().map(|(_, fps)| *fps).collect::<Vec<_>>(), [15.0]);
        assert!(down[0].0 <= 24, "{down:?}");
        let up = live(&mut pace, 80..140, Duration::from_millis(20));
        assert_eq!(up.iter().map(|(_, fps)| *fps).collect::<Vec<_>>(), [30.0]);
        assert!(up[0].0 >= 90, "{up:?}");
    }

    #[test]
    fn a_board_on_the_edge_does_not_go_up_and_down() {
        for busy in 1..200 {
            let mut pace = Pace::new(30.0, 30.0);
            let changes = live(&mut pace, 0..120, Duration::from_millis(busy));
            assert!(changes.len() <= 1, "{busy} ms: {changes:?}");
            assert!(pace.fps() >= 1.0);
            assert!(pace.fps() * 0.001 * busy as f64 <= SLOW, "{busy} ms");
        }
    }
}
