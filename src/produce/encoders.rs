//! Which encoder a stream has: the best that works, and another one when it does not.
//!
//! DESIGN "Healing": a hardware encoder that fails or stalls is replaced by OpenH264 with the very
//! next picture, and tried again later, each time after twice as long. An OpenH264 that fails is
//! opened again; failing [`FAILURES_MAX`] times in a row, it is for the supervisor.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};

use crate::encode::{self, Choice, Encoder, Error, M2m, OpenH264, Settings};
use crate::frame::{Colour, Frame};
use crate::stats::Pipeline;
use crate::time::Instant;

/// The encoder of one stream, opened when there is a picture for it.
#[derive(Debug)]
pub(super) struct Encoders {
    stream: String,
    choice: Choice,
    open: Option<Open>,
    /// When hardware that failed is tried again, and how long it was left alone.
    retry: Option<(Instant, Duration)>,
    /// Of OpenH264, in a row.
    failures: u32,
    stats: Arc<Pipeline>,
}

#[derive(Debug)]
struct Open {
    encoder: Box<dyn Encoder>,
    is_hardware: bool,
    size: (u32, u32),
    colour: Colour,
    settings: Settings,
}

impl Encoders {
    pub(super) fn new(stream: String, choice: Choice, stats: Arc<Pipeline>) -> Self {
        Self { stream, choice, open: None, retry: None, failures: 0, stats }
    }

    /// The encoder for pictures like `frame`; a new one starts with an IDR.
    ///
    /// # Errors
    ///
    /// When not even OpenH264 can be opened.
    pub(super) fn of(
        &mut self,
        frame: &Frame<'_>,
        settings: &Settings,
    ) -> Result<&mut dyn Encoder, Error> {
        let (size, colour) = ((frame.width, frame.height), frame.colour);
        let is_retry_due = self.retry.is_some_and(|(at, _)| frame.captured >= at)
            && self.open.as_ref().is_some_and(|open| !open.is_hardware);
        let open = match self.open.take() {
            Some(open) if open.size == size && open.colour == colour => {
                let better = is_retry_due.then(|| self.open_hardware(frame, open.settings));
                better.flatten().unwrap_or(open)
            }
            _ => self.open(frame, Settings { colour, ..*settings })?,
        };
        let open = self.open.insert(open);
        if (Settings { colour, ..*settings }) != open.settings {
            open.settings = Settings { colour, ..*settings };
            open.encoder.change(&open.settings)?;
        }
        Ok(&mut *open.encoder)
    }

    /// When the last IDR was captured, by the encoder that is open.
    pub(super) fn last_idr(&self) -> Instant {
        self.open.as_ref().and_then(|open| open.encoder.last_idr()).unwrap_or(Instant::ZERO)
    }

    /// The encoder has made a unit.
    pub(super) fn worked(&mut self) {
        self.failures = 0;
    }

    /// The encoder has failed: the next picture will have another one.
    ///
    /// # Errors
    ///
    /// `error`, when there is no other.
    pub(super) fn failed(&mut self, now: Instant, error: Error) -> Result<(), Error> {
        let was_hardware = self.open.take().is_some_and(|open| open.is_hardware);
        self.stats.encoder_replaced.increment();
        if was_hardware {
            let pause = self.retry_later(now);
            warn!(
                "encode: replacing the encoder stream={} reason=\"{error}\" retry_after_s={}",
                self.stream,
                pause.as_secs()
            );
            return Ok(());
        }
        self.failures += 1;
        if self.failures > FAILURES_MAX {
            return Err(error);
        }
        warn!("encode: opening the encoder again stream={} reason=\"{error}\"", self.stream);
        Ok(())
    }

    /// Closes the encoder of a stream that nobody watches.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Has the next picture encoded by what `choice` says.
    pub(super) fn choose(&mut self, choice: Choice) {
        if choice != self.choice {
            (self.choice, self.open, self.retry) = (choice, None, None);
        }
    }

    fn open(&mut self, frame: &Frame<'_>, settings: Settings) -> Result<Open, Error> {
        let may_try = self.retry.is_none_or(|(at, _)| frame.captured >= at);
        let hardware = may_try.then(|| self.open_hardware(frame, settings)).flatten();
        match hardware {
            Some(open) => Ok(open),
            None => Ok(self.opened(Box::new(OpenH264::open(&settings)?), false, frame, settings)),
        }
    }

    fn open_hardware(&mut self, frame: &Frame<'_>, settings: Settings) -> Option<Open> {
        let candidates = candidates(&self.choice);
        let is_wanted = !candidates.is_empty();
        for path in candidates {
            match M2m::open(&path, &settings, frame.width, frame.height) {
                Ok(encoder) => return Some(self.opened(Box::new(encoder), true, frame, settings)),
                Err(error) => {
                    warn!("encode: passed over {} reason=\"{error}\"", path.display());
                }
            }
        }
        if is_wanted {
            self.retry_later(frame.captured);
        }
        None
    }

    /// Leaves hardware alone for a while, which is answered: longer every time.
    fn retry_later(&mut self, now: Instant) -> Duration {
        let pause = self.retry.map_or(RETRY_FIRST, |(_, pause)| (pause * 2).min(RETRY_MAX));
        self.retry = Some((now + pause, pause));
        pause
    }

    fn opened(
        &self,
        encoder: Box<dyn Encoder>,
        is_hardware: bool,
        frame: &Frame<'_>,
        settings: Settings,
    ) -> Open {
        let (name, stream, size) = (encoder.name(), &self.stream, (frame.width, frame.height));
        info!("encode: stream={stream} encoder={name} size={}x{}", size.0, size.1);
        self.stats.encoder.set(&name);
        Open { encoder, is_hardware, size, colour: frame.colour, settings }
    }
}

/// The hardware encoders that `choice` allows, best first.
fn candidates(choice: &Choice) -> Vec<PathBuf> {
    match choice {
        Choice::OpenH264 => Vec::new(),
        Choice::M2m(Some(path)) => vec![path.clone()],
        Choice::Auto | Choice::M2m(None) => {
            let nodes = encode::m2m::probe().into_iter();
            nodes.filter(|node| node.problem.is_none()).map(|node| node.path).collect()
        }
    }
}

/// In a row: an encoder that cannot be had again is for the supervisor.
const FAILURES_MAX: u32 = 3;
const RETRY_FIRST: Duration = Duration::from_secs(30);
const RETRY_MAX: Duration = Duration::from_secs(600);
