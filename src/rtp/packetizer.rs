//! Turns access units into RTP packets: the H.264 payload format.
//!
//! RFC 6184, packetization-mode 1 (6.3): single NAL unit packets (5.6), STAP-A (5.7.1), FU-A (5.8).
//!
//! Parameter sets go in packets of their own, the least surprising form for players. STAP-A is
//! for runs of other small NAL units, such as the slices of a still picture.

use super::image::{HEADER_LEN, Heading, WireImage};
use super::{SequenceNumber, Ssrc};
use crate::h264::{AccessUnit, NalType, nal_type};
use crate::time::{Instant, RtpTimestamp, ticks};

/// The sending side of one stream: its SSRC, and where sequence numbers and timestamps stand.
#[derive(Debug)]
pub struct Packetizer {
    ssrc: Ssrc,
    next_sequence: u16,
    timestamp_offset: u32,
    /// Ticks of the last access unit, before the offset; none yet at the start.
    last_ticks: Option<u64>,
    payload_len_max: usize,
}

impl Packetizer {
    /// Starts a stream.
    ///
    /// `packet_len_max`: bytes of an RTP packet, header included. The sequence starts anywhere but
    /// at 0 and 1, which some clients take for "unknown".
    ///
    /// # Panics
    ///
    /// When `packet_len_max` leaves no room for a fragment: the configuration's fault.
    #[must_use]
    pub fn new(ssrc: Ssrc, sequence: u16, timestamp_offset: u32, packet_len_max: usize) -> Self {
        assert!(packet_len_max > HEADER_LEN + FU_HEADER_LEN);
        Self {
            ssrc,
            next_sequence: sequence.max(2),
            timestamp_offset,
            last_ticks: None,
            payload_len_max: packet_len_max - HEADER_LEN,
        }
    }

    #[must_use]
    pub fn ssrc(&self) -> Ssrc {
        self.ssrc
    }

    /// The sequence number of the next packet.
    #[must_use]
    pub fn next_sequence(&self) -> SequenceNumber {
        SequenceNumber(self.next_sequence)
    }

    /// The RTP timestamp of any instant, for sender reports.
    #[must_use]
    pub fn timestamp_at(&self, at: Instant) -> RtpTimestamp {
        RtpTimestamp::at(at, self.timestamp_offset)
    }

    /// Writes all packets of `unit` into `image`. NAL units of types that the payload format gives
    /// another meaning are left out.
    ///
    /// The timestamp is that of the capture, but at least one tick after the last one: whatever
    /// the source does, a stream's time never stands still or goes back.
    pub fn packetize(&mut self, unit: &AccessUnit, image: &mut WireImage) {
        let captured = ticks(unit.captured());
        let ticks = self.last_ticks.map_or(captured, |last| captured.max(last + 1));
        self.last_ticks = Some(ticks);
        let heading = Heading {
            ssrc: self.ssrc,
            first_sequence: self.next_sequence,
            timestamp: RtpTimestamp::from_ticks(ticks, self.timestamp_offset),
            is_idr: unit.is_idr(),
            captured: unit.captured(),
            encoded_in: unit.encoded_in(),
        };
        image.reset(&heading);
        let mut rest = unit.nal_units().filter(is_sendable);
        while let Some(nal) = rest.clone().next() {
            let together = self.aggregate_count(rest.clone());
            if together >= 2 {
                push_stap_a(image, &heading, rest.clone().take(together));
            } else if nal.len() <= self.payload_len_max {
                image.push_packet(&heading, &[nal]);
            } else {
                push_fu_a(image, &heading, nal, self.payload_len_max - FU_HEADER_LEN);
            }
            for _ in 0..together.max(1) {
                rest.next();
            }
        }
        image.set_marker();
        let count = u16::try_from(image.packet_count() % (1 << 16)).unwrap_or(0);
        self.next_sequence = self.next_sequence.wrapping_add(count);
    }

