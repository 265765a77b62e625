//! A viewer that decodes nothing: it writes down when which packet came, and judges the numbers.
//!
//! The strict client of `tests/interop` in a thread of its own, perhaps in another network
//! namespace. Pictures are what `viewer` looks at; an emulated machine has no time to decode those
//! of several viewers.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::poll;
use nix::sched::{CloneFlags, setns};
use ocellus::sys::clock;
use ocellus::time::{Instant, NtpTimestamp};
use rtcp_types::{Compound, Packet as RtcpPacket};
use rtp_types::RtpPacket;

use super::capture::{Event, Kind};
use super::client::{Client, Lower};
use super::digest::Credentials;

/// One session, from its PLAY until it is dropped.
pub(super) struct Listener {
    heard: Arc<Mutex<Heard>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How a session is held.
pub(super) struct Manners<'a> {
    pub(super) url: &'a str,
    pub(super) lower: Lower,
    /// Where it is listened to, when not here.
    pub(super) namespace: Option<&'a OwnedFd>,
    /// Whether it says nothing at all once it plays.
    pub(super) is_silent: bool,
}

/// What has come so far.
#[derive(Clone, Default)]
pub(super) struct Heard {
    pub(super) packets: Vec<Packet>,
    pub(super) reports: Vec<Report>,
    /// That the connection was closed, or that a BYE came.
    pub(super) has_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) at: Instant,
    pub(super) ssrc: u32,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) is_last: bool,
    /// That it holds parameter sets, which stand before an IDR picture only.
    is_idr: bool,
    /// Of the whole packet.
    digest: u64,
}

/// A sender report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    ssrc: u32,
    pub(super) ntp: NtpTimestamp,
    pub(super) rtp: u32,
    pub(super) packet_count: u32,
    /// When what it is about was captured, as CLOCK_REALTIME stood when it came.
    captured: Instant,
}

/// The packets of one picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub(super) timestamp: u32,
    /// When its last packet came.
    pub(super) at: Instant,
    pub(super) is_idr: bool,
}

impl Listener {
    /// Plays; panics when it is not let.
    pub(super) fn start(manners: &Manners<'_>, login: &Credentials) -> Self {
        let heard = Arc::<Mutex<Heard>>::default();
        let is_over = Arc::<AtomicBool>::default();
        let namespace = manners.namespace.map(|fd| fd.try_clone().unwrap());
        let (url, login) = (manners.url.to_owned(), login.clone());
        let (lower, is_silent) = (manners.lower, manners.is_silent);
        let thread = std::thread::spawn({
            let (heard, is_over) = (Arc::clone(&heard), Arc::clone(&is_over));
            move || {
                if let Some(namespace) = namespace {
                    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                }
                let client = play(&url, &login, lower);
                listen(client, is_silent, &heard, &is_over);
            }
        });
        let listener = Self { heard, is_over, thread: Some(thread) };
        listener.wait_for("the first picture", |heard| !heard.units().is_empty());
        listener
    }

    pub(super) fn heard(&self) -> Heard {
        self.heard.lock().unwrap().clone()
    }

    /// What comes from now on.
    pub(super) fn mark(&self) -> usize {
        self.heard.lock().unwrap().packets.len()
    }

    /// Waits until it is so; panics when that takes too long.
    pub(super) fn wait_for(&self, what: &str, is_so: impl Fn(&Heard) -> bool) {
        let deadline = clock::now() + PATIENCE;
        while !is_so(&self.heard.lock().unwrap()) {
            let is_alive = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
            assert!(is_alive, "the listener has failed before {what}");
            assert!(clock::now() < deadline, "{what} within {PATIENCE:?}");
            pause(Duration::from_millis(50));
        }
    }

    /// Waits for so many more pictures.
    pub(super) fn wait_for_pictures(&self, count: usize) {
        let mark = self.mark();
        self.wait_for(&format!("{count} pictures"), |heard| {
            heard.packets[mark..].iter().filter(|packet| packet.is_last).count() >= count
        });
    }

