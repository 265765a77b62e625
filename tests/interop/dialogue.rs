//! One session that touches every rule: what a strict client says to a camera, in order.
//!
//! The probes come before the session proper, so that what they provoke cannot disturb it.

use std::time::Duration;

use crate::client::{Client, Lower};
use crate::digest::Credentials;

/// Requests that are answered with an error: the method, the URL, and one header.
pub(crate) fn probes(
    url: &str,
    control: &str,
) -> Vec<(&'static str, String, (&'static str, String))> {
    let unknown = "0123456789abcdef0123456789abcdef".to_owned();
    let header = |name, value: &str| (name, value.to_owned());
    vec![
        ("FROBNICATE", url.to_owned(), header("Accept", "*/*")),
        ("DESCRIBE", url.to_owned(), header("Require", "www.onvif.org/ver20/backchannel")),
        ("PLAY", url.to_owned(), header("Range", "npt=now-")),
        ("PLAY", url.to_owned(), ("Session", unknown.clone())),
        ("GET_PARAMETER", url.to_owned(), ("Session", unknown)),
        (
            "SETUP",
            control.to_owned(),
            header("Transport", "RTP/SAVP;unicast;client_port=4000-4001"),
        ),
        ("SETUP", control.to_owned(), header("Transport", "RAW/RAW/UDP;unicast")),
    ]
}

/// Says everything once: login, probes, a session with a pause, and its end.
///
/// `play_for` bounds the first play; the second one is short.
pub(crate) fn whole_session(client: &mut Client, lower: Lower, play_for: Duration) {
    let url = client.url.clone();
    assert_eq!(client.request("OPTIONS", &url, &[]).status(), 200);
    assert_eq!(client.request("DESCRIBE", &url, &[]).status(), 401);
    let right = client.credentials.clone();
    client.credentials = Credentials { password: "not-this-one".into(), ..right.clone() };
    assert_eq!(client.authorized("DESCRIBE", &url, &[]).status(), 401);
    client.credentials = right;
    let described = client.describe();
    assert_eq!(described.status(), 200, "{described:?}");
    for (method, uri, (name, value)) in probes(&url, &client.control.clone()) {
        client.request(method, &uri, &[(name, &value)]);
    }
    client.raw(format!("OPTIONS {url} RTSP/2.0\r\nCSeq: 7777\r\n\r\n").as_bytes());
    let set_up = client.setup(lower);
    assert_eq!(set_up.status(), 200, "{set_up:?}");
    let playing = client.play();
    assert_eq!(playing.status(), 200, "{playing:?}");
    client.listen(play_for / 2);
    for method in ["GET_PARAMETER", "SET_PARAMETER", "OPTIONS"] {
        client.keep_alive(method);
    }
    client.listen(play_for / 2);
    client.pause();
    client.listen(Duration::from_millis(400));
    client.play();
    client.listen(Duration::from_millis(1500));
    client.teardown();
    client.listen(Duration::from_millis(400));
}
