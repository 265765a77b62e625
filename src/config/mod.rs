//! Turns the configuration's JSON text into a checked [`Config`], and back.
//!
//! Every key may be left out and then has the default that `rootfs-overlay/etc/ocellus.json`
//! shows. An unknown key, a key that is there twice, a wrong type and a value out of range are
//! errors that name the key's path: a camera must not run on half of what its owner wrote.
//!
//! [`Store`] keeps it through a [`Disk`], so that a power cut leaves the old or the new one.
//! [`Identity`] is the certificate that it may name.
//!
//! Not implemented: keys of features that this build does not have are unknown keys.

mod camera;
mod change;
mod disk;
mod document;
mod encoder;
#[cfg(not(fuzzing))] // It would take three more crates, and reads no stranger's bytes.
mod identity;
mod json;
mod motion;
mod multicast;
mod network;
mod rtsp;
mod source;
mod store;
mod stream;
mod time;
mod tls;
mod user;
mod wifi;
mod zone;

use std::net::SocketAddr;

use thiserror::Error;

pub use camera::{Camera, Format, Overlay, Rectangle};
pub use change::{Change, Impact, difference};
pub use disk::{Disk, replace};
pub use document::{Config, Http, MAX_LEN};
pub use encoder::Encoder;
#[cfg(not(fuzzing))]
pub use identity::{Identity, NoIdentity};
pub use motion::{Motion, Zone as MotionZone};
pub use multicast::Multicast;
pub use network::{InterfaceAddress, Network};
pub use rtsp::{MAX_VIEWERS, PACKET_SIZES, Rtsp, UdpPorts, parse_address};
pub use source::Source;
pub use store::{Fault, Loaded, Origin, STORE_FILES, Store, What};
pub use stream::{BITRATES_KBPS, FPS, Size, Stream, StreamName};
pub use time::Time;
pub use tls::Tls;
pub use user::{Password, Role, User, parse_user_name};
pub use wifi::{Psk, Wifi};
pub use zone::Zone;

/// Why a text is not a configuration; always the author's fault.
#[derive(Debug, Error)]
pub enum Error {
    #[error("not JSON: {0}")]
    Syntax(#[source] serde_json::Error),
    #[error("{len} bytes are too long for a configuration; allowed are {MAX_LEN}")]
    TooLong { len: usize },
    #[error("{path}: unknown key; the nearest known key is {nearest}")]
    UnknownKey { path: String, nearest: String },
    #[error("{path}: missing; required is {allowed}")]
    MissingKey { path: String, allowed: String },
    /// `path` is a key's path, or the flag or variable that stands for it.
    #[error("{path}: {value} is not allowed; allowed is {allowed}")]
    NotAllowed { path: String, value: String, allowed: String },
    #[error(
        "auth: false (--no-auth) is allowed only when every listening address is loopback, \
         and {address} is not"
    )]
    OpenToStrangers { address: SocketAddr },
}

/// A value that a key or flag does not take; says what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("allowed is {0}")]
pub struct NotAllowed(pub &'static str);
