//! In the steady state the camera allocates nothing: not per picture, and not per viewer.
//!
//! A counting allocator, the real threads, real sockets, and viewers over TCP and UDP. OpenH264's
//! own memory is C++'s and does not pass through Rust's allocator.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::disallowed_types,
    reason = "a counting allocator is unsafe by its trait, and the viewers are real clients"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ocellus::capture::{Pattern, Source};
use ocellus::frame::Colour;
use ocellus::picture::{Area, Orientation, motion};
use ocellus::produce::Outlet;
use ocellus::ring::{self, IdrRequests};
use ocellus::serve::{self, Hub, Inlet, Reactor, Sockets, StreamSettings};
use ocellus::stats::{Gauge, Pipeline};
use ocellus::sys::{Wake, tcp};
use ocellus::{encode, produce, rtsp};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread is the test's own, whose allocations are nobody's business.
    static IS_TEST: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: every call is passed on to the system's allocator as it is; counting touches no memory
// that is being allocated.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !IS_TEST.try_with(Cell::get).unwrap_or(true) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ALL: Area = Area { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };

/// A whole camera in this process; its address, its counters, and what ends it.
fn camera() -> (SocketAddr, Arc<serve::Stats>, Arc<Wake>) {
    let stop = Arc::new(Wake::new().unwrap());
    let wake = Arc::new(Wake::new().unwrap());
    let idr_requests = Arc::new(IdrRequests::default());
    let pipeline = Arc::new(Pipeline::default());
    let (publisher, consumers) = ring::publisher(1, 1 << 18, Arc::clone(&pipeline));
    let listener = tcp::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = tcp::local_address(&listener).unwrap();
    let (rtp, rtcp, server_ports) = serve::bind_ports(18_000, true).unwrap();
    let rtsp = rtsp::Settings {
        realm: "ocellus".into(),
        users: Vec::new(),
        no_auth: true,
        streams: vec![rtsp::Stream {
            paths: vec!["main".into()],
            name: "test".into(),
            ssrc: 7,
            bandwidth_kbps: 1_000,
            fps: 60.0,
            multicast: None,
        }],
        server_ports,
        max_viewers: 64,
        max_per_address: 64,
    };
    let stream = StreamSettings {
        ssrc: 7,
        first_sequence: 65_000,
        timestamp_offset: 9,
        packet_len_max: 1_372,
    };
    let settings =
        serve::Settings { rtsp, streams: vec![stream], cname: "test".into(), entropy: [3; 32] };
    let stats = Arc::new(serve::Stats::default());
    let hub = Hub::new(settings, Arc::clone(&stats));
    let sockets = Sockets { listeners: vec![listener], rtp, rtcp, send_buffer_len: 1 << 18 };
    let watchers = Arc::<Gauge>::default();
    let inlets = consumers
        .into_iter()
        .map(|units| Inlet {
            units,
            idr_requests: Arc::clone(&idr_requests),
            watchers: Arc::clone(&watchers),
        })
        .collect();
    let (ear, end, counters) = (Arc::clone(&wake), Arc::clone(&stop), Arc::clone(&stats));
    let reactor = Reactor::new(hub, sockets, inlets, ear, end, counters).unwrap();
    let reactor = reactor.with_census(Arc::default());
    std::thread::spawn(move || reactor.run().unwrap());

    let source = || Source::Raw(Box::new(Pattern::new(320, 240, 60.0)));
    let (notices, _) = mpsc::channel();
    let shared = produce::Shared {
        outlets: vec![Outlet { publisher, idr_requests, watchers, stats: pipeline }],
        wake,
        stop: Arc::clone(&stop),
        notices,
        control: produce::Control::default(),
        motion: Arc::default(),
    };
    produce::start(source(), Arc::new(move || Ok(source())), pictures(), shared).unwrap();
    (address, stats, stop)
}

