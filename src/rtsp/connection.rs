//! One RTSP connection: its input, the requests that wait their turn, and its deadlines; and the
//! one place that chooses status codes.
//!
//! RFC 2326 1.7 and 7.1.1 (status codes), 9.1 (pipelining).
//!
//! Invariant: one answer per request, in the order of the requests. While the answer to one
//! waits, later ones queue, and interleaved frames go on being read.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::message::{Error, MAX_BODY_LEN, MAX_HEAD_LEN, Request, Response};
use super::parser::{Input, Parser};
use super::session::SessionId;
use super::settings::StreamId;
use super::tunnel::{self, Opening, Role};
use crate::time::Instant;

/// Names a connection; counted up, never reused while known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u32);

/// State of one connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// Whether nobody on the way can read it.
    pub is_encrypted: bool,
    pub role: Role,
    /// The nonce it last authenticated with: good for as long as it is open.
    pub used_nonce: Option<String>,
    /// Whether a request of it was let in.
    pub is_known: bool,
    /// Sessions last heard on this connection.
    pub sessions: Vec<SessionId>,
    /// The request whose answer is not yet decided.
    pub waiting: Option<Waiting>,
    /// Since when its credentials wait to be looked at.
    pub in_line_since: Option<Instant>,
    /// Nothing more is read; the caller has been told to close it.
    pub is_closing: bool,
    parser: Parser,
    queue: VecDeque<Request>,
    queue_len: usize,
    /// When the first byte of an incomplete message came.
    message_since: Option<Instant>,
    pub last_request: Instant,
}

/// A request whose answer waits for something.
#[derive(Debug)]
pub(super) struct Waiting {
    pub request: Request,
    pub on: Hold,
    pub until: Instant,
}

/// What an answer waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Its turn to be authenticated.
    Turn,
    /// The end of the delay that wrong credentials earn.
    Penalty(Refusal),
    /// DESCRIBE: the stream's parameter sets.
    ParameterSets(StreamId),
    /// PLAY: the next IDR picture.
    Idr(SessionId),
}

impl Connection {
    pub(super) fn new(now: Instant, peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            peer,
            local,
            is_encrypted: false,
            role: Role::Whole,
            used_nonce: None,
            is_known: false,
            sessions: Vec::new(),
            waiting: None,
            in_line_since: None,
            is_closing: false,
            parser: Parser::default(),
            queue: VecDeque::new(),
            queue_len: 0,
            message_since: None,
            last_request: now,
        }
    }

    /// Reads one input off the front of `bytes`; requests go to the queue. `None` once `bytes` are
    /// used up.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        bytes: &mut &[u8],
    ) -> Result<Option<Received>, Error> {
        let input = self.parser.parse(bytes)?;
        if input.is_some() {
            self.message_since = None;
        }
        if self.parser.is_in_message() {
            self.message_since.get_or_insert(now);
        } else {
            self.message_since = None;
        }
        match input {
            None => Ok(None),
            Some(Input::Interleaved { channel, packet }) => {
                Ok(Some(Received::Interleaved { channel, packet }))
            }
            Some(Input::Http(opening)) => Ok(Some(Received::Http(opening))),
            Some(Input::Request(request)) => {
                self.last_request = now;
                self.queue_len += request.len();
                self.queue.push_back(request);
                // One request may always wait: it is within the limits of a message.
                if self.queue_len > MAX_QUEUED_LEN && self.queue.len() > 1 {
                    return Err(Error::TooManyRequests);
                }
                Ok(Some(Received::Request))
            }
        }
    }

    /// The next request to answer, once the one before has been.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        if self.waiting.is_some() || self.is_closing {
            return None;
        }
        let request = self.queue.pop_front()?;
        self.queue_len -= request.len();
        Some(request)
    }

    /// The next moment at which something is due, answer or close.
    pub(super) fn deadline(&self) -> Option<Instant> {
        // A way in lives as long as its way out.
        if self.is_closing || matches!(self.role, Role::In { .. }) {
            return None;
        }
        if let Role::Out { join_by: Some(by), .. } = self.role {
            return Some(by);
        }
        let message = self.message_since.map(|since| since + MESSAGE_DEADLINE);
        let waiting = self.waiting.as_ref().map(|waiting| waiting.until);
        let is_idle = self.sessions.is_empty() && message.or(waiting).is_none();
        let idle = is_idle.then(|| self.last_request + IDLE_TIMEOUT);
        [message, waiting, idle].into_iter().flatten().min()
    }

    /// Whether packets may go beside it: a client that tunnels cannot get them, and one that
    /// encrypts does not want them to be read.
    pub(super) const fn allows_datagrams(&self) -> bool {
        !self.is_encrypted && matches!(self.role, Role::Whole)
    }

    /// Whether it has neither a session nor ever been let in.
    pub(super) const fn is_pending(&self) -> bool {
        !self.is_closing && !self.is_known && self.sessions.is_empty()
    }
}

