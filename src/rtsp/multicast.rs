//! Finds the group that a stream is sent to for those who come over one connection.
//!
//! RFC 2326 12.39 (multicast), RFC 1112 and RFC 4291 2.7 (groups), RFC 4607 (one source).
//!
//! A group is sent out where the connection came in: its packets bear the address that the viewer
//! knows the camera by, which is what a source-specific membership names. Who comes over loopback
//! joins where the routing table says, and so the packets go there, except to a source-specific
//! group, whose source has to be known beforehand.
//!
//! Not implemented: a group of the viewer's choice. What a client names as `destination` and
//! `port` would make the camera a tool against others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where a stream is sent while somebody has asked for it by multicast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multicast {
    /// The group for those who connect over IPv4, and for all without the other.
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    /// RTP's; RTCP's is the next.
    pub port: u16,
    /// Routers and the camera's own link that a packet may cross.
    pub ttl: u8,
    /// Whether viewers join the group for this camera alone (RFC 4607).
    pub is_source_specific: bool,
}

/// A group as one viewer is told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub rtp: SocketAddr,
    pub rtcp: SocketAddr,
    pub ttl: u8,
    /// What a source-specific membership names.
    pub source: Option<IpAddr>,
    /// The address to send from; `None` where the routing table decides.
    pub from: Option<SocketAddr>,
}

impl Multicast {
    /// The group for a viewer who is connected to `local`; `None` when there is none.
    pub(super) fn group_at(&self, local: SocketAddr) -> Option<Group> {
        // Its scope, if it has one, is where to send.
        let own = match local {
            SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => local,
            _ => SocketAddr::new(local.ip().to_canonical(), 0),
        };
        let (ipv4, ipv6) = (self.ipv4.map(IpAddr::V4), self.ipv6.map(IpAddr::V6));
        let (same, other) = if own.is_ipv4() { (ipv4, ipv6) } else { (ipv6, ipv4) };
        let address = match same {
            Some(address) => address,
            // A source of the other family is not known.
            None => other.filter(|_| !self.is_source_specific)?,
        };
        let is_known = same.is_some() && (self.is_source_specific || !own.ip().is_loopback());
        let mut from = own;
        from.set_port(0);
        Some(Group {
            rtp: SocketAddr::new(address, self.port),
            rtcp: SocketAddr::new(address, self.port.checked_add(1)?),
            ttl: self.ttl,
            source: self.is_source_specific.then_some(own.ip()),
            from: is_known.then_some(from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Multicast = Multicast {
        ipv4: Some(Ipv4Addr::new(239, 255, 1, 2)),
        ipv6: Some(Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0x8000, 1)),
        port: 5004,
        ttl: 1,
        is_source_specific: false,
    };

    fn group(multicast: Multicast, local: &str) -> Option<(String, Option<String>)> {
        let group = multicast.group_at(local.parse().unwrap())?;
        assert_eq!(group.rtcp, SocketAddr::new(group.rtp.ip(), group.rtp.port() + 1));
        let source = group.from.map(|from| from.to_string());
        if multicast.is_source_specific {
            assert_eq!(group.source, group.from.map(|from| from.ip()));
        } else {
            assert_eq!(group.source, None);
        }
        Some((group.rtp.to_string(), source))
    }

    #[test]
    fn a_group_is_of_the_connections_family_and_goes_where_that_came_in() {
        let some = |group: &str, from: &str| Some((group.into(), Some(from.into())));
        let (v4, v6) = ("239.255.1.2:5004", "[ff15::8000:1]:5004");
        assert_eq!(group(BOTH, "192.0.2.1:554"), some(v4, "192.0.2.1:0"));
        assert_eq!(group(BOTH, "[::ffff:192.0.2.1]:554"), some(v4, "192.0.2.1:0"));
        assert_eq!(group(BOTH, "[2001:db8::1]:554"), some(v6, "[2001:db8::1]:0"));
        assert_eq!(group(BOTH, "[fe80::1%3]:554"), some(v6, "[fe80::1%3]:0"));
        assert_eq!(group(BOTH, "127.0.0.1:554"), Some((v4.into(), None)));
        assert_eq!(group(BOTH, "[::1]:554"), Some((v6.into(), None)));
    }

    #[test]
    fn without_a_group_of_its_family_a_connection_gets_the_other_if_the_source_does_not_matter() {
        let one = Multicast { ipv6: None, ..BOTH };
        assert_eq!(group(one, "[2001:db8::1]:554"), Some(("239.255.1.2:5004".into(), None)));
        let specific = Multicast { is_source_specific: true, ..one };
        assert_eq!(group(specific, "[2001:db8::1]:554"), None);
        let known = Some(("239.255.1.2:5004".into(), Some("127.0.0.1:0".into())));
        assert_eq!(group(specific, "127.0.0.1:554"), known);
        assert_eq!(group(Multicast { ipv4: None, ipv6: None, ..BOTH }, "127.0.0.1:554"), None);
    }
}
