//! What each method does: from a request to its answer, or to what the answer waits for.
//!
//! RFC 2326 10 and A.2.
//!
//! Not implemented: ANNOUNCE, RECORD, REDIRECT; Scale and Speed, which a live stream has no use
//! for and ignores.

use std::time::Duration;

use log::info;

use super::caller::Caller;
use super::connection::{Connection, ConnectionId, Hold, PUBLIC, Refusal};
use super::message::{Method, Request, Response};
use super::multicast::Group;
use super::range;
use super::sdp::Presentation;
use super::server::{Event, Server};
use super::session::{ADVERTISED_TIMEOUT_S, Delivery, Session, SessionId, State};
use super::settings::{Stream, StreamId};
use super::transport::{self, Lower, Offer};
use super::url::Url;
use crate::stats::Ending;
use crate::time::{Instant, NtpTimestamp};

/// Why there is no answer of 200 now.
#[derive(Debug)]
pub(super) enum Stop {
    Refuse(Refusal),
    Hold(Hold, Instant),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl Server {
    pub(super) fn answer(
        &mut self,
        now: Instant,
        id: ConnectionId,
        request: &Request,
    ) -> Result<Response, Stop> {
        if !request.is_version_1_0 {
            return Err(Refusal::UnsupportedVersion.into());
        }
        if request.cseq.is_none() {
            return Err(Refusal::BadRequest.into());
        }
        match request.method {
            Method::Unknown => return Err(Refusal::NotImplemented.into()),
            Method::NotOffered => return Err(Refusal::MethodNotAllowed.into()),
            _ => {}
        }
        // There is no option to have: all that is asked for is named (RFC 2326 12.32).
        let tags = request.headers("Require").chain(request.headers("Proxy-Require"));
        let tags: Vec<&str> = tags.collect();
        if !tags.is_empty() {
            return Err(Refusal::UnsupportedOption(tags.join(", ")).into());
        }
        if request.method == Method::Options {
            return Ok(Response::ok().header("Public", PUBLIC));
        }
        let caller = self.authenticate(now, id, request)?;
        match request.method {
            Method::Describe => self.describe(&caller, request),
            Method::Setup => Ok(self.setup(&caller, request)?),
            Method::Play => self.play(&caller, request),
            Method::Pause => Ok(self.pause(&caller, request)?),
            Method::Teardown => Ok(self.teardown(&caller, request)?),
            _ => Ok(self.parameter(&caller, request)?),
        }
    }

    fn describe(&mut self, caller: &Caller, request: &Request) -> Result<Response, Stop> {
        let url = Url::parse(&request.url).ok_or(Refusal::BadRequest)?;
        let (stream, is_multicast) = self.resolve(&url, None)?;
        let (Some(description), Some(settings)) =
            (self.descriptions.get(stream), self.settings.streams.get(stream))
        else {
            return Err(Refusal::NotFound.into());
        };
        let group = settings.multicast.filter(|_| is_multicast);
        let group = group.and_then(|multicast| multicast.group_at(caller.local));
        if is_multicast && group.is_none() {
            return Err(Refusal::NotFound.into());
        }
        let Some(sets) = &description.sets else {
            self.events.push_back(Event::IdrWanted { stream, session: None });
            return Err(Stop::Hold(Hold::ParameterSets(stream), caller.now + DESCRIBE_WAIT));
        };
        let [a, b, c, d, ..] = self.secret.hash("sdp", &[]);
        let id = u32::from_be_bytes([a, b, c, d]);
        let presentation = Presentation {
            stream: settings,
            sets,
            bandwidth_kbps: settings.bandwidth_kbps.max(description.bandwidth_kbps),
            group,
            id,
            version: description.version,
        };
        let body = presentation.emit(&url, caller.local);
        Ok(Response::ok()
            .header("Content-Base", url.base(caller.local))
            .with_body("application/sdp", body))
    }

    fn setup(&mut self, caller: &Caller, request: &Request) -> Result<Response, Refusal> {
        let url = Url::parse(&request.url).ok_or(Refusal::BadRequest)?;
        let own = self.own_session(caller, request)?;
        let (stream, is_multicast) = self.resolve(&url, own)?;
        let offer = self.offer(caller, stream, is_multicast);
        let transport = transport::choose(request.headers("Transport"), offer)
            .ok_or(Refusal::UnsupportedTransport)?;
        if let Some(session) = own.and_then(|id| self.sessions.get(&id)) {
            if session.stream != stream {
                return Err(Refusal::NotAggregate);
            }
            if session.state != State::Ready {
                return Err(Refusal::WrongState);
            }
        }
        let delivery = delivery(caller, transport.lower);
        let replaced = self.replaced(caller, stream, own, delivery)?;
        if own.is_none() {
            self.check_room(caller, &replaced)?;
        }
        replaced.into_iter().for_each(|id| self.end_session(id, Ending::Replaced));
        let id = own.unwrap_or_else(|| self.draw_session(caller.connection));
        let session = Session {
            stream,
            user: caller.user,
            address: caller.address(),
            connection: Some(caller.connection),
            delivery,
            state: State::Ready,
            track_url: match url.track {
                // As FFmpeg wrote it: it compares RTP-Info with its own URL byte by byte. But not
                // what would be cut at a separator, or is a password.
                Some(_)
                    if !request.url.contains(['@', ';', ',']) && request.url.contains("://") =>
                {
                    request.url.clone()
                }
                _ => url.track_url(caller.local),
            },
            alive: caller.now,
        };
        self.sessions.insert(id, session);
        info!("rtsp: set up session={id:?} stream={stream} peer={}", caller.peer);
        let ssrc = self.settings.streams.get(stream).map_or(0, |stream| stream.ssrc);
        Ok(Response::ok()
            .header("Transport", transport.reply(self.settings.server_ports, ssrc))
            .header("Session", session_header(id)))
    }

    /// What a SETUP may choose from: under the multicast URL nothing else, so that players which
    /// try one transport after the other arrive at it.
    fn offer(&self, caller: &Caller, stream: StreamId, is_multicast: bool) -> Offer {
        let connection = self.connections.get(&caller.connection);
        let has_datagrams = self.settings.server_ports != (0, 0)
            && connection.is_some_and(Connection::allows_datagrams);
        let multicast = self.settings.streams.get(stream).and_then(|stream| stream.multicast);
        Offer {
            has_interleaved: !is_multicast,
            has_udp: has_datagrams && !is_multicast,
            group: multicast
                .filter(|_| has_datagrams)
                .and_then(|multicast| multicast.group_at(caller.local)),
        }
    }

    /// The sessions that make way for what a SETUP asks for.
    ///
    /// Sessions of the same stream that are set up but not playing were given up: FFmpeg falls
    /// back from UDP to TCP with PAUSE and a SETUP without Session, and never tears down.
    fn replaced(
        &self,
        caller: &Caller,
        stream: StreamId,
        own: Option<SessionId>,
        delivery: Delivery,
    ) -> Result<Vec<SessionId>, Refusal> {
        let carried = |session: &Session| session.connection == Some(caller.connection);
        let given_up = |session: &Session| {
            own.is_none()
                && carried(session)
                && session.stream == stream
                && session.state == State::Ready
        };
        let is_taken = |session: &Session| match delivery {
            // RFC 2326 would allow a second session on other channels. No client asks for one, and
            // a viewer here is the connection; 459 is what 10.4 has for a SETUP that is not
            // bundled.
            Delivery::Interleaved { .. } => carried(session) && !session.is_udp(),
            Delivery::Udp { rtp, rtcp } => session.is_at(rtp) || session.is_at(rtcp),
            // There is room for any number in a group.
            Delivery::Multicast { .. } => false,
        };
        let mut replaced = Vec::new();
        for (&id, session) in self.sessions.iter().filter(|(id, _)| Some(**id) != own) {
            if given_up(session) {
                replaced.push(id);
            } else if is_taken(session) {
                match delivery {
                    Delivery::Interleaved { .. } => return Err(Refusal::NotAggregate),
                    // A client that comes back with the ports it had before it vanished.
                    _ if session.user == caller.user => replaced.push(id),
                    _ => return Err(Refusal::UnsupportedTransport),
                }
            }
        }
        Ok(replaced)
    }

    fn draw_session(&mut self, connection: ConnectionId) -> SessionId {
        let id = loop {
            let id = SessionId(self.secret.draw());
            if !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let state = self.connections.get_mut(&connection);
        state.into_iter().for_each(|state| state.sessions.push(id));
        id
    }

    fn play(&mut self, caller: &Caller, request: &Request) -> Result<Response, Stop> {
        let id = self.addressed_session(caller, request)?.ok_or(Refusal::WrongState)?;
        let session = self.sessions.get_mut(&id).ok_or(Refusal::SessionNotFound)?;
        if request.header("Range").is_some_and(range::is_reversed) {
            return Err(Refusal::InvalidRange.into());
        }
        match session.state {
            State::Playing => Ok(playing(id, None)),
            State::Starting => Err(Refusal::WrongState.into()),
            State::Ready => {
                session.state = State::Starting;
                let stream = session.stream;
                self.events.push_back(Event::IdrWanted { stream, session: Some(id) });
                Err(Stop::Hold(Hold::Idr(id), caller.now + PLAY_WAIT))
            }
        }
    }

    fn pause(&mut self, caller: &Caller, request: &Request) -> Result<Response, Refusal> {
        let id = self.addressed_session(caller, request)?.ok_or(Refusal::WrongState)?;
        let session = self.sessions.get_mut(&id).ok_or(Refusal::SessionNotFound)?;
        if session.state != State::Playing {
            return Err(Refusal::WrongState);
        }
        session.state = State::Ready;
        self.events.push_back(Event::Pause { session: id });
        Ok(Response::ok().header("Session", session_header(id)))
    }

    /// Ends the session; the connection stays open.
    fn teardown(&mut self, caller: &Caller, request: &Request) -> Result<Response, Refusal> {
        let id = self.addressed_session(caller, request)?.ok_or(Refusal::SessionNotFound)?;
        self.end_session(id, Ending::TornDown);
        Ok(Response::ok())
    }

    /// GET_PARAMETER and SET_PARAMETER: signs of life, with or without a session. There is no
    /// parameter to get; one to set is not understood.
    fn parameter(&mut self, caller: &Caller, request: &Request) -> Result<Response, Refusal> {
        let id = self.own_session(caller, request)?;
        if request.method == Method::SetParameter && request.body_len > 0 {
            return Err(Refusal::ParameterNotUnderstood);
        }
        let response = Response::ok();
        Ok(match id {
            Some(id) => response.header("Session", session_header(id)),
            None => response,
        })
    }

    /// Like [`Self::own_session`], for a request whose URL has to mean that session's stream.
    fn addressed_session(
        &mut self,
        caller: &Caller,
        request: &Request,
    ) -> Result<Option<SessionId>, Refusal> {
        let own = self.own_session(caller, request)?;
        if own.is_some() && request.url == "*" {
            return Ok(own);
        }
        let url = Url::parse(&request.url).ok_or(Refusal::BadRequest)?;
        let (stream, _) = self.resolve(&url, own)?;
        match own.and_then(|id| self.sessions.get(&id)) {
            Some(session) if session.stream != stream => Err(Refusal::NotFound),
            _ => Ok(own),
        }
    }

    /// The stream that a URL means, and whether it is the one for multicast.
    fn resolve(&self, url: &Url<'_>, own: Option<SessionId>) -> Result<(StreamId, bool), Refusal> {
        // There is one track.
        if url.track.is_some_and(|track| track != "0") {
            return Err(Refusal::NotFound);
        }
        // GStreamer resolves `trackID=0` against a base without a slash to the root.
        if url.path.is_empty() && url.track.is_some() {
            if let Some(session) = own.and_then(|id| self.sessions.get(&id)) {
                return Ok((session.stream, false));
            }
            if self.settings.streams.len() == 1 {
                return Ok((0, false));
            }
        }
        let (path, is_multicast) = url.multicast_path();
        let has_path = |paths: &[String]| paths.iter().any(|it| it == path);
        let mut streams = self.settings.streams.iter();
        let is_meant = |stream: &Stream| {
            has_path(&stream.paths) && (stream.multicast.is_some() || !is_multicast)
        };
        let stream = streams.position(is_meant).ok_or(Refusal::NotFound)?;
        Ok((stream, is_multicast))
    }
}

/// Where packets go: always back to where the request came from.
fn delivery(caller: &Caller, lower: Lower) -> Delivery {
    match lower {
        Lower::Interleaved { rtp_channel, rtcp_channel } => {
            Delivery::Interleaved { connection: caller.connection, rtp_channel, rtcp_channel }
        }
        Lower::Udp { rtp_port, rtcp_port } => {
            // Keeps the scope of a link-local address.
            let (mut rtp, mut rtcp) = (caller.peer, caller.peer);
            rtp.set_port(rtp_port);
            rtcp.set_port(rtcp_port);
            Delivery::Udp { rtp, rtcp }
        }
        Lower::Multicast(Group { rtp, rtcp, from, .. }) => Delivery::Multicast { rtp, rtcp, from },
    }
}

/// The answer to PLAY, without RTP-Info; `wall`: when its first picture was captured.
pub(super) fn playing(id: SessionId, wall: Option<NtpTimestamp>) -> Response {
    Response::ok().header("Session", session_header(id)).header("Range", range::From(wall))
}

/// No space after the semicolon: FFmpeg looks for `;timeout=`.
fn session_header(id: SessionId) -> String {
    format!("{id};timeout={ADVERTISED_TIMEOUT_S}")
}

/// How long PLAY waits for an IDR picture; clients that see nothing for 3 s change to TCP.
const PLAY_WAIT: Duration = Duration::from_secs(1);
/// How long DESCRIBE waits for a stream that is starting.
const DESCRIBE_WAIT: Duration = Duration::from_secs(2);
