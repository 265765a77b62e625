//! Ocellus: IP-camera firmware. V4L2 in, H.264 over RTSP out, one static binary.

pub mod auth;
pub mod capture;
pub mod cli;
pub mod config;
pub mod control;
pub mod encode;
pub mod fanout;
pub mod firmware;
pub mod frame;
pub mod h264;
pub mod net;
pub mod picture;
pub mod produce;
pub mod ring;
pub mod rtp;
pub mod rtsp;
pub mod serve;
pub mod stats;
pub mod sys;
pub mod time;
