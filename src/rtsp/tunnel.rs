//! RTSP through HTTP: recognises the two requests of a tunnel, joins them, and reads the second.
//!
//! Apple's scheme, which ONVIF asks for: the connection with the GET becomes the way out, plain
//! RTSP with interleaved frames; the body of the POST with the same `x-sessioncookie`, which never
//! ends, is the way in, in base64. Whoever connects either way is asked for a password by RTSP.
//!
//! The connection with the GET is the RTSP connection. One with a POST only hands its bytes on,
//! and may be replaced by another: QuickTime opens one after the other.
//!
//! Not implemented: chunked bodies, which no client sends, and authentication by HTTP, which ONVIF
//! forbids here.

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use thiserror::Error;

use super::connection::{Connection, ConnectionId};
use super::message::{self, Error, MAX_HEADERS};
use super::server::{Event, Server};
use crate::time::Instant;

/// What an HTTP request wants to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    way: Way,
    cookie: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Out,
    In,
}

/// What a connection is to RTSP.
#[derive(Debug, Default)]
pub(super) enum Role {
    /// Both ways.
    #[default]
    Whole,
    /// The way out of a tunnel.
    Out {
        cookie: String,
        /// When a way in has to be there; `None` once there was one.
        join_by: Option<Instant>,
    },
    /// The way in of the tunnel whose way out is this connection.
    In { to: ConnectionId, base64: Base64 },
}

/// Why an HTTP request opens no tunnel: the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("malformed http request")]
    BadRequest,
    /// No cookie, or no GET that it belongs to.
    #[error("no such tunnel")]
    NotFound,
    #[error("http method is neither GET nor POST")]
    MethodNotAllowed,
    #[error("cookie is in use")]
    Conflict,
}

impl Refused {
    fn response(self) -> Vec<u8> {
        let status = match self {
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed\r\nAllow: GET, POST",
            Self::Conflict => "409 Conflict",
        };
        format!("HTTP/1.0 {status}\r\nServer: Ocellus\r\nConnection: close\r\n\r\n").into_bytes()
    }
}

/// Whether a head is HTTP's.
pub(super) fn is_http(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    version.starts_with(b"HTTP/")
}

impl Opening {
    /// Reads the head of an HTTP request.
    ///
    /// # Errors
    ///
    /// All but [`Refused::Conflict`].
    pub(super) fn parse(head: &[u8]) -> Result<Self, Refused> {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.lines();
        let request_line = lines.next().unwrap_or_default();
        let headers = message::unfold(lines);
        let is_well = headers.lines().count() <= MAX_HEADERS
            && headers.lines().all(message::is_header)
            && message::values(&headers, "Transfer-Encoding").next().is_none();
        if !is_well || text.contains('\0') {
            return Err(Refused::BadRequest);
        }
        let way = match request_line.split(' ').next() {
            Some("GET") => Way::Out,
            Some("POST") => Way::In,
            _ => return Err(Refused::MethodNotAllowed),
        };
        let mut cookies = message::values(&headers, "x-sessioncookie");
        let cookie = cookies.next().ok_or(Refused::NotFound)?;
        let is_cookie = (1..=MAX_COOKIE_LEN).contains(&cookie.len())
            && cookie.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_cookie || cookies.next().is_some() {
            return Err(Refused::BadRequest);
        }
        Ok(Self { way, cookie: cookie.to_owned() })
    }
}

impl Server {
    /// Makes a connection one half of a tunnel, or says why not.
    pub(super) fn open_tunnel(
        &mut self,
        now: Instant,
        id: ConnectionId,
        opening: Result<Opening, Refused>,
    ) -> Result<(), Refused> {
        let opened = opening.and_then(|opening| self.join(now, id, opening));
        if let Err(refused) = opened {
            self.refuse_tunnel(id, refused);
        }
        opened
    }

    pub(super) fn refuse_tunnel(&mut self, id: ConnectionId, refused: Refused) {
        self.transmits.push_back((id, refused.response()));
        if let Some(state) = self.connections.get_mut(&id) {
            state.is_closing = true;
        }
    }

    /// Whether a connection is RTSP both ways.
    pub(super) fn is_whole(&self, id: ConnectionId) -> Result<bool, Error> {
        let state = self.connections.get(&id).filter(|state| !state.is_closing);
        Ok(matches!(state.ok_or(Error::Closed)?.role, Role::Whole))
    }

