//! Judges RTP packets: T1 to T6, and R4, which ties RTP-Info to the first of them.
//!
//! RFC 3550 5.1 and RFC 6184 5.1; RTP-Info is RFC 2326 12.33. Also finds where access units begin.

use std::ops::Range;
use std::time::Duration;

use rtp_types::RtpPacket;

use crate::capture::Message;
use crate::nal;

use super::sdp::Description;
use super::session::{Exchange, Play, Session};
use super::{Expect, Findings};

#[derive(Clone, Debug)]
pub(super) struct Packet<'a> {
    pub(super) event: usize,
    pub(super) at: Duration,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    pub(super) payload: &'a [u8],
}

/// The RTP packets of one play.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    pub(super) ssrc: u32,
    /// When PLAY was answered.
    pub(super) answered_at: Duration,
    /// Packets of each whole access unit; what the capture cut off at its end is left out.
    pub(super) packets: Vec<Vec<Packet<'a>>>,
    /// Every packet, in order of arrival.
    pub(super) all: Vec<Packet<'a>>,
}

pub(super) fn check<'a>(
    session: &Session<'a>,
    description: &Description,
    expect: &Expect<'_>,
    findings: &mut Findings,
) -> Vec<Stream<'a>> {
    let setup = session.exchanges.iter().rfind(|exchange| exchange.is("SETUP", 200));
    let transport = setup.and_then(|exchange| exchange.reply.header("Transport")).unwrap_or("");
    let ssrc = transport.split(';').find_map(|part| part.strip_prefix("ssrc="));
    let ssrc = ssrc.and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let mut last: Option<(u16, u32)> = None;
    let mut streams = Vec::new();
    // R3 has said so when Transport names none: then the first packet does.
    let first = || RtpPacket::parse(session.plays.first()?.rtp.first()?.bytes).ok();
    let ssrc = ssrc.or_else(|| first().map(|packet| packet.ssrc()));
    for play in &session.plays {
        let exchange = &session.exchanges[play.exchange];
        let all = parse(play, description, ssrc, expect, findings);
        check_rtp_info(exchange, description, all.first(), expect, findings);
        check_sequence(&all, last.map(|(sequence, _)| sequence), findings);
        let groups = group(&all, findings);
        check_timestamps(&all, &groups, last.map(|(_, timestamp)| timestamp), expect, findings);
        check_first(&all, &groups, findings);
        last = all.last().map(|packet| (packet.sequence, packet.timestamp)).or(last);
        let packets = groups.into_iter().map(|range| all[range].to_vec()).collect();
        let ssrc = ssrc.unwrap_or(0);
        streams.push(Stream { ssrc, answered_at: play.answered_at, packets, all });
    }
    streams
}

/// T1 and T5: the fixed header, and how long a packet may be.
fn parse<'a>(
    play: &Play<'a>,
    description: &Description,
    ssrc: Option<u32>,
    expect: &Expect<'_>,
    findings: &mut Findings,
) -> Vec<Packet<'a>> {
    let mut packets = Vec::new();
    for arrival in &play.rtp {
        let event = arrival.event;
        let packet = match RtpPacket::parse(arrival.bytes) {
            Ok(packet) => packet,
            Err(error) => {
                findings.add("T1", event, format!("no RTP packet: {error}"));
                continue;
            }
        };
        let declared = description.payload_type.is_none_or(|it| it == packet.payload_type());
        findings.check(declared, "T1", event, "payload type is not the SDP's");
        findings.check(Some(packet.ssrc()) == ssrc, "T1", event, "SSRC is not the Transport's");
        let plain = !packet.padding_bit() && !packet.extension_bit() && packet.n_csrcs() == 0;
        findings.check(plain, "T5", event, "padding, extension or contributing sources");
        let len = arrival.bytes.len();
        findings.check(len <= expect.packet_len_max, "T5", event, format!("{len} bytes long"));
        packets.push(Packet {
            event,
            at: arrival.at,
            sequence: packet.sequence_number(),
            timestamp: packet.timestamp(),
            marker: packet.marker_bit(),
            // Borrowed from the capture, without padding: octet counts leave it out too.
            payload: &arrival.bytes[packet.payload_offset()..][..packet.payload_len()],
        });
    }
    packets
}

