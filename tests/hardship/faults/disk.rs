//! Storage that is full or read-only, and outputs that nobody reads.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{Folder, QUIET, clip, clip_camera, is_root, pause, run, send, wait_until};
use crate::camera::{Camera, credentials};
use crate::client::{Client, Lower};
use crate::process;
use crate::stand::Viewer;

/// Does `work` where a file system of 16 KiB is mounted at `folder`; nobody else sees it.
fn with_small_disk(folder: &Path, work: impl FnOnce() + Send) {
    let own = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let flags = MsFlags::empty();
        mount(Some("tmpfs"), folder, Some("tmpfs"), flags, Some("size=16k")).unwrap();
        work();
    };
    // The mount goes with the last process that sees it.
    thread::scope(|scope| scope.spawn(own).join().unwrap());
}

fn make_read_only(folder: &Path) {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, folder, None::<&str>, flags, Some("size=16k")).unwrap();
}

/// Writes until there is no room.
fn fill(path: &Path) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    while file.write_all(&[b'x'; 512]).is_ok() {}
}

/// A configuration for TLS, with certificate and key in `disk`.
fn encrypted(folder: &Folder, disk: &Path) -> String {
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| disk.join(name));
    let path = folder.file("ocellus.json");
    let tls = format!(r#""certificate": {certificate:?}, "key": {key:?}"#);
    let text = format!(r#"{{ "rtsp": {{ "tls": {{ "listen": ["127.0.0.1:0"], {tls} }} }} }}"#);
    fs::write(&path, text).unwrap();
    path
}

/// Runs a camera that cannot start, and must say `words`.
fn fails(config: &str, words: &[&str]) {
    let source = clip();
    let arguments = [&["--config", config, "--source", &source], &QUIET[..]].concat();
    let run = process::run(&mut run(&[], &arguments), Duration::from_secs(10));
    assert_eq!(run.status.and_then(|status| status.code()), Some(1), "{run:?}");
    for word in words {
        assert!(run.stderr.contains(word), "no {word}: {}", run.stderr);
    }
}

#[test]
fn a_full_disk_leaves_no_half_of_an_identity_and_the_next_start_makes_it() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("full");
    let disk = folder.0.join("disk");
    fs::create_dir(&disk).unwrap();
    with_small_disk(&disk, || {
        let config = encrypted(&folder, &disk);
        fill(&disk.join("filler"));
        fails(&config, &["key.pem", "No space left"]);
        // Room for one of the two files, which is a page.
        File::options().write(true).open(disk.join("filler")).unwrap().set_len(12 << 10).unwrap();
        fails(&config, &["certificate.pem", "No space left"]);
        let left: Vec<_> = fs::read_dir(&disk).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left, ["filler"]);
        fs::remove_file(disk.join("filler")).unwrap();
        let camera = clip_camera(&[], &["--config", &config]);
        assert!(camera.log().contains("certificate and key made"), "{}", camera.log());
    });
}

#[test]
fn a_disk_that_can_only_be_read_is_told_at_the_start_and_not_missed_later() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("readonly");
    let disk = folder.0.join("disk");
    fs::create_dir(&disk).unwrap();
    with_small_disk(&disk, || {
        let config = encrypted(&folder, &disk);
        make_read_only(&disk);
        fails(&config, &["key.pem", "Read-only file system"]);
        mount(None::<&str>, &disk, None::<&str>, MsFlags::MS_REMOUNT, None::<&str>).unwrap();
        let camera = clip_camera(&[], &["--config", &config]);
        let viewers = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
        make_read_only(&disk);
        send(camera.pid(), Signal::SIGHUP);
        pause(Duration::from_secs(1));
        for viewer in viewers {
            viewer.judge();
        }
        // Made before, and good for the next start.
        drop(camera);
        drop(clip_camera(&[], &["--config", &config]));
    });
}

