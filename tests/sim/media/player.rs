//! A player's host: sockets and a [`Client`] that uses them; it dials again when a call is over.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocellus::time::Instant;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use super::camera::{ADDRESS, RTP_PORT, RTSP_PORT};
use super::client::{Client, GROUP, GROUP_PORT, Habits, Kind, Stage};
use super::stack::Stack;
use super::tap::Note;
use super::truth::{Checked, Truth};
use crate::hub::Random;

pub(crate) struct Player {
    pub(crate) address: Ipv4Addr,
    pub(crate) kind: Kind,
    pub(crate) habits: Habits,
    pub(crate) stack: Stack,
    call: Option<Call>,
    /// When it dials again.
    away_until: Instant,
    /// It reads nothing until then.
    frozen_until: Option<Instant>,
    is_off: bool,
    woken: Option<Instant>,
    orphans: Vec<(SocketHandle, Instant)>,
    tcp_port: u16,
    rtp_port: u16,
    receive_len: usize,
    pub(crate) refusals: u32,
    random: Random,
}

/// One call of the camera: its sockets, and who speaks over them once they are connected.
struct Call {
    tcp: SocketHandle,
    tcp_port: u16,
    /// Of a tunnel, once the way out is open.
    way_in: Option<SocketHandle>,
    /// What HTTP has said so far.
    http: Vec<u8>,
    udp: Option<[SocketHandle; 2]>,
    client: Option<Client>,
    /// What is to be written.
    unsent: Vec<u8>,
    connected_by: Instant,
}

impl Player {
    pub(crate) fn new(now: Instant, number: u8, (kind, habits): (Kind, Habits), seed: u64) -> Self {
        let mut random = Random(seed);
        let address = Ipv4Addr::new(10, 0, 1, number);
        let receive_len = 2_048 << random.below(5);
        let mut player = Self {
            address,
            kind,
            habits,
            stack: Stack::new(now, address, 1_500, random.next()),
            call: None,
            away_until: now + random.up_to(Duration::from_secs(2)),
            frozen_until: None,
            is_off: false,
            woken: None,
            orphans: Vec::new(),
            tcp_port: 40_000,
            rtp_port: 5_000 + 2 * u16::try_from(random.below(1_000)).unwrap(),
            receive_len: usize::try_from(receive_len).unwrap(),
            refusals: 0,
            random,
        };
        player.stack.join(GROUP);
        player
    }

    pub(crate) fn client(&self) -> Option<&Client> {
        self.call.as_ref()?.client.as_ref()
    }

    pub(crate) fn client_mut(&mut self) -> Option<&mut Client> {
        self.call.as_mut()?.client.as_mut()
    }