/// R4: RTP-Info names the stream as the client does, and its very first packet.
fn check_rtp_info(
    exchange: &Exchange,
    description: &Description,
    first: Option<&Packet<'_>>,
    expect: &Expect<'_>,
    findings: &mut Findings,
) {
    let event = exchange.answered;
    let Some(info) = RtpInfo::parse(&exchange.reply) else {
        let got = exchange.reply.header("RTP-Info");
        // A clip's next IDR picture may be more than a second away: then PLAY is answered before it.
        let unknown = got.is_none() && expect.clip.is_some() && exchange.took >= PATIENCE;
        let what = format!("RTP-Info is not one url;seq;rtptime: {got:?}");
        return findings.check(unknown, "R4", event, what);
    };
    let same = description.control.is_empty() || info.url == description.control;
    findings.check(same, "R4", event, format!("url {} is not {}", info.url, description.control));
    let Some(first) = first else {
        return findings.add("R4", event, "no packet at all after PLAY");
    };
    let named = (info.sequence, info.timestamp) == (first.sequence, first.timestamp);
    let (sequence, timestamp) = (first.sequence, first.timestamp);
    let what = format!("{info:?}, but the first packet has {sequence} and {timestamp}");
    findings.check(named, "R4", event, what);
    // retina ignores these two: some cameras send them without meaning them.
    findings.check(info.sequence > 1, "R4", event, "a first sequence number of 0 or 1");
}

/// The single entry of an RTP-Info header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RtpInfo {
    pub(crate) url: String,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
}

impl RtpInfo {
    /// Reads the header in the one form that every client understands.
    pub(crate) fn parse(reply: &Message) -> Option<Self> {
        let parts: Vec<&str> = reply.header("RTP-Info")?.split(';').collect();
        let [url, sequence, timestamp] = parts[..] else { return None };
        Some(Self {
            url: url.strip_prefix("url=")?.to_owned(),
            sequence: sequence.strip_prefix("seq=")?.parse().ok()?,
            timestamp: timestamp.strip_prefix("rtptime=")?.parse().ok()?,
        })
    }
}