/// Viewers come, watch and go, of which each says something in the log.
fn watched(camera: &Camera) {
    let viewers = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
    for _ in 0..4 {
        let mut client = Client::connect(&camera.url, &credentials());
        assert_eq!(client.describe().status(), 200);
        assert_eq!(client.setup(Lower::Tcp).status(), 200);
        assert_eq!(client.play().status(), 200);
    }
    for viewer in viewers {
        assert!(viewer.judge().access_units > 30);
    }
}

/// Becomes the camera with its stderr there.
fn logging_to(path: &str) -> [String; 4] {
    let script = format!(r#"exec "$@" 2>>'{path}'"#);
    ["sh".into(), "-c".into(), script, "sh".into()]
}

#[test]
fn a_log_that_finds_no_room_costs_nobody_a_picture() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("log");
    let disk = folder.0.join("disk");
    fs::create_dir(&disk).unwrap();
    with_small_disk(&disk, || {
        let log = disk.join("log");
        fill(&log);
        let wrapper = logging_to(log.to_str().unwrap());
        let camera = clip_camera(&wrapper.each_ref().map(String::as_str), &[]);
        watched(&camera);
        let (status, took, _) = camera.stop();
        assert_eq!(status.code(), Some(0));
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn a_log_that_nobody_reads_costs_nobody_a_picture_and_goes_on_when_it_is_read() {
    let folder = Folder::new("fifo");
    let path = folder.file("fifo");
    mkfifo(path.as_str(), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut open = OpenOptions::new();
    open.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
    let mut pipe = open.open(&path).unwrap();
    while pipe.write(&[b'x'; 4096]).is_ok() {}
    while pipe.write(b"x").is_ok() {}
    let wrapper = logging_to(&path);
    let camera = clip_camera(&wrapper.each_ref().map(String::as_str), &[]);
    watched(&camera);
    let mut read = Vec::new();
    let mut drain = |read: &mut Vec<u8>| {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = pipe.read(&mut bytes) {
            read.extend_from_slice(&bytes[..len]);
        }
    };
    drain(&mut read);
    assert!(read.iter().all(|&byte| byte == b'x'), "the pipe had room");
    read.clear();
    watched(&camera);
    drain(&mut read);
    let text = String::from_utf8_lossy(&read);
    let (first, rest) = text.split_once('\n').unwrap();
    assert!(first.ends_with("lines that nobody read are left out here"), "{text}");
    assert!(rest.contains("rtsp: playing") && rest.ends_with('\n'), "{text}");
    let (status, took, _) = camera.stop();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// Killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_output_that_is_closed_costs_a_warning_a_stream() {
    let folder = Folder::new("stdout");
    let (config, log) = (folder.file("ocellus.json"), folder.file("log"));
    let main = r#"{ "name": "main", "width": 320, "height": 240 }"#;
    let sub = r#"{ "name": "sub", "width": 160, "height": 120 }"#;
    fs::write(&config, format!(r#"{{ "streams": [ {main}, {sub} ] }}"#)).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let source = ["--config", &config, "--source", "pattern"];
    let mut command = run(&[], &[&source[..], &QUIET].concat());
    command.stdin(Stdio::null()).stdout(writer).stderr(File::create(&log).unwrap());
    let mut camera = Process(command.spawn().unwrap());
    let said = || fs::read_to_string(&log).unwrap();
    let words = "cannot print the URL";
    let is_told = || said().matches(words).count() == 2;
    assert!(wait_until(Duration::from_secs(20), is_told).is_some(), "{}", said());
    let text = said();
    let address = text.split("listening rtsp=[").nth(1).unwrap().split(']').next().unwrap();
    let mut client = Client::connect(&format!("rtsp://{address}/main"), &credentials());
    assert_eq!(client.describe().status(), 200);
    assert_eq!(client.setup(Lower::Tcp).status(), 200);
    assert_eq!(client.play().status(), 200);
    let asked = Instant::now();
    send(camera.0.id(), Signal::SIGTERM);
    let ended = wait_until(Duration::from_secs(10), || camera.0.try_wait().unwrap().is_some());
    assert!(ended.is_some(), "{}", said());
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert!(camera.0.wait().unwrap().success());
}
