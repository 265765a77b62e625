//! Judges a capture by the rules of RFC 2326, 3550, 4566, 6184 and H.264: R, S, T, H and C.
//!
//! Written from the RFCs, with `rtsp-types`, `sdp-types`, `rtp-types`, `rtcp-types` and
//! `h264-reader` as parsers; it shares nothing with the camera. `planted` proves that every rule
//! finds what it is for.
//!
//! Not judged here: R7 over minutes (virtual time, beside the protocol code), multicast, tunnels.
//!
//! - `session`: the dialogue as exchanges, and which media belongs to which PLAY
//! - `dialogue`: R1-R9; `sdp`: S1-S6; `rtp`: R4, T1-T6; `payload`: H1-H3 and reassembly
//! - `picture`: H4-H10; `decode`: H11; `rtcp`: C1-C5

mod decode;
mod dialogue;
mod login;
mod payload;
mod picture;
mod rtcp;
mod rtp;
mod sdp;
mod session;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::capture::Capture;
use crate::clip::{AccessUnit, Clip};
use crate::digest::Credentials;
use crate::nal;

pub(crate) use decode::decode;
pub(crate) use rtp::RtpInfo;

/// What the capture should show, beyond what the RFCs say.
#[derive(Clone, Debug)]
pub(crate) struct Expect<'a> {
    pub(crate) credentials: Credentials,
    pub(crate) size: (u32, u32),
    pub(crate) fps: f64,
    /// Longest time from one IDR picture to the next.
    pub(crate) gop: Duration,
    pub(crate) packet_len_max: usize,
    /// The access units that the source plays in a loop, where they are known.
    pub(crate) clip: Option<&'a [AccessUnit]>,
}

impl<'a> Expect<'a> {
    /// The test pattern at 30 pictures per second, as the camera streams it by default.
    pub(crate) fn pattern(size: (u32, u32)) -> Self {
        Self {
            credentials: crate::camera::credentials(),
            size,
            fps: 30.0,
            gop: Duration::from_secs(1),
            packet_len_max: 1372,
            clip: None,
        }
    }

    /// A camera that plays `clip`.
    pub(crate) fn of_clip(clip: &'a Clip) -> Self {
        let is_idr = |unit: &AccessUnit| unit.iter().any(|nal| nal::kind(nal) == 5);
        let first = &clip.access_units[0];
        assert!(is_idr(first), "the clip begins with an IDR picture");
        let idrs = clip.access_units.iter().filter(|unit| is_idr(unit)).count();
        let group = clip.access_units.len().div_ceil(idrs);
        Self {
            credentials: crate::camera::credentials(),
            size: clip.size,
            fps: clip.fps,
            gop: Duration::from_secs_f64(f64::from(u32::try_from(group).unwrap()) / clip.fps),
            packet_len_max: 1372,
            clip: Some(&clip.access_units),
        }
    }
}

/// One broken rule.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// The rule's name, for instance `T4`.
    pub(crate) rule: &'static str,
    pub(crate) what: String,
    /// Index of the event that shows it.
    pub(crate) event: usize,
}

/// The violations found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) violations: Vec<Violation>,
}

impl Findings {
    pub(crate) fn add(&mut self, rule: &'static str, event: usize, what: impl Into<String>) {
        self.violations.push(Violation { rule, what: what.into(), event });
    }

    /// Adds a violation unless `holds`.
    fn check(&mut self, holds: bool, rule: &'static str, event: usize, what: impl Into<String>) {
        if !holds {
            self.add(rule, event, what);
        }
    }

    /// The first violations, one a line.
    pub(crate) fn report(&self) -> String {
        let line = |v: &Violation| format!("{} at event {}: {}\n", v.rule, v.event, v.what);
        let rest = self.violations.len().saturating_sub(REPORTED_MAX);
        let lines: String = self.violations.iter().take(REPORTED_MAX).map(line).collect();
        format!("{lines}and {rest} more")
    }

    pub(crate) fn rules(&self) -> BTreeSet<&'static str> {
        self.violations.iter().map(|violation| violation.rule).collect()
    }
}

/// What was seen; tests use it to be sure that something was.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) plays: usize,
    pub(crate) packets: usize,
    pub(crate) access_units: usize,
    pub(crate) sender_reports: usize,
    /// Pictures that FFmpeg decoded; 0 when it was not asked because of other violations.
    pub(crate) decoded: usize,
}

/// Violations that are listed in a failure: a fault per packet would fill the screen.
const REPORTED_MAX: usize = 20;

/// Applies every rule to one capture.
pub(crate) fn validate(capture: &Capture, expect: &Expect<'_>) -> (Findings, Summary) {
    let mut findings = Findings::default();
    let session = session::read(capture, &mut findings);
    dialogue::check(capture, &session, &mut findings);
    login::check(&session, expect, &mut findings);
    let description = sdp::check(&session, expect, &mut findings);
    let mut summary = Summary { plays: session.plays.len(), ..Summary::default() };
    let streams = rtp::check(&session, &description, expect, &mut findings);
    summary.packets = streams.iter().map(|stream| stream.all.len()).sum();
    let plays: Vec<_> = streams
        .iter()
        .map(|stream| payload::reassemble(&stream.packets, expect, &mut findings))
        .collect();
    summary.access_units = plays.iter().map(Vec::len).sum();
    picture::check(&plays, &streams, &description, expect, &mut findings);
    summary.sender_reports = rtcp::check(capture, &session, &streams, &mut findings);
    // A stream that breaks other rules does not decode; saying so again would hide the cause.
    if findings.violations.is_empty() {
        summary.decoded = decode::check(&plays, expect, &mut findings);
    }
    (findings, summary)
}
