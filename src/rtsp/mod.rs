//! Turns what viewers write on their RTSP connections into answers and into who receives what.
//!
//! RFC 2326 (RTSP 1.0), RFC 7616 (Digest), RFC 4566 (SDP). Sans-I/O: time, bytes and the boot
//! secret are arguments; [`Server`] hands back responses, [`Event`]s and its next deadline.
//!
//! Not implemented: RTSP 2.0, SRTP, recording, redirects.
//!
//! | file | concept |
//! |---|---|
//! | `parser`, `message` | bytes to requests and frames; responses to bytes |
//! | `url`, `transport`, `range`, `sdp` | the languages inside of messages |
//! | `multicast` | which group a viewer gets |
//! | `caller` | who asks (with [`crate::auth`]), and what they may have |
//! | `connection`, `session`, `tunnel` | state of one peer, of one viewer, of one that comes through HTTP |
//! | `methods`, `answers`, `server` | what a request does, when its answer goes, the machine around it |

#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may fail")
)]

mod answers;
mod caller;
mod connection;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod message;
mod methods;
mod multicast;
mod parser;
mod range;
mod sdp;
mod server;
mod session;
mod settings;
mod transport;
mod tunnel;
mod url;

pub use connection::{ConnectionId, IDLE_TIMEOUT, MESSAGE_DEADLINE};
pub use message::{Error, MAX_BODY_LEN, MAX_HEAD_LEN, MAX_HEADERS, MAX_REQUEST_LINE_LEN};
pub use multicast::Multicast;
pub use parser::MAX_FRAME_LEN;
pub use server::{Counts, Event, FirstPacket, MAX_PENDING, Refused, Server};
pub use session::{Delivery, LEAVING_TIMEOUT, SESSION_TIMEOUT, SessionId};
pub use settings::{Settings, Stream, StreamId};
pub use tunnel::{JOIN_DEADLINE, MAX_COOKIE_LEN, Refused as TunnelRefused};

#[cfg(test)]
mod tests;
