//! The camera: `serve::Hub` as its reactor drives it, over smoltcp's sockets instead of the kernel's.

mod sending;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ocellus::fanout::ViewerId;
use ocellus::ring::{Consumer, IdrRequests};
use ocellus::rtsp::ConnectionId;
use ocellus::serve::{Action, Hub, Settings, Stats};
use ocellus::time::{Instant, NtpTimestamp};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::wire::{IpAddress, IpEndpoint};

use super::planted::{Bug, Planted};
use super::stack::Stack;
use super::truth::Checked;

pub(crate) struct Camera {
    pub(crate) hub: Hub,
    pub(crate) stack: Stack,
    pub(crate) stats: Arc<Stats>,
    units: Consumer,
    requests: Arc<IdrRequests>,
    connections: BTreeMap<ConnectionId, Connection>,
    listeners: Vec<SocketHandle>,
    /// Closed, but what was written to them is still on its way.
    orphans: Vec<(SocketHandle, Instant)>,
    rtp: SocketHandle,
    rtcp: SocketHandle,
    /// Bytes that may wait in a socket.
    send_len: usize,
    /// Until when the kernel lets somebody else run.
    asleep_until: Option<Instant>,
    /// How old a picture may be when its first byte goes to a viewer.
    pub(crate) age_max: Duration,
    planted: Planted,
}

struct Connection {
    socket: SocketHandle,
    viewer: ViewerId,
    close_by: Option<Instant>,
}

impl Camera {
    pub(crate) fn new(
        settings: Settings,
        mut stack: Stack,
        units: Consumer,
        requests: Arc<IdrRequests>,
        send_len: usize,
    ) -> Self {
        let stats = Arc::new(Stats::default());
        let hub = Hub::new(settings, Arc::clone(&stats));
        let (rtp, rtcp) = (stack.add_udp(RTP_PORT), stack.add_udp(RTP_PORT + 1));
        let mut camera = Self {
            hub,
            stack,
            stats,
            units,
            requests,
            connections: BTreeMap::new(),
            listeners: Vec::new(),
            orphans: Vec::new(),
            rtp,
            rtcp,
            send_len,
            asleep_until: None,
            age_max: Duration::MAX,
            planted: Planted::default(),
        };
        (0..BACKLOG).for_each(|_| camera.listen());
        camera
    }

    /// Nothing is done until then.
    pub(crate) const fn sleep(&mut self, until: Instant) {
        self.asleep_until = Some(until);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let stack = self.stack.poll_timeout();
        let hub = self.hub.poll_timeout();
        let closing = self.connections.values().filter_map(|it| it.close_by).min();
        let orphans = self.orphans.iter().map(|&(_, by)| by).min();
        let app = [hub, closing].into_iter().flatten().min();
        let app = match self.asleep_until {
            Some(until) => Some(until),
            None => app,
        };
        [stack, app, orphans, self.planted.poll_timeout()].into_iter().flatten().min()
    }

    /// Plants a bug, to be active from then on.
    pub(crate) const fn plant(&mut self, bug: Bug, from: Instant) {
        self.planted.plant(bug, from);
    }

