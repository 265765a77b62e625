//! What the kernel alone takes: one access unit of 8 kB to one viewer, in a tight loop.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use ocellus::sys::tcp;
use ocellus::sys::udp::{Batch, Run, bind_any};

use crate::row;

/// An access unit of 8 kB in 7 packets, as `rtp` makes them.
const PACKETS: usize = 7;
const PACKET_LEN: usize = 1_170;
const PREFIX_LEN: usize = 4;

pub(crate) fn measure(rounds: usize) {
    let unit = vec![0x5a; PACKETS * (PACKET_LEN + PREFIX_LEN)];
    let tcp = tcp_send(&unit, rounds);
    let udp = udp_segmented(&unit, rounds);
    for (what, micros) in [("TCP, one send", tcp), ("UDP, one segmented message", udp)] {
        let minute = micros * 30.0 * 60.0 / 1e6;
        row(
            &format!("floor: {what} of 8 kB"),
            &format!("{micros:.1} µs of CPU, {minute:.4} CPU-s per viewer and minute at 30 fps"),
        );
    }
}

/// CPU of this thread, in microseconds.
fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    micros as f64
}

fn tcp_send(unit: &[u8], rounds: usize) -> f64 {
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
    took / rounds as f64
}

fn udp_segmented(unit: &[u8], rounds: usize) -> f64 {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to: SocketAddr = receiver.local_addr().unwrap();
    let sender = bind_any(0).unwrap();
    let drain = thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        while receiver.recv(&mut bytes).unwrap() > 1 {}
    });
    let run = Run { to, bytes: &unit[PREFIX_LEN..], packet_len: PACKET_LEN, gap_len: PREFIX_LEN };
    let mut batch = Batch::default();
    let before = cpu();
    for _ in 0..rounds {
        let _ = batch.send(&sender, &[run]);
    }
    let took = cpu() - before;
    let end = Run { to, bytes: b".", packet_len: 1, gap_len: 0 };
    while !drain.is_finished() {
        let _ = batch.send(&sender, &[end]);
        thread::yield_now();
    }
    took / rounds as f64
}
