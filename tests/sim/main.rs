//! The camera's own network code against servers, rivals and bad wires, on a virtual clock.
//!
//! `net::Dhcp` runs as it does in the firmware; the wires, the DHCP servers and the other hosts
//! are here. `media` has the camera's RTSP, RTP and RTCP with players of ours. One seed decides
//! everything: OCELLUS_SEED runs that one alone.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a failing test")]

mod camera;
mod cores;
mod dhcp;
mod hub;
mod link_local;
mod lossy;
mod media;
mod rival;
mod server;
mod world;
