//! What the hub does for sessions and groups: begins and ends delivery, reports, and hears feedback.
//!
//! A group is one more UDP viewer. It begins with the first session that plays it and ends, with a
//! BYE, when the last one has paused or is over. Its sessions are kept alive by RTSP, or by a
//! connection that stays open: what receivers say to the group, the camera does not hear.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use log::info;

use super::hub::{Action, Hub, Target};
use super::playing::{Group, GroupId, Playing};
use crate::fanout::{Path, ViewerId};
use crate::rtp::rtcp::{self, Feedback};
use crate::rtsp::{Delivery, Event, SessionId};
use crate::stats::Ending;
use crate::time::{Instant, NtpTimestamp};

/// Whose sender reports.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who {
    Session(SessionId),
    Group(GroupId),
}

impl Hub {
    pub(super) fn follow(&mut self, now: Instant, wall: NtpTimestamp, event: Event) {
        self.has_audience_changed = true;
        match event {
            Event::IdrWanted { stream, session } => {
                let playing = session.and_then(|session| self.sessions.get_mut(&session));
                if playing.is_none_or(|playing| playing.may_ask_for_idr(now)) {
                    self.actions.push_back(Action::WantIdr { stream });
                }
            }
            Event::Play { session, stream, delivery } => {
                self.play(now, wall, session, (stream, delivery));
            }
            Event::Pause { session } => self.pause(now, wall, session),
            Event::Teardown { session, why } => {
                self.pause(now, wall, session);
                if self.sessions.remove(&session).is_some() {
                    self.stats.endings.of(why).increment();
                }
            }
            Event::Rtcp { session, packet } => self.feedback(now, session, &packet),
            Event::Close { connection } => self.actions.push_back(Action::Close(connection)),
        }
    }

    fn play(
        &mut self,
        now: Instant,
        wall: NtpTimestamp,
        session: SessionId,
        (stream, delivery): GroupId,
    ) {
        self.stats.plays.increment();
        let own = match delivery {
            Delivery::Interleaved { connection, rtp_channel, .. } => {
                let Some(&viewer) = self.connections.get(&connection) else { return };
                Some((viewer, Target::Connection(connection, rtp_channel)))
            }
            Delivery::Udp { rtp, rtcp } => {
                let viewer = self.fanout.add(now, Path::Datagram);
                Some((viewer, Target::Udp { rtp, rtcp, from: None }))
            }
            Delivery::Multicast { .. } => None,
        };
        let number = self.next_number();
        let playing = self.sessions.entry(session);
        let playing = playing.or_insert_with(|| Playing::new(now, number, stream, delivery));
        playing.resume(own.map(|(viewer, _)| viewer), delivery);
        match own {
            Some((viewer, target)) => {
                self.begin(viewer, stream, target);
                self.report(now, wall, Who::Session(session), false);
            }
            None => self.join(now, wall, session, (stream, delivery)),
        }
    }

    const fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn begin(&mut self, viewer: ViewerId, stream: usize, target: Target) {
        self.targets.insert(viewer, target);
        self.fanout.play(viewer, stream);
    }

