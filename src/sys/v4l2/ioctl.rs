//! Ties every ioctl number to the structure that the kernel reads and writes for it.
//!
//! An ioctl number holds the size of its argument (asm-generic/ioctl.h); [`Call::new`] holds that
//! against the structure at compile time, so that a number cannot meet a foreign structure.

use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::raw::c_int;

use nix::errno::Errno;
use v4l::v4l_sys as abi;
use v4l::v4l2::vidioc;

use super::Error;

/// One ioctl: its number, its name for messages, and the type of its argument.
#[derive(Debug)]
pub(super) struct Call<T> {
    number: vidioc::_IOC_TYPE,
    name: &'static str,
    argument: PhantomData<fn(&mut T)>,
}

impl<T> Call<T> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "14 bits of the number, whose type is i32 with musl and u64 with glibc"
    )]
    const fn new(number: vidioc::_IOC_TYPE, name: &'static str) -> Self {
        assert!(((number >> 16) & 0x3fff) as usize == size_of::<T>());
        Self { number, name, argument: PhantomData }
    }
}

/// A structure of the kernel that holds integers only.
///
/// # Safety
///
/// - All zeroes is a valid value.
/// - No field, nor any variant of a union in it, is an address that the kernel follows for the
///   calls in this file.
pub(super) unsafe trait Plain: Sized {
    /// As the kernel wants reserved fields.
    fn zeroed() -> Self {
        // SAFETY: the trait promises that all zeroes is a valid value.
        unsafe { std::mem::zeroed() }
    }
}

// SAFETY: integers and arrays of them.
unsafe impl Plain for abi::v4l2_capability {}
// SAFETY: integers and arrays of them.
unsafe impl Plain for abi::v4l2_fmtdesc {}
// SAFETY: integers and a union of integer structures.
unsafe impl Plain for abi::v4l2_frmsizeenum {}
// SAFETY: integers and a union of integer structures.
unsafe impl Plain for abi::v4l2_frmivalenum {}
// SAFETY: the one variant with addresses, `win`, is read for overlays only, and `Format` sets
// `type_` to one of the video capture and output types.
unsafe impl Plain for abi::v4l2_format {}
// SAFETY: integers and a union of integer structures.
unsafe impl Plain for abi::v4l2_streamparm {}
// SAFETY: integers only.
unsafe impl Plain for abi::v4l2_requestbuffers {}
// SAFETY: integers only.
unsafe impl Plain for abi::v4l2_control {}
// SAFETY: integers and arrays of them.
unsafe impl Plain for abi::v4l2_query_ext_ctrl {}
// SAFETY: integers, and a union of an integer and an array of bytes.
unsafe impl Plain for abi::v4l2_querymenu {}
// SAFETY: integers and arrays of them; the descriptor in it is written, not read.
unsafe impl Plain for abi::v4l2_exportbuffer {}
// SAFETY: integers and arrays of them.
unsafe impl Plain for abi::v4l2_selection {}
// SAFETY: integers and a union of an array of them.
unsafe impl Plain for abi::v4l2_encoder_cmd {}
// SAFETY: integers and arrays of them.
unsafe impl Plain for abi::v4l2_event_subscription {}
// SAFETY: integers and a union of integer structures.
unsafe impl Plain for abi::v4l2_event {}
// SAFETY: a buffer type.
unsafe impl Plain for c_int {}

/// Performs `call` on a structure without addresses.
///
/// # Errors
///
/// What the kernel answers; EINTR is never one, the call is made again.
pub(super) fn ioctl<T: Plain>(
    fd: BorrowedFd<'_>,
    call: &Call<T>,
    argument: &mut T,
) -> Result<(), Error> {
    // SAFETY: `Plain` promises that the kernel follows no address in `argument`.
    unsafe { ioctl_with_addresses(fd, call, argument) }
}

