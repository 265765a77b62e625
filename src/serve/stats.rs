//! What the server has done so far; read by whoever prints it.

use std::fmt;

use crate::stats::{Counter, Histogram};

/// Counted by thread 3 alone.
#[derive(Debug, Default)]
pub struct Stats {
    /// Access units packetized.
    pub access_units: Counter,
    /// Access units dropped for everybody, because too many images were held.
    pub images_exhausted: Counter,
    /// Connections accepted.
    pub connections: Counter,
    /// Connections refused for want of descriptors or by a limit.
    pub refused: Counter,
    /// Sessions that began to play.
    pub plays: Counter,
    /// Access units that single viewers did not get, all viewers together.
    pub dropped: Counter,
    /// Viewers closed because they took nothing any more.
    pub stalled: Counter,
    /// Bytes given to sockets.
    pub bytes: Counter,
    /// Calls of `send` and `sendmmsg`.
    pub sends: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// From the capture of a picture to its last byte's entry into a viewer's socket.
    pub capture_to_socket: Histogram,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "access_units={} images_exhausted={} connections={} refused={} plays={} dropped={} \
             stalled={} bytes={} sends={} turns={} capture_to_socket_us=[{}]",
            self.access_units.get(),
            self.images_exhausted.get(),
            self.connections.get(),
            self.refused.get(),
            self.plays.get(),
            self.dropped.get(),
            self.stalled.get(),
            self.bytes.get(),
            self.sends.get(),
            self.turns.get(),
            self.capture_to_socket,
        )
    }
}
