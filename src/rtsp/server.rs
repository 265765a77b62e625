//! The RTSP server: connections and sessions in, answers and orders for the media path out.
//!
//! RFC 2326. No sockets, no clock, no entropy but the boot secret.
//!
//! Drain law: after every call that takes `&mut self`, first `poll_transmit`, then `poll_event`
//! until both are empty, then `poll_timeout`. That order puts the answer to PLAY ahead of the
//! first packet on an interleaved connection.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use log::info;
use thiserror::Error;

use super::connection::{Connection, ConnectionId, Hold, IDLE_TIMEOUT, Received, Waiting};
use super::message::{Error, Response};
use super::session::{Delivery, LEAVING_TIMEOUT, SESSION_TIMEOUT, Session, SessionId, State};
use super::settings::{Settings, StreamId};
use super::tunnel::Role;
use crate::auth::{Secret, Throttle};
use crate::h264::ParameterSets;
use crate::stats::{Ending, Transport};
use crate::time::{Instant, NtpTimestamp};

/// A sans-I/O RTSP server.
#[derive(Debug)]
pub struct Server {
    pub(super) settings: Settings,
    pub(super) secret: Secret,
    pub(super) throttle: Throttle,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    /// Parallel to `settings.streams`.
    pub(super) descriptions: Vec<Description>,
    pub(super) events: VecDeque<Event>,
    pub(super) transmits: VecDeque<(ConnectionId, Vec<u8>)>,
    last_connection: ConnectionId,
}

/// What is known of a stream's bit stream.
#[derive(Debug, Default)]
pub(super) struct Description {
    pub sets: Option<ParameterSets>,
    /// Measured, if that was more than the settings say.
    pub bandwidth_kbps: u32,
    /// Counts the changes of this.
    pub version: u32,
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An IDR picture would be useful: PLAY has come, or DESCRIBE (without session) waits for
    /// parameter sets. Not rate-limited here.
    IdrWanted { stream: StreamId, session: Option<SessionId> },
    /// From now on deliver `stream`, starting with its next access unit if that is the IDR picture
    /// just announced by [`Server::idr_packetized`], else with its next IDR picture.
    ///
    /// May come again for the same session, with another delivery, after [`Event::Pause`].
    Play { session: SessionId, stream: StreamId, delivery: Delivery },
    /// Stop delivering until the next [`Event::Play`].
    Pause { session: SessionId },
    /// The session is over, whether it ever played or not: stop and forget.
    Teardown { session: SessionId, why: Ending },
    /// A compound RTCP packet, unchecked, that a viewer sent interleaved.
    Rtcp { session: SessionId, packet: Vec<u8> },
    /// Close this connection once its output is written, then call [`Server::disconnected`].
    Close { connection: ConnectionId },
}

/// The first packet of an access unit: what a PLAY is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstPacket {
    pub seq: u16,
    pub rtptime: u32,
    /// The wall clock's time at `rtptime`, if that clock is right.
    pub wall: Option<NtpTimestamp>,
}

/// Why a connection is not accepted: send [`Refused::response`] as far as it goes, and close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("too many connections from one address")]
    TooManyFromAddress,
    #[error("too many connections")]
    TooMany,
    #[error("no memory for a connection")]
    NoMemory,
}

impl Refused {
    /// An answer to whatever is asked first, which is not waited for: hence without a CSeq.
    #[must_use]
    pub fn response(self) -> Vec<u8> {
        let reason = match self {
            Self::TooManyFromAddress => {
                "Service Unavailable (too many connections from one address)"
            }
            Self::TooMany => "Service Unavailable (too many connections)",
            Self::NoMemory => "Service Unavailable (no memory)",
        };
        Response::new(503, reason).header("Retry-After", IDLE_TIMEOUT.as_secs()).emit(None)
    }
}

/// How much is going on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub connections: usize,
    pub sessions: usize,
    pub playing: usize,
}

impl Server {
    /// A server without connections.
    ///
    /// `entropy` is the boot secret: nonces and session ids are derived from it, and who knows it
    /// can forge both.
    #[must_use]
    pub fn new(settings: Settings, entropy: [u8; 32]) -> Self {
        let descriptions = settings.streams.iter().map(|_| Description::default()).collect();
        Self {
            settings,
            secret: Secret::new(entropy),
            throttle: Throttle::default(),
            connections: BTreeMap::new(),
            sessions: BTreeMap::new(),
            descriptions,
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            last_connection: ConnectionId(0),
        }
    }

