//! What threads 1 and 2 share of a raw source: the newest picture, and how the source is.
//!
//! There is one intake for each thread 1. One that does not answer any more, because a driver holds
//! it, is abandoned with its intake, its descriptor and whatever picture it may still come up with.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::capture::{Error, RawFrame};
use crate::ring::Newest;
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Intake {
    pub(super) frames: Newest<RawFrame>,
    /// Why there are no pictures; `None` while there are, as far as thread 1 knows.
    fault: Mutex<Option<String>>,
    /// When thread 1 last came by, in microseconds.
    seen_micros: AtomicU64,
    /// Pictures per second that the source delivers, in thousandths.
    fps_milli: AtomicU64,
    is_abandoned: AtomicBool,
    /// Whether somebody else holds the device.
    is_busy: AtomicBool,
}

impl Intake {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            frames: Newest::default(),
            fault: Mutex::new(None),
            seen_micros: AtomicU64::new(now.as_micros()),
            fps_milli: AtomicU64::new(0),
            is_abandoned: AtomicBool::new(false),
            is_busy: AtomicBool::new(false),
        }
    }

    /// Thread 1 is alive; `false` when nobody waits for it any more.
    pub(super) fn come_by(&self, now: Instant) -> bool {
        self.seen_micros.store(now.as_micros(), Ordering::Relaxed);
        !self.is_abandoned.load(Ordering::Relaxed)
    }

    /// The source delivers, at that rate.
    pub(super) fn is_well(&self, fps: f64) {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "float casts saturate, and a rate is positive"
        )]
        self.fps_milli.store((fps * 1_000.0) as u64, Ordering::Relaxed);
        self.is_busy.store(false, Ordering::Relaxed);
        *self.fault() = None;
    }

    /// The source delivers nothing.
    pub(super) fn is_lost(&self, reason: String) {
        *self.fault() = Some(reason);
    }

    /// The source cannot be opened.
    pub(super) fn is_refused(&self, error: &Error) {
        self.is_busy.store(matches!(error, Error::Busy { .. }), Ordering::Relaxed);
        self.is_lost(error.to_string());
    }

    /// Whether the device is held by somebody else: a thread that was abandoned, perhaps.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Relaxed)
    }

    pub(super) fn why_lost(&self) -> Option<String> {
        self.fault().clone()
    }

    /// Pictures per second; `None` before the source was open.
    pub(super) fn fps(&self) -> Option<f64> {
        let milli = self.fps_milli.load(Ordering::Relaxed);
        (milli > 0).then_some(milli as f64 / 1_000.0)
    }

    /// Whether thread 1 has not come by for so long that it will not.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        now.since(Instant::from_micros(self.seen_micros.load(Ordering::Relaxed))) >= STUCK_AFTER
    }

    pub(super) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }

    fn fault(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        // A text is never half written.
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Longer than every wait of thread 1, and than opening a slow USB camera takes.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(8);
