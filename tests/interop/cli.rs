//! What the command line answers to mistakes: exit codes, and one line that names the culprit.
//!
//! DESIGN, "The interface that users and tests rely on": 0 fine, 1 failed while running, 2 bad
//! arguments; stdout carries URLs and nothing else.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::camera::{Camera, credentials};
use crate::process::{self, Finished};

const LIMIT: Duration = Duration::from_secs(10);

fn ocellus(arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocellus"));
    command.args(arguments).env("OCELLUS_PASSWORD", credentials().password);
    command.env_remove("RUST_LOG");
    process::run(&mut command, LIMIT)
}

/// Runs the camera and expects it to end by itself with `code`, saying each of `words` on stderr.
fn fails(arguments: &[&str], code: i32, words: &[&str]) -> Finished {
    let run = ocellus(arguments);
    let status = run.status.and_then(|status| status.code());
    assert_eq!(status, Some(code), "{arguments:?}: {run:?}");
    assert_eq!(run.stdout, "", "{arguments:?}: stdout carries only URLs");
    for word in words {
        assert!(run.stderr.contains(word), "{arguments:?}: {word:?} is not in {:?}", run.stderr);
    }
    run
}

const LOOPBACK: [&str; 4] = ["--rtsp", "127.0.0.1:0", "--http", "off"];

#[test]
fn help_is_no_error() {
    let run = ocellus(&["--help"]);
    assert!(run.success(), "{run:?}");
    for flag in ["--source", "--size", "--fps", "--bitrate", "--rtsp", "--http", "--no-auth"] {
        assert!(run.stdout.contains(flag) || ocellus(&["run", "--help"]).stdout.contains(flag));
    }
}

#[test]
fn bad_arguments_end_with_2_and_name_the_flag_and_the_value() {
    fails(&["run", "--colour", "red"], 2, &["--colour"]);
    fails(&["run", "--source", "pattern", "--size", "12by8"], 2, &["size", "12by8"]);
    fails(&["run", "--source", "pattern", "--size", "0x0"], 2, &["size", "0"]);
    fails(&["run", "--source", "pattern", "--fps", "fast"], 2, &["fps", "fast"]);
    fails(&["run", "--source", "pattern", "--bitrate", "2X"], 2, &["bitrate", "2X"]);
    fails(&["run", "--source", "teapot"], 2, &["source", "teapot"]);
    fails(&["run", "--source", "pattern", "--rtsp", "nowhere"], 2, &["rtsp", "nowhere"]);
    fails(&["fly"], 2, &["fly"]);
}

#[test]
fn no_auth_is_refused_unless_every_address_is_loopback() {
    let open = ["run", "--source", "pattern", "--http", "off", "--no-auth"];
    fails(&[&open[..], &["--rtsp", "0.0.0.0:0"]].concat(), 2, &["no-auth", "0.0.0.0"]);
    fails(&[&open[..], &["--rtsp", "[::]:0"]].concat(), 2, &["no-auth", "[::]"]);
    let both = ["--rtsp", "127.0.0.1:0", "--rtsp", "0.0.0.0:0"];
    fails(&[&open[..], &both].concat(), 2, &["no-auth", "0.0.0.0"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocellus"));
    command.args([&open[..], &["--size", "320x240", "--rtsp", "127.0.0.1:0"]].concat());
    let camera = Camera::spawn(&mut command);
    assert!(camera.url.starts_with("rtsp://127.0.0.1:") && !camera.url.contains('@'));
}

#[test]
fn a_file_that_cannot_be_played_ends_the_run_with_one_clear_line() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    // A linear congruential generator; no byte is zero, so that no start code occurs.
    let mut state = 1_u32;
    let mut step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0] | 1
    };
    let noise: Vec<u8> = (0..50_000).map(|_| step()).collect();
    let missing = directory.join("no-such-clip.h264").display().to_string();
    for (name, path) in [
        ("missing", missing),
        ("empty", file("empty.h264", b"")),
        ("noise", file("noise.h264", &noise)),
        ("no parameter sets", file("bare.h264", &[0, 0, 0, 1, 0x65, 0x88, 0x84, 0x21])),
    ] {
        let source = format!("file:{path}");
        let run = ocellus(&[&["run", "--source", &source], &LOOPBACK[..]].concat());
        let status = run.status.and_then(|status| status.code());
        assert!(matches!(status, Some(1 | 2)), "{name}: {run:?}");
        assert_eq!(run.stdout, "", "{name}");
        let naming = run.stderr.lines().filter(|line| line.contains(&path)).count();
        assert!(naming >= 1, "{name}: no line names the file: {:?}", run.stderr);
        assert!(!run.stderr.contains("panicked"), "{name}: {}", run.stderr);
    }
}

#[test]
fn a_port_in_use_ends_the_run_with_1_and_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let port = address.port().to_string();
    let listen = ["--rtsp", &address.to_string(), "--http", "off"];
    fails(&[&["run", "--source", "pattern"], &listen[..]].concat(), 1, &[&port]);
}

#[test]
fn the_url_is_the_only_line_on_stdout_and_sigterm_ends_the_run_within_a_second() {
    let camera = Camera::start(&["--source", "pattern", "--size", "320x240"]);
    assert!(camera.url.starts_with("rtsp://127.0.0.1:"), "{}", camera.url);
    assert!(camera.url.ends_with("/main"), "{}", camera.url);
    assert!(!camera.url.contains(&credentials().password), "the password was given, not made");
    let log = camera.log();
    assert!(!log.contains(&credentials().password), "the password is in the log");
    let (status, took, rest) = camera.stop();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(rest, Vec::<String>::new());
}

#[test]
fn a_generated_password_is_printed_in_the_url_and_works() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocellus"));
    command.args(["run", "--source", "pattern", "--size", "320x240"]).args(LOOPBACK);
    command.env_remove("OCELLUS_PASSWORD");
    let camera = Camera::spawn(&mut command);
    let (login, rest) = camera.url.strip_prefix("rtsp://").unwrap().split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    assert_eq!(user, "admin");
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    assert!(password.len() >= 12 && password.bytes().all(is_safe), "{password}");
    let own = crate::digest::Credentials { user: user.into(), password: password.into() };
    let mut client = crate::client::Client::connect(&format!("rtsp://{rest}"), &own);
    assert_eq!(client.describe().status(), 200);
}
