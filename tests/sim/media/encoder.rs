//! A camera and its encoder: 10 access units a second, of one to four packets; and what can happen
//! to them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ocellus::h264::AccessUnit;
use ocellus::ring::{Consumer, IdrRequests, Published, Publisher, publisher};
use ocellus::stats::Pipeline;
use ocellus::time::Instant;

use super::truth::{Checked, Rule, Truth, hold, slice};
use crate::hub::Random;

pub(crate) struct Encoder {
    publisher: Publisher,
    pub(crate) requests: Arc<IdrRequests>,
    mode: Mode,
    next: Instant,
    /// Between two IDRs that nobody asked for.
    pub(crate) gop: Duration,
    last_idr: Option<Instant>,
    is_idr_due: bool,
    level: u8,
    /// Bytes of the longest slice.
    slice_len_max: u64,
    /// What the clock of the camera's driver adds: it may stand still for a while.
    frozen: Option<Instant>,
    /// When IDRs were made on demand.
    forced: VecDeque<Instant>,
    /// When pictures last did not come as they should.
    pub(crate) disturbed: Instant,
    random: Random,
}

/// What the pipeline delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Live,
    /// The encoder hangs, or fails: nothing comes.
    Silent,
    /// The camera is gone: a placeholder, once a second.
    NoSignal,
}

impl Encoder {
    pub(crate) fn new(now: Instant, packet_len: usize, seed: u64) -> (Self, Consumer) {
        let mut random = Random(seed);
        let (publisher, mut consumers) = publisher(1, 8_192, Arc::new(Pipeline::default()));
        let encoder = Self {
            publisher,
            requests: Arc::default(),
            mode: Mode::Live,
            next: now,
            gop: Duration::from_millis(500 + 100 * random.below(11)),
            last_idr: None,
            is_idr_due: true,
            level: 10,
            slice_len_max: 2 * u64::try_from(packet_len).unwrap(),
            frozen: None,
            forced: VecDeque::new(),
            disturbed: Instant::ZERO,
            random,
        };
        (encoder, consumers.pop().unwrap())
    }

    /// Whatever it was before, it goes on with an IDR; a picture of another source has other
    /// parameter sets.
    pub(crate) fn switch(&mut self, now: Instant, mode: Mode) {
        if mode == self.mode {
            return;
        }
        if mode == Mode::NoSignal || self.mode == Mode::NoSignal {
            self.change_parameter_sets();
        }
        self.is_idr_due = true;
        self.disturbed = now;
        self.mode = mode;
        self.next = now;
    }

    pub(crate) const fn change_parameter_sets(&mut self) {
        self.level = if self.level == 10 { 11 } else { 10 };
        self.is_idr_due = true;
    }

    /// Lets the times of capture stand still, or go on.
    pub(crate) const fn freeze_clock(&mut self, at: Option<Instant>) {
        self.frozen = at;
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (self.mode != Mode::Silent).then_some(self.next)
    }

    /// Makes a picture when it is time for one; whether it has.
    pub(crate) fn handle_timeout(&mut self, now: Instant, truth: &mut Truth) -> Checked<bool> {
        if self.poll_timeout().is_none_or(|due| due > now) {
            return Ok(false);
        }
        let interval = if self.mode == Mode::Live { INTERVAL } else { Duration::from_secs(1) };
        self.next = now + interval;
        if self.mode != Mode::Live || self.frozen.is_some() {
            self.disturbed = now;
        }
        let last_idr = self.last_idr.unwrap_or(Instant::ZERO);
        // Half an interval early is on time.
        let is_periodic = self.is_idr_due || now.since(last_idr) + interval / 2 >= self.gop;
        let is_forced = self.requests.take(now, last_idr) && !is_periodic;
        let is_idr = is_periodic || is_forced;
        let serial = truth.next();
        let len = usize::try_from(40 + self.random.below(self.slice_len_max)).unwrap();
        let slice = slice(serial, is_idr, len);
        let captured = self.frozen.unwrap_or(now);
        let level = self.level;
        let published = self.publisher.publish(|unit| {
            fill(unit, captured, level, &slice);
            Ok::<_, Infallible>(true)
        });
        let Ok(published) = published;
        if published != Published::Yes {
            self.is_idr_due = true;
            return Ok(false);
        }
        if is_idr {
            self.requests.clear();
            if is_forced {
                self.note_forced(now, last_idr)?;
            }
            self.last_idr = Some(now);
            self.is_idr_due = false;
        }
        truth.made(captured, is_idr, slice.len());
        Ok(true)
    }

    /// A bucket of four that is refilled at one a second; 200 ms from any other IDR. The first one
    /// may have waited for its picture, for a second at most.
    fn note_forced(&mut self, now: Instant, last_idr: Instant) -> Checked<()> {
        hold(now.since(last_idr) >= Duration::from_millis(200), Rule::IdrRate, || {
            format!("a forced IDR {:?} after the last", now.since(last_idr))
        })?;
        self.forced.push_back(now);
        while self.forced.len() > 16 {
            self.forced.pop_front();
        }
        for (index, &first) in self.forced.iter().enumerate() {
            let count = self.forced.len() - index;
            let allowed = Duration::from_secs(4 + 1) + now.since(first);
            hold(Duration::from_secs(count.try_into().unwrap()) <= allowed, Rule::IdrRate, || {
                format!("{count} forced IDRs within {:?}", now.since(first))
            })?;
        }
        Ok(())
    }
}

fn fill(unit: &mut AccessUnit, captured: Instant, level: u8, slice: &[u8]) {
    let sps = [
        0x67, 0x64, 0x00, level, 0xac, 0x72, 0x84, 0x44, 0x26, 0x84, 0x00, 0x00, 0x03, 0x00, 0x04,
        0x00, 0x00, 0x03, 0x00, 0xca, 0x3c, 0x48, 0x96, 0x11, 0x80,
    ];
    unit.reset(captured);
    if slice[0] == 0x65 {
        unit.push(&sps).unwrap();
        unit.push(&[0x68, 0xe8, 0x43, 0x8f, 0x13, 0x21, 0x30]).unwrap();
    }
    unit.push(slice).unwrap();
}

const INTERVAL: Duration = Duration::from_millis(100);
