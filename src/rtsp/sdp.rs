//! Turns a stream and its parameter sets into the SDP that DESCRIBE answers with.
//!
//! RFC 4566 (8866), RFC 2326 appendix C, RFC 6184 8.2, RFC 4570 (source filters).
//!
//! A group is named only under its own URL: VLC joins what it reads in a `c=` line.
//!
//! Not implemented: audio, metadata.

use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::multicast::Group;
use super::settings::Stream;
use super::url::{TRACK_CONTROL, Url};
use crate::h264::ParameterSets;

/// What a description is made of.
#[derive(Debug)]
pub(super) struct Presentation<'a> {
    pub stream: &'a Stream,
    pub sets: &'a ParameterSets,
    pub bandwidth_kbps: u32,
    /// Where it is sent to, for those who ask for multicast.
    pub group: Option<Group>,
    /// The same for as long as this process lives.
    pub id: u32,
    /// Counts changes of what is described.
    pub version: u32,
}

impl Presentation<'_> {
    /// Writes the description. The order of lines is fixed by RFC 4566 5.
    pub(super) fn emit(&self, url: &Url<'_>, local: SocketAddr) -> String {
        let Self { stream, sets, bandwidth_kbps, group, id, version } = self;
        let address = local.ip().to_canonical();
        let (kind, any) = if address.is_ipv4() { ("IP4", "0.0.0.0") } else { ("IP6", "::") };
        let (connection, filter, port) = match group {
            None => (format!("{kind} {any}"), String::new(), 0),
            Some(group) => (connection(group), source_filter(group), group.rtp.port()),
        };
        let name = one_line(&stream.name);
        // Relative, so that clients that append and clients that resolve (RFC 3986) arrive at the
        // same URL. With a query they would not: then the control URLs are absolute.
        let (aggregate, control) = match url.has_query {
            true => (url.base(local), url.track_url(local)),
            false => ("*".to_owned(), TRACK_CONTROL.to_owned()),
        };
        let [profile, constraints, level] = sets.profile_level_id();
        let (sps, pps) = (STANDARD.encode(sets.sps()), STANDARD.encode(sets.pps()));
        let framerate = match stream.fps {
            fps if fps.is_finite() && fps > 0.0 => {
                format!("a=framerate:{}\r\n", (fps * 1_000.0).round() / 1_000.0)
            }
            _ => String::new(),
        };
        format!(
            "v=0\r\n\
             o=- {id} {version} IN {kind} {address}\r\n\
             s={name}\r\n\
             c=IN {connection}\r\n\
             t=0 0\r\n\
             a=control:{aggregate}\r\n\
             a=range:npt=now-\r\n\
             {filter}\
             m=video {port} RTP/AVP 96\r\n\
             b=AS:{bandwidth_kbps}\r\n\
             a=rtpmap:96 H264/90000\r\n\
             a=fmtp:96 packetization-mode=1;profile-level-id={profile:02X}{constraints:02X}{level:02X};\
             sprop-parameter-sets={sps},{pps}\r\n\
             {framerate}\
             a=control:{control}\r\n"
        )
    }
}

/// RFC 4566 5.7: the TTL belongs to the address, but only to IPv4's.
fn connection(group: &Group) -> String {
    match group.rtp.ip() {
        IpAddr::V4(address) => format!("IP4 {address}/{}", group.ttl),
        IpAddr::V6(address) => format!("IP6 {address}"),
    }
}

/// RFC 4570 3: whose packets are to be let in.
fn source_filter(group: &Group) -> String {
    let address = group.rtp.ip();
    let kind = if address.is_ipv4() { "IP4" } else { "IP6" };
    let filter = |source| format!("a=source-filter: incl IN {kind} {address} {source}\r\n");
    group.source.map(filter).unwrap_or_default()
}

