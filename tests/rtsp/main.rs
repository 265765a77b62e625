//! Talks to the RTSP server as its peers do: transcripts, hostile input, random input.
//!
//! Everything runs on a virtual clock and without sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail"
)]

mod camera;
mod hostile;
mod logins;
mod random;
mod sessions;
mod transcript;
mod tunnel;
