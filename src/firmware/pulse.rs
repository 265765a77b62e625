//! Turns the camera's beats, or their absence, into decisions: kill it, start it when, give up.
//!
//! DESIGN, "firmware": no beat for 10 s and the camera is restarted; five in a row that never beat
//! and the machine is. No I/O: `now` is an argument.

use std::time::Duration;

use crate::time::Instant;

/// What is known of the cameras that ran so far.
#[derive(Debug)]
pub(super) struct Pulse {
    /// When the camera that runs was started.
    since: Instant,
    /// By when it has to beat.
    deadline: Instant,
    has_beaten: bool,
    /// Cameras in a row that ended, or went silent, without a single beat.
    silent: u32,
    /// Deadlines that passed since the camera was to be killed: it cannot even die.
    deadlines_passed: u32,
    delay: Duration,
}

impl Pulse {
    pub(super) const fn new() -> Self {
        Self {
            since: Instant::ZERO,
            deadline: Instant::ZERO,
            has_beaten: false,
            silent: 0,
            deadlines_passed: 0,
            delay: FIRST_DELAY,
        }
    }

    /// A camera was started.
    pub(super) fn started(&mut self, now: Instant) {
        self.since = now;
        self.deadline = now + START_GRACE + SILENCE_MAX;
        self.has_beaten = false;
        self.deadlines_passed = 0;
    }

    /// The camera has beaten; whether it was its first beat.
    pub(super) fn beaten(&mut self, now: Instant) -> bool {
        let is_first = !self.has_beaten;
        self.has_beaten = true;
        self.silent = 0;
        self.deadlines_passed = 0;
        self.deadline = now + SILENCE_MAX;
        is_first
    }

    /// By when the camera has to beat.
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether to kill the camera now. Asked again, it says so again when that did not help.
    pub(super) fn is_overdue(&mut self, now: Instant) -> bool {
        if now < self.deadline {
            return false;
        }
        self.deadlines_passed = self.deadlines_passed.saturating_add(1);
        self.deadline = now + SILENCE_MAX;
        true
    }

    /// The camera has ended, or could not be started: how long to wait before the next.
    ///
    /// Doubled each time, unless it ran well.
    pub(super) fn ended(&mut self, now: Instant) -> Duration {
        if !self.has_beaten {
            self.silent = self.silent.saturating_add(1);
        } else if now.since(self.since) >= RAN_WELL {
            self.delay = FIRST_DELAY;
        }
        let delay = self.delay;
        self.delay = (delay * 2).min(MAX_DELAY);
        delay
    }

    /// Whether only a restart of the machine can help.
    pub(super) const fn is_hopeless(&self) -> bool {
        self.silent >= SILENT_MAX || self.deadlines_passed > SILENT_MAX
    }
}

const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Opening a camera takes a slow board seconds.
const START_GRACE: Duration = Duration::from_secs(10);
const SILENT_MAX: u32 = 5;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(10);
/// A camera that lived this long did not die of how it was started.
const RAN_WELL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_micros(3_000_000);

    fn started() -> Pulse {
        let mut pulse = Pulse::new();
        pulse.started(START);
        pulse
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_restart_comes_within_a_second_and_a_crash_loop_slows_down() {
        let mut pulse = Pulse::new();
        let mut last = Duration::ZERO;
        for turn in 0..12 {
            pulse.started(START);
            let delay = pulse.ended(START + Duration::from_millis(5));
            assert!(delay >= last && (turn > 2 || delay < seconds(1)), "{turn} {delay:?}");
            last = delay;
        }
        assert_eq!(last, MAX_DELAY);
    }

    #[test]
    fn a_camera_that_ran_well_is_restarted_at_once_again() {
        let mut pulse = Pulse::new();
        for _ in 0..12 {
            pulse.ended(START);
        }
        pulse.started(START);
        pulse.beaten(START);
        assert_eq!(pulse.ended(START + RAN_WELL), FIRST_DELAY);
    }

    #[test]
    fn a_camera_may_take_its_time_to_start_but_then_has_to_beat() {
        let mut pulse = started();
        assert!(!pulse.is_overdue(START + Duration::from_millis(19_999)));
        assert!(pulse.beaten(START + seconds(19)));
        assert!(!pulse.beaten(START + seconds(20)));
        assert!(!pulse.is_overdue(START + Duration::from_millis(29_999)));
        assert!(pulse.is_overdue(START + seconds(30)));
        assert!(!pulse.is_hopeless());
    }

    #[test]
    fn a_camera_that_never_beats_is_killed_after_the_grace() {
        let mut pulse = started();
        assert_eq!(pulse.deadline(), START + seconds(20));
        assert!(pulse.is_overdue(START + seconds(20)));
        assert!(!pulse.is_overdue(START + seconds(20)), "once is enough");
    }

    #[test]
    fn five_cameras_without_a_beat_leave_no_hope_and_one_beat_brings_it_back() {
        let mut pulse = Pulse::new();
        for silent in 0..5 {
            assert!(!pulse.is_hopeless(), "after {silent}");
            pulse.started(START);
            pulse.ended(START + seconds(1));
        }
        assert!(pulse.is_hopeless());
        pulse.started(START);
        assert!(pulse.is_hopeless(), "a start is no beat");
        pulse.beaten(START);
        assert!(!pulse.is_hopeless());
    }

    #[test]
    fn cameras_that_beat_and_then_fall_silent_are_restarted_for_ever() {
        let mut pulse = Pulse::new();
        for _ in 0..100 {
            pulse.started(START);
            pulse.beaten(START);
            assert!(pulse.is_overdue(START + seconds(10)));
            pulse.ended(START + seconds(10));
            assert!(!pulse.is_hopeless());
        }
    }

    #[test]
    fn a_camera_that_cannot_be_killed_leaves_no_hope() {
        let mut pulse = started();
        pulse.beaten(START);
        let deadlines = (1..=5).filter(|n| pulse.is_overdue(START + seconds(10 * n))).count();
        assert_eq!((deadlines, pulse.is_hopeless()), (5, false));
        assert!(pulse.is_overdue(START + seconds(60)));
        assert!(pulse.is_hopeless());
    }
}
