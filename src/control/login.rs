//! Lets in who knows a password: Digest for HTTP, slowed down as RTSP's.
//!
//! RFC 7616; see [`crate::auth`]. A nonce works for five minutes from its address; what it could be
//! replayed for is reading the same page again.

use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::pages::{Site, plain};
use crate::auth::{self, Claim, Credentials, Role, Throttle, Verdict};
use crate::sys::clock;
use crate::time::Instant;

/// Where a request comes from; every connection's requests carry it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Somebody with an account, or anybody where none is needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Viewer {
    role: Role,
}

/// Somebody who may see everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admin;

impl FromRequestParts<Arc<Site>> for Viewer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Response> {
        if site.no_auth {
            return Ok(Self { role: Role::Admin });
        }
        let Some(&Peer(peer)) = parts.extensions.get() else {
            return Err(plain(StatusCode::INTERNAL_SERVER_ERROR, "no peer\n"));
        };
        let header = match one_header(&parts.headers) {
            Ok(Some(header)) => header,
            Ok(None) => return Err(site.challenge(peer, false)),
            Err(()) => return Err(malformed()),
        };
        let credentials = match Credentials::parse(header) {
            Ok(credentials) => credentials,
            Err(auth::Error::NotOffered) => return Err(site.challenge(peer, false)),
            Err(auth::Error::Malformed) => return Err(malformed()),
        };
        site.turn(peer).await;
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let claim = Claim {
            method: parts.method.as_str(),
            is_for_this: credentials.uri() == target || parts.uri == *credentials.uri(),
            peer,
            used_nonce: None,
        };
        let known = (&*site.realm, &*site.users);
        let now = clock::now();
        match credentials.verify(now, &claim, known, &site.secret) {
            Verdict::Right(user) => match site.users.get(user) {
                Some(user) => Ok(Self { role: user.role }),
                None => Err(site.challenge(peer, false)),
            },
            Verdict::Stale => Err(site.challenge(peer, true)),
            Verdict::Wrong => {
                let answer_at = site.throttle().failed(now, peer);
                wait_until(answer_at).await;
                Err(site.challenge(peer, false))
            }
        }
    }
}

impl FromRequestParts<Arc<Site>> for Admin {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Response> {
        match Viewer::from_request_parts(parts, site).await?.role {
            Role::Admin => Ok(Self),
            Role::Viewer => Err(plain(StatusCode::FORBIDDEN, "for the admin only\n")),
        }
    }
}

impl Site {
    /// Waits until an attempt from `peer` may be looked at.
    async fn turn(&self, peer: IpAddr) {
        loop {
            let now = clock::now();
            let turn = self.throttle().turn(now, peer);
            if turn <= now {
                return;
            }
            wait_until(turn).await;
        }
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        // A list of failures is whole whoever panicked beside it.
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn challenge(&self, peer: IpAddr, is_stale: bool) -> Response {
        let nonce = auth::nonce(clock::now(), peer, &self.secret);
        let mut headers = HeaderMap::new();
        for challenge in auth::challenges(&self.realm, &nonce, is_stale) {
            // Without a realm that HTTP can carry nobody is let in.
            if let Ok(value) = HeaderValue::try_from(challenge) {
                headers.append(WWW_AUTHENTICATE, value);
            }
        }
        (headers, plain(StatusCode::UNAUTHORIZED, "name and password, please\n")).into_response()
    }
}

/// The value of the only such header.
fn one_header(headers: &HeaderMap) -> Result<Option<&str>, ()> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(());
    }
    // Names may be UTF-8, as in RTSP.
    first.map(|value| std::str::from_utf8(value.as_bytes()).map_err(drop)).transpose()
}

fn malformed() -> Response {
    plain(StatusCode::BAD_REQUEST, "malformed Authorization\n")
}

/// The runtime's clock is not ours, so that only the difference counts.
async fn wait_until(at: Instant) {
    let delay: Duration = at.since(clock::now());
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}
