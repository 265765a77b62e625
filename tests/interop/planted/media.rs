//! Faults in what the camera sends: rules T, H and C, and S5.

use super::{Change, Plant, packets, reply_to};
use crate::capture::{Capture, Kind};
use crate::client::Lower;
use crate::golden::Recipe;
use crate::nal;

pub(super) fn plants() -> Vec<Plant> {
    let recipes = [pictures(), streams()].into_iter().flatten();
    let captures = [headers(), payloads(), reports()].into_iter().flatten();
    let recorded = captures.map(|(rule, name, change)| (rule, name, Change::Capture(change)));
    let made = recipes.map(|(rule, name, change)| (rule, name, Change::Recipe(change)));
    let with = |lower| move |(rule, name, change)| Plant { rule, name, lower, change };
    let udp: Recorded = ("C5", "a report from the RTP port", |capture| {
        for event in &mut capture.events {
            if let Kind::Datagram { from, to: 5001, .. } = &mut event.kind {
                from.set_port(8000);
            }
        }
    });
    let udp = Plant { rule: udp.0, name: udp.1, lower: Lower::Udp, change: Change::Capture(udp.2) };
    made.chain(recorded).map(with(Lower::Tcp)).chain([udp]).collect()
}

type Made = (&'static str, &'static str, fn(&mut Recipe));
type Recorded = (&'static str, &'static str, fn(&mut Capture));

/// Returns a NAL unit of `kind` in an access unit of the first play.
fn unit(recipe: &mut Recipe, index: usize, kind: u8) -> &mut Vec<u8> {
    recipe.plays[0][index].iter_mut().find(|unit| nal::kind(unit) == kind).unwrap()
}

/// The second IDR picture: `T6` looks at the first only.
const SECOND_IDR: usize = 30;

fn pictures() -> Vec<Made> {
    vec![
        ("H4", "a start code inside", |recipe| {
            unit(recipe, 40, nal::SLICE).splice(60..60, [1, 0, 0, 1]);
        }),
        ("H4", "an escape that protects nothing", |recipe| {
            unit(recipe, 40, nal::SLICE).splice(60..60, [1, 0, 0, 3, 9]);
        }),
        ("H4", "a zero byte at the end", |recipe| unit(recipe, 40, nal::SLICE).push(0)),
        ("H5", "an IDR slice with nal_ref_idc 0", |recipe| {
            unit(recipe, SECOND_IDR, nal::IDR)[0] = 0x05;
        }),
        ("H5", "an SEI with nal_ref_idc 3", |recipe| {
            recipe.plays[0][40].insert(0, vec![0x66, 5, 1, 0xff, 0x80]);
        }),
        ("H6", "PPS before SPS", |recipe| recipe.plays[0][SECOND_IDR].swap(0, 1)),
        ("H6", "an SEI after the slice", |recipe| {
            recipe.plays[0][40].push(vec![0x06, 5, 1, 0xff, 0x80]);
        }),
        ("H6", "two pictures in one access unit", |recipe| {
            let again = recipe.plays[0][40].clone();
            recipe.plays[0][40].extend(again);
        }),
        ("H7", "an IDR picture without PPS", |recipe| {
            recipe.plays[0][SECOND_IDR].retain(|unit| nal::kind(unit) != nal::PPS);
        }),
        ("H7", "another SPS within a group", |recipe| {
            let mut sps = recipe.sps.clone();
            sps[3] += 1;
            recipe.plays[0][40].insert(0, sps);
        }),
        ("H8", "a group of twice the length", |recipe| {
            recipe.plays[0][SECOND_IDR] = recipe.plays[0][SECOND_IDR - 1].clone();
        }),
        ("H9", "a B slice", |recipe| {
            // After first_mb_in_slice 0 (`1`): slice_type 5, P (`00110`), becomes 6, B (`00111`).
            let slice = unit(recipe, 40, nal::SLICE);
            assert_eq!(slice[1] >> 2, 0b10_0110);
            slice[1] |= 0b100;
        }),
        ("H10", "nine slices", |recipe| {
            for first_mb in 1..9 {
                recipe.plays[0][40].push(tiny_slice(first_mb));
            }
        }),
        ("H11", "damage that only a decoder sees", |recipe| {
            let slice = unit(recipe, SECOND_IDR, nal::IDR);
            let middle = slice.len() / 2;
            slice[middle..middle + 64].fill(0x55);
        }),
        ("H11", "an SEI that the clip does not have", |recipe| {
            recipe.plays[0][40].insert(0, vec![0x06, 5, 1, 0xff, 0x80]);
        }),
    ]
}