/// `s=` must not be empty (RFC 4566 5.3), and a name that a user chose must not add lines.
fn one_line(name: &str) -> String {
    let name = name.replace(char::is_control, " ");
    if name.trim().is_empty() { "-".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str, fps: f64) -> Stream {
        Stream {
            paths: vec!["main".into()],
            name: name.into(),
            ssrc: 1,
            bandwidth_kbps: 2_000,
            fps,
            multicast: None,
        }
    }

    fn emit(stream: &Stream, url: &str, local: &str) -> String {
        emit_group(stream, url, local, None)
    }

    fn emit_group(stream: &Stream, url: &str, local: &str, group: Option<Group>) -> String {
        let sets = crate::rtsp::tests::parameter_sets();
        let presentation = Presentation {
            stream,
            sets: &sets,
            bandwidth_kbps: stream.bandwidth_kbps,
            group,
            id: 1_700_000_000,
            version: 3,
        };
        presentation.emit(&Url::parse(url).unwrap(), local.parse().unwrap())
    }

    #[test]
    fn sdp_types_reads_what_is_written() {
        let text =
            emit(&stream("front door", 29.97), "rtsp://cam/main", "[::ffff:192.0.2.10]:8554");
        let sdp = sdp_types::Session::parse(text.as_bytes()).unwrap();
        assert_eq!(sdp.session_name, "front door");
        assert_eq!(
            (sdp.origin.sess_version, sdp.origin.unicast_address.as_str()),
            (3, "192.0.2.10")
        );
        let media = &sdp.medias[0];
        assert_eq!((media.media.as_str(), media.port, media.fmt.as_str()), ("video", 0, "96"));
        let attribute = |name| media.get_first_attribute_value(name).unwrap().unwrap();
        assert_eq!(attribute("rtpmap"), "96 H264/90000");
        assert_eq!(attribute("control"), "trackID=0");
        assert_eq!(attribute("framerate"), "29.97");
        let sets = crate::rtsp::tests::parameter_sets();
        let (_, sprop) = attribute("fmtp").split_once("sprop-parameter-sets=").unwrap();
        let decoded = sprop.split(',').map(|set| STANDARD.decode(set).unwrap()).collect::<Vec<_>>();
        assert_eq!(decoded, [sets.sps(), sets.pps()]);
        assert!(attribute("fmtp").contains("profile-level-id=64000A;"));
        assert!(text.split("\r\n").all(|line| !line.contains(['\r', '\n'])));
    }

    #[test]
    fn names_and_rates_that_do_not_fit_are_left_out() {
        for fps in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(!emit(&stream("x", fps), "rtsp://cam/", "[::1]:554").contains("framerate"));
        }
        let text = emit(&stream("a\r\nm=audio", 25.0), "rtsp://cam/", "[2001:db8::1]:554");
        assert!(text.contains("s=a  m=audio\r\n") && text.contains("a=framerate:25\r\n"));
        assert!(text.contains("IN IP6 2001:db8::1\r\n") && text.contains("c=IN IP6 ::\r\n"));
        assert!(emit(&stream("", 25.0), "rtsp://cam/", "[::1]:554").contains("s=-\r\n"));
    }

    #[test]
    fn a_query_makes_control_urls_absolute() {
        let text = emit(&stream("x", 25.0), "rtsp://cam/main?a=1", "192.0.2.10:554");
        assert!(text.contains("\r\na=control:rtsp://cam/main/\r\n"));
        assert!(text.ends_with("\r\na=control:rtsp://cam/main/trackID=0\r\n"));
    }

    #[test]
    fn a_group_is_named_with_its_port_and_with_its_source_when_that_matters() {
        let group = |rtp: &str, source: Option<&str>| {
            let rtp: SocketAddr = rtp.parse().unwrap();
            let source = source.map(|source| source.parse().unwrap());
            Some(Group { rtp, rtcp: rtp, ttl: 4, source, from: None })
        };
        let url = "rtsp://cam/main/multicast";
        let text =
            |rtp, source| emit_group(&stream("x", 25.0), url, "192.0.2.10:554", group(rtp, source));
        let any = text("239.255.1.2:5004", None);
        assert!(any.contains("\r\nc=IN IP4 239.255.1.2/4\r\n") && !any.contains("source-filter"));
        assert!(any.contains("\r\nm=video 5004 RTP/AVP 96\r\n"));
        let one = text("232.0.1.2:5004", Some("192.0.2.10"));
        let filter = "a=source-filter: incl IN IP4 232.0.1.2 192.0.2.10\r\nm=video";
        assert!(one.contains(filter), "{one}");
        let ipv6 = text("[ff35::8000:1]:6000", Some("2001:db8::1"));
        assert!(ipv6.contains("\r\nc=IN IP6 ff35::8000:1\r\n") && ipv6.contains("m=video 6000 "));
        assert!(ipv6.contains("incl IN IP6 ff35::8000:1 2001:db8::1\r\n"));
        for text in [any, one, ipv6] {
            assert_eq!(sdp_types::Session::parse(text.as_bytes()).unwrap().medias.len(), 1);
        }
    }
}
