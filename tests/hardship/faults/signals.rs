//! Signals: stopped and continued, killed, and asked to end or to read again a hundred times.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::record::{self, Packet};
use super::{Folder, QUIET, clip, clip_camera, pause, run, send, wait_until};
use crate::camera::{Camera, credentials};
use crate::client::{Client, Lower};
use crate::process::{self, FFMPEG};
use crate::stand::{Usage, Viewer, without_login};

/// Stops a camera whose viewers watch, for a while, and judges what they got.
fn stopped_for(camera: &Camera, time: Duration) {
    let viewers = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
    pause(Duration::from_secs(2));
    send(camera.pid(), Signal::SIGSTOP);
    pause(time);
    send(camera.pid(), Signal::SIGCONT);
    pause(Duration::from_secs(3));
    for viewer in viewers {
        let client = viewer.leave();
        let packets = record::packets(&client.capture);
        assert_eq!(record::missing(&packets), 0, "{time:?}: packets are missing");
        judge_gap(&packets, time);
        let delays = record::delays(&client.capture);
        let late = delays.iter().filter(|(_, delay)| *delay > 1.5).count();
        // One in the encoder and one before it were captured before.
        assert!(late <= 2, "{time:?}: {late} pictures came long after their capture");
    }
}

/// Which of its threads goes on first is chance: many short stops see each of them do.
fn stopped_often(camera: &Camera) {
    for _ in 0..6 {
        send(camera.pid(), Signal::SIGSTOP);
        pause(Duration::from_millis(1_500));
        send(camera.pid(), Signal::SIGCONT);
        pause(Duration::from_millis(500));
    }
}

/// The stream has one gap, as long in its timestamps as on the clock, and goes on at its own pace.
fn judge_gap(packets: &[Packet], time: Duration) {
    let widest = packets.windows(2).max_by_key(|pair| pair[1].at - pair[0].at).unwrap();
    let (last, first) = (widest[0].at, widest[1].at);
    let gap = first - last;
    assert!(gap + SLACK > time, "{gap:?}");
    assert!(gap < time + Duration::from_secs(2), "{gap:?} without a picture");
    let step = |pair: &[Packet]| pair[1].timestamp.wrapping_sub(pair[0].timestamp);
    assert!(packets.windows(2).all(|pair| step(pair) < 1 << 31), "timestamps go back");
    let ticks = packets.windows(2).map(step).max().unwrap();
    let off = f64::from(ticks) / 90_000.0 - gap.as_secs_f64();
    assert!(off.abs() < 1.5, "{time:?}: timestamps and clock are {off:.3} s apart");
    let soon = last..first + Duration::from_secs(1);
    let burst = packets.iter().filter(|it| it.marker && it.at > last && soon.contains(&it.at));
    // Twice the rate for the second that may be caught up on.
    let burst = burst.count();
    assert!((5..=75).contains(&burst), "{burst} pictures in the first second after {time:?}");
}

#[test]
fn a_camera_that_was_stopped_goes_on_and_its_timestamps_are_those_of_the_captures() {
    let file = clip_camera(&[], &[]);
    let arguments = [&["--source", "pattern", "--size", "320x240"], &QUIET[..]].concat();
    let pattern = Camera::spawn_beside(&mut run(&[], &arguments));
    std::thread::scope(|scope| {
        for camera in [&file, &pattern] {
            scope.spawn(move || {
                for seconds in [5, 15] {
                    stopped_for(camera, Duration::from_secs(seconds));
                }
                stopped_often(camera);
                let log = camera.log();
                for word in ["NO SIGNAL", "abandoning", "lost the source", "stalled", "ERROR"] {
                    assert!(!log.contains(word), "{word}:\n{log}");
                }
            });
        }
    });
}

#[test]
fn a_player_that_was_stopped_for_a_while_shows_every_picture_and_nobody_else_notices() {
    if !process::have(&[FFMPEG]) {
        return;
    }
    let camera = clip_camera(&[], &[]);
    let viewers = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
    let mut player = player(&camera.url);
    pause(Duration::from_secs(3));
    send(player.id(), Signal::SIGSTOP);
    pause(Duration::from_secs(4));
    send(player.id(), Signal::SIGCONT);
    let ended = wait_until(Duration::from_secs(20), || player.try_wait().unwrap().is_some());
    if ended.is_none() {
        player.kill().unwrap();
    }
    let output = player.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let shown = String::from_utf8_lossy(&output.stdout);
    let shown = shown.lines().filter(|line| !line.starts_with('#')).count();
    assert!(ended.is_some() && output.status.success() && shown == SHOWN, "{shown}: {said}");
    assert!(said.trim().is_empty(), "{said}");
    for viewer in viewers {
        assert!(viewer.judge().access_units > 150);
    }
}

