//! What the server keeps for one session that has played, or for one group: where it goes, and its
//! RTCP.
//!
//! RFC 3550 6.2, 6.4.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::stream::Stream;
use crate::fanout::{Counts, ViewerId};
use crate::rtp::SenderClock;
use crate::rtp::rtcp::{Compound, ReceptionReport, SenderReport};
use crate::rtsp::{Delivery, SessionId};
use crate::stats::Reception;
use crate::time::{Instant, NtpTimestamp, RtpTimestamp, low_32};

#[derive(Debug)]
pub(super) struct Playing {
    /// Tells the session from all others of this run.
    pub(super) number: u64,
    pub(super) stream: usize,
    /// `None` while it is paused, and for a session that listens to a group.
    pub(super) viewer: Option<ViewerId>,
    pub(super) delivery: Delivery,
    /// What was sent before the last pause: a sender's counts last as long as its SSRC.
    before: Counts,
    /// Set by the first report.
    clock: Option<SenderClock>,
    next_report: Instant,
    /// The newest reports, the last one first: what they will be named by, and when they went.
    reports: [(u32, Instant); 2],
    /// What its receiver last reported; of a group nobody's, who report to the group.
    reception: Option<Reception>,
    /// When this viewer's wish for an IDR last counted.
    idr_asked: Option<Instant>,
    /// When ICMP first and last said that nobody listens, without a word from the viewer since.
    unreachable: Option<(Instant, Instant)>,
}

impl Playing {
    pub(super) fn new(now: Instant, number: u64, stream: usize, delivery: Delivery) -> Self {
        Self {
            number,
            stream,
            viewer: None,
            delivery,
            before: Counts::default(),
            clock: None,
            next_report: now,
            reports: [(0, now); 2],
            reception: None,
            idr_asked: None,
            unreachable: None,
        }
    }

    /// Plays, perhaps again after a pause, and perhaps to elsewhere.
    pub(super) const fn resume(&mut self, viewer: Option<ViewerId>, delivery: Delivery) {
        self.viewer = viewer;
        self.delivery = delivery;
    }

    /// Ends with `counts` since it last began to play.
    pub(super) fn pause(&mut self, counts: Counts) {
        self.viewer = None;
        self.before = self.total(counts);
    }

    /// All that was sent in this session, with `counts` since it last began to play.
    pub(super) const fn total(&self, counts: Counts) -> Counts {
        let Counts { packets, octets, dropped, drops } = self.before;
        Counts {
            packets: packets + counts.packets,
            octets: octets + counts.octets,
            dropped: dropped + counts.dropped,
            drops: drops + counts.drops,
        }
    }

    /// When the next sender report is due: at once after PLAY, then every five seconds.
    pub(super) fn next_report(&self) -> Option<Instant> {
        self.viewer.map(|_| self.next_report)
    }

    /// The sender report made at `now`.
    pub(super) fn report(
        &mut self,
        now: Instant,
        wall: NtpTimestamp,
        stream: &Stream,
        counts: Counts,
        cname: &str,
        is_over: bool,
    ) -> Compound {
        self.next_report = now + REPORT_INTERVAL;
        let (at, rtp) = stream.reported(now);
        let age = now.as_micros().cast_signed() - at.as_micros().cast_signed();
        let wall = wall.offset_by_micros(-age);
        let total = self.total(counts);
        let clock = self.clock.get_or_insert_with(|| SenderClock::new(at, wall));
        let ntp = clock.ntp(at, wall);
        self.reports = [(ntp.middle(), now), self.reports[0]];
        SenderReport {
            ssrc: stream.ssrc(),
            ntp,
            rtp,
            packet_count: low_32(total.packets),
            octet_count: low_32(total.octets),
        }
        .emit(cname, is_over)
    }

    /// Takes note of what the receiver says of the stream.
    pub(super) fn received(&mut self, now: Instant, report: &ReceptionReport) {
        let before = self.reception.and_then(|reception| reception.round_trip);
        let jitter_micros =
            u64::from(report.jitter_ticks) * 1_000_000 / u64::from(RtpTimestamp::HZ);
        self.reception = Some(Reception {
            lost: i64::from(report.lost),
            loss: f64::from(report.fraction_lost) / 256.0,
            jitter: Duration::from_micros(jitter_micros),
            round_trip: self.round_trip(now, report).or(before),
        });
    }

