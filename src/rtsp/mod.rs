//! Turns what viewers write on their RTSP connections into answers and into who receives what.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may fail")
)]

mod message;
mod parser;
