//! A session made by hand from a real clip: what a camera without fault would have said and sent.
//!
//! The RFCs' own layouts, written out a second time and by other means than the camera's.
//! `planted` breaks it in one place at a time; sequence number and timestamp wrap on the way.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rtcp_types::{
    Compound, RtcpPacketWriter, RtcpPacketWriterExt, Sdes, SdesChunk, SdesItem, SenderReport,
};
use rtp_types::RtpPacketBuilder;

use crate::camera::credentials;
use crate::capture::{Capture, Event, Kind};
use crate::client::Lower;
use crate::clip::{AccessUnit, Clip};
use crate::digest::{Challenge, Credentials};
use crate::{dialogue, nal};

/// What the session is made of; `planted` changes it before it is written out.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) lower: Lower,
    /// Access units in the order of sending; each play takes its own.
    pub(crate) plays: [Vec<AccessUnit>; 2],
    pub(crate) fps: f64,
    pub(crate) sps: Vec<u8>,
    pub(crate) pps: Vec<u8>,
    /// Puts SPS and PPS of an access unit into one STAP-A.
    pub(crate) aggregate: bool,
    /// Largest NAL unit that is sent whole.
    pub(crate) payload_len_max: usize,
    /// Times of sender reports, in seconds since the first PLAY.
    pub(crate) reports: Vec<f64>,
}

impl Recipe {
    /// Nine seconds of `clip`, a pause, and one second more.
    pub(crate) fn new(clip: &Clip, lower: Lower) -> Self {
        let units = |seconds: usize| {
            let whole = clip.access_units.iter().cycle();
            whole.take(seconds * 30).cloned().collect::<Vec<_>>()
        };
        let of_kind = |kind| clip.access_units[0].iter().find(|unit| nal::kind(unit) == kind);
        Self {
            lower,
            plays: [units(9), units(1)],
            fps: clip.fps,
            sps: of_kind(nal::SPS).unwrap().clone(),
            pps: of_kind(nal::PPS).unwrap().clone(),
            aggregate: false,
            payload_len_max: 1360,
            reports: vec![0.0, 5.0],
        }
    }

    pub(crate) fn sdp(&self) -> String {
        let [sps, pps] = [&self.sps, &self.pps].map(|set| STANDARD.encode(set));
        let profile: String = self.sps[1..4].iter().map(|byte| format!("{byte:02X}")).collect();
        let lines = [
            "v=0",
            "o=- 1700000000 1 IN IP4 127.0.0.1",
            "s=Ocellus",
            "c=IN IP4 0.0.0.0",
            "t=0 0",
            "a=control:*",
            "a=range:npt=now-",
            "m=video 0 RTP/AVP 96",
            "b=AS:1000",
            "a=rtpmap:96 H264/90000",
            &format!(
                "a=fmtp:96 packetization-mode=1;profile-level-id={profile};\
                 sprop-parameter-sets={sps},{pps}"
            ),
            &format!("a=framerate:{}", self.fps),
            "a=control:trackID=0",
        ];
        lines.iter().map(|line| format!("{line}\r\n")).collect()
    }

    /// Writes the whole session down.
    pub(crate) fn capture(&self) -> Capture {
        let mut writer = Writer::new(self);
        writer.open();
        for play in 0..2 {
            writer.play(play);
        }
        writer.say("TEARDOWN", BASE, &session_header(), 200, "");
        writer.at += 0.4;
        writer.capture
    }
}

struct Writer<'a> {
    recipe: &'a Recipe,
    capture: Capture,
    at: f64,
    cseq: u32,
    sequence: u16,
    /// Pictures per play so far; the second play goes on where the first one would be.
    sent: (u32, u32),
    challenge: Challenge,
}

impl<'a> Writer<'a> {
    fn new(recipe: &'a Recipe) -> Self {
        let started = Duration::from_secs(1_795_000_000);
        let realm = "ocellus".to_owned();
        let challenge =
            Challenge { realm, nonce: NONCE.into(), algorithm: crate::digest::Algorithm::Md5 };
        let capture = Capture { started, events: Vec::new() };
        Self {
            recipe,
            capture,
            at: 0.0,
            cseq: 0,
            sequence: FIRST_SEQUENCE,
            sent: (0, 0),
            challenge,
        }
    }

    fn push(&mut self, kind: Kind) {
        self.capture.events.push(Event { at: Duration::from_secs_f64(self.at), kind });
        self.at += 0.000_02;
    }

