//! Reads a capture as exchanges of one session, and files its media under the PLAY it answers.
//!
//! RFC 2326 9.1, 10.4, 10.5; interleaving 10.12. Raises R1 (an answer for each request), R8 (framing)
//! and R9 (media only while playing).

use std::time::Duration;

use crate::capture::{Capture, Kind, Message};

use super::Findings;

/// A request and its response, with the events that hold them.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) request: Message,
    pub(super) reply: Message,
    pub(super) asked: usize,
    pub(super) answered: usize,
    /// From request to response.
    pub(super) took: Duration,
}

impl Exchange {
    pub(super) fn is(&self, method: &str, status: u16) -> bool {
        self.request.method() == method && self.reply.status() == status
    }
}

/// Where media of the session goes, as the SETUP reply said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Interleaved { rtp: u8, rtcp: u8 },
    Udp { client: (u16, u16), server: (u16, u16) },
}

/// One RTP or RTCP packet as it arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub(super) event: usize,
    pub(super) at: Duration,
    pub(super) bytes: &'a [u8],
}

/// The media between one PLAY and the PAUSE or TEARDOWN after it.
#[derive(Debug)]
pub(super) struct Play<'a> {
    /// Index of the PLAY in `exchanges`.
    pub(super) exchange: usize,
    pub(super) answered_at: Duration,
    pub(super) rtp: Vec<Arrival<'a>>,
    pub(super) rtcp: Vec<Arrival<'a>>,
    /// When it ended, or when the capture did.
    pub(super) until: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Session<'a> {
    pub(super) exchanges: Vec<Exchange>,
    pub(super) path: Option<Path>,
    pub(super) plays: Vec<Play<'a>>,
}

pub(super) fn read<'a>(capture: &'a Capture, findings: &mut Findings) -> Session<'a> {
    let exchanges = exchanges(capture, findings);
    let setup = exchanges.iter().rfind(|exchange| exchange.is("SETUP", 200));
    let path = setup.and_then(|exchange| read_path(exchange.reply.header("Transport")?));
    let mut session = Session { exchanges, path, plays: Vec::new() };
    file_media(capture, &mut session, findings);
    session
}

fn exchanges(capture: &Capture, findings: &mut Findings) -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    let mut open: Option<(usize, Message)> = None;
    for (index, event) in capture.events.iter().enumerate() {
        match &event.kind {
            Kind::Request(bytes) => {
                if let Some((asked, request)) = open.take() {
                    findings.add("R1", asked, format!("no reply to {}", request.start));
                }
                open = Message::parse(bytes).map(|request| (index, request));
            }
            Kind::Response(bytes) => {
                let parsed = rtsp_types::Message::<Vec<u8>>::parse(bytes);
                let whole = matches!(parsed, Ok((_, consumed)) if consumed == bytes.len());
                findings.check(whole, "R8", index, "not one well-formed response");
                match (open.take(), Message::parse(bytes)) {
                    (Some((asked, request)), Some(reply)) => {
                        let took = event.at.saturating_sub(capture.events[asked].at);
                        exchanges.push(Exchange { request, reply, asked, answered: index, took });
                    }
                    _ => findings.add("R1", index, "a response that answers no request"),
                }
            }
            Kind::Garbage(bytes) => {
                let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]);
                findings.add("R8", index, format!("neither response nor frame: {shown:?}"));
            }
            _ => {}
        }
    }
    if let Some((asked, request)) = open {
        findings.add("R1", asked, format!("no reply to {}", request.start));
    }
    exchanges
}

/// Reads a Transport reply leniently; R3 judges its form.
fn read_path(transport: &str) -> Option<Path> {
    let pair = |name: &str| {
        let value = transport.split(';').find_map(|part| part.strip_prefix(name))?;
        let (low, high) = value.strip_prefix('=')?.split_once('-')?;
        Some((low.parse::<u16>().ok()?, high.parse::<u16>().ok()?))
    };
    if let Some((rtp, rtcp)) = pair("interleaved") {
        let [rtp, rtcp] = [rtp, rtcp].map(|channel| u8::try_from(channel).ok());
        return Some(Path::Interleaved { rtp: rtp?, rtcp: rtcp? });
    }
    Some(Path::Udp { client: pair("client_port")?, server: pair("server_port")? })
}

