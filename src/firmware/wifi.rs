//! Turns a wireless interface into one that is on the owner's network: runs wpa_supplicant.
//!
//! Debian's program, when the image has it, with a configuration in memory that only root reads.
//! The carrier comes and goes with the association, and the rest is as on any interface.
//!
//! Process 1 reaps the program with all others; here its end is seen by the end of its output.
//!
//! Not implemented: WPA3, enterprise networks, networks without a password, several networks.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use super::worker;
use crate::config::Wifi;
use crate::sys::clock;
use crate::sys::process;

/// Whether the interface is a wireless one.
pub(super) fn is_wireless(interface: &str) -> bool {
    Path::new("/sys/class/net").join(interface).join("phy80211").exists()
}

/// Keeps the interface associated until it is removed.
pub(super) fn run(interface: &str, wifi: &Wifi) {
    if !Path::new(PROGRAM).exists() {
        log::error!("network: wifi interface={interface} needs {PROGRAM}, which is not there");
        return;
    }
    let mut pause = FIRST_PAUSE;
    while is_wireless(interface) {
        let started = clock::now();
        match start(interface, wifi) {
            Ok(output) => follow(interface, output),
            Err(error) => log::error!("network: wifi interface={interface} error={error}"),
        }
        if clock::now().since(started) >= RAN_WELL {
            pause = FIRST_PAUSE;
        }
        log::warn!("network: wifi ended interface={interface} restart_in={pause:?}");
        worker::wait(pause);
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

fn start(interface: &str, wifi: &Wifi) -> io::Result<ChildStdout> {
    let path = format!("/run/wpa_supplicant-{interface}.conf");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&path)?.write_all(wifi.wpa_supplicant_conf().as_bytes())?;
    let mut command = Command::new(PROGRAM);
    command.args(["-D", "nl80211", "-i", interface, "-c", &path]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    process::unblock_signals(&mut command);
    let mut child = command.spawn()?;
    log::info!("network: wifi started interface={interface} pid={}", child.id());
    child.stdout.take().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
}

/// Repeats the changes of state that the program tells of, until it ends.
fn follow(interface: &str, output: ChildStdout) {
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        match change(&line) {
            Some(Change::Joined) => log::info!("network: wifi joined interface={interface}"),
            Some(Change::Left) => log::warn!("network: wifi left interface={interface}"),
            Some(Change::Refused) => {
                log::error!("network: wifi refused, is the psk right? interface={interface}");
            }
            None => log::debug!("network: wifi {line}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Joined,
    Left,
    Refused,
}

/// Reads a line like `wlan0: CTRL-EVENT-CONNECTED - Connection to ...`.
fn change(line: &str) -> Option<Change> {
    let (_, event) = line.split_once(": ")?;
    match event.split(' ').next()? {
        "CTRL-EVENT-CONNECTED" => Some(Change::Joined),
        "CTRL-EVENT-DISCONNECTED" => Some(Change::Left),
        "CTRL-EVENT-SSID-TEMP-DISABLED" => Some(Change::Refused),
        _ => None,
    }
}

/// Of Debian's package wpasupplicant.
const PROGRAM: &str = "/sbin/wpa_supplicant";
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A program that ran this long did not end of how it was started.
const RAN_WELL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_events_are_read_and_its_talk_is_not() {
        for (line, wanted) in [
            (
                "wlan0: CTRL-EVENT-CONNECTED - Connection to 02:00:00:00:01:00 completed [id=0]",
                Some(Change::Joined),
            ),
            ("wlan0: CTRL-EVENT-DISCONNECTED bssid=02:00 reason=3", Some(Change::Left)),
            (
                "wlan0: CTRL-EVENT-SSID-TEMP-DISABLED id=0 ssid=\"x\" auth_failures=1",
                Some(Change::Refused),
            ),
            ("wlan0: SME: Trying to authenticate with 02:00:00:00:01:00", None),
            ("Successfully initialized wpa_supplicant", None),
            ("", None),
        ] {
            assert_eq!(change(line), wanted, "{line}");
        }
    }
}
