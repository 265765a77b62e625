//! Sets a stateful encoder up and commands it: formats of both directions, rate, crop, drain.
//!
//! V4L2, "Memory-to-Memory Stateful Video Encoder Interface": raw pictures go in through OUTPUT,
//! coded ones come out through CAPTURE. `VIDIOC_ENCODER_CMD`, `VIDIOC_SUBSCRIBE_EVENT`,
//! `VIDIOC_DQEVENT`, `VIDIOC_S_SELECTION`.
//!
//! Not implemented: decoders, the frame interval of the coded side alone.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use v4l::v4l_sys as abi;

use super::ioctl::{self, Plain, ioctl};
use super::queue::is_multiplanar;
use super::{Colorimetry, Device, Error, Format, FormatInfo, FourCc, Interval};

/// Which way a buffer goes, seen from the driver as V4L2 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Raw pictures, to be encoded.
    Output,
    /// Coded pictures.
    Capture,
}

/// What a direction of an encoder is asked to take or give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodecFormat {
    pub fourcc: FourCc,
    pub width: u32,
    pub height: u32,
    /// Bytes that a coded picture may have; the driver knows those of a raw one.
    pub size: u32,
    pub colorimetry: Colorimetry,
}

/// What a driver reports beside its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `V4L2_EVENT_EOS`: the drain is complete (deprecated; the LAST buffer says so too).
    EndOfStream,
    /// `V4L2_EVENT_SOURCE_CHANGE`: the other side of the codec has another size now.
    SourceChange,
    /// One that this program knows nothing of.
    Other,
}

/// Commands of `VIDIOC_ENCODER_CMD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Goes on after a drain.
    Start,
    /// Encodes what was given, and marks the last of it: the drain.
    Stop,
}

/// The controls of encoders, by `V4L2_CID_*`, for [`Device::find_control`].
pub mod control {
    use v4l::v4l_sys as abi;

    pub const BITRATE: u32 = abi::V4L2_CID_MPEG_VIDEO_BITRATE;
    pub const BITRATE_MODE: u32 = abi::V4L2_CID_MPEG_VIDEO_BITRATE_MODE;
    pub const FRAME_RATE_CONTROL: u32 = abi::V4L2_CID_MPEG_VIDEO_FRAME_RC_ENABLE;
    pub const GOP_SIZE: u32 = abi::V4L2_CID_MPEG_VIDEO_GOP_SIZE;
    pub const B_FRAMES: u32 = abi::V4L2_CID_MPEG_VIDEO_B_FRAMES;
    pub const HEADER_MODE: u32 = abi::V4L2_CID_MPEG_VIDEO_HEADER_MODE;
    pub const REPEAT_HEADERS: u32 = abi::V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER;
    pub const FORCE_KEY_FRAME: u32 = abi::V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME;
    pub const H264_PROFILE: u32 = abi::V4L2_CID_MPEG_VIDEO_H264_PROFILE;
    pub const H264_LEVEL: u32 = abi::V4L2_CID_MPEG_VIDEO_H264_LEVEL;
}

impl Device {
    /// The formats of a direction; the raw ones are those that suit the coded one in force.
    ///
    /// # Errors
    ///
    /// [`Error`], when the driver went away.
    pub fn codec_formats(&self, direction: Direction) -> Result<Vec<FormatInfo>, Error> {
        self.formats_of(self.codec_buffer_type(direction))
    }

    /// Sets the format of a direction and answers what the driver made of it. The coded side is to
    /// be set first: the raw side depends on it.
    ///
    /// # Errors
    ///
    /// [`Error`]: EBUSY while buffers are allocated.
    pub fn set_codec_format(
        &self,
        direction: Direction,
        wanted: &CodecFormat,
    ) -> Result<Format, Error> {
        let kind = self.codec_buffer_type(direction);
        let mut raw = abi::v4l2_format { type_: kind, ..Plain::zeroed() };
        let colorimetry = wanted.colorimetry;
        if is_multiplanar(kind) {
            let mut pix = abi::v4l2_pix_format_mplane {
                width: wanted.width,
                height: wanted.height,
                pixelformat: wanted.fourcc.into(),
                field: abi::v4l2_field_V4L2_FIELD_NONE,
                colorspace: colorimetry.colorspace,
                // The encodings and ranges have small numbers.
                quantization: u8::try_from(colorimetry.quantization).unwrap_or_default(),
                ..zeroed_multi()
            };
            pix.__bindgen_anon_1.ycbcr_enc =
                u8::try_from(colorimetry.ycbcr_enc).unwrap_or_default();
            pix.plane_fmt[0].sizeimage = wanted.size;
            raw.fmt.pix_mp = pix;
        } else {
            raw.fmt.pix.width = wanted.width;
            raw.fmt.pix.height = wanted.height;
            raw.fmt.pix.pixelformat = wanted.fourcc.into();
            raw.fmt.pix.field = abi::v4l2_field_V4L2_FIELD_NONE;
            raw.fmt.pix.sizeimage = wanted.size;
            raw.fmt.pix.colorspace = colorimetry.colorspace;
            raw.fmt.pix.__bindgen_anon_1.ycbcr_enc = colorimetry.ycbcr_enc;
            raw.fmt.pix.quantization = colorimetry.quantization;
        }
        self.exchange_format(&ioctl::VIDIOC_S_FMT, raw)
    }

