//! ffmpeg as a viewer: it decodes, and says what and when.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) frames: usize,
    /// By the frames' own time stamps.
    pub(crate) fps: f64,
}

/// Decodes `frames` pictures; any damage to the stream is an error (`-xerror`).
pub(crate) fn play(url: &str, transport: &str, frames: usize, patience: Duration) -> Played {
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "warning", "-xerror", "-rtsp_transport", transport, "-i", url])
        .args(["-map", "0:v:0", "-frames:v", &frames.to_string(), "-f", "framemd5", "-"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (done, wait) = channel();
    let (mut out, mut err) = (ffmpeg.stdout.take().unwrap(), ffmpeg.stderr.take().unwrap());
    let complaining = thread::spawn(move || {
        let mut text = String::new();
        let _ = err.read_to_string(&mut text);
        text
    });
    thread::spawn(move || {
        let mut text = String::new();
        let _ = out.read_to_string(&mut text);
        let _ = done.send(text);
    });
    let text = wait.recv_timeout(patience);
    if text.is_err() {
        let _ = ffmpeg.kill();
    }
    let status = ffmpeg.wait().unwrap();
    let complaints = complaining.join().unwrap();
    let text = text.unwrap_or_else(|_| panic!("ffmpeg took more than {patience:?}: {complaints}"));
    assert!(status.success(), "ffmpeg ended with {status}: {complaints}");
    let (count, fps) = read_framemd5(&text);
    print!("{complaints}");
    Played { frames: count, fps }
}

/// framemd5: `#tb 0: NUM/DEN`, then per frame `stream, dts, pts, duration, size, hash`.
fn read_framemd5(text: &str) -> (usize, f64) {
    let base = text.lines().find_map(|line| line.strip_prefix("#tb 0: ")?.split_once('/'));
    let (numerator, denominator) = base.unwrap_or_else(|| panic!("no time base: {text}"));
    let tick: f64 = numerator.parse::<f64>().unwrap() / denominator.parse::<f64>().unwrap();
    let pts = |line: &str| line.split(',').nth(2)?.trim().parse::<f64>().ok();
    let pts: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).filter_map(pts).collect();
    let span = pts.last().zip(pts.first()).map_or(0.0, |(last, first)| (last - first) * tick);
    let gaps = u32::try_from(pts.len().saturating_sub(1)).unwrap();
    (pts.len(), f64::from(gaps) / span)
}