    /// Waits for so many more sender reports.
    pub(super) fn wait_for_reports(&self, count: usize) {
        let before = self.heard().reports.len();
        self.wait_for(&format!("{count} reports"), |heard| heard.reports.len() >= before + count);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap();
        // What it has to say is on stderr already.
        let _ = thread.join();
    }
}

impl Heard {
    /// The pictures of which the last packet has come.
    pub(super) fn units(&self) -> Vec<Unit> {
        let idrs = self.packets.iter().filter(|packet| packet.is_idr);
        let idrs: BTreeSet<u32> = idrs.map(|packet| packet.timestamp).collect();
        let lasts = self.packets.iter().filter(|packet| packet.is_last);
        let unit = |last: &Packet| Unit {
            timestamp: last.timestamp,
            at: last.at,
            is_idr: idrs.contains(&last.timestamp),
        };
        lasts.map(unit).collect()
    }

    /// From the packet of that index on.
    pub(super) fn since(&self, mark: usize) -> Self {
        Self { packets: self.packets[mark..].to_vec(), ..self.clone() }
    }

    /// One SSRC, every packet after the one before, one time stamp for each picture, which rises
    /// and by no more than `gap_max`; the last packet of a picture is marked, and no other.
    pub(super) fn assert_unbroken(&self, gap_max: Duration) {
        for pair in self.packets.windows(2) {
            let [before, after] = pair else { unreachable!("windows of two") };
            assert_eq!(before.ssrc, after.ssrc, "{pair:?}");
            assert_eq!(before.sequence.wrapping_add(1), after.sequence, "{pair:?}");
            let step = after.timestamp.wrapping_sub(before.timestamp);
            if before.is_last {
                assert!(step > 0 && ticks(step) <= gap_max, "{:?} {pair:?}", ticks(step));
            } else {
                assert_eq!(step, 0, "{pair:?}");
            }
        }
        assert!(self.reports.iter().all(|report| report.ssrc == self.packets[0].ssrc));
    }

    /// How old each picture was when it came: by the first sender report, which came while the wall
    /// clock was left alone.
    pub(super) fn ages(&self) -> Vec<Duration> {
        let first = self.reports.first().expect("a report comes with PLAY");
        let age = |unit: Unit| {
            // A picture may be older than what the report is about.
            let since = unit.timestamp.wrapping_sub(first.rtp).cast_signed();
            let captured = if since < 0 {
                first.captured - ticks(since.unsigned_abs())
            } else {
                first.captured + ticks(since.unsigned_abs())
            };
            // Earlier than it was captured is no age.
            assert!(captured < unit.at + CLOCK_SLACK, "captured after it came: {unit:?} {first:?}");
            unit.at.since(captured)
        };
        self.units().into_iter().map(age).collect()
    }

    /// The longest time from one IDR picture to the next.
    pub(super) fn longest_gop(&self) -> Duration {
        let idrs: Vec<_> = self.units().into_iter().filter(|unit| unit.is_idr).collect();
        let steps = idrs.windows(2).map(|two| two[1].timestamp.wrapping_sub(two[0].timestamp));
        steps.map(ticks).max().unwrap_or_default()
    }

    /// By how many microseconds each report's NTP time is off the line through the first one: what
    /// 90 kHz says that it should be.
    pub(super) fn report_offsets(&self) -> Vec<i64> {
        let first = &self.reports[0];
        let offset = |report: &Report| {
            let elapsed = ticks(report.rtp.wrapping_sub(first.rtp)).as_micros();
            report.ntp.micros_since(first.ntp) - i64::try_from(elapsed).unwrap()
        };
        self.reports.iter().map(offset).collect()
    }
}

impl Packet {
    /// What does not depend on who got it, and when.
    pub(super) const fn content(&self) -> (u16, u64) {
        (self.sequence, self.digest)
    }
}

