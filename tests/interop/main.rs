//! Real clients against the real camera over real sockets: the proof that "it just works".
//!
//! A strict client records whole sessions and a validator, written only from the RFCs, judges them
//! rule by rule; then the players that people have (FFmpeg, GStreamer, retina) must decode.
//! Nothing here calls the camera's own protocol code.
//!
//! Not covered: virtual time, loss and reordering (`tests/sim`).
//!
//! A missing tool fails the test when `CI` or `OCELLUS_REQUIRE_TOOLS=1` is set, else it is printed.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "real clients over real sockets and real time; a failed unwrap is a failed test"
)]

mod bitstreams;
mod camera;
mod capture;
mod cli;
mod client;
mod clip;
mod dialects;
mod dialogue;
mod digest;
mod fanout;
mod golden;
mod live;
mod multicast;
mod nal;
mod openmetrics;
mod planted;
mod players;
mod process;
mod relay;
mod retina_client;
mod rtpinfo;
mod rtsps;
mod sandboxed;
mod tunnel;
mod validate;
mod video;
mod web;
