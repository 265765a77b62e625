//! Thread 3: performs the protocols over kernel sockets.
//!
//! [`Hub`] puts `rtsp`, `rtp` and `fanout` together and does no I/O itself; [`Reactor`] gives it
//! what arrives, and sends what it says, from one epoll loop.

mod heartbeat;
mod hub;
mod link;
mod playing;
mod ports;
mod reactor;
mod sender;
mod sessions;
mod stream;
mod viewers;

pub use crate::stats::Server as Stats;
pub use hub::{Action, Hub, Settings, Target};
pub use link::Tls;
pub use ports::{Ports, bind_ports};
pub use reactor::{Error, HandedOver, Inlet, Reactor, Sockets};
pub use stream::StreamSettings;

#[cfg(test)]
mod tests;
