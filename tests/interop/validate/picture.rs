//! Judges the H.264 inside: H4 to H10, and S5, which ties it to the session description.
//!
//! H.264 7.3.1, 7.4.1.2.3 and annex E; RFC 6184 5.3 for `nal_ref_idc`.

use std::time::Duration;

use crate::nal;

use super::payload::Received;
use super::rtp::Stream;
use super::sdp::Description;
use super::{Expect, Findings};

pub(super) fn check(
    plays: &[Vec<Received>],
    streams: &[Stream<'_>],
    description: &Description,
    expect: &Expect<'_>,
    findings: &mut Findings,
) {
    let mut sets = ParameterSets::default();
    for (units, stream) in plays.iter().zip(streams) {
        check_group_length(units, stream, expect, findings);
        for unit in units.iter().filter(|unit| !unit.damaged) {
            for nal in &unit.nals {
                check_bytes(nal, unit.event, findings);
                check_ref_idc(nal, unit.event, findings);
            }
            check_order(unit, findings);
            check_slices(unit, findings);
            sets.check(unit, description, findings);
        }
    }
}

/// H4: no start code and no unfinished escape inside, no zero byte at the end (7.4.1).
fn check_bytes(unit: &[u8], event: usize, findings: &mut Findings) {
    let forbidden = unit.windows(3).any(|bytes| matches!(bytes, [0, 0, 0..=2]));
    findings.check(!forbidden, "H4", event, "00 00 00, 01 or 02 inside a NAL unit");
    let escape = unit.windows(4).any(|bytes| matches!(bytes, [0, 0, 3, 4..=255]));
    findings.check(!escape, "H4", event, "00 00 03 that protects nothing");
    findings.check(unit.last() != Some(&0), "H4", event, "a NAL unit ends in a zero byte");
}

/// H5: `nal_ref_idc` (7.4.1).
fn check_ref_idc(unit: &[u8], event: usize, findings: &mut Findings) {
    let (kind, ref_idc) = (nal::kind(unit), unit.first().map_or(0, |header| header >> 5 & 3));
    let right = match kind {
        nal::SEI | 9..=12 => ref_idc == 0,
        nal::IDR | nal::SPS | nal::PPS => ref_idc != 0,
        _ => true,
    };
    findings.check(right, "H5", event, format!("nal_ref_idc {ref_idc} on type {kind}"));
}

/// H6: AUD, SPS, PPS, SEI, slices, in this order; exactly one primary picture.
fn check_order(unit: &Received, findings: &mut Findings) {
    let kinds: Vec<u8> = unit.nals.iter().map(|nal| nal::kind(nal)).collect();
    let rank = |kind: &u8| match *kind {
        nal::AUD => 0,
        nal::SPS => 1,
        nal::PPS => 2,
        nal::SEI => 3,
        1..=5 => 4,
        _ => 5,
    };
    findings.check(kinds.is_sorted_by_key(rank), "H6", unit.event, format!("order {kinds:?}"));
    let first_mbs: Vec<u32> = slices(unit).map(|(_, start)| start.first_mb).collect();
    let one = first_mbs.first() == Some(&0) && first_mbs.is_sorted_by(|last, next| last < next);
    let what = format!("slices begin at macroblocks {first_mbs:?}: not one primary picture");
    findings.check(one, "H6", unit.event, what);
    let mut slice_kinds: Vec<u8> = slices(unit).map(|(nal, _)| nal::kind(nal)).collect();
    slice_kinds.dedup();
    findings.check(slice_kinds.len() <= 1, "H6", unit.event, "IDR and other slices in one picture");
}

/// H9 and H10: no B slices, at most eight slices.
fn check_slices(unit: &Received, findings: &mut Findings) {
    let bidirectional = slices(unit).any(|(_, start)| start.slice_type == 1);
    findings.check(!bidirectional, "H9", unit.event, "a B slice");
    let count = slices(unit).count();
    findings.check(count <= 8, "H10", unit.event, format!("{count} slices"));
}

fn slices(unit: &Received) -> impl Iterator<Item = (&[u8], nal::SliceStart)> {
    let slices = unit.nals.iter().filter(|nal| nal::is_slice(nal));
    slices.filter_map(|nal| Some((&nal[..], nal::slice_start(nal)?)))
}

/// Whether the access unit is an IDR picture, or may have been one before its packing broke.
fn is_idr(unit: &Received) -> bool {
    unit.damaged || unit.nals.iter().any(|unit| nal::kind(unit) == nal::IDR)
}

/// H8: an IDR picture within a second of PLAY, and then at least one per configured group.
fn check_group_length(
    units: &[Received],
    stream: &Stream<'_>,
    expect: &Expect<'_>,
    findings: &mut Findings,
) {
    let (Some(first), Some(last)) = (units.first(), units.last()) else { return };
    let mut last_idr = units.iter().find(|unit| is_idr(unit));
    let idr_at = last_idr.map_or(last.at, |unit| unit.at);
    let waited = idr_at.saturating_sub(stream.answered_at);
    let prompt = waited <= Duration::from_secs(1) && last_idr.is_some();
    findings.check(prompt, "H8", first.event, format!("no IDR picture within {waited:?} of PLAY"));
    // One picture more, for the rounding of either.
    let limit = (expect.gop.as_secs_f64() + 1.5 / expect.fps) * 90_000.0;
    for unit in units {
        let Some(idr) = last_idr else { return };
        let since = unit.timestamp.wrapping_sub(idr.timestamp);
        let late = f64::from(since) > limit && since < 1 << 31;
        findings.check(
            !late,
            "H8",
            unit.event,
            format!("{since} ticks since the last IDR picture"),
        );
        if is_idr(unit) || late {
            last_idr = Some(unit);
        }
    }
}

/// The parameter sets in force.
#[derive(Debug, Default)]
struct ParameterSets {
    sps: Option<Vec<u8>>,
    pps: Option<Vec<u8>>,
}

impl ParameterSets {
    /// H7, H9 and S5: sets before every IDR picture, changed only there, and those of the SDP.
    fn check(&mut self, unit: &Received, description: &Description, findings: &mut Findings) {
        let event = unit.event;
        let find = |kind| unit.nals.iter().rfind(|nal| nal::kind(nal) == kind).cloned();
        let (sps, pps) = (find(nal::SPS), find(nal::PPS));
        let idr = is_idr(unit);
        let both = sps.is_some() && pps.is_some();
        findings.check(both || !idr, "H7", event, "an IDR picture without SPS and PPS");
        for (held, got, declared) in
            [(&mut self.sps, sps, &description.sps), (&mut self.pps, pps, &description.pps)]
        {
            let Some(got) = got else { continue };
            let changed = held.as_ref().is_some_and(|held| *held != got);
            findings.check(idr || !changed, "H7", event, "parameter sets change within a group");
            let as_declared = changed || declared.is_empty() || got == *declared;
            findings.check(as_declared, "S5", event, "not the SDP's parameter set");
            if nal::kind(&got) == nal::SPS {
                check_reordering(&got, event, findings);
            }
            *held = Some(got);
        }
    }
}

/// H9: a decoder that believes the VUI need not wait for pictures out of order (E.2.1).
fn check_reordering(sps: &[u8], event: usize, findings: &mut Findings) {
    let parsed = match nal::parse_sps(sps) {
        Ok(parsed) => parsed,
        Err(error) => return findings.add("H9", event, format!("no SPS: {error}")),
    };
    let restrictions = parsed.vui_parameters.and_then(|vui| vui.bitstream_restrictions);
    let reordered = restrictions.is_some_and(|limits| limits.max_num_reorder_frames != 0);
    findings.check(!reordered, "H9", event, "max_num_reorder_frames is not 0");
}
