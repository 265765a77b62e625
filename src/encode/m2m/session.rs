//! Carries raw pictures to a stateful encoder and coded buffers back: the protocol of its queues.
//!
//! V4L2, "Memory-to-Memory Stateful Video Encoder Interface": Initialization, Encoding, Drain,
//! Reset. What the coded buffers hold is nothing to it, so it is the same for every codec.
//!
//! Not implemented: buffers shared with the camera (DMABUF); pictures are copied.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::controls::Controls;
use super::layout::Layout;
use super::ledger::{Counts, Ledger, Origin};
use super::negotiation::{crop, interval, negotiate};
use crate::encode::{Error, Settings};
use crate::frame::Frame;
use crate::sys::v4l2::codec::{Command, Event};
use crate::sys::v4l2::{Buffers, Dequeued, Device, Direction, FourCc};
use crate::time::Instant;

/// An encoder at work on pictures of one size.
#[derive(Debug)]
pub struct Session {
    // Before `device`: what is mapped keeps the file open.
    raw: Buffers,
    coded: Buffers,
    device: Device,
    path: PathBuf,
    layout: Layout,
    controls: Controls,
    settings: Settings,
    ledger: Ledger,
    state: State,
    can_drain: bool,
}

/// "Encoder State Machine", without the states that a session is never left in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Encoding,
    /// What was given is still encoded, and the last of it will be marked. Holds the capture time
    /// of the first picture that had to wait for it.
    Draining(Option<Instant>),
    /// The buffer marked LAST has been taken.
    Drained,
}

impl Session {
    /// Opens an encoder for pictures of one size, and starts it.
    ///
    /// # Errors
    ///
    /// [`Error::Unsuitable`] when it takes or gives something else; [`Error::Gone`] when there is
    /// none; [`Error::Device`] for whatever else the kernel refuses.
    pub fn open(
        path: &Path,
        coded: FourCc,
        settings: &Settings,
        width: u32,
        height: u32,
    ) -> Result<Self, Error> {
        let device = Device::open(path)?;
        let format = negotiate(&device, coded, settings, width, height)?;
        let unsuitable = Error::Unsuitable("its buffers do not hold the pictures");
        let layout = Layout::new(&format, width, height).ok_or(unsuitable)?;
        crop(&device, &format, width, height)?;
        // Only a hint: some drivers know no rate.
        if let Err(error) = device.set_codec_interval(interval(settings.fps)) {
            log::debug!("encode: {}: {error}", path.display());
        }
        let controls = Controls::find(&device, settings, (width, height))?;
        controls.apply(&device, settings)?;
        if !controls.missing().is_empty() {
            let missing = controls.missing().join(", ");
            log::info!("encode: {} has no control for: {missing}", path.display());
        }
        let (tells_end, tells_change) = device.subscribe();
        let mut raw = Buffers::allocate(&device, Direction::Output, RAW_BUFFERS)?;
        // What pads the picture is never written again: grey, where a driver cannot crop.
        for index in 0..raw.len() {
            (0..layout.used().len()).for_each(|plane| raw.plane_mut(index, plane).fill(128));
        }
        let coded = Buffers::allocate(&device, Direction::Capture, CODED_BUFFERS)?;
        let can_drain = device.takes_command(Command::Stop);
        log::debug!(
            "encode: {} takes {} {}x{} in {} buffers, gives {} in {}; drain {can_drain}, events of \
             end {tells_end}, of change {tells_change}",
            path.display(),
            format.fourcc,
            format.width,
            format.height,
            raw.len(),
            coded.len(),
            device.info().driver,
        );
        let path = path.to_owned();
        let (settings, ledger, state) = (*settings, Ledger::new(), State::Encoding);
        let mut session =
            Self { raw, coded, device, path, layout, controls, settings, ledger, state, can_drain };
        session.start()?;
        Ok(session)
    }

