//! Where the camera has the time from, and how it writes it.

use serde::Serialize;

use super::json::{self, Entry};
use super::{Error, Zone};

/// The clock's part of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Time {
    /// Names or addresses of SNTP servers, best first; none: those that DHCP names.
    pub ntp: Vec<String>,
    /// Of the times that people read: the overlay's.
    #[serde(serialize_with = "json::as_text")]
    pub zone: Zone,
}

impl Time {
    pub(super) fn read(entry: &Entry<'_>) -> Result<Self, Error> {
        let object = entry.object(&["ntp", "zone"])?;
        let server = |entry: &Entry<'_>| entry.text_that(is_host, HOSTS);
        Ok(Self {
            ntp: object.get("ntp", Vec::new(), |entry| entry.list(server))?,
            zone: object.get("zone", Zone::default(), Entry::parsed)?,
        })
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        if self.ntp.len() <= MAX_SERVERS {
            return Ok(());
        }
        Err(Error::NotAllowed {
            path: "time.ntp".into(),
            value: format!("a list of {}", self.ntp.len()),
            allowed: "a list of at most 4 servers".into(),
        })
    }
}

/// An address, or a name by RFC 1123 2.1.
fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    // 192.168.1.300 is no name: the last label of a name is not all digits.
    let is_number = text.rsplit('.').next().is_some_and(|last| last.parse::<u64>().is_ok());
    text.len() <= 253 && !is_number && text.split('.').all(is_label)
}

const HOSTS: &str = "an address or a host name, like 192.168.1.1 or ntp.example.org";
/// More do not make the time better: the first that answers is believed.
const MAX_SERVERS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_and_names() {
        for host in ["192.0.2.1", "2001:db8::1", "ntp", "0.pool.example.org", "a-b.example"] {
            assert!(is_host(host), "{host}");
        }
        let long = format!("{}.example", "x".repeat(64));
        for host in [
            "",
            ".",
            "a..b",
            "a.",
            "-a",
            "a-",
            "a b",
            "192.0.2.300",
            "192.0.2.1:123",
            "[::1]",
            "a_b",
            &long,
        ] {
            assert!(!is_host(host), "{host}");
        }
    }
}
