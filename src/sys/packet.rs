//! Turns an interface index into a socket that carries DHCP and ARP frames past the kernel's IP.
//!
//! packet(7). A classic BPF program keeps everything else out, so that a camera under load does not
//! copy its own video traffic here.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrLike, bind, recv,
    send, socket,
};

/// A raw packet socket of one interface; frames begin with the Ethernet header.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens it for the interface with that index.
    ///
    /// # Errors
    ///
    /// Those of socket(2), setsockopt(2) and bind(2): no privilege, or no such interface.
    pub fn open(interface: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Protocol 0 receives nothing: the filter is in place before bind names a protocol.
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        attach(fd.as_fd(), &DHCP_AND_ARP)?;
        set_option(fd.as_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1_i32)?;
        bind(fd.as_raw_fd(), &address(interface)?)?;
        Ok(Self(fd))
    }

    /// Takes one frame; `None` when there is none, which includes an interface that went down.
    #[must_use]
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let len = recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()).ok()?;
        buffer.get(..len)
    }

    /// Sends one frame; false when it is lost, as it may be on any wire.
    pub fn transmit(&self, frame: &[u8]) -> bool {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty()).is_ok()
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Occupies UDP port 68 without ever reading it, for as long as it is kept.
///
/// Otherwise the kernel answers a DHCP server's unicasts with "port unreachable".
///
/// # Errors
///
/// Those of socket(2) and bind(2): no privilege, or the port is taken.
pub fn occupy_dhcp_client_port() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    // Nothing is to pile up in it either.
    attach(fd.as_fd(), &NOTHING)?;
    bind(fd.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, 68))?;
    Ok(fd)
}

fn address(interface: u32) -> io::Result<LinkAddr> {
    let index = i32::try_from(interface).map_err(|_| Errno::ENODEV)?;
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(|_| Errno::EAFNOSUPPORT)?,
        sll_protocol: ETH_P_ALL.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len =
        libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the pointer is to a whole, initialised sockaddr_ll on this stack frame, `len` is its
    // size, and from_raw copies out of it before returning.
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(len)) };
    address.ok_or_else(|| Errno::EINVAL.into())
}

/// Lets only what `program` accepts into the socket's queue.
fn attach(fd: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut(),
    };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// setsockopt(2) for the options that nix has no name for.
fn set_option<T>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `fd` is open for as long as it is borrowed; `value` points to `len` readable bytes of
    // the option's own C type, as both callers pass it (int, sock_fprog); the instructions that a
    // sock_fprog points to outlive the call, and the kernel only reads them.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const *value).cast(), len) };
    Errno::result(result).map(drop).map_err(Into::into)
}

/// One BPF instruction: `jt` and `jf` count the instructions to skip.
const fn op(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// ARP, and UDP to port 68 in the first fragment of an IPv4 packet; without a VLAN tag, because the
/// kernel hands on frames of other VLANs with the tag taken out.
const DHCP_AND_ARP: [libc::sock_filter; 14] = [
    op(LD_W_ABS, 0, 0, VLAN_TAG_PRESENT),
    op(JEQ, 0, 10, 0),
    op(LD_H_ABS, 0, 0, 12), // EtherType
    op(JEQ, 9, 0, 0x0806),
    op(JEQ, 0, 7, 0x0800),
    op(LD_B_ABS, 0, 0, 14 + 9), // IPv4 protocol
    op(JEQ, 0, 5, 17),
    op(LD_H_ABS, 0, 0, 14 + 6), // fragment offset
    op(JSET, 3, 0, 0x1fff),
    op(LDX_B_MSH, 0, 0, 14),    // x = IPv4 header length
    op(LD_H_IND, 0, 0, 14 + 2), // UDP destination port
    op(JEQ, 1, 0, 68),
    op(RET, 0, 0, 0),
    op(RET, 0, 0, 0xffff),
];
const NOTHING: [libc::sock_filter; 1] = [op(RET, 0, 0, 0)];

// linux/bpf_common.h and linux/filter.h: class | size | mode.
const LD_W_ABS: u16 = 0x20;
const LD_H_ABS: u16 = 0x28;
const LD_B_ABS: u16 = 0x30;
const LD_H_IND: u16 = 0x48;
const LDX_B_MSH: u16 = 0xb1;
const JEQ: u16 = 0x15;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;
/// SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT.
const VLAN_TAG_PRESENT: u32 = 0xffff_f000 + 48;

/// linux/if_packet.h; since Linux 4.20.
const PACKET_IGNORE_OUTGOING: i32 = 23;
/// linux/if_ether.h.
const ETH_P_ALL: u16 = 3;

const _: () = assert!(size_of::<libc::sock_filter>() == 8);
const _: () = assert!(size_of::<libc::sockaddr_ll>() == 20);

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::socketpair;

    fn frame(ethertype: u16, protocol: u8, fragment: u16, header_words: u8, port: u16) -> Vec<u8> {
        let mut frame = vec![0; 14 + usize::from(header_words) * 4 + 8];
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        frame[14] = 0x40 | header_words;
        frame[20..22].copy_from_slice(&fragment.to_be_bytes());
        frame[23] = protocol;
        let udp = 14 + usize::from(header_words) * 4;
        frame[udp + 2..udp + 4].copy_from_slice(&port.to_be_bytes());
        frame
    }

    /// Runs the kernel's own BPF over a datagram that begins like a frame; needs no privilege.
    fn passes(frame: &[u8]) -> bool {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags).unwrap();
        attach(b.as_fd(), &DHCP_AND_ARP).unwrap();
        let _ = send(a.as_raw_fd(), frame, MsgFlags::empty());
        let mut buffer = [0; 2048];
        match recv(b.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(len) => {
                assert_eq!(&buffer[..len], frame);
                true
            }
            Err(_) => false,
        }
    }

    #[test]
    fn the_filter_passes_dhcp_answers_with_every_ip_header_length() {
        for words in 5..=15 {
            assert!(passes(&frame(0x0800, 17, 0, words, 68)), "{words} words");
            assert!(!passes(&frame(0x0800, 17, 0, words, 67)), "{words} words");
        }
    }

    #[test]
    fn the_filter_passes_arp_and_nothing_else() {
        assert!(passes(&frame(0x0806, 0, 0, 5, 0)));
        assert!(!passes(&frame(0x86dd, 17, 0, 5, 68)), "IPv6");
        assert!(!passes(&frame(0x0800, 6, 0, 5, 68)), "TCP");
        assert!(!passes(&frame(0x0800, 17, 1, 5, 68)), "a later fragment");
        assert!(passes(&frame(0x0800, 17, 0x4000, 5, 68)), "don't fragment");
        for len in 0..14 + 20 + 4 {
            assert!(!passes(&frame(0x0800, 17, 0, 5, 68)[..len]), "cut at {len}");
        }
    }
}
