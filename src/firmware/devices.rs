//! Turns devices that are there, or appear, into loaded drivers.
//!
//! The kernel announces a device with its MODALIAS (netlink uevents); for those that were there
//! before anybody listened, sysfs has the same text (cold plug).
//!
//! Not implemented: owners and permissions of device nodes.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::modules::Modules;
use crate::sys::uevent::{Received, UeventSocket};

/// Loads drivers for what is there, then for what comes. Returns only if it cannot listen.
pub(super) fn watch(modules: &Modules) {
    // Listening comes first: a device that appears during the walk is then seen at least once.
    let socket = UeventSocket::open();
    cold_plug(modules, Path::new("/sys/bus"));
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => {
            log::error!("firmware: devices cannot be watched error={error}");
            return;
        }
    };
    let mut buffer = vec![0; MAX_UEVENT_LEN];
    loop {
        match socket.receive(&mut buffer) {
            Received::Event(event) => {
                if let Some(modalias) = modalias(event) {
                    modules.load_for(modalias);
                }
            }
            Received::Overrun => cold_plug(modules, Path::new("/sys/bus")),
            Received::Empty => {
                let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                // An interruption is a turn for nothing.
                let _ = poll(&mut fds, PollTimeout::NONE);
            }
        }
    }
}

/// Reads /sys/bus/*/devices/*/modalias.
fn cold_plug(modules: &Modules, buses: &Path) {
    for bus in entries(buses) {
        for device in entries(&bus.join("devices")) {
            // Most devices have none.
            if let Ok(modalias) = fs::read_to_string(device.join("modalias")) {
                modules.load_for(modalias.trim_end());
            }
        }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path()))
}

/// The alias of a device that is not being removed.
fn modalias(event: &[u8]) -> Option<&str> {
    let mut fields = event.split(|&byte| byte == 0).filter_map(|field| str::from_utf8(field).ok());
    let (action, _) = fields.next()?.split_once('@')?;
    if action == "remove" {
        return None;
    }
    fields.find_map(|field| field.strip_prefix("MODALIAS=")).filter(|alias| !alias.is_empty())
}

/// The kernel's UEVENT_BUFFER_SIZE is 2048, and a header comes before it.
const MAX_UEVENT_LEN: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alias_of_a_new_device_is_found() {
        let event =
            b"add@/devices/x\0ACTION=add\0SUBSYSTEM=virtio\0MODALIAS=virtio:d1v2\0SEQNUM=9\0";
        assert_eq!(modalias(event), Some("virtio:d1v2"));
    }

    #[test]
    fn removed_and_nameless_devices_and_damaged_events_have_no_alias() {
        let events: [&[u8]; 5] = [
            b"remove@/devices/x\0ACTION=remove\0MODALIAS=virtio:d1v2\0",
            b"add@/devices/x\0ACTION=add\0MODALIAS=\0",
            b"libudev\0MODALIAS=x\0",
            b"",
            b"add@/x\0MODALIAS=\xff\xfe\0",
        ];
        for event in events {
            assert_eq!(modalias(event), None, "{}", event.escape_ascii());
        }
    }
}
