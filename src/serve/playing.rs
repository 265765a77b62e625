//! What the server keeps for one session that has played: where it goes, and its RTCP.
//!
//! RFC 3550 6.2, 6.4.

use std::net::SocketAddr;
use std::time::Duration;

use super::stream::Stream;
use crate::fanout::{Counts, ViewerId};
use crate::rtp::SenderClock;
use crate::rtp::rtcp::{Compound, SenderReport};
use crate::rtsp::Delivery;
use crate::time::{Instant, NtpTimestamp, low_32};

#[derive(Debug)]
pub(super) struct Playing {
    /// Tells the session from all others of this run.
    pub(super) number: u64,
    pub(super) stream: usize,
    /// Whether it is about to end because its viewer takes nothing any more.
    pub(super) is_stalled: bool,
    /// `None` while it is paused.
    pub(super) viewer: Option<ViewerId>,
    pub(super) delivery: Delivery,
    /// What was sent before the last pause: a sender's counts last as long as its SSRC.
    before: Counts,
    /// Set by the first report.
    clock: Option<SenderClock>,
    next_report: Instant,
    /// When this viewer's wish for an IDR last counted.
    idr_asked: Option<Instant>,
    /// When ICMP first and last said that nobody listens, without a word from the viewer since.
    unreachable: Option<(Instant, Instant)>,
}

impl Playing {
    pub(super) fn new(
        now: Instant,
        number: u64,
        stream: usize,
        viewer: ViewerId,
        delivery: Delivery,
    ) -> Self {
        Self {
            number,
            stream,
            is_stalled: false,
            viewer: Some(viewer),
            delivery,
            before: Counts::default(),
            clock: None,
            next_report: now,
            idr_asked: None,
            unreachable: None,
        }
    }

    /// Plays again after a pause, perhaps to elsewhere.
    pub(super) fn resume(&mut self, viewer: ViewerId, delivery: Delivery) {
        self.viewer = Some(viewer);
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
        SenderReport {
            ssrc: stream.ssrc(),
            ntp: clock.ntp(at, wall),
            rtp,
            packet_count: low_32(total.packets),
            octet_count: low_32(total.octets),
        }
        .emit(cname, is_over)
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

/// RFC 3550 6.2: the recommended minimum.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// A decoder that asks for an IDR with every packet gets one a second.
const IDR_INTERVAL: Duration = Duration::from_secs(1);
const UNREACHABLE_MAX: Duration = Duration::from_secs(2);