    /// The address by which the camera counts it.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        let call = self.call.as_ref()?;
        match self.kind {
            Kind::Tcp(_) | Kind::Tunnel => {
                Some(SocketAddr::new(self.address.into(), call.tcp_port))
            }
            Kind::Udp | Kind::Multicast => Some(call.client.as_ref()?.rtp),
        }
    }

    /// Reads nothing until then: a debugger holds it.
    pub(crate) const fn freeze(&mut self, until: Instant) {
        self.frozen_until = Some(until);
    }

    /// The plug is pulled: nothing of it is left but its address.
    pub(crate) fn power_off(&mut self, now: Instant) {
        self.stack = Stack::new(now, self.address, 1_500, self.random.next());
        self.stack.join(GROUP);
        (self.call, self.frozen_until) = (None, None);
        self.orphans.clear();
        self.is_off = true;
        self.tcp_port += 100;
    }

    pub(crate) fn power_on(&mut self, now: Instant) {
        if self.is_off {
            self.is_off = false;
            self.away_until = now + self.random.up_to(Duration::from_secs(1));
        }
    }

    /// Ends the call with a reset.
    pub(crate) fn hang_up(&mut self, now: Instant, away: Duration) {
        self.end(now, away, true);
    }

    /// Something was done to it from outside: it has a turn now.
    pub(crate) const fn wake(&mut self, now: Instant) {
        self.woken = Some(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let app = match (&self.call, self.frozen_until) {
            _ if self.is_off => None,
            (_, Some(until)) => Some(until),
            (None, _) => Some(self.away_until),
            (Some(Call { client: Some(client), .. }), _) => client.poll_timeout(),
            (Some(call), _) => Some(call.connected_by),
        };
        let orphans = self.orphans.iter().map(|&(_, by)| by).min();
        [app, orphans, self.woken, self.stack.poll_timeout()].into_iter().flatten().min()
    }

    /// What has arrived, what is due, and what is to be sent. Adds to `notes` what it agrees on.
    pub(crate) fn turn(
        &mut self,
        now: Instant,
        truth: &Truth,
        notes: &mut Vec<Note>,
    ) -> Checked<()> {
        self.woken = None;
        self.stack.poll(now);
        self.bury(now);
        self.frozen_until = self.frozen_until.filter(|&until| until > now);
        if self.is_off || self.frozen_until.is_some() {
            return Ok(());
        }
        if self.call.is_none() && self.away_until <= now {
            self.dial(now);
        }
        if let Some(mut call) = self.call.take() {
            let result = self.go_on(now, truth, &mut call);
            notes.extend(call.client.iter_mut().flat_map(|client| client.notes.drain(..)));
            let over = call.over(now, &mut self.stack);
            self.call = Some(call);
            result?;
            if let Some(away) = over {
                let resets = self.random.percent(50);
                self.end(now, away, resets);
            }
        }
        self.stack.poll(now);
        Ok(())
    }

    fn dial(&mut self, now: Instant) {
        let tcp = self.connect();
        if self.random.percent(50) {
            self.rtp_port = 5_000 + (self.rtp_port + 2) % 2_000;
        }
        let port = if self.kind == Kind::Multicast { GROUP_PORT } else { self.rtp_port };
        let udp = (!self.kind.is_stream()).then(|| [port, port + 1]);
        let udp = udp.map(|ports| ports.map(|port| self.stack.add_udp(port)));
        self.call = Some(Call {
            tcp,
            tcp_port: self.tcp_port,
            way_in: None,
            http: Vec::new(),
            udp,
            client: None,
            unsent: Vec::new(),
            connected_by: now + Duration::from_secs(4),
        });
    }

    fn connect(&mut self) -> SocketHandle {
        self.tcp_port += 1;
        let tcp = self.stack.add_tcp(self.receive_len, 4_096);
        self.stack.connect(tcp, (ADDRESS, RTSP_PORT), self.tcp_port);
        tcp
    }

    fn go_on(&mut self, now: Instant, truth: &Truth, call: &mut Call) -> Checked<()> {
        if call.client.is_none() {
            self.open(now, call);
        }
        let Some(client) = &mut call.client else { return Ok(()) };
        while self.stack.tcp(call.tcp).can_recv() {
            let read = self
                .stack
                .tcp(call.tcp)
                .recv(|bytes| (bytes.len(), client.receive(now, truth, bytes)));
            read.unwrap_or(Ok(()))?;
        }
        for (index, socket) in call.udp.into_iter().flatten().enumerate() {
            while let Ok((bytes, _)) = self.stack.udp(socket).recv() {
                client.datagram(now, truth, index == 1, bytes)?;
            }
        }
        if client.poll_timeout().is_some_and(|due| due <= now) {
            client.handle_timeout(now, truth);
        }
        let out = std::mem::take(&mut client.out);
        match call.way_in {
            Some(_) => call.unsent.extend(STANDARD.encode(out).into_bytes()),
            None => call.unsent.extend(out),
        }
        for datagram in client.datagrams.drain(..) {
            if let Some([_, rtcp]) = call.udp {
                let _ = self.stack.udp(rtcp).send_slice(&datagram, (ADDRESS, RTP_PORT + 1));
            }
        }
        self.write(call);
        Ok(())
    }

    /// Brings the call to where RTSP begins.
    fn open(&mut self, now: Instant, call: &mut Call) {
        let is_up = |tcp: &tcp::Socket<'_>| tcp.state() == tcp::State::Established;
        if !is_up(self.stack.tcp(call.tcp)) {
            return;
        }
        let mut carrier_port = call.tcp_port;
        if self.kind == Kind::Tunnel {
            let cookie = format!("x-sessioncookie: {}\r\n", call.tcp_port);
            if call.http.is_empty() && call.way_in.is_none() && call.unsent.is_empty() {
                let get = format!("GET /main HTTP/1.0\r\n{cookie}\r\n");
                let _ = self.stack.tcp(call.tcp).send_slice(get.as_bytes());
                call.http.push(b'\n');
            }
            let tcp = self.stack.tcp(call.tcp);
            while tcp.can_recv() && !call.http.ends_with(b"\r\n\r\n") {
                let _ = tcp.recv(|bytes| (1, call.http.extend(&bytes[..1])));
            }
            if call.http.ends_with(b"\r\n\r\n") && call.way_in.is_none() {
                call.way_in = Some(self.connect());
            }
            let Some(way_in) = call.way_in else { return };
            if !is_up(self.stack.tcp(way_in)) {
                return;
            }
            let post = format!("POST /main HTTP/1.0\r\n{cookie}Content-Length: 32767\r\n\r\n");
            call.unsent.extend(post.into_bytes());
            carrier_port = call.tcp_port + 1;
        }
        let carrier = SocketAddr::new(self.address.into(), carrier_port);
        call.client = Some(Client::new(now, (self.kind, self.habits), carrier, self.rtp_port));
    }

    fn write(&mut self, call: &mut Call) {
        let socket = call.way_in.unwrap_or(call.tcp);
        let count = self.stack.tcp(socket).send_slice(&call.unsent).unwrap_or(0);
        call.unsent.drain(..count);
    }

    fn end(&mut self, now: Instant, away: Duration, resets: bool) {
        let Some(call) = self.call.take() else { return };
        self.refusals += call.client.as_ref().map_or(0, |client| client.refusals);
        for socket in [Some(call.tcp), call.way_in].into_iter().flatten() {
            let tcp = self.stack.tcp(socket);
            if resets {
                tcp.abort()
            } else {
                tcp.close()
            }
            self.orphans.push((socket, now + Duration::from_secs(10)));
        }
        call.udp.into_iter().flatten().for_each(|socket| self.stack.remove(socket));
        self.away_until = now + away;
        self.stack.poll(now);
    }

    fn bury(&mut self, now: Instant) {
        let stack = &mut self.stack;
        self.orphans.retain(|&(socket, by)| {
            let tcp = stack.tcp(socket);
            // Nobody reads what still comes.
            while tcp.can_recv() && tcp.recv(|bytes| (bytes.len(), ())).is_ok() {}
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

impl Call {
    /// Whether it is over, and for how long the player stays away.
    fn over(&self, now: Instant, stack: &mut Stack) -> Option<Duration> {
        let soon = Duration::from_millis(500);
        match &self.client {
            Some(client) if let Stage::Over(away) = client.stage => Some(away),
            Some(_) => {
                let mut ways = [Some(self.tcp), self.way_in].into_iter().flatten();
                ways.any(|socket| !stack.tcp(socket).may_recv()).then_some(soon)
            }
            None => (self.connected_by <= now).then_some(soon),
        }
    }
}
