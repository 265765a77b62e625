//! What a viewer costs: one server, so many viewers of the clip, and what both sides counted.

use std::time::{Duration, Instant};

use crate::load::Load;
use crate::server::{Kind, Server, Usage};
use crate::session::{Dialogue, Session, Transport};
use crate::tally::{Tally, percentile};
use crate::{clip, pause};

/// What is run.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) transport: Transport,
    pub(crate) count: usize,
    pub(crate) time: Duration,
}

/// What came of it.
pub(crate) struct Cost {
    pub(crate) plan: Plan,
    /// Of the server, per viewer and minute.
    pub(crate) cpu_s: f64,
    pub(crate) idle: Usage,
    pub(crate) busy: Usage,
    /// Per access unit: context switches, and system calls of all threads.
    pub(crate) switches: f64,
    pub(crate) calls: f64,
    /// Sending calls per access unit and viewer.
    pub(crate) sends: f64,
    /// In µs, as [`Tally::latency`], [`Tally::latency_read`] and [`Tally::spreads`]: median and
    /// 99 %.
    pub(crate) latency: Option<(i64, i64)>,
    pub(crate) latency_read: Option<(i64, i64)>,
    pub(crate) spread: Option<(i64, i64)>,
    /// From PLAY: median and maximum.
    pub(crate) first_packet: Option<(Duration, Duration)>,
    pub(crate) first_idr: Option<(Duration, Duration)>,
    pub(crate) lost: u64,
    pub(crate) packets: u64,
    pub(crate) closed: u64,
    /// Of one core: the generator's.
    pub(crate) generator: f64,
    /// What the camera says of itself: capture to socket, in µs.
    pub(crate) own_latency: Option<String>,
}

/// Starts the server, lets the viewers play, measures for a while, then counts system calls.
///
/// `None` when not every viewer got a picture: there is nothing to compare then.
pub(crate) fn measure(plan: Plan) -> Option<Cost> {
    let Plan { kind, transport, count, time } = plan;
    let server = Server::playing_clip(kind, &clip::clip(), count);
    let dialogue = if kind == Kind::Floor { Dialogue::Port } else { Dialogue::Rtsp };
    pause(Duration::from_millis(300));
    let idle = server.usage();
    let sessions =
        (0..count).map(|_| Session::open(server.address(), transport, dialogue)).collect();
    let load = Load::start(sessions, Duration::from_secs(1));
    if !load.all_joined(JOIN_TIMEOUT) {
        load.stop();
        server.stop();
        return None;
    }
    pause(Duration::from_secs(1));
    let (before, started) = (server.usage(), Instant::now());
    load.measure();
    pause(time);
    let (after, took) = (server.usage(), started.elapsed());
    let mut tally = load.stop();
    let own_latency = own_latency(server);
    let units = tally.access_units() as f64;
    let (calls, sends) = if kind == Kind::Floor {
        // It does nothing else: one sleep, and the sends.
        (0.0, 0.0)
    } else {
        syscalls(plan)
    };
    if kind == Kind::Floor {
        // It waits for the last viewer before it begins.
        tally.first_packet.clear();
        tally.first_idr.clear();
    }
    let minutes = took.as_secs_f64() / 60.0 * count as f64;
    Some(Cost {
        plan,
        cpu_s: (after.cpu_s() - before.cpu_s()) / minutes,
        idle,
        switches: (after.switches - before.switches) as f64 / units,
        busy: after,
        calls,
        sends,
        latency: halves(&mut tally.latency, 99),
        latency_read: halves(&mut tally.latency_read, 99),
        spread: halves(&mut tally.spreads(), 99),
        first_packet: halves(&mut tally.first_packet, 100),
        first_idr: halves(&mut tally.first_idr, 100),
        lost: tally.lost,
        packets: tally.packets,
        closed: tally.closed,
        generator: tally.cpu_share,
        own_latency,
    })
}

/// Ends the server; what its log says of the time from capture to socket.
fn own_latency(server: Server) -> Option<String> {
    let is_ours = server.kind() == Kind::Ocellus;
    let log = server.stop();
    let (_, rest) = log.rsplit_once("capture_to_socket_us=[").filter(|_| is_ours)?;
    rest.split(']').next().map(str::to_owned)
}

/// System calls per access unit, and sending ones per access unit and viewer: in a run of its own,
/// because a traced server is a slow one.
fn syscalls(plan: Plan) -> (f64, f64) {
    let server = Server::playing_clip(plan.kind, &clip::clip(), plan.count);
    let sessions = (0..plan.count)
        .map(|_| Session::open(server.address(), plan.transport, Dialogue::Rtsp))
        .collect();
    let load = Load::start(sessions, Duration::from_secs(1));
    load.all_joined(JOIN_TIMEOUT);
    load.measure();
    let calls = server.count_syscalls(TRACE_TIME);
    let tally: Tally = load.stop();
    server.stop();
    // strace attaches and detaches within its time, and the viewers count through all of it.
    let units = (tally.access_units() as f64).min(TRACE_TIME.as_secs_f64() * 30.0);
    let all: u64 = calls.iter().map(|(_, count)| count).sum();
    let sends = calls.iter().filter(|(name, _)| SENDING.contains(&name.as_str()));
    let sends: u64 = sends.map(|(_, count)| count).sum();
    (all as f64 / units, sends as f64 / units / plan.count as f64)
}

/// The median, and the value that `percent` are not above.
fn halves<T: Copy + Ord>(values: &mut [T], percent: usize) -> Option<(T, T)> {
    Some((percentile(values, 50)?, percentile(values, percent)?))
}

/// All viewers must have had an IDR picture by then.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
const TRACE_TIME: Duration = Duration::from_secs(5);
const SENDING: [&str; 3] = ["sendto", "sendmsg", "sendmmsg"];
