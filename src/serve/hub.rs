//! Puts sessions, packets and queues together: the camera's network side without the network.
//!
//! After any `&mut` call: [`Hub::poll_transmit`] until `None`, each answered by [`Hub::sent`];
//! then [`Hub::poll_action`] until `None`; then wait until [`Hub::poll_timeout`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use log::{debug, info};

use super::Stats;
use super::playing::{Group, GroupId, Playing};
use super::stream::{Stream, StreamSettings};
use crate::fanout::{self, Body, Fanout, Path, Sent, Transmit, ViewerId};
use crate::h264::AccessUnit;
use crate::rtsp::{self, ConnectionId, FirstPacket, SessionId};
use crate::stats::Ending;
use crate::time::{Instant, NtpTimestamp};

/// What the network side is to be.
#[derive(Debug)]
pub struct Settings {
    pub rtsp: rtsp::Settings,
    /// One for each of the streams of `rtsp`.
    pub streams: Vec<StreamSettings>,
    /// RFC 7022: random, and the same for all streams.
    pub cname: String,
    /// Secret of this boot: for nonces and session ids.
    pub entropy: [u8; 32],
}

/// Where a viewer's bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// This connection; images on this RTP channel.
    Connection(ConnectionId, u8),
    /// These addresses, of a viewer or of a group: images to `rtp`, messages to `rtcp`. From the
    /// address `from`, or from whichever the routing table has.
    Udp { rtp: SocketAddr, rtcp: SocketAddr, from: Option<SocketAddr> },
}

/// What the owner of sockets and encoders is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Close this connection once its viewer is drained.
    Close(ConnectionId),
    /// Close it now: it takes nothing any more.
    Abort(ConnectionId),
    /// Ask the stream's encoder for an IDR.
    WantIdr { stream: usize },
}

/// The whole network side of a camera.
#[derive(Debug)]
pub struct Hub {
    pub(super) server: rtsp::Server,
    pub(super) fanout: Fanout,
    pub(super) streams: Vec<Stream>,
    pub(super) connections: HashMap<ConnectionId, ViewerId>,
    /// In an order that a second run repeats, as are the groups.
    pub(super) sessions: BTreeMap<SessionId, Playing>,
    /// Groups that somebody listens to.
    pub(super) groups: BTreeMap<GroupId, Group>,
    /// Where each viewer's bytes go.
    pub(super) targets: HashMap<ViewerId, Target>,
    /// Viewers that are forgotten once they have been sent their last words.
    pub(super) leaving: Vec<ViewerId>,
    pub(super) actions: VecDeque<Action>,
    /// Whether somebody has begun or ceased to play since [`Hub::watchers`] was asked.
    pub(super) has_audience_changed: bool,
    /// No deadline of `server` is before this, no report of `sessions` or `groups` due before that:
    /// looked up when they may have come nearer, and not in every turn of the loop.
    server_due: Option<Instant>,
    pub(super) report_due: Option<Instant>,
    /// Whether the wall clock may be told to viewers as the time.
    is_clock_right: bool,
    pub(super) cname: String,
    /// Of the newest session or group.
    pub(super) number: u64,
    pub(super) stats: Arc<Stats>,
}

impl Hub {
    #[must_use]
    pub fn new(settings: Settings, stats: Arc<Stats>) -> Self {
        Self {
            server: rtsp::Server::new(settings.rtsp, settings.entropy),
            fanout: Fanout::default(),
            streams: settings.streams.iter().map(Stream::new).collect(),
            connections: HashMap::new(),
            sessions: BTreeMap::new(),
            groups: BTreeMap::new(),
            targets: HashMap::new(),
            leaving: Vec::new(),
            actions: VecDeque::new(),
            has_audience_changed: false,
            server_due: None,
            report_due: None,
            is_clock_right: false,
            cname: settings.cname,
            number: 0,
            stats,
        }
    }

