//! Sessions that are set up in every wrong way, taken over, left, and never ended.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use super::ground::{Ground, Harm};
use super::peer::{Cut, Peer, Random, Stranger, to_ports, udp_pair};

const TCP: &str = "RTP/AVP/TCP;unicast;interleaved=0-1";

/// Row 21: packets go to whoever asked, and not to whom he names.
pub(super) fn third_parties(ground: &Ground) -> Harm {
    let who = ground.stranger();
    let own = udp_pair(who.from);
    let port = own[0].local_addr().unwrap().port();
    let victim = UdpSocket::bind((ground.address(), port)).unwrap();
    victim.set_nonblocking(true).unwrap();
    let destination = victim.local_addr().unwrap().ip();
    let mut peer = who.connect();
    let transport = format!("{};destination={destination};source={destination}", to_ports(&own));
    let reply = peer.watch(&who, &transport);
    assert!(!reply.header("Transport").unwrap().contains("destination"), "{reply:?}");
    hears(&own[0]);
    assert_eq!(peer.ask(&who, "TEARDOWN", &who.url("main/"), "").status(), 200);
    peer.session = None;
    let reply = peer.watch(&who, &format!("{TCP};destination={destination};client_port={port}"));
    assert!(reply.header("Transport").unwrap().starts_with(TCP), "{reply:?}");
    assert!(peer.is_listened_to() && peer.frames > 0);
    assert!(victim.recv(&mut [0; 2_048]).is_err(), "somebody else was sent packets");
    // Who asks for a group gets the camera's, whichever he names.
    let mut listener = who.connect();
    let group = "RTP/AVP;multicast;destination=239.1.1.1;port=53-54;ttl=255";
    let reply = listener.set_up(&who, group);
    let transport = reply.header("Transport").unwrap();
    assert!(
        !["239.1.1.1", "port=53", "ttl=255"].iter().any(|it| transport.contains(it)),
        "{transport}"
    );
    assert_eq!(listener.ask(&who, "TEARDOWN", &who.url("main/"), "").status(), 200);
    assert_eq!(peer.ask(&who, "TEARDOWN", &who.url("main/"), "").status(), 200);
    Harm { inputs: 3, sessions: 3 }
}

/// The next datagram has come, or comes soon.
pub(super) fn hears(socket: &UdpSocket) -> usize {
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.recv(&mut [0; 2_048]).expect("a packet")
}

/// Rows 22, 25 and 29: what is not the next step of a session.
pub(super) fn wrong_steps(ground: &Ground) -> Harm {
    let who = ground.stranger();
    let main = who.url("main/");
    let mut peer = who.connect();
    assert_eq!(peer.set_up(&who, TCP).status(), 200);
    let first = peer.session.take().unwrap();
    assert_eq!(peer.set_up(&who, TCP).status(), 200, "what was not played was given up");
    let second = peer.session.clone().unwrap();
    assert_ne!(first, second);
    let status_of = |peer: &mut Peer, session: &str, method: &str| {
        peer.session = Some(session.to_owned());
        peer.ask(&who, method, &main, "").status()
    };
    assert_eq!(status_of(&mut peer, &first, "PLAY"), 454);
    assert_eq!(status_of(&mut peer, &second, "PAUSE"), 455);
    assert_eq!(peer.set_up(&who, TCP).status(), 200, "again, in the same session");
    assert_eq!(status_of(&mut peer, &second, "PLAY"), 200);
    assert_eq!(peer.set_up(&who, TCP).status(), 455, "while it plays");
    assert_eq!(status_of(&mut peer, &second, "RECORD"), 405);
    peer.session = None;
    assert_eq!(peer.set_up(&who, TCP).status(), 459, "a second one on the same connection");
    // Row 46: once is enough.
    let again = format!("Session: {second}\r\n");
    let again = who.request("PLAY", &main, &again).repeat(50);
    assert!(peer.send(&again, Cut::Whole));
    for _ in 0..50 {
        assert_eq!(peer.reply().unwrap().status(), 200);
    }
    assert_eq!(status_of(&mut peer, &second, "TEARDOWN"), 200);
    for method in ["PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER", "SETUP"] {
        assert_eq!(status_of(&mut peer, &second, method), 454, "{method} after TEARDOWN");
    }
    Harm { inputs: 64, sessions: 3 }
}

