//! Judges the pictures: H11, by FFmpeg's decoder and by the bytes of the source.
//!
//! `-xerror -err_detect explode` turns everything that FFmpeg would conceal into a failure.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::clip::AccessUnit;
use crate::{nal, process};

use super::payload::Received;
use super::{Expect, Findings};

/// Returns how many pictures decoded.
pub(super) fn check(
    plays: &[Vec<Received>],
    expect: &Expect<'_>,
    findings: &mut Findings,
) -> usize {
    let mut decoded = 0;
    for units in plays.iter().filter(|units| !units.is_empty()) {
        let event = units[0].event;
        if let Some(clip) = expect.clip {
            check_identity(units, clip, findings);
        }
        if !process::have(&[process::FFMPEG]) {
            continue;
        }
        let nals = units.iter().flat_map(|unit| unit.nals.iter().map(Vec::as_slice));
        match decode(&nal::to_annexb(nals)) {
            Ok(count) => {
                let all = count == units.len();
                let what = format!("{count} pictures of {} access units", units.len());
                findings.check(all, "H11", event, what);
                decoded += count;
            }
            Err(error) => findings.add("H11", event, format!("FFmpeg: {error}")),
        }
    }
    decoded
}

/// Decodes an Annex B stream with every leniency off and counts the pictures.
pub(crate) fn decode(stream: &[u8]) -> Result<usize, String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{}-{}.h264", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, stream).unwrap();
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-xerror", "-err_detect", "explode"]);
    command.args(["-f", "h264", "-i"]).arg(&path);
    command.args(["-map", "0:v:0", "-vsync", "passthrough", "-f", "framemd5", "-"]);
    let run = process::run(&mut command, Duration::from_secs(60));
    let _ = std::fs::remove_file(&path);
    match run.success() && run.stderr.trim().is_empty() {
        true => Ok(run.stdout.lines().filter(|line| !line.starts_with('#')).count()),
        false => Err(format!("{:?} {}", run.status, run.stderr)),
    }
}

/// The access units are the clip's, in its order, from any point on and round its end.
///
/// Parameter sets and delimiters are left out: the camera may repeat or drop them.
fn check_identity(units: &[Received], clip: &[AccessUnit], findings: &mut Findings) {
    let content = |nals: &[Vec<u8>]| -> Vec<Vec<u8>> {
        let kept = |nal: &&Vec<u8>| !matches!(nal::kind(nal), 7..=9);
        nals.iter().filter(kept).cloned().collect()
    };
    let source: Vec<Vec<Vec<u8>>> = clip.iter().map(|unit| content(unit)).collect();
    // Equal pictures may stand in a clip twice: every place that fits is followed.
    let mut places: Vec<usize> = (0..source.len()).collect();
    for unit in units {
        let received = content(&unit.nals);
        places.retain(|&place| source[place] == received);
        if places.is_empty() {
            return findings.add("H11", unit.event, "not the bytes that the clip has here");
        }
        places.iter_mut().for_each(|place| *place = (*place + 1) % source.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip;

    #[test]
    fn a_clip_decodes_whole_and_not_at_all_when_it_is_damaged() {
        let Some(clip) = clip::clip().filter(|_| process::have(&[process::FFMPEG])) else { return };
        let mut stream = std::fs::read(&clip.path).unwrap();
        assert_eq!(decode(&stream), Ok(clip.access_units.len()));
        let middle = stream.len() / 2;
        stream[middle..middle + 200].fill(0x55);
        assert!(decode(&stream).is_err());
    }
}
