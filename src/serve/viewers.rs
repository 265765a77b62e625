//! Looks at all viewers at once, for whoever wants to know: at most once a second, and only if
//! somebody may ask.

use std::sync::Arc;
use std::time::Duration;

use super::hub::Hub;
use super::playing::Playing;
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
        let sessions = self.sessions.values().map(|playing| (playing, 1));
        let groups = self.groups.values().map(|group| (&group.playing, group.members.len()));
        into.extend(sessions.chain(groups).filter_map(|(it, count)| self.look_at(now, it, count)));
    }

    fn look_at(&self, now: Instant, playing: &Playing, sessions: usize) -> Option<Viewer> {
        let viewer = playing.viewer?;
        let (peer, transport) = match playing.delivery {
            Delivery::Udp { rtp, .. } => (rtp, Transport::Udp),
            Delivery::Multicast { rtp, .. } => (rtp, Transport::Multicast),
            Delivery::Interleaved { connection, .. } => self.server.way_to(connection)?,
        };
        let total = playing.total(self.fanout.counts(viewer));
        Some(Viewer {
            number: playing.number,
            stream: playing.stream,
            peer,
            transport,
            sessions,
            packets: total.packets,
            octets: total.octets,
            dropped: total.dropped,
            queue_age: self.fanout.oldest(viewer).map_or(Duration::ZERO, |at| now.since(at)),
            reception: playing.reception(),
        })
    }
}

const INTERVAL: Duration = Duration::from_secs(1);