    /// Takes bytes that have arrived on one half of a tunnel.
    pub(super) fn receive_half(
        &mut self,
        now: Instant,
        id: ConnectionId,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let Some(state) = self.connections.get_mut(&id) else { return Err(Error::Closed) };
        match &mut state.role {
            Role::In { to, base64 } => {
                state.last_request = now;
                let (to, mut decoded) = (*to, Vec::with_capacity(bytes.len()));
                let rest = base64.decode(bytes, &mut decoded).map_err(|NotBase64| Error::NotBase64);
                let result = self.read_tunnelled(now, to, &decoded).and(rest);
                if result.is_err() {
                    self.close(to);
                }
                result
            }
            Role::Out { join_by, .. } if !bytes.is_empty() => {
                // Once there is RTSP on the way out, an answer of HTTP would be part of it.
                let is_alone = join_by.is_some();
                if is_alone {
                    self.refuse_tunnel(id, Refused::BadRequest);
                }
                Err(Error::Tunnel(Refused::BadRequest))
            }
            Role::Out { .. } | Role::Whole => Ok(()),
        }
    }

    fn read_tunnelled(
        &mut self,
        now: Instant,
        to: ConnectionId,
        mut bytes: &[u8],
    ) -> Result<(), Error> {
        while self.read(now, to, &mut bytes)? {}
        Ok(())
    }

    fn join(&mut self, now: Instant, id: ConnectionId, opening: Opening) -> Result<(), Refused> {
        let Opening { way, cookie } = opening;
        let own = self.connections.get(&id).ok_or(Refused::NotFound)?;
        let is_other = |other: &Connection| {
            // A cookie alone is not enough: a neighbour may have seen it.
            let is_near = other.peer.ip().to_canonical() == own.peer.ip().to_canonical();
            let is_alike = other.is_encrypted == own.is_encrypted && !other.is_closing;
            let has_cookie =
                matches!(&other.role, Role::Out { cookie: known, .. } if *known == cookie);
            is_near && is_alike && has_cookie
        };
        let other = self.connections.iter().find(|(_, other)| is_other(other)).map(|(&id, _)| id);
        let role = match (way, other) {
            (Way::Out, Some(_)) => return Err(Refused::Conflict),
            (Way::In, None) => return Err(Refused::NotFound),
            (Way::Out, None) => {
                self.transmits.push_back((id, OPEN.to_vec()));
                Role::Out { cookie, join_by: Some(now + JOIN_DEADLINE) }
            }
            (Way::In, Some(to)) => {
                self.close_ways_in(to);
                if let Some(Role::Out { join_by, .. }) =
                    self.connections.get_mut(&to).map(|other| &mut other.role)
                {
                    *join_by = None;
                }
                Role::In { to, base64: Base64::default() }
            }
        };
        if let Some(own) = self.connections.get_mut(&id) {
            own.role = role;
        }
        Ok(())
    }

    /// Closes the connections that lead to `out`.
    pub(super) fn close_ways_in(&mut self, out: ConnectionId) {
        for (&id, state) in &mut self.connections {
            if !state.is_closing && matches!(state.role, Role::In { to, .. } if to == out) {
                state.is_closing = true;
                self.events.push_back(Event::Close { connection: id });
            }
        }
    }

    /// Whether a connection, or the tunnel that it is part of, belongs to a stranger.
    /// Whether the credentials of a connection, or of the one that it leads into, wait to be looked
    /// at.
    pub(super) fn is_in_line(&self, state: &Connection) -> bool {
        let asks = match state.role {
            Role::In { to, .. } => self.connections.get(&to),
            Role::Whole | Role::Out { .. } => Some(state),
        };
        asks.is_some_and(|asks| asks.in_line_since.is_some())
    }

    pub(super) fn is_pending(&self, state: &Connection) -> bool {
        match state.role {
            Role::In { to, .. } => {
                !state.is_closing && self.connections.get(&to).is_some_and(Connection::is_pending)
            }
            Role::Whole | Role::Out { .. } => state.is_pending(),
        }
    }
}

/// Incremental decoder of base64 in several runs.
///
/// RFC 4648 4. Clients encode each request by itself, so that padding stands wherever a request
/// ends; some break lines.
#[derive(Debug, Default)]
pub(super) struct Base64 {
    /// Characters of a group of four.
    group: heapless::Vec<u8, 4>,
}

/// Bytes that are no base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotBase64;