    pub(super) const fn reception(&self) -> Option<Reception> {
        self.reception
    }

    /// How long a packet takes to the viewer and back, by what it says of a report of ours (RFC 3550
    /// 6.4.1). By the monotonic clock: the time in a report is that of its newest picture.
    fn round_trip(&self, now: Instant, report: &ReceptionReport) -> Option<Duration> {
        let is_named = |(name, _): &&(u32, Instant)| *name == report.last_report;
        let (_, sent) = self.reports.iter().find(is_named).filter(|(name, _)| *name != 0)?;
        now.since(*sent).checked_sub(report.since_last_report)
    }

    /// Somebody waits for a report; but nobody gets them more often than once a second.
    pub(super) fn hasten_report(&mut self) {
        let [(_, last), _] = self.reports;
        self.next_report = self.next_report.min(last + REPORT_PAUSE);
    }

    /// Whether this viewer may ask for an IDR again: once a second.
    pub(super) fn may_ask_for_idr(&mut self, now: Instant) -> bool {
        let may = self.idr_asked.is_none_or(|last| now.since(last) >= IDR_INTERVAL);
        if may {
            self.idr_asked = Some(now);
        }
        may
    }

    /// The viewer has said something.
    pub(super) fn heard(&mut self) {
        self.unreachable = None;
    }

    /// ICMP says that nobody listens; whether that has been so for too long.
    ///
    /// Not at once: some players open their second port late.
    pub(super) fn is_gone(&mut self, now: Instant) -> bool {
        let first = match self.unreachable {
            Some((first, last)) if now.since(last) < UNREACHABLE_MAX => first,
            _ => now,
        };
        self.unreachable = Some((first, now));
        now.since(first) >= UNREACHABLE_MAX
    }

    /// Whether `address` is this viewer's RTP port. Some players never open the one for RTCP.
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        matches!(self.delivery, Delivery::Udp { rtp, .. } if address == rtp)
    }
}

/// A stream as it goes to one group, in one direction.
pub(super) type GroupId = (usize, Delivery);

/// A group that somebody listens to.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) playing: Playing,
    pub(super) members: BTreeSet<SessionId>,
}

/// RFC 3550 6.2: the recommended minimum.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
const REPORT_PAUSE: Duration = Duration::from_secs(1);
/// A decoder that asks for an IDR with every packet gets one a second.
const IDR_INTERVAL: Duration = Duration::from_secs(1);
const UNREACHABLE_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::Ssrc;
    use crate::serve::StreamSettings;

    #[test]
    fn a_round_trip_is_what_the_receiver_did_not_sit_on() {
        let settings = StreamSettings {
            ssrc: 1,
            first_sequence: 1,
            timestamp_offset: 0,
            packet_len_max: 1_372,
        };
        let stream = Stream::new(&settings);
        let address = "192.0.2.7:5000".parse().unwrap();
        let delivery = Delivery::Udp { rtp: address, rtcp: address };
        let mut now = Instant::from_micros(1_000_000_000);
        let mut playing = Playing::new(now, 1, 0, delivery);
        let mut wall = NtpTimestamp::from_unix(Duration::from_secs(1_800_000_000));
        let mut names = Vec::new();
        for _ in 0..3 {
            now += Duration::from_secs(5);
            wall = wall.offset_by_micros(5_000_000);
            let compound = playing.report(now, wall, &stream, Counts::default(), "x", false);
            names.push(u32::from_be_bytes(*compound[10..].first_chunk().unwrap()));
        }
        now += Duration::from_millis(1_250);
        let mut report = ReceptionReport {
            ssrc: Ssrc(1),
            fraction_lost: 0,
            lost: 0,
            jitter_ticks: 0,
            last_report: names[2],
            since_last_report: Duration::from_millis(1_200),
        };
        assert_eq!(playing.round_trip(now, &report), Some(Duration::from_millis(50)));
        report.last_report = names[1];
        assert_eq!(playing.round_trip(now, &report), Some(Duration::from_millis(5_050)));
        for (last_report, since) in [(names[0], 0), (0, 0), (names[2], 1_251), (names[2] + 1, 0)] {
            let since_last_report = Duration::from_millis(since);
            let report = ReceptionReport { last_report, since_last_report, ..report };
            assert_eq!(playing.round_trip(now, &report), None);
        }
    }
}
