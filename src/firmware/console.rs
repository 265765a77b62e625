//! Turns log records into lines on the console, stamped like the kernel's own, and keeps the newest
//! of them in memory.
//!
//! Standard error of process 1 is /dev/console, which the kernel opened; the stamp is seconds of
//! CLOCK_MONOTONIC, which starts with the kernel.
//!
//! Not implemented: what the camera process says is on the console only.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::OFlag;

use crate::sys::clock;

/// Sends the log to the console, and panics of any thread to the log.
pub(super) fn start_log() {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Info);
    // The kernel hands unknown NAME=VALUE arguments of its command line on to process 1.
    builder.parse_default_env();
    builder.format(|out, record| {
        let micros = clock::now().as_micros();
        let level = match record.level() {
            log::Level::Error => "error: ",
            log::Level::Warn => "warning: ",
            log::Level::Info | log::Level::Debug | log::Level::Trace => "",
        };
        let (s, rest) = (micros / 1_000_000, micros % 1_000_000);
        let line = format!("[{s:5}.{rest:06}] {level}{}\n", record.args());
        keep(&mut RING.lock().unwrap_or_else(PoisonError::into_inner), line.as_bytes());
        out.write_all(line.as_bytes())
    });
    // A second logger could only come from a caller that broke the contract of `run`.
    let _ = builder.try_init();
    panic::set_hook(Box::new(|info| log::error!("firmware: panic: {info}")));
}

pub(super) fn refuse() {
    // Without a log there is nothing else; if even this fails, the exit status says it.
    let _ = writeln!(std::io::stderr(), "ocellus init is for process 1 of a firmware image only");
}

/// The newest lines, the kernel's and then ours, 64 kB in all.
pub(super) fn log_text() -> Vec<u8> {
    let ring = RING.lock().unwrap_or_else(PoisonError::into_inner);
    let ours: Vec<u8> = ring.iter().copied().collect();
    drop(ring);
    text_of(&kernel_lines(), &ours)
}

fn text_of(kernel: &[u8], ours: &[u8]) -> Vec<u8> {
    let kernel = newest(kernel, MAX_KERNEL_LEN);
    let ours = newest(ours, RING_LEN - MAX_KERNEL_LEN - 2 * HEADING_LEN);
    [b"--- kernel ---\n", kernel, b"--- ocellus ---\n", ours].concat()
}

/// The kernel's own ring; each read of it is one record: `priority,number,time,flags;text`.
fn kernel_lines() -> Vec<u8> {
    let flags = OFlag::O_NONBLOCK.bits();
    let Ok(mut ring) = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg") else {
        return Vec::new();
    };
    let (mut lines, mut record) = (Vec::new(), [0; MAX_KMSG_LEN]);
    // Bounded, should records come faster than they are read.
    for _ in 0..MAX_KMSG_COUNT {
        match ring.read(&mut record) {
            Ok(len @ 1..) => lines.extend(kernel_line(record.get(..len).unwrap_or_default())),
            // EPIPE: that record was overwritten meanwhile; the next one is there.
            Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
            Ok(_) | Err(_) => break,
        }
    }
    lines
}

/// One record as the console shows it.
fn kernel_line(record: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(record);
    let line = text.lines().next().unwrap_or_default();
    let Some((header, message)) = line.split_once(';') else { return Vec::new() };
    let micros = header.split(',').nth(2).and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
    format!("[{:5}.{:06}] {message}\n", micros / 1_000_000, micros % 1_000_000).into_bytes()
}

fn keep(ring: &mut VecDeque<u8>, line: &[u8]) {
    let line = newest(line, RING_LEN);
    let excess = (ring.len() + line.len()).saturating_sub(RING_LEN);
    ring.drain(..excess);
    ring.extend(line);
}

/// The last `len` bytes at most.
fn newest(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(bytes.len().saturating_sub(len)..).unwrap_or_default()
}

static RING: Mutex<VecDeque<u8>> = Mutex::new(VecDeque::new());
/// Some hundred lines, which is weeks of a healthy camera.
const RING_LEN: usize = 64 << 10;
const MAX_KERNEL_LEN: usize = 24 << 10;
const HEADING_LEN: usize = 16;
/// The kernel's PRINTK_MESSAGE_MAX; less than a record is an error.
const MAX_KMSG_LEN: usize = 8 << 10;
const MAX_KMSG_COUNT: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest_lines_and_never_grows() {
        let mut ring = VecDeque::new();
        for number in 0..5_000 {
            keep(&mut ring, format!("this is line {number}\n").as_bytes());
            assert!(ring.len() <= RING_LEN);
        }
        let text = String::from_utf8(ring.iter().copied().collect()).unwrap();
        assert!(text.ends_with("this is line 4999\n"));
        keep(&mut ring, &vec![b'x'; 2 * RING_LEN]);
        assert_eq!(ring.len(), RING_LEN);
    }

    #[test]
    fn a_written_log_is_64_kb_at_most_and_holds_the_newest_of_both() {
        let text = text_of(&vec![b'k'; 100_000], &vec![b'o'; 100_000]);
        assert!(text.len() <= RING_LEN && text.len() > RING_LEN - 100, "{}", text.len());
        let text = text_of(b"kernel\n", b"ours\n");
        assert_eq!(text, b"--- kernel ---\nkernel\n--- ocellus ---\nours\n");
    }

    #[test]
    fn kernel_records_become_lines() {
        let record = b"6,339,5140900,-,caller=T1;NET: Registered\n SUBSYSTEM=net\n";
        assert_eq!(kernel_line(record), b"[    5.140900] NET: Registered\n");
        for damaged in [&b""[..], b"no header\n", b"\xff"] {
            assert_eq!(kernel_line(damaged), b"");
        }
    }
}