    /// Takes note of a new connection.
    ///
    /// When too many strangers are connected, the one that has been quiet longest is closed.
    ///
    /// # Errors
    ///
    /// [`Refused`] when this address, or everybody together, has enough of them: of an address, such
    /// as have been let in or may be. Of others, the quietest makes room.
    pub fn accept(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Result<ConnectionId, Refused> {
        let address = peer.ip().to_canonical();
        if self.connections.len() >= 2 * self.settings.max_viewers + 2 * MAX_PENDING {
            return Err(Refused::TooMany);
        }
        let mut same: Vec<_> = self.connections.iter().collect();
        same.retain(|(_, other)| other.peer.ip().to_canonical() == address);
        if same.len() >= 2 * self.settings.max_per_address {
            return Err(Refused::TooManyFromAddress);
        }
        same.retain(|(_, other)| !other.is_closing);
        if same.len() >= self.settings.max_per_address {
            // A failed login is answered late, and holds its connection for so long: that is not to
            // keep out who has the right password and the same address. Who still waits to be
            // looked at may be that one.
            same.retain(|(_, other)| self.is_pending(other) && !self.is_in_line(other));
            let quietest = same.into_iter().min_by_key(|(_, other)| other.last_request);
            let (&quietest, _) = quietest.ok_or(Refused::TooManyFromAddress)?;
            self.close(quietest);
        }
        let pending = || self.connections.iter().filter(|(_, other)| self.is_pending(other));
        if pending().count() >= MAX_PENDING {
            let oldest = pending().min_by_key(|(_, other)| other.last_request).map(|(&id, _)| id);
            oldest.into_iter().for_each(|id| self.close(id));
        }
        let mut id = self.last_connection;
        loop {
            id = ConnectionId(id.0.wrapping_add(1));
            if !self.connections.contains_key(&id) {
                break;
            }
        }
        self.last_connection = id;
        self.connections.insert(id, Connection::new(now, peer, local));
        Ok(id)
    }

    /// Takes note that nobody on the way can read what goes over this connection: nothing may go
    /// beside it.
    pub fn encrypted(&mut self, connection: ConnectionId) {
        if let Some(state) = self.connections.get_mut(&connection) {
            state.is_encrypted = true;
        }
    }

    /// Takes bytes that have arrived, cut in any way.
    ///
    /// The caller reads no more from a connection whose output it has not written yet, or a peer
    /// could make it hold answers without end.
    ///
    /// # Errors
    ///
    /// The peer's fault: close the connection once its output is written, then call
    /// [`Server::disconnected`].
    pub fn receive(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        mut bytes: &[u8],
    ) -> Result<(), Error> {
        while self.is_whole(connection)? {
            if !self.read(now, connection, &mut bytes)? {
                return Ok(());
            }
        }
        self.receive_half(now, connection, bytes)
    }

    /// Reads one input off the front of what came for an RTSP connection; `false` once there is
    /// no whole one.
    pub(super) fn read(
        &mut self,
        now: Instant,
        id: ConnectionId,
        bytes: &mut &[u8],
    ) -> Result<bool, Error> {
        let state = self.connections.get_mut(&id).filter(|state| !state.is_closing);
        match state.ok_or(Error::Closed)?.receive(now, bytes) {
            Ok(None) => return Ok(false),
            Ok(Some(Received::Request)) => {
                self.refresh_carried(now, id);
                self.advance(now, id);
            }
            Ok(Some(Received::Interleaved { channel, packet })) => {
                self.interleaved(now, id, channel, packet);
            }
            Ok(Some(Received::Http(opening))) => {
                self.open_tunnel(now, id, opening).map_err(Error::Tunnel)?;
            }
            Err(error) => {
                self.give_up(id, &error);
                return Err(error);
            }
        }
        Ok(true)
    }

    /// Takes note that a connection is gone. Its interleaved sessions end at once; UDP sessions
    /// live on until they time out, or are taken up from another connection.
    pub fn disconnected(&mut self, now: Instant, connection: ConnectionId) {
        let Some(gone) = self.connections.remove(&connection) else { return };
        self.close_ways_in(connection);
        self.transmits.retain(|(to, _)| *to != connection);
        // A PLAY whose answer can no longer be given starts nothing, wherever its session is now.
        if let Some(Waiting { on: Hold::Idr(id), .. }) = &gone.waiting
            && let Some(session) = self.sessions.get_mut(id)
            && session.state == State::Starting
        {
            session.state = State::Ready;
        }
        for id in gone.sessions {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if session.is_udp() {
                if session.is_held_by_connection() {
                    session.alive = now;
                }
                session.connection = None;
            } else {
                self.end_session(id, Ending::Disconnected);
            }
        }
    }

    /// Does what is due: answers that waited long enough, sessions and connections that were
    /// quiet for too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let expired = |session: &Session| session.deadline().is_some_and(|at| at <= now);
        let expired: Vec<_> = keys_where(&self.sessions, expired);
        expired.into_iter().for_each(|id| self.end_session(id, Ending::TimedOut));

        let due = |state: &Connection| state.deadline().is_some_and(|at| at <= now);
        let mut ids = keys_where(&self.connections, due);
        // A turn is for who has stood in line for longest: those who guess are soon in line again.
        ids.sort_by_key(|id| self.connections.get(id).and_then(|state| state.in_line_since));
        for id in ids {
            while let Some(state) = self.connections.get_mut(&id).filter(|state| due(state)) {
                match state.waiting.take_if(|waiting| waiting.until <= now) {
                    Some(waiting) => self.overdue(now, id, waiting),
                    None => self.close(id),
                }
            }
        }
    }

