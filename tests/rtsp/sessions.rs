//! Sessions and connections: states, limits, and what is left behind.

use std::collections::VecDeque;
use std::time::Duration;

use ocellus::rtsp::{
    ConnectionId, Delivery, Event, FirstPacket, IDLE_TIMEOUT, LEAVING_TIMEOUT, MAX_PENDING,
    Refused, SESSION_TIMEOUT, SessionId, Settings,
};
use ocellus::stats::Ending;
use ocellus::time::NtpTimestamp;

use crate::camera::{Camera, GROUPS, LOCAL, header, settings, status};

/// Sets a session up and returns its id as text.
fn set_up(camera: &mut Camera, id: ConnectionId, transport: &str) -> String {
    let answer = camera.ask(
        id,
        &format!(
            "SETUP rtsp://cam/main/trackID=0 RTSP/1.0\r\nCSeq: 1\r\nTransport: {transport}\r\n\r\n"
        ),
    );
    assert_eq!(status(&answer), 200, "{answer}");
    header(&answer, "Session").unwrap().split(';').next().unwrap().to_owned()
}

fn request(method: &str, session: &str) -> String {
    format!("{method} rtsp://cam/main/ RTSP/1.0\r\nCSeq: 9\r\nSession: {session}\r\n\r\n")
}

const TCP: &str = "RTP/AVP/TCP;unicast;interleaved=0-1";
const UDP: &str = "RTP/AVP;unicast;client_port=5000-5001";

#[test]
fn media_goes_to_the_peer_and_nowhere_else() {
    let mut camera = Camera::open();
    let id = camera.connect("[::ffff:192.0.2.7]:40000");
    let transport = "RTP/AVP;unicast;destination=203.0.113.9;client_port=5000-5001";
    let session = set_up(&mut camera, id, transport);
    camera.send(id, request("PLAY", &session).as_bytes());
    camera.idr(0, 5, 6);
    let Some(&Event::Play { delivery: Delivery::Udp { rtp, rtcp }, session, .. }) =
        camera.events.back()
    else {
        panic!("no play")
    };
    assert_eq!(rtp, "[::ffff:192.0.2.7]:5000".parse().unwrap());
    assert_eq!(rtcp, "[::ffff:192.0.2.7]:5001".parse().unwrap());
    // Its RTCP is known by address and port, in whatever form the socket reports them.
    for (from, whose) in [
        ("192.0.2.7:5001", Some(session)),
        ("[::ffff:192.0.2.7]:5001", Some(session)),
        ("192.0.2.7:5000", Some(session)),
        ("192.0.2.7:5002", None),
        ("192.0.2.8:5001", None),
    ] {
        assert_eq!(camera.server.session_of_rtcp(from.parse().unwrap()), whose, "{from}");
    }
}

#[test]
fn setting_the_same_track_up_again_replaces_its_transport() {
    let mut camera = Camera::open();
    let id = camera.connect("192.0.2.7:40000");
    let session = set_up(&mut camera, id, UDP);
    for n in 0..50 {
        let transport = if n % 2 == 0 { TCP } else { UDP };
        let rest = format!("{transport}\r\nSession: {session}");
        assert_eq!(set_up(&mut camera, id, &rest), session);
    }
    assert_eq!(camera.server.counts().sessions, 1);
    assert!(camera.events.is_empty());
    // Without the session it is a new one, in place of the old.
    for _ in 0..100 {
        assert_ne!(set_up(&mut camera, id, TCP), session);
    }
    assert_eq!(camera.server.counts().sessions, 1);
}