/// A P slice header that begins at `first_mb`, and nothing more.
fn tiny_slice(first_mb: u32) -> Vec<u8> {
    let code = first_mb + 1;
    let zeros = code.ilog2() as usize;
    let bits = format!("{}{code:b}00110{}", "0".repeat(zeros), "1".repeat(16));
    let bytes = bits.as_bytes().chunks_exact(8);
    let byte = |bits| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap();
    [0x41].into_iter().chain(bytes.map(byte)).collect()
}

fn streams() -> Vec<Made> {
    vec![
        ("S5", "another PPS in the description", |recipe| {
            *recipe.pps.last_mut().unwrap() ^= 0x60;
        }),
        ("T5", "packets longer than agreed", |recipe| recipe.payload_len_max = 60_000),
        ("T6", "a start at a P picture", |recipe| recipe.plays[0].rotate_left(1)),
        ("H2", "fragments of a small NAL unit", |recipe| recipe.payload_len_max = 900),
        ("C2", "no report after PLAY", |recipe| recipe.reports = vec![5.0]),
        ("C2", "reports a second apart", |recipe| recipe.reports = vec![0.0, 1.0, 5.0]),
        ("C2", "no report in nine seconds", |recipe| recipe.reports = vec![0.0]),
    ]
}

/// Returns the index among `packets` of the last one of the `count`th access unit.
fn end_of_unit(packets: &[&mut Vec<u8>], count: usize) -> usize {
    let mut ends = packets.iter().enumerate().filter(|(_, packet)| packet[1] & 0x80 != 0);
    ends.nth(count).unwrap().0
}

/// The packets of the last IDR picture of the first play, which no report counts any more.
fn last_idr(capture: &mut Capture) -> Vec<&mut Vec<u8>> {
    let mut all = packets(capture, false);
    let start = all.iter().rposition(|packet| nal::kind(&packet[12..]) == nal::SPS).unwrap();
    all.drain(start..).collect()
}

/// The fragments of the last IDR picture of the first play.
fn fragments(capture: &mut Capture) -> Vec<&mut Vec<u8>> {
    let mut all = last_idr(capture);
    all.retain(|packet| nal::kind(&packet[12..]) == 28);
    let last = all.iter().position(|packet| packet[13] & 0x40 != 0).unwrap();
    all.truncate(last + 1);
    assert!(all.len() > 2);
    all
}

fn headers() -> Vec<Recorded> {
    vec![
        ("T1", "another payload type", |capture| {
            let packet = &mut packets(capture, false)[20];
            packet[1] = packet[1] & 0x80 | 97;
        }),
        ("T1", "another SSRC", |capture| packets(capture, false)[20][8] ^= 1),
        ("T2", "a sequence number left out", |capture| {
            let mut packets = packets(capture, false);
            let end = end_of_unit(&packets, 40);
            for packet in &mut packets[end + 1..] {
                let sequence = u16::from_be_bytes([packet[2], packet[3]]).wrapping_add(1);
                packet[2..4].copy_from_slice(&sequence.to_be_bytes());
            }
        }),
        ("T2", "going back after a pause", |capture| {
            let resumed = reply_to(capture, "PAUSE", 200);
            let mut first = None;
            for event in &mut capture.events[resumed..] {
                if let Kind::Interleaved { channel: 0, packet } = &mut event.kind {
                    let old = u16::from_be_bytes([packet[2], packet[3]]);
                    let new = old.wrapping_sub(2000);
                    first.get_or_insert((old, new));
                    packet[2..4].copy_from_slice(&new.to_be_bytes());
                }
            }
            let (old, new) = first.unwrap();
            for event in &mut capture.events[resumed..] {
                if let Kind::Response(bytes) = &mut event.kind {
                    let text = String::from_utf8(bytes.clone()).unwrap();
                    let text = text.replace(&format!("seq={old};"), &format!("seq={new};"));
                    *bytes = text.into_bytes();
                }
            }
        }),
        ("T3", "a timestamp that goes back", |capture| {
            let mut packets = packets(capture, false);
            let (from, to) = (end_of_unit(&packets, 40) + 1, end_of_unit(&packets, 41) + 1);
            for packet in &mut packets[from..to] {
                let timestamp = u32::from_be_bytes(packet[4..8].try_into().unwrap());
                packet[4..8].copy_from_slice(&timestamp.wrapping_sub(6000).to_be_bytes());
            }
        }),
        ("T3", "a timestamp that changes inside", |capture| {
            fragments(capture).last_mut().unwrap()[7] ^= 1;
        }),
        ("T4", "no marker at the end", |capture| {
            let mut packets = packets(capture, false);
            let end = end_of_unit(&packets, 40);
            packets[end][1] &= 0x7f;
        }),
        ("T4", "a marker on the SPS", |capture| last_idr(capture)[0][1] |= 0x80),
        ("T5", "padding", |capture| {
            let sps = &mut *last_idr(capture)[0];
            sps[0] |= 0x20;
            sps.extend([0, 0, 0, 4]);
        }),
        ("T5", "a header extension", |capture| {
            let sps = &mut *last_idr(capture)[0];
            sps[0] |= 0x10;
            sps.splice(12..12, [0xbe, 0xde, 0, 0]);
        }),
    ]
}

