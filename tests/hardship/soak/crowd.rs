//! Those who come and go, and the two who stay; all in one thread, and next to nothing kept of what
//! they are sent.

use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::load::{DATAGRAM_LEN, DATAGRAMS, receive};
use crate::session::{Dialogue, Session, Transport};
use crate::tally::{Tally, Viewing, percentile};

/// One of them.
struct Viewer {
    session: Session,
    viewing: Viewing,
    played: Instant,
    is_closed: bool,
    /// Of a guest.
    number: u64,
}

impl Viewer {
    fn join(door: SocketAddr, transport: Transport, number: u64) -> Self {
        let mut session = Session::open(door, transport, Dialogue::Rtsp);
        session.connection.set_nonblocking(true).unwrap();
        setsockopt(&session.connection, sockopt::ReceiveTimestampns, &true).unwrap();
        if let Some((rtp, rtcp)) = &session.ports {
            setsockopt(rtp, sockopt::ReceiveTimestampns, &true).unwrap();
            // Opening the next guest's session may take a moment.
            setsockopt(rtp, sockopt::RcvBuf, &(1 << 20)).unwrap();
            rtcp.set_nonblocking(true).unwrap();
        }
        let mut viewing = Viewing::default();
        viewing.plays();
        session.connection.write_all(&session.last_request).unwrap();
        Self { session, viewing, played: Instant::now(), is_closed: false, number }
    }

    fn is_to_leave(&self) -> bool {
        self.played.elapsed() >= Duration::from_millis(3_000 + 700 * (self.number % 6))
    }

    /// Takes in what is there.
    fn hear(&mut self, tally: &mut Tally, bytes: &mut [u8], datagrams: &mut [[u8; DATAGRAM_LEN]]) {
        if let Some((rtp, rtcp)) = &self.session.ports {
            // Reports first: they say when the pictures were captured.
            while let Ok(len) = rtcp.recv(bytes) {
                self.viewing.report(&bytes[..len]);
            }
            while self.viewing.datagrams(tally, rtp, datagrams) == DATAGRAMS {}
        }
        while !self.is_closed {
            match receive(&self.session.connection, bytes) {
                Ok((len @ 1.., arrival)) => self.viewing.stream(tally, arrival, &bytes[..len]),
                Err(nix::errno::Errno::EAGAIN) => break,
                Ok(_) | Err(_) => self.is_closed = true,
            }
        }
    }

    /// Says that he is alive, or goodbye.
    fn say(&mut self, method: &str) {
        let request = String::from_utf8_lossy(&self.session.last_request).into_owned();
        // He who is not read from has been hung up on, which is found elsewhere.
        let _ = self.session.connection.write_all(request.replacen("PLAY", method, 1).as_bytes());
    }
}

/// The two who stay.
pub(super) struct Pair {
    viewers: [Viewer; 2],
    tally: Tally,
    bytes: Vec<u8>,
    datagrams: Vec<[u8; DATAGRAM_LEN]>,
    spoke: Instant,
}

impl Pair {
    pub(super) fn join(door: SocketAddr) -> Self {
        let viewers = [Transport::Tcp, Transport::Udp].map(|it| Viewer::join(door, it, 0));
        Self {
            viewers,
            tally: measuring(),
            bytes: vec![0; 1 << 16],
            datagrams: vec![[0; DATAGRAM_LEN]; DATAGRAMS],
            spoke: Instant::now(),
        }
    }

    /// Waits for a moment for something to hear.
    pub(super) fn listen(&mut self) {
        let [tcp, udp] = &self.viewers;
        let rtp = &udp.session.ports.as_ref().unwrap().0;
        let mut fds = [tcp.session.connection.as_fd(), rtp.as_fd()]
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut fds, PollTimeout::from(20_u8)).unwrap();
        for viewer in &mut self.viewers {
            viewer.hear(&mut self.tally, &mut self.bytes, &mut self.datagrams);
            assert!(!viewer.is_closed, "the camera has hung up on one who stays");
        }
        if self.spoke.elapsed() >= KEPT_ALIVE_EVERY {
            self.spoke = Instant::now();
            self.viewers.iter_mut().for_each(|viewer| viewer.say("GET_PARAMETER"));
        }
    }

    /// From the captures to their sockets since last asked, in µs: median, and 99 %.
    pub(super) fn latency(&mut self) -> (i64, i64) {
        let mut tally = std::mem::replace(&mut self.tally, measuring());
        assert_eq!(tally.lost, 0, "those who stay have lost packets");
        let values = [50, 99].map(|percent| percentile(&mut tally.latency, percent));
        // Before the first report nobody knows.
        (values[0].unwrap_or(0), values[1].unwrap_or(0))
    }

    pub(super) fn leave(mut self) {
        self.viewers.iter_mut().for_each(|viewer| viewer.say("TEARDOWN"));
    }
}

