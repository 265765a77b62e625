//! Gives the `v4l` crate the kernel's V4L2 structures without running bindgen at build time.
//!
//! Source: linux/videodev2.h (dual licensed GPL-2.0 WITH Linux-syscall-note OR BSD-3-Clause) of
//! Linux 6.1, through bindgen 0.65.1: types `v4l2_.*`, constants `V4L2_.*`, without the controls
//! of stateless codecs. Run for x86_64 and for armv7 it writes the same text, byte for byte,
//! because what differs is said as `c_long` and pointers; the sizes that the kernel expects of
//! either width are asserted below.
//!
//! With 32 bits `timeval` is the 32-bit one, so the kernel's TIME32 ioctls answer. V4L2 stamps
//! with CLOCK_MONOTONIC: 2038 does not come near.
#![allow(clippy::all, reason = "generated code")]
#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unnecessary_transmutes,
    reason = "generated code keeps the kernel's names"
)]

include!("videodev2.rs");

/// Asserts the size of a structure that an ioctl number carries: wide, then narrow machines.
macro_rules! assert_size {
    ($structure:ty, $lp64:expr, $ilp32:expr) => {
        const _: () = assert!(
            size_of::<$structure>() == if cfg!(target_pointer_width = "64") { $lp64 } else { $ilp32 }
        );
    };
}

assert_size!(v4l2_capability, 104, 104);
assert_size!(v4l2_fmtdesc, 64, 64);
assert_size!(v4l2_frmsizeenum, 44, 44);
assert_size!(v4l2_frmivalenum, 52, 52);
assert_size!(v4l2_format, 208, 204);
assert_size!(v4l2_streamparm, 204, 204);
assert_size!(v4l2_requestbuffers, 20, 20);
assert_size!(v4l2_plane, 64, 60);
assert_size!(v4l2_buffer, 88, 68);
assert_size!(v4l2_exportbuffer, 64, 64);
assert_size!(v4l2_control, 8, 8);
assert_size!(v4l2_ext_control, 20, 20);
assert_size!(v4l2_query_ext_ctrl, 232, 232);
assert_size!(v4l2_encoder_cmd, 40, 40);