fn payloads() -> Vec<Recorded> {
    vec![
        ("H1", "type 30", |capture| last_idr(capture)[0][12] |= 0x1e),
        ("H1", "the forbidden bit", |capture| last_idr(capture)[0][12] |= 0x80),
        ("H2", "no first fragment", |capture| fragments(capture)[0][13] &= 0x7f),
        ("H2", "no last fragment", |capture| fragments(capture).last_mut().unwrap()[13] &= 0xbf),
        ("H2", "first and last in one", |capture| fragments(capture)[0][13] |= 0x40),
        ("H2", "the reserved bit", |capture| fragments(capture)[1][13] |= 0x20),
        ("H2", "another NRI", |capture| fragments(capture)[1][12] ^= 0x40),
        ("H2", "an empty fragment", |capture| fragments(capture)[1].truncate(14)),
        ("H2", "another packet in between", |capture| {
            fragments(capture)[1][12..14].copy_from_slice(&[0x06, 5]);
        }),
        ("H3", "a single unit", |capture| {
            let sps = &mut *last_idr(capture)[0];
            let len = u8::try_from(sps.len() - 12).unwrap();
            sps.splice(12..12, [0x78, 0, len]);
        }),
        ("H3", "a size beyond the end", |capture| {
            let sps = &mut *last_idr(capture)[0];
            let len = u8::try_from(sps.len() - 12).unwrap();
            sps.splice(12..12, [0x78, 0, len + 1]);
        }),
        ("H3", "another NRI than inside", |capture| {
            let sps = &mut *last_idr(capture)[0];
            let len = u8::try_from(sps.len() - 12).unwrap();
            sps.splice(12..12, [0x18, 0, len]);
            sps.extend([0, 2, 0x68, 0xce]);
        }),
        ("H3", "a packet in a packet", |capture| {
            let sps = &mut *last_idr(capture)[0];
            let len = u8::try_from(sps.len() - 12).unwrap();
            sps.splice(12..12, [0x78, 0, len]);
            sps.extend([0, 4, 0x78, 0, 1, 0x67]);
        }),
    ]
}

fn reports() -> Vec<Recorded> {
    /// Length of the SR in a report of one source: the SDES follows.
    const SR_LEN: usize = 28;
    vec![
        ("C1", "no SDES", |capture| packets(capture, true)[1].truncate(SR_LEN)),
        ("C1", "no CNAME", |capture| packets(capture, true)[1][SR_LEN + 8] = 2),
        ("C1", "a length that is too long", |capture| {
            packets(capture, true)[1].pop();
        }),
        ("C1", "BYE before SDES", |capture| {
            let report = &mut *packets(capture, true)[1];
            let ssrc = report[4..8].to_vec();
            let bye: Vec<u8> = [0x81, 203, 0, 1].into_iter().chain(ssrc).collect();
            report.splice(SR_LEN..SR_LEN, bye);
        }),
        ("C3", "another SSRC", |capture| {
            let report = &mut *packets(capture, true)[1];
            report[7] ^= 1;
            report[SR_LEN + 7] ^= 1;
        }),
        ("C3", "a packet too many", |capture| packets(capture, true)[1][23] ^= 1),
        ("C3", "octets with headers", |capture| packets(capture, true)[1][26] ^= 2),
        ("C4", "NTP time two seconds off", |capture| packets(capture, true)[1][11] ^= 2),
        ("C4", "RTP time of the last picture", |capture| {
            let report = &mut *packets(capture, true)[1];
            let timestamp = u32::from_be_bytes(report[16..20].try_into().unwrap());
            report[16..20].copy_from_slice(&timestamp.wrapping_sub(3000).to_be_bytes());
        }),
        ("C4", "a first report later than the first packet", |capture| {
            let report = &mut *packets(capture, true)[0];
            for at in [12, 16] {
                // A quarter of a millisecond: 2^20 of 2^32 parts of a second, and 22 ticks.
                let later = if at == 12 { 1 << 20 } else { 22 };
                let value = u32::from_be_bytes(report[at..at + 4].try_into().unwrap());
                report[at..at + 4].copy_from_slice(&value.wrapping_add(later).to_be_bytes());
            }
        }),
        ("C5", "a report on the RTP channel", |capture| {
            let report = capture.events.iter_mut().find_map(|event| match &mut event.kind {
                Kind::Interleaved { channel: channel @ 1, .. } => Some(channel),
                _ => None,
            });
            *report.unwrap() = 0;
        }),
    ]
}
