//! Holds `capture` against a real kernel driver that misbehaves on demand: vivid; and `encode`
//! against the kernel's virtual codec.
//!
//! `scripts/device-test` builds this for aarch64 and boots it in QEMU as the first process; it then
//! loads vivid in each of [`guest::SETUPS`] and runs every check on it. With `OCELLUS_VIDEO_DEVICE`
//! it runs them on a vivid that is there already. With neither there is nothing to check: it says
//! so and succeeds, so that `cargo test` works on machines without vivid; the script is what
//! insists on the result line. `booted` is a second guest, which runs the whole firmware.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test program of its own: its report is its output, a panic fails the check; it has \
              real clients"
)]

mod allocations;
mod bench;
mod booted;
#[path = "../interop/capture.rs"]
#[allow(dead_code, unused_imports, reason = "only what the client needs, and no tests")]
mod capture;
#[path = "../interop/client.rs"]
#[allow(dead_code, reason = "nobody mistreats a connection here")]
mod client;
mod controls;
#[path = "../interop/digest.rs"]
#[allow(dead_code, unused_imports, reason = "nobody judges answers here, and tests are elsewhere")]
mod digest;
mod faults;
mod guest;
mod limits;
mod link;
mod listener;
mod m2m;
mod network;
mod ownership;
mod pictures;
mod refusals;
mod replug;
mod silence;
mod stalls;
mod streamed;
mod viewer;
mod wall_clock;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bench::Bench;

/// A check panics when it fails.
type CheckOf<T> = fn(&T);
type Check = CheckOf<Bench>;

fn main() -> ExitCode {
    env_logger::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [child, path] = &arguments[..]
        && let Some(role) = child.strip_prefix("--child-")
    {
        return refusals::child(role, Path::new(path));
    }
    if arguments == [booted::ARGUMENT] {
        booted::child()
    } else if std::process::id() == 1 && std::env::var_os("booted").is_some() {
        booted::run()
    } else if std::process::id() == 1 {
        guest::run()
    } else if let Some(device) = std::env::var_os("OCELLUS_VIDEO_DEVICE") {
        let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
        let failed = run_checks("", PathBuf::from(device), filter.map_or("", String::as_str)).1;
        ExitCode::from(u8::from(failed > 0))
    } else {
        println!("device: nothing checked: no vivid here (OCELLUS_VIDEO_DEVICE is not set);");
        println!("device: scripts/device-test runs the checks in QEMU");
        ExitCode::SUCCESS
    }
}

/// Runs the checks whose names contain `filter`; answers how many passed and failed.
fn run_checks(setup: &str, device: PathBuf, filter: &str) -> (usize, usize) {
    let groups = [
        pictures::CHECKS,
        controls::CHECKS,
        ownership::CHECKS,
        refusals::CHECKS,
        streamed::CHECKS,
        // The last of these takes the device away for good.
        faults::CHECKS,
    ];
    run_all(setup, &Bench::new(device), &groups.concat(), filter)
}

/// As [`run_checks`], on anything.
fn run_all<T>(
    setup: &str,
    subject: &T,
    checks: &[(&str, CheckOf<T>)],
    filter: &str,
) -> (usize, usize) {
    let (mut passed, mut failed) = (0, 0);
    for (name, check) in checks.iter().filter(|(name, _)| name.contains(filter)) {
        let began = ocellus::sys::clock::now();
        // The message is on stderr already.
        let outcome = catch_unwind(AssertUnwindSafe(|| check(subject)));
        let took = ocellus::sys::clock::now().since(began).as_millis();
        println!(
            "check {setup} {name}: {} ({took} ms)",
            if outcome.is_ok() { "ok" } else { "FAILED" }
        );
        *(if outcome.is_ok() { &mut passed } else { &mut failed }) += 1;
    }
    println!("device: {setup} {passed} passed, {failed} failed");
    (passed, failed)
}
