//! Judges the RTSP dialogue: R1 to R3, R5, R7 and R8; `login` has R6, `rtp` R4, `session` R9.
//!
//! RFC 2326 with the narrower forms that clients need (INTEROP's short list, rules 6 to 16).

use rtsp_types::headers::{RtpLowerTransport, TRANSPORT, Transport, Transports};
use rtsp_types::{Response, StatusCode, Version};

use crate::capture::{Capture, Kind};

use super::Findings;
use super::session::{Exchange, Session};

pub(super) fn check(capture: &Capture, session: &Session<'_>, findings: &mut Findings) {
    for (index, exchange) in session.exchanges.iter().enumerate() {
        check_sequence_number(exchange, findings);
        if exchange.reply.status() == 401 {
            continue;
        }
        check_status(&session.exchanges[..index], exchange, findings);
        if exchange.is("DESCRIBE", 200) {
            check_description(exchange, findings);
        }
        if exchange.is("SETUP", 200) {
            check_transport(exchange, findings);
        }
    }
    check_session_ids(session, findings);
    check_survival(capture, session, findings);
}

/// R1: CSeq is echoed verbatim, also on errors (RFC 2326 12.17).
fn check_sequence_number(exchange: &Exchange, findings: &mut Findings) {
    let asked = exchange.request.header("CSeq");
    let echoed: Vec<&str> = exchange.reply.all("CSeq").collect();
    let once = echoed.len() == 1 && echoed.first().copied() == asked;
    findings.check(once, "R1", exchange.answered, format!("CSeq {asked:?} came back {echoed:?}"));
}

/// R5 and R7: the status that the request's own text calls for.
fn check_status(before: &[Exchange], exchange: &Exchange, findings: &mut Findings) {
    let Exchange { request, reply, answered, .. } = exchange;
    // A session lives from the reply that named it to the TEARDOWN that was answered.
    let lives = |id: &str| {
        let of_session = |other: &&Exchange| {
            let named = other.reply.header("Session").or_else(|| other.request.header("Session"));
            named.is_some_and(|named| named.split(';').next() == id.split(';').next())
        };
        let last = before.iter().rfind(|other| other.reply.status() == 200 && of_session(other));
        last.is_some_and(|last| last.request.method() != "TEARDOWN")
    };
    let session = request.header("Session");
    let method = request.method();
    let (rule, expected): (_, &[u16]) = if request.version() != "RTSP/1.0" {
        ("R5", &[505])
    } else if !METHODS.contains(&method) {
        ("R5", &[405, 501])
    } else if request.header("Require").is_some() {
        ("R5", &[551])
    } else if session.is_some_and(|id| !lives(id)) {
        ("R5", &[454])
    } else if matches!(method, "PLAY" | "PAUSE") && session.is_none() {
        ("R5", &[455])
    } else if method == "SETUP" && !request.header("Transport").is_some_and(is_supported) {
        ("R5", &[461])
    } else if matches!(method, "OPTIONS" | "GET_PARAMETER" | "SET_PARAMETER") {
        ("R7", &[200])
    } else {
        ("R5", &[200])
    };
    let status = reply.status();
    let what = format!("{} was answered {status}, not {expected:?}", request.start);
    findings.check(expected.contains(&status), rule, *answered, what);
    if expected == [551] {
        let named = reply.header("Unsupported") == request.header("Require");
        findings.check(named, rule, *answered, "Unsupported does not name the feature");
    }
    if method == "OPTIONS" && expected == [200] && status == 200 {
        let public = reply.header("Public").unwrap_or("");
        for method in METHODS {
            let listed = public.split(',').any(|name| name.trim() == method);
            findings.check(listed, "R7", *answered, format!("Public does not list {method}"));
        }
    }
}

fn is_supported(transport: &str) -> bool {
    ["RTP/AVP;", "RTP/AVP/UDP;", "RTP/AVP/TCP;"].iter().any(|spec| transport.starts_with(spec))
}

