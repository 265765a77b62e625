//! Bugs that are planted between the hub and the network: for each promise one that breaks it, to
//! see that somebody notices.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use ocellus::fanout::Body;
use ocellus::rtp::WireImage;
use ocellus::rtsp::ConnectionId;
use ocellus::time::Instant;

use super::seeds::live_with;
use super::truth::Rule;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    SkipsASequenceNumber,
    LosesAPicture,
    LosesAnIdr,
    StampsTheLastPacketLater,
    StampsAPictureTwice,
    ForgetsTheMarker,
    MarksTheFirstPacket,
    ChangesAByte,
    NamesAnotherFirstPacket,
    NamesAnotherRequest,
    CountsOneTooMany,
    LetsTheReportedTimeDrift,
    SendsToAStranger,
    KeepsTheDeadAlive,
    LetsOneBlockAll,
    QueuesWithoutEnd,
    MakesEveryIdrAskedFor,
    ForgetsIdrs,
    TurnsEverybodyAway,
    NeverRests,
}

/// Who notices what.
const NOTICED: [(Bug, Rule); 20] = [
    (Bug::SkipsASequenceNumber, Rule::Sequence),
    (Bug::LosesAPicture, Rule::Sequence),
    (Bug::LosesAnIdr, Rule::Sequence),
    (Bug::StampsTheLastPacketLater, Rule::Timestamp),
    (Bug::StampsAPictureTwice, Rule::Timestamp),
    (Bug::ForgetsTheMarker, Rule::Marker),
    (Bug::MarksTheFirstPacket, Rule::Marker),
    (Bug::ChangesAByte, Rule::Payload),
    (Bug::NamesAnotherFirstPacket, Rule::RtpInfo),
    (Bug::NamesAnotherRequest, Rule::Answer),
    (Bug::CountsOneTooMany, Rule::Report),
    (Bug::LetsTheReportedTimeDrift, Rule::Report),
    (Bug::SendsToAStranger, Rule::Stranger),
    (Bug::KeepsTheDeadAlive, Rule::Outlived),
    (Bug::LetsOneBlockAll, Rule::Starved),
    (Bug::QueuesWithoutEnd, Rule::Queue),
    (Bug::MakesEveryIdrAskedFor, Rule::IdrRate),
    (Bug::ForgetsIdrs, Rule::Picture),
    (Bug::TurnsEverybodyAway, Rule::Back),
    (Bug::NeverRests, Rule::Standstill),
];

/// The bug of one camera, and what it does with it.
#[derive(Debug, Default)]
pub(crate) struct Planted {
    bug: Option<Bug>,
    from: Instant,
    /// What was taken from the hub and not written, by connection.
    hoard: BTreeMap<ConnectionId, VecDeque<Hoarded>>,
    /// RTCP addresses of everybody who ever got datagrams.
    pub(crate) known: Vec<SocketAddr>,
    asked: u32,
}

#[derive(Debug)]
pub(crate) struct Hoarded {
    /// When its picture was captured, but for IDRs.
    pub(crate) captured: Option<Instant>,
    pub(crate) bytes: Vec<u8>,
}

impl Planted {
    /// Plants `bug`, to be active from then on.
    pub(crate) const fn plant(&mut self, bug: Bug, from: Instant) {
        (self.bug, self.from) = (Some(bug), from);
    }

    pub(crate) fn has(&self, now: Instant, bug: Bug) -> bool {
        self.bug == Some(bug) && now >= self.from
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (self.bug == Some(Bug::NeverRests)).then_some(self.from)
    }