#[test]
fn no_order_of_methods_breaks_the_states() {
    let methods = ["PLAY", "PAUSE", "TEARDOWN", "SETUP", "GET_PARAMETER", "DESCRIBE", "RECORD"];
    for order in 0..methods.len().pow(4) {
        let mut camera = Camera::open();
        let id = camera.connect("192.0.2.7:40000");
        let session = set_up(&mut camera, id, TCP);
        let (mut is_playing, mut is_over) = (false, false);
        let mut rest = order;
        for _ in 0..4 {
            let method = methods[rest % methods.len()];
            rest /= methods.len();
            let text = request(method, &session);
            let text = text.replace("\r\n\r\n", &format!("\r\nTransport: {TCP}\r\n\r\n"));
            camera.send(id, text.as_bytes());
            camera.idr(0, 5, 6);
            let expected = match method {
                "DESCRIBE" => 200,
                "RECORD" => 405,
                _ if is_over => 454,
                "PAUSE" if !is_playing => 455,
                "SETUP" if is_playing => 455,
                _ => 200,
            };
            assert_eq!(status(&camera.read(id)), expected, "{order}: {method}");
            is_over |= method == "TEARDOWN";
            is_playing = (is_playing || method == "PLAY") && method != "PAUSE" && !is_over;
            let counts = camera.server.counts();
            assert_eq!(counts.playing, usize::from(is_playing));
            assert_eq!(counts.sessions, usize::from(!is_over));
        }
    }
}

#[test]
fn scale_speed_and_range_change_nothing() {
    for lines in [
        "Scale: 0",
        "Scale: NaN",
        "Speed: -1",
        "Speed: 1e308",
        "Range: npt=0.000-2.000",
        "Range: npt=99999999999999999999-",
        "Range: clock=99991231T235959Z-",
        "Range: garbage",
    ] {
        let mut camera = Camera::open();
        let id = camera.connect("192.0.2.7:40000");
        let session = set_up(&mut camera, id, TCP);
        let play = request("PLAY", &session).replace("\r\n\r\n", &format!("\r\n{lines}\r\n\r\n"));
        camera.send(id, play.as_bytes());
        camera.idr(0, 5, 6);
        assert_eq!(header(&camera.read(id), "Range"), Some("npt=now-"), "{lines}");
    }
}

#[test]
fn four_viewers_that_start_at_once_are_all_served_by_one_idr() {
    let mut camera = Camera::open();
    let mut viewers = Vec::new();
    for n in 0..4 {
        let id = camera.connect(&format!("192.0.2.{}:40000", 10 + n));
        let session = set_up(&mut camera, id, if n % 2 == 0 { TCP } else { UDP });
        camera.send(id, request("PLAY", &session).as_bytes());
        viewers.push(id);
    }
    assert!(camera.server.has_waiting_plays(0) && !camera.server.has_waiting_plays(1));
    camera.idr(0, 1_000, 90_000);
    assert!(!camera.server.has_waiting_plays(0));
    for id in viewers {
        let answer = camera.read(id);
        let expected = "url=rtsp://cam/main/trackID=0;seq=1000;rtptime=90000";
        assert_eq!(header(&answer, "RTP-Info"), Some(expected));
    }
    let plays = camera.events.iter().filter(|event| matches!(event, Event::Play { .. }));
    assert_eq!(plays.count(), 4);
}

#[test]
fn session_ids_are_random_and_never_come_twice() {
    let mut camera = Camera::open();
    let id = camera.connect("192.0.2.7:40000");
    let mut seen = Vec::new();
    for _ in 0..1_000 {
        let session = set_up(&mut camera, id, TCP);
        assert!(session.len() == 32 && session.bytes().all(|byte| byte.is_ascii_hexdigit()));
        seen.push(session);
        camera.events.clear();
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 1_000);
}

#[test]
fn idle_strangers_make_room_and_viewers_play_on() {
    let mut camera = Camera::open();
    let viewer = camera.connect("192.0.2.7:40000");
    set_up(&mut camera, viewer, TCP);
    let mut closed = Vec::new();
    for n in 0..1_100_u32 {
        camera.pass(Duration::from_millis(1));
        let peer = format!("10.0.{}.{}:40000", n / 250, n % 250);
        let id = camera.connect(&peer);
        for event in std::mem::take(&mut camera.events) {
            let Event::Close { connection } = event else { panic!("{event:?}") };
            closed.push(connection);
            camera.disconnect(connection);
        }
        assert!(camera.server.counts().connections <= MAX_PENDING + 1);
        assert!(!closed.contains(&id));
    }
    assert_eq!(closed.len(), 1_100 - MAX_PENDING);
    assert!(!closed.contains(&viewer) && closed.is_sorted());
    camera.pass(IDLE_TIMEOUT);
    assert_eq!(camera.events.len(), MAX_PENDING);
    assert_eq!(camera.status(viewer, "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"), 200);
}

