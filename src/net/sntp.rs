//! Turns time servers' answers into samples of the true time, and says when to ask whom.
//!
//! RFC 4330 (SNTPv4): 4 (format), 5 (client), 8 (kiss-o'-death), 10 (manners); the request carries
//! nothing of this machine but a random number (draft-ietf-ntp-data-minimization).
//!
//! The time between question and answer is measured on the monotonic clock, so that a wall clock
//! that is set meanwhile spoils no sample; the machine never looks at the wall clock at all.
//!
//! Not implemented: choosing between servers (the first that answers is believed), frequency
//! discipline, authentication, broadcast mode.

use std::time::Duration;

use super::entropy::Entropy;
use crate::time::{Instant, NtpTimestamp};

/// What was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// At `at` it was `time`, give or take half of `round_trip`.
    Sample { at: Instant, time: NtpTimestamp, round_trip: Duration },
    /// The server with that number refuses to be asked again.
    Refused { server: usize },
    /// Nobody has answered since the last sample, or ever.
    Silent,
}

/// A request, and the number of the server that is to get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    pub server: usize,
    pub message: [u8; MESSAGE_LEN],
}

/// An SNTP client of a fixed number of servers, which the caller knows by name.
#[derive(Debug)]
pub struct Sntp {
    entropy: Entropy,
    /// By number: whether it may still be asked.
    willing: Vec<bool>,
    /// The one in use.
    server: usize,
    state: State,
    /// Between the next two questions to a server that answers.
    interval: Duration,
    /// Between the next two to servers that do not.
    retry: Duration,
    /// Unanswered questions since the last sample.
    unanswered: usize,
    transmit: Option<Transmit>,
    event: Option<Event>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Idle { until: Instant },
    Asked { at: Instant, nonce: u64 },
}

impl Sntp {
    /// A client that asks the first server at once.
    #[must_use]
    pub fn new(now: Instant, servers: usize, seed: u64) -> Self {
        Self {
            entropy: Entropy::new(seed),
            willing: vec![true; servers],
            server: 0,
            state: State::Idle { until: now },
            interval: MIN_INTERVAL,
            retry: MIN_RETRY,
            unanswered: 0,
            transmit: None,
            event: None,
        }
    }

    /// Takes a datagram from the server that was asked last; what is no answer to that question is
    /// ignored.
    pub fn receive(&mut self, now: Instant, datagram: &[u8]) {
        let State::Asked { at, nonce } = self.state else { return };
        let Some(answer) = Answer::parse(datagram).filter(|answer| answer.origin == nonce) else {
            return;
        };
        let passed = now.since(at);
        match answer.verdict(passed) {
            Verdict::Time(time, round_trip) => {
                self.event = Some(Event::Sample { at: now, time, round_trip });
                self.unanswered = 0;
                self.retry = MIN_RETRY;
                let pause = self.entropy.delay(self.interval, self.interval / 16);
                self.state = State::Idle { until: now + pause };
                self.interval = (self.interval * 2).min(MAX_INTERVAL);
            }
            Verdict::Slower => {
                self.interval = MAX_INTERVAL;
                self.retry = MAX_INTERVAL;
                self.fail(now);
            }
            Verdict::Never => {
                if let Some(willing) = self.willing.get_mut(self.server) {
                    *willing = false;
                }
                let server = self.server;
                self.fail(now);
                self.event = Some(Event::Refused { server });
            }
            Verdict::Useless => self.fail(now),
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        match self.state {
            State::Asked { .. } => self.fail(now),
            State::Idle { .. } => {
                let nonce = self.entropy.next();
                self.state = State::Asked { at: now, nonce };
                self.transmit = Some(Transmit { server: self.server, message: request(nonce) });
            }
        }
    }

    /// The number of the server that is asked, or will be next.
    #[must_use]
    pub const fn server(&self) -> usize {
        self.server
    }

    /// Whether an answer is waited for.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        matches!(self.state, State::Asked { .. })
    }

    /// The next request; may answer anew after `handle_timeout`.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmit.take()
    }

    /// What was learned; may answer anew after every `&mut` call.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// When `handle_timeout` is due; never, when no server is left.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.willing.get(self.server).filter(|&&willing| willing)?;
        Some(match self.state {
            State::Idle { until } => until,
            State::Asked { at, .. } => at + ANSWER_WITHIN,
        })
    }

    /// Moves on to the next server that is willing.
    fn fail(&mut self, now: Instant) {
        self.unanswered += 1;
        let count = self.willing.len();
        let next = (1..=count).map(|step| (self.server + step) % count.max(1));
        let mut willing = next.filter(|&server| self.willing.get(server) == Some(&true));
        self.server = willing.next().unwrap_or(self.server);
        // The others are asked soon; once all have been, ever more seldom.
        let pause = self.entropy.delay(self.retry, self.retry / 4);
        if self.unanswered.is_multiple_of(count.max(1)) {
            if self.unanswered == count {
                self.event = Some(Event::Silent);
            }
            self.retry = (self.retry * 2).min(MAX_INTERVAL);
        }
        self.state = State::Idle { until: now + pause };
    }
}

