//! Speaks RTSP as strictly as the RFC allows and records everything it hears.
//!
//! RFC 2326; RTP and RTCP over the connection (10.12) or over a UDP port pair. Every wait ends at a
//! deadline; nothing sleeps.
//!
//! Not implemented: reordering, jitter buffers, more than one stream. This client only listens.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::capture::{Capture, Event, Kind, Message, Splitter};
use crate::digest::{Algorithm, Challenge, Credentials};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lower {
    Tcp,
    Udp,
}

#[derive(Debug)]
pub(crate) struct Client {
    /// `rtsp://HOST:PORT/PATH` as asked for, without credentials.
    pub(crate) url: String,
    pub(crate) capture: Capture,
    pub(crate) credentials: Credentials,
    pub(crate) algorithm: Algorithm,
    /// Aggregate and stream control URLs, known after DESCRIBE.
    pub(crate) base: String,
    pub(crate) control: String,
    pub(crate) session: Option<String>,
    pub(crate) closed: bool,
    stream: TcpStream,
    started: Instant,
    splitter: Splitter,
    /// RTP and RTCP sockets of a UDP session.
    udp: Option<[UdpSocket; 2]>,
    challenge: Option<Challenge>,
    cseq: u32,
}

impl Client {
    pub(crate) fn connect(url: &str, credentials: &Credentials) -> Self {
        let after_scheme = url.strip_prefix("rtsp://").expect("an rtsp URL");
        let address = after_scheme.split('/').next().unwrap();
        let address: SocketAddr = address.parse().expect("the tests use literal addresses");
        let stream = TcpStream::connect_timeout(&address, LIMIT).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        let started_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self {
            url: url.to_owned(),
            capture: Capture { started: started_at, events: Vec::new() },
            credentials: credentials.clone(),
            algorithm: Algorithm::Md5,
            base: String::new(),
            control: String::new(),
            session: None,
            closed: false,
            stream,
            started: Instant::now(),
            splitter: Splitter::default(),
            udp: None,
            challenge: None,
            cseq: 0,
        }
    }

    /// The TCP connection, for tests that mistreat it.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The RTP and RTCP sockets of a UDP session, for tests that report.
    #[allow(dead_code, reason = "tests/hardship does")]
    pub(crate) fn sockets(&self) -> Option<&[UdpSocket; 2]> {
        self.udp.as_ref()
    }

    /// Sends a request with CSeq, Session and, once challenged, Authorization; returns the reply.
    pub(crate) fn request(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Message {
        let text = self.compose(method, uri, headers);
        self.raw(text.as_bytes())
    }

    /// Writes a request's head, without sending it.
    pub(crate) fn compose(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) -> String {
        let authorization =
            self.challenge.as_ref().map(|c| c.answer(&self.credentials, method, uri));
        self.cseq += 1;
        let mut text = format!("{method} {uri} RTSP/1.0\r\nCSeq: {}\r\n", self.cseq);
        let mut header = |name: &str, value: &str| text += &format!("{name}: {value}\r\n");
        if let Some(value) = &authorization {
            header("Authorization", value);
        }
        let own_session = headers.iter().any(|(name, _)| *name == "Session");
        if let Some(session) = self.session.as_deref().filter(|_| !own_session) {
            header("Session", session);
        }
        header("User-Agent", "ocellus-interop");
        headers.iter().for_each(|(name, value)| header(name, value));
        text + "\r\n"
    }

    /// Like [`Client::request`], answering one 401 with the credentials.
    pub(crate) fn authorized(
        &mut self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
    ) -> Message {
        let reply = self.request(method, uri, headers);
        if reply.status() != 401 {
            return reply;
        }
        let challenges = reply.all("WWW-Authenticate").filter_map(Challenge::parse);
        self.challenge = challenges.filter(|c| c.algorithm == self.algorithm).last();
        assert!(self.challenge.is_some(), "no challenge to answer in {reply:?}");
        self.request(method, uri, headers)
    }

    /// Writes `bytes` as one request and returns the reply.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Message {
        self.record(Kind::Request(bytes.to_vec()));
        let before = self.responses();
        self.stream.write_all(bytes).unwrap();
        let answered = self.listen_until(LIMIT, |client| client.responses() > before);
        let asked = String::from_utf8_lossy(bytes);
        assert!(answered, "no reply within {LIMIT:?} (closed: {}) to\n{asked}", self.closed);
        let mut responses = self.capture.events.iter().filter_map(|event| match &event.kind {
            Kind::Response(bytes) => Some(bytes),
            _ => None,
        });
        Message::parse(responses.next_back().unwrap()).unwrap()
    }