    /// Takes the parameter sets of a stream, the first or changed ones, and answers the DESCRIBEs
    /// that wait for them. Cheap when nothing has changed.
    pub fn parameter_sets(&mut self, now: Instant, stream: StreamId, sets: &ParameterSets) {
        let Some(description) = self.descriptions.get_mut(stream) else { return };
        if description.sets.as_ref() == Some(sets) {
            return;
        }
        description.sets = Some(sets.clone());
        description.version = description.version.wrapping_add(1);
        for (id, waiting) in self.take_waiting(|on| *on == Hold::ParameterSets(stream)) {
            self.handle(now, id, waiting.request);
            self.advance(now, id);
        }
    }

    /// Takes what a stream was measured to need, with the headers of RTP, UDP and IP. Only more
    /// than ever before changes its description.
    pub fn bandwidth(&mut self, stream: StreamId, kbps: u32) {
        let said = self.settings.streams.get(stream).map_or(0, |stream| stream.bandwidth_kbps);
        if let Some(description) = self.descriptions.get_mut(stream)
            && kbps > said.max(description.bandwidth_kbps)
        {
            description.bandwidth_kbps = kbps;
            description.version = description.version.wrapping_add(1);
        }
    }

    /// Takes note that an IDR picture of `stream` has been packetized, but not yet delivered:
    /// answers every PLAY that waits for it and announces their sessions with [`Event::Play`].
    pub fn idr_packetized(&mut self, now: Instant, stream: StreamId, first: FirstPacket) {
        let starting =
            |session: &Session| session.stream == stream && session.state == State::Starting;
        let starting = keys_where(&self.sessions, starting);
        let is_meant = |on: &Hold| matches!(on, Hold::Idr(id) if starting.contains(id));
        for (id, waiting) in self.take_waiting(is_meant) {
            self.start(now, id, &waiting, Some(first));
            self.advance(now, id);
        }
    }

