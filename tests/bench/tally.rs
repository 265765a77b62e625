//! What viewers have seen: when, how late, how far apart, and what was missing.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use nix::sys::time::{TimeSpec, TimeValLike as _};

use crate::framing::{Framing, RtpHead, rtp_head, sender_report};

/// All viewers of one load together.
pub(crate) struct Tally {
    pub(crate) is_measuring: bool,
    viewer_count: usize,
    /// By RTP timestamp: the arrival of the last packet of each access unit.
    units: HashMap<u32, Arrivals>,
    /// From the instant that the sender report names for a picture to the arrival of its last packet
    /// in the viewer's socket, in µs, for every viewer and picture; the clocks are the same
    /// machine's.
    pub(crate) latency: Vec<i64>,
    /// The same, to the return of the read that took it out of the socket: with what the generator
    /// itself is late, because it reads one viewer after the other.
    pub(crate) latency_read: Vec<i64>,
    /// From PLAY to the first packet, and to the first of an IDR slice.
    pub(crate) first_packet: Vec<Duration>,
    pub(crate) first_idr: Vec<Duration>,
    pub(crate) packets: u64,
    /// Gaps of the sequence.
    pub(crate) lost: u64,
    /// The same of the viewer that stalled, which counts nowhere else.
    pub(crate) lost_by_rude: u64,
    /// Connections that the server closed.
    pub(crate) closed: u64,
    /// Of one core, of the generator itself, while measuring.
    pub(crate) cpu_share: f64,
}

#[derive(Clone, Copy)]
struct Arrivals {
    first: i64,
    last: i64,
    count: usize,
}

/// When bytes came, by the wall clock, in µs since 1970.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    /// Into the socket, as the kernel has it.
    queued: i64,
    /// Out of it.
    read: i64,
}

impl Arrival {
    /// Of bytes that were read just now. Without a time by the kernel (of what came before it had
    /// begun to keep them), they came now: later than in truth, never sooner.
    pub(crate) fn new(queued: Option<TimeSpec>) -> Self {
        let read = wall();
        Self { queued: queued.map_or(read, |at| at.num_microseconds()), read }
    }
}

fn wall() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as i64
}

impl Tally {
    pub(crate) fn new(viewer_count: usize) -> Self {
        Self {
            is_measuring: false,
            viewer_count,
            units: HashMap::with_capacity(4_096),
            latency: Vec::with_capacity(viewer_count * 1_024),
            latency_read: Vec::with_capacity(viewer_count * 1_024),
            first_packet: Vec::new(),
            first_idr: Vec::new(),
            packets: 0,
            lost: 0,
            lost_by_rude: 0,
            closed: 0,
            cpu_share: 0.0,
        }
    }

    pub(crate) fn conclude(&mut self, viewing: &Viewing) {
        self.first_packet.extend(viewing.first_packet);
        self.first_idr.extend(viewing.first_idr);
    }

    /// Pictures that at least one viewer has had while it counted.
    pub(crate) fn access_units(&self) -> usize {
        self.units.len()
    }

    /// For each picture that all viewers have had: from the first one's arrival to the last's.
    pub(crate) fn spreads(&self) -> Vec<i64> {
        let all = self.units.values().filter(|unit| unit.count == self.viewer_count);
        all.map(|unit| unit.last - unit.first).collect()
    }
}

/// One viewer's side of the stream.
#[derive(Default)]
pub(crate) struct Viewing {
    framing: Framing,
    /// When PLAY was sent, as [`Arrival`] counts.
    asked: Option<i64>,
    first_packet: Option<Duration>,
    first_idr: Option<Duration>,
    last_sequence: Option<u16>,
    /// Wall clock (µs since 1970) and RTP timestamp of the newest sender report.
    anchor: Option<(i64, u32)>,
    /// It stalls on purpose: it counts for itself.
    pub(crate) is_rude: bool,
}

impl Viewing {
    /// PLAY is sent now.
    pub(crate) fn plays(&mut self) {
        self.asked = Some(wall());
    }

    pub(crate) fn has_joined(&self) -> bool {
        self.first_idr.is_some()
    }

    /// Takes a piece of an interleaved stream.
    pub(crate) fn stream(&mut self, tally: &mut Tally, arrival: Arrival, bytes: &[u8]) {
        let mut framing = std::mem::take(&mut self.framing);
        framing.feed(bytes, |is_rtcp, head| {
            if is_rtcp { self.report(head) } else { self.packet(tally, arrival, head) }
        });
        self.framing = framing;
    }

    /// Takes an RTCP packet.
    pub(crate) fn report(&mut self, packet: &[u8]) {
        if let Some((ntp, rtp)) = sender_report(packet) {
            let seconds = (ntp >> 32) as i64 - UNIX_EPOCH_IN_NTP_S;
            let micros = (((ntp & 0xffff_ffff) * 1_000_000) >> 32) as i64;
            self.anchor = Some((seconds * 1_000_000 + micros, rtp));
        }
    }

    /// Takes an RTP packet.
    pub(crate) fn packet(&mut self, tally: &mut Tally, arrival: Arrival, packet: &[u8]) {
        let Some(head) = rtp_head(packet) else { return };
        if let (false, Some(asked)) = (self.has_joined(), self.asked) {
            let since = Duration::from_micros((arrival.queued - asked).max(0) as u64);
            self.first_packet.get_or_insert(since);
            self.first_idr = head.is_idr.then_some(since);
        }
        let last = self.last_sequence.replace(head.sequence);
        if !tally.is_measuring {
            return;
        }
        tally.packets += 1;
        let missing = last.map_or(0, |last| head.sequence.wrapping_sub(last).wrapping_sub(1));
        // What came late or twice is no loss of 65 thousand.
        let missing = u64::from(if missing < 1 << 15 { missing } else { 0 });
        *(if self.is_rude { &mut tally.lost_by_rude } else { &mut tally.lost }) += missing;
        if head.marker && !self.is_rude {
            self.picture(tally, arrival, head);
        }
    }

    fn picture(&self, tally: &mut Tally, arrival: Arrival, head: RtpHead) {
        let at = arrival.queued;
        let new = Arrivals { first: at, last: at, count: 0 };
        let unit = tally.units.entry(head.timestamp).or_insert(new);
        (unit.last, unit.count) = (at, unit.count + 1);
        if let Some((wall, rtp)) = self.anchor {
            let ticks = i64::from(head.timestamp.wrapping_sub(rtp).cast_signed());
            let due = wall + ticks * 100 / 9;
            tally.latency.push(at - due);
            tally.latency_read.push(arrival.read - due);
        }
    }
}

/// The value that so many percent are not above; `None` of nothing.
pub(crate) fn percentile<T: Copy + Ord>(values: &mut [T], percent: usize) -> Option<T> {
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    Some(values[last * percent / 100])
}

/// Seconds from 1900-01-01 to 1970-01-01 (RFC 868).
const UNIX_EPOCH_IN_NTP_S: i64 = 2_208_988_800;
