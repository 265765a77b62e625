//! Turns access units into packets as they lie on the wire, and says what RTCP has to say.
//!
//! RFC 3550 (RTP, RTCP), RFC 6184 (H.264 payload, packetization-mode 1), RFC 2326 10.12 (`$`).
//!
//! Not implemented: STAP-B, MTAP and FU-B (mode 2), header extensions, CSRC lists, receiving RTP.
//!
//! SSRC, sequence numbers and timestamps belong to the stream: a packet is made once, and every
//! viewer gets the same bytes.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic))]

mod image;
mod packetizer;
pub mod rtcp;
mod sender_clock;

pub use image::{ImagePool, WireImage};
pub use packetizer::Packetizer;
pub use sender_clock::SenderClock;

/// What a stream of `bitrate_kbps` needs on the wire: RFC 3550 6.2 counts the headers of RTP, UDP and
/// IP, here IPv6's.
#[must_use]
pub fn session_bandwidth_kbps(bitrate_kbps: u32, fps: f64, packet_len_max: u32) -> u32 {
    let header_len = HEADER_AND_BELOW_LEN;
    let payload_len = f64::from(packet_len_max.saturating_sub(FU_A_AND_HEADER_LEN).max(1));
    let full = f64::from(bitrate_kbps) * 125.0 / payload_len;
    // Each picture ends in a packet that is not full.
    let fps = if fps.is_finite() { fps.clamp(0.0, 1_000.0) } else { 0.0 };
    let kbps = f64::from(bitrate_kbps) + (full + fps) * header_len * 8.0 / 1_000.0;
    // Not negative, and far below the limit: a float that is too large becomes the limit.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let kbps = kbps.ceil() as u32;
    kbps
}

/// RTP 12, UDP 8, IPv6 40.
const HEADER_AND_BELOW_LEN: f64 = 60.0;
const FU_A_AND_HEADER_LEN: u32 = 14;

/// Synchronization source identifier (RFC 3550 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ssrc(pub u32);

/// Modulo 2^16 (RFC 3550 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceNumber(pub u16);

/// The dynamic payload type that the SDP maps to H264/90000.
///
/// Not 72 to 76, which look like RTCP when the marker is set (RFC 5761 4).
pub const PAYLOAD_TYPE: u8 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bandwidth_has_the_headers_of_every_packet() {
        // 2 Mbit/s are 184.1 full packets a second, and 30 that are not: 60 bytes each.
        assert_eq!(session_bandwidth_kbps(2_000, 30.0, 1_372), 2_103);
        assert_eq!(session_bandwidth_kbps(2_000, f64::NAN, 1_372), 2_089);
        assert_eq!(session_bandwidth_kbps(0, 0.0, 0), 0);
        assert_eq!(session_bandwidth_kbps(u32::MAX, 1e300, 14), u32::MAX);
    }
}