/// Row 23: from one transport to the other and back, and packets follow.
pub(super) fn changes_of_transport(ground: &Ground) -> Harm {
    let who = ground.stranger();
    let pair = udp_pair(who.from);
    let mut peer = who.connect();
    for _ in 0..20 {
        for transport in [&to_ports(&pair), TCP] {
            let reply = peer.set_up(&who, transport);
            assert!(reply.header("Transport").unwrap().starts_with(transport), "{reply:?}");
        }
    }
    peer.watch(&who, TCP);
    assert!(peer.is_listened_to() && peer.frames > 0);
    assert_eq!(peer.ask(&who, "PAUSE", &who.url("main/"), "").status(), 200);
    peer.watch(&who, &to_ports(&pair));
    hears(&pair[0]);
    assert!(peer.is_listened_to());
    let frames = peer.frames;
    hears(&pair[0]);
    assert!(peer.is_listened_to() && peer.frames == frames, "packets on both ways");
    Harm { inputs: 42, sessions: 42 }
}

/// Row 24: requests in an order that nobody would choose, against RFC 2326 A.2 in four lines.
pub(super) fn random_walks(ground: &Ground) -> Harm {
    let walk = |seed: u32| {
        let who = ground.stranger();
        let (mut peer, mut random) = (who.connect(), Random(seed));
        let (mut state, mut over) = (State::None, None);
        for step in 0..STEPS {
            let method = METHODS[random.below(METHODS.len())];
            let is_over = over.is_some() && method != "OPTIONS" && random.below(4) == 0;
            let session = peer.session.clone();
            if is_over {
                peer.session.clone_from(&over);
            }
            let (expected, next) = if is_over { (454, state) } else { state.after(method) };
            let headers = format!("Transport: {TCP}\r\n");
            let reply = peer.ask(&who, method, &who.url("main/"), &headers);
            assert_eq!(reply.status(), expected, "seed {seed} step {step} {method} {state:?}");
            peer.session = match (method, reply.header("Session")) {
                _ if is_over => session,
                ("SETUP", Some(id)) => id.split(';').next().map(str::to_owned),
                ("TEARDOWN", _) if expected == 200 => {
                    over = session;
                    None
                }
                _ => session,
            };
            state = next;
        }
        assert!(peer.is_listened_to());
    };
    thread::scope(|scope| (0..WALKS).for_each(|seed| drop(scope.spawn(move || walk(seed)))));
    let walks = usize::try_from(WALKS).unwrap();
    Harm { inputs: walks * STEPS, sessions: walks * STEPS / 2 }
}

#[derive(Clone, Copy, Debug)]
enum State {
    None,
    Ready,
    Playing,
}

impl State {
    /// The status that a request gets in this state, and the state that follows.
    fn after(self, method: &str) -> (u16, Self) {
        match (method, self) {
            ("SETUP", Self::None | Self::Ready) | ("PAUSE", Self::Playing) => (200, Self::Ready),
            ("PLAY", Self::Ready | Self::Playing) => (200, Self::Playing),
            ("TEARDOWN", Self::Ready | Self::Playing) => (200, Self::None),
            ("TEARDOWN", Self::None) => (454, self),
            ("SETUP" | "PLAY" | "PAUSE", _) => (455, self),
            _ => (200, self),
        }
    }
}

/// Rows 26 and 27: ranges, scales and speeds that nobody can play.
pub(super) fn impossible_plays(ground: &Ground) -> Harm {
    let who = ground.stranger();
    let mut peer = who.connect();
    peer.watch(&who, TCP);
    let main = who.url("main/");
    for (range, status) in [
        ("npt=garbage-", 200),
        ("npt=", 200),
        ("npt=-", 200),
        (";;;===---", 200),
        ("npt=1e308-", 200),
        ("npt=99999999999999999999999999-", 200),
        ("npt=1:2:3:4:5:6-", 200),
        ("clock=99991231T235959Z-", 200),
        ("clock=20260231T250000Z-", 200),
        ("clock=99999999999999999999999T0Z-", 200),
        ("smpte=10:07:00-10:07:33:05.01", 200),
        ("npt=5-2", 457),
        ("npt=99999999999999999999999999-0", 457),
        ("clock=20260101T000000Z-19990101T000000Z", 457),
    ] {
        let reply = peer.ask(&who, "PLAY", &main, &format!("Range: {range}\r\n"));
        assert_eq!(reply.status(), status, "{range}");
    }
    for rate in ["0", "-1", "NaN", "1e308", ""] {
        let rates = format!("Scale: {rate}\r\nSpeed: {rate}\r\n");
        assert_eq!(peer.ask(&who, "PLAY", &main, &rates).status(), 200, "{rate}");
        assert_eq!(peer.ask(&who, "PAUSE", &main, "").status(), 200);
        let frames = peer.frames;
        assert_eq!(peer.ask(&who, "PLAY", &main, &rates).status(), 200, "{rate}");
        // At the camera's own pace: there are pictures soon, and not a file's worth of them.
        assert!(peer.is_listened_to());
        assert!(peer.frames - frames < 1_000, "{rate}: {} frames", peer.frames - frames);
    }
    Harm { inputs: 19, sessions: 6 }
}