    /// Tells the encoder the time from one raw picture to the next: its rate control needs it.
    ///
    /// # Errors
    ///
    /// [`Error`]: ENOTTY or EINVAL from drivers that know no rate.
    pub fn set_codec_interval(&self, wanted: Interval) -> Result<(), Error> {
        let kind = self.codec_buffer_type(Direction::Output);
        let mut parm = abi::v4l2_streamparm { type_: kind, ..Plain::zeroed() };
        parm.parm.output.timeperframe =
            abi::v4l2_fract { numerator: wanted.numerator, denominator: wanted.denominator };
        ioctl(self.as_fd(), &ioctl::VIDIOC_S_PARM, &mut parm)
    }

    /// Sets the part of the raw pictures that is encoded, from their upper left corner on, and
    /// answers the size that the driver made of it.
    ///
    /// # Errors
    ///
    /// [`Error`]: ENOTTY or EINVAL from drivers that cannot crop.
    pub fn set_codec_crop(&self, width: u32, height: u32) -> Result<(u32, u32), Error> {
        // Selections name the single-planar type for multi-planar directions too.
        let mut raw = abi::v4l2_selection {
            type_: abi::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT,
            target: abi::V4L2_SEL_TGT_CROP,
            ..Plain::zeroed()
        };
        raw.r.width = width;
        raw.r.height = height;
        ioctl(self.as_fd(), &ioctl::VIDIOC_S_SELECTION, &mut raw)?;
        Ok((raw.r.width, raw.r.height))
    }

    /// Whether the encoder knows a command.
    #[must_use]
    pub fn takes_command(&self, command: Command) -> bool {
        let mut raw = encoder_command(command);
        ioctl(self.as_fd(), &ioctl::VIDIOC_TRY_ENCODER_CMD, &mut raw).is_ok()
    }

    /// Commands the encoder.
    ///
    /// # Errors
    ///
    /// [`Error`]: EBUSY while a drain is going on, ENOTTY from drivers that cannot drain.
    pub fn command(&self, command: Command) -> Result<(), Error> {
        ioctl(self.as_fd(), &ioctl::VIDIOC_ENCODER_CMD, &mut encoder_command(command))
    }

    /// Asks to be told of the events of [`Event`]; answers of which ones the driver will tell:
    /// the end of the stream, a change of the source.
    #[must_use]
    pub fn subscribe(&self) -> (bool, bool) {
        let subscribe = |type_| {
            let mut raw = abi::v4l2_event_subscription { type_, ..Plain::zeroed() };
            ioctl(self.as_fd(), &ioctl::VIDIOC_SUBSCRIBE_EVENT, &mut raw).is_ok()
        };
        (subscribe(abi::V4L2_EVENT_EOS), subscribe(abi::V4L2_EVENT_SOURCE_CHANGE))
    }

    /// The oldest event that was not taken yet; never blocks.
    #[must_use]
    pub fn next_event(&self) -> Option<Event> {
        let mut raw = abi::v4l2_event::zeroed();
        // ENOENT: there is none. ENOTTY: the driver knows no events.
        ioctl(self.as_fd(), &ioctl::VIDIOC_DQEVENT, &mut raw).ok()?;
        Some(match raw.type_ {
            abi::V4L2_EVENT_EOS => Event::EndOfStream,
            abi::V4L2_EVENT_SOURCE_CHANGE => Event::SourceChange,
            _ => Event::Other,
        })
    }

    /// Waits until a filled buffer can be taken, an event came, or the time is over.
    ///
    /// # Errors
    ///
    /// [`Error`]: ENODEV when the device is gone.
    pub fn wait_filled(&self, timeout: Duration) -> Result<(), Error> {
        let interest = PollFlags::POLLIN | PollFlags::POLLPRI;
        let mut fds = [PollFd::new(self.as_fd(), interest)];
        match ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error { call: "ppoll", errno }),
        }
        let happened = fds[0].revents().unwrap_or(PollFlags::empty());
        if happened.contains(PollFlags::POLLHUP) {
            return Err(Error { call: "ppoll", errno: Errno::ENODEV });
        }
        Ok(())
    }

    /// The buffer type of a direction: the multi-planar one where the node has it, since the
    /// formats with several memory planes are to be had there only.
    pub(super) fn codec_buffer_type(&self, direction: Direction) -> abi::v4l2_buf_type {
        const MULTI: u32 = abi::V4L2_CAP_VIDEO_M2M_MPLANE
            | abi::V4L2_CAP_VIDEO_CAPTURE_MPLANE
            | abi::V4L2_CAP_VIDEO_OUTPUT_MPLANE;
        match (direction, self.info().capabilities & MULTI != 0) {
            (Direction::Output, false) => abi::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT,
            (Direction::Output, true) => abi::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE,
            (Direction::Capture, false) => abi::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE,
            (Direction::Capture, true) => abi::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE,
        }
    }
}

fn encoder_command(command: Command) -> abi::v4l2_encoder_cmd {
    let cmd = match command {
        Command::Start => abi::V4L2_ENC_CMD_START,
        Command::Stop => abi::V4L2_ENC_CMD_STOP,
    };
    abi::v4l2_encoder_cmd { cmd, ..Plain::zeroed() }
}

const fn zeroed_multi() -> abi::v4l2_pix_format_mplane {
    // SAFETY: integers, arrays of them and a union of integers: all zeroes is a valid value.
    unsafe { std::mem::zeroed() }
}