    /// Takes a new connection in.
    ///
    /// # Errors
    ///
    /// There is no room for it: tell the peer, and close it.
    pub fn accept(
        &mut self,
        now: Instant,
        wall: NtpTimestamp,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Result<(ConnectionId, ViewerId), rtsp::Refused> {
        let accepted = if has_memory_for_one_more() {
            self.server.accept(now, peer, local)
        } else {
            Err(rtsp::Refused::NoMemory)
        };
        // The newcomer may have taken the place of the stranger who was quiet longest.
        self.follow_server(now, wall);
        let connection = accepted.inspect_err(|refused| {
            debug!("serve: connection refused peer={peer} reason={refused}");
            self.stats.refused.increment();
        })?;
        self.stats.connections.increment();
        let viewer = self.fanout.add(now, Path::Stream);
        self.connections.insert(connection, viewer);
        self.targets.insert(viewer, Target::Connection(connection, 0));
        Ok((connection, viewer))
    }

    /// Nobody on the way can read what goes over this connection.
    pub fn encrypted(&mut self, connection: ConnectionId) {
        self.server.encrypted(connection);
    }

    /// Takes bytes that arrived on a connection.
    pub fn receive(
        &mut self,
        now: Instant,
        wall: NtpTimestamp,
        connection: ConnectionId,
        bytes: &[u8],
    ) {
        if let Err(error) = self.server.receive(now, connection, bytes) {
            debug!("serve: closing connection={} reason={error}", connection.0);
            self.actions.push_back(Action::Close(connection));
        }
        self.follow_server(now, wall);
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, now: Instant, wall: NtpTimestamp, connection: ConnectionId) {
        self.server.disconnected(now, connection);
        self.follow_server(now, wall);
        if let Some(viewer) = self.connections.remove(&connection) {
            self.forget(viewer);
        }
    }

    /// Takes a datagram that arrived on the RTCP port (or hole-punch junk on the RTP port).
    pub fn datagram(&mut self, now: Instant, wall: NtpTimestamp, from: SocketAddr, bytes: &[u8]) {
        if let Some(session) = self.server.session_of_rtcp(from) {
            self.feedback(now, session, bytes);
            self.follow_server(now, wall);
        }
    }

    /// ICMP says that nobody listens at `to`.
    pub fn unreachable(&mut self, now: Instant, wall: NtpTimestamp, to: SocketAddr) {
        let gone = self
            .sessions
            .iter_mut()
            .find_map(|(&id, playing)| (playing.is_at(to) && playing.is_gone(now)).then_some(id));
        if let Some(session) = gone {
            info!("serve: viewer is gone address={to} reason=unreachable");
            self.server.end(session, Ending::Unreachable);
            self.follow_server(now, wall);
        }
    }

    /// Whether the answer to a PLAY will go with the next IDR of `stream`.
    #[must_use]
    pub fn is_starting(&self, stream: usize) -> bool {
        self.server.has_waiting_plays(stream)
    }

    /// How many sessions play each stream or wait to, when that may have changed since the last call.
    pub fn watchers(&mut self) -> Option<impl Iterator<Item = usize>> {
        if !std::mem::take(&mut self.has_audience_changed) {
            return None;
        }
        let playing = |stream: usize| {
            let sessions = self.sessions.values().filter(move |it| it.stream == stream);
            let groups = self.groups.values().filter(move |group| group.playing.stream == stream);
            sessions.filter(|playing| playing.viewer.is_some()).count() + groups.count()
        };
        let waiting = |stream| usize::from(self.server.has_waiting_plays(stream));
        Some((0..self.streams.len()).map(move |stream| playing(stream) + waiting(stream)))
    }

    /// Takes note whether the wall clock is synchronised: only then is its time told as the time.
    pub fn clock_is_right(&mut self, is_right: bool) {
        self.is_clock_right = is_right;
    }

    /// Sends an access unit to everybody who plays `stream`.
    ///
    /// # Cost
    ///
    /// One copy of the bytes, however many viewers there are.
    pub fn publish(&mut self, now: Instant, wall: NtpTimestamp, stream: usize, unit: &AccessUnit) {
        let Some(outlet) = self.streams.get_mut(stream) else { return };
        self.stats.access_units.increment();
        self.stats.newest_micros.set(unit.captured().as_micros());
        if let Some(sets) = outlet.new_parameter_sets(unit) {
            self.server.parameter_sets(now, stream, sets);
        }
        let (image, bandwidth_kbps) = (outlet.packetize(unit), outlet.bandwidth_kbps());
        self.server.bandwidth(stream, bandwidth_kbps);
        let Some(image) = image else {
            self.stats.images_exhausted.increment();
            self.fanout.interrupt(stream);
            self.actions.push_back(Action::WantIdr { stream });
            return;
        };
        if image.is_idr() {
            // The replies to PLAY go directly ahead of the IDR that they name.
            let age = i64::try_from(now.since(image.captured()).as_micros()).unwrap_or(0);
            let first = FirstPacket {
                seq: image.first_sequence().0,
                rtptime: image.timestamp().0,
                wall: self.is_clock_right.then(|| wall.offset_by_micros(-age)),
            };
            self.server.idr_packetized(now, stream, first);
            self.follow_server(now, wall);
        }
        self.fanout.offer(now, stream, &image);
    }

    /// Says goodbye to every viewer (RFC 3550 6.6).
    pub fn end(&mut self, now: Instant, wall: NtpTimestamp) {
        for who in self.reporting(|_| true) {
            self.report(now, wall, who, true);
        }
    }

    /// The next thing to send, to be answered by [`Hub::sent`].
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<(Transmit, Target)> {
        loop {
            let transmit = self.fanout.poll_transmit()?;
            if let Some(&target) = self.targets.get(&transmit.viewer) {
                return Some((transmit, target));
            }
        }
    }

    /// Says what became of `transmit`.
    pub fn sent(&mut self, now: Instant, transmit: &Transmit, sent: Sent) {
        if let Sent::Some(count) = sent {
            let completed = match &transmit.body {
                Body::Bytes { image, range } if range.start + count == range.end => Some(image),
                Body::Packets { image, packets }
                    if packets.start + count == image.packet_count() =>
                {
                    Some(image)
                }
                _ => None,
            };
            if let Some(image) = completed {
                let took = now.since(image.captured());
                self.stats.capture_to_socket.record(took);
                // IDR pictures are paced over UDP.
                if !(image.is_idr() && matches!(transmit.body, Body::Packets { .. })) {
                    self.stats.own_share.record(took.saturating_sub(image.encoded_in()));
                }
            }
        }
        self.fanout.sent(now, transmit.viewer, sent);
        self.let_go(transmit.viewer);
        self.follow_fanout();
    }

    /// The viewer's socket has room again.
    pub fn writable(&mut self, viewer: ViewerId) {
        self.fanout.writable(viewer);
    }

    #[must_use]
    pub fn is_blocked(&self, viewer: ViewerId) -> bool {
        self.fanout.is_blocked(viewer)
    }

    #[must_use]
    pub fn is_drained(&self, viewer: ViewerId) -> bool {
        self.fanout.is_drained(viewer)
    }

    /// New after every `&mut` call.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub fn handle_timeout(&mut self, now: Instant, wall: NtpTimestamp) {
        self.server.handle_timeout(now);
        self.follow_server(now, wall);
        self.fanout.handle_timeout(now);
        self.follow_fanout();
        self.follow_server(now, wall);
        if self.report_due.is_some_and(|due| due <= now) {
            self.report_to_all_due(now, wall);
        }
    }

