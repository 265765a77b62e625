//! One access unit as it goes over the wire: all its packets in one buffer, framed for TCP.
//!
//! RFC 2326 10.12 (`$`, channel, length), RFC 3550 5.1 (header).
//!
//! ```text
//!  bytes:  $ 00 len | RTP header | payload   $ 00 len | RTP header | payload   …
//!          └ prefix ┘└─────── packet 0 ─────┘└ prefix ┘└─────── packet 1 ─────┘
//! ```
//!
//! An interleaved viewer on channels 0-1 is sent `bytes` as they are; other channels replace the
//! prefixes; UDP viewers are sent the packets without them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::{PAYLOAD_TYPE, SequenceNumber, Ssrc};
use crate::time::{Instant, RtpTimestamp};

/// The packets of one access unit.
#[derive(Debug, Default)]
pub struct WireImage {
    bytes: Vec<u8>,
    /// Where each RTP packet lies in `bytes`, its prefix not included; in ascending order.
    packets: Vec<Range<usize>>,
    first_sequence: u16,
    timestamp: RtpTimestamp,
    is_idr: bool,
    captured: Instant,
    encoded_in: Duration,
}

/// What all packets of one access unit have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heading {
    pub(super) ssrc: Ssrc,
    pub(super) first_sequence: u16,
    pub(super) timestamp: RtpTimestamp,
    pub(super) is_idr: bool,
    pub(super) captured: Instant,
    pub(super) encoded_in: Duration,
}

impl WireImage {
    /// `$`, channel and length, before every packet (RFC 2326 10.12).
    pub const PREFIX_LEN: usize = 4;

    /// All packets with their prefixes for channel 0.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[must_use]
    pub fn packet_count(&self) -> usize {
        self.packets.len()
    }

    /// RTP packet `index`, without prefix; empty when there is none.
    #[must_use]
    pub fn packet(&self, index: usize) -> &[u8] {
        self.packets.get(index).and_then(|range| self.bytes.get(range.clone())).unwrap_or(&[])
    }

    /// The packet that byte `offset` of [`WireImage::bytes`] belongs to, prefix included.
    #[must_use]
    pub fn packet_at(&self, offset: usize) -> usize {
        self.packets.partition_point(|range| range.end <= offset)
    }

    /// Where packet `index` ends, and the next one's prefix begins.
    #[must_use]
    pub fn packet_end(&self, index: usize) -> usize {
        self.packets.get(index).map_or(self.bytes.len(), |range| range.end)
    }

    /// Cuts `packets` into runs of equal length, of which only the last may be shorter: what one
    /// `UDP_SEGMENT` message can carry.
    pub fn runs(&self, packets: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut next = packets.start;
        std::iter::from_fn(move || {
            let start = next;
            let len = self.packet(start).len();
            while next < packets.end && next - start < MAX_SEGMENTS {
                let this = self.packet(next).len();
                if this > len || (next + 1 - start) * len > MAX_RUN_LEN {
                    break;
                }
                next += 1;
                if this < len {
                    break;
                }
            }
            (next > start).then_some(start..next)
        })
    }

    /// Octets of payload in `packets`, headers not counted: what a sender report sums up.
    #[must_use]
    pub fn payload_octets(&self, packets: Range<usize>) -> u32 {
        let octets: usize =
            self.packets.get(packets).into_iter().flatten().map(|p| p.len() - HEADER_LEN).sum();
        u32::try_from(octets).unwrap_or(u32::MAX)
    }

    /// Sequence number of the first packet.
    #[must_use]
    pub fn first_sequence(&self) -> SequenceNumber {
        SequenceNumber(self.first_sequence)
    }

    #[must_use]
    pub fn timestamp(&self) -> RtpTimestamp {
        self.timestamp
    }

    /// Whether a viewer may start here.
    #[must_use]
    pub fn is_idr(&self) -> bool {
        self.is_idr
    }

    /// When the picture was captured.
    #[must_use]
    pub fn captured(&self) -> Instant {
        self.captured
    }

    /// How long its encoder took.
    #[must_use]
    pub fn encoded_in(&self) -> Duration {
        self.encoded_in
    }