fn play(url: &str, login: &Credentials, lower: Lower) -> Client {
    let mut client = Client::connect(url, login);
    for reply in [client.describe(), client.setup(lower), client.play()] {
        assert_eq!(reply.status(), 200, "{reply:?}");
    }
    client
}

fn listen(mut client: Client, is_silent: bool, heard: &Mutex<Heard>, is_over: &AtomicBool) {
    let mut last_word = clock::now();
    while !is_over.load(Ordering::Relaxed) {
        client.listen_until(POLL, |client| !client.capture.events.is_empty());
        if !is_silent && !client.closed && clock::now().since(last_word) >= KEEP_ALIVE {
            last_word = clock::now();
            client.keep_alive("OPTIONS");
        }
        let events = std::mem::take(&mut client.capture.events);
        let mut heard = heard.lock().unwrap();
        events.into_iter().for_each(|event| note(&mut heard, event));
    }
    if !is_silent && !client.closed {
        client.teardown();
    }
}

fn note(heard: &mut Heard, event: Event) {
    match event.kind {
        Kind::Interleaved { channel, packet } if channel % 2 == 0 => note_rtp(heard, &packet),
        Kind::Interleaved { packet, .. } => note_rtcp(heard, &packet),
        // RTP has the even port of a pair.
        Kind::Datagram { to, packet, .. } if to % 2 == 0 => note_rtp(heard, &packet),
        Kind::Datagram { packet, .. } => note_rtcp(heard, &packet),
        Kind::Closed => heard.has_ended = true,
        Kind::Garbage(bytes) => panic!("neither a response nor a packet: {bytes:?}"),
        Kind::Request(_) | Kind::Response(_) => {}
    }
}

fn note_rtp(heard: &mut Heard, bytes: &[u8]) {
    let packet = RtpPacket::parse(bytes).unwrap();
    let mut digest = DefaultHasher::new();
    bytes.hash(&mut digest);
    heard.packets.push(Packet {
        at: clock::now(),
        ssrc: packet.ssrc(),
        sequence: packet.sequence_number(),
        timestamp: packet.timestamp(),
        is_last: packet.marker_bit(),
        is_idr: packet.payload().first().is_some_and(|byte| [SPS, STAP_A].contains(&(byte & 0x1f))),
        digest: digest.finish(),
    });
}

fn note_rtcp(heard: &mut Heard, bytes: &[u8]) {
    for packet in Compound::parse(bytes).unwrap() {
        match packet.unwrap() {
            RtcpPacket::Sr(report) => {
                let (now, wall) = (clock::now(), clock::wall());
                let ntp = NtpTimestamp(report.ntp_timestamp());
                let age = u64::try_from(wall.micros_since(ntp)).unwrap_or(0);
                heard.reports.push(Report {
                    ssrc: report.ssrc(),
                    ntp,
                    rtp: report.rtp_timestamp(),
                    packet_count: report.packet_count(),
                    captured: now - Duration::from_micros(age),
                });
            }
            RtcpPacket::Bye(_) => heard.has_ended = true,
            _ => {}
        }
    }
}

/// A span of RTP time.
pub(super) fn ticks(count: u32) -> Duration {
    Duration::from_micros(u64::from(count) * 100 / 9)
}

/// Lets that much time pass.
pub(super) fn pause(time: Duration) {
    let deadline = clock::now() + time;
    while let Some(left) = Some(deadline.since(clock::now())).filter(|left| !left.is_zero()) {
        let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        poll(&mut [], millis).unwrap();
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// The camera promises 60 s.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Two clocks are read one after the other, perhaps with another's turn between.
const CLOCK_SLACK: Duration = Duration::from_millis(20);
// Table 7-1 of H.264; RFC 6184 5.2.
const SPS: u8 = 7;
const STAP_A: u8 = 24;