    /// One exchange; `more` holds further headers of the request, `reply` those of the response.
    fn say(&mut self, method: &str, uri: &str, more: &str, status: u16, reply: &str) {
        let authorization = self.challenge.answer(&credentials(), method, uri);
        self.say_as(&authorization, method, uri, more, status, reply);
    }

    fn say_as(
        &mut self,
        authorization: &str,
        method: &str,
        uri: &str,
        more: &str,
        status: u16,
        reply: &str,
    ) {
        self.cseq += 1;
        let cseq = self.cseq;
        let login = match authorization {
            "" => String::new(),
            value => format!("Authorization: {value}\r\n"),
        };
        let version = if status == 505 { "RTSP/2.0" } else { "RTSP/1.0" };
        let request = format!("{method} {uri} {version}\r\nCSeq: {cseq}\r\n{login}{more}\r\n");
        self.push(Kind::Request(request.into_bytes()));
        let end = if reply.contains("\r\n\r\n") { "" } else { "\r\n" };
        let response = format!("RTSP/1.0 {status} Reason\r\nCSeq: {cseq}\r\n{reply}{end}");
        self.push(Kind::Response(response.into_bytes()));
    }

    /// Everything up to SETUP.
    fn open(&mut self) {
        self.say_as("", "OPTIONS", URL, "", 200, PUBLIC);
        let refusal = format!(
            "WWW-Authenticate: Digest realm=\"ocellus\", nonce=\"{NONCE}\", algorithm=SHA-256\r\n\
             WWW-Authenticate: Digest realm=\"ocellus\", nonce=\"{NONCE}\"\r\n"
        );
        self.say_as("", "DESCRIBE", URL, "", 401, &refusal);
        let wrong = Credentials { password: "wrong".into(), ..credentials() };
        let wrong = self.challenge.answer(&wrong, "DESCRIBE", URL);
        self.say_as(&wrong, "DESCRIBE", URL, "", 401, &refusal);
        let sdp = self.recipe.sdp();
        let described = format!(
            "Content-Base: {BASE}\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        );
        self.say("DESCRIBE", URL, "Accept: application/sdp\r\n", 200, &described);
        let statuses = [501, 551, 455, 454, 454, 461, 461];
        for ((method, uri, (name, value)), status) in
            dialogue::probes(URL, CONTROL).into_iter().zip(statuses)
        {
            let unsupported = format!("Unsupported: {value}\r\n");
            let reply = if status == 551 { unsupported.as_str() } else { "" };
            self.say(method, &uri, &format!("{name}: {value}\r\n"), status, reply);
        }
        self.say("OPTIONS", URL, "", 505, "");
        let (asked, got) = match self.recipe.lower {
            Lower::Tcp => ("RTP/AVP/TCP;unicast;interleaved=0-1", ""),
            Lower::Udp => ("RTP/AVP;unicast;client_port=5000-5001", ";server_port=8000-8001"),
        };
        let transport = format!("Transport: {asked}{got};ssrc={SSRC:08X}\r\n{SESSION}");
        self.say("SETUP", CONTROL, &format!("Transport: {asked}\r\n"), 200, &transport);
    }

    fn timestamp(&self, seconds: f64) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds")]
        FIRST_TIMESTAMP.wrapping_add((seconds * 90_000.0).round() as u32)
    }

    fn play(&mut self, play: usize) {
        let (opened, pictures) = (self.at, self.recipe.plays[play].len());
        let first_at = if play == 0 { 0.0 } else { 10.0 };
        let (sequence, rtptime) = (self.sequence, self.timestamp(first_at));
        let info = format!(
            "{SESSION}Range: npt=now-\r\nRTP-Info: url={CONTROL};seq={sequence};rtptime={rtptime}\r\n"
        );
        self.say("PLAY", BASE, &format!("{}Range: npt=0.000-\r\n", session_header()), 200, &info);
        for index in 0..pictures {
            let offset = f64::from(u32::try_from(index).unwrap()) / self.recipe.fps;
            self.at = self.at.max(opened + 0.0002 + offset);
            if index == pictures / 2 {
                for method in ["GET_PARAMETER", "SET_PARAMETER"] {
                    self.say(method, BASE, &session_header(), 200, SESSION);
                }
            }
            self.at = opened + 0.0005 + offset;
            if play == 0 && self.recipe.reports.iter().any(|at| (at - offset).abs() < 0.016) {
                self.report(first_at + offset);
            }
            self.at = opened + 0.001 + offset;
            let unit = self.recipe.plays[play][index].clone();
            self.access_unit(&unit, self.timestamp(first_at + offset));
        }
        if play == 0 {
            self.say("PAUSE", BASE, &session_header(), 200, SESSION);
            self.at = opened + 10.0;
            self.sequence = self.sequence.wrapping_add(37);
        }
    }

