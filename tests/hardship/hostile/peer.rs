//! A peer that may do anything: it comes from any address of the loopback network, sends bytes in
//! any cut, and waits for every answer with a deadline.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::camera::credentials;
use crate::capture::{Kind, Message, Splitter};
use crate::digest::{Challenge, Credentials};

/// How bytes are given to the kernel, which sends each piece at once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    Whole,
    /// In pieces of up to some hundred bytes, by this seed.
    Pieces(u32),
    Bytes,
}

/// One TCP connection.
#[derive(Debug)]
pub(super) struct Peer {
    stream: TcpStream,
    splitter: Splitter,
    /// Interleaved frames heard so far.
    pub(super) frames: usize,
    pub(super) session: Option<String>,
}

/// Somebody with an account, and an address of his own, whose requests mean harm.
#[derive(Clone, Debug)]
pub(super) struct Stranger {
    pub(super) from: Ipv4Addr,
    pub(super) rtsp: SocketAddr,
    challenge: Challenge,
}

impl Stranger {
    /// Takes a challenge, which is good for requests from that address for minutes.
    pub(super) fn meet(rtsp: SocketAddr, from: Ipv4Addr) -> Self {
        let mut peer = Peer::connect(rtsp, from);
        let asked = format!("DESCRIBE rtsp://{rtsp}/main RTSP/1.0\r\nCSeq: 1\r\n\r\n");
        assert!(peer.send(asked.as_bytes(), Cut::Whole));
        let reply = peer.reply().expect("who asks without a login is answered");
        assert_eq!(reply.status(), 401);
        let challenge = reply.all("WWW-Authenticate").filter_map(Challenge::parse).last();
        Self { from, rtsp, challenge: challenge.unwrap() }
    }

    /// Somebody without a camera, to see what would be sent.
    pub(super) fn nobody(from: Ipv4Addr) -> Self {
        let challenge = Challenge::parse("Digest realm=\"\", nonce=\"\"").unwrap();
        Self { from, rtsp: SocketAddr::from((from, 1)), challenge }
    }

    pub(super) fn connect(&self) -> Peer {
        Peer::connect(self.rtsp, self.from)
    }

    /// The same with the nonce of somebody else.
    pub(super) fn with_nonce(&self, nonce: &str) -> Self {
        let challenge = Challenge { nonce: nonce.into(), ..self.challenge.clone() };
        Self { challenge, ..self.clone() }
    }

    pub(super) fn nonce(&self) -> &str {
        &self.challenge.nonce
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("rtsp://{}/{path}", self.rtsp)
    }

    /// A request with the right login; `headers` end in CRLF each.
    pub(super) fn request(&self, method: &str, url: &str, headers: &str) -> Vec<u8> {
        self.request_of(&credentials(), method, url, headers)
    }

    /// A request with this login, right or wrong.
    pub(super) fn request_of(
        &self,
        account: &Credentials,
        method: &str,
        url: &str,
        headers: &str,
    ) -> Vec<u8> {
        let answer = self.challenge.answer(account, method, url);
        let head = format!("{method} {url} RTSP/1.0\r\nCSeq: 1\r\nAuthorization: {answer}\r\n");
        format!("{head}{headers}\r\n").into_bytes()
    }
}

impl Peer {
    pub(super) fn connect(to: SocketAddr, from: Ipv4Addr) -> Self {
        Self::try_connect(to, from).unwrap_or_else(|error| panic!("{from} to {to}: {error}"))
    }

