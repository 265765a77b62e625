//! Boots the qemu-virt image and looks at it as its users do: at its console and at its stream.
//!
//! Needs `scripts/image qemu-virt`, qemu-system-aarch64 and ffmpeg. What is missing is said and the
//! test passed over; with OCELLUS_REQUIRE_TOOLS=1 it fails instead, which is how CI runs it.
#![allow(
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a real client on real sockets, and a failing test"
)]

mod guest;
mod in_qemu;
mod player;

use std::path::Path;
use std::process::{Command, Stdio};

use guest::Guest;

/// In a container of its own, where reboot(2) ends process 1 with SIGHUP (pid_namespaces(7)).
#[test]
fn process_1_goes_on_without_modules_and_network_and_stops_in_order() {
    let unshare = |program: &str, argument: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--pid", "--fork", "--mount", "--net", "--uts"]);
        command.args(["--kill-child", program, argument]).stdin(Stdio::null());
        command
    };
    if !unshare("true", "").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        let is_required =
            ["CI", "OCELLUS_REQUIRE_TOOLS"].iter().any(|v| std::env::var_os(v).is_some());
        assert!(!is_required, "unshare cannot make a user namespace here");
        println!("skipped: unshare cannot make a user namespace here");
        return;
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_ocellus"));
    let mut init = unshare(binary.to_str().unwrap(), "init");
    let child = init.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut guest = Guest::over(child);
    let _ = guest.line("firmware: camera started");
    guest.signal_children(nix::sys::signal::Signal::SIGTERM);
    assert!(guest.line("firmware: shutting down").contains("why=Restart"));
    let _ = guest.line("firmware: down");
}
