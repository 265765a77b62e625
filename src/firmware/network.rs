//! Turns the kernel's interfaces into configured ones: one thread of DHCP for each.
//!
//! Only Ethernet-like interfaces are touched. The loopback interface is set up at once.
//!
//! Not implemented: Wi-Fi association, fixed addresses.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::time::Heard;
use super::{interface, worker};
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
    /// Hears of every lease.
    pub(super) time: Sender<Heard>,
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
    loop {
        while let Some(link) = monitor.receive()? {
            let Some(mac) = link.mac else { continue };
            if link.removed || !lock(running).insert(link.index) {
                continue;
            }
            log::info!("network: interface name={} index={}", link.name, link.index);
            let port = interface::Port { index: link.index, name: link.name.clone(), mac };
            let plan = plan.clone();
            let running = Arc::clone(running);
            worker::spawn(&format!("net-{}", link.name), move || {
                interface::run(&plan, &port);
                // It is gone; should the index come back, it is another interface.
                lock(&running).remove(&port.index);
            });
        }
        let mut fds = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
        // An interruption is a turn for nothing.
        let _ = poll(&mut fds, PollTimeout::NONE);
    }
}

fn lock(running: &Running) -> std::sync::MutexGuard<'_, HashSet<u32>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

const RETRY: Duration = Duration::from_secs(5);
