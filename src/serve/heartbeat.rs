//! Tells the supervisor that the camera lives: one byte a second into a pipe.
//!
//! A beat says that the loop turns and that the newest access unit is young. Viewers do not matter:
//! a camera that nobody watches lives too, and one that sends old pictures to many does not.

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::unistd::write;

use crate::time::Instant;

/// The camera's side of the pipe.
#[derive(Debug)]
pub(super) struct Heartbeat {
    /// Not blocking: a supervisor that does not read must not stop the loop.
    pipe: OwnedFd,
    /// When the newest access unit came out of a ring.
    newest: Option<Instant>,
    /// When the next beat is due.
    next: Instant,
}

impl Heartbeat {
    pub(super) const fn new(pipe: OwnedFd) -> Self {
        Self { pipe, newest: None, next: Instant::ZERO }
    }

    /// An access unit has come.
    pub(super) const fn unit(&mut self, now: Instant) {
        self.newest = Some(now);
    }

    /// When to beat; `None` until an access unit comes, which wakes the loop anyway.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let newest = self.newest?;
        (self.next < newest + UNIT_AGE_MAX).then_some(self.next)
    }

    /// Beats when it is time.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if now < self.next {
            return;
        }
        // Forgotten when it is too old, or its beat would stay due for ever.
        self.newest = self.newest.filter(|&newest| now.since(newest) < UNIT_AGE_MAX);
        if self.newest.is_none() {
            return;
        }
        self.next = now + INTERVAL;
        // EAGAIN: the supervisor has unread beats. EPIPE: it is gone, and with it the machine.
        let _ = write(&self.pipe, b".");
    }
}

const INTERVAL: Duration = Duration::from_secs(1);
/// NO SIGNAL pictures come once a second.
const UNIT_AGE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use nix::fcntl::OFlag;
    use nix::unistd::{pipe2, read};

    use super::*;

    /// Turns the loop every 100 ms for `run`; a picture comes each time `has_unit` says so.
    fn beats(run: Duration, has_unit: impl Fn(Duration) -> bool) -> usize {
        let (reading, writing) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let mut heart = Heartbeat::new(writing);
        let start = Instant::from_micros(7_000_000);
        for turn in 0..run.as_millis() / 100 {
            let since = Duration::from_millis(u64::try_from(turn).unwrap() * 100);
            let now = start + since;
            if has_unit(since) {
                heart.unit(now);
            }
            heart.handle_timeout(now);
        }
        read(&reading, &mut [0; 4096]).unwrap_or(0)
    }

    #[test]
    fn it_beats_once_a_second_while_pictures_come() {
        assert_eq!(beats(Duration::from_secs(20), |_| true), 20);
    }

    #[test]
    fn it_does_not_beat_before_the_first_picture() {
        assert_eq!(beats(Duration::from_secs(60), |_| false), 0);
    }

    #[test]
    fn it_stops_five_seconds_after_the_last_picture_and_comes_back_with_the_next() {
        let one = |at: Duration| at.is_zero();
        assert_eq!(beats(Duration::from_secs(60), one), 5);
        let two = |at: Duration| at.is_zero() || at == Duration::from_secs(30);
        assert_eq!(beats(Duration::from_secs(60), two), 10);
    }

    #[test]
    fn its_timeout_is_the_next_beat_or_none_when_no_beat_can_follow() {
        let (_reading, writing) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let mut heart = Heartbeat::new(writing);
        assert_eq!(heart.poll_timeout(), None);
        let now = Instant::from_micros(7_000_000);
        heart.unit(now);
        for beat in 0..5 {
            let due = heart.poll_timeout().unwrap().max(now);
            assert_eq!(due, now + INTERVAL * beat);
            heart.handle_timeout(due);
        }
        assert_eq!(heart.poll_timeout(), None);
    }

    #[test]
    fn a_loop_that_turns_late_never_finds_its_timeout_in_the_past() {
        for late in (0..7_000).step_by(13).map(Duration::from_millis) {
            let (_reading, writing) = pipe2(OFlag::O_NONBLOCK).unwrap();
            let mut heart = Heartbeat::new(writing);
            let now = Instant::from_micros(7_000_000);
            heart.unit(now);
            heart.handle_timeout(now + late);
            assert!(heart.poll_timeout().is_none_or(|due| due > now + late), "{late:?}");
        }
    }

    #[test]
    fn a_supervisor_that_does_not_read_stops_nothing() {
        let (reading, writing) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let mut heart = Heartbeat::new(writing);
        for second in 0..100_000 {
            let now = Instant::from_micros(second * 1_000_000);
            heart.unit(now);
            heart.handle_timeout(now);
        }
        drop(reading);
        heart.handle_timeout(Instant::from_micros(100_000_000_000));
    }
}
