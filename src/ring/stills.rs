//! Single pictures for whoever asks: the newest one, once.
//!
//! The producer looks at one atomic per picture, and copies one only when somebody waits for it.

use std::fmt;
use std::sync::{Arc, PoisonError};

use super::sync::{AtomicBool, Mutex, Ordering};

/// What is to be done with the picture.
type Take<T> = Box<dyn FnOnce(Arc<T>) + Send>;

/// Requests for the next picture.
pub struct Stills<T> {
    is_asked: AtomicBool,
    waiting: Mutex<Vec<Take<T>>>,
}

impl<T> Default for Stills<T> {
    fn default() -> Self {
        Self { is_asked: AtomicBool::new(false), waiting: Mutex::new(Vec::new()) }
    }
}

impl<T> Stills<T> {
    /// Has `take` called with the next picture, on the producer's thread: it must not take long.
    /// `false` when [`WAITING_MAX`] wait already.
    pub fn ask(&self, take: impl FnOnce(Arc<T>) + Send + 'static) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING_MAX {
            return false;
        }
        waiting.push(Box::new(take));
        self.is_asked.store(true, Ordering::Release);
        true
    }

    /// Whether somebody waits: only then is a picture worth copying.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Acquire)
    }

    /// Gives `still` to all who wait.
    pub fn give(&self, still: T) {
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.is_asked.store(false, Ordering::Release);
            std::mem::take(&mut *waiting)
        };
        let still = Arc::new(still);
        waiting.into_iter().for_each(|take| take(Arc::clone(&still)));
    }
}

impl<T> fmt::Debug for Stills<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stills").field("is_asked", &self.is_asked).finish_non_exhaustive()
    }
}

/// Requests at a time; the web side lets in no more connections than these by far.
const WAITING_MAX: usize = 64;

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "tests may fail")]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn everybody_who_waits_gets_the_one_next_picture() {
        let stills = Stills::default();
        let (tx, rx) = mpsc::channel();
        for _ in 0..WAITING_MAX {
            let tx = tx.clone();
            assert!(stills.ask(move |still: Arc<u8>| tx.send(*still).unwrap()));
        }
        assert!(!stills.ask(|_| unreachable!("too many")));
        assert!(stills.is_asked());
        stills.give(7);
        assert!(!stills.is_asked());
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), [7; WAITING_MAX]);
        stills.give(8);
        assert!(rx.try_recv().is_err());
    }
}