/// T2: +1 from packet to packet; from one play to the next only forward.
fn check_sequence(packets: &[Packet<'_>], before: Option<u16>, findings: &mut Findings) {
    if let (Some(before), Some(first)) = (before, packets.first()) {
        let forward = (1..0x8000).contains(&first.sequence.wrapping_sub(before));
        findings.check(forward, "T2", first.event, format!("{} after {before}", first.sequence));
    }
    for pair in packets.windows(2) {
        let (last, next) = (pair[0].sequence, pair[1].sequence);
        let contiguous = next == last.wrapping_add(1);
        findings.check(contiguous, "T2", pair[1].event, format!("{next} after {last}"));
    }
}

/// T3 and T4: cuts the packets into access units where timestamp, marker and NAL units agree, and
/// says who is wrong where they do not.
fn group(packets: &[Packet<'_>], findings: &mut Findings) -> Vec<Range<usize>> {
    let (mut groups, mut start, mut picture_seen) = (Vec::new(), 0, false);
    for index in 1..packets.len() {
        let (last, next) = (&packets[index - 1], &packets[index]);
        picture_seen |= carries_slice(last.payload);
        let begins = picture_seen && begins_access_unit(next.payload);
        let new_time = last.timestamp != next.timestamp;
        let cut = match (last.marker, new_time, begins) {
            (true, true, _) => true,
            (true, false, true) => {
                findings.add("T3", next.event, "two access units with one timestamp");
                true
            }
            (true, false, false) => {
                findings.add("T4", last.event, "marker before the end of the access unit");
                false
            }
            (false, true, true) => {
                findings.add("T4", last.event, "no marker at the end of the access unit");
                true
            }
            (false, true, false) => {
                findings.add("T3", next.event, "the timestamp changes inside an access unit");
                false
            }
            (false, false, _) => false,
        };
        if cut {
            groups.push(start..index);
            (start, picture_seen) = (index, false);
        }
    }
    if packets.last().is_some_and(|last| last.marker) {
        groups.push(start..packets.len());
    }
    groups
}

/// T3: timestamps only grow, at the rate of the pictures.
fn check_timestamps(
    packets: &[Packet<'_>],
    groups: &[Range<usize>],
    before: Option<u32>,
    expect: &Expect<'_>,
    findings: &mut Findings,
) {
    let starts: Vec<&Packet<'_>> = groups.iter().map(|group| &packets[group.start]).collect();
    let mut steps = Vec::new();
    let mut last = before;
    for start in &starts {
        if let Some(last) = last {
            let step = start.timestamp.wrapping_sub(last);
            let forward = (1..1 << 31).contains(&step);
            findings.check(forward, "T3", start.event, format!("{} after {last}", start.timestamp));
            steps.push(step);
        }
        last = Some(start.timestamp);
    }
    // The first step may be a pause; single steps vary with the sensor, their median does not.
    let mut steps = steps.split_off(usize::from(before.is_some()).min(steps.len()));
    steps.sort_unstable();
    let Some(&median) = steps.get(steps.len() / 2) else { return };
    let expected = 90_000.0 / expect.fps;
    let close = (f64::from(median) - expected).abs() <= expected * 0.05;
    let event = starts.first().map_or(0, |start| start.event);
    findings.check(close, "T3", event, format!("median step {median} ticks, not {expected:.0}"));
}

/// T6: the first packet is the SPS of an access unit with SPS, PPS and IDR picture.
fn check_first(packets: &[Packet<'_>], groups: &[Range<usize>], findings: &mut Findings) {
    let Some(first) = packets.first() else { return };
    let starts = first_nal(first.payload).is_some_and(|unit| nal::kind(&unit) == nal::SPS);
    findings.check(starts, "T6", first.event, "the first packet is not an SPS");
    let Some(group) = groups.first() else { return };
    let kinds: Vec<u8> = packets[group.clone()].iter().flat_map(|p| kinds(p.payload)).collect();
    let complete = [nal::SPS, nal::PPS, nal::IDR].iter().all(|kind| kinds.contains(kind));
    let what = format!("the first access unit has NAL unit types {kinds:?}");
    findings.check(complete, "T6", first.event, what);
}

/// Returns the first bytes of the NAL unit that begins with this payload.
fn first_nal(payload: &[u8]) -> Option<Vec<u8>> {
    match nal::kind(payload) {
        24 => payload.get(3..).map(<[u8]>::to_vec),
        28 if payload.get(1)? & 0x80 == 0 => None,
        28 => Some(vec![payload[0] & 0xe0 | payload[1] & 0x1f, *payload.get(2)?]),
        _ => Some(payload.get(..payload.len().min(2))?.to_vec()),
    }
}

fn begins_access_unit(payload: &[u8]) -> bool {
    first_nal(payload).is_some_and(|unit| nal::begins_access_unit(&unit))
}

/// Returns the types of the NAL units that this payload has something of.
fn kinds(payload: &[u8]) -> Vec<u8> {
    match nal::kind(payload) {
        24 => {
            let (mut rest, mut kinds) = (&payload[1..], Vec::new());
            while let [high, low, unit @ ..] = rest {
                kinds.push(nal::kind(unit));
                let len = usize::from(u16::from_be_bytes([*high, *low]));
                rest = unit.get(len..).unwrap_or(&[]);
            }
            kinds
        }
        28 => payload.get(1).map(|header| header & 0x1f).into_iter().collect(),
        kind => vec![kind],
    }
}

fn carries_slice(payload: &[u8]) -> bool {
    kinds(payload).iter().any(|kind| (nal::SLICE..=nal::IDR).contains(kind))
}

/// How long PLAY waits for an IDR picture, nearly.
const PATIENCE: Duration = Duration::from_millis(950);
