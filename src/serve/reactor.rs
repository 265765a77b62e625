//! The epoll loop: gives the hub what arrives, and performs what it says.
//!
//! One thread, one epoll, level-triggered but for the producer's wake. Per access unit and turn:
//! one wait, and one write per TCP viewer or one for many UDP viewers.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use log::{debug, warn};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use thiserror::Error;

use super::Stats;
use super::heartbeat::Heartbeat;
use super::hub::{Action, Hub, Target};
use super::link::{Link, Tls};
use super::sender::{Pending, Sender};
use super::viewers::Census;
use crate::fanout::{Body, Sent, ViewerId};
use crate::ring::{Consumer, IdrRequests};
use crate::rtsp::ConnectionId;
use crate::stats::{Gauge, Viewers};
use crate::sys::{ByteStream, Wake, clock, process, tcp, udp};
use crate::time::Instant;

/// Sockets that were bound before anybody could connect.
#[derive(Debug)]
pub struct Sockets {
    pub listeners: Vec<OwnedFd>,
    pub rtp: udp::Socket,
    pub rtcp: udp::Socket,
    /// Bytes that may wait in the kernel for one TCP viewer.
    pub send_buffer_len: usize,
}

/// One stream's way in: its access units, and its encoder's ear.
#[derive(Debug)]
pub struct Inlet {
    pub units: Consumer,
    pub idr_requests: Arc<IdrRequests>,
    /// How many play it or wait to: kept by the reactor, for whoever need not encode for nobody.
    pub watchers: Arc<Gauge>,
}

