//! The one pair of UDP ports that all viewers are served from.

use nix::errno::Errno;

use crate::sys::udp;

/// The fixed sockets for RTP and RTCP, and their ports.
pub type Ports = (udp::Socket, udp::Socket, (u16, u16));

/// Binds the fixed RTP and RTCP ports; when `may_move`, the next free even pair after them.
///
/// # Errors
///
/// EADDRINUSE, with no free pair up to [`PORT_PAIRS_MAX`] further on.
pub fn bind_ports(first: u16, may_move: bool) -> Result<Ports, Errno> {
    let pairs = if may_move { PORT_PAIRS_MAX } else { 1 };
    let mut last = Errno::EADDRINUSE;
    for rtp in (first..u16::MAX).step_by(2).take(pairs) {
        match (udp::bind_any(rtp), udp::bind_any(rtp + 1)) {
            (Ok(rtp_socket), Ok(rtcp_socket)) => {
                return Ok((rtp_socket, rtcp_socket, (rtp, rtp + 1)));
            }
            (Err(errno), _) | (_, Err(errno)) => last = errno,
        }
    }
    Err(last)
}

/// Cameras on one machine.
const PORT_PAIRS_MAX: usize = 256;
