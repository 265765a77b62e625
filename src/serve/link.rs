//! A viewer's TCP connection, in clear or encrypted: bytes in, bytes out, never waiting.
//!
//! RFC 8446 and RFC 5246 (TLS 1.3 and 1.2), by rustls with ring.
//!
//! What a viewer is sent is encrypted when the socket has taken what was encrypted before: at most
//! [`UNSENT_MAX`] bytes and their overhead wait here, in order, and the rest waits in `fanout`,
//! where it can still be dropped.
//!
//! Not implemented: resumption, early data, and certificates of clients. rustls allocates each
//! record that it encrypts: one or two per access unit and viewer, given back once they are sent.
//! Over TLS 1.2, which cannot change its keys here, it ends a connection after 2^24 records of
//! AES-GCM: a viewer comes again after six days.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, ServerConfig, ServerConnection};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::sys::tcp;

/// What encrypted connections are accepted with.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Takes the certificate that is shown to everybody.
    ///
    /// # Errors
    ///
    /// rustls', which it has none for with these settings.
    pub fn new(identity: CertifiedKey) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        // Viewers stay for hours: remembering them would be memory for nothing.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config) })
    }
}

/// One connection.
#[derive(Debug)]
pub(super) enum Link {
    Plain(OwnedFd),
    Encrypted(Box<Encrypted>),
}

#[derive(Debug)]
pub(super) struct Encrypted {
    socket: OwnedFd,
    session: ServerConnection,
}

/// The connection is over: closed by the peer, or what it says is no TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over;

impl Link {
    /// A connection that begins with a handshake.
    pub(super) fn encrypted(socket: OwnedFd, tls: &Tls) -> Result<Self, rustls::Error> {
        let mut session = ServerConnection::new(Arc::clone(&tls.config))?;
        session.set_buffer_limit(Some(UNSENT_MAX));
        Ok(Self::Encrypted(Box::new(Encrypted { socket, session })))
    }

    /// Whether no byte of RTSP can have come yet.
    pub(super) fn is_handshaking(&self) -> bool {
        matches!(self, Self::Encrypted(link) if link.session.is_handshaking())
    }

    /// Whether something waits here for room in the socket.
    pub(super) fn has_unsent(&self) -> bool {
        matches!(self, Self::Encrypted(link) if link.session.wants_write())
    }

    /// Reads once from the socket, and gives what that makes readable to `take`, by way of
    /// `buffer`.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Over> {
        match self {
            Self::Plain(socket) => match tcp::receive(socket, buffer) {
                Ok(0) => return Err(Over),
                Ok(count) => take(buffer.get(..count).unwrap_or_default()),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => return Err(Over),
            },
            Self::Encrypted(link) => return link.receive(buffer, take),
        }
        Ok(())
    }

    /// Takes as much of `bytes` as there is room for.
    ///
    /// # Errors
    ///
    /// EAGAIN when there is no room; anything else means that the connection is lost.
    pub(super) fn transmit(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::Plain(socket) => tcp::transmit(socket, bytes),
            Self::Encrypted(link) => {
                link.flush()?;
                if link.session.wants_write() || link.session.is_handshaking() {
                    return Err(Errno::EAGAIN);
                }
                let bytes = bytes.get(..UNSENT_MAX).unwrap_or(bytes);
                let count = link.session.writer().write(bytes).map_err(|error| errno(&error))?;
                link.flush()?;
                Ok(count)
            }
        }
    }

    /// Sends what waits here, as far as there is room.
    pub(super) fn flush(&mut self) -> Result<(), Errno> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Encrypted(link) => link.flush(),
        }
    }

    /// Says that nothing more will be written; what was written still arrives.
    pub(super) fn finish(&mut self) {
        if let Self::Encrypted(link) = self {
            link.session.send_close_notify();
            // Who has no room for it gets a closed connection without it.
            let _ = link.flush();
        }
        tcp::finish(&*self);
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) => socket.as_fd(),
            Self::Encrypted(link) => link.socket.as_fd(),
        }
    }
}

impl Encrypted {
    fn receive(&mut self, buffer: &mut [u8], mut take: impl FnMut(&[u8])) -> Result<(), Over> {
        match self.session.read_tls(&mut Socket(&self.socket)) {
            Ok(0) => return Err(Over),
            Ok(_) => {}
            Err(error) if is_passing(errno(&error)) => return Ok(()),
            Err(_) => return Err(Over),
        }
        let processed = self.session.process_new_packets();
        // The answer of a handshake, or the alert that says what was wrong with it.
        let flushed = self.flush();
        if processed.is_err() || flushed.is_err() {
            return Err(Over);
        }
        // All of it: the socket does not become readable for what is already here.
        loop {
            match self.session.reader().read(buffer) {
                Ok(0) => return Err(Over),
                Ok(count) => take(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Over),
            }
        }
    }

    fn flush(&mut self) -> Result<(), Errno> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Socket(&self.socket)) {
                Ok(_) => {}
                Err(error) if is_passing(errno(&error)) => break,
                Err(error) => return Err(errno(&error)),
            }
        }
        Ok(())
    }
}

