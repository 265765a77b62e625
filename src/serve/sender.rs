//! Performs what `fanout` says: one `send` per image and TCP viewer, one `sendmmsg` for the packets
//! of many UDP viewers.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;

use nix::errno::Errno;

use super::Stats;
use super::hub::Target;
use super::link::Link;
use crate::fanout::{Body, Sent, Transmit};
use crate::rtp::WireImage;
use crate::sys::udp;
use crate::sys::udp::{Batch, RUNS_MAX, Run};

/// Writes to sockets; keeps what it learns about them.
#[derive(Debug, Default)]
pub(super) struct Sender {
    batch: Batch,
    /// Receivers on whose way packets cannot be segmented: they get them one by one.
    plain: HashSet<SocketAddr>,
    /// Addresses that groups are sent from, and their interfaces.
    sources: HashMap<SocketAddr, udp::Source>,
    /// An image as framed for channels other than 0-1.
    reframed: Vec<u8>,
}

/// Packets for UDP viewers that wait to be sent in one call.
pub(super) type Pending = heapless::Vec<(Transmit, Target), RUNS_MAX>;

impl Sender {
    /// Writes to a connection.
    pub(super) fn stream(
        &mut self,
        link: &mut Link,
        rtp_channel: u8,
        body: &Body,
        stats: &Stats,
    ) -> Sent {
        let bytes = match body {
            Body::Bytes { image, range } if rtp_channel == 0 => {
                image.bytes().get(range.clone()).unwrap_or(&[])
            }
            Body::Bytes { image, range } => self.reframe(image, range, rtp_channel),
            Body::Message { bytes, from } => bytes.get(*from..).unwrap_or(&[]),
            Body::Packets { .. } => &[],
        };
        stats.sends.increment();
        match link.transmit(bytes) {
            Ok(count) => {
                stats.bytes.add(count as u64);
                Sent::Some(count)
            }
            Err(Errno::EAGAIN | Errno::ENOBUFS) => Sent::WouldBlock,
            Err(_) => Sent::Failed,
        }
    }

    /// The bytes of `range`, with `rtp_channel` in every prefix.
    fn reframe(&mut self, image: &WireImage, range: &Range<usize>, rtp_channel: u8) -> &[u8] {
        self.reframed.clear();
        self.reframed.extend_from_slice(image.bytes().get(range.clone()).unwrap_or(&[]));
        for index in image.packet_at(range.start)..image.packet_count() {
            let prefix = index.checked_sub(1).map_or(0, |last| image.packet_end(last));
            let channel = (prefix + 1).checked_sub(range.start);
            if let Some(byte) = channel.and_then(|at| self.reframed.get_mut(at)) {
                *byte = rtp_channel;
            }
        }
        &self.reframed
    }

    /// Sends an RTCP packet.
    pub(super) fn message(
        &mut self,
        socket: &udp::Socket,
        (to, from): (SocketAddr, Option<SocketAddr>),
        bytes: &[u8],
        stats: &Stats,
    ) -> Sent {
        let from = self.source(from);
        let run = Run { to, from, bytes, packet_len: bytes.len().max(1), gap_len: 0 };
        stats.sends.increment();
        match retry(|| self.batch.send(socket, &[run])) {
            Err(Errno::EAGAIN | Errno::ENOBUFS) => Sent::WouldBlock,
            // Lost on the way out is lost on the way; who never listens is known by his silence.
            Ok(_) | Err(_) => Sent::Some(1),
        }
    }

