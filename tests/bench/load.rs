//! The load generator: many viewers in one thread that play, drain, and look at packet heads only.
//!
//! One epoll. A TCP viewer is read into one buffer that all share; a UDP viewer with `recvmmsg`.
//! When something arrived is what the kernel says (SO_TIMESTAMPNS), not when it is read here.
//! It says what CPU it took itself, for it shares the machine with the server.

use std::io::{IoSliceMut, Write as _};
use std::net::UdpSocket;
use std::num::NonZero;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg, recvmsg,
    setsockopt,
};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::session::Session;
use crate::tally::{Arrival, Tally, Viewing};

/// Viewers at work.
pub(crate) struct Load {
    phase: Arc<AtomicU8>,
    /// Viewers that have had an IDR.
    joined: Arc<AtomicUsize>,
    count: usize,
    thread: JoinHandle<Tally>,
}

impl Load {
    /// Sends the viewers' last requests, evenly within `over`, and drains what comes.
    pub(crate) fn start(sessions: Vec<Session>, over: Duration) -> Self {
        let (phase, joined) = (Arc::new(AtomicU8::new(JOINING)), Arc::default());
        let count = sessions.len();
        let (of_thread, counter) = (Arc::clone(&phase), Arc::clone(&joined));
        let thread = thread::spawn(move || Drain::new(sessions, over, of_thread, counter).run());
        Self { phase, joined, count, thread }
    }

