//! RTCP as receivers see it: what a camera's reports say, held against the truth; and what a viewer
//! says about itself.
//!
//! RFC 3550 6.4.1, 6.4.2, 6.6; RFC 4585 6.3.1.

use std::collections::VecDeque;
use std::time::Duration;

use ocellus::time::{Instant, RtpTimestamp};

use super::strict::Packet;
use super::truth::{Checked, Rule, Truth, hold};

/// The sender reports of one session.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    first: Option<(u64, u32)>,
    /// What the newest is named by, and when it came.
    newest: Option<(u32, Instant)>,
    pub(crate) has_ended: bool,
}

impl Reports {
    /// Takes note of a report that may have been lost, or be an older session's: to answer it.
    pub(crate) fn hear(&mut self, now: Instant, bytes: &[u8]) {
        if let Some(name) = bytes.get(10..14).and_then(<[u8]>::as_array) {
            self.newest = Some((u32::from_be_bytes(*name), now));
        }
    }

    /// Takes a compound packet; the packet count that it states.
    pub(crate) fn receive(&mut self, now: Instant, truth: &Truth, bytes: &[u8]) -> Checked<u32> {
        let well = bytes.len() >= 40
            && bytes[..4] == [0x80, 200, 0, 6]
            && bytes[4..8] == truth.ssrc.to_be_bytes()
            && bytes[28..30] == [0x81, 202];
        hold(well, Rule::Report, || format!("no sender report: {bytes:02x?}"))?;
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let ntp = (u64::from(word(8)) << 32) | u64::from(word(12));
        let (rtp, count) = (word(16), word(20));
        self.newest = Some((word(10), now));
        let sdes_end = 32 + 4 * usize::from(u16::from_be_bytes([bytes[30], bytes[31]]));
        self.has_ended = bytes.get(sdes_end..sdes_end + 2) == Some(&[0x81, 203]);
        let &mut (ntp0, rtp0) = self.first.get_or_insert((ntp, rtp));
        // By how much the two clocks differ since the first report, in microseconds.
        let by_ntp = ((i128::from(ntp) - i128::from(ntp0)) * 1_000_000) >> 32;
        let ticks = i128::from(rtp.wrapping_sub(rtp0).cast_signed());
        let by_rtp = ticks * 1_000_000 / i128::from(RtpTimestamp::HZ);
        // A small step of the wall clock is followed at 500 ppm.
        let allowed = 1_000 + by_rtp.abs() * 6 / 10_000;
        hold((by_ntp - by_rtp).abs() <= allowed, Rule::Report, || {
            format!("the wall clock went {by_ntp} us, the stream {by_rtp} us")
        })?;
        Ok(count)
    }
}

/// A viewer that gets datagrams: what it has got, whatever happened on the way.
#[derive(Debug, Default)]
pub(crate) struct Reception {
    /// Newest access units, in the order in which they began to come.
    units: VecDeque<Partial>,
    /// Highest sequence number, with how often it has wrapped.
    highest: Option<u32>,
    first: u32,
    received: u32,
    /// Expected and received at the last report.
    reported: (u32, u32),
    /// Packets are missing, so that the decoder would ask for an IDR.
    pub(crate) is_broken: bool,
}

#[derive(Debug, Default)]
struct Partial {
    timestamp: u32,
    /// Of its parameter set, and of the packet with the marker.
    ends: (Option<u16>, Option<u16>),
    sequences: Vec<u16>,
}

impl Reception {
    /// Takes a datagram; whether an IDR is now whole.
    pub(crate) fn packet(&mut self, truth: &Truth, bytes: &[u8]) -> Checked<bool> {
        let packet = Packet::parse(bytes, truth)?;
        self.count(packet.sequence);
        let known = self.units.iter().position(|unit| unit.timestamp == packet.timestamp);
        let index = known.unwrap_or_else(|| {
            self.units.push_back(Partial { timestamp: packet.timestamp, ..Partial::default() });
            self.units.len() - 1
        });
        let unit = &mut self.units[index];
        if !unit.sequences.contains(&packet.sequence) {
            unit.sequences.push(packet.sequence);
        }
        if packet.is_sps() {
            unit.ends.0 = Some(packet.sequence);
        }
        if packet.has_marker {
            unit.ends.1 = Some(packet.sequence);
        }
        let is_idr = match unit.ends {
            (Some(first), Some(last)) => {
                unit.sequences.len() == 1 + usize::from(last.wrapping_sub(first))
            }
            _ => false,
        };
        if is_idr {
            self.is_broken = false;
        }
        if self.units.len() > UNITS {
            self.units.pop_front();
        }
        Ok(is_idr)
    }

    fn count(&mut self, sequence: u16) {
        let highest = match self.highest {
            None => {
                self.first = u32::from(sequence);
                u32::from(sequence)
            }
            Some(highest) => {
                let [_, _, high, low] = highest.to_be_bytes();
                let ahead = sequence.wrapping_sub(u16::from_be_bytes([high, low]));
                self.is_broken |= (2..0x8000).contains(&ahead);
                if ahead < 0x8000 { highest + u32::from(ahead) } else { highest }
            }
        };
        self.highest = Some(highest);
        self.received += 1;
    }

    /// A receiver report: an empty one before the first packet.
    pub(crate) fn report(
        &mut self,
        now: Instant,
        own: u32,
        truth: &Truth,
        sr: &Reports,
    ) -> Vec<u8> {
        let Some(highest) = self.highest else {
            return [&[0x80, 201, 0, 1][..], &own.to_be_bytes()].concat();
        };
        let expected = highest - self.first + 1;
        let (expected_before, received_before) = self.reported;
        let interval = expected - expected_before;
        let lost = interval.saturating_sub(self.received - received_before);
        self.reported = (expected, self.received);
        let fraction = (lost << 8).checked_div(interval).unwrap_or(0).min(255);
        let total = expected.wrapping_sub(self.received) & 0x00ff_ffff;
        let (name, came) = sr.newest.unwrap_or((0, now));
        let since = now.since(came).as_micros() * 65_536 / 1_000_000;
        let since = u32::try_from(since).unwrap();
        let words = [own, truth.ssrc, (fraction << 24) | total, highest, 0, name, since];
        let words = words.into_iter().flat_map(u32::to_be_bytes);
        [0x81, 201, 0, 7].into_iter().chain(words).collect()
    }
}

/// "Picture loss": please, an IDR.
pub(crate) fn picture_loss(own: u32, ssrc: u32) -> Vec<u8> {
    [&[0x80, 201, 0, 1][..], &own.to_be_bytes(), &[0x81, 206, 0, 2], &own.to_be_bytes()]
        .into_iter()
        .chain([&ssrc.to_be_bytes()[..]])
        .flatten()
        .copied()
        .collect()
}

/// "I leave."
pub(crate) fn bye(own: u32) -> Vec<u8> {
    [&[0x80, 201, 0, 1][..], &own.to_be_bytes(), &[0x81, 203, 0, 1], &own.to_be_bytes()].concat()
}

/// Whether a compound says BYE.
pub(crate) fn has_bye(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Some([_, kind, high, low]) = bytes.get(at..at + 4) {
        if *kind == 203 {
            return true;
        }
        at += 4 + 4 * usize::from(u16::from_be_bytes([*high, *low]));
    }
    false
}

/// Between two reports of a receiver.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Access units that are looked at together: packets overtake each other by no more.
const UNITS: usize = 16;