    /// Sends packets to many viewers, and says for each of `pending` what became of it.
    pub(super) fn packets(
        &mut self,
        socket: &udp::Socket,
        pending: &Pending,
        stats: &Stats,
        mut answer: impl FnMut(&Transmit, Sent),
    ) {
        let mut first = 0;
        while first < pending.len() {
            // As many viewers as fit one call; each is wholly in it or not at all.
            let mut runs: heapless::Vec<(usize, Range<usize>, Run<'_>), RUNS_MAX> =
                heapless::Vec::new();
            let mut last = first;
            for (index, (transmit, target)) in pending.iter().enumerate().skip(first) {
                if !self.append_runs(&mut runs, index, transmit, *target) {
                    break;
                }
                last = index + 1;
            }
            // A single viewer's burst always fits an empty call.
            last = last.max(first + 1);
            let outcomes = self.send_runs(socket, &runs, stats);
            for (index, (transmit, _)) in pending.iter().enumerate().take(last).skip(first) {
                answer(transmit, summary(index, &runs, &outcomes));
            }
            first = last;
        }
    }

    /// Adds the runs of one viewer; `false`, and none of them, when there is no room for all.
    fn append_runs<'a>(
        &mut self,
        runs: &mut heapless::Vec<(usize, Range<usize>, Run<'a>), RUNS_MAX>,
        index: usize,
        transmit: &'a Transmit,
        target: Target,
    ) -> bool {
        let (Body::Packets { image, packets }, Target::Udp { rtp, from, .. }) =
            (&transmit.body, target)
        else {
            return true;
        };
        let before = runs.len();
        let from = self.source(from);
        let is_plain = self.plain.contains(&rtp);
        let singles = packets.clone().filter(|_| is_plain).map(|packet| packet..packet + 1);
        let joined = image.runs(packets.clone()).filter(|_| !is_plain);
        for run in singles.chain(joined) {
            let start = image.packet_end(run.start) - image.packet(run.start).len();
            let end = image.packet_end(run.end - 1);
            let bytes = image.bytes().get(start..end).unwrap_or(&[]);
            let packet_len = image.packet(run.start).len();
            let run_of_bytes =
                Run { to: rtp, from, bytes, packet_len, gap_len: WireImage::PREFIX_LEN };
            let entry = (index, run, run_of_bytes);
            if runs.push(entry).is_err() {
                runs.truncate(before);
                return false;
            }
        }
        true
    }

    /// Looked up once, as long as sending from there succeeds.
    fn source(&mut self, from: Option<SocketAddr>) -> Option<udp::Source> {
        let from = from?;
        Some(*self.sources.entry(from).or_insert_with(|| udp::Source::of(from)))
    }

    /// Sends the runs; for each, what became of it.
    fn send_runs(
        &mut self,
        socket: &udp::Socket,
        runs: &[(usize, Range<usize>, Run<'_>)],
        stats: &Stats,
    ) -> heapless::Vec<Sent, RUNS_MAX> {
        let bare: heapless::Vec<Run<'_>, RUNS_MAX> = runs.iter().map(|(_, _, run)| *run).collect();
        let mut outcomes = heapless::Vec::new();
        while outcomes.len() < bare.len() {
            let rest = bare.get(outcomes.len()..).unwrap_or(&[]);
            stats.sends.increment();
            let Some(first) = rest.first() else { break };
            // Not more outcomes than runs, so there is room for each.
            let mut note = |count: usize, outcome: &dyn Fn(&Run<'_>) -> Sent| {
                for run in rest.iter().take(count) {
                    let _ = outcomes.push(outcome(run));
                }
            };
            match retry(|| self.batch.send(socket, rest)) {
                Ok(count) if count > 0 => {
                    let len: usize = rest.iter().take(count).map(|run| run.bytes.len()).sum();
                    stats.bytes.add(len as u64);
                    note(count, &|run| Sent::Some(packet_count(run)));
                }
                Ok(_) | Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    note(rest.len(), &|_| Sent::WouldBlock);
                }
                Err(Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE) if packet_count(first) > 1 => {
                    if self.plain.len() >= PLAIN_MAX {
                        self.plain.clear();
                    }
                    self.plain.insert(first.to);
                    // This viewer's later runs must not overtake the one that is tried again.
                    let same = rest.iter().take_while(|run| run.to == first.to).count();
                    note(same, &|_| Sent::WouldBlock);
                }
                // Lost on the way out is lost on the way; who never listens is known by ICMP.
                Err(_) => {
                    note(1, &|run| Sent::Some(packet_count(run)));
                    // Its interface may have come back as another.
                    if first.from.is_some() {
                        self.sources.clear();
                    }
                }
            }
        }
        outcomes
    }
}

fn packet_count(run: &Run<'_>) -> usize {
    run.bytes.len().div_ceil(run.packet_len + run.gap_len)
}

/// A socket reports an ICMP error of the past once, instead of sending.
fn retry(mut send: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    match send() {
        Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => send(),
        other => other,
    }
}

/// Receivers that are remembered for want of segmentation; more are learned anew.
const PLAIN_MAX: usize = 1_024;

/// What became of the transmit `index`, from what became of its runs.
fn summary(index: usize, runs: &[(usize, Range<usize>, Run<'_>)], outcomes: &[Sent]) -> Sent {
    let mut packets = 0;
    for (_, outcome) in runs.iter().zip(outcomes).filter(|((of, ..), _)| *of == index) {
        match outcome {
            Sent::Some(count) => packets += count,
            // What went before it is gone; the rest is tried again.
            _ if packets > 0 => break,
            other => return *other,
        }
    }
    Sent::Some(packets)
}