    fn with_room(capacity: Capacity) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity.bytes),
            packets: Vec::with_capacity(capacity.packets),
            ..Self::default()
        }
    }

    pub(super) fn reset(&mut self, heading: &Heading) {
        self.bytes.clear();
        self.packets.clear();
        self.first_sequence = heading.first_sequence;
        self.timestamp = heading.timestamp;
        self.is_idr = heading.is_idr;
        self.captured = heading.captured;
        self.encoded_in = heading.encoded_in;
    }

    /// Appends one packet whose payload is the concatenation of `parts`.
    ///
    /// ```text
    ///  0                   1                   2                   3
    ///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |V=2|P|X|  CC   |M|     PT      |       sequence number         |
    /// |                           timestamp                           |
    /// |           synchronization source (SSRC) identifier            |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    pub(super) fn push_packet(&mut self, heading: &Heading, parts: &[&[u8]]) {
        let payload_len: usize = parts.iter().map(|part| part.len()).sum();
        let len = u16::try_from(HEADER_LEN + payload_len).unwrap_or(u16::MAX);
        let index = u16::try_from(self.packets.len() % (1 << 16)).unwrap_or(0);
        self.bytes.extend([b'$', 0]);
        self.bytes.extend(len.to_be_bytes());
        let start = self.bytes.len();
        self.bytes.extend([VERSION_2, PAYLOAD_TYPE]);
        self.bytes.extend(heading.first_sequence.wrapping_add(index).to_be_bytes());
        self.bytes.extend(heading.timestamp.0.to_be_bytes());
        self.bytes.extend(heading.ssrc.0.to_be_bytes());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.packets.push(start..self.bytes.len());
    }

    /// Sets the marker bit of the last packet: RFC 6184 5.1, the last packet of the access unit.
    pub(super) fn set_marker(&mut self) {
        let last = self.packets.last().map(|range| range.start + 1);
        if let Some(byte) = last.and_then(|at| self.bytes.get_mut(at)) {
            *byte |= MARKER;
        }
    }
}

/// Images that are used again once the last viewer has been sent them.
#[derive(Debug)]
pub struct ImagePool {
    images: Vec<Arc<WireImage>>,
    /// Room that every image is given: for the longest so far, rounded up.
    capacity: Capacity,
}

#[derive(Clone, Copy, Debug)]
struct Capacity {
    bytes: usize,
    packets: usize,
}

impl Default for ImagePool {
    fn default() -> Self {
        let capacity = Capacity { bytes: 1 << 16, packets: 1 << 6 };
        let images = (0..IMAGES_AT_FIRST).map(|_| Arc::new(WireImage::with_room(capacity)));
        Self { images: images.collect(), capacity }
    }
}

impl ImagePool {
    /// Lets `write` fill an image that nobody holds; `None` when [`MAX_IMAGES`] are all held, or
    /// fewer for which memory is left.
    ///
    /// # Cost
    ///
    /// Allocates while viewers hold more images than ever before, or an image is more than twice
    /// as long as ever.
    pub fn fill(&mut self, write: impl FnOnce(&mut WireImage)) -> Option<Arc<WireImage>> {
        let free = self.images.iter_mut().position(|image| Arc::get_mut(image).is_some());
        let index = match free {
            Some(index) => index,
            None if self.images.len() < MAX_IMAGES && has_spare(self.capacity.bytes) => {
                self.images.push(Arc::new(WireImage::with_room(self.capacity)));
                self.images.len() - 1
            }
            None => return None,
        };
        let slot = self.images.get_mut(index)?;
        let image = Arc::get_mut(slot)?;
        image.bytes.clear();
        image.bytes.reserve(self.capacity.bytes);
        image.packets.clear();
        image.packets.reserve(self.capacity.packets);
        write(image);
        self.capacity.bytes = self.capacity.bytes.max(image.bytes.len().next_power_of_two());
        self.capacity.packets = self.capacity.packets.max(image.packets.len().next_power_of_two());
        Some(Arc::clone(slot))
    }
}

/// Whether there is memory for so many bytes more, and then some: an image is not worth what cannot
/// be done without, for which there is no asking.
fn has_spare(len: usize) -> bool {
    let mut spare = Vec::<u8>::new();
    let is_there = spare.try_reserve_exact(len + SPARE_LEN).is_ok();
    // Or the compiler leaves out both the asking and the giving back.
    std::hint::black_box(&spare);
    is_there
}

