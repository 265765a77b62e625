//! Reads Transport headers and chooses the one transport that a SETUP gets.
//!
//! RFC 2326 12.39.
//!
//! Not implemented: `RTP/SAVP`, `RTP/AVPF`, `mode=RECORD`, and sending to a `destination` of the
//! client's: media goes to the address that the request came from, or to the group that the camera
//! was configured with, or it would be a tool against others.

use std::fmt;

use super::multicast::Group;

/// What one alternative of a Transport header asks for, if it can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transport<'a> {
    /// As the client spelled it: the answer repeats it.
    protocol: &'a str,
    pub lower: Lower,
}

/// The lower transport and where the client wants its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lower {
    /// On these two channels of the connection.
    Interleaved { rtp_channel: u8, rtcp_channel: u8 },
    /// At these two ports of the client.
    Udp { rtp_port: u16, rtcp_port: u16 },
    /// In this group.
    Multicast(Group),
}

/// What a client may choose from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub has_interleaved: bool,
    pub has_udp: bool,
    pub group: Option<Group>,
}

/// The client's first alternative that can be had, over all its Transport headers.
pub(super) fn choose<'a>(
    headers: impl Iterator<Item = &'a str>,
    offer: Offer,
) -> Option<Transport<'a>> {
    let mut alternatives = headers.flat_map(|header| header.split(','));
    alternatives.find_map(|text| {
        parse(text, offer.group).filter(|transport| match transport.lower {
            Lower::Interleaved { .. } => offer.has_interleaved,
            Lower::Udp { .. } => offer.has_udp,
            Lower::Multicast(_) => true,
        })
    })
}

impl Transport<'_> {
    /// The header of the answer: one transport, of the kind that was asked for.
    pub(super) fn reply(&self, server_ports: (u16, u16), ssrc: u32) -> impl fmt::Display {
        let protocol = self.protocol;
        match self.lower {
            Lower::Interleaved { rtp_channel, rtcp_channel } => format!(
                "{protocol};unicast;interleaved={rtp_channel}-{rtcp_channel};ssrc={ssrc:08X}"
            ),
            Lower::Udp { rtp_port, rtcp_port } => {
                let (server_rtp, server_rtcp) = server_ports;
                format!(
                    "{protocol};unicast;client_port={rtp_port}-{rtcp_port};\
                     server_port={server_rtp}-{server_rtcp};ssrc={ssrc:08X}"
                )
            }
            // RFC 2326 12.39 has `ssrc` for unicast only.
            Lower::Multicast(Group { rtp, rtcp, ttl, source, .. }) => {
                let source = source.map(|source| format!(";source={source}")).unwrap_or_default();
                let (address, first, last) = (rtp.ip(), rtp.port(), rtcp.port());
                format!(
                    "{protocol};multicast;destination={address};port={first}-{last};ttl={ttl}{source}"
                )
            }
        }
    }
}

/// One alternative; `None` when it cannot be had.
fn parse(text: &str, group: Option<Group>) -> Option<Transport<'_>> {
    let mut parameters = text.split(';').map(str::trim);
    let protocol = parameters.next()?;
    let is_tcp = protocol.eq_ignore_ascii_case("RTP/AVP/TCP");
    if !is_tcp && !["RTP/AVP", "RTP/AVP/UDP"].iter().any(|udp| protocol.eq_ignore_ascii_case(udp)) {
        return None;
    }
    let mut client_port = None;
    let mut interleaved = None;
    let mut is_multicast = None;
    for parameter in parameters {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "multicast" => is_multicast = Some(true),
            "unicast" => is_multicast = Some(false),
            "mode" if !value.trim().trim_matches('"').eq_ignore_ascii_case("play") => return None,
            "client_port" => client_port = Some(range(value)?),
            "interleaved" => interleaved = Some(range(value)?),
            // `destination`, `port`, `ttl`, `append`, `ssrc` and strangers decide nothing here.
            _ => {}
        }
    }
    // `unicast` may be missing (yellowstone) where ports or channels say it as clearly; without
    // those, RFC 2326 12.39 makes it multicast.
    let is_multicast = is_multicast.unwrap_or_else(|| !is_tcp && client_port.is_none());
    let lower = if is_multicast {
        Lower::Multicast(group.filter(|_| !is_tcp)?)
    } else if is_tcp {
        let (rtp, rtcp) = interleaved.unwrap_or(DEFAULT_CHANNELS);
        let (rtp_channel, rtcp_channel) = (u8::try_from(rtp).ok()?, u8::try_from(rtcp).ok()?);
        (rtp_channel.checked_add(1)? == rtcp_channel)
            .then_some(Lower::Interleaved { rtp_channel, rtcp_channel })?
    } else {
        let (rtp_port, rtcp_port) = client_port?;
        (rtp_port > 0 && rtp_port % 2 == 0 && rtcp_port > rtp_port)
            .then_some(Lower::Udp { rtp_port, rtcp_port })?
    };
    Some(Transport { protocol, lower })
}