    /// How many of the next NAL units share one STAP-A.
    fn aggregate_count<'a>(&self, nals: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut len = STAP_A_HEADER_LEN;
        nals.take_while(|nal| {
            len += STAP_A_SIZE_LEN + nal.len();
            len <= self.payload_len_max && !is_parameter_set(nal)
        })
        .take(MAX_AGGREGATED)
        .count()
    }
}

/// Whether a receiver can tell what it is: RFC 6184 table 1 keeps type 0, and has packets of several
/// NAL units, fragments and more behind 23. No decoder knows those types anyway.
fn is_sendable(nal: &&[u8]) -> bool {
    nal.first().is_some_and(|header| matches!(header & TYPE, 1..=23))
}

fn is_parameter_set(nal: &[u8]) -> bool {
    matches!(nal_type(nal), Some(NalType::SPS | NalType::PPS))
}

/// Appends one STAP-A of all `nals`.
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |F|NRI| type 24 |    size of NAL 1              |  NAL unit 1 …  |  size of NAL 2 …
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
///
/// RFC 6184 5.7.1: F is the OR and NRI the maximum of those inside.
fn push_stap_a<'a>(
    image: &mut WireImage,
    heading: &Heading,
    nals: impl Iterator<Item = &'a [u8]> + Clone,
) {
    let header = nals.clone().filter_map(|nal| nal.first()).fold(0, |header: u8, first| {
        (header & FORBIDDEN | first & FORBIDDEN) | (header & NRI).max(first & NRI)
    });
    let header = [header | TYPE_STAP_A];
    let mut sizes = [[0; STAP_A_SIZE_LEN]; MAX_AGGREGATED];
    for (size, nal) in sizes.iter_mut().zip(nals.clone()) {
        *size = u16::try_from(nal.len()).unwrap_or(u16::MAX).to_be_bytes();
    }
    let mut parts: heapless::Vec<&[u8], { 1 + 2 * MAX_AGGREGATED }> = heapless::Vec::new();
    let units = sizes.iter().zip(nals).flat_map(|(size, nal)| [&size[..], nal]);
    parts.extend(std::iter::once(&header[..]).chain(units));
    image.push_packet(heading, &parts);
}

/// Appends `nal` in fragments of equal size, the last one shorter, none longer than `chunk_max`.
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |F|NRI| type 28 |S|E|R|  Type   |  part of the NAL unit, its header byte left out …
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
///
/// RFC 6184 5.8. S and E are never both set: a NAL unit that fits one fragment fits one packet,
/// and was sent as one.
fn push_fu_a(image: &mut WireImage, heading: &Heading, nal: &[u8], chunk_max: usize) {
    let Some((&header, body)) = nal.split_first() else { return };
    let chunk_count = body.len().div_ceil(chunk_max);
    let chunk_len = body.len().div_ceil(chunk_count);
    let indicator = (header & (FORBIDDEN | NRI)) | TYPE_FU_A;
    let mut chunks = body.chunks(chunk_len).peekable();
    let mut start = FU_START;
    while let Some(chunk) = chunks.next() {
        let end = if chunks.peek().is_none() { FU_END } else { 0 };
        image.push_packet(heading, &[&[indicator, start | end | (header & TYPE)], chunk]);
        start = 0;
    }
}

/// NAL units in one STAP-A: more small ones than a picture has slices.
const MAX_AGGREGATED: usize = 16;
const STAP_A_HEADER_LEN: usize = 1;
const STAP_A_SIZE_LEN: usize = 2;
/// FU indicator and FU header (RFC 6184 5.8).
const FU_HEADER_LEN: usize = 2;
const FU_START: u8 = 1 << 7;
const FU_END: u8 = 1 << 6;
const FORBIDDEN: u8 = 1 << 7;
const NRI: u8 = 3 << 5;
const TYPE: u8 = 0x1f;
/// `nal_unit_type` of the packet kinds (RFC 6184 table 1).
const TYPE_STAP_A: u8 = 24;
const TYPE_FU_A: u8 = 28;

#[cfg(test)]
mod tests;