#[test]
fn an_address_has_as_many_connections_as_it_may_have() {
    let mut camera = Camera::open();
    let ids = [0; 16].map(|_| {
        let id = camera.connect("192.0.2.7:40000");
        assert_eq!(camera.status(id, "DESCRIBE rtsp://cam/main RTSP/1.0\r\nCSeq: 1\r\n\r\n"), 200);
        id
    });
    let accept = |camera: &mut Camera, peer: &str| {
        camera.server.accept(camera.now, peer.parse().unwrap(), LOCAL.parse().unwrap())
    };
    for peer in ["192.0.2.7:1", "[::ffff:192.0.2.7]:2"] {
        assert_eq!(accept(&mut camera, peer), Err(Refused::TooManyFromAddress));
    }
    let answer = String::from_utf8(Refused::TooManyFromAddress.response()).unwrap();
    assert_eq!(status(&answer), 503);
    assert_eq!(header(&answer, "Retry-After"), Some("30"));
    assert!(answer.lines().next().unwrap().contains("too many connections from one address"));
    assert!(accept(&mut camera, "192.0.2.8:1").is_ok());
    camera.disconnect(ids[3]);
    assert!(accept(&mut camera, "192.0.2.7:3").is_ok());
}

#[test]
fn who_guesses_on_every_connection_that_an_address_may_have_does_not_keep_it_for_himself() {
    let mut camera = Camera::new(settings());
    camera.sets();
    let guess = "DESCRIBE rtsp://cam/main RTSP/1.0\r\nCSeq: 1\r\n\r\n";
    let mut guessers = VecDeque::new();
    for _ in 0..16 {
        let id = camera.connect("192.0.2.7:40000");
        camera.pass(Duration::from_millis(1));
        camera.send(id, guess.as_bytes());
        guessers.push_back(id);
    }
    for _ in 0..100 {
        // The one that is quiet for longest goes, and nobody else.
        let id = camera.connect("192.0.2.7:40001");
        let quietest = guessers.pop_front().unwrap();
        assert_eq!(camera.events.pop_front(), Some(Event::Close { connection: quietest }));
        assert!(camera.events.is_empty());
        camera.disconnect(quietest);
        camera.pass(Duration::from_millis(1));
        assert_eq!(camera.status(id, guess), 401);
        guessers.push_back(id);
        assert_eq!(camera.server.counts().connections, 16);
    }
    // Those that have been told to go, and do not, are not without end.
    let connect = |camera: &mut Camera| {
        camera.server.accept(camera.now, "192.0.2.7:2".parse().unwrap(), LOCAL.parse().unwrap())
    };
    let refused = (0..40).filter(|_| connect(&mut camera).is_err()).count();
    assert_eq!((refused, camera.server.counts().connections), (24, 32));
}

#[test]
fn connections_that_nobody_closes_do_not_pile_up() {
    let mut camera = Camera::open();
    let mut refused = 0;
    for n in 0..10_000_u32 {
        let peer = format!("10.{}.{}.1:1", n / 250, n % 250);
        let result =
            camera.server.accept(camera.now, peer.parse().unwrap(), LOCAL.parse().unwrap());
        refused += usize::from(result == Err(Refused::TooMany));
        camera.drain();
    }
    // Two for each viewer and two for each stranger.
    assert_eq!(camera.server.counts().connections, 2 * 4 + 2 * MAX_PENDING);
    assert_eq!(refused, 10_000 - camera.server.counts().connections);
}

