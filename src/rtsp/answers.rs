//! Gives every request its answer: in order, at once or when what it waits for has come.
//!
//! RFC 2326 9.1: responses come in the order of the requests. While one waits, those behind it
//! stay in the connection's queue.

use log::{debug, info};

use super::connection::{Connection, ConnectionId, Hold, Refusal, Waiting};
use super::message::{Error, Request, Response};
use super::methods::{Stop, playing};
use super::server::{Event, FirstPacket, Server};
use super::session::State;
use crate::time::Instant;

impl Server {
    /// Answers what is in the queue of `id`, until an answer has to wait.
    pub(super) fn advance(&mut self, now: Instant, id: ConnectionId) {
        while let Some(request) =
            self.connections.get_mut(&id).and_then(|state| state.next_request())
        {
            self.handle(now, id, request);
        }
    }

    pub(super) fn handle(&mut self, now: Instant, id: ConnectionId, request: Request) {
        let answer = self.answer(now, id, &request);
        if let Some(state) = self.connections.get_mut(&id) {
            let is_in_line = matches!(answer, Err(Stop::Hold(Hold::Turn, _)));
            state.in_line_since = is_in_line.then(|| state.in_line_since.unwrap_or(now));
        }
        match answer {
            Ok(response) => self.respond(id, &request, &response),
            Err(Stop::Refuse(refusal)) => self.respond(id, &request, &refusal.response()),
            Err(Stop::Hold(on, until)) => {
                if let Some(state) = self.connections.get_mut(&id) {
                    state.waiting = Some(Waiting { request, on, until });
                }
            }
        }
    }

    /// Goes on with an answer that has waited long enough.
    pub(super) fn overdue(&mut self, now: Instant, id: ConnectionId, waiting: Waiting) {
        match &waiting.on {
            Hold::Turn => self.handle(now, id, waiting.request),
            Hold::Penalty(refusal) => self.respond(id, &waiting.request, &refusal.response()),
            Hold::ParameterSets(_) => {
                self.respond(id, &waiting.request, &Refusal::NotReady.response());
            }
            Hold::Idr(_) => self.start(now, id, &waiting, None),
        }
        self.advance(now, id);
    }

    fn respond(&mut self, id: ConnectionId, request: &Request, response: &Response) {
        self.transmits.push_back((id, response.emit(request.cseq)));
    }

    /// Answers the PLAY that `waiting` is, and has its session delivered.
    pub(super) fn start(
        &mut self,
        now: Instant,
        id: ConnectionId,
        waiting: &Waiting,
        first: Option<FirstPacket>,
    ) {
        let Hold::Idr(session_id) = waiting.on else { return };
        let starting = self.sessions.get_mut(&session_id);
        let Some(session) = starting.filter(|session| session.state == State::Starting) else {
            // Torn down from another connection meanwhile.
            return self.respond(id, &waiting.request, &Refusal::SessionNotFound.response());
        };
        session.state = State::Playing;
        session.alive = now;
        let (stream, delivery) = (session.stream, session.delivery);
        let mut response = playing(session_id, first.and_then(|first| first.wall));
        // Without the IDR there is nothing true to say about the first packet; zeros would be
        // taken for values.
        if let Some(FirstPacket { seq, rtptime, .. }) = first {
            let url = &session.track_url;
            response =
                response.header("RTP-Info", format!("url={url};seq={seq};rtptime={rtptime}"));
        }
        self.respond(id, &waiting.request, &response);
        info!("rtsp: playing session={session_id:?} stream={stream} delivery={delivery:?}");
        self.events.push_back(Event::Play { session: session_id, stream, delivery });
    }

    /// Takes the answers that wait for what `is_meant`.
    pub(super) fn take_waiting(
        &mut self,
        is_meant: impl Fn(&Hold) -> bool,
    ) -> Vec<(ConnectionId, Waiting)> {
        let take = |(&id, state): (&ConnectionId, &mut Connection)| {
            let waiting =
                state.waiting.take_if(|waiting| !state.is_closing && is_meant(&waiting.on))?;
            Some((id, waiting))
        };
        self.connections.iter_mut().filter_map(take).collect()
    }

    /// Ends a connection whose bytes make no sense any more.
    pub(super) fn give_up(&mut self, id: ConnectionId, error: &Error) {
        debug!("rtsp: closing connection={} error=\"{error}\"", id.0);
        let Some(state) = self.connections.get_mut(&id) else { return };
        state.is_closing = true;
        // An answer would come ahead of those that still wait.
        if state.waiting.is_some() {
            return;
        }
        if let Some((refusal, cseq)) = Refusal::of(error) {
            self.transmits.push_back((id, refusal.response().emit(cseq)));
        }
    }
}
