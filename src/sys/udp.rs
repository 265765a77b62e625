//! UDP sockets of the server: many packets to many viewers, and to groups, in one call.
//!
//! Linux udp(7): `UDP_SEGMENT` lets one message carry a run of equal-sized packets; ip(7), ipv6(7):
//! `IP_PKTINFO` and `IPV6_PKTINFO` say from which address and interface.

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::{fmt, mem, ptr};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::if_nametoindex;
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
    /// Says how many links a packet to a group may cross, and that players on this machine get it
    /// too.
    ///
    /// # Errors
    ///
    /// None that a socket of ours has.
    pub fn set_multicast(&self, ttl: u8) -> Result<(), Errno> {
        if self.is_ipv6 {
            set_int(self.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, ttl.into())?;
            set_int(self.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, 1)?;
        }
        set_int(self.as_fd(), libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, ttl.into())?;
        set_int(self.as_fd(), libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 1)
    }

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
    /// `None`: from whichever address the routing table has.
    pub from: Option<Source>,
    /// From the first byte of the first packet to the last byte of the last one.
    pub bytes: &'a [u8],
    /// Length of each packet but the last.
    pub packet_len: usize,
    /// Bytes between two packets, which are not sent.
    pub gap_len: usize,
}

/// An address of this machine to send from, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    address: IpAddr,
    /// 0: by the address, which for IPv4 is enough.
    interface: u32,
}

impl Source {
    /// Looks the interface up.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        let interface = match address {
            SocketAddr::V6(v6) if v6.scope_id() > 0 => v6.scope_id(),
            SocketAddr::V6(_) => interface_with(address.ip()).unwrap_or(0),
            SocketAddr::V4(_) => 0,
        };
        Self { address: address.ip(), interface }
    }
}

fn interface_with(address: IpAddr) -> Option<u32> {
    let has_it = |other: &SockaddrStorage| std_address(other).is_some_and(|it| it.ip() == address);
    let mut interfaces = getifaddrs().ok()?;
    let found = interfaces.find(|interface| interface.address.as_ref().is_some_and(has_it))?;
    if_nametoindex(found.interface_name.as_str()).ok()
}

/// Room for the messages of one call, used again and again.
pub struct Batch {
    messages: Vec<libc::mmsghdr>,
    names: Vec<SockaddrStorage>,
    parts: Vec<libc::iovec>,
    controls: Vec<Control>,
}

/// The control messages of one run: the segment length, and what to send from.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control {
    bytes: [u8; CONTROL_LEN],
    len: usize,
}

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
            self.controls.push(Control::of(run, socket.is_ipv6));
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
            let control = &mut self.controls[index];
            if control.len > 0 {
                header.msg_control = control.bytes.as_mut_ptr().cast();
                header.msg_controllen = control.len as _;
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

impl Control {
    /// What the kernel has to be told of `run`; nothing, if it is one packet from anywhere.
    fn of(run: &Run<'_>, is_ipv6: bool) -> Self {
        let mut control = Self { bytes: [0; CONTROL_LEN], len: 0 };
        if run.bytes.len() > run.packet_len {
            let segment = u16::try_from(run.packet_len).unwrap_or(u16::MAX);
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        let Some(Source { address, interface }) = run.from else { return control };
        match address {
            // `in_pktinfo { ifindex, spec_dst, addr }`: the second is what to send from.
            IpAddr::V4(v4) if !is_ipv6 => {
                let mut info = [0; 12];
                info[..4].copy_from_slice(&interface.to_ne_bytes());
                info[4..8].copy_from_slice(&v4.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            // `in6_pktinfo { addr, ifindex }`
            address => {
                let v6 = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                let mut info = [0; 20];
                info[..16].copy_from_slice(&v6.octets());
                info[16..].copy_from_slice(&interface.to_ne_bytes());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
        control
    }

    /// Appends `cmsghdr { len, level, kind }` and the data, padded.
    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        const ALIGNED: usize = size_of::<usize>();
        let header_len = size_of::<libc::cmsghdr>();
        let len = header_len + data.len();
        let (level, kind) = (level.to_ne_bytes(), kind.to_ne_bytes());
        let at = &mut self.bytes[self.len..self.len + len];
        at[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
        at[header_len - 8..header_len - 4].copy_from_slice(&level);
        at[header_len - 4..header_len].copy_from_slice(&kind);
        at[header_len..].copy_from_slice(data);
        self.len += len.next_multiple_of(ALIGNED);
    }
}

/// The longest segment length and `in6_pktinfo` together.
const CONTROL_LEN: usize = 2 * size_of::<libc::cmsghdr>() + size_of::<usize>() + 24;
// `push` writes a length of one word and two numbers of four bytes. musl has padding after its
// shorter length, which on little-endian machines reads the same.
const _: () = assert!(size_of::<libc::cmsghdr>() == size_of::<usize>() + 8);
const _: () = assert!(cfg!(target_endian = "little"));
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
        let run = |to: &Socket, bytes| Run {
            to: loopback(to),
            from: None,
            bytes,
            packet_len: 100,
            gap_len: 4,
        };
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
        let run = Run { to: gone, from: None, bytes: b"x", packet_len: 1, gap_len: 0 };
        assert_eq!(Batch::default().send(&from, &[run]), Ok(1));
        assert_eq!(from.receive_error(), Ok(Some(gone)));
        assert_eq!(from.receive_error(), Err(Errno::EAGAIN));
    }

    #[test]
    fn packets_come_from_the_address_that_they_are_sent_from() {
        for (local, other) in [("127.0.0.1:0", "127.0.0.9:0"), ("[::1]:0", "[::1]:0")] {
            let (local, other): (SocketAddr, SocketAddr) =
                (local.parse().unwrap(), other.parse().unwrap());
            let (from, Ok(to)) = (bind_any(0).unwrap(), bind_exactly(local)) else { continue };
            let source = Source::of(other);
            assert_eq!(source.interface > 0, other.is_ipv6(), "loopback has an index");
            let bytes = [7; 104 + 104 + 30];
            let to_address = super::super::tcp::local_address(&to).unwrap();
            let run = Run {
                to: to_address,
                from: Some(source),
                bytes: &bytes,
                packet_len: 100,
                gap_len: 4,
            };
            let single = Run { bytes: &bytes[..50], ..run };
            assert_eq!(Batch::default().send(&from, &[run, single]), Ok(2));
            let mut into = [0; 200];
            for len in [100, 100, 30, 50] {
                let (got, sender) = to.receive(&mut into).unwrap();
                assert_eq!((got, sender.unwrap().ip()), (len, other.ip()));
            }
        }
    }
}
