//! One viewer's RTSP dialogue: everything up to PLAY, over a blocking connection.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Tcp { "TCP" } else { "UDP" })
    }
}

/// What a viewer has to do to be sent pictures.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dialogue {
    Rtsp,
    /// The floor's: two bytes, the port of a UDP viewer or 0.
    Port,
}

/// A viewer that has only to send its last request.
pub(crate) struct Session {
    pub(crate) connection: TcpStream,
    /// The ports for RTP and RTCP of a UDP viewer.
    pub(crate) ports: Option<(UdpSocket, UdpSocket)>,
    /// What starts the pictures: PLAY, or the floor's two bytes.
    pub(crate) last_request: Vec<u8>,
}

impl Session {
    pub(crate) fn open(server: SocketAddr, transport: Transport, dialogue: Dialogue) -> Self {
        Self::open_path(server, transport, dialogue, "main")
    }

    /// The same, of another stream than main.
    pub(crate) fn open_path(
        server: SocketAddr,
        transport: Transport,
        dialogue: Dialogue,
        path: &str,
    ) -> Self {
        let connection = TcpStream::connect(server).unwrap();
        connection.set_nodelay(true).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let ports = (transport == Transport::Udp).then(port_pair);
        let port = ports.as_ref().map_or(0, |(rtp, _)| rtp.local_addr().unwrap().port());
        let mut session = Self { connection, ports, last_request: port.to_be_bytes().to_vec() };
        if let Dialogue::Rtsp = dialogue {
            session.set_up(&format!("rtsp://{server}/{path}"), port);
        }
        session
    }

    fn set_up(&mut self, url: &str, port: u16) {
        let wanted = match port {
            0 => "RTP/AVP/TCP;unicast;interleaved=0-1".to_owned(),
            _ => format!("RTP/AVP;unicast;client_port={port}-{}", port + 1),
        };
        let description = self.ask(&format!("DESCRIBE {url}"), "Accept: application/sdp\r\n");
        // The media section's own control URL is the last one.
        let control = description.lines().rfind(|line| line.starts_with("a=control:")).unwrap();
        let control = control.trim_start_matches("a=control:");
        let track = match control.starts_with("rtsp://") {
            true => control.to_owned(),
            false => format!("{url}/{control}"),
        };
        let reply = self.ask(&format!("SETUP {track}"), &format!("Transport: {wanted}\r\n"));
        let session = reply.lines().find_map(|line| line.strip_prefix("Session: ")).unwrap();
        let session = session.split(';').next().unwrap();
        let play = format!("PLAY {url}/ RTSP/1.0\r\nCSeq: 9\r\nSession: {session}\r\n\r\n");
        self.last_request = play.into_bytes();
    }

    /// Sends a request and returns its reply with its body.
    fn ask(&mut self, request: &str, headers: &str) -> String {
        let text = format!("{request} RTSP/1.0\r\nCSeq: 1\r\n{headers}\r\n");
        self.connection.write_all(text.as_bytes()).unwrap();
        let mut reply = Vec::new();
        let mut piece = [0; 4_096];
        loop {
            let count = self.connection.read(&mut piece).unwrap();
            assert!(count > 0, "the server hung up on {request}");
            reply.extend(&piece[..count]);
            let text = String::from_utf8_lossy(&reply);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                assert!(head.starts_with("RTSP/1.0 200"), "{request}: {head}");
                let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                if body.len() >= len.map_or(0, |len| len.trim().parse().unwrap()) {
                    return text.into_owned();
                }
            }
        }
    }
}

/// An even port and the next one.
fn port_pair() -> (UdpSocket, UdpSocket) {
    loop {
        let rtp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = rtp.local_addr().unwrap().port();
        if port.is_multiple_of(2)
            && let Ok(rtcp) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port + 1))
        {
            return (rtp, rtcp);
        }
    }
}
