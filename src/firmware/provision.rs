//! Turns what a person put on the boot partition, and what the data partition keeps, into the
//! configuration that the camera starts with.
//!
//! On the boot partition, in this order: a file `reset` erases everything that is kept; a file
//! `ocellus.json` is checked, kept, and overwritten where it lay, with all free space, or answered
//! with `ocellus-errors.txt`; so is an `identity.pem`; a file `log` asks for `ocellus-log.txt`. A
//! power cut at any point leads
//! to the same steps again, or finds them done.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::unistd::sync;

use super::folder::{self, Folder};
use super::{identity, journal, settings, worker};
use crate::config::{Config, Origin, STORE_FILES, Store, replace};

/// Finds the configuration and hands it to the camera.
pub(super) fn run() {
    let boot = is_mounted(Path::new(BOOT)).then(|| PathBuf::from(BOOT));
    let mut config = configuration(boot.as_deref(), Path::new(DATA), Path::new(IMAGE));
    log::info!("firmware: configuration name={:?} users={}", config.name, config.users.len());
    if config.users.is_empty() {
        log::warn!(
            "firmware: no password is set, nothing is streamed: put ocellus.json on the card"
        );
    }
    give_identity(&mut config, Path::new(DATA), Path::new(settings::IDENTITY));
    if let Err(error) = hand_over(&config, Path::new(settings::PATH)) {
        log::error!("firmware: the camera gets no configuration error={error}");
    }
    match device_uuid(Path::new(DATA)) {
        Ok(uuid) => log::info!("firmware: device uuid={uuid}"),
        Err(error) => log::error!("firmware: no device identity can be kept error={error}"),
    }
    // What mounting and the above have changed is written now, and not while pictures flow.
    sync();
    if let Some(boot) = boot.filter(|boot| boot.join(LOG_WANTED).exists()) {
        worker::spawn("log", move || write_logs(&boot));
    }
}

/// The configuration to start with: the person's, the kept one, the image's, or the default.
fn configuration(boot: Option<&Path>, data: &Path, image: &Path) -> Config {
    let mut given = None;
    if let Some(boot) = boot.filter(|boot| asks_for_something(boot)) {
        let writable = Writable::new(boot);
        if boot.join(ERASING).exists() {
            erase_traces(boot);
        }
        if boot.join(RESET).exists() {
            reset(boot, data);
        }
        given = take(boot, data);
        take_identity(boot, data);
        drop(writable);
    }
    given.unwrap_or_else(|| kept(data, image))
}

/// Tells the camera where its certificate is, or that there is none to encrypt with.
fn give_identity(config: &mut Config, data: &Path, path: &Path) {
    let hostname = &config.network.hostname;
    let tls = &mut config.rtsp.tls;
    if tls.listen.is_empty() {
        return;
    }
    match identity::hand_over(data, hostname, path) {
        Ok(()) => (tls.certificate, tls.key) = (Some(path.to_owned()), Some(path.to_owned())),
        Err(error) => {
            log::error!("firmware: nothing is encrypted: no certificate error={error}");
            tls.listen.clear();
        }
    }
}

fn take_identity(boot: &Path, data: &Path) {
    let is_given = boot.join(settings::IDENTITY_GIVEN).exists();
    match identity::take(boot, data) {
        Ok(()) if is_given => {
            erase_traces(boot);
            let errors = boot.join(ERRORS);
            let said = fs::read_to_string(&errors).unwrap_or_default();
            if said.contains(settings::IDENTITY_GIVEN)
                && let Err(error) = folder::remove(&errors)
            {
                log::warn!("firmware: old {ERRORS} cannot be removed error={error}");
            }
        }
        Ok(()) => {}
        Err(why) => complain(boot, settings::IDENTITY_GIVEN, &why),
    }
}

