//! RTSP through HTTP: two connections that are one, and all that can go wrong between them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocellus::rtsp::{
    ConnectionId, Event, IDLE_TIMEOUT, JOIN_DEADLINE, MAX_PENDING, SESSION_TIMEOUT,
};
use ocellus::stats::Transport;

use crate::camera::{Camera, Random, digest, nonce, settings, status};

const CLIENT: &str = "192.0.2.7:40000";
const NEIGHBOUR: &str = "192.0.2.8:40000";

fn head(method: &str, cookie: &str) -> Vec<u8> {
    let accept = "Accept: application/x-rtsp-tunnelled";
    let length = if method == "POST" { "Content-Length: 32767\r\n" } else { "" };
    format!("{method} /main HTTP/1.0\r\n{accept}\r\nx-sessioncookie: {cookie}\r\n{length}\r\n")
        .into_bytes()
}

/// Opens the way out, and says what came back.
fn get(camera: &mut Camera, peer: &str, cookie: &str) -> (ConnectionId, String) {
    let id = camera.connect(peer);
    camera.send(id, &head("GET", cookie));
    let answer = camera.read(id);
    (id, answer)
}

/// Opens the way in; true when it was let in, which nothing is answered to.
fn post(camera: &mut Camera, peer: &str, cookie: &str) -> (ConnectionId, bool) {
    let id = camera.connect(peer);
    let is_open = camera.send(id, &head("POST", cookie));
    let answer = camera.read(id);
    assert_eq!(answer.is_empty(), is_open, "{answer}");
    assert!(is_open || answer.starts_with("HTTP/1.0 404 "), "{answer}");
    (id, is_open)
}

fn tunnel(camera: &mut Camera) -> (ConnectionId, ConnectionId) {
    let (out, answer) = get(camera, CLIENT, "c");
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(answer.contains("Content-Type: application/x-rtsp-tunnelled\r\n"), "{answer}");
    assert!(!answer.contains("Content-Length"), "{answer}");
    let (way_in, is_open) = post(camera, CLIENT, "c");
    assert!(is_open);
    (out, way_in)
}

fn request(method: &str, url: &str, headers: &str) -> Vec<u8> {
    STANDARD.encode(format!("{method} {url} RTSP/1.0\r\nCSeq: 1\r\n{headers}\r\n")).into_bytes()
}

/// Sends a request on the way in and returns the answer from the way out.
fn ask(camera: &mut Camera, way: (ConnectionId, ConnectionId), request: &[u8]) -> String {
    assert!(camera.send(way.1, request));
    camera.read(way.0)
}

/// Plays `/main` and returns the Session header.
fn play(camera: &mut Camera, way: (ConnectionId, ConnectionId)) -> String {
    let setup = request("SETUP", "rtsp://cam/main/trackID=0", "Transport: RTP/AVP/TCP\r\n");
    let answer = ask(camera, way, &setup);
    assert_eq!(status(&answer), 200, "{answer}");
    let session = answer.lines().find(|line| line.starts_with("Session: ")).unwrap().to_owned();
    let session = session + "\r\n";
    assert!(camera.send(way.1, &request("PLAY", "rtsp://cam/main/", &session)));
    camera.idr(0, 100, 200);
    assert_eq!(status(&camera.read(way.0)), 200);
    assert!(matches!(camera.events.pop_front(), Some(Event::IdrWanted { .. })));
    assert!(matches!(camera.events.pop_front(), Some(Event::Play { .. })));
    session
}

fn closes(camera: &mut Camera, id: ConnectionId) -> bool {
    let is_meant = |event: &Event| *event == Event::Close { connection: id };
    let found = camera.events.iter().position(is_meant);
    found.is_some_and(|at| camera.events.remove(at).is_some())
}

