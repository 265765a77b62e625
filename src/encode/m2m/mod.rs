//! Encodes with the SoC's own H.264 encoder, behind a V4L2 memory-to-memory node.
//!
//! V4L2, "Memory-to-Memory Stateful Video Encoder Interface". [`Session`] is the protocol of the
//! queues; here are the pictures' order, the IDR pictures and the parameter sets.
//!
//! An IDR picture is asked for when one is due by capture time, and again when a picture came out
//! that should have been one: drivers lose pictures, also these.
//!
//! Not implemented: stateless encoders, buffers shared with the camera (DMABUF).

mod bitstream;
mod controls;
mod layout;
mod ledger;
mod negotiation;
mod probe;
mod session;

use std::path::Path;
use std::time::Duration;

use self::bitstream::{Bitstream, Content};
pub use self::ledger::Counts;
pub use self::probe::{EncoderNode, probe, probe_for};
pub use self::session::Session;
use super::{Encoded, Encoder, Error, Settings};
use crate::frame::Frame;
use crate::h264::AccessUnit;
use crate::sys::v4l2::FourCc;
use crate::time::Instant;

/// One hardware encoder at work.
///
/// Dropping it closes the device, which takes as long as the driver takes to stop.
#[derive(Debug)]
pub struct M2m {
    session: Session,
    bitstream: Bitstream,
    cadence: Cadence,
    /// How long a picture is waited for before the caller gets its time back.
    patience: Duration,
    /// Pictures in a row after which one was still in flight.
    behind: u32,
}

impl M2m {
    /// Opens the encoder of a node for pictures of one size.
    ///
    /// # Errors
    ///
    /// [`Error::Unsuitable`] when it does not make H.264 of pictures of ours in this size;
    /// [`Error::Gone`] when there is no such device; [`Error::Device`] for whatever else the
    /// kernel refuses.
    pub fn open(path: &Path, settings: &Settings, width: u32, height: u32) -> Result<Self, Error> {
        Ok(Self {
            session: Session::open(path, H264, settings, width, height)?,
            bitstream: Bitstream::default(),
            cadence: Cadence::new(settings),
            patience: patience(settings.fps),
            behind: 0,
        })
    }

    /// What became of the pictures so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.session.counts()
    }

    /// Takes the oldest unit that is complete.
    fn take(&mut self, mut patience: Duration, unit: &mut AccessUnit) -> Result<Encoded, Error> {
        // A driver that has nothing but other buffers must not keep us.
        for _ in 0..MAX_OTHER_BUFFERS {
            let Some(coded) = self.session.next(patience)? else { break };
            unit.reset(coded.captured.unwrap_or_default());
            let content = if coded.is_damaged {
                Content::Damaged
            } else {
                self.bitstream.read(self.session.bytes(&coded), unit)?
            };
            let captured = self.session.release(coded, content != Content::Headers)?;
            match content {
                Content::BSlice => return Err(Error::Unsuitable("it makes B pictures")),
                Content::Picture if let Some(captured) = captured => {
                    self.cadence.came(captured, unit.is_idr());
                    if self.cadence.last_idr.is_some() {
                        return Ok(Encoded::Unit);
                    }
                }
                // Those after it refer to a picture that nobody has.
                Content::Damaged | Content::Picture => self.cadence.is_wanted = true,
                _ => {}
            }
            // Parameter sets in a buffer of their own are followed by their picture.
            patience /= 2;
        }
        unit.reset(unit.captured());
        Ok(Encoded::Skipped)
    }
}

impl Encoder for M2m {
    fn name(&self) -> String {
        format!("m2m:{}", self.session.path().display())
    }

    /// # Cost
    ///
    /// One copy of the picture and one of the coded bytes; no allocation.
    fn encode(
        &mut self,
        frame: &Frame<'_>,
        is_idr_wanted: bool,
        unit: &mut AccessUnit,
    ) -> Result<Encoded, Error> {
        unit.reset(frame.captured);
        if self.session.is_drained() {
            self.session.reset()?;
        }
        if self.cadence.must_force(frame.captured, is_idr_wanted) {
            self.session.force_key_frame()?;
        }
        self.session.give(frame)?;
        self.take(self.patience, unit)
    }

    fn more(&mut self, unit: &mut AccessUnit) -> Result<Encoded, Error> {
        // Behind since one picture that took long, or always: tried at once, then now and again.
        self.behind = if self.session.in_flight() == 0 { 0 } else { self.behind + 1 };
        let is_tried = self.behind % CATCH_UP_EVERY == 1;
        self.take(if is_tried { self.patience } else { Duration::ZERO }, unit)
    }

    fn last_idr(&self) -> Option<Instant> {
        self.cadence.last_idr
    }

    fn change(&mut self, settings: &Settings) -> Result<(), Error> {
        self.session.change(settings)?;
        self.patience = patience(settings.fps);
        self.cadence.idr_after = idr_after(settings);
        Ok(())
    }
}

/// When IDR pictures are due, and which were asked for.
#[derive(Debug)]
struct Cadence {
    /// From one IDR to the next, less half a picture: pictures do not come on the dot.
    idr_after: Duration,
    last_idr: Option<Instant>,
    is_begun: bool,
    is_wanted: bool,
    /// The picture that is to be an IDR and has not come out.
    awaited: Option<Instant>,
}

impl Cadence {
    fn new(settings: &Settings) -> Self {
        let idr_after = idr_after(settings);
        Self { idr_after, last_idr: None, is_begun: false, is_wanted: false, awaited: None }
    }

    /// Whether the driver is to be asked to make the picture captured now an IDR.
    fn must_force(&mut self, now: Instant, is_wanted: bool) -> bool {
        self.is_wanted |= is_wanted;
        let is_due = self.last_idr.is_some_and(|last| now.since(last) >= self.idr_after);
        // The first picture is one unasked.
        if self.awaited.is_some() || (self.is_begun && !self.is_wanted && !is_due) {
            return false;
        }
        self.awaited = Some(now);
        std::mem::replace(&mut self.is_begun, true)
    }

    fn came(&mut self, captured: Instant, is_idr: bool) {
        let is_awaited = self.awaited.is_some_and(|awaited| captured >= awaited);
        if is_idr {
            self.last_idr = Some(captured);
        }
        if is_awaited {
            self.awaited = None;
            self.is_wanted = !is_idr;
        }
    }
}

/// From one IDR to the next, less half a picture.
fn idr_after(settings: &Settings) -> Duration {
    settings.gop.saturating_sub(Duration::from_secs_f64(0.5 / settings.fps.max(1.0)))
}

/// The rest of the interval is the caller's.
fn patience(fps: f64) -> Duration {
    Duration::from_secs_f64(0.75 / fps.max(1.0))
}

/// Pictures from one attempt to catch up to the next, with a driver that keeps one back.
const CATCH_UP_EVERY: u32 = 32;
/// Buffers without a picture to be sent that one call passes over: parameter sets, damaged ones.
const MAX_OTHER_BUFFERS: usize = 8;
const H264: FourCc = FourCc(*b"H264");

#[cfg(test)]
mod tests;