    /// Takes note of a sign of life: RTCP over UDP, or an interleaved viewer that has read.
    pub fn alive(&mut self, now: Instant, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.alive = now;
        }
    }

    /// Takes note of a BYE: who means it is soon gone, who does not says something else.
    pub fn leaving(&mut self, now: Instant, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session).filter(|session| session.is_udp()) {
            session.alive = (now + LEAVING_TIMEOUT) - SESSION_TIMEOUT;
        }
    }

    /// Ends a session whose viewer is gone: its UDP port is closed, or it takes nothing.
    pub fn end(&mut self, session: SessionId, why: Ending) {
        self.end_session(session, why);
    }

    /// Who is at the other end of a connection, and how media goes there.
    #[must_use]
    pub fn way_to(&self, connection: ConnectionId) -> Option<(SocketAddr, Transport)> {
        let state = self.connections.get(&connection)?;
        let transport = match state.role {
            _ if state.is_encrypted => Transport::Tls,
            Role::Whole => Transport::Tcp,
            Role::Out { .. } | Role::In { .. } => Transport::Http,
        };
        Some((state.peer, transport))
    }

    /// The UDP viewer whose packets come from `from`, be it from its RTP or its RTCP port.
    #[must_use]
    pub fn session_of_rtcp(&self, from: SocketAddr) -> Option<SessionId> {
        self.sessions.iter().find(|(_, session)| session.is_at(from)).map(|(&id, _)| id)
    }

    /// Whether a PLAY waits for an IDR picture of `stream`.
    #[must_use]
    pub fn has_waiting_plays(&self, stream: StreamId) -> bool {
        self.sessions
            .values()
            .any(|session| session.stream == stream && session.state == State::Starting)
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let playing = |session: &&Session| session.state == State::Playing;
        Counts {
            connections: self.connections.len(),
            sessions: self.sessions.len(),
            playing: self.sessions.values().filter(playing).count(),
        }
    }

    /// Whole RTSP responses to write to a connection. May say something new after any call that
    /// takes `&mut self`.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<(ConnectionId, Vec<u8>)> {
        self.transmits.pop_front()
    }

    /// What to do; to be asked once [`Server::poll_transmit`] has nothing more. May say something
    /// new after any call that takes `&mut self`.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Server::handle_timeout`]. May change after any call that takes `&mut self`.
    ///
    /// # Cost
    ///
    /// Looks at every connection and session; there are hundreds at most.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sessions = self.sessions.values().filter_map(Session::deadline);
        self.connections.values().filter_map(Connection::deadline).chain(sessions).min()
    }

    fn interleaved(&mut self, now: Instant, id: ConnectionId, channel: u8, packet: Vec<u8>) {
        let Some(session_id) = self.interleaved_session(id) else { return };
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        // What comes on the RTP channel is the hole punching of clients that do not know better.
        if matches!(session.delivery, Delivery::Interleaved { rtcp_channel, .. } if rtcp_channel == channel)
        {
            session.alive = now;
            self.events.push_back(Event::Rtcp { session: session_id, packet });
        }
    }

    /// The one interleaved session that a connection may carry.
    pub(super) fn interleaved_session(&self, id: ConnectionId) -> Option<SessionId> {
        let is_interleaved =
            |id: &&SessionId| self.sessions.get(id).is_some_and(|session| !session.is_udp());
        self.connections.get(&id)?.sessions.iter().find(is_interleaved).copied()
    }

    /// Any request is a sign of life of the sessions that its connection carries.
    fn refresh_carried(&mut self, now: Instant, id: ConnectionId) {
        let Some(state) = self.connections.get(&id) else { return };
        for id in &state.sessions {
            if let Some(session) = self.sessions.get_mut(id) {
                session.alive = now;
            }
        }
    }

    pub(super) fn end_session(&mut self, id: SessionId, why: Ending) {
        let Some(session) = self.sessions.remove(&id) else { return };
        if let Some(state) = session.connection.and_then(|id| self.connections.get_mut(&id)) {
            state.sessions.retain(|other| *other != id);
        }
        let (stream, words) = (session.stream, why.words());
        info!("rtsp: session ended session={id:?} stream={stream} why=\"{words}\"");
        self.events.push_back(Event::Teardown { session: id, why });
    }

    pub(super) fn close(&mut self, id: ConnectionId) {
        if let Some(state) = self.connections.get_mut(&id) {
            state.is_closing = true;
            self.events.push_back(Event::Close { connection: id });
            self.close_ways_in(id);
        }
    }
}

fn keys_where<K: Copy, V>(map: &BTreeMap<K, V>, is_meant: impl Fn(&V) -> bool) -> Vec<K> {
    map.iter().filter(|(_, value)| is_meant(value)).map(|(&key, _)| key).collect()
}

/// Connections that have not been let in; the quietest of them makes room for the next.
pub const MAX_PENDING: usize = 32;
