//! The viewers of the moment, from the thread that serves them to whoever asks.

use std::mem;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One viewer, or one group with all its members, as of the moment it was looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Viewer {
    /// Tells it from all others of this run.
    pub number: u64,
    /// Index of the stream.
    pub stream: usize,
    pub peer: SocketAddr,
    pub transport: Transport,
    /// Sessions that this serves: 1, and any number where it is a group.
    pub sessions: usize,
    /// RTP packets sent, since the session began.
    pub packets: u64,
    /// Payload octets of these.
    pub octets: u64,
    /// Access units it did not get.
    pub dropped: u64,
    /// How old the picture is that it is sent next; zero when none waits.
    pub queue_age: Duration,
    /// What its newest receiver report says; `None` before the first.
    pub reception: Option<Reception>,
}

/// What a receiver says of what reaches it (RFC 3550 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reception {
    /// Packets lost since reception began; negative where more came twice.
    pub lost: i64,
    /// Of the packets since the report before, from 0 to 1.
    pub loss: f64,
    pub jitter: Duration,
    /// `None` until it has answered a sender report.
    pub round_trip: Option<Duration>,
}

/// How packets reach a viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    /// To a group, once for all who listen to it.
    Multicast,
    /// Between the replies on its connection.
    Tcp,
    /// The same through HTTP.
    Http,
    /// The same, encrypted.
    Tls,
}

impl Transport {
    /// For metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Multicast => "multicast",
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Tls => "tls",
        }
    }
}

/// The hand-over: the writer never waits for a reader.
#[derive(Debug, Default)]
pub struct Viewers(Mutex<Vec<Viewer>>);

impl Viewers {
    /// Replaces what readers see with `newest`, which gets the old for its storage. Leaves all as
    /// it is while somebody reads: the next one comes soon.
    pub fn publish(&self, newest: &mut Vec<Viewer>) {
        if let Ok(mut shown) = self.0.try_lock() {
            mem::swap(&mut *shown, newest);
        }
    }

    /// What was last published.
    #[must_use]
    pub fn read(&self) -> Vec<Viewer> {
        // A list is whole whoever panicked beside it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn viewer(number: u64) -> Viewer {
        Viewer {
            number,
            stream: 0,
            peer: SocketAddr::from(([192, 0, 2, 7], 5_000)),
            transport: Transport::Udp,
            sessions: 1,
            packets: 1,
            octets: 2,
            dropped: 3,
            queue_age: Duration::ZERO,
            reception: None,
        }
    }

    #[test]
    fn the_newest_list_is_read_and_the_writer_never_waits_for_a_reader() {
        let viewers = Viewers::default();
        let mut newest = vec![viewer(1), viewer(2)];
        viewers.publish(&mut newest);
        assert_eq!(viewers.read(), [viewer(1), viewer(2)]);
        newest.clear();
        newest.push(viewer(3));
        let reading = viewers.0.lock().unwrap();
        viewers.publish(&mut newest);
        drop(reading);
        assert_eq!(viewers.read(), [viewer(1), viewer(2)]);
        viewers.publish(&mut newest);
        assert_eq!(viewers.read(), [viewer(3)]);
        assert_eq!(newest.len(), 2, "its storage comes back");
    }
}
