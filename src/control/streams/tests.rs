use std::sync::Mutex;

use axum::extract::Request;
use axum::http::Method;
use axum::http::header::{CACHE_CONTROL, HeaderValue};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::*;
use crate::auth::{Secret, Throttle};
use crate::control::metrics;
use crate::control::snapshot::Shutter;
use crate::control::{Recent, Snapshots, Sources, pages};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Names and what was to be changed.
type Told = Mutex<Vec<(String, String)>>;

/// A web side that everybody may use, whose only stream is called main; what it was told is in
/// the list.
fn site() -> (Arc<Site>, Arc<Told>) {
    let told = Arc::<Told>::default();
    let list = Arc::clone(&told);
    let change = move |name: &str, json: &str| match (name, json) {
        ("main", "{}") => {
            list.lock().unwrap().push((name.into(), json.into()));
            Ok("{ \"applied\": \"live\" }".into())
        }
        ("main", "{ \"fps\": 61 }") => Err(Refused::NotAllowed("fps: 61 is not allowed".into())),
        ("main", _) => Err(Refused::NotPossible("its encoder cannot".into())),
        _ => Err(Refused::UnknownStream),
    };
    let sources = Sources {
        streams: Vec::new(),
        server: Arc::default(),
        viewers: Arc::default(),
        memory: None,
        log: Arc::new(Recent::default()),
        motion: Arc::default(),
        snapshots: Snapshots::Raw(Arc::default()),
        stream_control: StreamControl {
            describe: Arc::new(|| "[1]\n".into()),
            change: Arc::new(change),
        },
    };
    let site = Site {
        realm: "ocellus".into(),
        users: Vec::new(),
        no_auth: true,
        secret: Secret::new([7; 32]),
        throttle: Mutex::new(Throttle::default()),
        registry: metrics::registry(sources.clone()),
        shutter: Shutter::new(sources.snapshots.clone()),
        sources,
    };
    (Arc::new(site), told)
}

/// Status, type and body of the answer.
fn ask(site: &Arc<Site>, method: Method, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, kind);
    let request = request.body(Body::from(body.to_vec())).unwrap();
    let service = TowerToHyperService::new(pages::router(Arc::clone(site)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let answer = service.call(request).await.unwrap();
        let status = answer.status().as_u16();
        let may_be_kept = answer.headers().get(CACHE_CONTROL) != Some(&NO_STORE);
        assert!(status != 200 || !may_be_kept);
        let body = to_bytes(Body::new(answer.into_body()), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    })
}

#[test]
fn the_streams_are_told_as_they_are_now() {
    let (site, _) = site();
    assert_eq!(ask(&site, Method::GET, "/api/streams", "", b""), (200, "[1]\n".into()));
}

#[test]
fn a_change_is_handed_on_and_what_is_wrong_with_it_is_said() {
    let (site, told) = site();
    let long = vec![b' '; MAX_BODY_LEN + 1];
    let json = "application/json";
    for (path, kind, body, status, words) in [
        ("/api/streams/main", json, &b"{}"[..], 200, "applied"),
        ("/api/streams/main", "Application/JSON; charset=utf-8", b"{}", 200, "applied"),
        ("/api/streams/main", json, b"{ \"fps\": 61 }", 400, "fps: 61 is not allowed\n"),
        ("/api/streams/main", json, b"{ \"fps\": 5 }", 409, "its encoder cannot\n"),
        ("/api/streams/main", json, b"\xff", 400, "not UTF-8"),
        ("/api/streams/main", json, &long, 413, "at most 4096"),
        ("/api/streams/main", json, &long[1..], 409, "its encoder cannot\n"),
        ("/api/streams/main", "text/plain", b"{}", 415, "Content-Type"),
        ("/api/streams/main", "", b"{}", 415, "Content-Type"),
        ("/api/streams/third", json, b"{}", 404, "no such stream"),
        ("/api/streams/ma%69n", json, b"{}", 200, "applied"),
        ("/api/streams/%ff", json, b"{}", 400, ""),
        ("/api/streams/", json, b"{}", 404, "not found"),
    ] {
        let answer = ask(&site, Method::PATCH, path, kind, body);
        assert_eq!(answer.0, status, "{path} {kind} {answer:?}");
        assert!(answer.1.contains(words), "{answer:?}");
    }
    assert_eq!(*told.lock().unwrap(), vec![("main".into(), "{}".into()); 3]);
    assert_eq!(ask(&site, Method::GET, "/api/streams/main", "", b"").0, 405);
    assert_eq!(ask(&site, Method::POST, "/api/streams", json, b"{}").0, 405);
}
