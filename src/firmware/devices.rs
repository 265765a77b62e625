//! Turns devices that are there, or appear, into loaded drivers.
//!
//! The kernel announces a device with its MODALIAS (netlink uevents); for those that were there
//! before anybody listened, sysfs has the same text (cold plug). Nodes of cameras and encoders are
//! given to the group `video`, each time they appear.

use std::fs::{self, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::chown;

use super::camera::VIDEO_GROUP;
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
                if let Some(node) = video_node(event) {
                    give_to_group(node);
                }
            }
            Received::Overrun => {
                cold_plug(modules, Path::new("/sys/bus"));
                give_video_nodes();
            }
            Received::Empty => {
                let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                // An interruption is a turn for nothing.
                let _ = poll(&mut fds, PollTimeout::NONE);
            }
        }
    }
}

/// Gives those nodes to the group `video` that are there now.
pub(super) fn give_video_nodes() {
    // Media controllers are a bus, the others a class.
    for folder in ["/sys/class/video4linux", "/sys/bus/media/devices"] {
        for device in entries(Path::new(folder)) {
            let uevent = fs::read_to_string(device.join("uevent")).unwrap_or_default();
            let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="));
            if let Some(name) = name {
                give_to_group(name);
            }
        }
    }
}

fn give_to_group(name: &str) {
    let node = Path::new("/dev").join(name);
    let given = chown(&node, None, Some(VIDEO_GROUP)).map_err(std::io::Error::from);
    // The group first: until then the mode would open it to another.
    match given.and_then(|()| fs::set_permissions(&node, Permissions::from_mode(0o660))) {
        Ok(()) => log::debug!("firmware: {} is for group video", node.display()),
        // It may be gone again, and comes with a new event.
        Err(error) => log::warn!("firmware: {} cannot be given error={error}", node.display()),
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

/// The node, below /dev, of a video or media device that has appeared.
fn video_node(event: &[u8]) -> Option<&str> {
    let mut fields = event.split(|&byte| byte == 0).filter_map(|field| str::from_utf8(field).ok());
    let (action, _) = fields.next()?.split_once('@')?;
    let value =
        |name: &str| fields.clone().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    let is_video = VIDEO_SUBSYSTEMS.contains(&value("SUBSYSTEM")?);
    let name = value("DEVNAME")?;
    (action == "add" && is_video && !name.contains("..")).then_some(name)
}

/// Cameras, M2M encoders and their sub-devices; media controllers.
const VIDEO_SUBSYSTEMS: [&str; 2] = ["video4linux", "media"];

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
    fn nodes_of_video_and_media_devices_are_found_when_they_appear() {
        let event = |action: &str, subsystem: &str, name: &str| {
            let fields = format!("SUBSYSTEM={subsystem}\0MAJOR=81\0DEVNAME={name}\0");
            format!("{action}@/devices/x\0ACTION={action}\0{fields}").into_bytes()
        };
        let cases = [
            ("add", "video4linux", "video0", Some("video0")),
            ("add", "video4linux", "v4l-subdev3", Some("v4l-subdev3")),
            ("add", "media", "media0", Some("media0")),
            ("remove", "video4linux", "video0", None),
            ("change", "video4linux", "video0", None),
            ("add", "block", "mmcblk0", None),
            ("add", "media", "../proc/x", None),
        ];
        for (action, subsystem, name, wanted) in cases {
            let event = event(action, subsystem, name);
            assert_eq!(video_node(&event), wanted, "{action} {subsystem} {name}");
        }
        assert_eq!(video_node(b"add@/x\0SUBSYSTEM=video4linux\0"), None);
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