/// Row 30: whose session it is decides who may steer it.
pub(super) fn stolen_sessions(ground: &Ground) -> Harm {
    let (owner, neighbour) = (ground.stranger(), ground.stranger());
    let steer = |who: &Stranger, session: &Option<String>| {
        let mut peer = who.connect();
        peer.session.clone_from(session);
        let statuses = ["GET_PARAMETER", "PLAY", "PAUSE", "TEARDOWN"]
            .map(|method| peer.ask(who, method, &who.url("main/"), "").status());
        (peer, statuses)
    };
    let mut over_tcp = owner.connect();
    over_tcp.watch(&owner, TCP);
    for thief in [&owner, &neighbour] {
        let (_, statuses) = steer(thief, &over_tcp.session);
        assert_eq!(statuses, [454; 4], "on a connection that it does not belong to");
    }
    assert!(over_tcp.is_listened_to());
    let pair = udp_pair(owner.from);
    let mut over_udp = owner.connect();
    over_udp.watch(&owner, &to_ports(&pair));
    let (_, statuses) = steer(&neighbour, &over_udp.session);
    assert_eq!(statuses, [454; 4], "from another address");
    hears(&pair[0]);
    let (_, statuses) = steer(&owner, &over_udp.session);
    assert_eq!(statuses, [200; 4], "a UDP session outlives its connection");
    Harm { inputs: 16, sessions: 3 }
}

/// Rows 31 and 32: nobody can guess a session's name, and none comes twice.
pub(super) fn session_names(ground: &Ground) -> Harm {
    let who = ground.stranger();
    let names = (0..SESSIONS).map(|_| {
        let mut peer = who.connect();
        assert_eq!(peer.set_up(&who, TCP).status(), 200);
        peer.session.unwrap()
    });
    let names: Vec<u128> = names
        .map(|name| {
            assert_eq!(name.len(), 32, "{name}");
            u128::from_str_radix(&name, 16).unwrap()
        })
        .collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), SESSIONS);
    // Of 60 random names, one in 2^59 tries would leave one of these bits as it is in all.
    let (ones, zeros) = names
        .iter()
        .fold((u128::MAX, u128::MAX), |(ones, zeros), name| (ones & name, zeros & !name));
    assert_eq!((ones, zeros), (0, 0), "bits that never change");
    Harm { inputs: SESSIONS, sessions: SESSIONS }
}

/// Row 46: resets and half closes while pictures come.
pub(super) fn sudden_ends(ground: &Ground) -> Harm {
    let end_five = || {
        let who = ground.stranger();
        for number in 0..5 {
            let mut peer = who.connect();
            peer.watch(&who, TCP);
            if number == 0 {
                peer.say_no_more();
                peer.read_to_end(Duration::from_secs(10));
            } else {
                peer.reset();
            }
        }
    };
    thread::scope(|scope| (0..5).for_each(|_| drop(scope.spawn(end_five))));
    Harm { inputs: 25, sessions: 25 }
}

/// Row 47: sessions that are set up and left.
pub(super) fn sessions_that_are_left(ground: &Ground) -> Harm {
    let who = ground.stranger();
    let pair = udp_pair(who.from);
    for number in 0..100 {
        let mut peer = who.connect();
        // Who comes back with the same ports takes his own place.
        let transport = if number % 2 == 0 { TCP.to_owned() } else { to_ports(&pair) };
        assert_eq!(peer.set_up(&who, &transport).status(), 200);
        if number % 3 == 0 {
            peer.reset();
        }
    }
    Harm { inputs: 100, sessions: 100 }
}

/// Row 48: a viewer over UDP whose ports are closed is found out by the next packets.
pub(super) fn closed_ports(ground: &Ground) -> Harm {
    let who = ground.stranger();
    let pair = udp_pair(who.from);
    let mut peer = who.connect();
    peer.watch(&who, &to_ports(&pair));
    hears(&pair[0]);
    let address = pair[0].local_addr().unwrap().to_string();
    drop((peer, pair));
    let is_gone = |log: &str| {
        let gone = |line: &str| line.contains("is gone") && line.contains(&address);
        log.lines().any(gone)
    };
    assert!(ground.comes_to_say(Duration::from_secs(10), is_gone), "{address} is still sent to");
    Harm { inputs: 1, sessions: 2 }
}

const METHODS: [&str; 7] =
    ["OPTIONS", "GET_PARAMETER", "SETUP", "PLAY", "PLAY", "PAUSE", "TEARDOWN"];
const WALKS: u32 = 8;
const STEPS: usize = 16;
const SESSIONS: usize = 60;