    /// The device's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What became of the pictures so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.ledger.counts()
    }

    /// Pictures that were given and have not come out.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ledger.in_flight()
    }

    /// Pictures that can be in flight at once.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.raw.len()
    }

    /// What the driver cannot be told, in our words: `bitrate`, `GOP`.
    #[must_use]
    pub fn missing_controls(&self) -> &[&'static str] {
        self.controls.missing()
    }

    /// Whether `frame` is an I420 picture of the session's size, with all its bytes.
    #[must_use]
    pub fn takes(&self, frame: &Frame<'_>) -> bool {
        self.layout.takes(frame)
    }

    /// Gives a picture to the driver; answers whether it was taken, which it is not while every
    /// buffer is in flight or a drain goes on.
    ///
    /// # Errors
    ///
    /// [`Error::BadFrame`], the caller's fault; [`Error::Stalled`] when the driver has had the
    /// oldest picture for too long; otherwise as [`Session::open`].
    ///
    /// # Cost
    ///
    /// One copy of the picture, no allocation.
    pub fn give(&mut self, frame: &Frame<'_>) -> Result<bool, Error> {
        if !self.takes(frame) {
            return Err(Error::BadFrame { width: frame.width, height: frame.height });
        }
        self.reclaim()?;
        self.check_stall(frame.captured)?;
        let free = self.raw.free().filter(|_| self.state == State::Encoding);
        let Some(index) = free else {
            self.ledger.skip(frame.captured);
            return Ok(false);
        };
        for plane in 0..self.layout.used().len() {
            self.layout.copy(frame, plane, self.raw.plane_mut(index, plane));
        }
        self.raw.queue(index, frame.captured, self.layout.used())?;
        self.ledger.give(frame.captured);
        Ok(true)
    }

    /// The oldest coded buffer, waited for as long as `patience` when something is to come. Every
    /// one is to be [released](Session::release).
    ///
    /// # Errors
    ///
    /// As [`Session::open`].
    pub fn next(&mut self, patience: Duration) -> Result<Option<Dequeued>, Error> {
        // No clock is read here: whatever wakes the wait, all of its slices are no longer than it.
        for slice in (0..=SLICES).rev() {
            let dequeued = match self.coded.dequeue() {
                // "Any attempt to dequeue more CAPTURE buffers beyond the buffer marked" LAST.
                Err(error) if error.errno == Errno::EPIPE => return Ok(None),
                other => other?,
            };
            if let Some(coded) = dequeued {
                if coded.is_last {
                    self.state = State::Drained;
                }
                return Ok(Some(coded));
            }
            let is_awaited =
                self.ledger.in_flight() > 0 || matches!(self.state, State::Draining(_));
            if slice == 0 || patience.is_zero() || !is_awaited {
                break;
            }
            self.device.wait_filled(patience / SLICES)?;
            self.take_events();
        }
        Ok(None)
    }

    /// What the driver wrote to a coded buffer.
    #[must_use]
    pub fn bytes(&self, coded: &Dequeued) -> &[u8] {
        self.coded.bytes(coded)
    }

    /// Gives a coded buffer back; answers the capture time of its picture. There is none when the
    /// buffer `holds_picture` not, or one that nobody gave.
    ///
    /// # Errors
    ///
    /// As [`Session::open`].
    pub fn release(
        &mut self,
        coded: Dequeued,
        holds_picture: bool,
    ) -> Result<Option<Instant>, Error> {
        self.coded.queue(coded.index(), Instant::ZERO, &[])?;
        if !holds_picture {
            return Ok(None);
        }
        Ok(match self.ledger.take(coded.captured, coded.is_damaged) {
            Origin::Given(captured) => Some(captured),
            Origin::Unknown => None,
        })
    }

    /// Makes the next picture that is given a key frame: by the control, or else by a new start.
    ///
    /// # Errors
    ///
    /// As [`Session::open`].
    pub fn force_key_frame(&mut self) -> Result<(), Error> {
        if self.controls.force_key_frame(&self.device)? { Ok(()) } else { self.renew() }
    }

    /// Goes on with another bitrate, GOP and rate.
    ///
    /// # Errors
    ///
    /// As [`Session::open`].
    pub fn change(&mut self, settings: &Settings) -> Result<(), Error> {
        self.settings = *settings;
        if let Err(error) = self.device.set_codec_interval(interval(settings.fps)) {
            log::debug!("encode: {}: {error}", self.path.display());
        }
        match self.controls.apply(&self.device, settings) {
            // "the CAPTURE queue needs to be stopped for the configuration change".
            Err(error) if error.errno == Errno::EBUSY => self.renew(),
            other => Ok(other?),
        }
    }

    /// Begins a drain: what was given comes out, the last of it marked, and nothing more is taken
    /// until [`Session::resume`] or [`Session::reset`]. Without a picture in flight, or a driver
    /// that can drain, it is complete at once.
    ///
    /// # Errors
    ///
    /// As [`Session::open`].
    pub fn drain(&mut self) -> Result<(), Error> {
        if self.state != State::Encoding {
            return Ok(());
        }
        if self.can_drain {
            self.device.command(Command::Stop)?;
            self.state = State::Draining(None);
        } else {
            self.state = State::Drained;
        }
        Ok(())
    }

    /// Whether a drain is complete.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.state == State::Drained
    }

    /// Goes on after a complete drain, with all the state from before it where the driver keeps
    /// it, else with a key frame.
    ///
    /// # Errors
    ///
    /// As [`Session::open`].
    pub fn resume(&mut self) -> Result<(), Error> {
        if self.state == State::Drained && self.can_drain {
            self.device.command(Command::Start)?;
            // vicodec of Linux 6.1 starts, but leaves its CAPTURE queue at its end.
            match self.coded.dequeue() {
                Err(error) if error.errno == Errno::EPIPE => return self.reset(),
                Err(error) => return Err(error.into()),
                Ok(Some(coded)) => {
                    self.release(coded, false)?;
                }
                Ok(None) => {}
            }
        }
        self.state = State::Encoding;
        Ok(())
    }

    /// Stops both queues and starts them again: the next picture begins a stream of its own. What
    /// is in flight is lost, and counted.
    ///
    /// # Errors
    ///
    /// As [`Session::open`].
    pub fn reset(&mut self) -> Result<(), Error> {
        self.raw.stop()?;
        self.coded.stop()?;
        self.ledger.abandon();
        self.take_events();
        self.controls.apply(&self.device, &self.settings)?;
        self.start()?;
        self.state = State::Encoding;
        Ok(())
    }

    /// A reset that loses nothing: at once when nothing is in flight, else it has to follow the
    /// drain that is begun here.
    fn renew(&mut self) -> Result<(), Error> {
        if self.ledger.in_flight() == 0 { self.reset() } else { self.drain() }
    }

    fn start(&mut self) -> Result<(), Error> {
        while let Some(index) = self.coded.free() {
            self.coded.queue(index, Instant::ZERO, &[])?;
        }
        self.raw.start()?;
        self.coded.start()?;
        Ok(())
    }

    /// Takes back the raw buffers that the driver is done with.
    fn reclaim(&mut self) -> Result<(), Error> {
        // At most all of them, whatever the driver does.
        for _ in 0..self.raw.len() {
            if self.raw.dequeue()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn check_stall(&mut self, now: Instant) -> Result<(), Error> {
        let interval = Duration::from_secs_f64(1.0 / self.settings.fps.max(1.0));
        let waited = match &mut self.state {
            State::Draining(since) if self.ledger.in_flight() == 0 => {
                let waited = now.since(*since.get_or_insert(now));
                Some(waited).filter(|&waited| waited > self.ledger.patience(interval))
            }
            _ => self.ledger.stalled(interval),
        };
        waited.map_or(Ok(()), |waited| Err(Error::Stalled(waited)))
    }

    fn take_events(&self) {
        // A driver holds few; the limit keeps one that repeats itself from keeping us.
        for _ in 0..MAX_EVENTS {
            match self.device.next_event() {
                None => break,
                Some(Event::EndOfStream) => log::debug!("encode: end of stream"),
                Some(event) => log::debug!("encode: {}: {event:?}", self.path.display()),
            }
        }
    }
}

/// One that is filled, one at work, and one or two that an encoder holds back for reference.
const RAW_BUFFERS: u32 = 4;
const CODED_BUFFERS: u32 = 4;
/// Slices of a wait; after a wake that brought nothing the rest are still to be waited.
const SLICES: u32 = 8;
const MAX_EVENTS: usize = 16;
