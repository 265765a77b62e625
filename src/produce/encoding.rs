//! Thread 2: turns the newest picture into an access unit.

use std::sync::Arc;
use std::time::Duration;

use log::{error, warn};

use super::{Notice, Shared};
use crate::capture::RawFrame;
use crate::encode::{self, Encoded, OpenH264, Settings};
use crate::frame::Frame;
use crate::h264::AccessUnit;
use crate::picture::{Converter, in_place};
use crate::ring::{Newest, Published, Taken};
use crate::sys::clock;
use crate::time::Instant;

pub(super) struct Encoding {
    pub(super) frames: Arc<Newest<RawFrame>>,
    pub(super) settings: Settings,
    pub(super) shared: Shared,
}

impl Encoding {
    /// Encodes until there are no more pictures.
    pub(super) fn run(mut self) {
        if let Err(error) = self.encode() {
            error!("{error}");
            // Nobody listens when the process is ending anyway.
            let _ = self.shared.notices.send(Notice::Failed(error));
        }
    }

    fn encode(&mut self) -> Result<(), encode::Error> {
        let mut encoder = None;
        let mut converter = None;
        let mut failures = 0;
        let mut is_ready = false;
        loop {
            let frame = match self.frames.take(PATIENCE) {
                Taken::Value(frame) => frame,
                Taken::TimedOut => continue,
                Taken::Closed => return Ok(()),
            };
            let encoder = match &mut encoder {
                Some(encoder) => encoder,
                none => none.insert(self.open(&frame.frame())?),
            };
            match self.publish(frame, encoder, &mut converter) {
                Ok(Published::Yes) => {
                    failures = 0;
                    self.shared.wake.wake();
                    if !is_ready {
                        is_ready = true;
                        let _ = self.shared.notices.send(Notice::Ready);
                    }
                }
                Ok(Published::Nothing | Published::NoSlot) => {}
                Err(error) if failures < FAILURES_MAX => {
                    failures += 1;
                    warn!("encode: opening the encoder again reason=\"{error}\"");
                    *encoder = OpenH264::open(&self.settings)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn open(&mut self, first: &Frame<'_>) -> Result<OpenH264, encode::Error> {
        self.settings.colour = first.colour;
        OpenH264::open(&self.settings)
    }

    /// Converts and encodes one picture. Its buffer goes back as soon as it has been read.
    fn publish(
        &mut self,
        raw: RawFrame,
        encoder: &mut OpenH264,
        converter: &mut Option<Converter>,
    ) -> Result<Published, encode::Error> {
        let started = clock::now();
        let last_idr = encoder.last_idr().unwrap_or(Instant::ZERO);
        let Shared { publisher, idr_requests, stats, .. } = &mut self.shared;
        let mut encode = |frame: &Frame<'_>, unit: &mut AccessUnit| {
            let is_idr_wanted = idr_requests.take(frame.captured, last_idr);
            let encoded = encoder.encode(frame, is_idr_wanted, unit)?;
            if unit.is_idr() {
                idr_requests.clear();
                stats.forced_idr.add(u64::from(is_idr_wanted));
            }
            Ok::<_, encode::Error>(encoded == Encoded::Unit)
        };
        let published = if let Some(frame) = in_place(&raw.frame()) {
            publisher.publish(|unit| encode(&frame, unit))
        } else {
            let source = raw.frame();
            let converter = match converter {
                Some(converter) if converter.fits(&source) => converter,
                other => other.insert(Converter::new(source.width, source.height)),
            };
            let frame = converter.convert(&source);
            drop(raw);
            publisher.publish(|unit| encode(&frame, unit))
        }?;
        match published {
            Published::Yes => stats.encoded.increment(),
            Published::Nothing => stats.skipped.increment(),
            Published::NoSlot => {}
        }
        stats.encode_time.record(clock::now().since(started));
        Ok(published)
    }
}

/// Between two looks at whether the process is ending.
const PATIENCE: Duration = Duration::from_secs(1);
/// In a row: an encoder that cannot be had again is for the supervisor.
const FAILURES_MAX: u32 = 3;