    /// One turn of the loop: what has arrived, what is due, and what is to be sent.
    pub(crate) fn turn(&mut self, now: Instant, wall: NtpTimestamp) -> Checked<()> {
        self.stack.poll(now);
        self.bury(now);
        if self.asleep_until.is_some_and(|until| until > now) {
            return Ok(());
        }
        self.asleep_until = None;
        while let Some(unit) = self.units.pop() {
            self.hub.publish(now, wall, 0, &unit);
            // The reactor would go on to the next one; it makes no difference to viewers.
        }
        self.accept(now, wall);
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            self.read(now, wall, id);
        }
        self.datagrams(now, wall);
        if self.hub.poll_timeout().is_some_and(|due| due <= now) {
            self.hub.handle_timeout(now, wall);
        }
        self.perform(now, wall)?;
        self.stack.poll(now);
        Ok(())
    }

    fn listen(&mut self) {
        let socket = self.stack.add_tcp(RECEIVE_LEN, self.send_len);
        self.stack.tcp(socket).listen(RTSP_PORT).unwrap();
        self.listeners.push(socket);
    }

    fn accept(&mut self, now: Instant, wall: NtpTimestamp) {
        for socket in std::mem::take(&mut self.listeners) {
            let tcp = self.stack.tcp(socket);
            match tcp.state() {
                tcp::State::Listen | tcp::State::SynReceived => self.listeners.push(socket),
                tcp::State::Closed => {
                    tcp.listen(RTSP_PORT).unwrap();
                    self.listeners.push(socket);
                }
                _ => {
                    let (peer, local) = (tcp.remote_endpoint(), tcp.local_endpoint());
                    self.listen();
                    let (Some(peer), Some(local)) = (peer, local) else { continue };
                    if self.planted.has(now, Bug::TurnsEverybodyAway) {
                        self.let_go(now, socket);
                        continue;
                    }
                    match self.hub.accept(now, wall, std_address(peer), std_address(local)) {
                        Ok((id, viewer)) => {
                            let connection = Connection { socket, viewer, close_by: None };
                            self.connections.insert(id, connection);
                        }
                        Err(_) => self.let_go(now, socket),
                    }
                }
            }
        }
    }

    fn read(&mut self, now: Instant, wall: NtpTimestamp, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (is_open, viewer) = (connection.close_by.is_none(), connection.viewer);
        let tcp = self.stack.tcp(connection.socket);
        if tcp.can_send() && self.hub.is_blocked(viewer) {
            self.hub.writable(viewer);
        }
        while tcp.can_recv() {
            let hub = &mut self.hub;
            let read = tcp.recv(|bytes| {
                if is_open {
                    hub.receive(now, wall, id, bytes);
                }
                (bytes.len(), ())
            });
            if read.is_err() {
                break;
            }
        }
        if !tcp.may_recv() {
            self.close(now, wall, id);
        }
    }

    fn datagrams(&mut self, now: Instant, wall: NtpTimestamp) {
        for socket in [self.rtp, self.rtcp] {
            while let Ok((bytes, from)) = self.stack.udp(socket).recv() {
                self.hub.datagram(now, wall, std_address(from.endpoint), bytes);
            }
        }
        if self.planted.has(now, Bug::KeepsTheDeadAlive) {
            for &rtcp in &self.planted.known {
                self.hub.datagram(now, wall, rtcp, &[0x80, 201, 0, 1, 0, 0, 0, 1]);
            }
        }
    }

    fn perform(&mut self, now: Instant, wall: NtpTimestamp) -> Checked<()> {
        self.transmit(now)?;
        while let Some(action) = self.hub.poll_action() {
            match action {
                Action::WantIdr { .. } => {
                    self.requests.request(self.planted.ask_at(now));
                }
                Action::Abort(id) => self.close(now, wall, id),
                Action::Close(id) => {
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.close_by.get_or_insert(now + LAST_WORDS);
                    }
                }
            }
            self.transmit(now)?;
        }
        let is_over = |hub: &Hub, it: &Connection| {
            it.close_by.is_some_and(|by| by <= now || hub.is_drained(it.viewer))
        };
        let over = self.connections.iter().filter(|(_, it)| is_over(&self.hub, it));
        let over: Vec<ConnectionId> = over.map(|(&id, _)| id).collect();
        for id in over {
            self.close(now, wall, id);
            self.transmit(now)?;
        }
        Ok(())
    }

    fn close(&mut self, now: Instant, wall: NtpTimestamp, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            self.let_go(now, connection.socket);
            self.hub.disconnected(now, wall, id);
        }
    }

    /// As `close` does: the kernel goes on sending what was written.
    fn let_go(&mut self, now: Instant, socket: SocketHandle) {
        self.stack.tcp(socket).close();
        self.orphans.push((socket, now + ORPHANED));
    }

    fn bury(&mut self, now: Instant) {
        let stack = &mut self.stack;
        self.orphans.retain(|&(socket, by)| {
            let tcp = stack.tcp(socket);
            let is_over = matches!(tcp.state(), tcp::State::Closed | tcp::State::TimeWait);
            if by <= now && !is_over {
                tcp.abort();
                stack.poll(now);
            }
            if is_over || by <= now {
                stack.remove(socket);
            }
            !(is_over || by <= now)
        });
    }
}

pub(crate) fn std_address(endpoint: IpEndpoint) -> SocketAddr {
    let IpAddress::Ipv4(address) = endpoint.addr;
    SocketAddr::new(IpAddr::V4(address), endpoint.port)
}

fn smol_address(address: SocketAddr) -> IpEndpoint {
    let IpAddr::V4(v4) = address.ip() else { panic!("there is no IPv6 here") };
    IpEndpoint::new(v4.into(), address.port())
}

pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const RTSP_PORT: u16 = 554;
pub(crate) const RTP_PORT: u16 = 8_000;
/// Connections that may come at once.
const BACKLOG: usize = 6;
const RECEIVE_LEN: usize = 4_096;
/// As the reactor has it.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// As long as TCP_USER_TIMEOUT lets the kernel try.
const ORPHANED: Duration = Duration::from_secs(15);
