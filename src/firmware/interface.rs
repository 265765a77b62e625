//! Turns one interface's frames and the clock into its address, route and name servers.
//!
//! The decisions are `net::Dhcp`'s; here are the sockets it has none of.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::network::Plan;
use super::settings::Fixed;
use super::time::Heard;
use super::{wifi, worker};
use crate::net::{Dhcp, Event, Lease, Origin, hostname_option};
use crate::sys::clock;
use crate::sys::netlink::{LinkMonitor, Netlink};
use crate::sys::packet::PacketSocket;
use crate::time::Instant;

/// An interface of the kernel's.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: [u8; 6],
}

impl Port {
    /// Of its default route, the lowest first: the wired interfaces, in the kernel's order.
    fn priority(&self) -> u32 {
        let base = if wifi::is_wireless(&self.name) { 10_000 } else { 100 };
        self.index.saturating_add(base)
    }
}

/// Keeps the interface configured until it is removed.
pub(super) fn run(plan: &Plan, port: &Port) {
    let mut held = None;
    loop {
        match serve(plan, port, &mut held) {
            Ok(()) => {
                log::info!("network: interface removed name={}", port.name);
                return;
            }
            Err(error) => log::error!("network: {} failed error={error}", port.name),
        }
        worker::wait(RETRY);
    }
}

/// Returns when the interface is gone.
fn serve(plan: &Plan, port: &Port, held: &mut Option<Lease>) -> io::Result<()> {
    let mut monitor = LinkMonitor::open()?;
    let mut kernel = Kernel { netlink: Netlink::open()?, plan, port, held, doubted: false };
    kernel.netlink.set_up(port.index)?;
    let options: Vec<_> = hostname_option(&plan.hostname).into_iter().collect();
    // From the first carrier on.
    let mut client: Option<Dhcp<'_>> = None;
    let mut socket: Option<PacketSocket> = None;
    let mut carrier = false;
    loop {
        while let Some(link) = monitor.receive()? {
            if link.index != port.index {
                continue;
            }
            if link.removed {
                return Ok(());
            }
            if link.carrier == carrier {
                continue;
            }
            carrier = link.carrier;
            log::info!("network: carrier interface={} on={carrier}", port.name);
            if !carrier {
                continue;
            }
            if !plan.dhcp {
                if let Some(fixed) = plan.claim(port.index) {
                    kernel.fix(fixed);
                }
                continue;
            }
            // A packet socket remembers that its interface was down.
            socket = Some(PacketSocket::open(port.index)?);
            let now = clock::now();
            match &mut client {
                Some(client) => {
                    kernel.doubted = true;
                    client.restart(now);
                }
                None => client = Dhcp::new(now, port.mac, &options, seed()),
            }
        }
        if let (Some(client), Some(socket)) = (&mut client, &socket) {
            exchange(client, socket, &mut kernel);
        }
        wait(&monitor, socket.as_ref(), client.as_ref().and_then(Dhcp::poll_timeout));
    }
}

/// Takes what has arrived and what is due, and carries out what follows.
fn exchange(client: &mut Dhcp<'_>, socket: &PacketSocket, kernel: &mut Kernel<'_>) {
    let mut buffer = [0; MAX_FRAME_LEN];
    client.handle_timeout(clock::now());
    drain(client, socket, kernel);
    // Bounded, so that a flood cannot keep the timeouts and the carrier from being looked at.
    for _ in 0..MAX_FRAMES_A_TURN {
        let Some(frame) = socket.receive(&mut buffer) else { return };
        client.receive(clock::now(), frame);
        drain(client, socket, kernel);
    }
}

fn drain(client: &mut Dhcp<'_>, socket: &PacketSocket, kernel: &mut Kernel<'_>) {
    while let Some(frame) = client.poll_transmit() {
        // A lost frame is sent again by the machine's own timeouts.
        socket.transmit(&frame);
    }
    while let Some(event) = client.poll_event() {
        kernel.apply(&event);
    }
}

fn wait(monitor: &LinkMonitor, socket: Option<&PacketSocket>, due: Option<Instant>) {
    let timeout = due.map_or(PollTimeout::NONE, |due| {
        // Rounded up: a millisecond early would be a turn for nothing.
        let pause = due.since(clock::now()) + Duration::from_millis(1);
        PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX)
    });
    let mut fds = vec![PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
    fds.extend(socket.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
    // An interruption is a turn for nothing.
    let _ = poll(&mut fds, timeout);
}

/// The kernel's side of the interface.
struct Kernel<'a> {
    netlink: Netlink,
    plan: &'a Plan,
    port: &'a Port,
    /// The lease that the kernel was last given; outlives a client that failed.
    held: &'a mut Option<Lease>,
    /// Whether the carrier was lost since the lease was acquired or renewed.
    doubted: bool,
}

