//! The clip that all servers play: 720p30, 2 Mbit/s, an IDR picture a second, no B pictures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where plots, tables and clips go.
pub(crate) fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Makes the clip, or finds it made.
///
/// Ten seconds again and again: long enough for the longest run, because the peer's source does
/// not begin anew at the end.
pub(crate) fn clip() -> PathBuf {
    let path = folder().join("clip-1280x720.h264");
    if !path.exists() {
        let part = folder().join("part.h264");
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-y", "-f", "lavfi"]);
        command.args(["-i", "testsrc2=size=1280x720:rate=30:duration=10"]);
        // Noise, or it would be too simple a picture for its bitrate.
        command.args(["-vf", "noise=alls=12:allf=t", "-c:v", "libx264", "-preset", "ultrafast"]);
        command.args(["-profile:v", "baseline", "-pix_fmt", "yuv420p", "-bf", "0", "-g", "30"]);
        command.args(["-b:v", "2M", "-maxrate", "2M", "-bufsize", "500k"]);
        command.args(["-x264-params", "scenecut=0:threads=1", "-f", "h264"]).arg(&part);
        assert!(command.status().expect("ffmpeg is installed (scripts/setup)").success());
        fs::write(&path, fs::read(&part).unwrap().repeat(REPEATS)).unwrap();
        fs::remove_file(part).unwrap();
    }
    path
}

/// The clip in a container: the peer's source finds no times in a bare byte stream.
pub(crate) fn timed_clip() -> PathBuf {
    let path = folder().join("clip-1280x720.mp4");
    if !path.exists() {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-y", "-r", "30", "-i"]).arg(clip());
        command.args(["-c", "copy"]).arg(&path);
        assert!(command.status().expect("ffmpeg is installed (scripts/setup)").success());
    }
    path
}

/// Three minutes: joins, a run, and a pass with strace.
const REPEATS: usize = 18;
