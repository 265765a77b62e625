//! Turns the kernel's announcements of devices into datagrams: `action@path`, then `KEY=value`s,
//! each ended by a zero byte.
//!
//! netlink(7), NETLINK_KOBJECT_UEVENT.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt,
};

#[derive(Debug)]
pub struct UeventSocket(OwnedFd);

/// One attempt to receive.
#[derive(Debug)]
pub enum Received<'b> {
    Event(&'b [u8]),
    /// Nothing is waiting.
    Empty,
    /// Events were lost, because they came faster than they were read.
    Overrun,
}

impl UeventSocket {
    /// # Errors
    ///
    /// Those of socket(2) and bind(2).
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        // Without the privilege the default size has to do.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &QUEUE_LEN);
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self(fd))
    }

    /// Takes one datagram of the kernel's; those of other processes are skipped.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> Received<'b> {
        loop {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), buffer) {
                Ok((len, Some(sender))) if sender.pid() == 0 => {
                    return buffer.get(..len).map_or(Received::Empty, Received::Event);
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Received::Overrun,
                Err(_) => return Received::Empty,
            }
        }
    }
}

impl AsFd for UeventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The kernel's own multicast group; 2 is udev's.
const KERNEL_GROUP: u32 = 1;
/// Bytes: a board announces a few hundred devices at start.
const QUEUE_LEN: usize = 1 << 20;