    /// When [`Hub::handle_timeout`] is next due. May change after any `&mut` call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let is_bound = |bound: Option<Instant>, first: Option<Instant>| {
            first.is_none_or(|first| bound.is_some_and(|bound| bound <= first))
        };
        debug_assert!(is_bound(self.server_due, self.server.poll_timeout()));
        debug_assert!(is_bound(self.report_due, self.first_report()));
        let due = [self.server_due, self.fanout.poll_timeout(), self.report_due];
        due.into_iter().flatten().min()
    }

    /// Lets go of viewers that take nothing, or are gone.
    fn follow_fanout(&mut self) {
        while let Some(event) = self.fanout.poll_event() {
            match event {
                fanout::Event::Stalled(viewer) => self.stalled(viewer),
                fanout::Event::Lost(viewer) => self.give_up(viewer, Ending::Disconnected),
            }
        }
    }

    /// Performs what the RTSP server says: replies first, so that they precede the media.
    fn follow_server(&mut self, now: Instant, wall: NtpTimestamp) {
        loop {
            let mut next = self.server.poll_transmit();
            while let Some((connection, mut replies)) = next {
                // Pipelined requests are answered in one piece.
                next = self.server.poll_transmit();
                while let Some((_, more)) = next.take_if(|(other, _)| *other == connection) {
                    replies.extend(more);
                    next = self.server.poll_transmit();
                }
                let Some(&viewer) = self.connections.get(&connection) else { continue };
                if !self.fanout.send(now, viewer, Arc::from(replies)) {
                    self.actions.push_back(Action::Abort(connection));
                }
            }
            let Some(event) = self.server.poll_event() else { break };
            self.follow(now, wall, event);
        }
        self.server_due = self.server.poll_timeout();
    }

    pub(super) fn forget(&mut self, viewer: ViewerId) {
        self.fanout.remove(viewer);
        self.targets.remove(&viewer);
    }
}

/// Whether a newcomer leaves memory for those who are there: most of what they need cannot be asked
/// for, and ends the process when it is not there.
fn has_memory_for_one_more() -> bool {
    let mut room = Vec::<u8>::new();
    let is_there = room.try_reserve_exact(MEMORY_OF_ONE).is_ok();
    // Or the compiler leaves out both the asking and the giving back.
    std::hint::black_box(&room);
    is_there
}

/// More than a connection, its session and its TLS take, and half of what images have to leave.
const MEMORY_OF_ONE: usize = 1 << 20;