/// The loop cannot go on: the process's fault or the machine's.
#[derive(Debug, Error)]
pub enum Error {
    #[error("serve: {call}: {}", errno.desc())]
    Os { call: &'static str, errno: Errno },
}

/// Thread 3.
#[derive(Debug)]
pub struct Reactor {
    epoll: Epoll,
    hub: Hub,
    sockets: Sockets,
    sender: Sender,
    inlets: Vec<Inlet>,
    /// Written by `produce` after every access unit.
    wake: Arc<Wake>,
    /// Written once, to end the loop.
    stop: Arc<Wake>,
    /// For connections to the listeners from `first_encrypted` on.
    tls: Option<Tls>,
    first_encrypted: usize,
    connections: HashMap<ConnectionId, Connection>,
    /// Connections whose handshake is not over, and when it has to be, soonest first.
    handshakes: VecDeque<(Instant, ConnectionId)>,
    /// How many more steps of handshakes this turn has time for.
    handshake_steps: usize,
    /// Connections that are closed as soon as their last bytes are written.
    closing: Vec<ConnectionId>,
    /// No descriptor was left: when to listen again.
    accept_again: Option<Instant>,
    is_out_of_descriptors: bool,
    heartbeat: Option<Heartbeat>,
    /// Connections that somebody else has accepted.
    handed_over: Option<HandedOver>,
    census: Option<Census>,
    stats: Arc<Stats>,
}

/// Where connections come from that RTSP turned out to be spoken on, and what says so.
pub type HandedOver = (Receiver<ByteStream>, Arc<Wake>);

#[derive(Debug)]
struct Connection {
    link: Link,
    viewer: ViewerId,
    /// Whether epoll watches for room in the socket's buffer.
    is_watched_for_room: bool,
    /// When it is closed, whether or not its last bytes are written.
    close_by: Option<Instant>,
}

impl Reactor {
    /// Registers everything with a new epoll.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when the process has no descriptor left.
    pub fn new(
        hub: Hub,
        sockets: Sockets,
        inlets: Vec<Inlet>,
        wake: Arc<Wake>,
        stop: Arc<Wake>,
        stats: Arc<Stats>,
    ) -> Result<Self, Error> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(os("epoll_create1"))?;
        let reactor = Self {
            epoll,
            hub,
            tls: None,
            first_encrypted: sockets.listeners.len(),
            sockets,
            sender: Sender::default(),
            inlets,
            wake,
            stop,
            connections: HashMap::new(),
            handshakes: VecDeque::new(),
            handshake_steps: 0,
            closing: Vec::new(),
            accept_again: None,
            is_out_of_descriptors: false,
            heartbeat: None,
            handed_over: None,
            census: None,
            stats,
        };
        // Every write wakes, so that nobody has to read: a call less per access unit.
        let edge = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, WAKE);
        reactor.epoll.add(&*reactor.wake, edge).map_err(os("epoll_ctl"))?;
        reactor.watch(&*reactor.stop, STOP)?;
        reactor.watch(&reactor.sockets.rtp, RTP)?;
        reactor.watch(&reactor.sockets.rtcp, RTCP)?;
        for (index, listener) in reactor.sockets.listeners.iter().enumerate() {
            reactor.watch(listener, LISTENERS + index as u64)?;
        }
        Ok(reactor)
    }

    /// Listens for encrypted connections too.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when the kernel has no memory left.
    pub fn with_tls(mut self, listeners: Vec<OwnedFd>, tls: Tls) -> Result<Self, Error> {
        for listener in listeners {
            self.watch(&listener, LISTENERS + self.sockets.listeners.len() as u64)?;
            self.sockets.listeners.push(listener);
        }
        self.tls = Some(tls);
        Ok(self)
    }

    /// Takes connections that somebody else has accepted.
    ///
    /// # Errors
    ///
    /// As [`Reactor::with_tls`].
    pub fn with_handed_over(mut self, handed_over: HandedOver) -> Result<Self, Error> {
        let edge = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, HANDED_OVER);
        self.epoll.add(&*handed_over.1, edge).map_err(os("epoll_ctl"))?;
        self.handed_over = Some(handed_over);
        Ok(self)
    }

    /// Tells `viewers` who watches, about once a second.
    #[must_use]
    pub fn with_census(mut self, viewers: Arc<Viewers>) -> Self {
        self.census = Some(Census::new(viewers));
        self
    }

    /// Makes the loop write one byte per second to `pipe` while it turns and pictures come.
    #[must_use]
    pub fn with_heartbeat(mut self, pipe: Option<OwnedFd>) -> Self {
        self.heartbeat = pipe.map(Heartbeat::new);
        self
    }

    /// Serves until told to stop, then says goodbye to the viewers.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when epoll fails, which it does not.
    pub fn run(mut self) -> Result<(), Error> {
        if let Err(errno) = process::shorten_turns() {
            debug!("serve: turns stay as they are error={errno}");
        }
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        loop {
            let due = self.hub.poll_timeout();
            let timeout = self.timeout(due);
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(Error::Os { call: "epoll_wait", errno }),
            };
            self.stats.turns.increment();
            self.handshake_steps = HANDSHAKE_STEPS_PER_TURN;
            for event in events.iter().take(count) {
                if event.data() == STOP {
                    self.end();
                    return Ok(());
                }
                self.handle(event.data(), event.events())?;
            }
            self.handle_timeouts(due)?;
            self.perform()?;
            self.count_watchers();
            if let Some(census) = &mut self.census {
                census.handle_turn(clock::now(), &self.hub);
            }
        }
    }

    fn handle(&mut self, token: u64, flags: EpollFlags) -> Result<(), Error> {
        match token {
            WAKE => self.publish(),
            HANDED_OVER => self.take_over()?,
            RTP | RTCP => self.receive_datagrams(token == RTCP, flags),
            connection if connection >= CONNECTIONS => {
                let id = ConnectionId(u32::try_from(connection - CONNECTIONS).unwrap_or(u32::MAX));
                if flags.contains(EpollFlags::EPOLLOUT) {
                    self.writable(id)?;
                }
                // Errors and hang-ups, which epoll reports unasked, are found by reading.
                if flags.intersects(READABLE | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
                    self.receive(id)?;
                }
            }
            listener => self.accept(usize::try_from(listener - LISTENERS).unwrap_or(0))?,
        }
        Ok(())
    }

    /// Sends the access units that `produce` has put into the rings.
    fn publish(&mut self) {
        for stream in 0..self.inlets.len() {
            while let Some(unit) = self.inlets.get_mut(stream).and_then(|i| i.units.pop()) {
                let now = clock::now();
                if self.hub.is_starting(stream) {
                    self.hub.clock_is_right(clock::is_synchronized());
                }
                self.hub.publish(now, clock::wall(), stream, &unit);
                if let Some(heartbeat) = &mut self.heartbeat {
                    heartbeat.unit(now);
                }
            }
        }
    }

    /// Says who is watched. Before the next turn, so that who waits for an IDR does not wait long.
    fn count_watchers(&mut self) {
        if let Some(counts) = self.hub.watchers() {
            for (inlet, count) in self.inlets.iter().zip(counts) {
                inlet.watchers.set(count as u64);
            }
        }
    }

    fn accept(&mut self, index: usize) -> Result<(), Error> {
        let Some(listener) = self.sockets.listeners.get(index) else { return Ok(()) };
        let accepted = match tcp::accept(listener, self.sockets.send_buffer_len) {
            Ok(accepted) => accepted,
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                if !self.is_out_of_descriptors {
                    warn!("serve: no descriptor for new connections; those that exist go on");
                }
                self.is_out_of_descriptors = true;
                self.stats.refused.increment();
                self.accept_again = Some(clock::now() + ACCEPT_PAUSE);
                return self.watch_listeners(EpollFlags::empty());
            }
            // Gone before it was accepted, or somebody else's turn.
            Err(_) => return Ok(()),
        };
        self.is_out_of_descriptors = false;
        let is_encrypted = index >= self.first_encrypted;
        self.admit(accepted, is_encrypted)
    }

    /// Takes in all connections that wait: once per wake, which is edge-triggered.
    fn take_over(&mut self) -> Result<(), Error> {
        while let Some(Ok(stream)) =
            self.handed_over.as_ref().map(|(streams, _)| streams.try_recv())
        {
            self.admit(stream, false)?;
        }
        Ok(())
    }

    /// Takes a connection in, if the hub has room for it.
    fn admit(&mut self, accepted: ByteStream, is_encrypted: bool) -> Result<(), Error> {
        let tls = self.tls.as_ref().filter(|_| is_encrypted);
        let link = match tls {
            None => Ok(Link::Plain(accepted.socket)),
            Some(tls) => Link::encrypted(accepted.socket, tls),
        };
        let mut link = match link {
            Ok(link) => link,
            Err(error) => {
                warn!("serve: no encryption for peer={} error={error}", accepted.peer);
                return Ok(());
            }
        };
        let (now, wall) = (clock::now(), clock::wall());
        let taken_in = self.hub.accept(now, wall, accepted.peer, accepted.local);
        let (id, viewer) = match taken_in {
            Ok(taken_in) => taken_in,
            Err(refused) => {
                // A new socket has room for it; who has yet to shake hands is not waited for.
                let _ = link.transmit(&refused.response());
                link.finish();
                return Ok(());
            }
        };
        debug!("serve: connection={} peer={}", id.0, accepted.peer);
        self.watch(&link, CONNECTIONS + u64::from(id.0))?;
        if link.is_handshaking() {
            self.hub.encrypted(id);
            self.handshakes.push_back((now + HANDSHAKE_DEADLINE, id));
        }
        let connection = Connection { link, viewer, is_watched_for_room: false, close_by: None };
        self.connections.insert(id, connection);
        Ok(())
    }

    fn receive(&mut self, id: ConnectionId) -> Result<(), Error> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        if connection.link.is_handshaking() {
            // Each costs a millisecond; what has no time now is still there in the next turn.
            let Some(left) = self.handshake_steps.checked_sub(1) else { return Ok(()) };
            self.handshake_steps = left;
        }
        let (hub, is_open) = (&mut self.hub, connection.close_by.is_none());
        let received = connection.link.receive(&mut [0; READ_LEN], |bytes| {
            if is_open {
                hub.receive(clock::now(), clock::wall(), id, bytes);
            }
        });
        if received.is_err() {
            self.close(id);
            return Ok(());
        }
        connection.watch_for_room(&self.epoll, id, false)
    }

    fn receive_datagrams(&mut self, is_rtcp: bool, flags: EpollFlags) {
        let mut bytes = [0; DATAGRAM_LEN];
        for _ in 0..DATAGRAMS_PER_TURN {
            let socket = if is_rtcp { &self.sockets.rtcp } else { &self.sockets.rtp };
            if flags.contains(EpollFlags::EPOLLERR)
                && let Ok(address) = socket.receive_error()
            {
                if let Some(to) = address {
                    self.hub.unreachable(clock::now(), clock::wall(), to);
                }
                continue;
            }
            match socket.receive(&mut bytes) {
                Ok((len, Some(from))) => {
                    let bytes = bytes.get(..len).unwrap_or(&[]);
                    self.hub.datagram(clock::now(), clock::wall(), from, bytes);
                }
                Err(Errno::EAGAIN) => break,
                // An ICMP error of the past, or a family that cannot be: the next read goes on.
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn writable(&mut self, id: ConnectionId) -> Result<(), Error> {
        if let Some(connection) = self.connections.get_mut(&id) {
            if connection.link.flush().is_err() {
                self.close(id);
                return Ok(());
            }
            if !connection.link.has_unsent() {
                connection.is_watched_for_room = false;
                let mut event = EpollEvent::new(READABLE, CONNECTIONS + u64::from(id.0));
                self.epoll.modify(&connection.link, &mut event).map_err(os("epoll_ctl"))?;
                self.hub.writable(connection.viewer);
            }
        }
        Ok(())
    }

    /// `due`: the hub's deadline before this turn; what the turn itself has added is later.
    fn handle_timeouts(&mut self, due: Option<Instant>) -> Result<(), Error> {
        let now = clock::now();
        if due.is_some_and(|due| due <= now) {
            self.hub.handle_timeout(now, clock::wall());
        }
        if self.accept_again.is_some_and(|due| due <= now) {
            self.accept_again = None;
            self.watch_listeners(EpollFlags::EPOLLIN)?;
        }
        while let Some(&(by, id)) = self.handshakes.front() {
            let is_open =
                self.connections.get(&id).is_some_and(|other| other.link.is_handshaking());
            if is_open && by > now {
                break;
            }
            self.handshakes.pop_front();
            if is_open {
                self.close(id);
            }
        }
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.handle_timeout(now);
        }
        Ok(())
    }

    /// Sends and does all that the hub has ready.
    fn perform(&mut self) -> Result<(), Error> {
        self.transmit()?;
        while let Some(action) = self.hub.poll_action() {
            match action {
                Action::WantIdr { stream } => {
                    if let Some(inlet) = self.inlets.get(stream) {
                        inlet.idr_requests.request(clock::now());
                    }
                }
                Action::Abort(id) => self.close(id),
                Action::Close(id) => {
                    if let Some(connection) = self.connections.get_mut(&id)
                        && connection.close_by.is_none()
                    {
                        connection.close_by = Some(clock::now() + LAST_WORDS);
                        self.closing.push(id);
                    }
                }
            }
            self.transmit()?;
        }
        let now = if self.closing.is_empty() { Instant::ZERO } else { clock::now() };
        for id in std::mem::take(&mut self.closing) {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let is_over = connection.close_by.is_some_and(|by| by <= now);
            let is_drained =
                self.hub.is_drained(connection.viewer) && !connection.link.has_unsent();
            if is_over || is_drained {
                connection.link.finish();
                self.close(id);
            } else {
                self.closing.push(id);
            }
        }
        Ok(())
    }

    fn transmit(&mut self) -> Result<(), Error> {
        let mut pending = Pending::new();
        loop {
            let next = self.hub.poll_transmit();
            let is_last = next.is_none();
            if let Some((transmit, target)) = next {
                match (target, &transmit.body) {
                    (Target::Connection(id, channel), body) => {
                        let Some(connection) = self.connections.get_mut(&id) else {
                            self.hub.sent(clock::now(), &transmit, Sent::Failed);
                            continue;
                        };
                        let link = &mut connection.link;
                        let sent = self.sender.stream(link, channel, body, &self.stats);
                        connection.watch_for_room(&self.epoll, id, sent == Sent::WouldBlock)?;
                        self.hub.sent(clock::now(), &transmit, sent);
                    }
                    (Target::Udp { rtcp, from, .. }, Body::Message { bytes, .. }) => {
                        let socket = &self.sockets.rtcp;
                        let sent = self.sender.message(socket, (rtcp, from), bytes, &self.stats);
                        self.hub.sent(clock::now(), &transmit, sent);
                    }
                    (Target::Udp { .. }, _) => {
                        // Sent below when it is full, so there is room.
                        let _ = pending.push((transmit, target));
                    }
                }
            }
            if pending.is_full() || (is_last && !pending.is_empty()) {
                let (hub, stats) = (&mut self.hub, &self.stats);
                self.sender.packets(&self.sockets.rtp, &pending, stats, |transmit, sent| {
                    hub.sent(clock::now(), transmit, sent);
                });
                pending.clear();
            } else if is_last {
                return Ok(());
            }
        }
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            debug!("serve: closed connection={}", id.0);
            // Unread bytes would make the kernel reset the connection and lose our last words.
            let mut rest = [0; READ_LEN];
            let _ = tcp::receive(&connection.link, &mut rest);
            if connection.link.is_handshaking() {
                self.handshakes.retain(|(_, other)| *other != id);
            }
            self.hub.disconnected(clock::now(), clock::wall(), id);
        }
    }

    /// Says goodbye, as far as the sockets take it at once.
    fn end(&mut self) {
        self.hub.end(clock::now(), clock::wall());
        if let Err(error) = self.perform() {
            debug!("{error}");
        }
        for connection in self.connections.values_mut() {
            connection.link.finish();
        }
    }

    fn timeout(&self, due: Option<Instant>) -> EpollTimeout {
        let closing = self.closing.iter().filter_map(|id| self.connections.get(id)?.close_by).min();
        let beat = self.heartbeat.as_ref().and_then(Heartbeat::poll_timeout);
        let handshake = self.handshakes.front().map(|(by, _)| *by);
        let due = [due, self.accept_again, closing, beat, handshake];
        let due = due.into_iter().flatten().min();
        let Some(due) = due else { return EpollTimeout::NONE };
        // A millisecond too late is better than a turn too many.
        let millis = due.since(clock::now()).as_micros().div_ceil(1_000);
        EpollTimeout::try_from(millis.min(60_000)).unwrap_or(EpollTimeout::ZERO)
    }

    fn watch(&self, fd: impl AsFd, token: u64) -> Result<(), Error> {
        self.epoll.add(fd, EpollEvent::new(READABLE, token)).map_err(os("epoll_ctl"))
    }

    fn watch_listeners(&self, flags: EpollFlags) -> Result<(), Error> {
        for (index, listener) in self.sockets.listeners.iter().enumerate() {
            let mut event = EpollEvent::new(flags, LISTENERS + index as u64);
            self.epoll.modify(listener, &mut event).map_err(os("epoll_ctl"))?;
        }
        Ok(())
    }
}