#[test]
fn viewers_that_come_and_go_leave_nothing_behind() {
    let mut camera = Camera::open();
    for n in 0..100 {
        let id = camera.connect("192.0.2.7:40000");
        let session = set_up(&mut camera, id, if n % 2 == 0 { TCP } else { UDP });
        if n % 3 > 0 {
            camera.send(id, request("PLAY", &session).as_bytes());
        }
        if n % 3 > 1 {
            camera.idr(0, 5, 6);
        }
        camera.disconnect(id);
        camera.idr(0, 5, 6);
        if n % 2 == 0 {
            let session = SessionId(u128::from_str_radix(&session, 16).unwrap());
            assert_eq!(
                camera.events.back(),
                Some(&Event::Teardown { session, why: Ending::Disconnected })
            );
        }
        camera.output.clear();
        camera.events.clear();
    }
    // One UDP session is left: the others were replaced by those on the same ports.
    assert_eq!(camera.server.counts().sessions, 1);
    camera.pass(SESSION_TIMEOUT - Duration::from_secs(1));
    assert_eq!(camera.events.len(), 0);
    camera.pass(Duration::from_secs(1));
    assert_eq!(camera.server.counts(), ocellus::rtsp::Counts::default());
    assert_eq!(camera.server.poll_timeout(), None);
}

#[test]
fn a_session_started_on_a_lost_connection_does_not_play_until_asked_again() {
    let mut camera = Camera::open();
    let id = camera.connect("192.0.2.7:40000");
    let session = set_up(&mut camera, id, UDP);
    camera.send(id, request("PLAY", &session).as_bytes());
    camera.disconnect(id);
    camera.events.clear();
    camera.idr(0, 5, 6);
    assert!(camera.events.is_empty());
    let id = camera.connect("192.0.2.7:40001");
    camera.send(id, request("PLAY", &session).as_bytes());
    camera.idr(0, 7, 8);
    assert!(header(&camera.read(id), "RTP-Info").unwrap().ends_with("seq=7;rtptime=8"));
}

#[test]
fn requests_behind_a_waiting_answer_are_limited() {
    let mut camera = Camera::open();
    let id = camera.connect("192.0.2.7:40000");
    let session = set_up(&mut camera, id, TCP);
    camera.send(id, request("PLAY", &session).as_bytes());
    let mut sent = 0;
    while camera.send(id, b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n") {
        sent += 1;
        assert!(sent < 1_000);
    }
    assert!(sent > 50);
    // It is not answered any more, not even by the IDR; its session ends with it.
    camera.idr(0, 5, 6);
    assert_eq!(camera.read(id), "");
    camera.disconnect(id);
    assert!(matches!(camera.events.back(), Some(Event::Teardown { .. })));
}

#[test]
fn a_viewer_that_is_gone_ends_its_session_once() {
    let mut camera = Camera::open();
    let id = camera.connect("192.0.2.7:40000");
    let udp = set_up(&mut camera, id, UDP);
    let session = SessionId(u128::from_str_radix(&udp, 16).unwrap());
    camera.server.end(session, Ending::Unreachable);
    camera.server.end(session, Ending::Unreachable);
    camera.drain();
    assert_eq!(
        camera.events.drain(..).collect::<Vec<_>>(),
        [Event::Teardown { session, why: Ending::Unreachable }]
    );
}

