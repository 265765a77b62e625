//! Turns time servers' answers into a right wall clock: process 1's SNTP client.
//!
//! `net::Sntp` decides whom to ask and when; here are the sockets, the names and the clock. The
//! servers are the configuration's, or else those of the newest leases (DHCP option 42). Names are
//! looked up by the C library, through /etc/resolv.conf.
//!
//! The first sample steps the clock. Later ones slew it at 500 ppm, unless they are more than a
//! second off. Nothing but RTCP sender reports, answers to PLAY, log lines and certificates looks at
//! this clock.
//!
//! Not implemented: time zones, and keeping the time over a power cut.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, recv,
    send, socket,
};

use crate::net::sntp::{self, Event, Sntp};
use crate::sys::clock;
use crate::time::{Instant, NtpTimestamp};

/// An interface has got or lost its configuration.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) interface: u32,
    /// The time servers that came with it.
    pub(super) ntp: Vec<IpAddr>,
}

/// Keeps the clock right. Ends when nobody can report leases any more.
pub(super) fn run(configured: &[String], leases: &Receiver<Heard>) {
    let mut by_interface = BTreeMap::new();
    let mut clock = Clock { is_set: false, is_silent: false };
    let mut servers = configured.to_vec();
    let mut client = Sntp::new(clock::now(), servers.len(), seed());
    loop {
        let due = client.poll_timeout();
        match heard(leases, due) {
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => ask(&mut client, &servers, &mut clock),
            Ok(heard) => {
                by_interface.insert(heard.interface, heard.ntp);
                let found = choose(configured, &by_interface);
                // Without the time, a new lease is a new chance; with it, only new servers are.
                if found != servers || !clock.is_set {
                    servers = found;
                    client = Sntp::new(clock::now(), servers.len(), seed());
                }
            }
        }
    }
}

fn heard(leases: &Receiver<Heard>, due: Option<Instant>) -> Result<Heard, RecvTimeoutError> {
    match due {
        Some(due) => leases.recv_timeout(due.since(clock::now())),
        None => leases.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}

fn choose(configured: &[String], by_interface: &BTreeMap<u32, Vec<IpAddr>>) -> Vec<String> {
    if !configured.is_empty() {
        return configured.to_vec();
    }
    by_interface.values().flatten().map(IpAddr::to_string).collect()
}

/// One question and what comes of it.
fn ask(client: &mut Sntp, servers: &[String], clock: &mut Clock) {
    let name = servers.get(client.server()).map_or("", String::as_str);
    // Before the question counts as asked, because looking up a name takes time.
    let socket = open(name);
    if let Err(error) = &socket {
        log::debug!("time: server={name} error={error}");
    }
    client.handle_timeout(clock::now());
    if let (Some(question), Ok(socket)) = (client.poll_transmit(), &socket) {
        // What is lost here is asked again, as if it had been lost on the way.
        let _ = send(socket.as_raw_fd(), &question.message, MsgFlags::empty());
        wait_for_answer(client, socket);
    }
    while let Some(event) = client.poll_event() {
        clock.apply(&event, name);
    }
}

/// Hands over what arrives, until it answers the question or time is up.
fn wait_for_answer(client: &mut Sntp, socket: &OwnedFd) {
    while client.is_waiting() {
        let pause = client.poll_timeout().map_or(Duration::ZERO, |due| due.since(clock::now()));
        if pause.is_zero() {
            client.handle_timeout(clock::now());
            return;
        }
        let timeout = PollTimeout::try_from(pause + Duration::from_millis(1));
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        // An interruption is a turn for nothing.
        let _ = poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX));
        let mut datagram = [0; MAX_DATAGRAM_LEN];
        if let Ok(len) = recv(socket.as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT) {
            client.receive(clock::now(), datagram.get(..len).unwrap_or_default());
        }
    }
}

/// A socket that hears nobody but this server.
fn open(name: &str) -> io::Result<OwnedFd> {
    let address = (name, NTP_PORT).to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    open_to(address)
}

fn open_to(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Datagram, flags, SockProtocol::Udp)?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

/// The wall clock, and what was last said about it.
struct Clock {
    is_set: bool,
    is_silent: bool,
}

/// What is to be done about an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Correction {
    /// Set the clock.
    Step,
    /// Let it go a little faster or slower.
    Slew,
}

impl Clock {
    fn apply(&mut self, event: &Event, server: &str) {
        match *event {
            Event::Sample { at, time, round_trip } => {
                if std::mem::take(&mut self.is_silent) {
                    log::info!("time: answered again server={server}");
                }
                self.correct(at, time, round_trip, server);
            }
            Event::Refused { .. } => log::warn!("time: refused for ever server={server}"),
            Event::Silent => {
                self.is_silent = true;
                log::warn!("time: no server answers");
            }
        }
    }