/// Fixed part of the RTP header (RFC 3550 5.1): no CSRC, no extension.
pub(super) const HEADER_LEN: usize = 12;
const VERSION_2: u8 = 2 << 6;
const MARKER: u8 = 1 << 7;
/// The kernel's `UDP_MAX_SEGMENTS`.
const MAX_SEGMENTS: usize = 64;
/// A UDP datagram's payload, before the kernel cuts it.
const MAX_RUN_LEN: usize = 65_000;
/// Images alive at once: two GOPs of one second at 60 fps, and a started one for each of many
/// stalled viewers. Past it the access unit is dropped for everybody.
const MAX_IMAGES: usize = 256;
/// Left for connections, sessions and replies when there is no memory for images.
const SPARE_LEN: usize = 2 << 20;
/// Images made before they are needed: for viewers that lag by half a second.
const IMAGES_AT_FIRST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn heading() -> Heading {
        Heading {
            ssrc: Ssrc(7),
            first_sequence: 100,
            timestamp: RtpTimestamp(9),
            is_idr: true,
            captured: Instant::from_micros(5),
            encoded_in: Duration::from_millis(3),
        }
    }

    /// An image of packets that are this long, headers included.
    fn image(lens: &[usize]) -> WireImage {
        let mut image = WireImage::default();
        image.reset(&heading());
        for len in lens {
            image.push_packet(&heading(), &[&vec![1; len - HEADER_LEN]]);
        }
        image
    }

    fn runs(lens: &[usize], packets: Range<usize>) -> Vec<(usize, usize)> {
        image(lens).runs(packets).map(|run| (run.start, run.end)).take(lens.len() + 1).collect()
    }

    #[test]
    fn a_run_is_as_long_as_one_message_carries_and_only_its_last_packet_is_shorter() {
        assert_eq!(runs(&[100, 100, 50, 50, 100, 100], 0..6), [(0, 3), (3, 4), (4, 6)]);
        assert_eq!(runs(&[100; 6], 2..5), [(2, 5)], "nothing beyond what was asked for");
        assert_eq!(runs(&[50, 100, 50], 0..3), [(0, 1), (1, 3)]);
        assert_eq!(runs(&[100; 6], 3..3), []);
        // UDP_MAX_SEGMENTS.
        assert_eq!(runs(&[100; 130], 0..130), [(0, 64), (64, 128), (128, 130)]);
        assert_eq!(runs(&[100; 130], 60..130), [(60, 124), (124, 130)]);
        // 65,000 bytes.
        assert_eq!(runs(&[1_300; 120], 0..120), [(0, 50), (50, 100), (100, 120)]);
        assert_eq!(runs(&[1_301; 60], 5..60), [(5, 54), (54, 60)]);
    }

    #[test]
    fn an_image_says_what_its_access_unit_said() {
        let image = image(&[20, 40, 60]);
        assert_eq!(
            (image.first_sequence(), image.timestamp()),
            (SequenceNumber(100), RtpTimestamp(9))
        );
        assert_eq!(image.captured(), Instant::from_micros(5));
        assert_eq!(image.encoded_in(), Duration::from_millis(3));
        assert!(image.is_idr());
        assert_eq!(image.payload_octets(0..3), 8 + 28 + 48);
        assert_eq!(image.payload_octets(1..2), 28);
        assert_eq!(image.packet_end(3), image.bytes().len());
        assert!(image.packet(3).is_empty());
    }

    #[test]
    fn the_pool_grows_to_its_limit_and_then_gives_what_comes_back() {
        let mut pool = ImagePool::default();
        let mut held: Vec<_> = std::iter::from_fn(|| pool.fill(|_| {})).take(1_000).collect();
        assert_eq!(held.len(), 256);
        let back = Arc::as_ptr(&held.swap_remove(77));
        let again = pool.fill(|image| image.push_packet(&heading(), &[])).unwrap();
        assert_eq!((Arc::as_ptr(&again), again.packet_count()), (back, 1));
        assert!(pool.fill(|_| unreachable!("nothing is free")).is_none());
    }
}
