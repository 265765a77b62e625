//! Looks at all viewers at once, for whoever wants to know: at most once a second, and only if
//! somebody may ask.

use std::sync::Arc;
use std::time::Duration;

use super::hub::Hub;
use crate::rtsp::Delivery;
use crate::stats::{Transport, Viewer, Viewers};
use crate::time::Instant;

/// Publishes what [`Hub::viewers`] says.
#[derive(Debug)]
pub(super) struct Census {
    published: Arc<Viewers>,
    /// Storage of the list before the last.
    spare: Vec<Viewer>,
    next: Instant,
}

impl Census {
    pub(super) const fn new(published: Arc<Viewers>) -> Self {
        Self { published, spare: Vec::new(), next: Instant::ZERO }
    }

    /// Called with every turn of the loop, which it never wakes.
    pub(super) fn handle_turn(&mut self, now: Instant, hub: &Hub) {
        if now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        hub.viewers(now, &mut self.spare);
        self.published.publish(&mut self.spare);
    }
}

impl Hub {
    /// Replaces what is in `into` with the viewers who play.
    pub fn viewers(&self, now: Instant, into: &mut Vec<Viewer>) {
        into.clear();
        for playing in self.sessions.values() {
            let Some(viewer) = playing.viewer else { continue };
            let way = match playing.delivery {
                Delivery::Udp { rtp, .. } => Some((rtp, Transport::Udp)),
                Delivery::Interleaved { connection, .. } => self.server.way_to(connection),
            };
            let Some((peer, transport)) = way else { continue };
            let total = playing.total(self.fanout.counts(viewer));
            into.push(Viewer {
                number: playing.number,
                stream: playing.stream,
                peer,
                transport,
                packets: total.packets,
                octets: total.octets,
                dropped: total.dropped,
                queue_age: self.fanout.oldest(viewer).map_or(Duration::ZERO, |at| now.since(at)),
                reception: None,
            });
        }
    }
}

const INTERVAL: Duration = Duration::from_secs(1);