/// What has arrived.
#[derive(Debug)]
pub(super) enum Received {
    /// A request; it is in the queue.
    Request,
    Interleaved {
        channel: u8,
        packet: Vec<u8>,
    },
    /// The first request, which is HTTP's.
    Http(Result<Opening, tunnel::Refused>),
}

/// Why a request is not answered with 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    BadRequest,
    /// With the challenges to send.
    Unauthorized([String; 2]),
    NotFound,
    MethodNotAllowed,
    BodyTooLong,
    RequestLineTooLong,
    ParameterNotUnderstood,
    TooManyViewers,
    SessionNotFound,
    WrongState,
    /// What ends before it begins.
    InvalidRange,
    /// A second stream in one session, or a second interleaved session on one connection.
    NotAggregate,
    UnsupportedTransport,
    NotImplemented,
    /// The stream has no parameter sets yet.
    NotReady,
    UnsupportedVersion,
    /// With the value of the Require header.
    UnsupportedOption(String),
}

impl Refusal {
    /// What a stream that is no RTSP deserves; `None` where an answer would be wasted.
    pub(super) const fn of(error: &Error) -> Option<(Self, Option<u32>)> {
        match *error {
            // Refusals of HTTP requests are HTTP's own.
            Error::NotRtsp
            | Error::TooManyRequests
            | Error::Closed
            | Error::NotBase64
            | Error::Tunnel(_) => None,
            Error::RequestLineTooLong => Some((Self::RequestLineTooLong, None)),
            Error::HeadTooLong => Some((Self::BadRequest, None)),
            Error::Malformed { cseq, .. } => Some((Self::BadRequest, cseq)),
            Error::BodyTooLong { cseq } => Some((Self::BodyTooLong, cseq)),
        }
    }

    pub(super) fn response(&self) -> Response {
        let (status, reason) = match self {
            Self::BadRequest => (400, "Bad Request"),
            Self::Unauthorized(_) => (401, "Unauthorized"),
            Self::NotFound => (404, "Not Found"),
            Self::MethodNotAllowed => (405, "Method Not Allowed"),
            Self::BodyTooLong => (413, "Request Entity Too Large"),
            Self::RequestLineTooLong => (414, "Request-URI Too Large"),
            Self::ParameterNotUnderstood => (451, "Parameter Not Understood"),
            Self::TooManyViewers => (453, "Not Enough Bandwidth (too many viewers)"),
            Self::SessionNotFound => (454, "Session Not Found"),
            Self::WrongState => (455, "Method Not Valid in This State"),
            Self::InvalidRange => (457, "Invalid Range"),
            Self::NotAggregate => (459, "Aggregate Operation Not Allowed"),
            Self::UnsupportedTransport => (461, "Unsupported Transport"),
            Self::NotImplemented => (501, "Not Implemented"),
            Self::NotReady => (503, "Service Unavailable"),
            Self::UnsupportedVersion => (505, "RTSP Version Not Supported"),
            Self::UnsupportedOption(_) => (551, "Option Not Supported"),
        };
        let response = Response::new(status, reason);
        match self {
            Self::Unauthorized([first, last]) => {
                response.header("WWW-Authenticate", first).header("WWW-Authenticate", last)
            }
            Self::MethodNotAllowed => response.header("Allow", PUBLIC),
            Self::NotReady => response.header("Retry-After", 1),
            Self::UnsupportedOption(tags) => response.header("Unsupported", tags),
            _ => response,
        }
    }
}

/// The methods on offer. VLC sends no sign of life unless GET_PARAMETER is among them.
pub(super) const PUBLIC: &str =
    "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN, GET_PARAMETER, SET_PARAMETER";

/// From a message's first byte to its last: enough for a bad link, too short for a slow loris.
pub const MESSAGE_DEADLINE: Duration = Duration::from_secs(10);
/// Without a session there is nothing that a quiet connection is good for.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// What may queue behind an answer that waits: as much as one message may be long.
const MAX_QUEUED_LEN: usize = MAX_HEAD_LEN + MAX_BODY_LEN;
