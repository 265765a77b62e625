//! Puts sessions, packets and queues together: the camera's network side without the network.
//!
//! After any `&mut` call: [`Hub::poll_transmit`] until `None`, each answered by [`Hub::sent`];
//! then [`Hub::poll_action`] until `None`; then wait until [`Hub::poll_timeout`].

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use log::{debug, info};

use super::Stats;
use super::playing::Playing;
use super::stream::{Stream, StreamSettings};
use crate::fanout::{self, Body, Fanout, Path, Sent, Transmit, ViewerId};
use crate::h264::AccessUnit;
use crate::rtp::rtcp::{self, Feedback};
use crate::rtsp::{self, ConnectionId, Delivery, Event, SessionId};
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
    /// These addresses: images to `rtp`, messages to `rtcp`.
    Udp { rtp: SocketAddr, rtcp: SocketAddr },
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
    streams: Vec<Stream>,
    connections: HashMap<ConnectionId, ViewerId>,
    pub(super) sessions: HashMap<SessionId, Playing>,
    /// Where each viewer's bytes go.
    targets: HashMap<ViewerId, Target>,
    actions: VecDeque<Action>,
    /// No deadline of `server` is before this, no report of `sessions` due before that: looked up
    /// when they may have come nearer, and not in every turn of the loop.
    server_due: Option<Instant>,
    report_due: Option<Instant>,
    cname: String,
    /// Of the newest session.
    number: u64,
    stats: Arc<Stats>,
}

impl Hub {
    #[must_use]
    pub fn new(settings: Settings, stats: Arc<Stats>) -> Self {
        Self {
            server: rtsp::Server::new(settings.rtsp, settings.entropy),
            fanout: Fanout::default(),
            streams: settings.streams.iter().map(Stream::new).collect(),
            connections: HashMap::new(),
            sessions: HashMap::new(),
            targets: HashMap::new(),
            actions: VecDeque::new(),
            server_due: None,
            report_due: None,
            cname: settings.cname,
            number: 0,
            stats,
        }
    }