    fn access_unit(&mut self, unit: &AccessUnit, timestamp: u32) {
        let payloads = payloads(unit, self.recipe);
        let count = payloads.len();
        for (index, payload) in payloads.into_iter().enumerate() {
            self.sent.0 += 1;
            self.sent.1 += u32::try_from(payload.len()).unwrap();
            let builder = RtpPacketBuilder::<&[u8], &[u8]>::new()
                .payload_type(96)
                .ssrc(SSRC)
                .sequence_number(self.sequence)
                .timestamp(timestamp)
                .marker_bit(index + 1 == count)
                .payload(&payload[..]);
            let packet = builder.write_vec().unwrap();
            self.sequence = self.sequence.wrapping_add(1);
            self.media(0, packet);
        }
    }

    fn report(&mut self, media_time: f64) {
        let unix = self.capture.started.as_secs_f64() + self.at;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds")]
        let ntp = ((2_208_988_800.0 + unix) * 4_294_967_296.0) as u64;
        let name = SdesItem::builder(SdesItem::CNAME, "ocellus@camera");
        let chunk = SdesChunk::builder(SSRC).add_item(name);
        let report = SenderReport::builder(SSRC)
            .ntp_timestamp(ntp)
            .rtp_timestamp(self.timestamp(media_time))
            .packet_count(self.sent.0)
            .octet_count(self.sent.1);
        let compound =
            Compound::builder().add_packet(report).add_packet(Sdes::builder().add_chunk(chunk));
        let mut bytes = vec![0; compound.calculate_size().unwrap()];
        compound.write_into(&mut bytes).unwrap();
        self.media(1, bytes);
    }

    fn media(&mut self, channel: u8, packet: Vec<u8>) {
        let from = SocketAddr::from(([127, 0, 0, 1], 8000 + u16::from(channel)));
        let to = 5000 + u16::from(channel);
        self.push(match self.recipe.lower {
            Lower::Tcp => Kind::Interleaved { channel, packet },
            Lower::Udp => Kind::Datagram { to, from, packet },
        });
    }
}

/// Packs one access unit (RFC 6184 5.6, 5.7.1, 5.8).
fn payloads(unit: &AccessUnit, recipe: &Recipe) -> Vec<Vec<u8>> {
    let is_set = |nal: &&Vec<u8>| matches!(nal::kind(nal), nal::SPS | nal::PPS);
    let sets = if recipe.aggregate { unit.iter().take_while(is_set).count() } else { 0 };
    let mut payloads = Vec::new();
    if sets >= 2 {
        let mut aggregate = vec![0x60 | 24];
        for nal in &unit[..sets] {
            aggregate.extend(u16::try_from(nal.len()).unwrap().to_be_bytes());
            aggregate.extend(nal);
        }
        payloads.push(aggregate);
    }
    for nal in &unit[if sets >= 2 { sets } else { 0 }..] {
        if nal.len() <= recipe.payload_len_max {
            payloads.push(nal.clone());
            continue;
        }
        let chunks = nal[1..].chunks(recipe.payload_len_max.min(1360) - 2);
        let last = chunks.len() - 1;
        for (index, chunk) in chunks.enumerate() {
            let start = u8::from(index == 0) << 7;
            let end = u8::from(index == last) << 6;
            let mut payload = vec![nal[0] & 0xe0 | 28, start | end | nal[0] & 0x1f];
            payload.extend(chunk);
            payloads.push(payload);
        }
    }
    payloads
}

fn session_header() -> String {
    "Session: 9f3c5a7e12b4d6809f3c5a7e12b4d680\r\n".to_owned()
}

pub(crate) const URL: &str = "rtsp://127.0.0.1:8554/main";
const BASE: &str = "rtsp://127.0.0.1:8554/main/";
const CONTROL: &str = "rtsp://127.0.0.1:8554/main/trackID=0";
const NONCE: &str = "0123456789abcdef0123456789abcdef";
const SESSION: &str = "Session: 9f3c5a7e12b4d6809f3c5a7e12b4d680;timeout=60\r\n";
const PUBLIC: &str = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN, GET_PARAMETER, \
    SET_PARAMETER\r\n";
const SSRC: u32 = 0x1a2b_3c4d;
/// Both wrap within the first seconds.
const FIRST_SEQUENCE: u16 = 65_500;
const FIRST_TIMESTAMP: u32 = u32::MAX - 100_000;