#[test]
fn a_receiver_that_says_bye_is_gone_soon_unless_it_says_something_else() {
    let mut camera = Camera::open();
    let id = camera.connect("192.0.2.7:40000");
    let udp = set_up(&mut camera, id, UDP);
    let session = SessionId(u128::from_str_radix(&udp, 16).unwrap());
    // A new SSRC after a collision.
    camera.server.leaving(camera.now, session);
    camera.pass(LEAVING_TIMEOUT - Duration::from_millis(1));
    camera.server.alive(camera.now, session);
    camera.pass(SESSION_TIMEOUT - Duration::from_millis(1));
    assert_eq!(camera.events.len(), 0);
    camera.server.alive(camera.now, session);
    camera.server.leaving(camera.now, session);
    camera.pass(LEAVING_TIMEOUT - Duration::from_millis(1));
    assert_eq!(camera.server.counts().sessions, 1);
    camera.pass(Duration::from_millis(1));
    let ended = Event::Teardown { session, why: Ending::TimedOut };
    assert!(camera.events.drain(..).any(|event| event == ended));
    // A connection that is open says more than a BYE in it.
    let id = camera.connect("192.0.2.7:40001");
    let tcp = set_up(&mut camera, id, TCP);
    let session = SessionId(u128::from_str_radix(&tcp, 16).unwrap());
    camera.server.leaving(camera.now, session);
    camera.pass(LEAVING_TIMEOUT);
    assert_eq!(camera.server.counts().sessions, 1);
}

#[test]
fn a_listener_to_a_group_is_alive_as_long_as_its_connection() {
    let mut with_group = Settings { no_auth: true, ..settings() };
    with_group.streams[0].multicast = Some(GROUPS);
    let mut camera = Camera::new(with_group);
    camera.sets();
    let id = camera.connect("192.0.2.7:40000");
    let group = set_up(&mut camera, id, "RTP/AVP;multicast");
    camera.pass(SESSION_TIMEOUT - Duration::from_millis(1));
    camera.send(id, request("PLAY", &group).as_bytes());
    camera.pass(Duration::from_secs(2));
    // It reports to the group alone, as openRTSP does, for hours.
    camera.pass(Duration::from_secs(10_000));
    assert_eq!(camera.server.counts().playing, 1);
    camera.disconnect(id);
    camera.pass(SESSION_TIMEOUT - Duration::from_millis(1));
    assert_eq!(camera.server.counts().sessions, 1);
    camera.pass(Duration::from_millis(1));
    assert_eq!(camera.server.counts().sessions, 0);
    // Before it plays, and while it has paused, it has to say something.
    let id = camera.connect("192.0.2.7:40001");
    set_up(&mut camera, id, "RTP/AVP;multicast");
    camera.pass(SESSION_TIMEOUT);
    assert_eq!(camera.server.counts().sessions, 0);
}

#[test]
fn the_time_of_day_is_said_when_it_is_known() {
    let mut camera = Camera::open();
    let id = camera.connect("192.0.2.7:40000");
    let session = set_up(&mut camera, id, TCP);
    camera.send(id, request("PLAY", &session).as_bytes());
    let since_1970 = Duration::from_millis(1_795_358_240_250);
    let wall = Some(NtpTimestamp::from_unix(since_1970));
    camera.server.idr_packetized(camera.now, 0, FirstPacket { seq: 5, rtptime: 6, wall });
    camera.drain();
    let answer = camera.read(id);
    assert_eq!(header(&answer, "Range"), Some("clock=20261122T143720.250Z-"), "{answer}");
    assert!(header(&answer, "RTP-Info").unwrap().ends_with(";seq=5;rtptime=6"));
}

#[test]
fn a_description_says_what_a_stream_was_measured_to_need() {
    let mut camera = Camera::open();
    let id = camera.connect("192.0.2.7:40000");
    let describe = "DESCRIBE rtsp://cam/main RTSP/1.0\r\nCSeq: 1\r\n\r\n";
    for (measured, said, version) in
        [(1, 2_000, 1), (2_000, 2_000, 1), (2_500, 2_500, 2), (2_500, 2_500, 2), (2_400, 2_500, 2)]
    {
        camera.server.bandwidth(0, measured);
        let answer = camera.ask(id, describe);
        assert!(answer.contains(&format!("\r\nb=AS:{said}\r\n")), "{answer}");
        assert!(answer.contains(&format!(" {version} IN IP4 192.0.2.1\r\n")), "{answer}");
    }
}

