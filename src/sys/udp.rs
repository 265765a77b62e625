//! UDP sockets of the server: many packets to many viewers in one call.
//!
//! Linux udp(7): `UDP_SEGMENT` lets one message carry a run of equal-sized packets.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::{fmt, mem, ptr};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, SockaddrStorage, bind,
    recvfrom, recvmsg, setsockopt, socket, sockopt,
};

use super::tcp::std_address;

/// Binds a UDP port on all addresses: of IPv6 and IPv4, or IPv4 alone without IPv6.
///
/// # Errors
///
/// EADDRINUSE when somebody has the port.
pub fn bind_any(port: u16) -> Result<Socket, Errno> {
    let v6 = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    match bind_exactly(SocketAddr::V6(v6)) {
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => {
            bind_exactly(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))
        }
        other => other,
    }
}

fn bind_exactly(address: SocketAddr) -> Result<Socket, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Datagram, flags, SockProtocol::Udp)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
        setsockopt(&fd, sockopt::Ipv6RecvErr, &true)?;
        set_int(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IP_PMTUDISC_WANT)?;
    }
    // On a socket for both families IPv4's options govern what is sent to mapped addresses.
    setsockopt(&fd, sockopt::Ipv4RecvErr, &true)?;
    set_int(fd.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT)?;
    setsockopt(&fd, sockopt::SndBuf, &SEND_BUFFER_LEN)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(Socket { fd, is_ipv6: address.is_ipv6() })
}

fn set_int(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> Result<(), Errno> {
    let len = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
    // SAFETY: `fd` is open for the call, and the pointer and length describe `value`, which the
    // kernel only reads.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, ptr::from_ref(&value).cast(), len) };
    Errno::result(result).map(drop)
}

/// A bound UDP socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    is_ipv6: bool,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Reads one datagram.
    ///
    /// # Errors
    ///
    /// EAGAIN when there is none.
    pub fn receive(&self, into: &mut [u8]) -> Result<(usize, Option<SocketAddr>), Errno> {
        let (len, from) = recvfrom::<SockaddrStorage>(self.fd.as_raw_fd(), into)?;
        Ok((len, from.as_ref().and_then(std_address)))
    }

    /// Reads one ICMP error: the address that could not be reached.
    ///
    /// # Errors
    ///
    /// EAGAIN when there is none.
    pub fn receive_error(&self) -> Result<Option<SocketAddr>, Errno> {
        let mut bytes = [0; 64];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrStorage>(self.fd.as_raw_fd(), &mut parts, None, flags)?;
        Ok(message.address.as_ref().and_then(std_address))
    }

    fn name(&self, to: SocketAddr) -> SockaddrStorage {
        match to {
            SocketAddr::V4(v4) if self.is_ipv6 => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            other => other.into(),
        }
    }
}

/// Packets for one receiver: equal in length, the last one perhaps shorter.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub to: SocketAddr,
    /// From the first byte of the first packet to the last byte of the last one.
    pub bytes: &'a [u8],
    /// Length of each packet but the last.
    pub packet_len: usize,
    /// Bytes between two packets, which are not sent.
    pub gap_len: usize,
}

/// Room for the messages of one call, used again and again.
pub struct Batch {
    messages: Vec<libc::mmsghdr>,
    names: Vec<SockaddrStorage>,
    parts: Vec<libc::iovec>,
    controls: Vec<SegmentControl>,
}

/// A control message that carries the segment length.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct SegmentControl([u8; CONTROL_LEN]);

// SAFETY: the raw pointers in here are written anew by every `send`, from borrows that live
// through it; between calls nobody reads them.
unsafe impl Send for Batch {}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("capacity", &self.messages.capacity()).finish()
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            messages: Vec::with_capacity(RUNS_MAX),
            names: Vec::with_capacity(RUNS_MAX),
            parts: Vec::with_capacity(RUNS_MAX * 8),
            controls: Vec::with_capacity(RUNS_MAX),
        }
    }
}

