//! What the streams are, and what they are to be while the camera runs: JSON over HTTP.
//!
//! RFC 5789 (PATCH) with the changed keys alone (RFC 7396). What may be changed to what is not for
//! the web side to know.

use std::fmt;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use log::info;

use super::login::{Admin, Viewer};
use super::pages::{Site, answer, plain};

/// The way to the streams; each call comes from the web side's own thread, which waits for it.
#[derive(Clone)]
pub struct StreamControl {
    /// The streams as they are now, as a JSON list.
    pub describe: Arc<dyn Fn() -> String + Send + Sync>,
    /// Changes the stream of this name as the JSON object says, which is as its author wrote it;
    /// returns in JSON what holds now and how it came to.
    pub change: Arc<Change>,
}

type Change = dyn Fn(&str, &str) -> Result<String, Refused> + Send + Sync;

/// Why a stream stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is none of this name.
    UnknownStream,
    /// Says what is wrong with the JSON object, or in it.
    NotAllowed(String),
    /// Says why this camera cannot.
    NotPossible(String),
}

impl fmt::Debug for StreamControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamControl").finish_non_exhaustive()
    }
}

pub(super) async fn describe(_: Viewer, State(site): State<Arc<Site>>) -> Response {
    answer(StatusCode::OK, JSON, (site.sources.stream_control.describe)())
}

pub(super) async fn change(
    _: Admin,
    State(site): State<Arc<Site>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if !is_json(&headers) {
        return plain(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Content-Type: application/json, please\n",
        );
    }
    let Ok(body) = to_bytes(body, MAX_BODY_LEN).await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "a body of at most 4096 bytes, please\n");
    };
    let Ok(json) = std::str::from_utf8(&body) else {
        return plain(StatusCode::BAD_REQUEST, "not UTF-8\n");
    };
    match (site.sources.stream_control.change)(&name, json) {
        Ok(now) => {
            info!("control: stream changed name={name:?} by={json:?}");
            answer(StatusCode::OK, JSON, now)
        }
        Err(Refused::UnknownStream) => plain(StatusCode::NOT_FOUND, "no such stream\n"),
        Err(Refused::NotAllowed(why)) => plain(StatusCode::BAD_REQUEST, why + "\n"),
        Err(Refused::NotPossible(why)) => plain(StatusCode::CONFLICT, why + "\n"),
    }
}

/// Whether the body is said to be JSON. What a form on a page of somebody else can send is not.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(JSON))
}

const JSON: &str = "application/json";
/// Twenty times what all keys take.
const MAX_BODY_LEN: usize = 4 << 10;

#[cfg(test)]
mod tests;