#[test]
fn a_session_lives_by_the_connection_that_took_it_up() {
    let mut camera = Camera::open();
    let first = camera.connect("192.0.2.7:40000");
    let session = set_up(&mut camera, first, UDP);
    let second = camera.connect("192.0.2.7:40001");
    assert_eq!(camera.status(second, &request("GET_PARAMETER", &session)), 200);
    for _ in 0..10 {
        camera.pass(Duration::from_secs(60));
        assert_eq!(camera.status(second, "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"), 200);
    }
    assert_eq!(camera.server.counts().sessions, 1);
    // The first one carries nothing any more.
    camera.disconnect(first);
    camera.pass(Duration::from_secs(60));
    assert_eq!(camera.status(second, "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"), 200);
    camera.pass(Duration::from_secs(60));
    assert_eq!(camera.server.counts().sessions, 1);
}

#[test]
fn there_are_as_many_viewers_as_there_may_be() {
    let mut camera = Camera::open();
    let set_up_at = |camera: &mut Camera, host: u32| {
        let id = camera.connect(&format!("192.0.2.{host}:40000"));
        let line = "SETUP rtsp://cam/main/trackID=0 RTSP/1.0\r\nCSeq: 1";
        camera.status(id, &format!("{line}\r\nTransport: {TCP}\r\n\r\n"))
    };
    let all: Vec<_> = (10..16).map(|host| set_up_at(&mut camera, host)).collect();
    assert_eq!(all, [200, 200, 200, 200, 453, 453]);
}

#[test]
fn one_connection_carries_eight_sessions() {
    let mut camera = Camera::new(Settings { no_auth: true, max_viewers: 99, ..settings() });
    camera.sets();
    let id = camera.connect("192.0.2.7:40000");
    let all: Vec<_> = (0..10)
        .map(|n| {
            let (rtp, stream) = (5000 + 2 * n, ["main", "sub"][n % 2]);
            let line = format!("SETUP rtsp://cam/{stream}/trackID=0 RTSP/1.0\r\nCSeq: 1");
            let transport = format!("Transport: RTP/AVP;unicast;client_port={rtp}-{}", rtp + 1);
            let answer = camera.ask(id, &format!("{line}\r\n{transport}\r\n\r\n"));
            if let Some(session) = header(&answer, "Session") {
                // What plays is not replaced by the next one.
                let url = format!("rtsp://cam/{stream}/");
                let play = format!("PLAY {url} RTSP/1.0\r\nCSeq: 1\r\nSession: {session}\r\n\r\n");
                camera.send(id, play.as_bytes());
                camera.idr(n % 2, 5, 6);
                assert_eq!(status(&camera.read(id)), 200);
            }
            status(&answer)
        })
        .collect();
    assert_eq!(all, [vec![200; 8], vec![453; 2]].concat());
}

