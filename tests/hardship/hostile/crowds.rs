//! Many connections that want nothing, and connections without end; who wants something gets in.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ground::{Ground, Harm};
use super::peer::{self, Cut, Peer, Stranger};
use crate::stand;

/// Row 45: 200 and 1,100 connections of many addresses that say nothing, on every port.
pub(super) fn idle_crowds(ground: &Ground) -> Harm {
    let mut inputs = 0;
    for (port, count, kept_max) in [
        (ground.rtsp, 200, PENDING_MAX),
        (ground.rtsp, 1_100, PENDING_MAX),
        (ground.rtsps, 200, PENDING_MAX),
        (ground.http, 200, WEB_MAX),
    ] {
        let mut crowd = gather(ground, port, count);
        let arrival = arrives(ground);
        assert!(arrival <= ARRIVAL_MAX, "{arrival:?} in a crowd of {count}");
        let open = settle(&mut crowd, kept_max);
        assert!((1..=kept_max).contains(&open), "{open} of {count} are open");
        let kept = ground.descriptors_of_peers();
        assert!(kept <= kept_max, "{kept} of {count} are kept");
        eprintln!("{count} idle connections to {port}: {open} kept, a viewer came in {arrival:?}");
        inputs += count;
    }
    Harm { inputs, sessions: 0 }
}

fn gather(ground: &Ground, port: SocketAddr, count: usize) -> Vec<Peer> {
    let mut from = ground.address();
    let connect = |number: usize| {
        if number.is_multiple_of(OF_ONE_ADDRESS) {
            from = ground.address();
        }
        Peer::connect(port, from)
    };
    (0..count).map(connect).collect()
}

/// How many of a crowd are connected once the camera has seen them all.
fn settle(crowd: &mut [Peer], most: usize) -> usize {
    let asked = Instant::now();
    loop {
        let open = crowd.iter_mut().map(|peer| usize::from(peer.is_open())).sum();
        if open <= most || asked.elapsed() > Duration::from_secs(10) {
            return open;
        }
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// How long somebody with a login takes to a description of the stream.
fn arrives(ground: &Ground) -> Duration {
    let began = Instant::now();
    let who = ground.stranger();
    assert_eq!(who.connect().ask(&who, "DESCRIBE", &who.url("main"), "").status(), 200);
    began.elapsed()
}

/// Row 45: one address has so many connections and no more; the newest, for who is not let in makes
/// room for who may have the password.
pub(super) fn one_address_alone(ground: &Ground) -> Harm {
    let from = ground.address();
    let mut held: Vec<Peer> = (0..40).map(|_| Peer::connect(ground.rtsp, from)).collect();
    assert!(held.drain(..24).all(|mut peer| peer.reply().is_none()));
    assert!(held.iter_mut().all(Peer::is_listened_to));
    Harm { inputs: 40, sessions: 0 }
}

/// A thousand connections a second from one address, while viewers arrive.
pub(super) fn connect_flood(ground: &Ground) -> Harm {
    let (is_over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (from, began) = (ground.address(), Instant::now());
    let flood = |seed: usize| {
        for number in seed.. {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let Ok(mut peer) = Peer::try_connect(ground.rtsp, from) else { continue };
            let made = made.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs_f64(made as f64 / FLOOD_PER_SECOND);
            thread::park_timeout(due.saturating_sub(began.elapsed()));
            if number % 3 == 0 {
                peer.send(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\nOPT", Cut::Whole);
            }
            // Otherwise its port would be kept for a minute.
            peer.reset();
        }
    };
    let slowest = thread::scope(|scope| {
        (0..2).for_each(|seed| drop(scope.spawn(move || flood(seed))));
        let mut slowest = Duration::ZERO;
        while began.elapsed() < FLOOD {
            slowest = slowest.max(arrives(ground));
            thread::park_timeout(Duration::from_millis(100));
        }
        is_over.store(true, Ordering::Relaxed);
        slowest
    });
    let rate = made.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    eprintln!("{rate:.0} connections a second; the slowest viewer came in {slowest:?}");
    assert!(slowest <= ARRIVAL_MAX, "{slowest:?} at {rate:.0} connections a second");
    Harm { inputs: made.load(Ordering::Relaxed), sessions: 0 }
}

/// Row 2: what is no TLS on the port for TLS, and TLS on others.
pub(super) fn wrong_ports(ground: &Ground) -> Harm {
    let from: Ipv4Addr = ground.address();
    let hello = b"\x16\x03\x01\x00\x05hello".to_vec();
    let inputs = [
        b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        hello.clone(),
        [hello, vec![0xff; 70_000]].concat(),
        vec![0; 300],
        vec![0xff; 70_000],
    ];
    for bytes in &inputs {
        let mut peer = Peer::connect(ground.rtsps, from);
        peer.send(bytes, Cut::Whole);
        let (heard, took) = peer.read_to_end(Duration::from_secs(10));
        assert!(!String::from_utf8_lossy(&heard).contains("RTSP"), "{heard:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    let who = Stranger::meet(ground.rtsp, from);
    assert!(who.connect().is_listened_to());
    Harm { inputs: inputs.len(), sessions: 0 }
}

/// The kernel's queue holds them until the camera has time again: a SYN that finds no room is sent
/// again a second later, and that is how long everybody would wait then.
#[test]
fn a_burst_of_connections_finds_room_while_the_camera_is_busy() {
    let camera = stand::camera_beside(&[]);
    let rtsp: SocketAddr = camera.url.split('/').nth(2).unwrap().parse().unwrap();
    let id = Pid::from_raw(i32::try_from(camera.pid()).unwrap());
    kill(id, Signal::SIGSTOP).unwrap();
    let burst = BURST_ADDRESSES.map(|last| Ipv4Addr::new(127, 2, 0, last));
    let burst: Vec<_> =
        burst.flat_map(|from| (0..10).map(move |_| peer::begin_to_connect(rtsp, from))).collect();
    let began = Instant::now();
    let is_connected = |socket: &OwnedFd| {
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        let left = Duration::from_millis(500).saturating_sub(began.elapsed());
        poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap() == 1
    };
    let connected = burst.iter().filter(|socket| is_connected(socket)).count();
    kill(id, Signal::SIGCONT).unwrap();
    assert_eq!(connected, burst.len());
    drop(burst);
    assert!(Peer::connect(rtsp, Ipv4Addr::LOCALHOST).is_listened_to());
}

const BURST_ADDRESSES: std::ops::RangeInclusive<u8> = 1..=50;
const OF_ONE_ADDRESS: usize = 8;
/// 32 strangers, and the one who arrives.
const PENDING_MAX: usize = 34;
/// 64 connections, one of which may be the camera's word that it is well.
const WEB_MAX: usize = 65;
const ARRIVAL_MAX: Duration = Duration::from_secs(1);
const FLOOD_PER_SECOND: f64 = 1_000.0;
const FLOOD: Duration = Duration::from_secs(3);