    /// Waits until every viewer has had an IDR; `false` when some never did.
    pub(crate) fn all_joined(&self, within: Duration) -> bool {
        let started = Instant::now();
        while self.joined.load(Ordering::Relaxed) < self.count {
            if started.elapsed() > within || self.thread.is_finished() {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// From here on latency, spread and loss count.
    pub(crate) fn measure(&self) {
        self.phase.store(MEASURING, Ordering::Relaxed);
    }

    /// The first viewer reads nothing for `time`.
    pub(crate) fn stall_one(&self, time: Duration) {
        self.phase.store(STALLED, Ordering::Relaxed);
        thread::sleep(time);
        self.phase.store(MEASURING, Ordering::Relaxed);
    }

    /// What the viewers have seen.
    pub(crate) fn stop(self) -> Tally {
        self.phase.store(OVER, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

struct Drain {
    epoll: Epoll,
    viewers: Vec<Viewer>,
    over: Duration,
    phase: Arc<AtomicU8>,
    joined: Arc<AtomicUsize>,
    tally: Tally,
    bytes: Vec<u8>,
    datagrams: Vec<[u8; DATAGRAM_LEN]>,
}

struct Viewer {
    session: Session,
    viewing: Viewing,
}

impl Drain {
    fn new(
        sessions: Vec<Session>,
        over: Duration,
        phase: Arc<AtomicU8>,
        joined: Arc<AtomicUsize>,
    ) -> Self {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        for (index, session) in sessions.iter().enumerate() {
            session.connection.set_nonblocking(true).unwrap();
            watch(&epoll, session, index);
        }
        let tally = Tally::new(sessions.len());
        let viewers =
            sessions.into_iter().map(|session| Viewer { session, viewing: Viewing::default() });
        Self {
            epoll,
            viewers: viewers.collect(),
            over,
            phase,
            joined,
            tally,
            bytes: vec![0; 1 << 18],
            datagrams: vec![[0; DATAGRAM_LEN]; DATAGRAMS],
        }
    }

    fn run(mut self) -> Tally {
        if let Some(&last) = LAST_CORE.get() {
            stay_on(last..last + 1);
        }
        let started = Instant::now();
        let step = self.over / u32::try_from(self.viewers.len().max(1)).unwrap();
        let mut asked = 0;
        let mut events = vec![EpollEvent::empty(); 512];
        let (mut phase, mut began) = (JOINING, (Instant::now(), cpu()));
        loop {
            while asked < self.viewers.len() && started.elapsed() >= step * asked as u32 {
                let viewer = &mut self.viewers[asked];
                viewer.session.connection.write_all(&viewer.session.last_request).unwrap();
                viewer.viewing.plays();
                asked += 1;
            }
            let now = self.phase.load(Ordering::Relaxed);
            if now != phase {
                if phase == JOINING {
                    began = (Instant::now(), cpu());
                    self.tally.is_measuring = true;
                }
                self.follow(phase, now);
                phase = now;
            }
            if phase == OVER {
                break;
            }
            let timeout = if asked < self.viewers.len() { 1_u8 } else { 20 };
            let count = self.epoll.wait(&mut events, EpollTimeout::from(timeout)).unwrap_or(0);
            for event in events.iter().take(count) {
                self.read(event.data() as usize);
            }
        }
        self.tally.cpu_share = (cpu() - began.1) / began.0.elapsed().as_secs_f64();
        for viewer in &self.viewers {
            self.tally.conclude(&viewer.viewing);
        }
        self.tally
    }

    fn follow(&mut self, from: u8, to: u8) {
        let Some(first) = self.viewers.first_mut() else { return };
        if to == STALLED {
            self.epoll.delete(&first.session.connection).unwrap();
            first.viewing.is_rude = true;
        } else if from == STALLED {
            watch(&self.epoll, &first.session, 0);
        }
    }

    /// Reads what one socket has; which one is the low two bits of `token`.
    fn read(&mut self, token: usize) {
        let Self { viewers, tally, bytes, datagrams, joined, epoll, .. } = self;
        let viewer = &mut viewers[token >> 2];
        let was_joined = viewer.viewing.has_joined();
        match (token & 3, &viewer.session.ports) {
            (RTP, Some((rtp, _))) => {
                viewer.viewing.datagrams(tally, rtp, datagrams);
            }
            (RTCP, Some((_, rtcp))) => {
                if let Ok(len) = rtcp.recv(&mut bytes[..]) {
                    viewer.viewing.report(&bytes[..len]);
                }
            }
            _ => match receive(&viewer.session.connection, bytes) {
                Ok((len @ 1.., arrival)) => viewer.viewing.stream(tally, arrival, &bytes[..len]),
                Err(Errno::EAGAIN) => {}
                Ok(_) | Err(_) => {
                    tally.closed += 1;
                    epoll.delete(&viewer.session.connection).unwrap();
                }
            },
        }
        if !was_joined && viewer.viewing.has_joined() {
            joined.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Viewing {
    /// Reads once; how many datagrams came.
    pub(crate) fn datagrams(
        &mut self,
        tally: &mut Tally,
        socket: &UdpSocket,
        buffers: &mut [[u8; DATAGRAM_LEN]],
    ) -> usize {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let control = Some(cmsg_space!(TimeSpec));
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(DATAGRAMS, control);
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None);
        let mut count = 0;
        if let Ok(received) = received {
            for message in received {
                count += 1;
                let arrival = Arrival::new(queued(&message));
                if let Some(packet) = message.iovs().next() {
                    self.packet(tally, arrival, packet);
                }
            }
        }
        count
    }
}

/// Reads once.
pub(crate) fn receive(socket: impl AsFd, bytes: &mut [u8]) -> nix::Result<(usize, Arrival)> {
    let (fd, flags) = (socket.as_fd().as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    let (mut pieces, mut control) = ([IoSliceMut::new(bytes)], cmsg_space!(TimeSpec));
    let message = recvmsg::<()>(fd, &mut pieces, Some(&mut control), flags)?;
    Ok((message.bytes, Arrival::new(queued(&message))))
}

/// When the last of these bytes came into the socket.
fn queued<S>(message: &RecvMsg<'_, '_, S>) -> Option<TimeSpec> {
    message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(at) => Some(at),
        _ => None,
    })
}

/// Watches all sockets of viewer `index`.
fn watch(epoll: &Epoll, session: &Session, index: usize) {
    let event = |socket: usize| EpollEvent::new(EpollFlags::EPOLLIN, (index << 2 | socket) as u64);
    setsockopt(&session.connection, ReceiveTimestampns, &true).unwrap();
    epoll.add(&session.connection, event(CONNECTION)).unwrap();
    if let Some((rtp, rtcp)) = &session.ports {
        rtp.set_nonblocking(true).unwrap();
        rtcp.set_nonblocking(true).unwrap();
        setsockopt(rtp, ReceiveTimestampns, &true).unwrap();
        epoll.add(rtp, event(RTP)).unwrap();
        epoll.add(rtcp, event(RTCP)).unwrap();
    }
}

/// With `is_wanted`, keeps the servers that are started from now on off the last core, which is
/// the generator's alone then.
///
/// Without, the scheduler often puts the generator on the server's core, since it wakes by the
/// server's sends: CPU is less then, because no wake crosses cores, and latency more, because
/// nobody reads before the server has sent everything.
pub(crate) fn keep_apart(is_wanted: bool) {
    let count = thread::available_parallelism().map_or(1, NonZero::get);
    if let Some(last) = count.checked_sub(1).filter(|last| is_wanted && *last > 0) {
        LAST_CORE.set(last).unwrap();
        stay_on(0..last);
    }
}

fn stay_on(cores: Range<usize>) {
    let mut set = CpuSet::new();
    cores.for_each(|core| set.set(core).unwrap());
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

/// The generator's own, if it has one.
static LAST_CORE: OnceLock<usize> = OnceLock::new();

/// CPU seconds of this thread.
pub(crate) fn cpu() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    Duration::from(time).as_secs_f64()
}

const CONNECTION: usize = 0;
const RTP: usize = 1;
const RTCP: usize = 2;
const JOINING: u8 = 0;
const MEASURING: u8 = 1;
const STALLED: u8 = 2;
const OVER: u8 = 3;
/// Datagrams of one `recvmmsg`: an access unit of usual size and more.
pub(crate) const DATAGRAMS: usize = 32;
pub(crate) const DATAGRAM_LEN: usize = 2_048;
