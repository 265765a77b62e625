//! The validator's judgement of the real camera: {TCP, UDP} x {pattern, file}.

use std::thread;
use std::time::Duration;

use crate::camera::Camera;
use crate::client::{Client, Lower};
use crate::digest::Algorithm;
use crate::validate::{Expect, validate};
use crate::{clip, dialogue};

/// Records one session per transport at the same time and judges both.
fn judge(camera: &Camera, expect: &Expect<'_>) {
    thread::scope(|scope| {
        for (lower, algorithm) in [(Lower::Tcp, Algorithm::Md5), (Lower::Udp, Algorithm::Sha256)] {
            scope.spawn(move || {
                let mut client = Client::connect(&camera.url, &expect.credentials);
                client.algorithm = algorithm;
                dialogue::whole_session(&mut client, lower, PLAY_FOR);
                let (findings, summary) = validate(&client.capture, expect);
                assert!(findings.violations.is_empty(), "{lower:?}:\n{}", findings.report());
                assert_eq!(summary.plays, 2, "{lower:?}: {summary:?}");
                assert!(summary.access_units > 150, "{lower:?}: {summary:?}");
                assert!(summary.sender_reports >= 2, "{lower:?}: {summary:?}");
                eprintln!("{lower:?}: {summary:?}");
            });
        }
    });
}

#[test]
fn the_pattern_breaks_no_rule_over_tcp_and_udp() {
    let size = ["--size", "640x360", "--fps", "30", "--bitrate", "1M"];
    let camera = Camera::start(&[&["--source", "pattern"], &size[..]].concat());
    let expect = Expect::pattern((640, 360));
    judge(&camera, &expect);
}

#[test]
fn a_file_breaks_no_rule_and_arrives_byte_by_byte_over_tcp_and_udp() {
    let Some(clip) = clip::clip() else { return };
    let camera = Camera::start(&["--source", &format!("file:{}", clip.path.display())]);
    judge(&camera, &Expect::of_clip(clip));
}

/// Long enough for a second sender report (at most 7.5 s after the first).
const PLAY_FOR: Duration = Duration::from_secs(9);
