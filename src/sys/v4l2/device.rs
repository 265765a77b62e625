//! Opens a video node and says what it is.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use v4l::v4l_sys as abi;

use super::Error;
use super::ioctl::{self, Plain, ioctl};

/// An opened video node.
#[derive(Debug)]
pub struct Device {
    pub(super) fd: Arc<OwnedFd>,
    info: Info,
}

impl Device {
    /// Opens a node for non-blocking use and asks what it is.
    ///
    /// # Errors
    ///
    /// Those of open(2) and `VIDIOC_QUERYCAP`; ENOTTY from the latter means that the file is no
    /// V4L2 node at all.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = loop {
            match open(path, flags, Mode::empty()) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error { call: "open", errno }),
                Ok(fd) => break fd,
            }
        };
        let mut caps = abi::v4l2_capability::zeroed();
        ioctl(fd.as_fd(), &ioctl::VIDIOC_QUERYCAP, &mut caps)?;
        Ok(Self { fd: Arc::new(fd), info: Info::from(&caps) })
    }

    /// What the node says of itself.
    #[must_use]
    pub const fn info(&self) -> &Info {
        &self.info
    }

    /// The one buffer type that the node's capture direction uses.
    pub(super) fn buffer_type(&self) -> abi::v4l2_buf_type {
        match self.info.role() {
            Role::Capture { multiplanar: true } => {
                abi::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE
            }
            _ => abi::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE,
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a node says of itself (`VIDIOC_QUERYCAP`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    pub driver: String,
    pub card: String,
    pub bus: String,
    /// `V4L2_CAP_*` of this node, not of the whole device.
    pub capabilities: u32,
}

impl Info {
    /// What the node can be used for.
    #[must_use]
    pub fn role(&self) -> Role {
        const CAPTURE: u32 = abi::V4L2_CAP_VIDEO_CAPTURE | abi::V4L2_CAP_VIDEO_CAPTURE_MPLANE;
        const OUTPUT: u32 = abi::V4L2_CAP_VIDEO_OUTPUT | abi::V4L2_CAP_VIDEO_OUTPUT_MPLANE;
        const M2M: u32 = abi::V4L2_CAP_VIDEO_M2M | abi::V4L2_CAP_VIDEO_M2M_MPLANE;
        const META: u32 = abi::V4L2_CAP_META_CAPTURE | abi::V4L2_CAP_META_OUTPUT;
        let has = |wanted| self.capabilities & wanted != 0;
        // Codecs from before V4L2_CAP_VIDEO_M2M say both CAPTURE and OUTPUT.
        if has(M2M) || (has(CAPTURE) && has(OUTPUT)) {
            Role::Codec
        } else if has(CAPTURE) && has(abi::V4L2_CAP_STREAMING) {
            // A node that offers both is used through the older interface.
            Role::Capture { multiplanar: !has(abi::V4L2_CAP_VIDEO_CAPTURE) }
        } else if has(CAPTURE) {
            Role::CaptureWithoutStreaming
        } else if has(OUTPUT) {
            Role::Output
        } else if has(META) {
            Role::Metadata
        } else {
            Role::Other
        }
    }
}

impl From<&abi::v4l2_capability> for Info {
    fn from(caps: &abi::v4l2_capability) -> Self {
        let of_node = caps.capabilities & abi::V4L2_CAP_DEVICE_CAPS != 0;
        Self {
            driver: text(&caps.driver),
            card: text(&caps.card),
            bus: text(&caps.bus_info),
            capabilities: if of_node { caps.device_caps } else { caps.capabilities },
        }
    }
}

/// What a video node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Pictures come out of it, through `VIDEO_CAPTURE` or `VIDEO_CAPTURE_MPLANE` buffers.
    Capture { multiplanar: bool },
    /// Pictures come out of it, but by read(2) only.
    CaptureWithoutStreaming,
    /// An encoder, decoder or scaler: memory to memory.
    Codec,
    /// Pictures go into it.
    Output,
    /// Statistics or headers, no pictures.
    Metadata,
    /// Radio, VBI, touch and what else there is.
    Other,
}

/// The `/dev/videoN` in the order of N.
#[must_use]
pub fn nodes() -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev").into_iter().flatten().filter_map(Result::ok);
    let mut nodes: Vec<(u32, PathBuf)> =
        entries.filter_map(|entry| Some((node_number(&entry.path())?, entry.path()))).collect();
    nodes.sort_unstable();
    nodes.into_iter().map(|(_, path)| path).collect()
}

fn node_number(path: &Path) -> Option<u32> {
    let digits = path.file_name()?.to_str()?.strip_prefix("video")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The text before the first NUL, with what is not UTF-8 replaced.
pub(super) fn text(bytes: &[u8]) -> String {
    let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(capabilities: u32) -> Role {
        let node = |text: &str| text.to_owned();
        Info { driver: node("d"), card: node("c"), bus: node("b"), capabilities }.role()
    }

    #[test]
    fn only_nodes_that_stream_pictures_out_are_capture_devices() {
        let streaming = abi::V4L2_CAP_STREAMING;
        for (capabilities, expected) in [
            (abi::V4L2_CAP_VIDEO_CAPTURE | streaming, Role::Capture { multiplanar: false }),
            (abi::V4L2_CAP_VIDEO_CAPTURE_MPLANE | streaming, Role::Capture { multiplanar: true }),
            (abi::V4L2_CAP_VIDEO_CAPTURE, Role::CaptureWithoutStreaming),
            (abi::V4L2_CAP_VIDEO_M2M_MPLANE | streaming, Role::Codec),
            (abi::V4L2_CAP_VIDEO_CAPTURE | abi::V4L2_CAP_VIDEO_OUTPUT | streaming, Role::Codec),
            (abi::V4L2_CAP_VIDEO_OUTPUT | streaming, Role::Output),
            (abi::V4L2_CAP_META_CAPTURE | streaming, Role::Metadata),
            (abi::V4L2_CAP_RADIO, Role::Other),
        ] {
            assert_eq!(role(capabilities), expected, "{capabilities:#x}");
        }
    }

    #[test]
    fn only_numbered_nodes_are_video_nodes() {
        let number = |name: &str| node_number(&Path::new("/dev").join(name));
        assert_eq!(number("video0"), Some(0));
        assert_eq!(number("video10"), Some(10));
        for name in ["video", "video-foo", "video1x", "video+1", "vbi0", "v4l-subdev0"] {
            assert_eq!(number(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_that_fills_its_field_needs_no_nul() {
        assert_eq!(text(b"vivid\0\0\0"), "vivid");
        assert_eq!(text(b"full"), "full");
        assert_eq!(text(b""), "");
    }

    #[test]
    fn a_file_that_is_no_video_node_answers_enotty() {
        let error = Device::open(Path::new("/dev/null")).expect_err("no camera");
        assert_eq!(error, Error { call: "VIDIOC_QUERYCAP", errno: Errno::ENOTTY });
        let error = Device::open(Path::new("/dev/no-such-node")).expect_err("no file");
        assert_eq!(error, Error { call: "open", errno: Errno::ENOENT });
    }
}