    /// What goes out instead of these bytes of an image.
    pub(crate) fn image(&self, image: &WireImage) -> Option<Vec<u8>> {
        let bug = self.bug.filter(|_| image.captured() >= self.from)?;
        let mut bytes = image.bytes().to_vec();
        let last = image.packet_count() - 1;
        for index in 0..=last {
            let at = image.packet_end(index) - image.packet(index).len();
            let word =
                |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            match bug {
                Bug::SkipsASequenceNumber => {
                    let sequence = u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]);
                    bytes[at + 2..at + 4].copy_from_slice(&sequence.wrapping_add(1).to_be_bytes());
                }
                Bug::StampsTheLastPacketLater if index == last => {
                    let later = word(&bytes, at + 4).wrapping_add(1);
                    bytes[at + 4..at + 8].copy_from_slice(&later.to_be_bytes());
                }
                Bug::StampsAPictureTwice if !image.is_idr() => {
                    let before = word(&bytes, at + 4).wrapping_sub(9_000);
                    bytes[at + 4..at + 8].copy_from_slice(&before.to_be_bytes());
                }
                Bug::ForgetsTheMarker => bytes[at + 1] &= 0x7f,
                Bug::MarksTheFirstPacket if index == 0 => bytes[at + 1] |= 0x80,
                Bug::ChangesAByte if index == last => bytes[image.packet_end(last) - 1] ^= 2,
                _ => {}
            }
        }
        Some(bytes)
    }

    /// What goes out instead of a reply or a report.
    pub(crate) fn message(&self, now: Instant, right: &[u8]) -> Option<Vec<u8>> {
        let bug = self.bug.filter(|_| now >= self.from)?;
        let mut bytes = right.to_vec();
        let report = if bytes[0] == b'$' { 4 } else { 0 };
        let is_report = bytes.get(report..report + 2) == Some(&[0x80, 200]);
        let digit = |name: &[u8]| {
            let found = right.windows(name.len()).position(|window| window == name);
            found.map(|at| at + name.len())
        };
        match bug {
            Bug::NamesAnotherFirstPacket => bytes[digit(b";seq=")?] ^= 1,
            Bug::NamesAnotherRequest => bytes[digit(b"CSeq: ")?] ^= 1,
            Bug::CountsOneTooMany if is_report => bytes[report + 23] ^= 1,
            // A second an hour, and more.
            Bug::LetsTheReportedTimeDrift if is_report => {
                let drift = now.since(self.from).as_micros() / 500;
                let seconds = &mut bytes[report + 8..report + 16];
                let ntp = u64::from_be_bytes((&*seconds).try_into().unwrap());
                let drift = u64::try_from((drift << 32) / 1_000_000).unwrap();
                seconds.copy_from_slice(&(ntp + drift).to_be_bytes());
            }
            _ => return None,
        }
        Some(bytes)
    }

    /// Whether this is not sent, while the hub is told that it was.
    pub(crate) fn swallows(&self, now: Instant, body: &Body) -> bool {
        let image = match body {
            Body::Bytes { image, range } if range.start == 0 => image,
            Body::Packets { image, .. } => image,
            _ => return false,
        };
        match self.bug.filter(|_| now >= self.from) {
            Some(Bug::LosesAPicture) => !image.is_idr() && image.first_sequence().0 % 7 == 0,
            Some(Bug::LosesAnIdr) => image.is_idr(),
            _ => false,
        }
    }

    pub(crate) fn know(&mut self, rtcp: SocketAddr) {
        if self.bug == Some(Bug::KeepsTheDeadAlive) && !self.known.contains(&rtcp) {
            self.known.push(rtcp);
        }
    }

    pub(crate) fn hoard(&mut self, id: ConnectionId, what: Hoarded) {
        self.hoard.entry(id).or_default().push_back(what);
    }

    pub(crate) fn hoarded(&mut self, id: ConnectionId) -> Option<&mut VecDeque<Hoarded>> {
        self.hoard.get_mut(&id)
    }

    /// By what time an IDR is asked for: one that runs ahead of the limit.
    pub(crate) fn ask_at(&mut self, now: Instant) -> Instant {
        if !self.has(now, Bug::MakesEveryIdrAskedFor) {
            return now;
        }
        self.asked += 1;
        now + Duration::from_secs(10) * self.asked
    }
}

/// Worlds in which a bug has to be noticed.
const SEEDS: u64 = 200;

#[test]
fn every_planted_bug_is_noticed() {
    for (bug, rule) in NOTICED {
        let mut worlds = 1..=SEEDS;
        let found = worlds.find_map(|seed| Some((seed, live_with(seed, Some(bug)).err()?)));
        let Some((seed, violation)) = found else { panic!("nobody noticed {bug:?}") };
        println!("{bug:?}: seed {seed}, {violation:?}");
        assert_eq!(violation.rule, rule, "{bug:?} in OCELLUS_SEED={seed}: {}", violation.what);
    }
}
