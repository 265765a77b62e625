//! Gives the `v4l` crate the kernel's V4L2 structures without running bindgen at build time.
//!
//! Source: linux/videodev2.h (dual licensed GPL-2.0 WITH Linux-syscall-note OR BSD-3-Clause),
//! through bindgen 0.65.1. Layout depends only on the width of pointers and `long`.
#![allow(clippy::all, reason = "generated code")]
#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unnecessary_transmutes,
    reason = "generated code keeps the kernel's names"
)]

#[cfg(target_pointer_width = "64")]
include!("lp64.rs");