    /// Takes a new connection in; `None` when it is to be closed at once.
    pub fn accept(
        &mut self,
        now: Instant,
        wall: NtpTimestamp,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Option<(ConnectionId, ViewerId)> {
        let accepted = self.server.accept(now, peer, local);
        // The newcomer may have taken the place of the stranger who was quiet longest.
        self.follow_server(now, wall);
        let connection = match accepted {
            Ok(connection) => connection,
            Err(refused) => {
                debug!("serve: connection refused peer={peer} reason={refused}");
                self.stats.refused.increment();
                return None;
            }
        };
        self.stats.connections.increment();
        let viewer = self.fanout.add(now, Path::Stream);
        self.connections.insert(connection, viewer);
        self.targets.insert(viewer, Target::Connection(connection, 0));
        Some((connection, viewer))
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
        let Some(image) = outlet.packetize(unit) else {
            self.stats.images_exhausted.increment();
            self.fanout.interrupt(stream);
            self.actions.push_back(Action::WantIdr { stream });
            return;
        };
        if image.is_idr() {
            // The replies to PLAY go directly ahead of the IDR that they name.
            let first = image.first_sequence().0;
            self.server.idr_packetized(now, stream, first, image.timestamp().0);
            self.follow_server(now, wall);
        }
        self.fanout.offer(now, stream, &image);
    }

    /// Says goodbye to every viewer (RFC 3550 6.6).
    pub fn end(&mut self, now: Instant, wall: NtpTimestamp) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.report(now, wall, session, true);
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
                self.stats.capture_to_socket.record(now.since(image.captured()));
            }
        }
        self.fanout.sent(now, transmit.viewer, sent);
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

    fn first_report(&self) -> Option<Instant> {
        self.sessions.values().filter_map(Playing::next_report).min()
    }

    fn report_to_all_due(&mut self, now: Instant, wall: NtpTimestamp) {
        let due: Vec<SessionId> = self
            .sessions
            .iter()
            .filter_map(|(&id, playing)| (playing.next_report()? <= now).then_some(id))
            .collect();
        for session in due {
            let viewer = self.sessions.get(&session).and_then(|playing| playing.viewer);
            let progress = viewer.and_then(|viewer| self.fanout.progress(viewer));
            let is_interleaved = viewer.is_some_and(|viewer| self.is_connection(viewer));
            // INTEROP rule 14: a TCP socket that drains is alive.
            if is_interleaved && progress.is_some_and(|at| now.since(at) < DRAINED_WITHIN) {
                self.server.alive(now, session);
            }
            self.report(now, wall, session, false);
        }
        self.report_due = self.first_report();
    }

    /// Lets go of viewers that take nothing.
    fn follow_fanout(&mut self) {
        while let Some(fanout::Event::Stalled(viewer)) = self.fanout.poll_event() {
            self.give_up(viewer);
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

    fn follow(&mut self, now: Instant, wall: NtpTimestamp, event: Event) {
        match event {
            Event::IdrWanted { stream, session } => {
                let playing = session.and_then(|session| self.sessions.get_mut(&session));
                if playing.is_none_or(|playing| playing.may_ask_for_idr(now)) {
                    self.actions.push_back(Action::WantIdr { stream });
                }
            }
            Event::Play { session, stream, delivery } => {
                self.play(now, wall, session, stream, delivery);
            }
            Event::Pause { session } => self.pause(session),
            Event::Teardown { session, why } => {
                self.pause(session);
                if let Some(playing) = self.sessions.remove(&session) {
                    let why = if playing.is_stalled { Ending::Stalled } else { why };
                    self.stats.endings.of(why).increment();
                }
            }
            Event::Rtcp { session, packet } => self.feedback(now, session, &packet),
            Event::Close { connection } => self.actions.push_back(Action::Close(connection)),
        }
    }

    fn play(
        &mut self,
        now: Instant,
        wall: NtpTimestamp,
        session: SessionId,
        stream: usize,
        delivery: Delivery,
    ) {
        let viewer = match delivery {
            Delivery::Interleaved { connection, rtp_channel, .. } => {
                let Some(&viewer) = self.connections.get(&connection) else { return };
                self.targets.insert(viewer, Target::Connection(connection, rtp_channel));
                viewer
            }
            Delivery::Udp { rtp, rtcp } => {
                let viewer = self.fanout.add(now, Path::Datagram);
                self.targets.insert(viewer, Target::Udp { rtp, rtcp });
                viewer
            }
        };
        self.stats.plays.increment();
        self.number += 1;
        self.fanout.play(viewer, stream);
        self.sessions
            .entry(session)
            .and_modify(|playing| playing.resume(viewer, delivery))
            .or_insert_with(|| Playing::new(now, self.number, stream, viewer, delivery));
        self.report(now, wall, session, false);
    }

    fn pause(&mut self, session: SessionId) {
        let Some(playing) = self.sessions.get_mut(&session) else { return };
        let Some(viewer) = playing.viewer else { return };
        let counts = match playing.delivery {
            Delivery::Interleaved { .. } => self.fanout.stop(viewer),
            Delivery::Udp { .. } => {
                self.targets.remove(&viewer);
                self.fanout.remove(viewer)
            }
        };
        playing.pause(counts);
        self.stats.dropped.add(counts.dropped);
        if counts.drops > 0 {
            info!(
                "serve: viewer was slow drops={} access_units_lost={} packets_sent={}",
                counts.drops, counts.dropped, counts.packets
            );
        }
    }

    fn forget(&mut self, viewer: ViewerId) {
        self.fanout.remove(viewer);
        self.targets.remove(&viewer);
    }

    /// A viewer takes nothing any more: its connection is closed, or its UDP session ended.
    fn give_up(&mut self, viewer: ViewerId) {
        self.stats.stalled.increment();
        match self.targets.get(&viewer) {
            Some(&Target::Connection(connection, _)) => {
                info!("serve: viewer stalled connection={}", connection.0);
                let session = self.sessions.values_mut().find(|p| p.viewer == Some(viewer));
                session.into_iter().for_each(|playing| playing.is_stalled = true);
                self.actions.push_back(Action::Abort(connection));
            }
            Some(Target::Udp { rtp, .. }) => {
                info!("serve: viewer stalled address={rtp}");
                let session = self.sessions.iter().find(|(_, p)| p.viewer == Some(viewer));
                if let Some((&session, _)) = session {
                    self.server.end(session, Ending::Stalled);
                }
            }
            None => {}
        }
    }

    /// What a viewer's RTCP says: it is alive, and perhaps wants an IDR.
    fn feedback(&mut self, now: Instant, session: SessionId, bytes: &[u8]) {
        let mut is_idr_wanted = false;
        let parsed = rtcp::parse(bytes, |message| match message {
            Feedback::KeyFrameWanted => is_idr_wanted = true,
            Feedback::Report(report) => debug!(
                "serve: reception ssrc={:08x} lost={}/256 jitter={}",
                report.ssrc.0, report.fraction_lost, report.jitter_ticks
            ),
            // A receiver's BYE names no session; it goes by TEARDOWN or by silence.
            Feedback::Bye => {}
        });
        if parsed.is_err() {
            return;
        }
        self.server.alive(now, session);
        if let Some(playing) = self.sessions.get_mut(&session) {
            playing.heard();
            if is_idr_wanted && playing.may_ask_for_idr(now) {
                self.actions.push_back(Action::WantIdr { stream: playing.stream });
            }
        }
    }

    /// Queues a sender report, behind the packets that it counts.
    fn report(&mut self, now: Instant, wall: NtpTimestamp, session: SessionId, is_over: bool) {
        let Some(playing) = self.sessions.get_mut(&session) else { return };
        let Some(stream) = self.streams.get(playing.stream) else { return };
        let Some(viewer) = playing.viewer else { return };
        let counts = self.fanout.counts(viewer);
        let report = playing.report(now, wall, stream, counts, &self.cname, is_over);
        let next = playing.next_report();
        self.report_due = [self.report_due, next].into_iter().flatten().min();
        let message: Arc<[u8]> = match playing.delivery {
            Delivery::Interleaved { rtcp_channel, .. } => {
                let len = u16::try_from(report.len()).unwrap_or(0).to_be_bytes();
                [&[b'$', rtcp_channel, len[0], len[1]], &report[..]].concat().into()
            }
            Delivery::Udp { .. } => Arc::from(&report[..]),
        };
        // A queue full of messages is that of a viewer about to be closed.
        let _ = self.fanout.send(now, viewer, message);
    }

    fn is_connection(&self, viewer: ViewerId) -> bool {
        matches!(self.targets.get(&viewer), Some(Target::Connection(..)))
    }
}

/// A TCP viewer that took something since the last report has shown that it is alive.
const DRAINED_WITHIN: std::time::Duration = std::time::Duration::from_secs(6);