/// FFmpeg, which is to decode without a fault.
fn player(url: &str) -> Child {
    let (account, url) = (credentials(), without_login(url));
    let login = format!("rtsp://{}:{}@", account.user, account.password);
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-xerror", "-err_detect", "explode"]);
    command.args(["-rtsp_transport", "tcp", "-i", &url.replacen("rtsp://", &login, 1)]);
    command.args(["-frames:v", &SHOWN.to_string(), "-f", "framemd5", "-"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A configuration with ports of its own, and the address for RTSP.
fn fixed_ports(folder: &Folder) -> (String, String) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let pair = (0..64).find_map(|_| {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() & !1;
        let is_free = |port: u16| UdpSocket::bind(("0.0.0.0", port)).is_ok();
        (is_free(port) && is_free(port + 1)).then_some(port)
    });
    let pair = pair.expect("a free pair of ports");
    let path = folder.file("ocellus.json");
    let text = format!(r#"{{ "rtsp": {{ "udp_ports": "{pair}-{}" }} }}"#, pair + 1);
    fs::write(&path, text).unwrap();
    (path, tcp.to_string())
}

#[test]
fn a_camera_that_was_killed_is_there_again_within_a_second_on_the_same_ports() {
    let folder = Folder::new("killed");
    let (config, address) = fixed_ports(&folder);
    let source = clip();
    let arguments = ["--config", &config, "--source", &source, "--rtsp", &address, "--http", "off"];
    let mut camera = Camera::spawn_beside(&mut run(&[], &arguments));
    let mut soonest = Duration::MAX;
    // The best of three: the machine may be busy with something else.
    for _ in 0..3 {
        let viewers = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
        pause(Duration::from_millis(500));
        // Dropping it kills it; its connections are still open on this side.
        drop(camera);
        let asked = address.clone();
        let first_answer =
            std::thread::spawn(move || wait_until(Duration::from_secs(10), || is_there(&asked)));
        camera = Camera::spawn_beside(&mut run(&[], &arguments));
        let took = first_answer.join().unwrap().expect("it answers");
        soonest = soonest.min(took);
        for viewer in viewers {
            drop(viewer.stop());
        }
        // The validator has a stream begin with its parameter sets and an IDR.
        let again = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
        pause(Duration::from_millis(1_500));
        for viewer in again {
            assert!(viewer.judge().access_units > 20);
        }
    }
    eprintln!("answers {soonest:?} after it was killed");
    assert!(soonest < Duration::from_secs(1), "{soonest:?}");
}

fn is_there(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let asked = stream.write_all(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n");
    asked.is_ok() && matches!(stream.read(&mut [0; 512]), Ok(1..))
}

#[test]
fn a_hundred_signals_to_end_are_one_and_viewers_are_told_goodbye() {
    let camera = clip_camera(&[], &[]);
    let viewers = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
    pause(Duration::from_secs(1));
    let pid = camera.pid();
    let storm = std::thread::spawn(move || {
        for number in 0..100 {
            // Not reaped yet, so that the id is nobody else's.
            send(pid, if number % 2 == 0 { Signal::SIGTERM } else { Signal::SIGINT });
        }
    });
    storm.join().unwrap();
    let (status, took, _) = camera.stop();
    assert_eq!(status.code(), Some(0), "{status:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    pause(Duration::from_millis(300));
    for viewer in viewers {
        let client = viewer.stop();
        let packets = record::packets(&client.capture);
        assert!(record::has_bye(&client.capture), "no BYE after {} packets", packets.len());
        assert_eq!(record::missing(&packets), 0);
    }
}

#[test]
fn a_hundred_signals_to_read_again_disturb_nobody_nor_does_a_file_that_is_gone() {
    let folder = Folder::new("hangup");
    let config = folder.file("ocellus.json");
    let write = |name: &str| fs::write(&config, format!(r#"{{ "name": "{name}" }}"#)).unwrap();
    write("first");
    let camera = clip_camera(&[], &["--config", &config]);
    let viewers = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
    let before = Usage::of(camera.pid());
    for number in 0..100 {
        write(&format!("number {number}"));
        send(camera.pid(), Signal::SIGHUP);
    }
    assert!(camera.comes_to_say(|log| log.contains("changed name")), "{}", camera.log());
    fs::remove_file(&config).unwrap();
    send(camera.pid(), Signal::SIGHUP);
    let is_told =
        |log: &str| log.contains("the configuration stays as it is") && log.contains(&config);
    assert!(camera.comes_to_say(is_told), "{}", camera.log());
    fs::write(&config, r#"{ "name": "#).unwrap();
    send(camera.pid(), Signal::SIGHUP);
    let is_told = |log: &str| log.matches("the configuration stays as it is").count() >= 2;
    assert!(camera.comes_to_say(is_told), "{}", camera.log());
    let after = Usage::of(camera.pid());
    assert_eq!((after.descriptors, after.threads), (before.descriptors, before.threads));
    for viewer in viewers {
        viewer.judge();
    }
    let mut client = Client::connect(&camera.url, &credentials());
    assert_eq!(client.describe().status(), 200);
    let (status, took, _) = camera.stop();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// Pictures that the player is to show: of eight seconds.
const SHOWN: usize = 240;
/// Between two pictures, and what a signal takes.
const SLACK: Duration = Duration::from_millis(200);
