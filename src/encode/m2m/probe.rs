//! Lists the machine's stateful encoders, and why one cannot be used.

use std::path::PathBuf;

use serde::Serialize;

use super::{H264, layout};
use crate::sys::v4l2::codec::CodecFormat;
use crate::sys::v4l2::{self, Colorimetry, Device, Direction, FourCc, Role};

/// A memory-to-memory node that makes H.264.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EncoderNode {
    pub path: PathBuf,
    pub card: String,
    pub driver: String,
    /// Raw formats that go in.
    pub takes: Vec<String>,
    /// Coded formats that come out.
    pub gives: Vec<String>,
    /// Why it cannot be the encoder; `None` when it can.
    pub problem: Option<String>,
}

/// Lists the nodes that make H.264, in numeric order. Opening a node for this disturbs nobody:
/// formats are each opener's own.
#[must_use]
pub fn probe() -> Vec<EncoderNode> {
    probe_for(H264)
}

/// As [`probe`], for another coded format.
#[must_use]
pub fn probe_for(coded: FourCc) -> Vec<EncoderNode> {
    v4l2::nodes().into_iter().filter_map(|path| describe(path, coded)).collect()
}

fn describe(path: PathBuf, coded: FourCc) -> Option<EncoderNode> {
    let device = Device::open(&path).ok().filter(|node| node.info().role() == Role::Codec)?;
    let gives = device.codec_formats(Direction::Capture).ok()?;
    if !gives.iter().any(|format| format.fourcc == coded) {
        return None;
    }
    let colorimetry = Colorimetry::default();
    let wanted = CodecFormat { fourcc: coded, width: 640, height: 480, size: 0, colorimetry };
    let takes = device
        .set_codec_format(Direction::Capture, &wanted)
        .and_then(|_| device.codec_formats(Direction::Output));
    let problem = match &takes {
        Err(error) => Some(error.to_string()),
        Ok(raw) if raw.iter().any(|format| layout::USABLE.contains(&format.fourcc)) => None,
        Ok(_) => Some("it takes no raw format that we have".to_owned()),
    };
    let names = |formats: Vec<v4l2::FormatInfo>| {
        formats.into_iter().map(|format| format.fourcc.to_string()).collect()
    };
    let info = device.info().clone();
    Some(EncoderNode {
        path,
        card: info.card,
        driver: info.driver,
        takes: names(takes.unwrap_or_default()),
        gives: names(gives),
        problem,
    })
}
