//! Turns the camera's name into `NAME.local` and an `_rtsp._tcp` service that players can browse.
//!
//! RFC 6762 and RFC 6763, by mdns-sd, in a thread of its own: it probes for the names, takes
//! others when they are in use, and follows the addresses of all interfaces by itself.
//!
//! Not implemented: asking anything of others.

use mdns_sd::{DaemonEvent, ServiceDaemon, ServiceInfo};

/// What is announced.
#[derive(Clone, Debug)]
pub(super) struct Announcement {
    /// What people call the camera.
    pub(super) name: String,
    pub(super) hostname: String,
    pub(super) port: u16,
}

/// Answers for the camera's names until the responder fails, which is said.
pub(super) fn run(announcement: &Announcement) {
    match serve(announcement) {
        Ok(()) => log::error!("network: mdns has ended"),
        Err(error) => log::error!("network: mdns failed error={error}"),
    }
}

fn serve(announcement: &Announcement) -> Result<(), mdns_sd::Error> {
    let host = format!("{}.local.", announcement.hostname);
    let daemon = ServiceDaemon::new()?;
    let events = daemon.monitor()?;
    let properties = [("path", PATH)];
    let (name, port) = (&announcement.name, announcement.port);
    let service = ServiceInfo::new(SERVICE, name, &host, "", port, &properties[..])?;
    daemon.register(service.enable_addr_auto())?;
    log::info!("network: mdns name={} port={port}", host.trim_end_matches('.'));
    while let Ok(event) = events.recv() {
        match event {
            DaemonEvent::NameChange(change) => log::warn!(
                "network: mdns name in use name={} new={} interface={}",
                change.original.trim_end_matches('.'),
                change.new_name.trim_end_matches('.'),
                change.intf_name
            ),
            DaemonEvent::Error(error) => log::debug!("network: mdns error={error}"),
            other => log::debug!("network: mdns {other:?}"),
        }
    }
    Ok(())
}

/// RTSP's registered service name (RFC 6763 7; IANA).
const SERVICE: &str = "_rtsp._tcp.local.";
/// The stream that everybody has, by its short name.
const PATH: &str = "/main";
