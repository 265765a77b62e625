//! What the kernel alone takes: the least that any server can do, as a process of its own.
//!
//! [`serve`] is that process. It has cut the clip into packets beforehand; at the clip's own pace
//! it copies one access unit into one buffer and sends it to every viewer with the system calls
//! that the camera uses: one `send` per TCP viewer, `sendmmsg` of `UDP_SEGMENT` messages for up to
//! 64 UDP viewers. No queues, no epoll, no decisions; buffers are as the camera's.
//!
//! [`tight`] sends one access unit of 8 kB to one receiver without pause: the caches' best case.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ocellus::capture::{CodedSource as _, File};
use ocellus::h264::AccessUnit;
use ocellus::rtp::rtcp::SenderReport;
use ocellus::rtp::{ImagePool, Packetizer, Ssrc, WireImage};
use ocellus::sys::tcp;
use ocellus::sys::udp::{Batch, RUNS_MAX, Run, Socket, bind_any};
use ocellus::time::{Instant as Captured, NtpTimestamp, RtpTimestamp};

use crate::load::cpu;

/// Sends `clip` to `count` viewers until it is killed or has ended. Prints its address.
pub(crate) fn serve(clip: &Path, count: usize) {
    let pictures = pictures(clip);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    println!("{}", listener.local_addr().unwrap());
    // All connect before the first one says what he wants.
    let accept = |_| tcp::accept(&listener, SEND_BUFFER_LEN).unwrap().socket;
    let connections: Vec<OwnedFd> = (0..count).map(accept).collect();
    let viewers: Vec<Viewer> = connections.into_iter().map(Viewer::new).collect();
    let (rtp, rtcp, mut batch) = (bind_any(0).unwrap(), bind_any(0).unwrap(), Batch::default());
    // The schedule starts now, and everybody is told.
    let wall = NtpTimestamp::from_unix(SystemTime::UNIX_EPOCH.elapsed().unwrap());
    let started = Instant::now();
    let first = pictures.first().unwrap().timestamp;
    viewers.iter().for_each(|viewer| viewer.greet(wall, first, &rtcp, &mut batch));
    let ports: Vec<SocketAddr> = viewers.iter().filter_map(|viewer| viewer.port).collect();
    let mut image = Vec::with_capacity(1 << 17);
    for (index, picture) in pictures.iter().enumerate() {
        let due = started + Duration::from_secs(index as u64) / FPS;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        image.clear();
        image.extend_from_slice(&picture.image);
        if ports.is_empty() {
            viewers.iter().for_each(|viewer| send_all(&viewer.connection, &image));
        } else {
            segmented(&rtp, &mut batch, &image, &picture.runs, &ports);
        }
    }
}

/// An access unit that has been cut into packets.
struct Picture {
    image: Vec<u8>,
    /// What one `UDP_SEGMENT` message carries: where it lies, and the length of its packets.
    runs: Vec<(Range<usize>, usize)>,
    timestamp: RtpTimestamp,
}

/// The clip, cut as the camera cuts it, in its own time.
fn pictures(clip: &Path) -> Vec<Picture> {
    let mut source = File::open(clip, Some(f64::from(FPS))).unwrap();
    let mut packetizer = Packetizer::new(Ssrc(1), 2, 0, PACKET_LEN_MAX);
    let (mut unit, mut pool) = (AccessUnit::with_capacity(1 << 17), ImagePool::default());
    let mut pictures = Vec::with_capacity(PICTURES);
    let mut now = Captured::from_micros(1);
    while pictures.len() < PICTURES {
        now += Duration::from_millis(1);
        if source.capture(now, &mut unit).unwrap() {
            let image = pool.fill(|image| packetizer.packetize(&unit, image)).unwrap();
            let runs = image.runs(0..image.packet_count()).map(|run| {
                let packet_len = image.packet(run.start).len();
                let start = image.packet_end(run.start) - packet_len;
                (start..image.packet_end(run.end - 1), packet_len)
            });
            let (runs, timestamp) = (runs.collect(), image.timestamp());
            pictures.push(Picture { image: image.bytes().to_vec(), runs, timestamp });
        }
    }
    pictures
}

struct Viewer {
    connection: TcpStream,
    /// Where a UDP viewer listens.
    port: Option<SocketAddr>,
}

