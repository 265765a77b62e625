//! One stream on its way out: access units in, wire images for all its viewers out.

use std::sync::Arc;

use crate::h264::{AccessUnit, ParameterSets};
use crate::rtp::{ImagePool, Packetizer, Ssrc, WireImage};
use crate::time::{Instant, RtpTimestamp};

/// What a stream's packets begin with; all of it random but the packet length.
#[derive(Clone, Copy, Debug)]
pub struct StreamSettings {
    pub ssrc: u32,
    pub first_sequence: u16,
    pub timestamp_offset: u32,
    /// Bytes of an RTP packet, header included.
    pub packet_len_max: usize,
}

#[derive(Debug)]
pub(super) struct Stream {
    packetizer: Packetizer,
    images: ImagePool,
    parameter_sets: Option<ParameterSets>,
    /// When the newest access unit was captured.
    newest: Option<Instant>,
}

impl Stream {
    pub(super) fn new(settings: &StreamSettings) -> Self {
        let StreamSettings { ssrc, first_sequence, timestamp_offset, packet_len_max } = *settings;
        Self {
            packetizer: Packetizer::new(
                Ssrc(ssrc),
                first_sequence,
                timestamp_offset,
                packet_len_max,
            ),
            images: ImagePool::default(),
            parameter_sets: None,
            newest: None,
        }
    }

    pub(super) fn ssrc(&self) -> Ssrc {
        self.packetizer.ssrc()
    }

    /// The instant that a sender report made at `now` is about, and its RTP timestamp.
    ///
    /// That of the newest access unit, because retina wants no packet to be older than the report
    /// before it, and a picture that is still being encoded would be.
    pub(super) fn reported(&self, now: Instant) -> (Instant, RtpTimestamp) {
        let at = self.newest.unwrap_or(now);
        (at, self.packetizer.timestamp_at(at))
    }

    /// The parameter sets of `unit`, when they are not the ones known.
    pub(super) fn new_parameter_sets(&mut self, unit: &AccessUnit) -> Option<&ParameterSets> {
        if !unit.is_idr() || self.parameter_sets.as_ref().is_some_and(|sets| sets.are_in(unit)) {
            return None;
        }
        self.parameter_sets = Some(ParameterSets::of(unit)?);
        self.parameter_sets.as_ref()
    }

    /// The packets of `unit`; `None` when too many images are still held by viewers.
    pub(super) fn packetize(&mut self, unit: &AccessUnit) -> Option<Arc<WireImage>> {
        self.newest = Some(unit.captured());
        self.images.fill(|image| self.packetizer.packetize(unit, image))
    }
}
