//! Turns a supervisor that goes on into a machine that does, and a lost one into a restart.
//!
//! `ocellus.watchdog=NAME` on the kernel's command line names the driver, or `off`. Nothing else
//! could: the machine must heal whatever its configuration says.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command_line;
use super::modules::Modules;
use crate::sys::watchdog::Watchdog;
use crate::time::Instant;

/// The machine's watchdog, if it has one.
#[derive(Debug)]
pub(super) struct Feeder {
    watchdog: Option<Watchdog>,
    next: Instant,
    is_feeding: bool,
}

impl Feeder {
    /// Starts the watchdog that the kernel's command line chooses.
    pub(super) fn start(modules: &Modules, now: Instant) -> Self {
        let driver = choose(&command_line::values("ocellus.watchdog"));
        let watchdog = driver.and_then(|driver| {
            modules.load_named(driver.module);
            let device = find(Path::new("/sys/class/watchdog"), driver.identity)?;
            match Watchdog::start(&device, TIMEOUT) {
                Ok(watchdog) => Some((driver, watchdog)),
                Err(error) => {
                    let device = device.display();
                    log::error!("firmware: watchdog cannot start device={device} error={error}");
                    None
                }
            }
        });
        match &watchdog {
            Some((driver, watchdog)) => {
                let timeout = watchdog.timeout();
                log::info!(
                    "firmware: watchdog started driver={} timeout={timeout:?}",
                    driver.module
                );
            }
            None => log::warn!("firmware: no watchdog: a machine that hangs stays so"),
        }
        let watchdog = watchdog.map(|(_, watchdog)| watchdog);
        Self { watchdog, next: now, is_feeding: true }
    }

    /// When to feed; `None` when nobody is hungry, or is to be fed.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (self.watchdog.is_some() && self.is_feeding).then_some(self.next)
    }

    /// Feeds when it is time, unless there is no hope left.
    pub(super) fn handle_timeout(&mut self, now: Instant, is_hopeless: bool) {
        let Some(watchdog) = &self.watchdog else { return };
        if is_hopeless {
            if self.is_feeding {
                let timeout = watchdog.timeout();
                log::error!(
                    "firmware: watchdog is fed no more, the machine restarts in {timeout:?}"
                );
            }
            self.is_feeding = false;
            return;
        }
        if !self.is_feeding {
            log::info!("firmware: watchdog is fed again");
            self.is_feeding = true;
            self.next = now;
        }
        if now >= self.next {
            if let Err(error) = watchdog.feed() {
                log::error!("firmware: watchdog cannot be fed error={error}");
            }
            self.next = now + watchdog.timeout() / FEEDS_PER_TIMEOUT;
        }
    }

    /// Lets a machine that is to be off stay off.
    pub(super) fn stop(self) {
        if let Some(Err(error)) = self.watchdog.map(Watchdog::stop) {
            log::error!("firmware: watchdog cannot be stopped error={error}");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Driver {
    module: &'static str,
    /// What the driver calls itself in sysfs: on one machine both may be there.
    identity: &'static str,
}

/// The driver that the command line names, else the boards' own; `None` for `off`.
fn choose(names: &[String]) -> Option<Driver> {
    let Some(name) = names.last() else { return DRIVERS.first().copied() };
    if name == "off" {
        return None;
    }
    let known = DRIVERS.iter().find(|driver| driver.module == name);
    if known.is_none() {
        log::error!("firmware: ocellus.watchdog={name} is none of bcm2835_wdt, softdog, off");
    }
    known.or(DRIVERS.first()).copied()
}

/// The device node of the watchdog with that identity.
fn find(class: &Path, identity: &str) -> Option<PathBuf> {
    let devices = fs::read_dir(class).into_iter().flatten().filter_map(Result::ok);
    let mut found = devices.filter(|device| {
        let own = fs::read_to_string(device.path().join("identity"));
        own.is_ok_and(|own| own.trim_end() == identity)
    });
    found.next().map(|device| Path::new("/dev").join(device.file_name()))
}

const DRIVERS: &[Driver] = &[
    Driver { module: "bcm2835_wdt", identity: "Broadcom BCM2835 Watchdog timer" },
    Driver { module: "softdog", identity: "Software Watchdog" },
];

/// The longest that the Raspberry Pi's can do is a little more.
const TIMEOUT: Duration = Duration::from_secs(15);
/// One that is late, or lost, does no harm.
const FEEDS_PER_TIMEOUT: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_chooses_the_driver_and_its_last_word_counts() {
        let cases = [
            (&[][..], Some("bcm2835_wdt")),
            (&["softdog"], Some("softdog")),
            (&["softdog", "bcm2835_wdt"], Some("bcm2835_wdt")),
            (&["softdog", "off"], None),
            (&["cerberus"], Some("bcm2835_wdt")),
        ];
        for (names, wanted) in cases {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            let chosen = choose(&names).map(|driver| driver.module);
            assert_eq!(chosen, wanted, "{names:?}");
        }
    }

    #[test]
    fn a_watchdog_is_found_by_what_it_calls_itself() {
        let class = std::env::temp_dir().join(format!("ocellus-watchdogs-{}", std::process::id()));
        for (name, identity) in [("watchdog0", "Other\n"), ("watchdog1", "Software Watchdog\n")] {
            fs::create_dir_all(class.join(name)).unwrap();
            fs::write(class.join(name).join("identity"), identity).unwrap();
        }
        let found = find(&class, "Software Watchdog");
        let missing = find(&class, "Broadcom BCM2835 Watchdog timer");
        fs::remove_dir_all(&class).unwrap();
        assert_eq!(found, Some(PathBuf::from("/dev/watchdog1")));
        assert_eq!(missing, None);
    }
}