impl Connection {
    /// Has epoll say when there is room in the socket, if something waits for it.
    fn watch_for_room(
        &mut self,
        epoll: &Epoll,
        id: ConnectionId,
        is_blocked: bool,
    ) -> Result<(), Error> {
        if self.is_watched_for_room || !(is_blocked || self.link.has_unsent()) {
            return Ok(());
        }
        self.is_watched_for_room = true;
        let token = CONNECTIONS + u64::from(id.0);
        let mut event = EpollEvent::new(READABLE | EpollFlags::EPOLLOUT, token);
        epoll.modify(&self.link, &mut event).map_err(os("epoll_ctl"))
    }
}

fn os(call: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Os { call, errno }
}

const WAKE: u64 = 0;
const STOP: u64 = 1;
const RTP: u64 = 2;
const RTCP: u64 = 3;
const HANDED_OVER: u64 = 4;
const LISTENERS: u64 = 16;
/// Connection `n` has this token plus `n`.
const CONNECTIONS: u64 = 1 << 32;
const READABLE: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLRDHUP);
const EVENTS_MAX: usize = 64;
/// Several requests, or one that is over every limit.
const READ_LEN: usize = 16 << 10;
/// An RTCP compound is shorter; what is longer is cut, and then malformed.
const DATAGRAM_LEN: usize = 2_048;
/// A flood of datagrams must not keep the loop from the media.
const DATAGRAMS_PER_TURN: usize = 64;
/// From the first byte of TCP to the first of RTSP, for a bad link.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// A flood of handshakes must not keep the loop from the media either.
const HANDSHAKE_STEPS_PER_TURN: usize = 4;
/// For the last reply to a client that is sent away.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Without descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