#[test]
fn requests_go_in_and_answers_come_out_however_the_bytes_are_cut() {
    let requests = [
        request("OPTIONS", "rtsp://cam/main", ""),
        request("DESCRIBE", "rtsp://cam/main", "Accept: application/sdp\r\n"),
        b"\r\n".to_vec(),
        request("GET_PARAMETER", "rtsp://cam/main", "a: bc\r\n"),
    ];
    let whole = [&head("POST", "c")[..], &requests.concat()].concat();
    let mut answers = Vec::new();
    for seed in 0..40 {
        let mut camera = Camera::open();
        let (out, _) = get(&mut camera, CLIENT, "c");
        let way_in = camera.connect(CLIENT);
        let mut random = Random::new(seed);
        let mut rest = &whole[..];
        while !rest.is_empty() {
            let len = match seed {
                0 => rest.len(),
                1 => 1,
                _ => 1 + random.below(rest.len().min(90)),
            };
            let (piece, after) = rest.split_at(len);
            rest = after;
            assert!(camera.send(way_in, piece));
        }
        assert_eq!(camera.read(way_in), "");
        answers.push(camera.read(out));
    }
    assert_eq!(answers[0].matches("RTSP/1.0 200 OK").count(), 3, "{}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

#[test]
fn a_password_is_asked_for_inside_of_the_tunnel() {
    let mut camera = Camera::new(settings());
    camera.sets();
    let way = tunnel(&mut camera);
    let refused = ask(&mut camera, way, &request("DESCRIBE", "rtsp://cam/main", ""));
    assert_eq!(status(&refused), 401);
    for (password, wanted) in [("wrong", 401), ("secret", 200)] {
        let account = ("admin", password);
        let login = digest(account, &nonce(&refused), "DESCRIBE", "rtsp://cam/main") + "\r\n";
        let answer = ask(&mut camera, way, &request("DESCRIBE", "rtsp://cam/main", &login));
        assert_eq!(status(&answer), wanted, "{answer}");
    }
}

#[test]
fn only_the_same_cookie_from_the_same_address_joins_and_only_once() {
    let mut camera = Camera::open();
    assert!(!post(&mut camera, CLIENT, "c").1, "there is no tunnel yet");
    let (out, _) = get(&mut camera, CLIENT, "c");
    assert!(!post(&mut camera, CLIENT, "d").1);
    assert!(!post(&mut camera, NEIGHBOUR, "c").1, "a neighbour has seen the cookie");
    assert!(get(&mut camera, CLIENT, "c").1.starts_with("HTTP/1.0 409 "));
    assert!(get(&mut camera, NEIGHBOUR, "c").1.starts_with("HTTP/1.0 200 "));
    // An IPv4 address is the same whatever family the socket has.
    let (way_in, is_open) = post(&mut camera, "[::ffff:192.0.2.7]:40001", "c");
    assert!(is_open);
    let options = request("OPTIONS", "*", "");
    assert_eq!(status(&ask(&mut camera, (out, way_in), &options)), 200);
}

#[test]
fn an_encrypted_half_does_not_join_one_in_clear() {
    let mut camera = Camera::open();
    let out = camera.connect(CLIENT);
    camera.server.encrypted(out);
    assert!(camera.send(out, &head("GET", "c")));
    assert!(!post(&mut camera, CLIENT, "c").1);
    let way_in = camera.connect(CLIENT);
    camera.server.encrypted(way_in);
    assert!(camera.send(way_in, &head("POST", "c")));
}

#[test]
fn both_requests_on_one_connection_end_it() {
    let mut camera = Camera::open();
    let id = camera.connect(CLIENT);
    let both = [head("GET", "c"), head("POST", "c")].concat();
    assert!(!camera.send(id, &both));
    let answer = camera.read(id);
    assert!(answer.contains("HTTP/1.0 400 "), "{answer}");
    let id = camera.connect(CLIENT);
    assert!(!camera.send(id, &[head("POST", "c"), head("GET", "c")].concat()));
    assert!(camera.read(id).starts_with("HTTP/1.0 404 "));
}

#[test]
fn other_requests_of_http_get_a_status_and_the_connection_ends() {
    for (text, wanted) in [
        ("GET / HTTP/1.1\r\nHost: cam\r\n\r\n", "404"),
        ("PUT / HTTP/1.1\r\nx-sessioncookie: c\r\n\r\n", "405"),
        ("GET / HTTP/1.1\r\nx-sessioncookie: c\r\nx-sessioncookie: c\r\n\r\n", "400"),
        ("CONNECT cam:22 HTTP/1.1\r\n\r\n", "405"),
    ] {
        let mut camera = Camera::open();
        let id = camera.connect(CLIENT);
        assert!(!camera.send(id, text.as_bytes()), "{text}");
        let answer = camera.read(id);
        assert!(answer.starts_with(&format!("HTTP/1.0 {wanted} ")), "{answer}");
    }
    let mut camera = Camera::open();
    let id = camera.connect(CLIENT);
    assert_eq!(camera.status(id, "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"), 200);
    assert!(!camera.send(id, &head("GET", "c")), "RTSP has begun");
    assert_eq!(status(&camera.read(id)), 400);
}

#[test]
fn a_way_out_without_a_way_in_is_closed_soon() {
    let mut camera = Camera::open();
    let (out, _) = get(&mut camera, CLIENT, "c");
    camera.pass(JOIN_DEADLINE - Duration::from_millis(1));
    assert!(!closes(&mut camera, out));
    camera.pass(Duration::from_millis(1));
    assert!(closes(&mut camera, out));
    assert!(!post(&mut camera, CLIENT, "c").1, "it is closing");
}

#[test]
fn a_tunnel_without_a_session_is_idle_like_any_connection() {
    let mut camera = Camera::open();
    let (out, way_in) = tunnel(&mut camera);
    camera.pass(IDLE_TIMEOUT);
    assert!(closes(&mut camera, out) && closes(&mut camera, way_in));
    assert!(!camera.send(way_in, b"AAAA"));
}

#[test]
fn a_way_in_may_go_and_another_may_come_while_a_session_plays() {
    let mut camera = Camera::open();
    let (out, first) = tunnel(&mut camera);
    let session = play(&mut camera, (out, first));
    camera.disconnect(first);
    camera.pass(Duration::from_secs(20));
    assert!(camera.events.is_empty());
    let (second, is_open) = post(&mut camera, CLIENT, "c");
    assert!(is_open);
    let keep_alive = request("GET_PARAMETER", "rtsp://cam/main/", &session);
    assert_eq!(status(&ask(&mut camera, (out, second), &keep_alive)), 200);
    // The third takes the place of the second, half a group and all.
    assert!(camera.send(second, b"QU"));
    let (third, is_open) = post(&mut camera, CLIENT, "c");
    assert!(is_open && closes(&mut camera, second));
    assert!(!camera.send(second, b"QQ=="));
    assert_eq!(status(&ask(&mut camera, (out, third), &keep_alive)), 200);
    camera.pass(SESSION_TIMEOUT);
    assert!(matches!(camera.events.pop_front(), Some(Event::Teardown { .. })));
}

#[test]
fn everything_ends_with_the_way_out() {
    let mut camera = Camera::open();
    let (out, way_in) = tunnel(&mut camera);
    play(&mut camera, (out, way_in));
    camera.disconnect(out);
    assert!(closes(&mut camera, way_in));
    assert!(matches!(camera.events.pop_front(), Some(Event::Teardown { .. })));
    camera.disconnect(way_in);
    assert_eq!(camera.server.counts(), ocellus::rtsp::Counts::default());
}

#[test]
fn what_is_no_base64_or_no_rtsp_ends_both_halves() {
    for (rubbish, wanted) in [
        (b"OPTIONS * RTSP/1.0\r\n\r\n".to_vec(), 0),
        (STANDARD.encode("OPTIONS\r\n\r\n").into_bytes(), 400),
        // A tunnel in a tunnel.
        (STANDARD.encode(head("GET", "d")).into_bytes(), 400),
    ] {
        let mut camera = Camera::open();
        let (out, way_in) = tunnel(&mut camera);
        assert!(!camera.send(way_in, &rubbish));
        assert_eq!(status(&camera.read(out)), wanted);
        assert!(closes(&mut camera, out));
    }
}

#[test]
fn frames_of_a_viewer_come_in_through_the_tunnel() {
    let mut camera = Camera::open();
    let way = tunnel(&mut camera);
    play(&mut camera, way);
    let frame = STANDARD.encode(b"$\x01\x00\x02rr").into_bytes();
    assert!(camera.send(way.1, &frame));
    let event = camera.events.pop_front();
    assert!(matches!(&event, Some(Event::Rtcp { packet, .. }) if packet == b"rr"), "{event:?}");
}

#[test]
fn packets_do_not_go_beside_a_tunnel_or_an_encrypted_connection() {
    let udp = "Transport: RTP/AVP;unicast;client_port=5000-5001\r\n";
    let mut camera = Camera::open();
    let way = tunnel(&mut camera);
    let url = "rtsp://cam/main/trackID=0";
    assert_eq!(status(&ask(&mut camera, way, &request("SETUP", url, udp))), 461);
    let setup = format!("SETUP {url} RTSP/1.0\r\nCSeq: 1\r\n{udp}\r\n");
    let id = camera.connect(CLIENT);
    assert_eq!(camera.status(id, &setup), 200);
    let id = camera.connect(CLIENT);
    camera.server.encrypted(id);
    assert_eq!(camera.status(id, &setup), 461);
    let both = setup.replace("Transport: ", "Transport: RTP/AVP/UDP;client_port=6-7,RTP/AVP/TCP,");
    let answer = camera.ask(id, &both);
    assert!(answer.contains("Transport: RTP/AVP/TCP;unicast;interleaved=0-1"), "{answer}");
}

#[test]
fn both_halves_of_strangers_count_as_strangers() {
    let mut camera = Camera::new(settings());
    camera.sets();
    let (mut opened, mut closed) = (0, 0);
    for n in 0..200 {
        let peer = format!("192.0.2.{}:40000", 1 + n % 100);
        let cookie = n.to_string();
        let (_, answer) = get(&mut camera, &peer, &cookie);
        assert!(answer.starts_with("HTTP/1.0 200 "));
        assert!(post(&mut camera, &peer, &cookie).1);
        opened += 2;
        for event in std::mem::take(&mut camera.events) {
            let Event::Close { connection } = event else { panic!("{event:?}") };
            camera.disconnect(connection);
            closed += 1;
        }
        assert!(opened - closed <= MAX_PENDING, "{opened} {closed}");
    }
}

#[test]
fn strangers_never_take_the_place_of_a_tunnel_with_a_session() {
    let mut camera = Camera::open();
    let way = tunnel(&mut camera);
    play(&mut camera, way);
    for n in 0..2 * MAX_PENDING {
        camera.pass(Duration::from_millis(1));
        camera.connect(&format!("10.0.0.{n}:40000"));
        for event in std::mem::take(&mut camera.events) {
            let Event::Close { connection } = event else { panic!("{event:?}") };
            assert!(![way.0, way.1].contains(&connection));
            camera.disconnect(connection);
        }
    }
    assert_eq!(camera.server.counts().connections, MAX_PENDING + 2);
}

#[test]
fn how_media_goes_to_a_peer_is_said_of_every_connection() {
    let mut camera = Camera::open();
    let plain = camera.connect(NEIGHBOUR);
    let way = tunnel(&mut camera);
    let encrypted = camera.connect("192.0.2.9:40000");
    camera.server.encrypted(encrypted);
    for (id, peer, transport) in [
        (plain, NEIGHBOUR, Transport::Tcp),
        (way.0, CLIENT, Transport::Http),
        (way.1, CLIENT, Transport::Http),
        (encrypted, "192.0.2.9:40000", Transport::Tls),
    ] {
        assert_eq!(camera.server.way_to(id), Some((peer.parse().unwrap(), transport)));
    }
    camera.disconnect(plain);
    assert_eq!(camera.server.way_to(plain), None);
}