    fn correct(&mut self, at: Instant, time: NtpTimestamp, round_trip: Duration, server: &str) {
        let age = clock::now().since(at);
        let (right, wall) = (time.to_unix() + age, clock::wall().to_unix());
        let offset = offset_micros(right, wall);
        let correction = correction(self.is_set, offset);
        let done = match correction {
            Correction::Step => clock::step(right),
            Correction::Slew => clock::slew(offset),
        };
        let (offset_ms, rtt_ms) = (offset / 1000, round_trip.as_millis());
        match (done, correction) {
            (Err(error), _) => log::error!("time: the clock cannot be set error={error}"),
            (Ok(()), Correction::Step) => log::info!(
                "time: clock set server={server} offset_ms={offset_ms} round_trip_ms={rtt_ms} \
                 unix_s={}",
                right.as_secs()
            ),
            (Ok(()), Correction::Slew) => log::debug!(
                "time: clock slewed server={server} offset_us={offset} round_trip_ms={rtt_ms}"
            ),
        }
        // The camera tells viewers the time of day only while the kernel knows that it is right.
        if let Err(error) = clock::synchronized(round_trip / 2) {
            log::debug!("time: the kernel does not take note error={error}");
        }
        self.is_set = true;
    }
}

/// The first sample is believed whatever it says; later ones move the clock smoothly if they can.
const fn correction(is_set: bool, offset_micros: i64) -> Correction {
    if is_set && offset_micros.unsigned_abs() <= MAX_SLEW_MICROS {
        Correction::Slew
    } else {
        Correction::Step
    }
}

fn offset_micros(right: Duration, wall: Duration) -> i64 {
    let micros = right.abs_diff(wall).as_micros();
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    if right >= wall { micros } else { -micros }
}

/// Makes requests that nobody can guess, and spreads those of cameras switched on together.
fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| clock::now().as_micros())
}

const NTP_PORT: u16 = 123;
/// Half an hour at 500 ppm: what is further off is set at once.
const MAX_SLEW_MICROS: u64 = 1_000_000;
/// The message, extension fields and a key, and room to see that it is too long.
const MAX_DATAGRAM_LEN: usize = sntp::MESSAGE_LEN + 128;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failing test")]
mod tests {
    use nix::sys::socket::{SockaddrIn, bind, getsockname, sendto};

    use super::*;

    #[test]
    fn the_first_sample_steps_and_later_ones_slew_up_to_a_second() {
        for (is_set, offset, wanted) in [
            (false, 0, Correction::Step),
            (false, 1_600_000_000_000_000, Correction::Step),
            (true, 0, Correction::Slew),
            (true, 1_000_000, Correction::Slew),
            (true, -1_000_000, Correction::Slew),
            (true, 1_000_001, Correction::Step),
            (true, i64::MIN, Correction::Step),
        ] {
            assert_eq!(correction(is_set, offset), wanted, "{is_set} {offset}");
        }
    }

    #[test]
    fn a_server_is_heard_over_a_real_socket_and_a_stranger_is_not() {
        let bound = || {
            let flags = SockFlag::SOCK_CLOEXEC;
            let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, None).unwrap();
            bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
            let name: SockaddrIn = getsockname(fd.as_raw_fd()).unwrap();
            (fd, name)
        };
        let ((server, server_name), (stranger, _)) = (bound(), bound());
        let asking = open_to(SocketAddr::V4(server_name.into())).unwrap();
        let camera: SockaddrIn = getsockname(asking.as_raw_fd()).unwrap();

        let mut client = Sntp::new(clock::now(), 1, 7);
        client.handle_timeout(clock::now());
        let question = client.poll_transmit().unwrap().message;
        send(asking.as_raw_fd(), &question, MsgFlags::empty()).unwrap();
        let mut heard = [0; sntp::MESSAGE_LEN];
        assert_eq!(recv(server.as_raw_fd(), &mut heard, MsgFlags::empty()), Ok(heard.len()));

        let mut answer = [0; sntp::MESSAGE_LEN];
        answer[..2].copy_from_slice(&[0x24, 1]);
        answer[24..32].copy_from_slice(&heard[40..]);
        for (from, second) in [(&stranger, 4_100_000_000_u32), (&server, 4_004_294_400)] {
            answer[32..36].copy_from_slice(&second.to_be_bytes());
            answer[40..44].copy_from_slice(&second.to_be_bytes());
            let sent = sendto(from.as_raw_fd(), &answer, &camera, MsgFlags::empty());
            assert_eq!(sent, Ok(answer.len()));
        }
        wait_for_answer(&mut client, &asking);
        let Some(Event::Sample { time, round_trip, .. }) = client.poll_event() else {
            panic!("no sample")
        };
        assert!(time.to_unix().as_secs().abs_diff(4_004_294_400 - 2_208_988_800) <= 1);
        assert!(round_trip < Duration::from_secs(3));
    }

    #[test]
    fn an_offset_is_positive_when_the_clock_is_late() {
        let s = Duration::from_secs;
        assert_eq!(offset_micros(s(5), s(3)), 2_000_000);
        assert_eq!(offset_micros(s(3), s(5)), -2_000_000);
        assert_eq!(offset_micros(Duration::MAX, Duration::ZERO), i64::MAX);
    }

    #[test]
    fn configured_servers_come_before_those_of_leases() {
        let leases = BTreeMap::from([(2, vec!["192.0.2.1".parse().unwrap()]), (3, vec![])]);
        assert_eq!(choose(&[], &leases), ["192.0.2.1"]);
        assert_eq!(choose(&["ntp.example".to_owned()], &leases), ["ntp.example"]);
        assert_eq!(choose(&[], &BTreeMap::new()), [""; 0]);
    }
}
