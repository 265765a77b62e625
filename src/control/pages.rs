//! What is answered to which request.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::Sources;
use super::login::{Admin, Viewer};
use super::snapshot::Shutter;
use super::streams;
use crate::auth::{Secret, Throttle, User};
use crate::stats::Server;
use crate::sys::clock;
use crate::time::Instant;

/// What every request may need.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) realm: String,
    pub(super) users: Vec<User>,
    pub(super) no_auth: bool,
    pub(super) secret: Secret,
    pub(super) throttle: Mutex<Throttle>,
    pub(super) registry: Registry,
    pub(super) shutter: Shutter,
    pub(super) sources: Sources,
}

pub(super) fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/log", get(log))
        .route("/snapshot.jpg", get(snapshot))
        .route("/api/streams", get(streams::describe))
        .route("/api/streams/{name}", patch(streams::change))
        .fallback(not_found)
        .with_state(site)
}

async fn root() -> Response {
    plain(StatusCode::OK, ROOT)
}

async fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "not found\n")
}

async fn healthz(State(site): State<Arc<Site>>) -> Response {
    match health(clock::now(), &site.sources.server) {
        Ok(()) => plain(StatusCode::OK, "ok\n"),
        Err(words) => plain(StatusCode::SERVICE_UNAVAILABLE, words),
    }
}

/// A camera is well when its pictures are young; whether anybody watches does not matter.
fn health(now: Instant, server: &Server) -> Result<(), &'static str> {
    match server.newest_micros.get() {
        0 => Err("no picture yet\n"),
        newest if now.since(Instant::from_micros(newest)) < PICTURE_AGE_MAX => Ok(()),
        _ => Err("no new picture for five seconds\n"),
    }
}

async fn metrics(_: Viewer, State(site): State<Arc<Site>>) -> Response {
    let mut body = String::new();
    if text::encode(&mut body, &site.registry).is_err() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n");
    }
    answer(StatusCode::OK, OPEN_METRICS, body)
}

async fn log(_: Admin, State(site): State<Arc<Site>>) -> Response {
    let (mut lines, missed) = site.sources.log.read();
    if missed > 0 {
        lines.extend(format!("({missed} lines were missed)\n").bytes());
    }
    plain(StatusCode::OK, lines)
}

async fn snapshot(_: Viewer, State(site): State<Arc<Site>>) -> Response {
    match site.shutter.snapshot().await {
        Ok(image) => answer(StatusCode::OK, "image/jpeg", image),
        Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

pub(super) fn plain(status: StatusCode, body: impl IntoResponse) -> Response {
    answer(status, "text/plain; charset=utf-8", body)
}

pub(super) fn answer(status: StatusCode, kind: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

const ROOT: &str = "\
Ocellus, an IP camera.

Pictures come over RTSP, for players and recorders: rtsp://THIS-HOST/main

  /healthz        ok, or what is wrong
  /snapshot.jpg   the newest picture (with a login)
  /metrics        OpenMetrics text (with a login)
  /api/streams    the streams as JSON (with a login); PATCH /api/streams/main
                  changes one (with an admin's login)
  /log            the newest lines of the log (with an admin's login)

This port also takes RTSP through HTTP. There is no web page yet.
";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// As the heartbeat's: NO SIGNAL pictures come once a second.
const PICTURE_AGE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_a_young_picture() {
        let server = Server::default();
        let at = |seconds: u64| Instant::from_micros(seconds * 1_000_000);
        assert_eq!(health(at(0), &server), Err("no picture yet\n"));
        server.newest_micros.set(7_000_000);
        for seconds in 6..12 {
            assert_eq!(health(at(seconds), &server), Ok(()));
        }
        assert_eq!(health(at(12), &server), Err("no new picture for five seconds\n"));
    }
}
