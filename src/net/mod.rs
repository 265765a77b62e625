//! Turns received Ethernet frames into the camera's IPv4 configuration, without I/O.
//!
//! RFC 2131 (DHCP, by smoltcp) and RFC 3927 (link-local addresses when nobody answers); and turns
//! time servers' datagrams into samples of the time: RFC 4330 (SNTP).
//!
//! The caller owns the packet socket and the kernel's interface: it passes frames and the time in,
//! and sends, applies and waits for what the polls hand back.
//!
//! Not implemented: IPv6 (the kernel configures itself), DHCPv6, and probing a DHCP address with
//! ARP before use (RFC 5227).
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod dhcp;
mod entropy;
mod lease;
mod link_local;
mod queue;
pub mod sntp;

pub use dhcp::{Dhcp, Event, FALL_BACK_AFTER, hostname_option};
pub use lease::{Lease, MAX_SERVERS, Origin, Servers};
pub use queue::QueueDevice;