    pub(super) fn try_connect(to: SocketAddr, from: Ipv4Addr) -> nix::Result<Self> {
        let SocketAddr::V4(to) = to else { panic!("the tests listen on IPv4") };
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        // It bounds the wait for the handshake as well (socket(7)).
        let limit = TimeVal::new(libc::time_t::try_from(LIMIT.as_secs()).unwrap(), 0);
        setsockopt(&socket, sockopt::SendTimeout, &limit)?;
        bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
        connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Ok(Self { stream, splitter: Splitter::default(), frames: 0, session: None })
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends all of `bytes`; `false` when the camera has hung up meanwhile.
    pub(super) fn send(&mut self, bytes: &[u8], cut: Cut) -> bool {
        let mut random = match cut {
            Cut::Pieces(seed) => Random(seed),
            Cut::Whole | Cut::Bytes => Random(0),
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = match cut {
                Cut::Whole => rest.len(),
                Cut::Bytes => 1,
                // Long inputs in long pieces, or they would take their time.
                Cut::Pieces(_) => 1 + random.below(300.max(bytes.len() / 50)),
            };
            let (piece, after) = rest.split_at(len.min(rest.len()));
            if self.stream.write_all(piece).is_err() {
                return false;
            }
            rest = after;
        }
        true
    }

    /// The next answer; `None` when the camera has hung up.
    pub(super) fn reply(&mut self) -> Option<Message> {
        let asked = Instant::now();
        loop {
            while let Some(item) = self.splitter.next_item() {
                match item {
                    Kind::Response(bytes) => return Some(Message::parse(&bytes).unwrap()),
                    Kind::Interleaved { .. } => self.frames += 1,
                    other => panic!("neither answer nor frame: {other:?}"),
                }
            }
            assert!(asked.elapsed() < LIMIT, "no answer, but {} frames", self.frames);
            let bytes = self.hear()?;
            self.splitter.push(&bytes);
        }
    }

    /// Sends a request with the right login and its session; returns the answer.
    pub(super) fn ask(
        &mut self,
        who: &Stranger,
        method: &str,
        url: &str,
        headers: &str,
    ) -> Message {
        let session = self.session.as_ref().map(|id| format!("Session: {id}\r\n"));
        let headers = format!("{}{headers}", session.unwrap_or_default());
        self.send(&who.request(method, url, &headers), Cut::Whole);
        self.reply().unwrap_or_else(|| panic!("hung up on {method} {url}\n{headers}"))
    }

    /// Sets main up, and keeps the session if there is one.
    pub(super) fn set_up(&mut self, who: &Stranger, transport: &str) -> Message {
        let transport = format!("Transport: {transport}\r\n");
        let reply = self.ask(who, "SETUP", &who.url("main/trackID=0"), &transport);
        if reply.status() == 200 {
            let session = reply.header("Session").unwrap();
            self.session = session.split(';').next().map(str::to_owned);
        }
        reply
    }

    /// Sets main up and plays it.
    pub(super) fn watch(&mut self, who: &Stranger, transport: &str) -> Message {
        let reply = self.set_up(who, transport);
        assert_eq!(reply.status(), 200, "{reply:?}");
        assert_eq!(self.ask(who, "PLAY", &who.url("main/"), "").status(), 200);
        reply
    }

    /// Whether the camera answers the next request, and has said nothing more before.
    pub(super) fn is_listened_to(&mut self) -> bool {
        let is_sent = self.send(b"OPTIONS * RTSP/1.0\r\nCSeq: 77\r\n\r\n", Cut::Whole);
        let reply = is_sent.then(|| self.reply()).flatten();
        reply.is_some_and(|it| it.status() == 200 && it.header("CSeq") == Some("77"))
    }

    /// Reads to the end that the camera makes; what came, and how long it took.
    pub(super) fn read_to_end(&mut self, limit: Duration) -> (Vec<u8>, Duration) {
        let began = Instant::now();
        let mut heard = Vec::new();
        while let Some(bytes) = self.hear_within(limit.saturating_sub(began.elapsed())) {
            heard.extend(bytes);
            assert!(began.elapsed() < limit, "still open after {limit:?}");
        }
        (heard, began.elapsed())
    }

    /// The status of an answer of RTSP or HTTP, if its first line comes in time.
    pub(super) fn status_within(&mut self, limit: Duration) -> Option<u16> {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        let mut bytes = [0; 4_096];
        let len = self.stream.read(&mut bytes).ok()?;
        String::from_utf8_lossy(&bytes[..len]).split(' ').nth(1)?.parse().ok()
    }

    /// Whether the camera has not hung up yet; what it has said is passed over.
    pub(super) fn is_open(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let end = loop {
            match self.stream.read(&mut [0; 4_096]) {
                Ok(1..) => {}
                Ok(_) => break false,
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
            }
        };
        self.stream.set_nonblocking(false).unwrap();
        end
    }

    pub(super) fn say_no_more(&self) {
        // It may be gone already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset.
    pub(super) fn reset(self) {
        let now = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&self.stream, sockopt::Linger, &now).unwrap();
    }

    fn hear(&mut self) -> Option<Vec<u8>> {
        self.hear_within(LIMIT)
    }

    /// The next bytes; `None` at the end, be it a reset.
    fn hear_within(&mut self, limit: Duration) -> Option<Vec<u8>> {
        // Zero would be no limit.
        self.stream.set_read_timeout(Some(limit.max(Duration::from_millis(1)))).unwrap();
        let mut bytes = vec![0; 0x1_0000];
        match self.stream.read(&mut bytes) {
            Ok(len @ 1..) => {
                bytes.truncate(len);
                Some(bytes)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("neither answer nor end within {limit:?}")
            }
            Ok(_) | Err(_) => None,
        }
    }
}

/// A connection whose handshake is left to the kernel.
pub(super) fn begin_to_connect(to: SocketAddr, from: Ipv4Addr) -> OwnedFd {
    let SocketAddr::V4(to) = to else { panic!("the tests listen on IPv4") };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0))).unwrap();
    match connect(socket.as_raw_fd(), &SockaddrIn::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => socket,
        Err(error) => panic!("{from} to {to}: {error}"),
    }
}

/// Two UDP sockets of `from`, an even port and the next.
pub(super) fn udp_pair(from: Ipv4Addr) -> [UdpSocket; 2] {
    let bound = (0..64).find_map(|_| {
        let first = UdpSocket::bind((from, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let second = UdpSocket::bind((from, port ^ 1)).ok()?;
        Some(if port.is_multiple_of(2) { [first, second] } else { [second, first] })
    });
    bound.expect("a free pair of ports")
}

/// The Transport header that asks for packets at these sockets.
pub(super) fn to_ports(pair: &[UdpSocket; 2]) -> String {
    let [rtp, rtcp] = [0, 1].map(|index: usize| pair[index].local_addr().unwrap().port());
    format!("RTP/AVP;unicast;client_port={rtp}-{rtcp}")
}

/// Numbers that are the same in every run (a linear congruential generator).
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u32);

impl Random {
    pub(super) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next()).unwrap() % end
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_be_bytes()[3]).collect()
    }
}

/// How long an answer may take on a loaded machine; a failed login's takes five seconds.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