fn measuring() -> Tally {
    let mut tally = Tally::new(2);
    tally.is_measuring = true;
    tally
}

/// Those who come and go.
pub(super) struct Crowd {
    /// For TCP and UDP, through HTTP, and by TLS.
    doors: [SocketAddr; 3],
    viewers: Vec<Viewer>,
    pub(super) guests: Guests,
    tally: Tally,
    bytes: Vec<u8>,
    datagrams: Vec<[u8; DATAGRAM_LEN]>,
    due: Instant,
    seconds: u64,
}

/// What became of them.
#[derive(Default)]
pub(super) struct Guests {
    pub(super) came: u64,
    /// From PLAY to an IDR.
    longest: Duration,
    /// How long those waited who waited too long, or never had one.
    pub(super) late: Vec<Duration>,
    /// Whom the camera has hung up on.
    pub(super) lost: u64,
}

impl fmt::Display for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { came, longest, late, lost } = self;
        write!(
            f,
            "{came} guests, an IDR after {longest:?} at most, late {late:?}, hung up on {lost}"
        )
    }
}

impl Crowd {
    pub(super) fn new(doors: [SocketAddr; 3]) -> Self {
        Self {
            doors,
            viewers: Vec::new(),
            guests: Guests::default(),
            tally: Tally::new(0),
            bytes: vec![0; 1 << 16],
            datagrams: vec![[0; DATAGRAM_LEN]; DATAGRAMS],
            due: Instant::now(),
            seconds: 0,
        }
    }

    /// Lets in who is due, hears all, and shows out whose time is over.
    pub(super) fn handle(&mut self, now: Instant) {
        if now >= self.due {
            self.due = now + EVERY;
            self.let_in();
        }
        self.hear();
        let (leave, stay) = self.viewers.drain(..).partition(Viewer::is_to_leave);
        self.viewers = stay;
        let leave: Vec<Viewer> = leave;
        leave.into_iter().for_each(|viewer| self.show_out(viewer));
    }

    fn hear(&mut self) {
        for viewer in &mut self.viewers {
            let had = viewer.viewing.has_joined();
            viewer.hear(&mut self.tally, &mut self.bytes, &mut self.datagrams);
            if !had && viewer.viewing.has_joined() {
                self.guests.longest = self.guests.longest.max(viewer.played.elapsed());
            }
        }
    }

    fn let_in(&mut self) {
        let is_fifth = self.seconds.is_multiple_of(5);
        self.seconds += 1;
        let [plain, through_http, encrypted] = self.doors;
        let mut let_in = |door, transport| {
            self.viewers.push(Viewer::join(door, transport, self.guests.came));
            self.guests.came += 1;
        };
        let_in(plain, Transport::Tcp);
        let_in(plain, Transport::Udp);
        if is_fifth {
            let_in(through_http, Transport::Tcp);
            let_in(encrypted, Transport::Tcp);
        }
    }

    fn show_out(&mut self, mut viewer: Viewer) {
        let waited = viewer.played.elapsed();
        let is_late = !viewer.viewing.has_joined();
        self.guests.late.extend(is_late.then_some(waited));
        self.guests.lost += u64::from(viewer.is_closed);
        match viewer.number / 2 % 3 {
            0 => {}
            1 => viewer.say("TEARDOWN"),
            _ => {
                let reset = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(&viewer.session.connection, sockopt::Linger, &reset).unwrap();
            }
        }
    }

    /// Everybody leaves, once he has seen something.
    pub(super) fn leave(mut self) -> Guests {
        let began = Instant::now();
        while began.elapsed() < PATIENCE && !self.viewers.iter().all(|it| it.viewing.has_joined()) {
            self.hear();
            std::thread::sleep(Duration::from_millis(10));
        }
        std::mem::take(&mut self.viewers).into_iter().for_each(|viewer| self.show_out(viewer));
        self.guests
    }
}

/// Between two who come by the same door.
const EVERY: Duration = Duration::from_secs(1);
/// What an IDR may take, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(3);
/// A third of what a session lasts without a word.
const KEPT_ALIVE_EVERY: Duration = Duration::from_secs(20);