    pub(crate) fn describe(&mut self) -> Message {
        let url = self.url.clone();
        let reply = self.authorized("DESCRIBE", &url, &[("Accept", "application/sdp")]);
        if reply.status() == 200 {
            reply.header("Content-Base").unwrap_or(&url).clone_into(&mut self.base);
            let sdp = String::from_utf8_lossy(&reply.body).into_owned();
            let control =
                sdp.lines().filter_map(|line| line.strip_prefix("a=control:")).next_back();
            self.control = match control {
                Some(absolute) if absolute.starts_with("rtsp://") => absolute.to_owned(),
                relative => format!("{}{}", self.base, relative.unwrap_or("")),
            };
        }
        reply
    }

    /// Sets the stream up; UDP opens an even/odd pair of ports of its own.
    pub(crate) fn setup(&mut self, lower: Lower) -> Message {
        let transport = match lower {
            Lower::Tcp => "RTP/AVP/TCP;unicast;interleaved=0-1".to_owned(),
            Lower::Udp => {
                let pair = udp_pair(self.stream.local_addr().unwrap().ip());
                let [rtp, rtcp] = [0, 1].map(|i: usize| pair[i].local_addr().unwrap().port());
                self.udp = Some(pair);
                format!("RTP/AVP;unicast;client_port={rtp}-{rtcp}")
            }
        };
        let control = self.control.clone();
        let reply = self.authorized("SETUP", &control, &[("Transport", &transport)]);
        if let Some(session) = reply.header("Session").filter(|_| reply.status() == 200) {
            self.session = session.split(';').next().map(str::to_owned);
        }
        reply
    }

    pub(crate) fn play(&mut self) -> Message {
        let base = self.base.clone();
        self.request("PLAY", &base, &[("Range", "npt=0.000-")])
    }

    pub(crate) fn pause(&mut self) -> Message {
        let base = self.base.clone();
        self.request("PAUSE", &base, &[])
    }

    pub(crate) fn teardown(&mut self) -> Message {
        let base = self.base.clone();
        let reply = self.request("TEARDOWN", &base, &[]);
        self.session = None;
        reply
    }

    pub(crate) fn keep_alive(&mut self, method: &str) -> Message {
        let base = self.base.clone();
        self.request(method, &base, &[])
    }

    /// Records whatever comes for `time`.
    pub(crate) fn listen(&mut self, time: Duration) {
        self.listen_until(time, |_| false);
    }

    /// Records until `done` says so; false when `limit` passed or the connection closed first.
    pub(crate) fn listen_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if done(self) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || (self.closed && self.udp.is_none()) {
                return false;
            }
            self.receive(left);
        }
    }

    pub(crate) fn responses(&self) -> usize {
        self.capture.events.iter().filter(|e| matches!(e.kind, Kind::Response(_))).count()
    }

    fn record(&mut self, kind: Kind) {
        self.capture.events.push(Event { at: self.started.elapsed(), kind });
    }

    fn receive(&mut self, limit: Duration) {
        let timeout = PollTimeout::try_from(limit.min(Duration::from_millis(100))).unwrap();
        let mut fds = Vec::new();
        // A closed connection is readable for ever; it is left out so as not to spin.
        if !self.closed {
            fds.push(PollFd::new(self.stream.as_fd(), PollFlags::POLLIN));
        }
        for socket in self.udp.iter().flatten() {
            fds.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        }
        poll(&mut fds, timeout).unwrap();
        if !self.closed && fds[0].any() == Some(true) {
            self.receive_stream();
        }
        // RTCP first: a sender report then stands ahead of media that was sent after it.
        let mut datagrams = Vec::new();
        for socket in self.udp.iter().flatten().rev() {
            let to = socket.local_addr().unwrap().port();
            let mut packet = vec![0; 0x1_0000];
            while let Ok((len, from)) = socket.recv_from(&mut packet) {
                datagrams.push(Kind::Datagram { to, from, packet: packet[..len].to_vec() });
            }
        }
        datagrams.into_iter().for_each(|datagram| self.record(datagram));
    }

    fn receive_stream(&mut self) {
        let mut bytes = vec![0; 0x1_0000];
        match self.stream.read(&mut bytes) {
            Ok(len) if len > 0 => {
                self.splitter.push(&bytes[..len]);
                while let Some(item) = self.splitter.next_item() {
                    self.record(item);
                }
            }
            _ => {
                self.closed = true;
                self.record(Kind::Closed);
            }
        }
    }
}

/// Binds an even port of `address` and the odd one above it (RFC 3550 11).
fn udp_pair(address: IpAddr) -> [UdpSocket; 2] {
    let bound = (0..64).find_map(|_| {
        let first = UdpSocket::bind((address, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let second = UdpSocket::bind((address, port ^ 1)).ok()?;
        Some(if port.is_multiple_of(2) { [first, second] } else { [second, first] })
    });
    let pair = bound.expect("a free pair of ports");
    for socket in &pair {
        socket.set_nonblocking(true).unwrap();
        nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBuf, &(1 << 20))
            .unwrap();
    }
    pair
}

/// How long a reply may take: DESCRIBE may wait 2 s, a failed login 5 s.
const LIMIT: Duration = Duration::from_secs(10);