/// What the data partition keeps, put right if it was damaged; else what the image brought.
fn kept(data: &Path, image: &Path) -> Config {
    let mut store = Store::new(Folder::new(data));
    let loaded = store.load();
    for fault in &loaded.faults {
        log::error!("firmware: configuration file {fault}");
    }
    log::info!("firmware: configuration found={:?}", loaded.origin);
    if loaded.origin == Origin::None {
        return brought(image);
    }
    if !loaded.faults.is_empty()
        && let Err(error) = store.save(&loaded.config)
    {
        log::error!("firmware: configuration cannot be put right error={error}");
    }
    loaded.config
}

/// The configuration in the image, if its builder changed the reference, which lets nobody in.
fn brought(image: &Path) -> Config {
    let bytes = folder::read(image).ok().flatten().unwrap_or_default();
    match parse(&bytes) {
        Ok(config) if config != Config::default() => config,
        _ => settings::default_config(),
    }
}

/// Takes `ocellus.json` from the boot partition, if it is there.
fn take(boot: &Path, data: &Path) -> Option<Config> {
    let path = boot.join(GIVEN);
    let bytes = match folder::read(&path) {
        Ok(bytes) => bytes?,
        Err(error) => {
            complain(boot, GIVEN, &format!("it cannot be read: {error}"));
            return None;
        }
    };
    if folder::is_half_erased(&bytes) || bytes.is_empty() {
        log::info!("firmware: erasure of {GIVEN} goes on after a power cut");
        erase_given(&path);
        // Erasure begins when the text is kept. Else the card was pulled out too early.
        if !bytes.is_empty() && Store::new(Folder::new(data)).load().origin == Origin::None {
            complain(
                boot,
                GIVEN,
                "it was not written completely: copy it again, and eject the card",
            );
        }
        return None;
    }
    let config = match parse(&bytes) {
        Ok(config) => config,
        Err(why) => {
            complain(boot, GIVEN, &why);
            return None;
        }
    };
    if let Err(error) = Store::new(Folder::new(data)).save(&config) {
        log::error!("firmware: the new configuration is used, but cannot be kept error={error}");
        complain(boot, GIVEN, &format!("it is right, but the camera cannot store it: {error}"));
        return Some(config);
    }
    log::info!("firmware: configuration taken from {GIVEN}");
    erase_given(&path);
    erase_traces(boot);
    if let Err(error) = folder::remove(&boot.join(ERRORS)) {
        log::warn!("firmware: old {ERRORS} cannot be removed error={error}");
    }
    Some(config)
}

/// Overwrites what editors and earlier tries have left of passwords on the boot partition.
fn erase_traces(boot: &Path) {
    let erased = is_mounted(boot).then(|| folder::erase_free_space(boot, ERASING));
    if let Some(Err(error)) = erased {
        log::error!("firmware: free space of the card is not overwritten error={error}");
    }
}

fn parse(bytes: &[u8]) -> Result<Config, String> {
    let text = str::from_utf8(bytes)
        .map_err(|_| "it is no text in UTF-8: save it with that encoding".to_owned())?;
    // Some editors begin a text with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    settings::parse_config(text).map_err(|error| error.to_string())
}

fn erase_given(path: &Path) {
    if let Err(error) = folder::erase(path) {
        log::error!("firmware: passwords remain in {GIVEN} on the card error={error}");
    }
}

/// Says in words, where the person looks, why the file was not used.
fn complain(boot: &Path, name: &str, why: &str) {
    log::error!("firmware: {name} is not used: {why}");
    let text = format!(
        "The camera did not use {name}:\n\n    {why}\n\n\
         It goes on with what it had. Correct the file, leave it here, put the\n\
         card back and switch the camera on: the file disappears when it was understood.\n"
    );
    let path = boot.join(ERRORS);
    // The card is not written again at each start.
    let is_said =
        folder::read(&path).is_ok_and(|said| said.is_some_and(|it| it == text.as_bytes()));
    if !is_said && let Err(error) = write_safely(&path, text.as_bytes()) {
        log::error!("firmware: {ERRORS} cannot be written error={error}");
    }
}

