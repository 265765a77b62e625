//! What a server is told once: users, streams and limits.

use crate::auth::User;

use super::multicast::Multicast;

/// Everything about a [`Server`](super::Server) that does not change while it runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Part of every stored or computed password hash: must never change after provisioning.
    /// Plain characters without quotes or backslashes.
    pub realm: String,
    /// Nobody gets in while there are none, unless `no_auth` is set.
    pub users: Vec<User>,
    pub no_auth: bool,
    /// Indexed by [`StreamId`].
    pub streams: Vec<Stream>,
    /// The RTP and RTCP port that every UDP viewer is served from; `(0, 0)` when there are none,
    /// and UDP is then refused.
    pub server_ports: (u16, u16),
    /// Sessions at a time; one of them is kept for an admin.
    pub max_viewers: usize,
    /// Connections at a time from one address.
    pub max_per_address: usize,
}

/// A stream that can be asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// Paths without slashes at their ends; the first is the canonical one, `""` is the root.
    pub paths: Vec<String>,
    /// What players show as the title.
    pub name: String,
    pub ssrc: u32,
    /// With the headers of RTP, UDP and IP (RFC 3550 6.2). Until [`Server::bandwidth`] knows better.
    ///
    /// [`Server::bandwidth`]: super::Server::bandwidth
    pub bandwidth_kbps: u32,
    /// Left out of the description when not a positive number.
    pub fps: f64,
    /// `None`: nobody may ask for it by multicast.
    pub multicast: Option<Multicast>,
}

/// Index into [`Settings::streams`].
pub type StreamId = usize;
