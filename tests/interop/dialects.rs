//! What real clients say differently, and every one of them gets its picture.
//!
//! INTEROP's short list: rules 5, 7 to 9, 12, 14 and 16 to 18; each line of a table names the
//! client that speaks so.

use std::io::Write;
use std::time::Duration;

use crate::camera::{Camera, credentials};
use crate::capture::{Event, Kind};
use crate::client::{Client, Lower};

fn start() -> Camera {
    Camera::start(&["--source", "pattern", "--size", "320x240", "--fps", "30"])
}

/// Waits for media of the client's session.
fn sees_media(client: &mut Client, from: usize) -> bool {
    let is_media = |event: &Event| match &event.kind {
        Kind::Interleaved { channel, packet } => channel % 2 == 0 && packet.len() > 12,
        Kind::Datagram { to, packet, .. } => to % 2 == 0 && packet.len() > 12,
        _ => false,
    };
    let limit = Duration::from_secs(3);
    client.listen_until(limit, |client| client.capture.events[from..].iter().any(is_media))
}

#[test]
fn every_name_of_the_stream_is_described() {
    let camera = start();
    let host = camera.url.strip_suffix("/main").unwrap().to_owned();
    for (path, expected) in [
        ("/main", 200),
        ("/main/", 200),
        ("/", 200),
        ("", 200),
        ("/stream1", 200),
        ("/main?transport=tcp", 200),
        ("/no-such-stream", 404),
        ("/main/../../etc/passwd", 404),
    ] {
        let mut client = Client::connect(&format!("{host}{path}"), &credentials());
        let reply = client.describe();
        assert_eq!(reply.status(), expected, "{path:?}: {reply:?}");
        if expected == 200 {
            assert_eq!(client.setup(Lower::Tcp).status(), 200, "{path:?} {}", client.control);
            let from = client.capture.events.len();
            assert_eq!(client.play().status(), 200, "{path:?}");
            assert!(sees_media(&mut client, from), "{path:?}");
        }
    }
}

#[test]
fn every_form_of_transport_is_understood_and_answered_with_one_of_its_kind() {
    let camera = start();
    for (client_name, transport, answer) in [
        ("FFmpeg", "RTP/AVP/TCP;unicast;interleaved=0-1", "RTP/AVP/TCP"),
        ("yellowstone", "RTP/AVP/TCP;interleaved=0-1", "RTP/AVP/TCP"),
        ("second stream", "RTP/AVP/TCP;unicast;interleaved=2-3", "RTP/AVP/TCP"),
        ("with mode", "RTP/AVP/TCP;unicast;interleaved=0-1;mode=play", "RTP/AVP/TCP"),
        ("quoted mode", "RTP/AVP/TCP;unicast;interleaved=0-1;mode=\"PLAY\"", "RTP/AVP/TCP"),
        (
            "two to choose",
            "RTP/SAVP;unicast;client_port=4000-4001,RTP/AVP/TCP;unicast;\
          interleaved=0-1",
            "RTP/AVP/TCP",
        ),
        ("retina", "RTP/AVP/UDP;unicast;client_port=40000-40001", "RTP/AVP"),
        ("GStreamer", "RTP/AVP;unicast;client_port=40000-40001", "RTP/AVP"),
        ("old ones", "RTP/AVP;client_port=40000-40001", "RTP/AVP"),
    ] {
        let mut client = Client::connect(&camera.url, &credentials());
        assert_eq!(client.describe().status(), 200);
        let control = client.control.clone();
        let reply = client.authorized("SETUP", &control, &[("Transport", transport)]);
        assert_eq!(reply.status(), 200, "{client_name}: {reply:?}");
        let got = reply.header("Transport").unwrap_or("");
        assert!(got.starts_with(answer) && !got.contains(','), "{client_name}: {got}");
        let tcp = got.starts_with("RTP/AVP/TCP");
        assert_eq!(tcp, transport.contains("TCP"), "{client_name}: {got}");
        if tcp {
            client.session = reply.header("Session").map(|id| id[..id.len() - 11].to_owned());
            assert_eq!(client.play().status(), 200, "{client_name}");
            assert!(sees_media(&mut client, 0), "{client_name}");
        }
    }
}

