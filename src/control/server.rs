//! Accepts connections, within limits, and gives each to HTTP or to `serve`.
//!
//! RFC 9112. Every connection ends: without a whole head in [`HEAD_DEADLINE`], without a request
//! for as long, and in any case after [`LIFETIME`].

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use log::{debug, warn};
use nix::errno::Errno;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::Doors;
use super::login::Peer;
use super::opening::{MAX_HEAD_LEN, Opening};
use super::pages::{self, Site};
use crate::sys::{ByteStream, Wake, tcp};

/// Serves for as long as the process lives.
///
/// # Errors
///
/// When the process has no descriptors left for a runtime.
pub(super) fn run(site: &Arc<Site>, doors: &Doors) -> io::Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // What is too long for the loop is done beside it, by one at a time.
        .max_blocking_threads(1)
        .thread_name(super::THREAD)
        .build()?;
    runtime.block_on(accept(pages::router(Arc::clone(site)), doors))
}

async fn accept(router: Router, doors: &Doors) -> io::Result<Infallible> {
    let listener = |fd: &OwnedFd| TcpListener::from_std(fd.try_clone()?.into());
    let listeners = doors.listeners.iter().map(listener).collect::<io::Result<Vec<_>>>()?;
    let guests = Arc::new(Guests::default());
    let mut is_out_of_descriptors = false;
    loop {
        let next = |context: &mut Context<'_>| {
            let accepted = listeners.iter().map(|it| it.poll_accept(context)).find(Poll::is_ready);
            accepted.unwrap_or(Poll::Pending)
        };
        match poll_fn(next).await {
            Ok((stream, _)) => {
                is_out_of_descriptors = false;
                // The peer may be gone already.
                let Ok(way) = tcp::prepare(&stream, doors.send_buffer_len) else { continue };
                let Some(guest) = Guest::admit(&guests, way.0) else {
                    debug!("control: connection refused peer={}", way.0);
                    continue;
                };
                let door = Door { tunnels: doors.tunnels.clone(), wake: Arc::clone(&doors.wake) };
                tokio::spawn(converse(stream, way, guest, router.clone(), door));
            }
            Err(error) if error.raw_os_error() == Some(Errno::ECONNABORTED as i32) => {}
            Err(error) => {
                if !is_out_of_descriptors {
                    warn!("control: no new connections error=\"{error}\"");
                }
                is_out_of_descriptors = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The way to `serve`.
struct Door {
    tunnels: std::sync::mpsc::SyncSender<ByteStream>,
    wake: Arc<Wake>,
}

async fn converse(
    stream: TcpStream,
    (peer, local): (SocketAddr, SocketAddr),
    guest: Guest,
    router: Router,
    door: Door,
) {
    match timeout(HEAD_DEADLINE, opening(&stream)).await {
        Ok(Ok(Opening::Http)) => http(stream, peer, router).await,
        Ok(Ok(Opening::Tunnel)) => {
            let Ok(stream) = stream.into_std() else { return };
            drop(guest);
            door.hand_over(ByteStream { socket: stream.into(), peer, local });
        }
        Ok(Err(_)) | Err(_) => debug!("control: no request peer={peer}"),
    }
}

impl Door {
    fn hand_over(&self, stream: ByteStream) {
        let peer = stream.peer;
        match self.tunnels.try_send(stream) {
            Ok(()) => self.wake.wake(),
            Err(_) => debug!("control: too many tunnels at once, one is closed peer={peer}"),
        }
    }
}

/// Looks at the first bytes of a connection, and leaves them there.
async fn opening(stream: &TcpStream) -> io::Result<Opening> {
    let mut head = vec![0; MAX_HEAD_LEN];
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let len = stream.peek(&mut head).await?;
        if let Some(opening) = Opening::of(head.get(..len).unwrap_or_default()) {
            return Ok(opening);
        }
        if ready.is_read_closed() || len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // What is there stays there: only what comes is to wake this task.
        let seen = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = stream.try_io(Interest::READABLE, seen);
    }
}

async fn http(stream: TcpStream, peer: SocketAddr, router: Router) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip().to_canonical()));
        TowerToHyperService::new(router.clone()).call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_LEN)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    if timeout(LIFETIME, connection.as_mut()).await.is_err() {
        // An answer on its way may still arrive.
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_WORDS, connection).await;
    }
}

/// How many connections there are from which address.
#[derive(Debug, Default)]
struct Guests(Mutex<HashMap<IpAddr, usize>>);

/// A connection, for as long as it counts.
#[derive(Debug)]
struct Guest {
    address: IpAddr,
    guests: Arc<Guests>,
}

impl Guest {
    fn admit(guests: &Arc<Guests>, peer: SocketAddr) -> Option<Self> {
        let address = peer.ip().to_canonical();
        let mut counts = guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.get(&address).copied().unwrap_or(0);
        let all: usize = counts.values().sum();
        if own >= MAX_PER_ADDRESS || all >= MAX_CONNECTIONS {
            return None;
        }
        counts.insert(address, own + 1);
        Some(Self { address, guests: Arc::clone(guests) })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// Of these from one address: a browser opens six.
const MAX_PER_ADDRESS: usize = 8;
/// As RTSP's.
const MAX_HEADERS: usize = 64;
/// From the first byte to the last of a head, and from one request to the next.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// However busy it is.
const LIFETIME: Duration = Duration::from_secs(60);
/// For an answer that is on its way when time is up.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Without descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: usize) -> SocketAddr {
        let [.., third, fourth] = n.to_be_bytes();
        SocketAddr::from(([192, 0, third, fourth], 5_000))
    }

    #[test]
    fn one_address_has_no_more_than_its_share_and_all_no_more_than_there_is() {
        let guests = Arc::new(Guests::default());
        let mut inside: Vec<Guest> =
            (0..MAX_PER_ADDRESS).map(|_| Guest::admit(&guests, peer(0)).unwrap()).collect();
        assert!(Guest::admit(&guests, peer(0)).is_none());
        let mapped = "[::ffff:192.0.0.0]:9".parse().unwrap();
        assert!(Guest::admit(&guests, mapped).is_none());
        while let Some(guest) = Guest::admit(&guests, peer(inside.len())) {
            inside.push(guest);
        }
        assert_eq!(inside.len(), MAX_CONNECTIONS);
        inside.clear();
        assert!(guests.0.lock().unwrap().is_empty());
        assert!(Guest::admit(&guests, peer(0)).is_some());
    }
}
