//! One slot between two threads: what is put replaces what has not been taken.
//!
//! Latency cannot creep, because nothing can queue.

use std::time::Duration;

use super::sync::{Condvar, Mutex};

/// The slot. Lock and condition variable are held for a move of the value, never longer.
#[derive(Debug)]
pub struct Newest<T> {
    slot: Mutex<Slot<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct Slot<T> {
    value: Option<T>,
    is_closed: bool,
}

/// What [`Newest::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<T> {
    Value(T),
    /// Nothing came in time.
    TimedOut,
    /// Closed, and nothing is left.
    Closed,
}

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self { slot: Mutex::new(Slot { value: None, is_closed: false }), filled: Condvar::new() }
    }
}

impl<T> Newest<T> {
    /// Puts `value` in and returns the one that it replaced.
    ///
    /// # Panics
    ///
    /// When the other thread panicked while it held the lock, which ends the process anyway.
    pub fn put(&self, value: T) -> Option<T> {
        let replaced = {
            let mut slot = self.slot.lock().expect("no code panics under this lock");
            slot.value.replace(value)
        };
        self.filled.notify_one();
        replaced
    }

    /// Waits for a value, for at most `patience`.
    ///
    /// # Panics
    ///
    /// As [`Newest::put`].
    pub fn take(&self, patience: Duration) -> Taken<T> {
        let mut slot = self.slot.lock().expect("no code panics under this lock");
        let mut is_over = false;
        loop {
            if let Some(value) = slot.value.take() {
                return Taken::Value(value);
            }
            if slot.is_closed {
                return Taken::Closed;
            }
            if is_over {
                return Taken::TimedOut;
            }
            let (woken, wait) =
                self.filled.wait_timeout(slot, patience).expect("no code panics under this lock");
            (slot, is_over) = (woken, wait.timed_out());
        }
    }

    /// Wakes the taker for good: no more values will come.
    ///
    /// # Panics
    ///
    /// As [`Newest::put`].
    pub fn close(&self) {
        self.slot.lock().expect("no code panics under this lock").is_closed = true;
        self.filled.notify_all();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_wins_and_the_older_one_comes_back() {
        let slot = Newest::default();
        assert_eq!(slot.put(1), None);
        assert_eq!(slot.put(2), Some(1));
        assert_eq!(slot.take(Duration::ZERO), Taken::Value(2));
        assert_eq!(slot.take(Duration::ZERO), Taken::TimedOut);
        slot.put(3);
        slot.close();
        assert_eq!(slot.take(Duration::ZERO), Taken::Value(3));
        assert_eq!(slot.take(Duration::MAX), Taken::Closed);
    }

    #[test]
    fn a_taker_that_waits_is_woken_by_a_value_and_by_the_end() {
        const LONG: Duration = Duration::from_secs(60);
        let (there, back) = (Newest::default(), Newest::default());
        let rounds = if cfg!(miri) { 20 } else { 1_000 };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while let Taken::Value(number) = there.take(LONG) {
                    back.put(number);
                }
                back.close();
            });
            for number in 0..rounds {
                there.put(number);
                assert_eq!(back.take(LONG), Taken::Value(number));
            }
            there.close();
            assert_eq!(back.take(LONG), Taken::Closed);
        });
    }
}