/// The socket as rustls reads and writes it.
struct Socket<'a>(&'a OwnedFd);

impl Read for Socket<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(tcp::receive(self.0, into)?)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(tcp::transmit(self.0, bytes)?)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(tcp::transmit_pieces(self.0, pieces)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Whether there is only nothing to read, or no room, just now.
fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS)
}

/// Bytes that are encrypted ahead of the socket: a picture of 2 Mbit/s, mostly, so that it goes in
/// one call; and all that a viewer who reads nothing can hold here.
pub(super) const UNSENT_MAX: usize = 128 << 10;

#[cfg(test)]
#[allow(clippy::disallowed_types, reason = "the peer is a real client")]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpStream};
    use std::thread;
    use std::time::Duration;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    use super::*;

    type Client = StreamOwned<ClientConnection, TcpStream>;

    /// A link and its peer, neither of whom has said anything yet.
    fn pair() -> (Link, Client) {
        let made = rcgen::generate_simple_self_signed(["cam".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let certificate = made.cert.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = ring::default_provider();
        let identity = CertifiedKey::from_der(vec![certificate], key, &provider).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("cam").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let listener = tcp::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let stream = TcpStream::connect(tcp::local_address(&listener).unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let accepted = tcp::accept(&listener, 1 << 16).unwrap();
        let link = Link::encrypted(accepted.socket, &Tls::new(identity).unwrap()).unwrap();
        (link, StreamOwned::new(session, stream))
    }

    fn wait(link: &Link, flags: PollFlags) {
        let timeout = PollTimeout::from(10_000_u16);
        let ready = poll(&mut [PollFd::new(link.as_fd(), flags)], timeout).unwrap();
        assert_eq!(ready, 1, "nothing happens any more");
    }

    /// Reads until `wanted` bytes have come.
    fn hear(link: &mut Link, wanted: usize) -> Vec<u8> {
        let mut heard = Vec::new();
        while heard.len() < wanted {
            wait(link, PollFlags::POLLIN);
            link.receive(&mut [0; 100], |bytes| heard.extend_from_slice(bytes)).unwrap();
        }
        heard
    }

    fn byte(at: usize) -> u8 {
        u8::try_from(at % 251).unwrap()
    }

    #[test]
    fn what_has_no_room_waits_in_order_and_no_more_than_the_limit() {
        const TOTAL: usize = 6 << 20;
        let (mut link, mut client) = pair();
        assert!(link.is_handshaking());
        assert_eq!(link.transmit(b"too early"), Err(Errno::EAGAIN));
        let (reads, may_read) = std::sync::mpsc::channel();
        let peer = thread::spawn(move || {
            client.write_all(&[7; 5_000]).unwrap();
            may_read.recv().unwrap();
            let mut heard = vec![0; TOTAL];
            client.read_exact(&mut heard).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "close_notify, or this is an error");
            heard
        });
        assert_eq!(hear(&mut link, 5_000), vec![7; 5_000]);
        assert!(!link.is_handshaking());
        let (mut sent, mut blocked) = (0, 0);
        while sent < TOTAL {
            let end = TOTAL.min(sent + 1 + (sent * 7) % 300_000);
            let piece: Vec<u8> = (sent..end).map(byte).collect();
            match link.transmit(&piece) {
                Ok(count) => {
                    assert!((1..=piece.len().min(UNSENT_MAX)).contains(&count));
                    sent += count;
                }
                Err(errno) => {
                    assert_eq!(errno, Errno::EAGAIN);
                    assert!(link.has_unsent());
                    if blocked == 0 {
                        // Nothing more is taken, however often one asks.
                        assert_eq!(link.transmit(b"x"), Err(Errno::EAGAIN));
                        reads.send(()).unwrap();
                    }
                    blocked += 1;
                    wait(&link, PollFlags::POLLOUT);
                    link.flush().unwrap();
                }
            }
        }
        assert!(blocked > 0);
        while link.has_unsent() {
            wait(&link, PollFlags::POLLOUT);
            link.flush().unwrap();
        }
        link.finish();
        let heard = peer.join().unwrap();
        assert!(heard.iter().enumerate().all(|(at, &heard)| heard == byte(at)));
    }

    #[test]
    fn what_is_no_tls_ends_the_link_and_so_does_a_goodbye() {
        let (mut link, client) = pair();
        (&client.sock).write_all(b"OPTIONS * RTSP/1.0\r\n\r\n").unwrap();
        wait(&link, PollFlags::POLLIN);
        assert_eq!(link.receive(&mut [0; 100], |_| panic!("no RTSP")), Err(Over));

        let (mut link, mut client) = pair();
        let peer = thread::spawn(move || {
            client.write_all(b"last words").unwrap();
            client.conn.send_close_notify();
            client.flush().unwrap();
            client
        });
        let mut heard = Vec::new();
        loop {
            wait(&link, PollFlags::POLLIN);
            if link.receive(&mut [0; 100], |bytes| heard.extend_from_slice(bytes)).is_err() {
                break;
            }
        }
        assert_eq!(heard, b"last words");
        drop(peer.join().unwrap());
    }
}
