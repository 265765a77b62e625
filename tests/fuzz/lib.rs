//! Compiles what strangers can talk to a second time, with coverage and for libFuzzer.

#[path = "../../src/auth/mod.rs"]
pub mod auth;
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/fanout/mod.rs"]
pub mod fanout;
#[path = "../../src/h264/mod.rs"]
pub mod h264;
#[path = "../../src/net/mod.rs"]
pub mod net;
#[path = "../../src/rtp/mod.rs"]
pub mod rtp;
#[path = "../../src/rtsp/mod.rs"]
pub mod rtsp;
#[path = "../../src/stats/mod.rs"]
pub mod stats;
#[path = "../../src/time.rs"]
pub mod time;
