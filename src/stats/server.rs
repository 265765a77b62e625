//! What the server has done so far; read by whoever prints it.

use std::fmt;

use super::{Counter, Gauge, Histogram};

/// Counted by thread 3 alone.
#[derive(Debug, Default)]
pub struct Server {
    /// Access units packetized.
    pub access_units: Counter,
    /// When the newest was captured, in microseconds of CLOCK_MONOTONIC; 0 before the first.
    pub newest_micros: Gauge,
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
    /// The same less the time that the encoder took: what is this program's own. Without IDR pictures
    /// over UDP, which are sent slowly on purpose.
    pub own_share: Histogram,
    /// Sessions that had played and are over.
    pub endings: Endings,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By its viewer.
    TornDown,
    /// By a new SETUP of its viewer.
    Replaced,
    /// With its connection.
    Disconnected,
    /// Without a sign of life, or soon after a BYE.
    TimedOut,
    /// Nobody listens at its address.
    Unreachable,
    /// Its viewer took nothing any more.
    Stalled,
}

impl Ending {
    /// Every reason, in the order of their definition.
    pub const ALL: [Self; 6] = [
        Self::TornDown,
        Self::Replaced,
        Self::Disconnected,
        Self::TimedOut,
        Self::Unreachable,
        Self::Stalled,
    ];

    /// For logs and metrics.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::TornDown => "torn down",
            Self::Replaced => "replaced",
            Self::Disconnected => "disconnected",
            Self::TimedOut => "timed out",
            Self::Unreachable => "unreachable",
            Self::Stalled => "stalled",
        }
    }
}

/// How many sessions ended for which reason.
#[derive(Debug, Default)]
pub struct Endings([Counter; Ending::ALL.len()]);

impl Endings {
    #[must_use]
    pub const fn of(&self, why: Ending) -> &Counter {
        &self.0[why as usize]
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "access_units={} images_exhausted={} connections={} refused={} plays={} dropped={} \
             stalled={} bytes={} sends={} turns={} capture_to_socket_us=[{}] own_share_us=[{}]",
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
            self.own_share,
        )
    }
}