#[test]
fn what_was_answered_makes_room_for_requests_and_nothing_else_does() {
    let long = |fill: u8| {
        let filler = vec![fill; 8_000 - 100];
        [&b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nA: "[..], &filler, b"\r\n\r\n"].concat()
    };
    let mut camera = Camera::open();
    let id = camera.connect("192.0.2.7:40000");
    let session = set_up(&mut camera, id, TCP);
    // As replacement characters it is three times as long; one may always wait.
    for _ in 0..3 {
        assert!(camera.send(id, &long(0xff)));
        assert_eq!(status(&camera.read(id)), 200);
    }
    let [play, pause] = ["PLAY", "PAUSE"].map(|method| request(method, &session));
    camera.send(id, play.as_bytes());
    for request in [b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n", pause.as_bytes(), play.as_bytes()] {
        assert!(camera.send(id, request));
    }
    assert!(camera.send(id, &long(b'x')));
    // The answers to all but the last: that waits behind the second PLAY.
    camera.idr(0, 5, 6);
    assert_eq!(camera.read(id).matches("RTSP/1.0 200 OK").count(), 3);
    assert!(!camera.send(id, &long(b'x')), "one is still there");
}

#[test]
fn a_client_that_comes_back_gets_the_ports_it_had_before() {
    for ports in ["5000-5001", "5000-5003", "4998-5001"] {
        let mut camera = Camera::open();
        for (peer, ports) in [("192.0.2.7:40000", "5000-5001"), ("192.0.2.7:40001", ports)] {
            let id = camera.connect(peer);
            set_up(&mut camera, id, &format!("RTP/AVP;unicast;client_port={ports}"));
        }
        assert_eq!(camera.server.counts().sessions, 1, "{ports}");
        let id = camera.connect("192.0.2.7:40002");
        set_up(&mut camera, id, "RTP/AVP;unicast;client_port=6000-6001");
        let id = camera.connect("192.0.2.8:40002");
        set_up(&mut camera, id, UDP);
        assert_eq!(camera.server.counts().sessions, 3, "others have theirs");
    }
}

#[test]
fn rtp_info_names_the_url_of_the_setup_but_no_password_and_no_separator() {
    let plain = "rtsp://cam/main/trackID=0";
    for (asked, named) in [
        (plain, plain),
        ("rtsp://cam/main/TRACKid=0", "rtsp://cam/main/TRACKid=0"),
        ("rtsp://cam/main?a=1/trackID=0", "rtsp://cam/main?a=1/trackID=0"),
        ("rtsp://cam/main", plain),
        ("rtsp://user:password@cam/main/trackID=0", plain),
        ("rtsp://cam/main?a=1;b=2/trackID=0", plain),
        ("rtsp://cam/main?a,b/trackID=0", plain),
        ("/main/trackID=0", "rtsp://192.0.2.1:554/main/trackID=0"),
    ] {
        let mut camera = Camera::open();
        let id = camera.connect("192.0.2.7:40000");
        let setup = format!("SETUP {asked} RTSP/1.0\r\nCSeq: 1\r\nTransport: {TCP}\r\n\r\n");
        let answer = camera.ask(id, &setup);
        let session = header(&answer, "Session").unwrap();
        camera.send(id, request("PLAY", session).as_bytes());
        camera.idr(0, 5, 6);
        let expected = format!("url={named};seq=5;rtptime=6");
        assert_eq!(header(&camera.read(id), "RTP-Info"), Some(&*expected), "{asked}");
    }
}

#[test]
fn a_track_without_a_path_is_that_of_the_only_stream() {
    let setup =
        format!("SETUP rtsp://cam/trackID=0 RTSP/1.0\r\nCSeq: 1\r\nTransport: {TCP}\r\n\r\n");
    let mut only = Settings { no_auth: true, ..settings() };
    only.streams[0].paths = vec!["main".to_owned()];
    for (stream_count, expected) in [(2, 404), (1, 200)] {
        only.streams.truncate(stream_count);
        let mut camera = Camera::new(only.clone());
        let id = camera.connect("192.0.2.7:40000");
        assert_eq!(camera.status(id, &setup), expected);
    }
}

#[test]
fn only_a_parameter_that_is_set_is_not_understood() {
    let mut camera = Camera::open();
    let id = camera.connect("192.0.2.7:40000");
    for (method, body, expected) in [
        ("GET_PARAMETER", "", 200),
        ("GET_PARAMETER", "packets_received\r\n", 200),
        ("SET_PARAMETER", "", 200),
        ("SET_PARAMETER", "a: b\r\n", 451),
    ] {
        let len = body.len();
        let head = format!("{method} rtsp://cam/main RTSP/1.0\r\nCSeq: 1\r\nContent-Length: {len}");
        assert_eq!(
            camera.status(id, &format!("{head}\r\n\r\n{body}")),
            expected,
            "{method} {body}"
        );
    }
}

#[test]
fn what_is_to_be_written_to_a_connection_goes_with_it_and_nothing_else() {
    let mut camera = Camera::open();
    let ids = ["192.0.2.7:1", "192.0.2.8:1", "192.0.2.9:1"].map(|peer| camera.connect(peer));
    for id in ids {
        camera.server.receive(camera.now, id, b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n").unwrap();
    }
    camera.disconnect(ids[1]);
    assert_eq!(ids.map(|id| status(&camera.read(id))), [200, 0, 200]);
}
