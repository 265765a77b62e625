//! Viewers that behave badly: one that stalls, and strangers who connect and are gone.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::load::Load;
use crate::server::{Kind, Server};
use crate::session::{Dialogue, Session, Transport};
use crate::tally::percentile;
use crate::{clip, pause};

/// Latency of fifteen TCP viewers and their lost packets while one more reads nothing for 5 s.
pub(crate) fn stalled_viewer() -> String {
    let round = |has_stall: bool| {
        let server = Server::playing_clip(Kind::Ocellus, &clip::clip(), VIEWERS);
        let open = |_| Session::open(server.address(), Transport::Tcp, Dialogue::Rtsp);
        let load = Load::start((0..VIEWERS).map(open).collect(), Duration::from_millis(500));
        assert!(load.all_joined(Duration::from_secs(20)), "a viewer got no picture");
        pause(Duration::from_secs(1));
        load.measure();
        if has_stall {
            load.stall_one(STALL)
        } else {
            pause(STALL)
        }
        // What waits for the stalled one goes out at once now.
        pause(Duration::from_secs(2));
        let mut tally = load.stop();
        server.stop();
        let p50 = percentile(&mut tally.latency, 50).unwrap_or(0);
        let p99 = percentile(&mut tally.latency, 99).unwrap_or(0);
        (p50, p99, tally.lost, tally.lost_by_rude, tally.closed)
    };
    let (calm50, calm99, calm_lost, ..) = round(false);
    let (p50, p99, lost, lost_by_rude, closed) = round(true);
    format!(
        "latency p50/p99 {p50}/{p99} µs, {lost} packets lost; without it {calm50}/{calm99} µs, \
         {calm_lost} lost; the stalled one lost {lost_by_rude}, {closed} closed"
    )
}

/// Memory and descriptors of a camera while strangers come and go: the slope of the second half.
pub(crate) fn churn(cycles: usize) -> String {
    let server = Server::start(&["--source", &format!("file:{}", clip::clip().display())]);
    let started = Instant::now();
    let mut samples = Vec::new();
    for cycle in 0..cycles {
        come_and_go(server.address(), cycle);
        if (cycle + 1) % (cycles / SAMPLES).max(1) == 0 {
            // The camera closes its side a moment later.
            pause(Duration::from_millis(50));
            samples.push(server.usage());
        }
    }
    let rate = cycles as f64 / started.elapsed().as_secs_f64();
    server.stop();
    let rss: Vec<u64> = samples.iter().map(|usage| usage.rss_kib).collect();
    let anonymous: Vec<u64> = samples.iter().map(|usage| usage.anonymous_kib).collect();
    let descriptors: Vec<u64> = samples.iter().map(|usage| usage.descriptors as u64).collect();
    let per_sample = cycles as f64 / SAMPLES as f64;
    format!(
        "{cycles} cycles at {rate:.0} per second: RSS {} → {} KiB, slope {:.1} bytes per cycle \
         (anonymous {:.1}); descriptors {} → {}, slope {:.5}",
        rss[0],
        rss[rss.len() - 1],
        slope(&rss) * 1_024.0 / per_sample,
        slope(&anonymous) * 1_024.0 / per_sample,
        descriptors[0],
        descriptors[descriptors.len() - 1],
        slope(&descriptors) / per_sample,
    )
}

/// One connection that is given up at one of eight moments; every other one by a reset.
fn come_and_go(server: SocketAddr, cycle: usize) {
    let mut connection = TcpStream::connect(server).unwrap();
    if cycle % 2 == 1 {
        let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&connection, sockopt::Linger, &now).unwrap();
    }
    let url = format!("rtsp://{server}/main");
    let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
    let requests = [
        format!("OPTIONS {url} RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
        format!("DESCRIBE {url} RTSP/1.0\r\nCSeq: 2\r\n\r\n"),
        format!("SETUP {url}/trackID=0 RTSP/1.0\r\nCSeq: 3\r\n{transport}\r\n"),
    ];
    let step = cycle % 8;
    for (index, request) in requests.iter().take(step.min(3)).enumerate() {
        connection.write_all(request.as_bytes()).unwrap();
        // The last answer is read by half of them only.
        if index + 1 < step || step.is_multiple_of(2) {
            let _ = connection.read(&mut [0; 2_048]);
        }
    }
    match step {
        4 => drop(connection.write_all(b"GET_PARAMETER rtsp://")),
        5 => drop(connection.write_all(&[0xff; 64])),
        6 => drop(connection.write_all(b"$\x00\xff\xff")),
        _ => {}
    }
}

/// Least squares over the second half, per sample.
fn slope(values: &[u64]) -> f64 {
    let half = &values[values.len() / 2..];
    let count = half.len() as f64;
    let mean_x = (count - 1.0) / 2.0;
    let mean_y = half.iter().sum::<u64>() as f64 / count;
    let points = half.iter().enumerate().map(|(x, y)| (x as f64 - mean_x, *y as f64 - mean_y));
    let (xy, xx) = points.fold((0.0, 0.0), |(xy, xx), (x, y)| (xy + x * y, xx + x * x));
    xy / xx
}

const VIEWERS: usize = 16;
const STALL: Duration = Duration::from_secs(5);
const SAMPLES: usize = 20;