impl Batch {
    /// Sends `runs` in order, in one call, and returns how many were sent.
    ///
    /// # Errors
    ///
    /// When the first one could not be: EAGAIN for want of room; EINVAL or EIO when the way to the
    /// receiver cannot segment; what an earlier ICMP error left behind; or a fault of the route.
    pub fn send(&mut self, socket: &Socket, runs: &[Run<'_>]) -> Result<usize, Errno> {
        let runs = runs.get(..RUNS_MAX).unwrap_or(runs);
        self.messages.clear();
        self.names.clear();
        self.parts.clear();
        self.controls.clear();
        for run in runs {
            self.names.push(socket.name(run.to));
            self.controls.push(segment_control(run.packet_len));
            self.parts.extend(run.bytes.chunks(run.packet_len + run.gap_len).map(|chunk| {
                let len = chunk.len().min(run.packet_len);
                libc::iovec { iov_base: chunk.as_ptr().cast_mut().cast(), iov_len: len }
            }));
        }
        // Only now, because the pointers must not see the vectors grow.
        let mut next_part = 0;
        for (index, run) in runs.iter().enumerate() {
            let part_count = run.bytes.len().div_ceil(run.packet_len + run.gap_len);
            // SAFETY: all zeros is a valid `mmsghdr`.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            let header = &mut message.msg_hdr;
            let name = &self.names[index];
            header.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_namelen = name.len();
            header.msg_iov = self.parts[next_part..].as_mut_ptr();
            header.msg_iovlen = part_count as _;
            if part_count > 1 {
                header.msg_control = self.controls[index].0.as_mut_ptr().cast();
                header.msg_controllen = CONTROL_LEN as _;
            }
            self.messages.push(message);
            next_part += part_count;
        }
        let count = u32::try_from(self.messages.len()).unwrap_or(0);
        // SAFETY: the descriptor is open; `messages` holds `count` headers, whose pointers lead
        // into `names`, `parts` and `controls` (none has grown since) and into `runs`' borrowed
        // bytes; sendmmsg writes nothing but `msg_len`.
        let sent = unsafe {
            libc::sendmmsg(
                socket.fd.as_raw_fd(),
                self.messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
            )
        };
        let sent = Errno::result(sent)?;
        Ok(usize::try_from(sent).unwrap_or(0))
    }
}

/// `cmsghdr { len, SOL_UDP, UDP_SEGMENT }` followed by the length as `u16`.
fn segment_control(packet_len: usize) -> SegmentControl {
    let mut control = SegmentControl([0; CONTROL_LEN]);
    let segment = u16::try_from(packet_len).unwrap_or(u16::MAX);
    // SAFETY: CMSG_LEN only computes.
    let len = unsafe { libc::CMSG_LEN(2) };
    let header = control.0.as_mut_ptr().cast::<libc::cmsghdr>();
    // SAFETY: `control` is aligned for a `cmsghdr` and CONTROL_LEN bytes long, which CMSG_SPACE
    // says is room for the header and two bytes of data; all zeros is a valid `cmsghdr`.
    let header = unsafe { &mut *header };
    header.cmsg_len = len as _;
    header.cmsg_level = libc::SOL_UDP;
    header.cmsg_type = libc::UDP_SEGMENT;
    let data = size_of::<libc::cmsghdr>();
    control.0[data..data + 2].copy_from_slice(&segment.to_ne_bytes());
    control
}

/// `CMSG_SPACE(sizeof(u16))`.
const CONTROL_LEN: usize = size_of::<libc::cmsghdr>() + size_of::<usize>();
const _: () = assert!(CONTROL_LEN == if cfg!(target_pointer_width = "64") { 24 } else { 16 });
/// Runs in one call: 64 viewers on one machine is the default's limit.
pub const RUNS_MAX: usize = 64;
/// A second of 8 Mbit/s for many viewers; the kernel may allow less.
const SEND_BUFFER_LEN: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(socket: &Socket) -> SocketAddr {
        let port = super::super::tcp::local_address(socket).unwrap().port();
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    fn receive_all(socket: &Socket) -> Vec<Vec<u8>> {
        let mut bytes = [0; 2_000];
        std::iter::from_fn(|| socket.receive(&mut bytes).ok().map(|(len, _)| bytes[..len].to_vec()))
            .collect()
    }

    #[test]
    fn runs_arrive_as_single_packets_without_the_gaps() {
        let (from, to, other) = (bind_any(0).unwrap(), bind_any(0).unwrap(), bind_any(0).unwrap());
        let bytes: Vec<u8> = (0..=255).cycle().take(104 * 5 + 50).collect();
        let run = |to: &Socket, bytes| Run { to: loopback(to), bytes, packet_len: 100, gap_len: 4 };
        let runs = [run(&to, &bytes[..]), run(&other, &bytes[..100]), run(&to, &bytes[..204])];
        assert_eq!(Batch::default().send(&from, &runs), Ok(3));
        let lens: Vec<usize> = receive_all(&to).iter().map(Vec::len).collect();
        assert_eq!(lens, [100, 100, 100, 100, 100, 50, 100, 100]);
        assert_eq!(receive_all(&other), [bytes[..100].to_vec()]);
    }

    #[test]
    fn an_icmp_error_says_whose_it_was() {
        let from = bind_any(0).unwrap();
        let gone = loopback(&bind_any(0).unwrap());
        let run = Run { to: gone, bytes: b"x", packet_len: 1, gap_len: 0 };
        assert_eq!(Batch::default().send(&from, &[run]), Ok(1));
        assert_eq!(from.receive_error(), Ok(Some(gone)));
        assert_eq!(from.receive_error(), Err(Errno::EAGAIN));
    }
}
