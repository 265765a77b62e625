//! Configuration files that somebody else has written, or half of somebody.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::camera::credentials;
use crate::client::Lower;
use crate::process::{self, Finished};
use crate::stand::{self, Viewer};

/// What is wrong with a file, and its bytes.
type Case = (&'static str, Vec<u8>);

/// Rows 57 and 54.
fn broken() -> Vec<Case> {
    let reference = include_str!("../../../rootfs-overlay/etc/ocellus.json");
    let half = &reference[..reference.len() / 2];
    let network = |key: &str, value: &str| format!(r#"{{ "network": {{ "{key}": {value:?} }} }}"#);
    let ntp = |server: &str| format!(r#"{{ "time": {{ "ntp": [{server:?}] }} }}"#);
    let wifi = |psk: &str, country: &str| {
        let wifi = format!(r#"{{ "ssid": "net", "psk": {psk:?}, "country": {country:?} }}"#);
        format!(r#"{{ "network": {{ "wifi": {wifi} }} }}"#)
    };
    let texts = [
        ("empty", String::new()),
        ("spaces", " \n\t".repeat(1_000)),
        ("half written", half.into()),
        ("written twice", reference.repeat(2)),
        ("no object", "[]".into()),
        ("null", "null".into()),
        ("an unknown key", r#"{ "colour": "red" }"#.into()),
        ("a newer schema", r#"{ "version": 2, "streams": { "main": {} } }"#.into()),
        ("a wrong type", r#"{ "streams": "main" }"#.into()),
        ("a number for a name", r#"{ "name": 5 }"#.into()),
        ("a name of 1 MB", format!(r#"{{ "name": {:?} }}"#, "x".repeat(1 << 20))),
        ("a key of 1 MB", format!(r#"{{ {:?}: 1 }}"#, "x".repeat(1 << 20))),
        ("1 MB of keys", format!("{{ {} }}", r#""a": 1, "#.repeat(130_000))),
        ("1 MB of brackets", "[".repeat(1 << 20)),
        ("deep objects", r#"{"camera":"#.repeat(100_000)),
        ("the same key twice", r#"{ "name": "a", "name": "b" }"#.into()),
        ("no number", r#"{ "streams": [{ "name": "main", "fps": 1e999 }] }"#.into()),
        ("a negative number", r#"{ "streams": [{ "name": "main", "fps": -1 }] }"#.into()),
        ("a huge number", r#"{ "rtsp": { "packet_size": 99999999999999999999 } }"#.into()),
        ("a packet size of 0", r#"{ "rtsp": { "packet_size": 0 } }"#.into()),
        (
            "a thousand streams",
            format!(
                r#"{{ "streams": [{}] }}"#,
                r#"{"name":"main"},"#.repeat(999) + r#"{"name":"sub"}"#
            ),
        ),
        ("NUL in a name", "{ \"name\": \"a\0b\" }".into()),
        ("a command for a host name", network("hostname", "$(reboot)")),
        ("a command behind a host name", network("hostname", "cam; reboot")),
        ("a host name with ticks", network("hostname", "`reboot`")),
        ("a command for a time server", ntp("$(reboot)")),
        ("a command behind a time server", ntp("ntp.example.org; reboot")),
        ("an option for a time server", ntp("-x /etc/passwd")),
        ("a command for a zone", r#"{ "time": { "zone": "`reboot`" } }"#.into()),
        ("a path for a zone", r#"{ "time": { "zone": "../../etc/passwd" } }"#.into()),
        ("a line end in a passphrase", wifi("12345678\n", "DE")),
        ("a quote and more in a passphrase", wifi("12345678\"\n}", "DE")),
        ("a command for a country", wifi("12345678", "$(reboot)")),
    ];
    let mut cases: Vec<Case> =
        texts.into_iter().map(|(name, text)| (name, text.into_bytes())).collect();
    cases.push(("not UTF-8", b"{ \"name\": \"\xc3\xff\" }".to_vec()));
    cases.push(("zeros", vec![0; 4_096]));
    cases.push(("a program", fs::read(env!("CARGO_BIN_EXE_ocellus")).unwrap()[..100_000].to_vec()));
    cases
}

fn ocellus(arguments: &[&str], file: &Path) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocellus"));
    command.args(arguments).arg(file).env("OCELLUS_PASSWORD", credentials().password);
    process::run(&mut command, Duration::from_secs(20))
}

fn folder() -> PathBuf {
    let name = format!("hostile-configuration-{}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn files_that_are_no_configuration_are_refused_in_one_line() {
    let folder = folder();
    let file = folder.join("refused.json");
    for (name, bytes) in &broken() {
        fs::write(&file, bytes).unwrap();
        for arguments in [&["check"][..], &["run", "--source", "pattern", "--config"]] {
            let run = ocellus(arguments, &file);
            let code = run.status.and_then(|status| status.code());
            let said = &run.stderr[..run.stderr.len().min(600)];
            assert_eq!(code, Some(2), "{name}: {said}");
            assert_eq!(run.stdout, "", "{name}");
            assert!(run.stderr.contains("refused.json"), "{name}: {said}");
            assert_eq!(run.stderr.lines().count(), 1, "{name}: {said}");
            assert!(run.stderr.len() < 500, "{name}: a line of {} bytes: {said}", run.stderr.len());
        }
    }
    let run = ocellus(&["check"], &folder.join("missing.json"));
    assert_eq!(run.status.and_then(|status| status.code()), Some(2), "{run:?}");
    fs::remove_file(file).unwrap();
}

#[test]
fn a_camera_that_is_told_to_read_a_broken_file_goes_on_with_what_it_has() {
    let folder = folder();
    let file = folder.join("read-again.json");
    let good = r#"{ "name": "front door" }"#;
    fs::write(&file, good).unwrap();
    let camera = stand::camera_beside(&["--config", file.to_str().unwrap()]);
    let id = Pid::from_raw(i32::try_from(camera.pid()).unwrap());
    let viewers = [Lower::Tcp, Lower::Udp].map(|lower| Viewer::watch(&camera.url, lower));
    let kept = "the configuration stays as it is";
    let broken = broken();
    for (number, (name, bytes)) in (1..).zip(&broken) {
        fs::write(&file, bytes).unwrap();
        kill(id, Signal::SIGHUP).unwrap();
        let is_kept = |log: &str| log.matches(kept).count() == number;
        assert!(camera.comes_to_say(is_kept), "{name}: {}", last_line(&camera.log()));
    }
    assert!(camera.log().lines().all(|line| line.len() < 600), "a long line");
    fs::remove_file(&file).unwrap();
    kill(id, Signal::SIGHUP).unwrap();
    let is_kept = |log: &str| log.matches(kept).count() == broken.len() + 1;
    assert!(camera.comes_to_say(is_kept), "a file that is gone");
    fs::write(&file, r#"{ "name": "back door" }"#).unwrap();
    kill(id, Signal::SIGHUP).unwrap();
    assert!(camera.comes_to_say(|log| log.contains("changed name")), "{}", camera.log());
    for viewer in viewers {
        viewer.judge();
    }
    fs::remove_file(file).unwrap();
}

fn last_line(log: &str) -> &str {
    let line = log.lines().next_back().unwrap_or("");
    line.get(..line.len().min(500)).unwrap_or("")
}
