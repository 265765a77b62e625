//! Groups, in a network of their own: a namespace in which nothing can leave this machine.
//!
//! The thread that runs a test moves into it, and so does all that it starts.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use crate::camera::{Camera, credentials};
use crate::client::{Client, Lower};
use crate::players::{GSTREAMER, LIMIT, PICTURES, login};
use crate::process::{self, FFMPEG};
use crate::tunnel::{self, SOURCE};

/// Moves this thread into a network with a link and addresses of both families; `false` when the
/// machine does not let it.
fn enter_own_network() -> bool {
    if !process::have(&[("ip", &["-V"])]) {
        return false;
    }
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        let required = std::env::var_os("CI").is_some()
            || std::env::var("OCELLUS_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
        assert!(!required, "no network namespace: {errno}");
        eprintln!("skipped: no network namespace: {errno}");
        return false;
    }
    for line in [
        "link set lo up",
        "link add cam type veth peer name far",
        "link set far up",
        "link set cam up",
        "addr add 192.0.2.1/24 dev cam",
        "addr add fd00::1/64 dev cam nodad",
        "route add 224.0.0.0/4 dev cam",
    ] {
        ip(line);
    }
    true
}

fn ip(line: &str) {
    let run = process::run(Command::new("ip").args(line.split(' ')), LIMIT);
    assert!(run.success(), "ip {line}: {run:?}");
}

/// A camera that listens on both families, and its URLs.
fn camera(name: &str, multicast: &str) -> (Camera, Vec<String>) {
    let name = format!("multicast-{name}.json");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, format!(r#"{{ "rtsp": {{ "multicast": {multicast} }} }}"#)).unwrap();
    let mut arguments = vec!["--config", path.to_str().unwrap()];
    arguments.extend(SOURCE);
    arguments.extend(["--rtsp", "192.0.2.1:0", "--rtsp", "[fd00::1]:0"]);
    let camera = Camera::start(&arguments);
    let urls = tunnel::urls(&camera);
    assert_eq!(urls.len(), 3);
    (camera, urls)
}

fn ffmpeg_decodes(url: &str) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-xerror", "-err_detect", "explode"]);
    command.args(["-rtsp_transport", "udp_multicast", "-timeout", "5000000"]);
    command.args(["-i", &login(url, &credentials()), "-map", "0:v:0"]);
    command.args(["-frames:v", &PICTURES.to_string(), "-f", "framemd5", "-"]);
    let run = process::run(&mut command, LIMIT);
    let pictures = run.stdout.lines().filter(|line| !line.starts_with('#')).count();
    assert!(run.success() && pictures == PICTURES, "{url} {pictures}: {run:?}");
    assert!(run.stderr.trim().is_empty(), "{url}: {}", run.stderr);
}

/// Plays by multicast from each of `urls`, and from the URL for that under it.
fn players_decode(camera: &Camera, urls: &[String]) {
    let mut viewers = 0;
    for url in urls {
        let own = format!("{url}/multicast");
        for url in [url, &own] {
            if process::have(&[FFMPEG]) {
                ffmpeg_decodes(url);
                viewers += 1;
            }
            if process::have(&GSTREAMER) {
                tunnel::gstreamer_decodes(url, &["protocols=udp-mcast"]);
                viewers += 1;
            }
        }
    }
    // Each was alone, and the group ended with him.
    for words in ["serve: group begins", "serve: group ends"] {
        assert!(camera.comes_to_say(|log| log.matches(words).count() == viewers), "{words}");
    }
}

#[test]
fn players_decode_what_is_sent_to_a_group_over_both_families() {
    thread::spawn(|| {
        if enter_own_network() {
            let (camera, urls) = camera("any", "{}");
            players_decode(&camera, &urls);
            let log = camera.log();
            assert!(log.contains("address=239.255.") && log.contains("address=[ff15::"), "{log}");
        }
    })
    .join()
    .unwrap();
}

#[test]
fn players_decode_what_is_sent_to_a_group_of_the_cameras_alone() {
    thread::spawn(|| {
        if enter_own_network() {
            let (camera, urls) = camera("one", r#"{ "source_specific": true, "ttl": 3 }"#);
            // Over loopback the source would be one that the route of groups does not lead to.
            players_decode(&camera, &urls[..2]);
            let log = camera.log();
            assert!(log.contains("address=232.") && log.contains("address=[ff35::"), "{log}");
        }
    })
    .join()
    .unwrap();
}

#[test]
fn viewers_of_a_group_share_it_to_the_last() {
    thread::spawn(|| {
        if !enter_own_network() || !process::have(&[FFMPEG]) {
            return;
        }
        let (camera, urls) = camera("shared", "{}");
        thread::scope(|scope| {
            for url in [&urls[1]; 4] {
                scope.spawn(move || ffmpeg_decodes(url));
            }
        });
        let is_over = |log: &str| log.matches("why=\"torn down\"").count() == 4;
        assert!(camera.comes_to_say(is_over));
        let log = camera.log();
        let [begun, ended] = ["group begins", "group ends"].map(|at| log.matches(at).count());
        assert!(begun == ended && begun < 4, "{log}");
    })
    .join()
    .unwrap();
}

/// No FIN comes from a viewer whose link is gone, and one who has paused is sent nothing that could
/// be lost: only probes tell.
#[test]
fn a_connection_whose_other_end_is_gone_is_found() {
    thread::spawn(|| {
        if !enter_own_network() {
            return;
        }
        let camera = Camera::start(&SOURCE);
        let mut client = Client::connect(&camera.url, &credentials());
        assert_eq!(client.describe().status(), 200);
        assert_eq!(client.setup(Lower::Tcp).status(), 200);
        let gone = Instant::now();
        ip("link set lo down");
        let is_found = |log: &str| log.contains("why=\"disconnected\"");
        while !camera.comes_to_say(is_found) {
            assert!(gone.elapsed() < Duration::from_secs(30), "nobody noticed");
        }
        eprintln!("found after {:?}", gone.elapsed());
    })
    .join()
    .unwrap();
}