#[test]
fn every_way_to_play_is_understood() {
    let camera = start();
    let ranges: [&[(&str, &str)]; 5] = [
        &[],
        &[("Range", "npt=0.000-")],
        &[("Range", "npt=now-")],
        &[("Range", "npt=0.000-2.000")],
        &[("Range", "clock=20261122T143720.257Z-")],
    ];
    for (headers, on_the_track) in
        ranges.into_iter().flat_map(|range| [(range, false), (range, true)])
    {
        let mut client = Client::connect(&camera.url, &credentials());
        assert_eq!(client.describe().status(), 200);
        assert_eq!(client.setup(Lower::Tcp).status(), 200);
        let url = if on_the_track { client.control.clone() } else { client.base.clone() };
        // yellowstone sends the header back as it came.
        client.session = client.session.map(|id| format!("{id};timeout=60"));
        let from = client.capture.events.len();
        let reply = client.request("PLAY", &url, headers);
        assert_eq!(reply.status(), 200, "{headers:?} on {url}: {reply:?}");
        assert!(sees_media(&mut client, from), "{headers:?} on {url}");
        assert_eq!(client.request("PLAY", &url, &[]).status(), 200, "again, as a keep-alive");
        assert_eq!(client.request("PAUSE", &url, &[]).status(), 200);
        assert_eq!(client.request("TEARDOWN", &url, &[]).status(), 200);
    }
}

#[test]
fn odd_manners_do_not_cost_the_picture() {
    let camera = start();
    let mut client = Client::connect(&camera.url, &credentials());
    // live555 begins with CSeq 2; GStreamer repeats headers; some send empty lines in between.
    let odd = format!(
        "\r\n\r\nOPTIONS {} RTSP/1.0\r\ncseq: 2\r\nUser-Agent: a\r\nUser-Agent: b\r\n\
         ClientChallenge: 9e26d33f2984236010ef6253fb1887f7\r\n\r\n",
        camera.url
    );
    assert_eq!(client.raw(odd.as_bytes()).header("CSeq"), Some("2"));
    assert_eq!(client.describe().status(), 200);
    assert_eq!(client.describe().status(), 200, "a second time, as go2rtc does");
    assert_eq!(client.setup(Lower::Tcp).status(), 200);
    // An empty receiver report on the RTCP channel, before PLAY and after.
    let report = [b'$', 1, 0, 8, 0x80, 201, 0, 1, 0x12, 0x34, 0x56, 0x78];
    client.stream().write_all(&report).unwrap();
    assert_eq!(client.play().status(), 200);
    client.stream().write_all(&report).unwrap();
    let base = client.base.clone();
    let head = client.compose("GET_PARAMETER", &base, &[("Content-Length", "13")]);
    assert_eq!(client.raw(format!("{head}packet_rate\r\n").as_bytes()).status(), 200);
    let from = client.capture.events.len();
    assert!(sees_media(&mut client, from));
}

#[test]
fn a_refused_transport_may_be_followed_by_another_on_the_same_connection() {
    let camera = start();
    let mut client = Client::connect(&camera.url, &credentials());
    assert_eq!(client.describe().status(), 200);
    let control = client.control.clone();
    let encrypted = [("Transport", "RTP/SAVP;unicast;client_port=5000-5001")];
    assert_eq!(client.authorized("SETUP", &control, &encrypted).status(), 461);
    // FFmpeg falls back from UDP to TCP with a session of its own and no TEARDOWN.
    assert_eq!(client.setup(Lower::Udp).status(), 200);
    client.session = None;
    assert_eq!(client.setup(Lower::Tcp).status(), 200);
    let from = client.capture.events.len();
    assert_eq!(client.play().status(), 200);
    assert!(sees_media(&mut client, from));
}

#[test]
fn who_finds_no_room_is_told_so_until_there_is_some() {
    let camera = start();
    let mut clients: Vec<_> =
        [(); 16].map(|()| Client::connect(&camera.url, &credentials())).into();
    let options = |client: &mut Client| client.request("OPTIONS", "*", &[]);
    // Who has not been let in would make room.
    assert!(clients.iter_mut().all(|client| client.describe().status() == 200));
    for _ in 0..3 {
        let mut one_more = Client::connect(&camera.url, &credentials());
        // Before it has asked for anything.
        let refused = one_more.raw(b"");
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.header("Retry-After"), Some("30"));
    }
    assert!(clients.iter_mut().all(|client| options(client).status() == 200));
    drop(clients.pop());
    // Its end may be noticed after the first newcomer.
    let mut statuses = (0..20).map(|_| {
        let mut one_more = Client::connect(&camera.url, &credentials());
        let refused = one_more.listen_until(Duration::from_millis(50), |it| it.responses() > 0);
        if refused { 503 } else { options(&mut one_more).status() }
    });
    assert!(statuses.any(|status| status == 200));
}
