//! Viewers that play and drain, and one that times its first picture.

use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Tcp { "TCP" } else { "UDP" })
    }
}

/// One RTSP session that has sent PLAY.
struct Session {
    connection: TcpStream,
    datagrams: Option<UdpSocket>,
    /// The port for RTCP, open so that nothing bounces.
    _reports: Option<UdpSocket>,
}

impl Session {
    /// Everything up to PLAY, whose reply is left unread.
    fn play(address: SocketAddr, transport: Transport) -> Self {
        let mut connection = TcpStream::connect(address).unwrap();
        connection.set_nodelay(true).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (datagrams, reports) = match transport {
            Transport::Tcp => (None, None),
            Transport::Udp => {
                let (rtp, rtcp) = port_pair();
                (Some(rtp), Some(rtcp))
            }
        };
        let wanted = match &datagrams {
            None => "RTP/AVP/TCP;unicast;interleaved=0-1".to_owned(),
            Some(rtp) => {
                let port = rtp.local_addr().unwrap().port();
                format!("RTP/AVP;unicast;client_port={port}-{}", port + 1)
            }
        };
        let url = format!("rtsp://{address}/main");
        let _ = ask(&mut connection, &format!("DESCRIBE {url}"), "");
        let head = format!("Transport: {wanted}\r\n");
        let session = ask(&mut connection, &format!("SETUP {url}/trackID=0"), &head);
        let head = format!("Session: {session}\r\n");
        write!(connection, "PLAY {url}/ RTSP/1.0\r\nCSeq: 9\r\n{head}\r\n").unwrap();
        Self { connection, datagrams, _reports: reports }
    }
}

/// Sends a request, reads its reply with its body, and returns the session's id, if there is one.
fn ask(connection: &mut TcpStream, request: &str, headers: &str) -> String {
    write!(connection, "{request} RTSP/1.0\r\nCSeq: 1\r\n{headers}\r\n").unwrap();
    let head = read_head(connection);
    assert!(head.starts_with("RTSP/1.0 200"), "{head}");
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let len = value("Content-Length: ").map_or(0, |len| len.parse().unwrap());
    connection.read_exact(&mut vec![0; len]).unwrap();
    value("Session: ").unwrap_or_default().to_owned()
}

fn read_head(connection: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

fn port_pair() -> (UdpSocket, UdpSocket) {
    loop {
        let rtp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = rtp.local_addr().unwrap().port();
        if port.is_multiple_of(2)
            && let Ok(rtcp) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port + 1))
        {
            rtp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            return (rtp, rtcp);
        }
    }
}

/// Time from PLAY sent to the first packet of an IDR slice.
pub(crate) fn join(address: SocketAddr, transport: Transport) -> Duration {
    let mut session = Session::play(address, transport);
    let sent = Instant::now();
    let mut packet = [0; 2_048];
    if let Some(datagrams) = &session.datagrams {
        loop {
            let len = datagrams.recv(&mut packet).unwrap();
            if is_idr(&packet[..len]) {
                return sent.elapsed();
            }
        }
    }
    let head = read_head(&mut session.connection);
    assert!(head.starts_with("RTSP/1.0 200"), "{head}");
    loop {
        let mut prefix = [0; 4];
        session.connection.read_exact(&mut prefix).unwrap();
        assert_eq!(prefix[0], b'$');
        let len = usize::from(u16::from_be_bytes([prefix[2], prefix[3]]));
        session.connection.read_exact(&mut packet[..len]).unwrap();
        if prefix[1] == 0 && is_idr(&packet[..len]) {
            return sent.elapsed();
        }
    }
}

/// Whether an RTP packet holds an IDR slice, or the first part of one.
fn is_idr(packet: &[u8]) -> bool {
    match packet.get(12..14) {
        Some([first, second]) => match first & 0x1f {
            28 => second & 0x9f == 0x85,
            kind => kind == 5,
        },
        _ => false,
    }
}

/// Viewers in one thread that drain what arrives.
pub(crate) struct Viewers {
    is_over: Arc<AtomicBool>,
    drain: JoinHandle<u64>,
}

impl Viewers {
    pub(crate) fn start(address: SocketAddr, transport: Transport, count: usize) -> Self {
        let mut sessions: Vec<Session> =
            (0..count).map(|_| Session::play(address, transport)).collect();
        for session in &mut sessions {
            session.connection.set_nonblocking(true).unwrap();
            if let Some(datagrams) = &session.datagrams {
                datagrams.set_nonblocking(true).unwrap();
            }
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let drain = thread::spawn(move || {
            let mut bytes = vec![0; 1 << 18];
            let mut received = 0;
            while !over.load(Ordering::Relaxed) {
                for session in &mut sessions {
                    received += read(|bytes| session.connection.read(bytes), &mut bytes);
                    if let Some(datagrams) = &session.datagrams {
                        received += read(|bytes| datagrams.recv(bytes), &mut bytes);
                    }
                }
                // Often enough for every buffer, seldom enough to leave the core to the camera.
                thread::sleep(Duration::from_millis(5));
            }
            received
        });
        Self { is_over, drain }
    }

    /// Ends the viewers; the bytes that they received.
    pub(crate) fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.drain.join().unwrap()
    }
}

/// Reads until nothing is left.
fn read(mut from: impl FnMut(&mut [u8]) -> std::io::Result<usize>, bytes: &mut [u8]) -> u64 {
    let mut received = 0;
    loop {
        match from(bytes) {
            Ok(0) => return received,
            Ok(len) => received += len as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return received,
            Err(error) => panic!("the camera closed a viewer: {error}"),
        }
    }
}
