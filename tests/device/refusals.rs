//! Checks that a camera which is not for us says why, and what would help.
//!
//! The other side is this program again, as a child: it holds the camera, or may not open it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use ocellus::capture::{Error, V4l2};

use super::Check;
use super::bench::{Bench, SMALL, next};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("a_busy_camera_names_who_holds_it", busy),
    ("a_forbidden_camera_names_the_group_to_join", forbidden),
    ("an_unknown_control_is_answered_with_those_there_are", unknown_control),
];

fn busy(bench: &Bench) {
    let mut child = start("hold", bench.path(), None);
    let mut answer = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
    assert_eq!(answer, "holding\n");
    let error = V4l2::open(bench.path(), SMALL).expect_err("the child streams");
    println!("  {error}");
    let Error::Busy { holder: Some(holder), .. } = &error else { panic!("{error:?}") };
    assert!(holder.ends_with(&format!("(pid {})", child.id())), "{holder}");
    // End of input: the child lets go.
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    drop(next(&mut bench.camera()));
}

fn forbidden(bench: &Bench) {
    chown(bench.path(), Some(0), Some(44)).unwrap();
    let mode = |bits| {
        std::fs::set_permissions(bench.path(), std::fs::Permissions::from_mode(bits)).unwrap();
    };
    mode(0o660);
    let said = said_to_nobody(bench.path());
    println!("  {}", said.trim_end());
    assert!(said.contains("permission denied; group 44 may open it (mode 0660)"), "{said}");
    mode(0o600);
    let said = said_to_nobody(bench.path());
    assert!(said.contains("permission denied; its mode is 0600"), "{said}");
}

fn unknown_control(bench: &Bench) {
    let camera = bench.camera();
    camera.set_control("brightness", 200).unwrap();
    camera.set_control("brightness", 128).unwrap();
    let error = camera.set_control("brigthness", 1).expect_err("a typo").to_string();
    assert!(error.contains("no control `brigthness`; it has "), "{error}");
    assert!(error.contains("brightness"), "{error}");
}

fn said_to_nobody(path: &Path) -> String {
    const NOBODY: u32 = 65_534;
    let mut child = start("open", path, Some(NOBODY));
    let mut said = String::new();
    child.stdout.as_mut().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    said
}

fn start(role: &str, path: &Path, user: Option<u32>) -> Child {
    let mut command = Command::new("/proc/self/exe");
    command.arg(format!("--child-{role}")).arg(path);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// The child's side.
pub(super) fn child(role: &str, path: &Path) -> ExitCode {
    match (role, V4l2::open(path, SMALL)) {
        ("open", Err(error)) => println!("{error}"),
        ("hold", Ok(_camera)) => {
            println!("holding");
            let mut rest = Vec::new();
            std::io::stdin().read_to_end(&mut rest).unwrap();
        }
        (_, Err(error)) => panic!("{error}"),
        (role, Ok(_)) => panic!("{role}: the camera opened"),
    }
    ExitCode::SUCCESS
}
