//! One stream on its way out: access units in, wire images for all its viewers out.

use std::sync::Arc;
use std::time::Duration;

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
    /// The seconds that are measured now: since when, and bytes with all headers.
    measured: (Instant, usize),
    bandwidth_kbps: u32,
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
            measured: (Instant::ZERO, 0),
            bandwidth_kbps: 0,
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
        let image = self.images.fill(|image| self.packetizer.packetize(unit, image));
        if let Some(image) = &image {
            self.measure(image);
        }
        image
    }

    /// What the stream was measured to need, with the headers of RTP, UDP and IPv6.
    ///
    /// By groups of pictures, of two seconds at least: shorter, and an IDR that somebody asked for
    /// would be taken for the rule. In steps of 5 %, so that descriptions do not change for nothing.
    pub(super) const fn bandwidth_kbps(&self) -> u32 {
        self.bandwidth_kbps
    }

    fn measure(&mut self, image: &WireImage) {
        let (since, bytes) = &mut self.measured;
        let elapsed = image.captured().since(*since);
        if image.is_idr() && elapsed >= MEASURED_FOR {
            // Kilobits per second are bits per millisecond.
            let kbps = (*bytes as u128 * 8).div_ceil(elapsed.as_millis());
            let kbps = u32::try_from(kbps).unwrap_or(u32::MAX);
            if kbps > self.bandwidth_kbps {
                self.bandwidth_kbps = kbps.saturating_add(kbps / 20);
            }
            (*since, *bytes) = (image.captured(), 0);
        }
        *bytes +=
            image.bytes().len() + image.packet_count() * (IP_AND_UDP_LEN - WireImage::PREFIX_LEN);
    }
}

const MEASURED_FOR: Duration = Duration::from_secs(2);
/// Of IPv6: the longer ones.
const IP_AND_UDP_LEN: usize = 48;
