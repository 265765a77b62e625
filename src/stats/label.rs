//! A name that changes once in a while.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The newest name of something.
#[derive(Debug, Default)]
pub struct Label(Mutex<String>);

impl Label {
    /// Replaces the name; for what happens seldom, as a reader may have to be waited for.
    pub fn set(&self, name: &str) {
        let mut label = self.lock();
        label.clear();
        label.push_str(name);
    }

    /// The name; empty before the first.
    #[must_use]
    pub fn get(&self) -> String {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, String> {
        // A text is a text whoever panicked beside it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_newest_name_is_read() {
        let label = Label::default();
        assert_eq!(label.get(), "");
        label.set("OpenH264");
        label.set("m2m");
        assert_eq!(label.get(), "m2m");
    }
}
