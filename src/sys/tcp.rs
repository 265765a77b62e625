//! TCP sockets of the server: never blocking, never left to a child.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, Shutdown, SockFlag, SockProtocol, SockType, SockaddrStorage,
    accept4, bind, getpeername, getsockname, listen as listen_on, recv, send, sendmsg, setsockopt,
    shutdown, socket, sockopt,
};

/// Listens on `address`. The wildcard of IPv6 takes IPv4 as well, and stands for IPv4's alone on
/// a kernel without IPv6.
///
/// # Errors
///
/// EADDRINUSE, EADDRNOTAVAIL, EACCES: the configuration's fault.
pub fn listen(address: SocketAddr) -> Result<OwnedFd, Errno> {
    match listen_exactly(address) {
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)
            if address.is_ipv6() && address.ip().is_unspecified() =>
        {
            let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, address.port());
            listen_exactly(SocketAddr::V4(any))
        }
        other => other,
    }
}

fn listen_exactly(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
    setsockopt(&listener, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&listener, sockopt::Ipv6V6Only, &false)?;
    }
    // What it accepts inherits them. A peer that is gone without a word is found by what is not
    // acknowledged, or by these probes when there is nothing to say.
    setsockopt(&listener, sockopt::TcpKeepIdle, &KEEP_IDLE_S)?;
    setsockopt(&listener, sockopt::TcpKeepInterval, &KEEP_INTERVAL_S)?;
    bind(listener.as_raw_fd(), &SockaddrStorage::from(address))?;
    // As many may wait as the kernel lets (net.core.somaxconn, 4,096): with fewer, a flood fills the
    // queue in the second that a busy processor may take, and whose handshake is dropped tries again
    // a second later. SOMAXCONN is 128 in musl.
    listen_on(&listener, Backlog::MAXALLOWABLE)?;
    Ok(listener)
}

/// One connection that has been accepted: what RTSP is spoken over.
#[derive(Debug)]
pub struct ByteStream {
    pub socket: OwnedFd,
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

/// Takes the next connection.
///
/// # Errors
///
/// EAGAIN when there is none; EMFILE and ENFILE when there is no descriptor for it.
pub fn accept(listener: impl AsFd, send_buffer_len: usize) -> Result<ByteStream, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = accept4(listener.as_fd().as_raw_fd(), flags)?;
    // SAFETY: accept4 has just returned this descriptor, so it is open and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let (peer, local) = prepare(&socket, send_buffer_len)?;
    Ok(ByteStream { socket, peer, local })
}

/// Makes a connection that was accepted elsewhere like one of [`accept`]'s; whose and to where.
///
/// # Errors
///
/// ENOTCONN when the peer is gone already.
pub fn prepare(
    socket: impl AsFd,
    send_buffer_len: usize,
) -> Result<(SocketAddr, SocketAddr), Errno> {
    let fd = socket.as_fd().as_raw_fd();
    // Without it the tail of a picture waits for the acknowledgement of its beginning.
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    setsockopt(&socket, sockopt::KeepAlive, &true)?;
    let timeout = u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    setsockopt(&socket, sockopt::TcpUserTimeout, &timeout)?;
    // The kernel keeps twice what is asked for, half of it for its own book-keeping.
    setsockopt(&socket, sockopt::SndBuf, &send_buffer_len)?;
    let peer = std_address(&getpeername::<SockaddrStorage>(fd)?).ok_or(Errno::EAFNOSUPPORT)?;
    let local = std_address(&getsockname::<SockaddrStorage>(fd)?).ok_or(Errno::EAFNOSUPPORT)?;
    Ok((peer, local))
}

/// The address that a socket is bound to.
///
/// # Errors
///
/// EBADF and the like: never for a socket of ours.
pub fn local_address(socket: impl AsFd) -> Result<SocketAddr, Errno> {
    let address = getsockname::<SockaddrStorage>(socket.as_fd().as_raw_fd())?;
    std_address(&address).ok_or(Errno::EAFNOSUPPORT)
}

/// Reads what has arrived; `Ok(0)` is the end of the stream.
///
/// # Errors
///
/// EAGAIN when nothing has arrived; anything else means that the connection is lost.
pub fn receive(connection: impl AsFd, into: &mut [u8]) -> Result<usize, Errno> {
    recv(connection.as_fd().as_raw_fd(), into, MsgFlags::MSG_DONTWAIT)
}

/// Writes as much as there is room for.
///
/// # Errors
///
/// EAGAIN when there is no room; anything else means that the connection is lost.
pub fn transmit(connection: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(connection.as_fd().as_raw_fd(), bytes, flags)
}

/// Writes as much of these pieces, one after the other, as there is room for.
///
/// # Errors
///
/// As [`transmit`].
pub fn transmit_pieces(connection: impl AsFd, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(connection.as_fd().as_raw_fd(), pieces, &[], flags, None)
}

/// Says that nothing more will be written; what was written still arrives.
pub fn finish(connection: impl AsFd) {
    let _ = shutdown(connection.as_fd().as_raw_fd(), Shutdown::Write);
}

/// The standard library's form, with IPv4 addresses that came in over IPv6 as what they are.
#[must_use]
pub fn std_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let address = if let Some(v4) = address.as_sockaddr_in() {
        SocketAddr::V4(SocketAddrV4::new(v4.ip(), v4.port()))
    } else {
        let v6 = address.as_sockaddr_in6()?;
        SocketAddr::V6(SocketAddrV6::new(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id()))
    };
    Some(match address {
        SocketAddr::V6(v6) => v6
            .ip()
            .to_ipv4_mapped()
            .map_or(address, |v4| SocketAddr::V4(SocketAddrV4::new(v4, v6.port()))),
        v4 => v4,
    })
}

/// Data that is not acknowledged for so long: the peer is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// Silence before the first probe, and between two. With [`USER_TIMEOUT`], the second one ends it.
const KEEP_IDLE_S: u32 = 15;
const KEEP_INTERVAL_S: u32 = 5;
