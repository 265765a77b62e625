//! What the process may not have more of: descriptors, threads, memory.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use super::{BINARY, Folder, clip_camera, is_root, pause, record, send, wait_until};
use crate::camera::{Camera, credentials};
use crate::client::{Client, Lower};
use crate::process;
use crate::stand::{Usage, Viewer, without_login};

/// Sets a limit of a process that runs (prlimit(1)).
fn limit(camera: &Camera, what: &str) {
    let pid = camera.pid().to_string();
    let mut command = Command::new("prlimit");
    let run = process::run(command.args(["--pid", &pid, what]), Duration::from_secs(10));
    assert!(run.success(), "{run:?}");
}

fn address(camera: &Camera) -> SocketAddr {
    without_login(&camera.url).split('/').nth(2).unwrap().parse().unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    stream
}

/// Whether RTSP is answered within a second.
fn is_answered(stream: &mut TcpStream) -> bool {
    let asked = stream.write_all(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n");
    asked.is_ok() && matches!(stream.read(&mut [0; 512]), Ok(1..))
}

/// A configuration under which one address may have all connections.
fn open_to_one_address(folder: &Folder) -> String {
    let path = folder.file("ocellus.json");
    fs::write(&path, r#"{ "rtsp": { "max_per_address": 64 } }"#).unwrap();
    path
}

/// No descriptor is left: who watches loses nothing, who comes waits, and the loop does not spin.
fn out_of_descriptors(camera: &Camera, strangers: Vec<TcpStream>, viewers: [Viewer; 2]) {
    let words = "no descriptor for new connections";
    assert!(camera.comes_to_say(|log| log.contains(words)), "{}", camera.log());
    let mut newcomer = connect(address(camera));
    assert!(!is_answered(&mut newcomer), "there was a descriptor for a newcomer");
    let before = Usage::of(camera.pid());
    pause(Duration::from_secs(2));
    let spent = Usage::of(camera.pid()).cpu - before.cpu;
    // Serving two viewers of the clip takes a few hundredths; a loop without a pause all of it, or
    // on a busy machine its share.
    assert!(spent < Duration::from_millis(500), "{spent:?} of CPU in two idle seconds");
    drop(strangers);
    let served =
        wait_until(Duration::from_secs(10), || matches!(newcomer.read(&mut [0; 512]), Ok(1..)));
    assert!(served.is_some(), "the newcomer is not served although there are descriptors again");
    for viewer in viewers {
        assert!(viewer.judge().access_units > 60);
    }
    let mut client = Client::connect(&camera.url, &credentials());
    assert_eq!(client.describe().status(), 200);
    let said = camera.log().matches(words).count();
    assert!(said <= 3, "said {said} times");
}

#[test]
fn without_descriptors_newcomers_wait_and_viewers_lose_nothing() {
    let folder = Folder::new("nofile");
    let config = open_to_one_address(&folder);
    let camera = clip_camera(&["prlimit", "--nofile=32:32"], &["--config", &config]);
    let viewers = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
    let strangers: Vec<TcpStream> = (0..40).map(|_| connect(address(&camera))).collect();
    out_of_descriptors(&camera, strangers, viewers);
}

#[test]
fn descriptors_that_are_taken_away_while_it_runs_are_not_missed() {
    let folder = Folder::new("nofile-later");
    let config = open_to_one_address(&folder);
    let camera = clip_camera(&[], &["--config", &config]);
    let viewers = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
    let mut strangers: Vec<TcpStream> = (0..4).map(|_| connect(address(&camera))).collect();
    assert!(strangers.iter_mut().all(is_answered));
    let held = Usage::of(camera.pid()).descriptors;
    limit(&camera, &format!("--nofile={}:4096", held - 2));
    strangers.extend((0..4).map(|_| connect(address(&camera))));
    out_of_descriptors(&camera, strangers, viewers);
}

/// A copy of the program that everybody may run, wherever the real one lies.
fn for_everybody(folder: &Folder) -> String {
    let path = folder.file("ocellus");
    fs::copy(BINARY, &path).unwrap();
    for path in [&path, &folder.file("")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    path
}

/// The camera as a user who may have no more than `threads`.
fn with_threads(binary: &str, threads: usize) -> Command {
    // On one processor: on more of them OpenH264 starts threads of its own, for slices.
    let mut command = Command::new("taskset");
    command.args(["-c", "0", "prlimit", &format!("--nproc={threads}"), binary]);
    command.args(["run", "--source", "pattern", "--size", "320x240", "--rtsp", "127.0.0.1:0"]);
    command.args(["--http", "127.0.0.1:0"]).env("OCELLUS_PASSWORD", &credentials().password);
    // Of root the kernel does not count them.
    command.uid(NOBODY).gid(NOBODY).env("RUST_LOG", "info");
    command
}

#[test]
fn without_threads_it_does_not_start_and_a_running_camera_needs_none() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("nproc");
    let binary = for_everybody(&folder);
    let mut threads = 1;
    let camera = loop {
        let mut command = with_threads(&binary, threads);
        // It ends by itself, or is a camera.
        let failed = process::run(&mut command, Duration::from_secs(5));
        let Some(status) = failed.status else {
            break Camera::spawn_beside(&mut with_threads(&binary, threads));
        };
        assert_eq!(status.code(), Some(1), "{threads}: {failed:?}");
        let last = failed.stderr.lines().last().unwrap_or("");
        let is_clear = last.starts_with("ocellus: ") && last.contains("thread");
        assert!(is_clear, "{threads}: {failed:?}");
        threads += 1;
        assert!(threads < 32, "it never starts: {failed:?}");
    };
    assert!(threads > 4, "with {threads} threads it cannot be whole");
    assert_eq!(Usage::of(camera.pid()).threads, threads as u64, "it has all that it may have");
    let viewers = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
    pause(Duration::from_secs(2));
    for viewer in viewers {
        let expect = crate::validate::Expect::pattern((320, 240));
        assert!(viewer.judge_by(&expect).access_units > 30);
    }
    let (status, took, _) = camera.stop();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// A number behind a name in proc(5)'s status, in KiB.
fn size(camera: &Camera, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", camera.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Plays and reads nothing from then on. `None` when he is turned away for want of memory.
fn deaf_viewer(url: &str) -> Option<Client> {
    let mut client = Client::connect(url, &credentials());
    setsockopt(client.stream(), sockopt::RcvBuf, &4_096).unwrap();
    let reply = client.describe();
    if reply.status() == 503 {
        assert!(reply.start.ends_with("(no memory)"), "{}", reply.start);
        return None;
    }
    assert_eq!(reply.status(), 200);
    assert_eq!(client.setup(Lower::Tcp).status(), 200);
    assert_eq!(client.play().status(), 200);
    Some(client)
}

/// What viewers who do not read hold back is the one thing that grows with them.
#[test]
fn memory_that_is_not_there_costs_newcomers_and_not_the_stream() {
    let folder = Folder::new("memory");
    let config = open_to_one_address(&folder);
    let camera = clip_camera(&[], &["--config", &config]);
    let viewers = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
    pause(Duration::from_secs(1));
    let steady = size(&camera, "VmData:") * 1_024;
    let most = steady * 12 / 10;
    limit(&camera, &format!("--data={most}:{most}"));
    let url = &camera.url;
    let come = || (0..5).map(|_| deaf_viewer(url)).collect::<Vec<_>>();
    let crowds: Vec<_> = thread::scope(|scope| {
        let crowds: Vec<_> = (0..10).map(|_| scope.spawn(come)).collect();
        crowds.into_iter().flat_map(|crowd| crowd.join().unwrap()).collect()
    });
    let refused = crowds.iter().filter(|crowd| crowd.is_none()).count();
    let deaf: Vec<Client> = crowds.into_iter().flatten().collect();
    // The clip fills a socket's buffer in some seconds; then they hold back a group of pictures.
    pause(Duration::from_secs(12));
    let held = size(&camera, "VmData:") * 1_024;
    eprintln!("steady {steady} B, at most {most} B: {} let in, {refused} refused", deaf.len());
    assert!(held <= most);
    drop(deaf);
    pause(Duration::from_secs(2));
    // They have missed what there was no memory for, and see pictures again.
    for viewer in viewers {
        let client = viewer.leave();
        let packets = record::packets(&client.capture);
        let since = packets.last().unwrap().at.saturating_sub(Duration::from_secs(1));
        let pictures = packets.iter().filter(|packet| packet.marker && packet.at > since).count();
        assert!(pictures > 20, "{pictures} pictures in the last second");
    }
    let mut client = Client::connect(&camera.url, &credentials());
    assert_eq!(client.describe().status(), 200, "nobody else is there");
    send(camera.pid(), Signal::SIGTERM);
    assert!(camera.comes_to_say(|log| log.contains("serve: done")), "{}", camera.log());
    let was_short = !camera.log().contains("images_exhausted=0 ");
    assert!(was_short || refused > 0, "there was memory for everything:\n{}", camera.log());
}

/// Of a user who has no other processes.
const NOBODY: u32 = 65_534;
