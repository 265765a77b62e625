//! Turns a freshly booted kernel into a running camera: process 1 of the flashed image.
//!
//! It mounts what a Linux program expects, loads modules, brings up the network, and keeps one
//! camera process alive, which is this same binary. Whatever fails is said on the console, and the
//! rest goes on: a camera without a network still records a boot log, one without a lease still has
//! a link-local address, and a process 1 that ends takes the kernel with it.
//!
//! Threads: the main one supervises and reaps; `modules` loads the board's list; `devices` answers
//! the kernel's announcements; `network` and one per interface run DHCP; `time` runs SNTP; `mdns`
//! answers for the camera's name; `camera-log` hears the camera; one `console` for each shows it.
//!
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod camera;
mod command_line;
mod console;
mod devices;
mod folder;
mod identity;
mod interface;
mod journal;
mod mdns;
mod memory;
mod modules;
mod mounts;
mod network;
mod partitions;
mod provision;
mod pulse;
mod settings;
mod shutdown;
mod storage;
mod supervisor;
mod time;
mod watchdog;
mod wifi;
mod worker;

use std::fs;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::prctl::set_thp_disable;
use nix::sys::reboot::set_cad_enabled;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::getpid;

use crate::sys::clock;
use crate::time::Instant;
use modules::Modules;
use settings::Settings;
use supervisor::Supervisor;
use watchdog::Feeder;

/// Runs the machine until it is shut down. The caller has neither started threads nor set up a log.
///
/// Only for process 1: any other is told so and ends with status 2, because it would mount over a
/// running system.
pub fn run() -> ! {
    let started = clock::now();
    if getpid().as_raw() != 1 {
        console::refuse();
        std::process::exit(2);
    }
    // Before any thread exists, so that all inherit it and the signals wait for the supervisor.
    let signals = watched_signals();
    let blocked = signals.thread_block();

    // A single huge page of a thread's stack would be twice what process 1 takes in all.
    let small_pages = set_thp_disable(true);
    let unmounted = mounts::mount_all();
    journal::start();
    log::info!("firmware: pid 1 up uptime_ms={}", started.as_micros() / 1000);
    // The kernel then asks for an orderly end, with SIGINT, instead of starting again at once.
    let asked = set_cad_enabled(false);
    for errno in [blocked.err(), asked.err()].into_iter().flatten() {
        log::error!("firmware: signals will not come in order error={errno}");
    }

    if let Err(errno) = small_pages {
        log::warn!("firmware: huge pages are not switched off error={errno}");
    }
    for (target, errno) in unmounted {
        log::error!("firmware: {target} cannot be mounted error={errno}");
    }

    let modules = Arc::new(Modules::read());
    let loaded = start_drivers(&modules);
    if storage::is_expected() {
        // The configuration is there, and drivers for it are in the list.
        wait_for_modules(started, &loaded, CARD_MODULES_WAIT);
        storage::bring_up();
    }
    provision::run();
    let settings = Settings::load();
    settings.apply_hostname();
    if settings.wifi.is_none() {
        wifi::free_memory();
    }
    start_network(started, &settings);
    wait_for_modules(started, &loaded, MODULES_WAIT);

    allow_low_ports();
    // Whoever announces them may come later than the camera.
    devices::give_video_nodes();

    let watchdog = Feeder::start(&modules, clock::now());
    let supervisor = Supervisor::new(started, settings.path, watchdog);
    let why = supervisor.run(&signals);
    shutdown::now(why)
}

/// Starts loading the board's list of modules, and drivers for devices; the end of the list is told.
fn start_drivers(modules: &Arc<Modules>) -> mpsc::Receiver<()> {
    let (loaded, wait) = mpsc::channel();
    let list = Arc::clone(modules);
    worker::spawn("modules", move || {
        list.load_list();
        // Nobody waits any more when it took too long.
        let _ = loaded.send(());
    });
    let list = Arc::clone(modules);
    worker::spawn("devices", move || devices::watch(&list));
    wait
}

fn start_network(started: Instant, settings: &Settings) {
    let (time, leases) = mpsc::channel();
    let servers = settings.ntp.clone();
    worker::spawn("time", move || time::run(&servers, &leases));
    let plan = network::Plan {
        started,
        hostname: settings.hostname.clone(),
        dhcp: settings.dhcp,
        fixed: settings.fixed.clone(),
        fixed_on: Arc::default(),
        wifi: settings.wifi.clone(),
        time,
    };
    let announcement = settings.announcement();
    worker::spawn("mdns", move || mdns::run(&announcement));
    worker::spawn("network", move || network::watch(&plan));
}

/// The camera looks for its sensor once, when it starts, and the card needs its file systems.
fn wait_for_modules(started: Instant, loaded: &mpsc::Receiver<()>, longest: Duration) {
    match loaded.recv_timeout(longest) {
        Ok(()) => {
            let took_ms = clock::now().since(started).as_millis();
            log::info!("firmware: modules done since_start_ms={took_ms}");
        }
        Err(mpsc::RecvTimeoutError::Timeout) => {
            log::error!("firmware: modules take longer than {longest:?}, starting without them")
        }
        // Said before.
        Err(mpsc::RecvTimeoutError::Disconnected) => {}
    }
}

/// The camera serves 554 and 80 without being root.
fn allow_low_ports() {
    if let Err(error) = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0") {
        log::error!("firmware: low ports are for root only error={error}");
    }
}

fn watched_signals() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGPWR,
    ] {
        signals.add(signal);
    }
    signals
}

/// A module whose initialisation hangs must not cost the camera; in QEMU all of them take 1 s.
const MODULES_WAIT: Duration = Duration::from_secs(5);
/// Without the card's file systems a camera would come up that lets nobody in.
const CARD_MODULES_WAIT: Duration = Duration::from_secs(30);