/// What the server may send at a point of the capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Playing,
    /// PAUSE or TEARDOWN was answered at this time.
    Ended(Duration),
}

fn file_media<'a>(capture: &'a Capture, session: &mut Session<'a>, findings: &mut Findings) {
    let udp = matches!(session.path, Some(Path::Udp { .. }));
    let mut phase = Phase::Idle;
    for (index, event) in capture.events.iter().enumerate() {
        // Over UDP the first packet may overtake the reply to PLAY: the request opens the play.
        let opened = session.exchanges.iter().position(|exchange| {
            let opens = if udp { exchange.asked } else { exchange.answered };
            exchange.is("PLAY", 200) && opens == index
        });
        if let (Some(exchange), true) = (opened, phase != Phase::Playing) {
            let until = capture.events.last().map_or(event.at, |last| last.at);
            let answered_at = capture.events[session.exchanges[exchange].answered].at;
            let (rtp, rtcp) = (Vec::new(), Vec::new());
            session.plays.push(Play { exchange, answered_at, rtp, rtcp, until });
            phase = Phase::Playing;
        }
        let ended = session.exchanges.iter().any(|exchange| {
            exchange.answered == index
                && (exchange.is("PAUSE", 200) || exchange.is("TEARDOWN", 200))
        });
        if let (true, Phase::Playing, Some(play)) = (ended, phase, session.plays.last_mut()) {
            play.until = event.at;
            phase = Phase::Ended(event.at);
        }
        let Some((is_rtp, bytes)) = media_of(&event.kind, session.path, index, findings) else {
            continue;
        };
        let allowed = match phase {
            Phase::Playing => true,
            Phase::Ended(at) => udp && event.at < at + ROUND_TRIP,
            Phase::Idle => false,
        };
        let arrival = Arrival { event: index, at: event.at, bytes };
        match session.plays.last_mut() {
            Some(play) if allowed && is_rtp => play.rtp.push(arrival),
            Some(play) if allowed => play.rtcp.push(arrival),
            _ => findings.add("R9", index, format!("media while not playing ({phase:?})")),
        }
    }
}

/// Tells RTP from RTCP by where it came in, and checks that it may come in there (R8, C5).
fn media_of<'a>(
    kind: &'a Kind,
    path: Option<Path>,
    index: usize,
    findings: &mut Findings,
) -> Option<(bool, &'a [u8])> {
    let (is_rtp, expected, bytes): (bool, bool, &[u8]) = match (kind, path) {
        (Kind::Interleaved { channel, packet }, Some(Path::Interleaved { rtp, rtcp })) => {
            if *channel != rtp && *channel != rtcp {
                findings.add("R8", index, format!("frame on channel {channel}, never agreed on"));
                return None;
            }
            // FFmpeg loses the stream's framing on anything shorter.
            if packet.len() < 8 {
                findings.add("R8", index, "frame shorter than 8 bytes");
                return None;
            }
            (*channel == rtp, true, packet)
        }
        (Kind::Datagram { to, from, packet }, Some(Path::Udp { client, server })) => {
            let is_rtp = *to == client.0;
            let source = if is_rtp { server.0 } else { server.1 };
            (is_rtp, from.port() == source, packet)
        }
        (Kind::Interleaved { .. } | Kind::Datagram { .. }, _) => {
            findings.add("R8", index, "media on a path that was not set up");
            return None;
        }
        _ => return None,
    };
    // RFC 5761 4: the second byte of RTCP is 200-204, which RTP keeps clear of.
    let looks_like_rtcp = bytes.get(1).is_some_and(|byte| (200..=207).contains(byte));
    let right_place = looks_like_rtcp != is_rtp;
    let rule = if looks_like_rtcp { "C5" } else { "R8" };
    findings.check(right_place, rule, index, "RTP and RTCP on each other's channel or port");
    findings.check(expected, rule, index, "sent from another port than server_port");
    (right_place || looks_like_rtcp).then_some((!looks_like_rtcp, bytes))
}

/// Datagrams may still be under way when PAUSE is answered.
const ROUND_TRIP: Duration = Duration::from_millis(100);
