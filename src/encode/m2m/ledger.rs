//! Keeps account of the pictures that an encoder was given, by their capture times.
//!
//! V4L2, "Memory-to-Memory Stateful Video Encoder Interface", "Encoding": a coded picture carries
//! the stamp of the raw one. Drivers drop pictures without a word (bcm2835-codec on a bitrate
//! overshoot), so what is missing is noticed by what came instead.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;

/// What became of the pictures so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Given to the driver.
    pub given: u64,
    /// Came out whole.
    pub coded: u64,
    /// Never came out: a later picture came first, or the stream was cut off.
    pub lost: u64,
    /// Came out, or back, with `V4L2_BUF_FLAG_ERROR`.
    pub damaged: u64,
    /// Came out with a stamp that no picture in flight has.
    pub unknown: u64,
    /// Not given: every buffer was in flight.
    pub skipped: u64,
}

/// The pictures in flight, oldest first.
#[derive(Debug)]
pub(super) struct Ledger {
    in_flight: VecDeque<Flight>,
    /// The newest picture that was there to be given: how far the input has moved on. A gap in it
    /// is no fault of the encoder.
    newest: Instant,
    /// Pictures that were there to be given.
    offered: u64,
    /// From capture to capture: how far the input had moved on when a picture came out.
    mean_latency: Duration,
    counts: Counts,
}

/// A picture in flight.
#[derive(Clone, Copy, Debug)]
struct Flight {
    captured: Instant,
    /// Of [`Ledger::offered`], when it was given.
    number: u64,
}

/// Whose a coded picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Of the picture with this capture time.
    Given(Instant),
    /// Of none in flight: it is not to be sent.
    Unknown,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            in_flight: VecDeque::with_capacity(MAX_IN_FLIGHT),
            newest: Instant::ZERO,
            offered: 0,
            mean_latency: Duration::ZERO,
            counts: Counts::default(),
        }
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// A picture was given to the driver.
    pub(super) fn give(&mut self, captured: Instant) {
        if self.in_flight.len() == MAX_IN_FLIGHT {
            self.in_flight.pop_front();
            self.counts.lost += 1;
        }
        self.saw(captured);
        self.in_flight.push_back(Flight { captured, number: self.offered });
        self.counts.given += 1;
    }

    /// The input has moved on.
    fn saw(&mut self, captured: Instant) {
        self.newest = captured;
        self.offered += 1;
    }

    /// A picture could not be given.
    pub(super) fn skip(&mut self, captured: Instant) {
        self.saw(captured);
        self.counts.skipped += 1;
    }

    /// A coded picture came out; those given before it never will.
    pub(super) fn take(&mut self, stamp: Option<Instant>, is_damaged: bool) -> Origin {
        let found =
            stamp.and_then(|stamp| self.in_flight.iter().position(|it| it.captured == stamp));
        let Some((index, captured)) = found.zip(stamp) else {
            self.counts.unknown += 1;
            return Origin::Unknown;
        };
        self.in_flight.drain(..=index);
        self.counts.lost += u64::try_from(index).unwrap_or(u64::MAX);
        if is_damaged {
            self.counts.damaged += 1;
        } else {
            self.counts.coded += 1;
        }
        // One that was held back over a pause says nothing of how long a picture takes.
        let latency = self.newest.since(captured).min(LATENCY_MAX);
        self.mean_latency = (self.mean_latency * (SMOOTHING - 1) + latency) / SMOOTHING;
        Origin::Given(captured)
    }

    /// The stream was cut off: nothing that is in flight will come.
    pub(super) fn abandon(&mut self) {
        self.counts.lost += u64::try_from(self.in_flight.len()).unwrap_or(u64::MAX);
        self.in_flight.clear();
    }

    /// How long the oldest picture in flight has been waited for, when that is too long.
    pub(super) fn stalled(&self, interval: Duration) -> Option<Duration> {
        let oldest = self.in_flight.front()?;
        let waited = self.newest.since(oldest.captured);
        // A driver may keep pictures back until more come: a gap in the input is not its fault.
        let is_pushed = self.offered - oldest.number >= PUSHED_BY;
        (is_pushed && waited > self.patience(interval)).then_some(waited)
    }

    /// How long a picture may take.
    pub(super) fn patience(&self, interval: Duration) -> Duration {
        MIN_PATIENCE.max(interval * 10).max(self.mean_latency * 5)
    }
}