    /// One more session listens to a group.
    fn join(&mut self, now: Instant, wall: NtpTimestamp, session: SessionId, id: GroupId) {
        let (stream, delivery) = id;
        let Delivery::Multicast { rtp, rtcp, from } = delivery else { return };
        if !self.groups.contains_key(&id) {
            let viewer = self.fanout.add(now, Path::Datagram);
            let mut playing = Playing::new(now, self.next_number(), stream, delivery);
            playing.resume(Some(viewer), delivery);
            self.groups.insert(id, Group { playing, members: BTreeSet::new() });
            self.begin(viewer, stream, Target::Udp { rtp, rtcp, from });
            info!("serve: group begins stream={stream} address={rtp}");
            self.report(now, wall, Who::Group(id), false);
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.members.insert(session);
        group.playing.viewer.into_iter().for_each(|viewer| self.fanout.join(viewer));
        // It wants to know the time, and the others do not mind.
        group.playing.hasten_report();
        let next = group.playing.next_report();
        self.note_report(next);
    }

    /// The session listens no more; a group without any ends.
    fn leave(&mut self, now: Instant, wall: NtpTimestamp, session: SessionId, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.members.remove(&session);
        if !group.members.is_empty() {
            return;
        }
        let Some(viewer) = group.playing.viewer else { return };
        let counts = self.fanout.stop(viewer);
        group.playing.pause(counts);
        group.playing.viewer = Some(viewer);
        self.stats.dropped.add(counts.dropped);
        self.report(now, wall, Who::Group(id), true);
        self.groups.remove(&id);
        self.leaving.push(viewer);
        self.let_go(viewer);
        info!("serve: group ends stream={} packets_sent={}", id.0, counts.packets);
    }

    /// Forgets a viewer that was to hear our last words, and has.
    pub(super) fn let_go(&mut self, viewer: ViewerId) {
        if self.leaving.contains(&viewer) && self.fanout.is_drained(viewer) {
            self.leaving.retain(|other| *other != viewer);
            self.forget(viewer);
        }
    }

    fn pause(&mut self, now: Instant, wall: NtpTimestamp, session: SessionId) {
        let Some(playing) = self.sessions.get_mut(&session) else { return };
        let (stream, delivery) = (playing.stream, playing.delivery);
        if matches!(delivery, Delivery::Multicast { .. }) {
            return self.leave(now, wall, session, (stream, delivery));
        }
        let Some(viewer) = playing.viewer else { return };
        let counts = match delivery {
            Delivery::Interleaved { .. } => self.fanout.stop(viewer),
            _ => {
                self.targets.remove(&viewer);
                self.fanout.remove(viewer)
            }
        };
        playing.pause(counts);
        self.stats.dropped.add(counts.dropped);
        if counts.drops > 0 {
            info!(
                "serve: viewer was slow drops={} access_units_lost={} packets_sent={}",
                counts.drops, counts.dropped, counts.packets
            );
        }
    }

    /// A viewer has taken nothing for too long.
    pub(super) fn stalled(&mut self, viewer: ViewerId) {
        self.stats.stalled.increment();
        match self.targets.get(&viewer) {
            Some(Target::Connection(connection, _)) => {
                info!("serve: viewer stalled connection={}", connection.0);
            }
            Some(Target::Udp { rtp, .. }) => info!("serve: viewer stalled address={rtp}"),
            None => {}
        }
        self.give_up(viewer, Ending::Stalled);
    }

    /// Nothing more goes to a viewer: its connection is closed, or its sessions end.
    pub(super) fn give_up(&mut self, viewer: ViewerId, why: Ending) {
        self.leaving.retain(|other| *other != viewer);
        let session = self.sessions.iter().find(|(_, playing)| playing.viewer == Some(viewer));
        let group = self.groups.values().find(|group| group.playing.viewer == Some(viewer));
        let members = group.into_iter().flat_map(|group| &group.members);
        let over: Vec<SessionId> = members.copied().chain(session.map(|(&id, _)| id)).collect();
        for session in over {
            self.server.end(session, why);
        }
        if let Some(&Target::Connection(connection, _)) = self.targets.get(&viewer) {
            self.actions.push_back(Action::Abort(connection));
        }
    }

    /// What a viewer's RTCP says: it is alive, how it fares, and perhaps that it wants an IDR.
    pub(super) fn feedback(&mut self, now: Instant, session: SessionId, bytes: &[u8]) {
        let Some(playing) = self.sessions.get_mut(&session) else {
            // It has not played yet, but punches its holes.
            if rtcp::parse(bytes, |_| {}).is_ok() {
                self.server.alive(now, session);
            }
            return;
        };
        let ssrc = self.streams.get(playing.stream).map(super::stream::Stream::ssrc);
        let (mut is_idr_wanted, mut is_leaving) = (false, false);
        let parsed = rtcp::parse(bytes, |message| match message {
            Feedback::KeyFrameWanted => is_idr_wanted = true,
            Feedback::Report(report) if Some(report.ssrc) == ssrc => {
                playing.received(now, &report);
            }
            Feedback::Report(_) => {}
            Feedback::Bye => is_leaving = true,
        });
        if parsed.is_err() {
            return;
        }
        playing.heard();
        let wants_idr = is_idr_wanted && playing.may_ask_for_idr(now);
        if wants_idr {
            self.actions.push_back(Action::WantIdr { stream: playing.stream });
        }
        self.server.alive(now, session);
        if is_leaving {
            self.server.leaving(now, session);
        }
    }

    /// Queues a sender report, behind the packets that it counts.
    pub(super) fn report(&mut self, now: Instant, wall: NtpTimestamp, who: Who, is_over: bool) {
        let playing = match who {
            Who::Session(id) => self.sessions.get_mut(&id),
            Who::Group(id) => self.groups.get_mut(&id).map(|group| &mut group.playing),
        };
        let Some(playing) = playing else { return };
        let Some(stream) = self.streams.get(playing.stream) else { return };
        let Some(viewer) = playing.viewer else { return };
        let counts = self.fanout.counts(viewer);
        let report = playing.report(now, wall, stream, counts, &self.cname, is_over);
        let (next, delivery) = (playing.next_report(), playing.delivery);
        let message: Arc<[u8]> = match delivery {
            Delivery::Interleaved { rtcp_channel, .. } => {
                let len = u16::try_from(report.len()).unwrap_or(0).to_be_bytes();
                [&[b'$', rtcp_channel, len[0], len[1]], &report[..]].concat().into()
            }
            Delivery::Udp { .. } | Delivery::Multicast { .. } => Arc::from(&report[..]),
        };
        // A queue full of messages is that of a viewer about to be closed.
        let _ = self.fanout.send(now, viewer, message);
        self.note_report(next);
    }

    pub(super) fn report_to_all_due(&mut self, now: Instant, wall: NtpTimestamp) {
        for who in self.reporting(|playing| playing.next_report().is_some_and(|at| at <= now)) {
            if let Who::Session(session) = who {
                let viewer = self.sessions.get(&session).and_then(|playing| playing.viewer);
                let progress = viewer.and_then(|viewer| self.fanout.progress(viewer));
                let is_interleaved = viewer.is_some_and(|viewer| self.is_connection(viewer));
                // INTEROP rule 14: a TCP socket that drains is alive.
                if is_interleaved && progress.is_some_and(|at| now.since(at) < DRAINED_WITHIN) {
                    self.server.alive(now, session);
                }
            }
            self.report(now, wall, who, false);
        }
        self.report_due = self.first_report();
    }

    /// Everybody who reports and `is_meant`.
    pub(super) fn reporting(&self, is_meant: impl Fn(&Playing) -> bool) -> Vec<Who> {
        let sessions = self.sessions.iter().filter(|(_, playing)| is_meant(playing));
        let groups = self.groups.iter().filter(|(_, group)| is_meant(&group.playing));
        let sessions = sessions.map(|(&id, _)| Who::Session(id));
        sessions.chain(groups.map(|(&id, _)| Who::Group(id))).collect()
    }

    pub(super) fn first_report(&self) -> Option<Instant> {
        let groups = self.groups.values().map(|group| &group.playing);
        self.sessions.values().chain(groups).filter_map(Playing::next_report).min()
    }

    fn note_report(&mut self, next: Option<Instant>) {
        self.report_due = [self.report_due, next].into_iter().flatten().min();
    }

    fn is_connection(&self, viewer: ViewerId) -> bool {
        matches!(self.targets.get(&viewer), Some(Target::Connection(..)))
    }
}

/// A TCP viewer that took something since the last report has shown that it is alive.
const DRAINED_WITHIN: Duration = Duration::from_secs(6);