/// R2: a description whose URLs every client computes alike.
fn check_description(exchange: &Exchange, findings: &mut Findings) {
    let Exchange { request, reply, answered, .. } = exchange;
    let mut require = |holds: bool, what: &str| findings.check(holds, "R2", *answered, what);
    require(reply.header("Content-Type") == Some("application/sdp"), "Content-Type");
    let length = reply.header("Content-Length").and_then(|value| value.parse().ok());
    require(length == Some(reply.body.len()), "Content-Length is not the body's length");
    require(!reply.body.is_empty(), "an empty description");
    let base = reply.header("Content-Base").unwrap_or("");
    require(base.ends_with('/'), "Content-Base does not end in a slash");
    require(!base.contains('?'), "Content-Base has a query");
    let asked = request.uri().trim_end_matches('/');
    require(base.trim_end_matches('/') == asked, "Content-Base is not the URL that was asked for");
}

/// R3: exactly one transport, of the kind that was asked for, every range well formed.
fn check_transport(exchange: &Exchange, findings: &mut Findings) {
    let Exchange { request, reply, answered, .. } = exchange;
    let mut require = |holds: bool, what: &str| findings.check(holds, "R3", *answered, what);
    let [asked, got] = [request, reply].map(|message| message.header("Transport").unwrap_or(""));
    let strict = Response::builder(Version::V1_0, StatusCode::Ok).header(TRANSPORT, got).empty();
    let Ok(Some(transports)) = strict.typed_header::<Transports>() else {
        return require(false, "Transport cannot be parsed");
    };
    let [Transport::Rtp(transport)] = &transports[..] else {
        return require(false, "Transport is not one RTP transport");
    };
    let is_tcp = |text: &str| text.starts_with("RTP/AVP/TCP");
    let tcp = transport.lower_transport == Some(RtpLowerTransport::Tcp);
    require(tcp == is_tcp(asked), "another lower transport than asked for");
    require(transport.params.unicast, "no unicast");
    let parameter = |text: &str, name: &str| {
        let mut parts = text.split(';').map(str::trim).map(str::to_owned);
        parts.find_map(|part| Some(part.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    };
    let is_pair = |pair: Option<(u16, Option<u16>)>| {
        pair.is_some_and(|(low, high)| low % 2 == 0 && low > 0 && high == Some(low + 1))
    };
    if tcp {
        let [wanted, channels] = [asked, got].map(|text| parameter(text, "interleaved"));
        require(channels.is_some() && channels == wanted, "interleaved is not as asked for");
    } else {
        let [wanted, ports] = [asked, got].map(|text| parameter(text, "client_port"));
        require(ports.is_some() && ports == wanted, "client_port is not as asked for");
        require(is_pair(transport.params.server_port), "server_port is no even-odd pair");
    }
    let ssrc = parameter(got, "ssrc").unwrap_or_default();
    let is_hex = ssrc.len() == 8 && ssrc.bytes().all(|byte| byte.is_ascii_hexdigit());
    require(is_hex, "ssrc is not eight hex digits");
    let session = reply.header("Session").unwrap_or("");
    let (id, timeout) = session.split_once(";timeout=").unwrap_or(("", ""));
    let id_ok = id.len() >= 8 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let timeout_ok = !timeout.is_empty() && timeout.bytes().all(|byte| byte.is_ascii_digit());
    require(id_ok && timeout_ok, "Session is not `<alphanumeric id>;timeout=<seconds>`");
}

/// R3: the same session id in every reply.
fn check_session_ids(session: &Session<'_>, findings: &mut Findings) {
    let mut first: Option<&str> = None;
    for exchange in &session.exchanges {
        let Some(header) =
            exchange.reply.header("Session").filter(|_| exchange.reply.status() == 200)
        else {
            continue;
        };
        let id = header.split(';').next().unwrap_or("");
        let same = *first.get_or_insert(id) == id;
        findings.check(same, "R3", exchange.answered, "the session id changed");
    }
}

/// R7 and R6: the server closes nothing by itself; after a 401 the connection stays.
fn check_survival(capture: &Capture, session: &Session<'_>, findings: &mut Findings) {
    let Some(index) = capture.events.iter().position(|event| event.kind == Kind::Closed) else {
        return;
    };
    let last = session.exchanges.iter().rfind(|exchange| exchange.answered < index);
    let (rule, what) = match last {
        Some(exchange) if exchange.reply.status() == 401 => ("R6", "closed after a 401"),
        _ => ("R7", "the server closed the connection"),
    };
    findings.add(rule, index, what);
}

/// What a camera has to offer: RFC 2326 D.2, ONVIF's method table, PAUSE for GStreamer.
const METHODS: [&str; 8] =
    ["OPTIONS", "DESCRIBE", "SETUP", "PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER", "SET_PARAMETER"];
