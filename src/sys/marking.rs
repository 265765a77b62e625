//! Marks packets for the queues of routers, switches and access points: the DSCP of RFC 2474.

use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;

use super::tcp::local_address;

/// Marks all that leaves `socket` from now on; connections that a listener accepts are marked as
/// it is.
///
/// # Units
///
/// `dscp`: below 64; it is the upper six bits of IPv4's TOS and IPv6's traffic class.
///
/// # Errors
///
/// None that a socket of ours has.
pub fn mark(socket: impl AsFd, dscp: u8) -> Result<(), Errno> {
    let class = i32::from(dscp & 0x3f) << 2;
    if local_address(&socket)?.is_ipv6() {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, class)?;
    }
    // On a socket for both families it governs what goes over IPv4.
    set(&socket, libc::IPPROTO_IP, libc::IP_TOS, class)
}

fn set(socket: impl AsFd, level: i32, name: i32, value: i32) -> Result<(), Errno> {
    let len = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `fd` is open for the call, and the pointer and length describe `value`, which the
    // kernel only reads.
    let result = unsafe { libc::setsockopt(fd, level, name, ptr::from_ref(&value).cast(), len) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
#[allow(clippy::disallowed_types, reason = "the peer is a real client")]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::sys::{tcp, udp};

    fn get(socket: impl AsFd, level: i32, name: i32) -> i32 {
        let (mut value, mut len) = (0_i32, libc::socklen_t::try_from(size_of::<i32>()).unwrap());
        let fd = socket.as_fd().as_raw_fd();
        let into = (&raw mut value).cast();
        // SAFETY: `value` and `len` live through the call, and `len` is the length of `value`.
        let result = unsafe { libc::getsockopt(fd, level, name, into, &raw mut len) };
        Errno::result(result).unwrap();
        value
    }

    #[test]
    fn sockets_and_the_connections_of_listeners_are_marked() {
        let socket = udp::bind_any(0).unwrap();
        mark(&socket, 24).unwrap();
        assert_eq!(get(&socket, libc::IPPROTO_IP, libc::IP_TOS), 24 << 2);
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = tcp::listen(address.parse().unwrap()) else { continue };
            mark(&listener, 24).unwrap();
            let to = local_address(&listener).unwrap();
            let _client = TcpStream::connect(to).unwrap();
            let accepted = tcp::accept(&listener, 1 << 16).unwrap();
            if to.is_ipv6() {
                let class = get(&accepted.socket, libc::IPPROTO_IPV6, libc::IPV6_TCLASS);
                assert_eq!(class, 24 << 2, "{address}");
            }
            if !accepted.peer.is_ipv6() || address == "[::]:0" {
                assert_eq!(get(&accepted.socket, libc::IPPROTO_IP, libc::IP_TOS), 24 << 2);
            }
        }
    }
}
