//! Thread 1 alone: passes access units on that somebody else has encoded.

use log::{debug, warn};

use super::capturing::{Failure, Woken, reopen, wait};
use super::{Notice, Reopen, Shared};
use crate::capture::{CodedSource, Source};
use crate::ring::Published;
use crate::sys::{clock, process};
use crate::time::Instant;

pub(super) struct Passing {
    pub(super) source: Option<Box<dyn CodedSource>>,
    pub(super) reopen: Reopen,
    pub(super) shared: Shared,
    pub(super) is_ready: bool,
}

impl Passing {
    /// Passes access units on until told to stop.
    pub(super) fn run(mut self) {
        if let Err(errno) = process::shorten_turns() {
            debug!("capture: turns stay as they are error={errno}");
        }
        while let Some(mut source) = self.source.take() {
            let Err(failure) = self.pass(&mut *source) else { break };
            drop(source);
            let source = reopen(&mut self.reopen, &self.shared.stop, &failure);
            let Some(Source::Coded(source)) = source else { break };
            self.shared.stats.reopened.increment();
            self.source = Some(source);
        }
    }

    /// `Ok` when told to stop.
    fn pass(&mut self, source: &mut dyn CodedSource) -> Result<(), Failure> {
        let mut has_warned = false;
        loop {
            // A file is never late: the schedule is its own.
            match wait(source.wait(), Instant::from_micros(u64::MAX), &self.shared.stop) {
                Woken::Stop => return Ok(()),
                Woken::Ready | Woken::Late => {}
            }
            let Shared { publisher, stats, .. } = &mut self.shared;
            let published = publisher
                .publish(|unit| source.capture(clock::now(), unit))
                .map_err(Failure::Source)?;
            match published {
                Published::Yes => {
                    stats.captured.increment();
                    stats.encoded.increment();
                    self.shared.wake.wake();
                    if !self.is_ready {
                        self.is_ready = true;
                        // Nobody listens when the process is ending anyway.
                        let _ = self.shared.notices.send(Notice::Ready);
                    }
                }
                Published::Nothing => {}
                Published::NoSlot if !has_warned => {
                    has_warned = true;
                    warn!("capture: the consumers hold every access unit; dropping");
                }
                Published::NoSlot => {}
            }
        }
    }
}
