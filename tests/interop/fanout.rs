//! Sixteen viewers over both transports, one of whom stops reading: nobody notices but himself.
//!
//! DESIGN, "fanout": whole access units are dropped for him up to the next IDR picture, and after
//! 10 s without progress he is disconnected; the others lose nothing.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::camera::{Camera, credentials};
use crate::client::{Client, Lower};
use crate::validate::{Expect, validate};

/// The stall deadline is 10 s; buffers in between take the first second or two.
const WATCH: Duration = Duration::from_secs(16);

#[test]
fn a_viewer_who_stops_reading_is_dropped_and_fifteen_others_lose_nothing() {
    let size = ["--size", "640x360", "--fps", "30", "--bitrate", "1M"];
    let camera = Camera::start(&[&["--source", "pattern"], &size[..]].concat());
    let expect = Expect::pattern((640, 360));
    let stalled = stall(&camera.url);
    let watched = thread::scope(|scope| {
        let viewers: Vec<_> = (0..15)
            .map(|number| {
                scope.spawn({
                    let url = &camera.url;
                    move || watch(url, number)
                })
            })
            .collect();
        viewers.into_iter().map(|viewer| viewer.join().unwrap()).collect::<Vec<_>>()
    });
    let bytes = disconnected(stalled);
    // Bounded: his queue (one group or 1 MB) and the two socket buffers, not sixteen seconds.
    assert!(bytes < 1_500_000, "{bytes} bytes were kept for a viewer who does not read");
    for (number, client) in watched.iter().enumerate() {
        let (findings, summary) = validate(&client.capture, &expect);
        assert!(findings.violations.is_empty(), "viewer {number}:\n{}", findings.report());
        assert!(summary.access_units > 400, "viewer {number}: {summary:?}");
    }
    let log = camera.log();
    let slow: Vec<&str> = log.lines().filter(|line| line.contains("viewer was slow")).collect();
    assert_eq!(slow.len(), 1, "one viewer was slow, and he is counted once:\n{log}");
    let lost = count(slow[0], "access_units_lost=");
    assert!(lost >= 3, "{lost} access units are counted as dropped: {}", slow[0]);
    assert_eq!(log.matches("viewer stalled").count(), 1, "{log}");
}

/// Plays for a while; odd numbers over TCP, even ones over UDP.
pub(crate) fn watch(url: &str, number: usize) -> Client {
    let mut client = Client::connect(url, &credentials());
    assert_eq!(client.describe().status(), 200);
    let lower = if number % 2 == 1 { Lower::Tcp } else { Lower::Udp };
    assert_eq!(client.setup(lower).status(), 200);
    assert_eq!(client.play().status(), 200);
    client.listen(WATCH);
    assert_eq!(client.teardown().status(), 200);
    client
}

/// Plays over TCP with a small receive buffer, and then reads no more.
pub(crate) fn stall(url: &str) -> (Client, Instant) {
    let mut client = Client::connect(url, &credentials());
    setsockopt(client.stream(), sockopt::RcvBuf, &4096).unwrap();
    assert_eq!(client.describe().status(), 200);
    assert_eq!(client.setup(Lower::Tcp).status(), 200);
    assert_eq!(client.play().status(), 200);
    (client, Instant::now())
}

/// Reads what is left for the stalled viewer up to the end that the camera made; counts the bytes.
fn disconnected((client, since): (Client, Instant)) -> usize {
    assert!(since.elapsed() >= Duration::from_secs(12), "the stall deadline has passed");
    let mut stream = client.stream();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut bytes, mut buffer) = (0, [0; 0x1_0000]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return bytes,
            Ok(len) => bytes += len,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("still connected {:?} after he stopped reading", since.elapsed())
            }
            Err(_) => return bytes,
        }
        assert!(bytes < 10_000_000, "the camera still streams to a viewer it should have dropped");
    }
}

/// Reads the number after `key` in a log line.
fn count(line: &str, key: &str) -> u64 {
    let rest = line.split(key).nth(1).unwrap_or("");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}