/// Erases everything that is kept; the wish itself goes last, so that a power cut repeats it.
fn reset(boot: &Path, data: &Path) {
    log::warn!("firmware: factory reset");
    let kept = STORE_FILES.into_iter().chain([DEVICE, DEVICE_NEW]).chain(identity::FILES);
    let mut is_done = true;
    for name in kept {
        if let Err(error) = folder::erase(&data.join(name)) {
            log::error!("firmware: {name} cannot be erased error={error}");
            is_done = false;
        }
    }
    if !is_done {
        return;
    }
    for name in [ERRORS, RESET] {
        if let Err(error) = folder::remove(&boot.join(name)) {
            log::error!("firmware: {name} cannot be removed error={error}");
        }
    }
}

/// Puts the configuration where the camera reads it, in memory, for its owner alone.
fn hand_over(config: &Config, path: &Path) -> io::Result<()> {
    folder::remove(path)?;
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(config.to_json().as_bytes())
}

/// The device's own number, made at its first start (RFC 9562 5.4).
fn device_uuid(data: &Path) -> io::Result<String> {
    let mut disk = Folder::new(data);
    let stored = folder::read(&data.join(DEVICE))?.unwrap_or_default();
    let stored: Option<Device> = serde_json::from_slice(&stored).ok();
    if let Some(device) = stored.filter(|device| is_uuid(&device.uuid)) {
        return Ok(device.uuid);
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let device = Device { uuid: uuid(u128::from_be_bytes(bytes)) };
    let text = serde_json::to_vec(&device)?;
    replace(&mut disk, DEVICE, &text)?;
    Ok(device.uuid)
}

#[derive(serde::Deserialize, serde::Serialize)]
struct Device {
    uuid: String,
}

/// Random bits as a UUID of version 4.
fn uuid(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

fn is_uuid(text: &str) -> bool {
    let hex = text.replace('-', "");
    u128::from_str_radix(&hex, 16).is_ok_and(|bits| uuid(bits) == text)
}

/// Writes the log three times: soon, when the network is up, and when trouble has had its time.
fn write_logs(boot: &Path) {
    for pause in LOG_PAUSES {
        worker::wait(pause);
        let writable = Writable::new(boot);
        if let Err(error) = write_safely(&boot.join(LOG), &journal::text()) {
            log::error!("firmware: {LOG} cannot be written error={error}");
        }
        drop(writable);
    }
}

fn write_safely(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn asks_for_something(boot: &Path) -> bool {
    let asking = [GIVEN, RESET, ERASING, settings::IDENTITY_GIVEN];
    asking.iter().any(|name| boot.join(name).exists())
}

/// Whether something is mounted there; else the folder belongs to the root.
fn is_mounted(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    device(path).is_some_and(|there| Some(there) != device(Path::new("/")))
}

/// The boot partition, writable for as long as this lives.
struct Writable<'a> {
    path: &'a Path,
}

impl<'a> Writable<'a> {
    fn new(path: &'a Path) -> Self {
        remount(path, MsFlags::empty());
        Self { path }
    }
}

impl Drop for Writable<'_> {
    fn drop(&mut self) {
        remount(self.path, MsFlags::MS_RDONLY);
    }
}

fn remount(path: &Path, access: MsFlags) {
    if !is_mounted(path) {
        return;
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(errno) = mount(None::<&str>, path, None::<&str>, flags | access, None::<&str>) {
        log::error!("firmware: {} cannot be remounted error={errno}", path.display());
    }
}

const BOOT: &str = "/boot";
const DATA: &str = "/data";
const IMAGE: &str = "/etc/ocellus.json";
const GIVEN: &str = "ocellus.json";
const ERRORS: &str = "ocellus-errors.txt";
const RESET: &str = "reset";
const LOG_WANTED: &str = "log";
const LOG: &str = "ocellus-log.txt";
/// Zeros over what was removed, while they are being written.
const ERASING: &str = "ocellus-erasing";
const DEVICE: &str = "device.json";
const DEVICE_NEW: &str = "device.json.new";

const LOG_PAUSES: [Duration; 3] =
    [Duration::from_secs(10), Duration::from_secs(50), Duration::from_secs(240)];

#[cfg(test)]
mod tests;
