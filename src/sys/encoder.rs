//! The options of OpenH264 that its safe wrapper does not offer.

use std::ffi::c_int;
use std::ptr::addr_of_mut;

use openh264::encoder::Encoder;
use openh264_sys2::{ENCODER_OPTION_TRACE_LEVEL, WELS_LOG_QUIET};

/// Stops the library from writing to stderr, which it does before the wrapper's own setting.
pub fn silence(encoder: &mut Encoder) {
    let mut level: c_int = WELS_LOG_QUIET;
    // SAFETY: the trace level is no parameter that the wrapper relies on.
    let api = unsafe { encoder.raw_api() };
    // SAFETY: this option reads one `int` behind the pointer, and `level` is one that outlives the
    // call; the library accepts it before initialization.
    let _ = unsafe { api.set_option(ENCODER_OPTION_TRACE_LEVEL, addr_of_mut!(level).cast()) };
}
