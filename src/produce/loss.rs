//! A source that is lost: from its last picture until its next one.
//!
//! That it could be opened does not mean that it is back: a device may stream and never give a
//! picture. Until it gives one, the pauses between attempts grow, and nothing more is told.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Loss(Mutex<Option<Lost>>);

#[derive(Clone, Copy, Debug)]
struct Lost {
    since: Instant,
    /// Before the next attempt.
    pause: Duration,
    /// Whether anybody was told.
    is_told: bool,
}

impl Loss {
    /// The source has failed, or is to be another one: then the first attempt waits for nothing.
    /// Answers whether that is to be told: once, and not of one that somebody wants.
    pub(super) fn begin(&self, now: Instant, is_hurried: bool) -> bool {
        let mut lost = self.lost();
        let lost = lost.get_or_insert(Lost { since: now, pause: REOPEN_FIRST, is_told: false });
        if is_hurried {
            lost.pause = Duration::ZERO;
            return false;
        }
        !std::mem::replace(&mut lost.is_told, true)
    }

    /// How long to wait before the next attempt to open it.
    pub(super) fn pause(&self) -> Duration {
        let mut lost = self.lost();
        let Some(lost) = lost.as_mut() else { return REOPEN_FIRST };
        let pause = lost.pause;
        lost.pause = (pause * 2).clamp(REOPEN_FIRST, REOPEN_MAX);
        pause
    }

    /// There is a picture. Answers for how long there was none, if it was lost.
    pub(super) fn end(&self, now: Instant) -> Option<Duration> {
        self.lost().take().map(|lost| now.since(lost.since))
    }

    fn lost(&self) -> MutexGuard<'_, Option<Lost>> {
        // Two numbers, never half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const REOPEN_FIRST: Duration = Duration::from_millis(100);
/// Back within two seconds of the camera's return: half of them are for opening it and for its first
/// picture.
const REOPEN_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Instant = Instant::from_micros(5_000_000);

    /// A device that can be opened and then says nothing, for ever.
    #[test]
    fn a_source_that_opens_and_stays_silent_is_tried_less_and_less_often_and_told_once() {
        let loss = Loss::default();
        assert_eq!(loss.end(AT), None, "it was never lost");
        let mut pauses = Vec::new();
        for attempt in 0..7 {
            assert_eq!(loss.begin(AT, false), attempt == 0);
            pauses.push(loss.pause().as_millis());
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_000, 1_000, 1_000]);
        assert_eq!(loss.end(AT + Duration::from_secs(9)), Some(Duration::from_secs(9)));
        assert_eq!(loss.end(AT), None, "told once");
        assert!(loss.begin(AT, false) && loss.pause() == REOPEN_FIRST, "all begins anew");
    }

    #[test]
    fn another_source_is_opened_at_once_even_while_the_old_one_is_lost() {
        let loss = Loss::default();
        for _ in 0..5 {
            loss.begin(AT, false);
            loss.pause();
        }
        assert!(!loss.begin(AT, true));
        assert_eq!(loss.pause(), Duration::ZERO);
        assert_eq!(loss.pause(), REOPEN_FIRST);
        loss.end(AT);
        assert!(!loss.begin(AT, true), "that is wanted");
        assert!(loss.begin(AT, false), "and the new one fails, which is not");
        assert!(!loss.begin(AT, false));
    }
}
