//! Turns RTP payloads back into NAL units and judges how they were packed: H1 to H3.
//!
//! RFC 6184 5.4 (packetization mode 1), 5.6 single NAL unit packets, 5.7.1 STAP-A, 5.8 FU-A.

use std::time::Duration;

use crate::nal;

use super::rtp::Packet;
use super::{Expect, Findings};

/// One access unit as received.
#[derive(Clone, Debug)]
pub(super) struct Received {
    /// Event of its first packet.
    pub(super) event: usize,
    pub(super) at: Duration,
    pub(super) timestamp: u32,
    pub(super) nals: Vec<Vec<u8>>,
    /// Its packing broke a rule, so that its NAL units may be missing or wrong.
    pub(super) damaged: bool,
}

/// Reassembles the access units of one play.
pub(super) fn reassemble(
    groups: &[Vec<Packet<'_>>],
    expect: &Expect<'_>,
    findings: &mut Findings,
) -> Vec<Received> {
    groups.iter().map(|packets| reassemble_one(packets, expect, findings)).collect()
}

fn reassemble_one(
    packets: &[Packet<'_>],
    expect: &Expect<'_>,
    findings: &mut Findings,
) -> Received {
    let before = findings.violations.len();
    let first = &packets[0];
    let mut nals = Vec::new();
    let mut open: Option<Fragments> = None;
    for packet in packets {
        let (payload, event) = (packet.payload, packet.event);
        let kind = nal::kind(payload);
        let header = payload.first().copied().unwrap_or(0);
        findings.check(header & 0x80 == 0, "H1", event, "the forbidden bit is set");
        if kind != FU_A && open.take().is_some() {
            findings.add("H2", event, "another packet among the fragments of a NAL unit");
        }
        match kind {
            1..=23 => nals.push(payload.to_vec()),
            STAP_A => nals.extend(split_aggregate(payload, event, findings)),
            FU_A => nals.extend(fragment(packet, &mut open, expect, findings)),
            _ => findings.add("H1", event, format!("type {kind} is not of mode 1")),
        }
    }
    if open.is_some() {
        findings.add("H2", first.event, "a NAL unit without its last fragment");
    }
    let damaged = findings.violations.len() > before;
    Received { event: first.event, at: first.at, timestamp: first.timestamp, nals, damaged }
}

/// H3: at least two units whose sizes fill the packet, none of them a packet again.
fn split_aggregate(payload: &[u8], event: usize, findings: &mut Findings) -> Vec<Vec<u8>> {
    let (mut rest, mut units) = (&payload[1..], Vec::new());
    while !rest.is_empty() {
        let size = rest.first_chunk::<2>().map(|size| usize::from(u16::from_be_bytes(*size)));
        let unit = size.and_then(|size| rest.get(2..2 + size)).filter(|unit| !unit.is_empty());
        let Some(unit) = unit else {
            findings.add("H3", event, "the sizes do not fill the packet");
            return units;
        };
        findings.check(nal::kind(unit) < STAP_A, "H3", event, "a nested packet");
        rest = &rest[2 + unit.len()..];
        units.push(unit.to_vec());
    }
    findings.check(units.len() >= 2, "H3", event, "fewer than two units");
    let nri = units.iter().map(|unit| unit[0] & NRI).max();
    findings.check(nri == Some(payload[0] & NRI), "H3", event, "NRI is not the highest inside");
    units
}

/// The fragments of a NAL unit seen so far.
#[derive(Debug)]
struct Fragments {
    nal: Vec<u8>,
    sequence: u16,
    count: usize,
}

/// H2: takes in one FU-A packet; returns the NAL unit that it completes.
fn fragment(
    packet: &Packet<'_>,
    open: &mut Option<Fragments>,
    expect: &Expect<'_>,
    findings: &mut Findings,
) -> Option<Vec<u8>> {
    let mut require = |holds: bool, what: &str| findings.check(holds, "H2", packet.event, what);
    let &[indicator, header, ref body @ ..] = packet.payload else {
        require(false, "no FU header");
        return None;
    };
    let (starts, ends) = (header & 0x80 != 0, header & 0x40 != 0);
    require(!(starts && ends), "start and end in one packet");
    require(header & 0x20 == 0, "the reserved bit is set");
    // FFmpeg refuses a fragment without payload (rtpdec_h264.c).
    require(!body.is_empty(), "an empty fragment");
    let nal_header = indicator & 0xe0 | header & 0x1f;
    if starts {
        require(open.is_none(), "a NAL unit without its last fragment");
        let nal = vec![nal_header];
        *open = Some(Fragments { nal, sequence: packet.sequence.wrapping_sub(1), count: 0 });
    }
    let Some(fragments) = open.as_mut() else {
        require(false, "a fragment without a first one");
        return None;
    };
    require(fragments.nal[0] == nal_header, "NRI or type changes among the fragments");
    let contiguous = packet.sequence == fragments.sequence.wrapping_add(1);
    require(contiguous, "sequence numbers of fragments are not contiguous");
    fragments.nal.extend_from_slice(body);
    fragments.sequence = packet.sequence;
    fragments.count += 1;
    if !ends {
        return None;
    }
    let whole = open.take()?;
    require(whole.count >= 2, "a single fragment");
    let fits = whole.nal.len() + RTP_HEADER_LEN <= expect.packet_len_max;
    require(!fits, "fragments of a NAL unit that fits one packet");
    Some(whole.nal)
}

const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const NRI: u8 = 0x60;
const RTP_HEADER_LEN: usize = 12;
