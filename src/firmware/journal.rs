//! Turns the log of process 1 and what the camera says into lines that are shown on every console
//! and kept in memory, the newest 64 kB of them.
//!
//! A line is stamped like the kernel's own: seconds of CLOCK_MONOTONIC, which starts with the kernel.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, BufRead as _, BufReader, PipeReader, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use env_logger::Target;
use nix::fcntl::OFlag;

use super::console::Consoles;
use crate::sys::clock;

/// Sends the log to the consoles, and panics of any thread to the log. /proc is mounted.
pub(super) fn start() {
    // A second set could only come from a caller that broke the contract of `run`.
    let _ = CONSOLES.set(Consoles::open());
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Info);
    // The kernel hands unknown NAME=VALUE arguments of its command line on to process 1.
    builder.parse_default_env();
    builder.target(Target::Pipe(Box::new(Journal)));
    builder.format(|out, record| {
        let micros = clock::now().as_micros();
        let level = match record.level() {
            log::Level::Error => "error: ",
            log::Level::Warn => "warning: ",
            log::Level::Info | log::Level::Debug | log::Level::Trace => "",
        };
        let (s, rest) = (micros / 1_000_000, micros % 1_000_000);
        writeln!(out, "[{s:5}.{rest:06}] {level}{}", record.args())
    });
    let _ = builder.try_init();
    panic::set_hook(Box::new(|info| log::error!("firmware: panic: {info}")));
}

/// Takes the lines that the camera says until it ends.
///
/// The camera may be anybody's by then: what it says cannot steer a terminal, and a line of any
/// length ends.
pub(super) fn follow_camera(said: PipeReader) {
    let follow = move || {
        let mut said = BufReader::new(said);
        let mut line = Vec::new();
        while said.by_ref().take(MAX_LINE_LEN).read_until(b'\n', &mut line).is_ok_and(|len| len > 0)
        {
            take(&shown(&line));
            line.clear();
        }
    };
    // Without a reader its words are lost, and nothing else.
    if let Err(error) = thread::Builder::new().name("camera-log".to_owned()).spawn(follow) {
        log::error!("firmware: camera is not heard error={error}");
    }
}

/// Returns when the consoles have shown everything, or take too long.
pub(super) fn flush() {
    if let Some(consoles) = CONSOLES.get() {
        consoles.flush(FLUSH_WAIT);
    }
}

/// One line, whole, without anything that a terminal would obey.
fn shown(line: &[u8]) -> Vec<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let is_text = |byte: u8| byte == b'\t' || !byte.is_ascii_control();
    let text = line.iter().map(|&byte| if is_text(byte) { byte } else { b'?' });
    text.chain([b'\n']).collect()
}

/// Where every whole line goes.
fn take(line: &[u8]) {
    keep(&mut RING.lock().unwrap_or_else(PoisonError::into_inner), line);
    if let Some(consoles) = CONSOLES.get() {
        consoles.show(&Arc::from(line));
    }
}

/// The log's output; env_logger writes each record by one call.
#[derive(Debug)]
struct Journal;

impl Write for Journal {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        take(record);
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The newest lines, the kernel's and then ours, 64 kB in all.
pub(super) fn text() -> Vec<u8> {
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

static CONSOLES: OnceLock<Consoles> = OnceLock::new();
static RING: Mutex<VecDeque<u8>> = Mutex::new(VecDeque::new());
/// Some hundred lines, which is weeks of a healthy camera.
const RING_LEN: usize = 64 << 10;
const MAX_KERNEL_LEN: usize = 24 << 10;
const HEADING_LEN: usize = 16;
/// The kernel's PRINTK_MESSAGE_MAX; less than a record is an error.
const MAX_KMSG_LEN: usize = 8 << 10;
const MAX_KMSG_COUNT: usize = 10_000;
/// Longer lines of the camera are cut into several.
const MAX_LINE_LEN: u64 = 4 << 10;
/// A serial line at 115200 Bd shows 64 kB in 6 s; the last words are shorter.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

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
    fn what_the_camera_says_cannot_steer_a_terminal() {
        assert_eq!(shown(b"INFO  streams\tgo\n"), b"INFO  streams\tgo\n");
        assert_eq!(shown(b"\x1b[2J\r\0\x7f"), b"?[2J???\n");
        assert_eq!(shown("T\u{fc}r".as_bytes()), "T\u{fc}r\n".as_bytes());
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
