//! Makes the H.264 clip that the `file:` source plays, and cuts it into access units.
//!
//! The committed fixture is used where it exists, so that the bytes are the same everywhere;
//! otherwise FFmpeg makes an equal clip: baseline, no B pictures, one IDR picture a second.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::{nal, process};

/// NAL units of one access unit, without start codes.
pub(crate) type AccessUnit = Vec<Vec<u8>>;

#[derive(Debug)]
pub(crate) struct Clip {
    pub(crate) path: PathBuf,
    pub(crate) access_units: Vec<AccessUnit>,
    pub(crate) fps: f64,
    pub(crate) size: (u32, u32),
}

/// Returns the clip, or `None` when there is neither a fixture nor an FFmpeg to make one.
pub(crate) fn clip() -> Option<&'static Clip> {
    static CLIP: OnceLock<Option<Clip>> = OnceLock::new();
    CLIP.get_or_init(|| {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/clip-320x240.h264");
        let path = if fixture.exists() { fixture } else { make()? };
        let stream = std::fs::read(&path).unwrap();
        let access_units = access_units(&stream);
        let first = access_units.first().expect("the clip has pictures");
        let sps = first.iter().find(|unit| nal::kind(unit) == nal::SPS).expect("and an SPS");
        let sps = nal::parse_sps(sps).expect("which parses");
        let fps = sps.fps().expect("and has timing information");
        Some(Clip { path, access_units, fps, size: sps.pixel_dimensions().unwrap() })
    })
    .as_ref()
}

fn make() -> Option<PathBuf> {
    if !process::have(&[process::FFMPEG]) {
        return None;
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clip-320x240.h264");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-f", "lavfi"]);
    command.args(["-i", "testsrc2=size=320x240:rate=30:duration=3", "-c:v", "libx264"]);
    command.args(["-profile:v", "baseline", "-pix_fmt", "yuv420p", "-bf", "0", "-g", "30"]);
    command.args(["-x264-params", "scenecut=0", "-threads", "1", "-f", "h264"]).arg(&path);
    let made = process::run(&mut command, Duration::from_secs(60));
    assert!(made.success(), "{}", made.stderr);
    Some(path)
}

/// Groups the NAL units of a byte stream into access units (H.264 7.4.1.2.3).
pub(crate) fn access_units(stream: &[u8]) -> Vec<AccessUnit> {
    let mut access_units: Vec<AccessUnit> = Vec::new();
    let mut picture_seen = true;
    for unit in nal::split_annexb(stream) {
        if picture_seen && nal::begins_access_unit(unit) {
            access_units.push(Vec::new());
            picture_seen = false;
        }
        picture_seen |= nal::is_slice(unit);
        access_units.last_mut().expect("the first unit begins one").push(unit.to_vec());
    }
    access_units
}