impl Kernel<'_> {
    fn apply(&mut self, event: &Event) {
        let name = &self.port.name;
        match event {
            Event::Acquired(lease) => {
                let ms = clock::now().since(self.plan.started).as_millis();
                log::info!(
                    "network: lease acquired interface={name} {} since_start_ms={ms}",
                    describe(lease)
                );
                if self.held.as_ref().is_some_and(|held| held.address != lease.address) {
                    self.take();
                }
                self.give(lease);
            }
            Event::Renewed(lease) => {
                // Told when somebody may have doubted it; a renewal in time is no news.
                if self.held.as_ref() != Some(lease) {
                    log::info!("network: lease changed interface={name} {}", describe(lease));
                } else if self.doubted {
                    log::info!("network: lease confirmed interface={name}");
                }
                self.doubted = false;
                self.give(lease);
            }
            Event::Lost => {
                log::warn!("network: lease lost interface={name}");
                self.take();
            }
        }
    }

    /// Takes away what the kernel was given.
    fn take(&mut self) {
        if let Some(lease) = self.held.take() {
            let removed =
                self.netlink.remove_address(self.port.index, lease.address, lease.prefix_len);
            self.say("address", removed);
        }
    }

    fn give(&mut self, lease: &Lease) {
        let index = self.port.index;
        let added = self.netlink.add_address(index, lease.address, lease.prefix_len);
        self.say("address", added);
        if let Some(router) = lease.router {
            let added =
                self.netlink.set_default_route(index, lease.address, router, self.port.priority());
            self.say("route", added);
        }
        let dns: Vec<IpAddr> = lease.dns.iter().map(|&server| server.into()).collect();
        self.say("name servers", write_resolv_conf(lease.address, &dns));
        *self.held = Some(lease.clone());
        let ntp = lease.ntp.iter().map(|&server| server.into()).collect();
        // Nobody hears when the clock is not looked after.
        let _ = self.plan.time.send(Heard { interface: index, ntp });
    }

    /// Gives the addresses of the configuration; again after every loss of the carrier, which may
    /// have cost the route.
    fn fix(&mut self, fixed: &Fixed) {
        let (index, own) = (self.port.index, fixed.address);
        log::info!("network: fixed address interface={} address={own}", self.port.name);
        let added = self.netlink.add_address(index, own.address, own.prefix_len);
        self.say("address", added);
        if let Some(gateway) = fixed.gateway {
            let added =
                self.netlink.set_default_route(index, own.address, gateway, self.port.priority());
            self.say("route", added);
        }
        self.say("name servers", write_resolv_conf(own.address, &fixed.dns));
        // Nobody hears when the clock is not looked after.
        let _ = self.plan.time.send(Heard { interface: index, ntp: Vec::new() });
    }

    fn say(&self, what: &str, result: io::Result<()>) {
        if let Err(error) = result {
            log::error!("network: {what} of {} cannot be set error={error}", self.port.name);
        }
    }
}

fn describe(lease: &Lease) -> String {
    let (address, prefix_len) = (lease.address, lease.prefix_len);
    match &lease.origin {
        Origin::LinkLocal => format!("address={address}/{prefix_len} link-local"),
        Origin::Dhcp { server, duration, .. } => format!(
            "address={address}/{prefix_len} router={:?} dns={:?} ntp={:?} server={server} lease_s={}",
            lease.router,
            lease.dns,
            lease.ntp,
            duration.as_secs()
        ),
    }
}

/// resolv.conf(5); the servers that came last, with `address`. A reader never sees half a file.
fn write_resolv_conf(address: Ipv4Addr, dns: &[IpAddr]) -> io::Result<()> {
    if dns.is_empty() {
        return Ok(());
    }
    let text: String = dns.iter().map(|server| format!("nameserver {server}\n")).collect();
    let new = format!("{RESOLV_CONF}.{address}");
    fs::write(&new, text)?;
    fs::rename(new, RESOLV_CONF)
}

/// Spreads the retries of cameras that were switched on together.
fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| clock::now().as_micros())
}

/// /etc/resolv.conf is a link to it.
const RESOLV_CONF: &str = "/run/resolv.conf";
const RETRY: Duration = Duration::from_secs(5);
const MAX_FRAMES_A_TURN: usize = 32;
/// More than Ethernet's frames have without their checksum.
const MAX_FRAME_LEN: usize = 2048;
