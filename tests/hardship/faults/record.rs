//! What a viewer was sent, as a list of packets with their times, where the validator's rules do
//! not hold: a stream that was interrupted has gaps, and only their size and place can be judged.

use std::time::Duration;

use crate::capture::{Capture, Kind};
use crate::framing::{rtp_head, sender_report};

/// One RTP packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    /// Since the capture began.
    pub(super) at: Duration,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    /// Of an IDR slice.
    pub(super) is_idr: bool,
    /// Last packet of its access unit.
    pub(super) marker: bool,
}

/// All RTP packets in the order of their arrival.
pub(super) fn packets(capture: &Capture) -> Vec<Packet> {
    let packet = |(at, bytes): (Duration, &[u8])| {
        let head = rtp_head(bytes).filter(|_| !is_rtcp(bytes))?;
        let (sequence, timestamp) = (head.sequence, head.timestamp);
        Some(Packet { at, sequence, timestamp, is_idr: head.is_idr, marker: head.marker })
    };
    media(capture).filter_map(packet).collect()
}

/// The end of each access unit, and how much later than its capture that came, in seconds: by the
/// sender report before it, for the clocks are the same machine's.
pub(super) fn delays(capture: &Capture) -> Vec<(Duration, f64)> {
    let mut anchor = None;
    let mut delays = Vec::new();
    for (at, bytes) in media(capture) {
        if is_rtcp(bytes) {
            anchor = sender_report(bytes).or(anchor);
        } else if let (Some((ntp, rtp)), Some(head)) = (anchor, rtp_head(bytes)) {
            let ticks = head.timestamp.wrapping_sub(rtp).cast_signed();
            let captured = seconds(ntp) - NTP_TO_UNIX + f64::from(ticks) / 90_000.0;
            let arrived = (capture.started + at).as_secs_f64();
            if head.marker {
                delays.push((at, arrived - captured));
            }
        }
    }
    delays
}

/// Whether there is a BYE among what came (RFC 3550 6.6).
pub(super) fn has_bye(capture: &Capture) -> bool {
    media(capture).filter(|(_, bytes)| is_rtcp(bytes)).any(|(_, mut bytes)| {
        while let [_, kind, high, low, ..] = *bytes {
            if kind == BYE {
                return true;
            }
            let len = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
            bytes = bytes.get(len..).unwrap_or(&[]);
        }
        false
    })
}

/// Sequence numbers that are missing between the first and the last packet, which are in order.
pub(super) fn missing(packets: &[Packet]) -> usize {
    let step = |pair: &[Packet]| pair[1].sequence.wrapping_sub(pair[0].sequence);
    packets.windows(2).map(|pair| usize::from(step(pair).wrapping_sub(1))).sum()
}

fn media(capture: &Capture) -> impl Iterator<Item = (Duration, &[u8])> {
    capture.events.iter().filter_map(|event| match &event.kind {
        Kind::Interleaved { packet, .. } | Kind::Datagram { packet, .. } => {
            Some((event.at, &packet[..]))
        }
        _ => None,
    })
}

/// RFC 5761 4.
fn is_rtcp(bytes: &[u8]) -> bool {
    bytes.get(1).is_some_and(|byte| (200..=207).contains(byte))
}

/// Reads 32.32 fixed point seconds.
fn seconds(ntp: u64) -> f64 {
    let [whole, fraction] = [ntp >> 32, ntp & 0xffff_ffff].map(|half| u32::try_from(half).unwrap());
    f64::from(whole) + f64::from(fraction) / 4_294_967_296.0
}

const BYE: u8 = 203;
/// Seconds from 1900 to 1970.
const NTP_TO_UNIX: f64 = 2_208_988_800.0;