/// `a-b`, or `a` alone, which means `a` and the next one.
fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        let text = text.trim();
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten()
    };
    match text.split_once('-') {
        Some((first, last)) => Some((number(first)?, number(last)?)),
        None => number(text).and_then(|first| Some((first, first.checked_add(1)?))),
    }
}

/// Where a client that names no channels gets its packets; a connection carries one interleaved
/// session, so they are free.
const DEFAULT_CHANNELS: (u16, u16) = (0, 1);

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Offer = Offer { has_interleaved: true, has_udp: true, group: None };

    fn reply(header: &str) -> Option<String> {
        choose([header].into_iter(), ALL)
            .map(|transport| transport.reply((8000, 8001), 0x1a_2b3c).to_string())
    }

    #[test]
    fn the_answer_is_one_transport_of_the_kind_asked_for() {
        for (asked, answer) in [
            ("RTP/AVP/TCP;unicast;interleaved=0-1", "RTP/AVP/TCP;unicast;interleaved=0-1"),
            ("RTP/AVP/TCP;interleaved=254-255", "RTP/AVP/TCP;unicast;interleaved=254-255"),
            ("RTP/AVP/TCP;interleaved=1-2", "RTP/AVP/TCP;unicast;interleaved=1-2"),
            ("RTP/AVP/TCP;unicast", "RTP/AVP/TCP;unicast;interleaved=0-1"),
            ("rtp/avp/tcp;interleaved=4", "rtp/avp/tcp;unicast;interleaved=4-5"),
            (
                "RTP/AVP/TCP;unicast;interleaved=2-3;mode=\"PLAY\"",
                "RTP/AVP/TCP;unicast;interleaved=2-3",
            ),
        ] {
            assert_eq!(reply(asked).unwrap(), format!("{answer};ssrc=001A2B3C"), "{asked}");
        }
        for (asked, answer) in [
            ("RTP/AVP;unicast;client_port=5000-5001", "RTP/AVP;unicast;client_port=5000-5001"),
            ("RTP/AVP/UDP;client_port=5000-5001", "RTP/AVP/UDP;unicast;client_port=5000-5001"),
            ("RTP/AVP;unicast; client_port = 5000", "RTP/AVP;unicast;client_port=5000-5001"),
            (
                "RTP/AVP;unicast;mode=play;client_port=65534-65535",
                "RTP/AVP;unicast;client_port=65534-65535",
            ),
            (
                "RTP/AVP;unicast;destination=203.0.113.1;client_port=6-7",
                "RTP/AVP;unicast;client_port=6-7",
            ),
            (
                "RTP/SAVP;unicast;client_port=2-3,RTP/AVP;multicast, RTP/AVP;unicast;client_port=4-5,RTP/AVP/TCP",
                "RTP/AVP;unicast;client_port=4-5",
            ),
        ] {
            let answer = format!("{answer};server_port=8000-8001;ssrc=001A2B3C");
            assert_eq!(reply(asked).unwrap(), answer, "{asked}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_not_chosen() {
        for header in [
            "",
            "garbage",
            "RTP/AVP",
            "RTP/AVP;unicast",
            "RTP/AVP;multicast;client_port=5000-5001",
            "RTP/SAVP;unicast;client_port=5000-5001",
            "RTP/AVPF/TCP;unicast;interleaved=0-1",
            "RAW/RAW/UDP;unicast;client_port=5000-5001",
            "RTP/AVP;unicast;client_port=0-0",
            "RTP/AVP;unicast;client_port=0-1",
            "RTP/AVP;unicast;client_port=70000-70001",
            "RTP/AVP;unicast;client_port=5001-5000",
            "RTP/AVP;unicast;client_port=5000-5000",
            "RTP/AVP;unicast;client_port=5001-5002",
            "RTP/AVP;unicast;client_port=-5000-5001",
            "RTP/AVP;unicast;client_port=+5000-5001",
            "RTP/AVP;unicast;client_port=",
            "RTP/AVP;unicast;client_port=65535",
            "RTP/AVP/TCP;unicast;interleaved=300-301",
            "RTP/AVP/TCP;unicast;interleaved=255-0",
            "RTP/AVP/TCP;unicast;interleaved=255-256",
            "RTP/AVP/TCP;unicast;interleaved=0-2",
            "RTP/AVP/TCP;unicast;interleaved=0-0",
            "RTP/AVP/TCP;unicast;interleaved=a-b",
            "RTP/AVP/TCP;unicast;interleaved=0-1;mode=RECORD",
            "RTP/AVP/TCP;unicast;interleaved=0-1;mode=\"record\"",
        ] {
            assert_eq!(reply(header), None, "{header}");
        }
        assert_eq!(reply(&"x".repeat(8_000)), None);
    }

    #[test]
    fn without_udp_ports_only_interleaved_delivery_is_chosen() {
        let headers = ["RTP/AVP;unicast;client_port=4-5", "RTP/AVP/TCP;unicast;interleaved=0-1"];
        let offer = Offer { has_udp: false, ..ALL };
        let chosen = choose(headers.into_iter(), offer).unwrap();
        assert_eq!(chosen.lower, Lower::Interleaved { rtp_channel: 0, rtcp_channel: 1 });
    }

    #[test]
    fn a_group_is_the_cameras_whatever_the_client_names() {
        let group = Group {
            rtp: "239.255.1.2:5004".parse().unwrap(),
            rtcp: "239.255.1.2:5005".parse().unwrap(),
            ttl: 3,
            source: None,
            from: None,
        };
        let reply = |header: &str, offer| {
            choose([header].into_iter(), offer).map(|it| it.reply((8000, 8001), 1).to_string())
        };
        let both = Offer { group: Some(group), ..ALL };
        for protocol in ["RTP/AVP", "RTP/AVP/UDP"] {
            for parameters in [
                ";multicast",
                ";MULTICAST;mode=play",
                "",
                ";multicast;destination=224.0.0.1;port=53-54;ttl=255;source=192.0.2.1",
                ";multicast;client_port=5000-5001",
            ] {
                let answer =
                    format!("{protocol};multicast;destination=239.255.1.2;port=5004-5005;ttl=3");
                assert_eq!(reply(&format!("{protocol}{parameters}"), both), Some(answer));
            }
        }
        let specific = Group { source: Some("192.0.2.1".parse().unwrap()), ..group };
        let specific = Offer { group: Some(specific), ..ALL };
        let answer = reply("RTP/AVP;multicast", specific).unwrap();
        assert!(answer.ends_with(";ttl=3;source=192.0.2.1"), "{answer}");
        for header in [
            "RTP/AVP/TCP;multicast",
            "RTP/SAVP;multicast",
            "RTP/AVP;multicast;mode=record",
            "RTP/AVP;unicast",
        ] {
            assert_eq!(reply(header, both), None, "{header}");
        }
        assert_eq!(reply("RTP/AVP;multicast", ALL), None);
        let only = Offer { has_interleaved: false, has_udp: false, group: Some(group) };
        for header in ["RTP/AVP;unicast;client_port=4-5", "RTP/AVP/TCP", "RTP/AVP;client_port=4-5"]
        {
            assert_eq!(reply(header, only), None, "{header}");
        }
    }
}