impl Base64 {
    /// Appends to `into` what the whole groups in `bytes` stand for.
    pub(super) fn decode(&mut self, bytes: &[u8], into: &mut Vec<u8>) -> Result<(), NotBase64> {
        for &byte in bytes.iter().filter(|byte| !byte.is_ascii_whitespace()) {
            self.group.push(byte).map_err(|_| NotBase64)?;
            if self.group.is_full() {
                let mut decoded = [0; 3];
                let len = ENGINE.decode_slice(&self.group, &mut decoded).map_err(|_| NotBase64)?;
                into.extend_from_slice(decoded.get(..len).unwrap_or_default());
                self.group.clear();
            }
        }
        Ok(())
    }
}

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The answer to a GET. There is no length: what follows is RTSP until the end.
const OPEN: &[u8] = b"HTTP/1.0 200 OK\r\n\
    Server: Ocellus\r\n\
    Connection: close\r\n\
    Cache-Control: no-store\r\n\
    Pragma: no-cache\r\n\
    Content-Type: application/x-rtsp-tunnelled\r\n\
    \r\n";
/// How long a GET waits for its POST, which clients send at once.
pub const JOIN_DEADLINE: Duration = Duration::from_secs(5);
/// FFmpeg's have 16 characters, live555's 23, a UUID 36.
pub const MAX_COOKIE_LEN: usize = 128;

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose;

    use super::*;

    fn decode(text: &[u8], step: usize) -> Result<Vec<u8>, NotBase64> {
        let (mut base64, mut decoded) = (Base64::default(), Vec::new());
        text.chunks(step).try_for_each(|piece| base64.decode(piece, &mut decoded))?;
        Ok(decoded)
    }

    #[test]
    fn runs_with_padding_between_them_decode_however_they_are_cut() {
        let requests: Vec<Vec<u8>> = (1..40).map(|len| (0..len).collect()).collect();
        let mut text = Vec::new();
        for (index, request) in requests.iter().enumerate() {
            text.extend(general_purpose::STANDARD.encode(request).into_bytes());
            text.extend([&b""[..], b"\r\n", b" ", b"\n\n"][index % 4]);
        }
        for step in 1..text.len() {
            assert_eq!(decode(&text, step).unwrap(), requests.concat(), "{step}");
        }
    }

    #[test]
    fn what_is_no_base64_is_refused_and_half_a_group_says_nothing() {
        for text in ["A===", "=AAA", "AA=A", "$$$$", "OPTIONS *", "AA-_", "\0\0\0\0"] {
            assert_eq!(decode(text.as_bytes(), 1), Err(NotBase64), "{text}");
        }
        for text in ["", "A", "AA", "AAA", " \r\n"] {
            assert_eq!(decode(text.as_bytes(), 1), Ok(Vec::new()), "{text}");
        }
        // Bits that nobody sees do not matter.
        assert_eq!(decode(b"AB==", 4), Ok(vec![0]));
    }

    #[test]
    fn the_heads_of_clients_open_tunnels_and_others_get_a_status() {
        let opening = |way, cookie: &str| Ok(Opening { way, cookie: cookie.to_owned() });
        let long = "c".repeat(MAX_COOKIE_LEN);
        let too_long = "c".repeat(MAX_COOKIE_LEN + 1);
        let cookie = |value: &str| format!("GET / HTTP/1.1\r\nX-SessionCookie: {value}\r\n\r\n");
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        for (head, result) in [
            (&*cookie("4d9b"), opening(Way::Out, "4d9b")),
            (
                "POST /main HTTP/1.0\nx-sessioncookie: 4d9b\nContent-Length: 32767\n\n",
                opening(Way::In, "4d9b"),
            ),
            (&*cookie(&long), opening(Way::Out, &long)),
            (&*cookie(&too_long), Err(Refused::BadRequest)),
            (&*cookie(""), Err(Refused::BadRequest)),
            (&*cookie("a b"), Err(Refused::BadRequest)),
            (&*cookie("ä"), Err(Refused::BadRequest)),
            (&*cookie("a\r\nx-sessioncookie: a"), Err(Refused::BadRequest)),
            (&*cookie("a\r\nTransfer-Encoding: chunked"), Err(Refused::BadRequest)),
            (&*cookie("a\r\nno header"), Err(Refused::BadRequest)),
            (&*many, Err(Refused::BadRequest)),
            ("GET / HTTP/1.1\r\nHost: cam\r\n\r\n", Err(Refused::NotFound)),
            ("PUT / HTTP/1.1\r\nx-sessioncookie: a\r\n\r\n", Err(Refused::MethodNotAllowed)),
        ] {
            assert!(is_http(head.as_bytes()), "{head}");
            assert_eq!(Opening::parse(head.as_bytes()), result, "{head}");
        }
        for head in ["OPTIONS * RTSP/1.0\r\n\r\n", "GET /\r\n\r\n", "", "a HTTP/1.1 b\r\n\r\n"] {
            assert!(!is_http(head.as_bytes()), "{head}");
        }
    }
}