/// More than any encoder holds; two seconds of 60 pictures each.
const MAX_IN_FLIGHT: usize = 128;
/// DESIGN, "Healing".
const MIN_PATIENCE: Duration = Duration::from_secs(1);
/// Pictures that come after one which an encoder at work gives out.
const PUSHED_BY: u64 = 5;
/// An encoder that takes longer is of no use to anybody who watches.
const LATENCY_MAX: Duration = Duration::from_secs(2);
/// The mean follows a change within about so many pictures.
const SMOOTHING: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(frame: u64) -> Instant {
        Instant::from_micros(5_000_000 + frame * 33_333)
    }

    const INTERVAL: Duration = Duration::from_micros(33_333);

    #[test]
    fn every_picture_that_comes_out_is_one_that_went_in() {
        let mut ledger = Ledger::new();
        for frame in 0..1_000 {
            ledger.give(at(frame));
            assert_eq!(ledger.take(Some(at(frame)), false), Origin::Given(at(frame)));
        }
        let counts = Counts { given: 1_000, coded: 1_000, ..Counts::default() };
        assert_eq!((ledger.counts(), ledger.in_flight()), (counts, 0));
    }

    #[test]
    fn a_picture_is_lost_when_a_later_one_comes_first() {
        let mut ledger = Ledger::new();
        (0..5).for_each(|frame| ledger.give(at(frame)));
        assert_eq!(ledger.take(Some(at(2)), false), Origin::Given(at(2)));
        assert_eq!((ledger.counts().lost, ledger.in_flight()), (2, 2));
        assert_eq!(ledger.take(Some(at(1)), false), Origin::Unknown, "it was given up");
        assert_eq!(ledger.take(Some(at(3)), true), Origin::Given(at(3)));
        let expected = Counts { given: 5, coded: 1, lost: 2, damaged: 1, unknown: 1, skipped: 0 };
        assert_eq!(ledger.counts(), expected);
    }

    #[test]
    fn a_stamp_that_was_never_given_is_counted_and_disturbs_nothing() {
        let mut ledger = Ledger::new();
        ledger.give(at(0));
        for stamp in [None, Some(Instant::ZERO), Some(at(7))] {
            assert_eq!(ledger.take(stamp, false), Origin::Unknown);
        }
        assert_eq!((ledger.counts().unknown, ledger.in_flight()), (3, 1));
    }

    #[test]
    fn an_encoder_that_gives_nothing_for_a_second_is_stalled() {
        let mut ledger = Ledger::new();
        ledger.skip(at(0));
        ledger.skip(at(1_000));
        assert_eq!(ledger.stalled(INTERVAL), None, "nothing was asked of it");
        for frame in 0..=30 {
            // It takes four, and has no room for more.
            if frame < 4 {
                ledger.give(at(frame))
            } else {
                ledger.skip(at(frame))
            }
            assert_eq!(ledger.stalled(INTERVAL), None, "{frame}");
        }
        ledger.skip(at(31));
        assert_eq!(ledger.stalled(INTERVAL), Some(at(31).since(at(0))));
        // At two pictures a second ten of them are five seconds.
        assert_eq!(ledger.stalled(Duration::from_millis(500)), None);
        ledger.take(Some(at(3)), false);
        ledger.skip(at(1_000));
        assert_eq!(ledger.stalled(INTERVAL), None, "all is given back");
    }

    #[test]
    fn a_camera_that_pauses_does_not_make_the_encoder_stalled() {
        let mut ledger = Ledger::new();
        ledger.give(at(0));
        ledger.give(at(1));
        ledger.take(Some(at(0)), false);
        // An hour later the next picture is there; the one held back comes out for it.
        assert_eq!(ledger.stalled(INTERVAL), None);
        ledger.give(at(108_000));
        assert_eq!(ledger.take(Some(at(1)), false), Origin::Given(at(1)));
        assert_eq!(ledger.stalled(INTERVAL), None);
    }

    #[test]
    fn two_pictures_held_back_over_a_pause_do_not_either() {
        let mut ledger = Ledger::new();
        ledger.give(at(0));
        ledger.give(at(1));
        for frame in 108_000..108_002 {
            ledger.give(at(frame));
            assert_eq!(ledger.stalled(INTERVAL), None);
            ledger.take(Some(at(frame - 108_000)), false);
            assert_eq!(ledger.stalled(INTERVAL), None);
        }
        // But nothing for five more is too long.
        (108_002..108_005).for_each(|frame| ledger.skip(at(frame)));
        ledger.skip(at(108_030));
        assert_eq!(ledger.stalled(INTERVAL), None);
        ledger.skip(at(108_041));
        assert_eq!(ledger.stalled(INTERVAL), Some(at(41).since(at(0))));
    }

    #[test]
    fn a_slow_encoder_is_given_five_times_what_it_takes() {
        let mut ledger = Ledger::new();
        for frame in 0..200 {
            ledger.give(at(frame));
            if let Some(earlier) = frame.checked_sub(15) {
                ledger.take(Some(at(earlier)), false);
            }
        }
        // It lags half a second, so 2.5 seconds are not long.
        ledger.skip(at(185 + 70));
        assert_eq!(ledger.stalled(INTERVAL), None);
        ledger.skip(at(185 + 80));
        assert!(ledger.stalled(INTERVAL).is_some());
    }

    #[test]
    fn memory_stays_bounded_when_nothing_ever_comes_out() {
        let mut ledger = Ledger::new();
        (0..1_000).for_each(|frame| ledger.give(at(frame)));
        assert_eq!(ledger.in_flight(), MAX_IN_FLIGHT);
        ledger.abandon();
        assert_eq!((ledger.counts().lost, ledger.in_flight()), (1_000, 0));
    }
}
