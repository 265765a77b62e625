//! One viewer's session: which stream, in which state, and how it is delivered.
//!
//! RFC 2326 3.4 (session identifiers), A.2 (states), 12.37 (Session).
//!
//! A session is not a connection: over UDP it outlives the connection that set it up.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::connection::ConnectionId;
use super::settings::StreamId;
use crate::time::Instant;

/// Names a session: 128 random bits, 32 hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl SessionId {
    /// Reads the value of a Session header; clients may repeat its `;timeout=`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.split(';').next()?.trim();
        let is_hex = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u128::from_str_radix(digits, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    /// Shows the first bits only: who knows a whole id can steer the session.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({:08x}..)", self.0 >> 96)
    }
}

/// How packets reach a viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Delivery {
    /// Between the responses of this connection (RFC 2326 10.12).
    Interleaved { connection: ConnectionId, rtp_channel: u8, rtcp_channel: u8 },
    /// To these addresses: always the peer's own, with the ports it named.
    Udp { rtp: SocketAddr, rtcp: SocketAddr },
    /// To this group, once for all sessions with the same; from this address, if one is named.
    Multicast { rtp: SocketAddr, rtcp: SocketAddr, from: Option<SocketAddr> },
}

/// RFC 2326 A.2, with the wait for an IDR picture made a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    /// PLAY has come, its answer waits for an IDR picture.
    Starting,
    Playing,
}

/// A session that has been set up.
#[derive(Debug)]
pub(super) struct Session {
    pub stream: StreamId,
    /// Index of the user, `None` without authentication.
    pub user: Option<usize>,
    pub address: IpAddr,
    /// The connection it was last heard on; `None` once that is gone.
    pub connection: Option<ConnectionId>,
    pub delivery: Delivery,
    pub state: State,
    /// What RTP-Info names: the URL that SETUP used.
    pub track_url: String,
    /// When the viewer last gave a sign of life.
    pub alive: Instant,
}

impl Session {
    /// When it is over if nothing is heard. `None` while a listener to a group keeps its connection:
    /// some send nothing but RTCP, and that to the group. Whether the peer is still there, the
    /// connection's owner finds out.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.is_held_by_connection()).then_some(self.alive + SESSION_TIMEOUT)
    }

    pub(super) fn is_held_by_connection(&self) -> bool {
        matches!(self.delivery, Delivery::Multicast { .. })
            && self.state == State::Playing
            && self.connection.is_some()
    }

    /// Whether its packets come by UDP, to it alone or to a group: it then needs no connection.
    pub(super) const fn is_udp(&self) -> bool {
        matches!(self.delivery, Delivery::Udp { .. } | Delivery::Multicast { .. })
    }

    /// Whether `from` is where this viewer's UDP packets come from.
    pub(super) fn is_at(&self, from: SocketAddr) -> bool {
        let Delivery::Udp { rtp, rtcp } = self.delivery else { return false };
        self.address == from.ip().to_canonical() && [rtp.port(), rtcp.port()].contains(&from.port())
    }
}

/// How many of `max` sessions users without the admin role may have.
///
/// One is kept for an admin, who could not look at a fully watched camera otherwise. A camera for
/// one viewer is for whoever comes first.
pub(super) const fn viewers_max(max: usize) -> usize {
    if max > 1 { max - 1 } else { max }
}

/// What responses promise (RFC 2326 12.37).
pub(super) const ADVERTISED_TIMEOUT_S: u32 = 60;
/// What is enforced: clients exist that send their sign of life exactly every 60 s.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(90);
/// What a receiver that said BYE has to say something else: one that only changed its SSRC (RFC
/// 3550 8.2) reports again within 1.5 intervals of five seconds (6.2).
pub const LEAVING_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_the_wire_with_and_without_their_timeout() {
        for id in [0, 1, u128::MAX, 0x9f3c_5a7e_12b4_d680] {
            let id = SessionId(id);
            let text = id.to_string();
            assert_eq!(text.len(), 32);
            assert_eq!(SessionId::parse(&text), Some(id));
            assert_eq!(SessionId::parse(&format!(" {text} ;timeout=60")), Some(id));
            assert!(!format!("{id:?}").contains(&text));
        }
        assert_eq!(format!("{:?}", SessionId(0x9f3c_5a7e << 96)), "SessionId(9f3c5a7e..)");
        let multibyte = "é".repeat(16);
        for text in ["", "0", ";timeout=60", "+0000000000000000000000000000001", &multibyte] {
            assert_eq!(SessionId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn one_place_is_kept_for_an_admin_unless_there_is_only_one() {
        assert_eq!([0, 1, 2, 64].map(viewers_max), [0, 1, 1, 63]);
    }
}