/// What becomes of the pictures: all that costs something for every one of them.
fn pictures() -> produce::Settings {
    let encode = encode::Settings {
        fps: 60.0,
        bitrate_bps: 1_000_000,
        gop: Duration::from_millis(500),
        colour: Colour::default(),
        threads: 1,
    };
    let stream = produce::Stream {
        name: "main".into(),
        size: None,
        encode,
        encoder: encode::Choice::OpenH264,
        has_utc: true,
    };
    let zone = motion::Zone { name: "all".into(), area: ALL, sensitivity: 50 };
    produce::Settings {
        orientation: Orientation { is_upside_down: true, is_mirrored: false },
        masks: vec![Area { x: 0.1, y: 0.1, width: 0.1, height: 0.1 }],
        overlay: produce::Labels { has_time: true, name: Some("test".into()) },
        motion: Some(motion::Settings {
            zones: vec![zone],
            min_duration: Duration::ZERO,
            cool_down: Duration::from_secs(1),
        }),
        streams: vec![stream],
        clock: produce::ClockText(Arc::new(|_, text| text.push_str("12:00:00"))),
    }
}

/// Begins to play, and returns the connection, whose later bytes are media.
fn play(address: SocketAddr, transport: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).unwrap();
    let url = format!("rtsp://{address}/main");
    let mut session = String::new();
    let setup = format!("SETUP {url}/trackID=0");
    for (cseq, request) in
        [format!("DESCRIBE {url}"), setup, format!("PLAY {url}/")].into_iter().enumerate()
    {
        let head = format!("{request} RTSP/1.0\r\nCSeq: {cseq}\r\n");
        write!(connection, "{head}Transport: {transport}\r\n{session}\r\n").unwrap();
        let mut reply = Vec::new();
        let mut body_len = 0;
        while body_len > 0 || !reply.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            reply.extend(byte);
            if body_len > 0 {
                body_len -= 1;
                if body_len == 0 {
                    break;
                }
            } else if reply.ends_with(b"\r\n\r\n") {
                let head = String::from_utf8(reply.clone()).unwrap();
                assert!(head.starts_with("RTSP/1.0 200"), "{head}");
                let value = |name: &str| {
                    head.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
                };
                if let Some(id) = value("Session: ") {
                    session = format!("Session: {id}\r\n");
                }
                body_len = value("Content-Length: ").map_or(0, |len| len.parse().unwrap());
            }
        }
    }
    connection
}

/// Reads media until `stats` counts `access_units` more.
fn watch(
    stats: &serve::Stats,
    access_units: u64,
    connections: &mut [TcpStream],
    datagrams: &UdpSocket,
) -> u64 {
    let mut bytes = vec![0; 1 << 16];
    let until = stats.access_units.get() + access_units;
    let mut received = 0;
    while stats.access_units.get() < until {
        for connection in &mut *connections {
            received += connection.read(&mut bytes).unwrap() as u64;
        }
        received += datagrams.recv(&mut bytes).unwrap() as u64;
    }
    received
}

#[test]
fn the_steady_state_allocates_nothing() {
    IS_TEST.set(true);
    let (address, stats, stop) = camera();
    let datagrams = std::iter::repeat_with(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .find(|socket| socket.local_addr().unwrap().port().is_multiple_of(2))
        .unwrap();
    datagrams.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let port = datagrams.local_addr().unwrap().port();
    let udp = format!("RTP/AVP;unicast;client_port={port}-{}", port + 1);
    let _udp_viewer = play(address, &udp);
    let mut connections = ["0-1", "4-5"]
        .map(|channels| play(address, &format!("RTP/AVP/TCP;interleaved={channels}")));
    for connection in &connections {
        connection.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    // Every buffer has seen its longest picture.
    watch(&stats, 150, &mut connections, &datagrams);
    let sent_before = stats.sends.get();
    let seconds: Vec<(u64, u64)> = (0..8)
        .map(|_| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            let received = watch(&stats, 60, &mut connections, &datagrams);
            (ALLOCATIONS.load(Ordering::Relaxed) - before, received)
        })
        .collect();
    stop.wake();
    assert!(seconds.iter().all(|(_, received)| *received > 10_000), "{seconds:?}");
    assert!(stats.sends.get() - sent_before >= 3 * 8 * 55, "all three viewers were served");
    // The sender reports, one every five seconds and viewer, are messages of their own.
    let quiet = seconds.iter().filter(|(allocations, _)| *allocations == 0).count();
    assert!(quiet >= 4 && seconds.iter().all(|(count, _)| *count <= 12), "{seconds:?}");
}