/// Performs `call` on a structure that may hold addresses.
///
/// # Errors
///
/// As [`ioctl`].
///
/// # Safety
///
/// - Every address in `argument` that the kernel follows for `call` is valid for reads and writes
///   of as many elements as `argument` says.
pub(super) unsafe fn ioctl_with_addresses<T>(
    fd: BorrowedFd<'_>,
    call: &Call<T>,
    argument: &mut T,
) -> Result<(), Error> {
    loop {
        let pointer = std::ptr::from_mut(argument).cast();
        // SAFETY: `pointer` is valid for `size_of::<T>()` bytes, which is what `Call::new` found in
        // the number; the caller answers for addresses inside; `fd` is open while it is borrowed.
        let answer = unsafe { v4l::v4l2::ioctl(fd.as_raw_fd(), call.number, pointer) };
        let Err(refusal) = answer else { return Ok(()) };
        match Errno::from_raw(refusal.raw_os_error().unwrap_or(0)) {
            Errno::EINTR => {}
            errno => return Err(Error { call: call.name, errno }),
        }
    }
}

/// The numbers that the crate leaves out: `_IOC` of asm-generic/ioctl.h, for videodev2.h's type `V`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_lossless,
    reason = "32 bits, whose type is i32 with musl and u64 with glibc"
)]
const fn number<T>(direction: u32, number: u32) -> vidioc::_IOC_TYPE {
    ((direction << 30) | ((size_of::<T>() as u32) << 16) | ((b'V' as u32) << 8) | number) as _
}

/// The kernel reads the argument; it writes the argument.
const WRITE: u32 = 1;
const READ: u32 = 2;

pub(super) const VIDIOC_DQEVENT: Call<abi::v4l2_event> =
    Call::new(number::<abi::v4l2_event>(READ, 89), "VIDIOC_DQEVENT");
pub(super) const VIDIOC_SUBSCRIBE_EVENT: Call<abi::v4l2_event_subscription> =
    Call::new(number::<abi::v4l2_event_subscription>(WRITE, 90), "VIDIOC_SUBSCRIBE_EVENT");
pub(super) const VIDIOC_S_SELECTION: Call<abi::v4l2_selection> =
    Call::new(number::<abi::v4l2_selection>(READ | WRITE, 95), "VIDIOC_S_SELECTION");

/// Declares the calls with their documented names.
macro_rules! calls {
    ($($name:ident($argument:ty)),+ $(,)?) => {
        $(pub(super) const $name: Call<$argument> =
            Call::new(vidioc::$name, stringify!($name));)+
    };
}

calls! {
    VIDIOC_QUERYCAP(abi::v4l2_capability),
    VIDIOC_ENUM_FMT(abi::v4l2_fmtdesc),
    VIDIOC_ENUM_FRAMESIZES(abi::v4l2_frmsizeenum),
    VIDIOC_ENUM_FRAMEINTERVALS(abi::v4l2_frmivalenum),
    VIDIOC_G_FMT(abi::v4l2_format),
    VIDIOC_S_FMT(abi::v4l2_format),
    VIDIOC_TRY_FMT(abi::v4l2_format),
    VIDIOC_G_PARM(abi::v4l2_streamparm),
    VIDIOC_S_PARM(abi::v4l2_streamparm),
    VIDIOC_QUERY_EXT_CTRL(abi::v4l2_query_ext_ctrl),
    VIDIOC_QUERYMENU(abi::v4l2_querymenu),
    VIDIOC_S_CTRL(abi::v4l2_control),
    VIDIOC_G_CTRL(abi::v4l2_control),
    VIDIOC_REQBUFS(abi::v4l2_requestbuffers),
    VIDIOC_QUERYBUF(abi::v4l2_buffer),
    VIDIOC_QBUF(abi::v4l2_buffer),
    VIDIOC_DQBUF(abi::v4l2_buffer),
    VIDIOC_EXPBUF(abi::v4l2_exportbuffer),
    VIDIOC_ENCODER_CMD(abi::v4l2_encoder_cmd),
    VIDIOC_TRY_ENCODER_CMD(abi::v4l2_encoder_cmd),
    VIDIOC_STREAMON(c_int),
    VIDIOC_STREAMOFF(c_int),
}
