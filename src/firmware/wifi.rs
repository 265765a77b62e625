//! Turns a wireless interface into one that is on the owner's network: runs wpa_supplicant.
//!
//! Debian's program, when the image has it, with a configuration in memory that only root reads.
//! The carrier comes and goes with the association, and the rest is as on any interface.
//!
//! Process 1 reaps the program with all others; here its end is seen by the end of its output.
//!
//! Not implemented: enterprise networks, networks without a password, several networks.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::worker;
use crate::config::Wifi;
use crate::sys::clock;
use crate::sys::process;
use crate::time::Instant;

/// Lets go of the programs for wireless networks where none is configured: the root is memory.
pub(super) fn free_memory() {
    let files = fs::read_to_string(FILES).unwrap_or_default();
    for file in files.lines() {
        if let Err(error) = fs::remove_file(file) {
            log::warn!("network: wifi file={file} stays in memory error={error}");
        }
    }
}

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

/// Says in words how the program fares, until it ends.
fn follow(interface: &str, mut output: ChildStdout) {
    let (send, lines) = mpsc::channel();
    worker::spawn(&format!("read-{interface}"), move || {
        for line in BufReader::new(&mut output).split(b'\n').map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    let mut station = Station::new(clock::now());
    loop {
        let news = match lines.recv_timeout(LOOK_EVERY) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line);
                // It repeats a line of its configuration that it refuses, and the key is in there.
                if !line.starts_with("Line ") {
                    log::debug!("network: wifi {line}");
                }
                event(&line).and_then(|event| station.handle(clock::now(), event))
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let news = news.or_else(|| station.handle_timeout(clock::now()));
        if let Some(news) = news {
            log::log!(news.level(), "network: wifi {} interface={interface}", news.words());
        }
    }
}

/// How the interface fares, from what its program tells.
#[derive(Debug)]
struct Station {
    /// Since when the network is looked for in vain.
    looking: Option<Instant>,
    /// What was said last; nothing is said twice.
    said: Option<News>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Found,
    Joined,
    Left,
    WrongKey,
    NotAccepted,
    LooksAgain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Joined,
    Left,
    WrongKey,
    NotAccepted,
    NotFound,
}

impl Station {
    const fn new(now: Instant) -> Self {
        Self { looking: Some(now), said: None }
    }

    fn handle(&mut self, now: Instant, event: Event) -> Option<News> {
        self.looking = matches!(event, Event::Left | Event::LooksAgain).then_some(now);
        let news = match event {
            Event::Found | Event::LooksAgain => return None,
            // An attempt that failed ends like this too.
            Event::Left if self.said != Some(News::Joined) => return None,
            Event::Left => News::Left,
            Event::Joined => News::Joined,
            Event::WrongKey => News::WrongKey,
            Event::NotAccepted => News::NotAccepted,
        };
        self.say(news)
    }

    fn handle_timeout(&mut self, now: Instant) -> Option<News> {
        self.looking.take_if(|since| now.since(*since) >= FOUND_WITHIN)?;
        self.say(News::NotFound)
    }

    fn say(&mut self, news: News) -> Option<News> {
        (self.said.replace(news) != Some(news)).then_some(news)
    }
}

impl News {
    const fn level(self) -> log::Level {
        match self {
            Self::Joined => log::Level::Info,
            Self::Left => log::Level::Warn,
            Self::WrongKey | Self::NotAccepted | Self::NotFound => log::Level::Error,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Left => "left",
            Self::WrongKey => "refused: the password (psk) is wrong",
            Self::NotAccepted => "refused: is the password (psk) right, and the network for WPA2?",
            Self::NotFound => "network not found: is the name (ssid) right, and is it in reach?",
        }
    }
}

/// Reads a line like `wlan0: CTRL-EVENT-CONNECTED - Connection to ...`.
fn event(line: &str) -> Option<Event> {
    let (_, event) = line.split_once(": ")?;
    let event = event.strip_prefix("SME: ").unwrap_or(event);
    match event.split(' ').next()? {
        "CTRL-EVENT-CONNECTED" => Some(Event::Joined),
        "CTRL-EVENT-DISCONNECTED" => Some(Event::Left),
        "CTRL-EVENT-SSID-TEMP-DISABLED" if event.ends_with(" reason=WRONG_KEY") => {
            Some(Event::WrongKey)
        }
        "CTRL-EVENT-SSID-TEMP-DISABLED" => Some(Event::NotAccepted),
        "CTRL-EVENT-SSID-REENABLED" => Some(Event::LooksAgain),
        "Trying" => Some(Event::Found),
        _ => None,
    }
}

/// What scripts/image put into the image for Wi-Fi alone, a path in each line.
const FILES: &str = "/etc/wifi-files";
/// Of Debian's package wpasupplicant.
const PROGRAM: &str = "/sbin/wpa_supplicant";
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A program that ran this long did not end of how it was started.
const RAN_WELL: Duration = Duration::from_secs(60);
/// A look at all channels takes up to 5 s, and some access points miss one.
const FOUND_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_events_are_read_and_its_talk_is_not() {
        for (line, wanted) in [
            (
                "wlan0: CTRL-EVENT-CONNECTED - Connection to 02:00:00:00:01:00 completed [id=0]",
                Some(Event::Joined),
            ),
            ("wlan0: CTRL-EVENT-DISCONNECTED bssid=02:00 reason=3", Some(Event::Left)),
            (
                "wlan0: CTRL-EVENT-SSID-TEMP-DISABLED id=0 ssid=\"x\" auth_failures=1 duration=10 reason=WRONG_KEY",
                Some(Event::WrongKey),
            ),
            (
                "wlan0: CTRL-EVENT-SSID-TEMP-DISABLED id=0 ssid=\"x reason=WRONG_KEY\" auth_failures=1 duration=10 reason=CONN_FAILED",
                Some(Event::NotAccepted),
            ),
            ("wlan0: CTRL-EVENT-SSID-REENABLED id=0 ssid=\"x\"", Some(Event::LooksAgain)),
            ("wlan0: SME: Trying to authenticate with 02:00:00:00:01:00", Some(Event::Found)),
            ("wlan0: Trying to associate with 02:00:00:00:01:00", Some(Event::Found)),
            ("wlan0: Associated with 02:00:00:00:01:00", None),
            ("Successfully initialized wpa_supplicant", None),
            ("", None),
        ] {
            assert_eq!(event(line), wanted, "{line}");
        }
    }

    /// What is said when `events` come one second apart, beginning at `now`.
    fn said(station: &mut Station, now: &mut Instant, events: &[Event]) -> Vec<News> {
        let mut said = Vec::new();
        for &event in events {
            *now += Duration::from_secs(1);
            said.extend(station.handle(*now, event));
        }
        said
    }

    #[test]
    fn a_wrong_password_is_said_once_however_often_it_is_refused() {
        let mut now = Instant::ZERO;
        let mut station = Station::new(now);
        let attempt = [Event::LooksAgain, Event::Found, Event::Found, Event::Left, Event::WrongKey];
        let attempts = attempt.repeat(10);
        assert_eq!(said(&mut station, &mut now, &attempts), [News::WrongKey]);
        assert_eq!(station.handle_timeout(now + Duration::from_secs(600)), None);
        let joined = [Event::LooksAgain, Event::Found, Event::Joined, Event::Left, Event::WrongKey];
        let wanted = [News::Joined, News::Left, News::WrongKey];
        assert_eq!(said(&mut station, &mut now, &joined), wanted);
    }

    #[test]
    fn a_network_that_is_not_there_is_missed_once_each_time() {
        let mut now = Instant::ZERO;
        let mut station = Station::new(now);
        for _ in 0..2 {
            now += FOUND_WITHIN - Duration::from_micros(1);
            assert_eq!(station.handle_timeout(now), None);
            now += Duration::from_micros(1);
            assert_eq!(station.handle_timeout(now), Some(News::NotFound));
            assert_eq!(station.handle_timeout(now + Duration::from_secs(600)), None);
            let events = [Event::Found, Event::Joined, Event::Joined, Event::Left];
            assert_eq!(said(&mut station, &mut now, &events), [News::Joined, News::Left]);
        }
        // While joining takes its time, and while joined, it is there.
        for event in [Event::Found, Event::Joined] {
            station.handle(now, event);
            assert_eq!(station.handle_timeout(now + Duration::from_secs(600)), None);
        }
    }
}
