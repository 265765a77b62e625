//! Chooses the groups that streams are sent to: the configuration's, or this machine's own.
//!
//! Two cameras in one group would be one broken picture, so the default is made from the hardware
//! address: the same at every start, and hardly ever another camera's. From the ranges that are
//! for that: 239.255.0.0/16, which no organisation lets out (RFC 2365 6.1), and ff15::/96 with the
//! group numbers that hosts choose themselves (RFC 3307 4.3, site-local scope, because a smaller
//! one would need the viewer's interface in the URL); for one source 232.0.0.0/8 from 232.0.1.0 on
//! and ff35::/96 (RFC 4607 1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;
use ocellus::config::{self, Config};
use ocellus::rtsp::Multicast;
use sha2::{Digest as _, Sha256};

/// Where stream `index` goes, if it may be asked for by multicast.
pub(super) fn of(config: &Config, index: usize) -> Option<Multicast> {
    let settings = &config.rtsp.multicast;
    settings.enabled.then_some(())?;
    let index = u16::try_from(index).ok()?;
    let (ipv4, ipv6) = groups(settings, || hardware(&config.network.hostname), index)?;
    Some(Multicast {
        ipv4,
        ipv6,
        port: settings.port.checked_add(index.checked_mul(2)?).filter(|port| *port < u16::MAX)?,
        ttl: settings.ttl,
        is_source_specific: settings.source_specific,
    })
}

type Groups = (Option<Ipv4Addr>, Option<Ipv6Addr>);

/// The groups of stream `index`: the addresses after those of the main stream.
fn groups(
    settings: &config::Multicast,
    hardware: impl FnOnce() -> [u8; 32],
    index: u16,
) -> Option<Groups> {
    let next_v4 = |address: Ipv4Addr| {
        let next = address.to_bits().checked_add(index.into()).map(Ipv4Addr::from_bits);
        next.filter(Ipv4Addr::is_multicast)
    };
    let next_v6 = |address: Ipv6Addr| {
        let next = address.to_bits().checked_add(index.into()).map(Ipv6Addr::from_bits);
        next.filter(Ipv6Addr::is_multicast)
    };
    match settings.group {
        Some(IpAddr::V4(address)) => return Some((Some(next_v4(address)?), None)),
        Some(IpAddr::V6(address)) => return Some((None, Some(next_v6(address)?))),
        None => {}
    }
    let [a, b, c, d, ..] = hardware();
    // A few addresses are left at the end for further streams, and 0 and 255 are for nobody.
    let last = 1 + d % 240;
    let (ipv4, scope) = match settings.source_specific {
        false => (Ipv4Addr::new(239, 255, c, last), 0xff15),
        true => (Ipv4Addr::new(232, a | 1, c, last), 0xff35),
    };
    let [high, low] = [0x8000 | u16::from_be_bytes([a, b]), u16::from_be_bytes([c, last])];
    let ipv6 = Ipv6Addr::new(scope, 0, 0, 0, 0, 0, high, low);
    Some((Some(next_v4(ipv4)?), Some(next_v6(ipv6)?)))
}

/// A hash of the first hardware address, or of the host's name where there is none.
fn hardware(hostname: &str) -> [u8; 32] {
    let interfaces = getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|it| it.address?.as_link_addr()?.addr());
    let first = addresses.into_iter().find(|address| address.iter().any(|byte| *byte != 0));
    let hash = match first {
        Some(address) => Sha256::digest(address),
        None => Sha256::digest(hostname),
    };
    hash.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(settings: &config::Multicast, byte: u8, index: u16) -> (String, String) {
        let (ipv4, ipv6) = groups(settings, || [byte; 32], index).unwrap();
        (ipv4.unwrap().to_string(), ipv6.unwrap().to_string())
    }

    #[test]
    fn every_machine_gets_groups_of_its_own_from_the_ranges_for_that() {
        for is_source_specific in [false, true] {
            let settings = config::Multicast {
                source_specific: is_source_specific,
                ..config::Multicast::default()
            };
            let (v4, v6) =
                if is_source_specific { ("232.", "ff35::") } else { ("239.255.", "ff15::") };
            for byte in 0..=255 {
                let (main, main_v6) = texts(&settings, byte, 0);
                let (sub, sub_v6) = texts(&settings, byte, 1);
                assert!(main.starts_with(v4) && sub.starts_with(v4) && main != sub, "{main}");
                assert!(main_v6.starts_with(v6) && sub_v6.starts_with(v6) && main_v6 != sub_v6);
                assert!(!main.starts_with("232.0.0."));
            }
        }
    }

    #[test]
    fn a_group_of_the_owners_choice_is_of_one_family() {
        let group = |text: &str, index| {
            let group = Some(text.parse().unwrap());
            let settings = config::Multicast { group, ..config::Multicast::default() };
            groups(&settings, || panic!("not asked for"), index)
        };
        let v4 = |text: &str| Some((Some(text.parse().unwrap()), None));
        assert_eq!(group("239.1.2.3", 0), v4("239.1.2.3"));
        assert_eq!(group("239.1.2.255", 1), v4("239.1.3.0"));
        assert_eq!(group("239.255.255.255", 1), None);
        assert_eq!(group("ff15::1", 1), Some((None, Some("ff15::2".parse().unwrap()))));
    }

    #[test]
    fn the_same_machine_has_the_same_group_again() {
        let config = Config::default();
        assert_eq!(of(&config, 0), of(&config, 0));
        assert_eq!(of(&config, 1).unwrap().port, 5006);
        assert_eq!(of(&config, 40_000), None);
        let mut off = config;
        off.rtsp.multicast.enabled = false;
        assert_eq!(of(&off, 0), None);
    }
}
