//! System calls: the one place with `unsafe`.
//!
//! Each file wraps one kernel interface, or one library, so that its callers need no `unsafe`.
#![allow(unsafe_code, reason = "the island of DESIGN: every block states its preconditions")]

pub mod address_monitor;
pub mod block;
pub mod clock;
pub mod encoder;
pub mod marking;
pub mod netlink;
pub mod packet;
pub mod process;
pub mod sandbox;
pub mod tcp;
pub mod udp;
pub mod uevent;
pub mod v4l2;
mod wake;
pub mod watchdog;

pub use tcp::ByteStream;
pub use wake::Wake;
