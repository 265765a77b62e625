//! Decides who asks, and what they may have: users, sessions, room for one more.
//!
//! RFC 2326 3.4 and 10.4 (sessions across connections), RFC 7616.

use std::net::{IpAddr, SocketAddr};

use super::connection::{Connection, ConnectionId, Hold, Refusal};
use super::message::Request;
use super::methods::Stop;
use super::server::Server;
use super::session::{SessionId, viewers_max};
use super::url::is_same_stream;
use crate::auth::{self, Claim, Credentials, Role, Verdict};
use crate::time::Instant;

/// Who asks, over which connection, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub now: Instant,
    pub connection: ConnectionId,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// Index of the user, `None` without authentication.
    pub user: Option<usize>,
}

impl Caller {
    pub(super) fn address(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }
}

impl Server {
    pub(super) fn authenticate(
        &mut self,
        now: Instant,
        id: ConnectionId,
        request: &Request,
    ) -> Result<Caller, Stop> {
        let state = self.connections.get_mut(&id).ok_or(Refusal::BadRequest)?;
        let (connection, peer, local) = (id, state.peer, state.local);
        let caller = |user| Caller { now, connection, peer, local, user };
        if self.settings.no_auth {
            state.is_known = true;
            return Ok(caller(None));
        }
        let address = peer.ip().to_canonical();
        let challenge = |is_stale| {
            let nonce = auth::nonce(now, address, &self.secret);
            Refusal::Unauthorized(auth::challenges(&self.settings.realm, &nonce, is_stale))
        };
        let mut headers = request.headers("Authorization");
        let Some(header) = headers.next() else { return Err(challenge(false).into()) };
        let credentials = match Credentials::parse(header) {
            Ok(credentials) if headers.next().is_none() => credentials,
            Err(auth::Error::NotOffered) => return Err(challenge(false).into()),
            _ => return Err(Refusal::BadRequest.into()),
        };
        let turn = self.throttle.turn(now, address);
        if turn > now {
            return Err(Stop::Hold(Hold::Turn, turn));
        }
        let claim = Claim {
            method: request.method.name(),
            // The uri of the answer is what was hashed (3.4.6); it has to mean this request.
            is_for_this: is_same_stream(credentials.uri(), &request.url),
            peer: address,
            used_nonce: state.used_nonce.as_deref(),
        };
        let known = (&*self.settings.realm, &*self.settings.users);
        match credentials.verify(now, &claim, known, &self.secret) {
            Verdict::Right(index) => {
                state.used_nonce = Some(credentials.nonce().to_owned());
                state.is_known = true;
                Ok(caller(Some(index)))
            }
            Verdict::Stale => Err(challenge(true).into()),
            Verdict::Wrong => {
                let refusal = challenge(false);
                match self.throttle.failed(now, address) {
                    at if at > now => Err(Stop::Hold(Hold::Penalty(refusal), at)),
                    _ => Err(refusal.into()),
                }
            }
        }
    }

    /// The session that a request names, if the caller may steer it.
    ///
    /// From another connection than its own only a UDP session, by the same user from the same
    /// address; it then belongs to that connection.
    pub(super) fn own_session(
        &mut self,
        caller: &Caller,
        request: &Request,
    ) -> Result<Option<SessionId>, Refusal> {
        let Some(header) = request.header("Session") else { return Ok(None) };
        let id = SessionId::parse(header).ok_or(Refusal::SessionNotFound)?;
        let session = self.sessions.get_mut(&id).ok_or(Refusal::SessionNotFound)?;
        let is_here = session.connection == Some(caller.connection);
        let is_near = session.is_udp() && session.address == caller.address();
        if session.user != caller.user || !(is_here || is_near) {
            return Err(Refusal::SessionNotFound);
        }
        session.alive = caller.now;
        if !is_here {
            let before = session.connection.replace(caller.connection);
            let forget = |state: &mut Connection| state.sessions.retain(|other| *other != id);
            before
                .and_then(|before| self.connections.get_mut(&before))
                .into_iter()
                .for_each(forget);
            let state = self.connections.get_mut(&caller.connection);
            state.into_iter().for_each(|state| state.sessions.push(id));
        }
        Ok(Some(id))
    }

    /// Whether the caller may have one more session once `replaced` are gone.
    pub(super) fn check_room(
        &self,
        caller: &Caller,
        replaced: &[SessionId],
    ) -> Result<(), Refusal> {
        let stays = |id: &SessionId| !replaced.contains(id);
        let others = self.sessions.iter().filter(|(id, _)| stays(id));
        let (mut count, mut viewers) = (0, 0);
        for (_, session) in others {
            count += 1;
            viewers += usize::from(self.role(session.user) == Role::Viewer);
        }
        let max = self.settings.max_viewers;
        let connection = self.connections.get(&caller.connection);
        let carried =
            connection.map_or(0, |state| state.sessions.iter().filter(|id| stays(id)).count());
        let has_room = count < max
            && (self.role(caller.user) == Role::Admin || viewers < viewers_max(max))
            && carried < MAX_SESSIONS_PER_CONNECTION;
        if has_room { Ok(()) } else { Err(Refusal::TooManyViewers) }
    }

    /// Without authentication there is nobody to keep a slot for.
    fn role(&self, user: Option<usize>) -> Role {
        let user = user.map(|index| self.settings.users.get(index));
        user.map_or(Role::Admin, |user| user.map_or(Role::Viewer, |user| user.role))
    }
}

/// Recorders use one connection per session; a relay might use one for all streams.
const MAX_SESSIONS_PER_CONNECTION: usize = 8;
