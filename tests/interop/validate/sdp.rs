//! Judges the session description: S1 to S4 and S6; `picture` has S5.
//!
//! RFC 4566 and RFC 2326 C; for H.264, RFC 6184 8.1 and 8.2.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sdp_types::Session as Sdp;

use crate::nal;

use super::session::Session;
use super::{Expect, Findings};

/// What the rules on media take from the description.
#[derive(Debug, Default)]
pub(super) struct Description {
    /// Event of the DESCRIBE reply.
    pub(super) event: usize,
    pub(super) payload_type: Option<u8>,
    /// Empty, like `pps`, where S4 found them wanting.
    pub(super) sps: Vec<u8>,
    pub(super) pps: Vec<u8>,
    /// Absolute URL of the stream: Content-Base and its `a=control`.
    pub(super) control: String,
}

pub(super) fn check(
    session: &Session<'_>,
    expect: &Expect<'_>,
    findings: &mut Findings,
) -> Description {
    let mut description = Description::default();
    for exchange in session.exchanges.iter().filter(|exchange| exchange.is("DESCRIBE", 200)) {
        description = Description { event: exchange.answered, ..Description::default() };
        let text = String::from_utf8_lossy(&exchange.reply.body).into_owned();
        check_lines(&text, exchange.answered, findings);
        match Sdp::parse(&exchange.reply.body) {
            Ok(sdp) => {
                let base = exchange.reply.header("Content-Base").unwrap_or("");
                check_media(&sdp, base, &mut description, expect, findings);
            }
            Err(error) => findings.add("S1", exchange.answered, format!("no SDP: {error}")),
        }
    }
    description
}

/// S2: CRLF, `v o s c t` in this order, each once (RFC 4566 5).
fn check_lines(text: &str, event: usize, findings: &mut Findings) {
    let ends = text.ends_with("\r\n") && text.matches('\n').count() == text.matches("\r\n").count();
    findings.check(ends, "S2", event, "lines do not all end in CRLF");
    let session_part = text.split("\r\nm=").next().unwrap_or(text);
    let kinds: String = session_part.lines().filter_map(|line| line.chars().next()).collect();
    let fixed: String = kinds.chars().filter(|kind| "vosct".contains(*kind)).collect();
    findings.check(fixed == "vosct", "S2", event, format!("order of lines is {kinds}"));
    let attributes_last = kinds.trim_end_matches('a').chars().all(|kind| kind != 'a');
    findings.check(attributes_last, "S2", event, "attributes before the end of the session part");
    let trailing_space = text.lines().any(|line| line.trim_end() != line);
    findings.check(!trailing_space, "S2", event, "a line ends in white space");
}

/// S3: one video stream, declared as every client reads it.
fn check_media(
    sdp: &Sdp,
    base: &str,
    description: &mut Description,
    expect: &Expect<'_>,
    findings: &mut Findings,
) {
    let event = description.event;
    let mut require = |holds: bool, what: &str| findings.check(holds, "S3", event, what);
    let [media] = &sdp.medias[..] else {
        return require(false, "not exactly one media description");
    };
    let attribute = |name: &str| {
        let found = media.attributes.iter().find(|attribute| attribute.attribute == name);
        found.map(|attribute| attribute.value.clone().unwrap_or_default())
    };
    require(media.media == "video" && media.port == 0, "not `m=video 0`");
    require(media.proto == "RTP/AVP", "not RTP/AVP");
    description.payload_type = media.fmt.parse().ok().filter(|number| (96..128).contains(number));
    require(description.payload_type.is_some(), "payload type is not dynamic");
    let rtpmap = format!("{} H264/90000", media.fmt);
    require(attribute("rtpmap").as_deref() == Some(rtpmap.as_str()), "rtpmap is not H264/90000");
    require(attribute("sendonly").is_none(), "sendonly, which means a back channel to gortsplib");
    let control = attribute("control").unwrap_or_default();
    require(!control.is_empty() && !control.starts_with('/'), "no relative or absolute control");
    description.control = match control.starts_with("rtsp://") {
        true => control,
        // R2 judges the slash.
        false => format!("{}/{control}", base.trim_end_matches('/')),
    };
    let fmtp = attribute("fmtp").unwrap_or_default();
    let (format, parameters) = fmtp.split_once(' ').unwrap_or(("", ""));
    require(format == media.fmt, "fmtp is of another format");
    let parameter = |name: &str| {
        let mut parts = parameters.split(';').filter_map(|part| part.trim().split_once('='));
        parts.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    require(parameter("packetization-mode").as_deref() == Some("1"), "packetization-mode is not 1");
    if let Some(rate) = attribute("framerate") {
        let close = rate.parse::<f64>().is_ok_and(|rate| (rate - expect.fps).abs() < 1.0);
        findings.check(close, "S6", event, format!("a=framerate:{rate}, not {}", expect.fps));
    }
    let profile = parameter("profile-level-id").unwrap_or_default();
    let sets = parameter("sprop-parameter-sets").unwrap_or_default();
    check_parameter_sets(&profile, &sets, description, findings);
    check_size(description, expect, findings);
}

/// S4: `sprop-parameter-sets` is one SPS and one PPS, and agrees with `profile-level-id`.
fn check_parameter_sets(
    profile: &str,
    sets: &str,
    description: &mut Description,
    findings: &mut Findings,
) {
    let event = description.event;
    let before = findings.violations.len();
    let mut require = |holds: bool, what: &str| findings.check(holds, "S4", event, what);
    let decoded: Option<Vec<Vec<u8>>> =
        sets.split(',').map(|set| STANDARD.decode(set).ok()).collect();
    let Some([sps, pps]) = decoded.and_then(|sets| <[Vec<u8>; 2]>::try_from(sets).ok()) else {
        return require(false, "not two base64 parameter sets");
    };
    require(nal::kind(&sps) == nal::SPS && nal::kind(&pps) == nal::PPS, "not an SPS and a PPS");
    for set in [&sps, &pps] {
        require(!set.starts_with(&[0, 0]), "a start code in a parameter set");
        require(set.last() != Some(&0), "a parameter set ends in a zero byte");
    }
    let expected: String = sps.iter().skip(1).take(3).map(|byte| format!("{byte:02X}")).collect();
    require(profile.eq_ignore_ascii_case(&expected), "profile-level-id differs from the SPS");
    if findings.violations.len() == before {
        (description.sps, description.pps) = (sps, pps);
    }
}

/// S6: the SPS has the size that was configured.
fn check_size(description: &Description, expect: &Expect<'_>, findings: &mut Findings) {
    if nal::kind(&description.sps) != nal::SPS {
        return;
    }
    let size = nal::parse_sps(&description.sps)
        .and_then(|sps| sps.pixel_dimensions().map_err(|error| format!("{error:?}")));
    let right = size.as_ref() == Ok(&expect.size);
    findings.check(right, "S6", description.event, format!("size {size:?}, not {:?}", expect.size));
}