/// The client's message (RFC 4330 4): version 4, mode 3, all else zero but the transmit timestamp,
/// which a server hands back as the originate timestamp whatever it says.
fn request(nonce: u64) -> [u8; MESSAGE_LEN] {
    let mut message = [0; MESSAGE_LEN];
    if let Some((first, [.., t0, t1, t2, t3, t4, t5, t6, t7])) = message.split_first_mut() {
        *first = (VERSION << 3) | MODE_CLIENT;
        [*t0, *t1, *t2, *t3, *t4, *t5, *t6, *t7] = nonce.to_be_bytes();
    }
    message
}

/// A server's message.
///
/// ```text
///  0                   1                   2                   3
/// |LI | VN  |Mode |    Stratum    |     Poll      |   Precision   |
/// |                          Root Delay                           |
/// |                        Root Dispersion                        |
/// |              Reference Identifier (kiss code)                 |
/// |        Reference, Originate, Receive, Transmit Timestamp      |
/// ```
#[derive(Clone, Copy, Debug)]
struct Answer {
    synchronized: bool,
    stratum: u8,
    kiss: [u8; 4],
    origin: u64,
    received: u64,
    transmitted: u64,
}

/// What an answer is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Time(NtpTimestamp, Duration),
    /// Asked too often.
    Slower,
    /// Not to be asked again.
    Never,
    Useless,
}

impl Answer {
    fn parse(datagram: &[u8]) -> Option<Self> {
        let first = *datagram.first()?;
        let (version, mode) = ((first >> 3) & 7, first & 7);
        if mode != MODE_SERVER || !(3..=4).contains(&version) {
            return None;
        }
        let word = |at: usize| Some(u64::from_be_bytes(*datagram.get(at..)?.first_chunk()?));
        Some(Self {
            synchronized: first >> 6 != LEAP_UNKNOWN,
            stratum: *datagram.get(1)?,
            kiss: *datagram.get(12..)?.first_chunk()?,
            origin: word(24)?,
            received: word(32)?,
            transmitted: word(40)?,
        })
    }

    /// `passed` is the time since the question.
    fn verdict(&self, passed: Duration) -> Verdict {
        if self.stratum == 0 {
            return match &self.kiss {
                b"RATE" => Verdict::Slower,
                b"DENY" | b"RSTR" => Verdict::Never,
                _ => Verdict::Useless,
            };
        }
        if !self.synchronized || self.stratum > MAX_STRATUM || self.transmitted == 0 {
            return Verdict::Useless;
        }
        let time = NtpTimestamp(self.transmitted);
        let held = time.micros_since(NtpTimestamp(self.received));
        let held = u64::try_from(held).map(Duration::from_micros);
        let Some(round_trip) = held.ok().and_then(|held| passed.checked_sub(held)) else {
            return Verdict::Useless;
        };
        let half = i64::try_from(round_trip.as_micros() / 2).unwrap_or(0);
        // By now, and not when it was sent: an era may have ended on the way.
        let time = time.offset_by_micros(half);
        if time.to_unix() < NOT_BEFORE { Verdict::Useless } else { Verdict::Time(time, round_trip) }
    }
}

pub const MESSAGE_LEN: usize = 48;
const VERSION: u8 = 4;
const MODE_CLIENT: u8 = 3;
const MODE_SERVER: u8 = 4;
/// The leap indicator of a server that does not know the time itself.
const LEAP_UNKNOWN: u8 = 3;
const MAX_STRATUM: u8 = 15;

/// A server that answers is asked after 64 s, 128 s and so on up to 1024 s (RFC 5905 7.3).
const MIN_INTERVAL: Duration = Duration::from_secs(64);
const MAX_INTERVAL: Duration = Duration::from_secs(1024);
/// RFC 4330 10 (5) forbids faster than 15 s only for one server that answers.
const MIN_RETRY: Duration = Duration::from_secs(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// 2026-01-01: a server that names an earlier time is wrong, because this software did not exist.
const NOT_BEFORE: Duration = Duration::from_secs(1_767_225_600);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failing test")]
mod tests;