impl Viewer {
    fn new(connection: OwnedFd) -> Self {
        let mut connection = TcpStream::from(connection);
        connection.set_nonblocking(false).unwrap();
        let mut port = [0; 2];
        connection.read_exact(&mut port).unwrap();
        connection.set_nonblocking(true).unwrap();
        let port = match u16::from_be_bytes(port) {
            0 => None,
            port => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        };
        Self { connection, port }
    }

    /// Says when the first picture is due.
    fn greet(&self, ntp: NtpTimestamp, rtp: RtpTimestamp, socket: &Socket, batch: &mut Batch) {
        let (ssrc, packet_count, octet_count) = (Ssrc(1), 0, 0);
        let report =
            SenderReport { ssrc, ntp, rtp, packet_count, octet_count }.emit("floor", false);
        match self.port {
            Some(port) => {
                let to = SocketAddr::new(port.ip(), port.port() + 1);
                let run =
                    Run { to, from: None, bytes: &report, packet_len: report.len(), gap_len: 0 };
                batch.send(socket, &[run]).unwrap();
            }
            None => {
                let prefix = [b'$', 1, 0, u8::try_from(report.len()).unwrap()];
                (&self.connection).write_all(&[&prefix, &report[..]].concat()).unwrap();
            }
        }
    }
}

fn send_all(connection: &TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match tcp::transmit(connection, bytes) {
            Ok(len) => bytes = &bytes[len..],
            // Nobody is this slow; were somebody, the floor would look dearer than it is.
            Err(nix::Error::EAGAIN) => thread::yield_now(),
            Err(_) => std::process::exit(0),
        }
    }
}

fn segmented(
    socket: &Socket,
    batch: &mut Batch,
    image: &[u8],
    runs: &[(Range<usize>, usize)],
    ports: &[SocketAddr],
) {
    let mut messages: heapless::Vec<Run<'_>, RUNS_MAX> = heapless::Vec::new();
    for &to in ports {
        for (range, packet_len) in runs {
            if messages.is_full() {
                let _ = batch.send(socket, &messages);
                messages.clear();
            }
            let (bytes, packet_len) = (&image[range.clone()], *packet_len);
            let _ = messages.push(Run {
                to,
                from: None,
                bytes,
                packet_len,
                gap_len: WireImage::PREFIX_LEN,
            });
        }
    }
    let _ = batch.send(socket, &messages);
}

/// Microseconds of CPU for one access unit of 8 kB in 7 packets: by TCP, and by UDP.
pub(crate) fn tight(rounds: usize) -> (f64, f64) {
    let unit = vec![0x5a; PACKETS * (PACKET_LEN + WireImage::PREFIX_LEN)];
    (tight_tcp(&unit, rounds), tight_udp(&unit, rounds))
}

fn tight_tcp(unit: &[u8], rounds: usize) -> f64 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    sender.set_nodelay(true).unwrap();
    let drain = thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        while receiver.read(&mut bytes).unwrap() > 0 {}
    });
    let before = cpu();
    let mut calls = 0;
    while calls < rounds {
        match tcp::transmit(&sender, unit) {
            Ok(len) if len == unit.len() => calls += 1,
            _ => thread::yield_now(),
        }
    }
    let took = cpu() - before;
    drop(sender);
    drain.join().unwrap();
    took * 1e6 / rounds as f64
}

fn tight_udp(unit: &[u8], rounds: usize) -> f64 {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to: SocketAddr = receiver.local_addr().unwrap();
    let sender = bind_any(0).unwrap();
    let drain = thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        while receiver.recv(&mut bytes).unwrap() > 1 {}
    });
    let bytes = &unit[WireImage::PREFIX_LEN..];
    let run = Run { to, from: None, bytes, packet_len: PACKET_LEN, gap_len: WireImage::PREFIX_LEN };
    let mut batch = Batch::default();
    let before = cpu();
    for _ in 0..rounds {
        let _ = batch.send(&sender, &[run]);
    }
    let took = cpu() - before;
    let end = Run { to, from: None, bytes: b".", packet_len: 1, gap_len: 0 };
    while !drain.is_finished() {
        let _ = batch.send(&sender, &[end]);
        thread::yield_now();
    }
    took * 1e6 / rounds as f64
}

const PACKETS: usize = 7;
const PACKET_LEN: usize = 1_170;
const FPS: u32 = 30;
/// Two minutes: longer than any run.
const PICTURES: usize = 120 * FPS as usize;
/// The camera's own defaults.
const PACKET_LEN_MAX: usize = 1_372;
const SEND_BUFFER_LEN: usize = 128 << 10;
