//! The whole image under emulation: start, lease, healing, and a picture in a player.

use std::path::Path;
use std::time::Duration;

use crate::guest::{self, Guest, Options, stamp, value};
use crate::player;

fn ready(tools: &[&str]) -> bool {
    is_ready(&guest::image(), tools)
}

/// Whether the image and the tools for a test are there; prints what is not.
pub(crate) fn is_ready(image: &Path, tools: &[&str]) -> bool {
    let name = image.to_str().unwrap();
    let image = image.exists().then_some(()).ok_or(name);
    let found = |tool: &&&str| !std::env::split_paths(&path()).any(|dir| dir.join(tool).exists());
    let missing = image.err().or_else(|| tools.iter().find(found).copied());
    if let Some(missing) = missing {
        assert!(std::env::var_os("OCELLUS_REQUIRE_TOOLS").is_none(), "{missing} is missing");
        println!("skipped: {missing} is missing");
    }
    missing.is_none()
}

fn path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

#[test]
fn the_camera_starts_gets_a_lease_and_is_restarted_when_it_dies() {
    if !ready(&["qemu-system-aarch64"]) {
        return;
    }
    // The kernel's own out-of-memory killer is what kills the camera: it takes the largest process
    // and never process 1.
    let append = "sysrq_always_enabled";
    let mut guest = Guest::boot(&Options { append, ..Options::default() });
    let up = guest.first_line("firmware: pid 1 up");
    println!("{up}");
    let started = guest.first_line("firmware: camera started");
    println!("{started}");
    let lease = guest.first_line("network: lease acquired");
    println!("{lease}");
    assert_eq!(value(&lease, "address"), "10.0.2.15/24");
    assert_eq!(value(&lease, "interface"), "eth0");
    assert_eq!(value(&started, "restarts"), "0");

    guest.type_break_and("f");
    let died = guest.line("firmware: camera died");
    assert_eq!(value(&died, "pid"), value(&started, "pid"));
    assert_eq!(value(&died, "signal"), "SIGKILL");
    let again = guest.line("firmware: camera started");
    assert_eq!(value(&again, "restarts"), "1");
    let gap = stamp(&again).checked_sub(stamp(&died)).unwrap();
    println!("restarted after {gap:?}");
    assert!(gap < Duration::from_secs(1), "{gap:?}");
    // Its first beat follows its first access unit.
    let streams = guest.line("firmware: camera beats");
    let gap = stamp(&streams).checked_sub(stamp(&died)).unwrap();
    println!("streams again after {gap:?}");
    assert!(gap <= Duration::from_secs(1), "{gap:?}");
}

#[test]
fn the_camera_is_shut_in_and_still_takes_the_device_and_the_low_port() {
    if !ready(&["qemu-system-aarch64", "ffmpeg"]) {
        return;
    }
    let mut guest = Guest::boot(&Options::default());
    let watchdog = guest.first_line("firmware: watchdog started");
    assert_eq!(value(&watchdog, "driver"), "softdog");
    let sandbox = guest.first_line("run: sandbox");
    assert_eq!((value(&sandbox, "files"), value(&sandbox, "calls")), ("true", "true"));
    let source = guest.first_line("capture: source=");
    assert!(source.contains("v4l2:/dev/video0"), "{source}");
    let played = player::play(guest.url(), "tcp", 75, Duration::from_secs(90));
    assert!(played.frames >= 75, "{played:?}");

    let memory = guest.first_line("firmware: memory");
    println!("{memory}");
    let kb = |key| value(&memory, key).parse::<u64>().unwrap();
    assert!(kb("used_kb") <= 64 << 10, "{memory}");
    assert!(kb("pid1_anon_kb") <= 1 << 10, "{memory}");
    for complaint in ["has no user", "no priority", "cannot be given", "not restricted"] {
        assert!(!guest.has_said(complaint), "{complaint}");
    }
}

#[test]
fn a_machine_whose_cameras_never_beat_starts_again_and_streams() {
    if !ready(&["qemu-system-aarch64", "ffmpeg"]) {
        return;
    }
    let append = "sysrq_always_enabled";
    let mut guest = Guest::boot(&Options { append, reboot: true, ..Options::default() });
    let _ = guest.first_line("firmware: watchdog started");
    // The kernel kills the camera as above, again and again, until process 1 gives up.
    guest.type_break_and("f");
    let fed_last = loop {
        let line = guest.either("firmware: camera started", "firmware: watchdog is fed no more");
        if line.contains("fed no more") {
            break line;
        }
        guest.type_break_and("f");
    };
    println!("{fed_last}");
    // It must not come back before the watchdog bites.
    while guest.either("firmware: camera started", "firmware: pid 1 up").contains("started") {
        guest.type_break_and("f");
    }
    // In either order.
    let (beats, lease) = ("firmware: camera beats", "network: lease acquired");
    let first = guest.either(beats, lease);
    let _ = guest.line(if first.contains(beats) { lease } else { beats });
    let played = player::play(guest.url(), "tcp", 25, Duration::from_secs(90));
    assert!(played.frames >= 25, "{played:?}");
}

#[test]
fn a_cable_that_is_pulled_and_put_back_costs_no_address() {
    if !ready(&["qemu-system-aarch64"]) {
        return;
    }
    let mut guest = Guest::boot(&Options::default());
    let _ = guest.first_line("network: lease acquired");
    guest.monitor("set_link n0 off");
    assert_eq!(value(&guest.line("network: carrier"), "on"), "false");
    guest.monitor("set_link n0 on");
    assert_eq!(value(&guest.line("network: carrier"), "on"), "true");
    let renewed = guest.line("network: lease");
    assert!(renewed.contains("lease confirmed"), "{renewed}");
}

#[test]
fn ffmpeg_plays_over_tcp_and_udp_from_the_first_second() {
    if !ready(&["qemu-system-aarch64", "ffmpeg"]) {
        return;
    }
    let mut guest = Guest::boot(&Options { size: "320x240", fps: "10", ..Options::default() });
    for transport in ["tcp", "udp"] {
        let played = player::play(guest.url(), transport, 75, Duration::from_secs(90));
        println!("{transport}: {} frames, {:.1} per second", played.frames, played.fps);
        assert!(played.frames >= 75, "{transport}: {played:?}");
    }
    let first = guest.first_line("first access unit");
    let ms: u64 = value(&first, "after_pid1_ms").parse().unwrap();
    println!("first access unit {ms} ms after process 1");
    assert!(ms <= 2_000, "{first}");
}

#[test]
fn ffmpeg_plays_720p_at_whatever_rate_emulation_allows() {
    if !ready(&["qemu-system-aarch64", "ffmpeg"]) {
        return;
    }
    let options = Options { size: "1280x720", fps: "30", bitrate: "2M", ..Options::default() };
    let guest = Guest::boot(&options);
    let played = player::play(guest.url(), "tcp", 30, Duration::from_secs(90));
    println!("720p: {} frames, {:.1} per second", played.frames, played.fps);
    assert!(played.frames >= 30, "{played:?}");
}
