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
