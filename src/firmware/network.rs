//! Turns the kernel's interfaces into configured ones: one thread of DHCP for each.
//!
//! Only Ethernet-like interfaces are touched. The loopback interface is set up at once.
//!
//! IPv6 is the kernel's: router advertisements are accepted, and what comes of them is logged.
//!
//! Not implemented: fixed addresses for more than one interface.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsFd;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::settings::Fixed;
use super::time::Heard;
use super::{interface, wifi, worker};
use crate::config::Wifi;
use crate::sys::address_monitor::AddressMonitor;
use crate::sys::netlink::{LOOPBACK, LinkMonitor, Netlink};
use crate::sys::packet;
use crate::time::Instant;

/// Interfaces that have a thread.
type Running = Arc<Mutex<HashSet<u32>>>;

/// How interfaces are to be configured, and who is told.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) started: Instant,
    pub(super) hostname: String,
    pub(super) dhcp: bool,
    pub(super) fixed: Option<Fixed>,
    /// The interface that has the fixed address: the first with a carrier.
    pub(super) fixed_on: Arc<Mutex<Option<u32>>>,
    /// What wireless interfaces join.
    pub(super) wifi: Option<Wifi>,
    /// Hears of every lease.
    pub(super) time: Sender<Heard>,
}

impl Plan {
    /// The fixed addresses, if this interface is the one that has them.
    pub(super) fn claim(&self, interface: u32) -> Option<&Fixed> {
        let fixed = self.fixed.as_ref()?;
        let mut owner = self.fixed_on.lock().unwrap_or_else(PoisonError::into_inner);
        (*owner.get_or_insert(interface) == interface).then_some(fixed)
    }

    fn release(&self, interface: u32) {
        let mut owner = self.fixed_on.lock().unwrap_or_else(PoisonError::into_inner);
        owner.take_if(|owner| *owner == interface);
    }
}

/// Brings up every interface there is or will be. Does not return.
pub(super) fn watch(plan: &Plan) {
    let up = Netlink::open().and_then(|mut netlink| netlink.set_up(LOOPBACK));
    if let Err(error) = up {
        log::error!("network: loopback cannot be set up error={error}");
    }
    // Kept for as long as this thread runs, which is for ever.
    let port = packet::occupy_dhcp_client_port();
    if let Err(error) = &port {
        log::warn!("network: port 68 cannot be occupied error={error}");
    }
    let running = Running::default();
    loop {
        if let Err(error) = serve(plan, &running) {
            log::error!("network: interfaces cannot be watched error={error}");
        }
        worker::wait(RETRY);
    }
}

fn serve(plan: &Plan, running: &Running) -> std::io::Result<()> {
    let mut monitor = LinkMonitor::open()?;
    let mut addresses = AddressMonitor::open()?;
    loop {
        while let Some((interface, address)) = addresses.receive() {
            log::info!("network: ipv6 address={address} index={interface}");
        }
        while let Some(link) = monitor.receive()? {
            let Some(mac) = link.mac else { continue };
            if link.removed || !lock(running).insert(link.index) {
                continue;
            }
            log::info!("network: interface name={} index={}", link.name, link.index);
            accept_router_advertisements(&link.name);
            ignore_routes_without_carrier(&link.name);
            if let Some(wifi) = plan.wifi.clone().filter(|_| wifi::is_wireless(&link.name)) {
                let name = link.name.clone();
                worker::spawn(&format!("wifi-{name}"), move || wifi::run(&name, &wifi));
            }
            let port = interface::Port { index: link.index, name: link.name.clone(), mac };
            let plan = plan.clone();
            let running = Arc::clone(running);
            worker::spawn(&format!("net-{}", link.name), move || {
                interface::run(&plan, &port);
                // It is gone; should the index come back, it is another interface.
                lock(&running).remove(&port.index);
                plan.release(port.index);
            });
        }
        let mut fds =
            [monitor.as_fd(), addresses.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // An interruption is a turn for nothing.
        let _ = poll(&mut fds, PollTimeout::NONE);
    }
}

/// SLAAC (RFC 4862), whatever the kernel's defaults are; a kernel without IPv6 has no such file.
fn accept_router_advertisements(name: &str) {
    let file = format!("/proc/sys/net/ipv6/conf/{name}/accept_ra");
    if let Err(error) = fs::write(&file, "1") {
        log::warn!("network: no ipv6 on {name} error={error}");
    }
}

/// Without its cable, an interface keeps its address; packets then take another one, if they can.
fn ignore_routes_without_carrier(name: &str) {
    let file = format!("/proc/sys/net/ipv4/conf/{name}/ignore_routes_with_linkdown");
    if let Err(error) = fs::write(&file, "1") {
        log::warn!("network: routes of {name} outlive its carrier error={error}");
    }
}

fn lock(running: &Running) -> std::sync::MutexGuard<'_, HashSet<u32>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

const RETRY: Duration = Duration::from_secs(5);
