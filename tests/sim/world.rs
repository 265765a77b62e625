//! Everybody on one switch and one clock.

use std::net::Ipv4Addr;
use std::time::Duration;

use ocellus::net::{Event, Origin};
use ocellus::time::Instant;

use super::camera::{self, Camera};
use super::hub::{Hub, Wire};
use super::rival::{self, Rival};
use super::server::Server;

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) hub: Hub,
    pub(crate) camera: Camera,
    pub(crate) servers: Vec<Server>,
    pub(crate) rival: Option<Rival>,
}

/// Ports of the switch: the camera, the rival, then the servers.
pub(crate) const CAMERA: usize = 0;
const RIVAL: usize = 1;
const FIRST_SERVER: usize = 2;

impl World {
    pub(crate) fn new(seed: u64, servers: u8) -> Self {
        let now = Instant::from_micros(5_000_000);
        let mut hub = Hub::new(seed);
        hub.attach(camera::MAC, Wire::good());
        hub.attach(rival::MAC, Wire::good());
        let servers: Vec<_> = (1..=servers).map(Server::new).collect();
        for server in &servers {
            hub.attach(server.mac, Wire::good());
        }
        Self { now, hub, camera: Camera::new(now, seed), servers, rival: None }
    }

    /// Pulls the camera's cable, or puts it back, which the kernel reports.
    pub(crate) fn plug(&mut self, plugged: bool) {
        let wire = self.hub.wire(CAMERA);
        if std::mem::replace(&mut wire.plugged, plugged) != plugged && plugged {
            self.camera.restart(self.now);
        }
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        let mut turns = 0;
        loop {
            self.flush();
            self.check_against_the_servers();
            let due = [
                self.hub.poll_timeout(),
                self.camera.client.poll_timeout(),
                self.rival.as_ref().and_then(|rival| rival.next_at),
            ];
            let Some(next) = due.into_iter().flatten().min().filter(|&at| at <= end) else { break };
            turns = if next > self.now { 0 } else { turns + 1 };
            assert!(turns < 1000, "time stands still at {:?}: {:?}", self.now, self.camera.client);
            self.now = self.now.max(next);
            while let Some((to, frame)) = self.hub.poll_arrived(self.now) {
                match to {
                    CAMERA => self.camera.receive(self.now, &frame),
                    RIVAL => self.rival.iter_mut().for_each(|rival| rival.receive(&frame)),
                    server => self.servers[server - FIRST_SERVER].receive(self.now, &frame),
                }
            }
            self.camera.handle_timeout(self.now);
            self.rival.iter_mut().for_each(|rival| rival.handle_timeout(self.now));
        }
        self.now = end;
    }

    fn flush(&mut self) {
        while let Some(frame) = self.camera.poll_transmit() {
            self.hub.send(self.now, CAMERA, &frame);
        }
        for frame in self.rival.iter_mut().flat_map(|rival| rival.out.drain(..)) {
            self.hub.send(self.now, RIVAL, &frame);
        }
        for (index, server) in self.servers.iter_mut().enumerate() {
            for frame in server.out.drain(..) {
                self.hub.send(self.now, FIRST_SERVER + index, &frame);
            }
        }
    }

    /// What the camera holds by DHCP was granted, and has not run out since.
    fn check_against_the_servers(&self) {
        let Some(lease) = &self.camera.held else { return };
        if lease.origin == Origin::LinkLocal {
            return;
        }
        let covers = |server: &Server| {
            let lasts = Duration::from_secs(server.lease_s.into()) + FLIGHT;
            let newest = server.granted.iter().rfind(|(address, _)| *address == lease.address);
            newest.is_some_and(|&(_, at)| self.now.since(at) <= lasts)
        };
        assert!(
            self.servers.iter().any(covers),
            "{} is held at {:?}, and nobody grants it",
            lease.address,
            self.now
        );
    }

    /// What the camera told since the last call.
    pub(crate) fn told(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.camera.events).into_iter().map(|(_, event)| event).collect()
    }

    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        self.camera.address()
    }
}

pub(crate) const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The longest that an acknowledgement is under way: a lease counts from its arrival.
const FLIGHT: Duration = Duration::from_secs(2);
