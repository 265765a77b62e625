//! A strict player without I/O: from DESCRIBE to TEARDOWN, and everything that comes in between.
//!
//! It knows what may come in which stage, and what the packets must be. How it behaves is drawn
//! for each: some ask to stay alive, some only report, some say nothing at all.

mod packets;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ocellus::time::Instant;

use super::dialogue::{Answer, Dialogue, Heard, Method};
use super::reports::{REPORT_INTERVAL, Reception, Reports, bye, picture_loss};
use super::strict::Strict;
use super::tap::Note;
use super::truth::{Checked, Rule, Truth, broken, hold};

/// How a player wants its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Between the answers, RTP on this channel.
    Tcp(u8),
    /// As `Tcp(0)`, through HTTP.
    Tunnel,
    Udp,
    Multicast,
}

impl Kind {
    pub(crate) const fn is_stream(self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Tunnel)
    }
}

/// What a player does unasked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    pub(crate) login: (&'static str, &'static str),
    /// GET_PARAMETER every twenty seconds.
    pub(crate) asks: bool,
    /// A receiver report every five seconds.
    pub(crate) reports: bool,
    /// Asks for an IDR when packets are missing.
    pub(crate) complains: bool,
    /// Asks for an IDR all the time.
    pub(crate) nags: bool,
    /// Well connected: how long a picture may take to it.
    pub(crate) witness: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Describing,
    SettingUp,
    Starting,
    Playing,
    Pausing,
    Paused,
    Leaving,
    /// It hangs up, and comes back after this time.
    Over(Duration),
}

#[derive(Debug)]
pub(crate) struct Client {
    kind: Kind,
    habits: Habits,
    dialogue: Dialogue,
    pub(crate) stage: Stage,
    pub(crate) began: Instant,
    /// Where it is called from, and where its packets go.
    carrier: SocketAddr,
    pub(crate) rtp: SocketAddr,
    /// Bytes for the camera.
    pub(crate) out: Vec<u8>,
    /// Datagrams for the camera's RTCP port.
    pub(crate) datagrams: Vec<Vec<u8>>,
    pub(crate) notes: Vec<Note>,
    strict: Strict,
    reports: Reports,
    reception: Reception,
    packets: u32,
    /// RTP-Info, until the first packet has come.
    promised: Option<(u16, u32)>,
    /// When the next answer or packet must have come.
    patience: Instant,
    ask_at: Instant,
    report_at: Instant,
    complain_at: Instant,
    resume_at: Option<Instant>,
    /// When the faults ended; what was captured before is what they held up.
    pub(crate) calm: Instant,
    /// The first packet of media captured since then, and the last whole IDR.
    pub(crate) first_packet: Option<Instant>,
    pub(crate) last_idr: Option<Instant>,
    is_insisting: bool,
    /// How often it was told that there is no room.
    pub(crate) refusals: u32,
    /// Whether pictures come without pause, and their times of capture are right.
    pub(crate) is_steady: bool,
}

impl Client {
    pub(crate) fn new(
        now: Instant,
        (kind, habits): (Kind, Habits),
        carrier: SocketAddr,
        rtp_port: u16,
    ) -> Self {
        let path = if kind == Kind::Multicast { "main/multicast" } else { "main" };
        let rtp = match kind {
            Kind::Multicast => SocketAddr::new(GROUP.into(), GROUP_PORT),
            _ => SocketAddr::new(carrier.ip(), rtp_port),
        };
        let mut client = Self {
            kind,
            habits,
            dialogue: Dialogue::new(&format!("rtsp://10.0.0.1/{path}"), habits.login),
            stage: Stage::Describing,
            began: now,
            carrier,
            rtp,
            out: Vec::new(),
            datagrams: Vec::new(),
            notes: Vec::new(),
            strict: Strict::default(),
            reports: Reports::default(),
            reception: Reception::default(),
            packets: 0,
            promised: None,
            patience: now,
            ask_at: now + ASK_INTERVAL,
            report_at: now + REPORT_INTERVAL,
            complain_at: now,
            resume_at: None,
            calm: Instant::ZERO,
            first_packet: None,
            last_idr: None,
            is_insisting: false,
            refusals: 0,
            is_steady: false,
        };
        client.ask(now, Method::Describe, "Accept: application/sdp\r\n");
        client
    }

    pub(crate) fn is_playing(&self) -> bool {
        self.stage == Stage::Playing
    }

    fn ask(&mut self, now: Instant, method: Method, more: &str) {
        let bytes = self.dialogue.ask(method, more);
        self.out.extend(bytes);
        self.patience = self.patience.max(now + PATIENCE);
    }

    fn set_up(&mut self, now: Instant) {
        let transport = match self.kind {
            Kind::Tcp(channel) => {
                format!("RTP/AVP/TCP;unicast;interleaved={channel}-{}", channel + 1)
            }
            Kind::Tunnel => "RTP/AVP/TCP;unicast;interleaved=0-1".to_owned(),
            Kind::Udp => {
                let port = self.rtp.port();
                self.notes.push(Note::Asked { rtp: self.rtp, carrier: self.carrier });
                format!("RTP/AVP;unicast;client_port={port}-{}", port + 1)
            }
            Kind::Multicast => {
                self.notes.push(Note::Asked { rtp: self.rtp, carrier: self.carrier });
                "RTP/AVP;multicast".to_owned()
            }
        };
        self.ask(now, Method::Setup, &format!("Transport: {transport}\r\n"));
    }

    /// Stops for a while.
    pub(crate) fn pause(&mut self, now: Instant, until: Instant) {
        if self.is_playing() {
            self.ask(now, Method::Pause, "");
            (self.stage, self.resume_at) = (Stage::Pausing, Some(until));
        }
    }

    /// Leaves as one should.
    pub(crate) fn leave(&mut self, now: Instant) {
        if self.is_playing() {
            self.ask(now, Method::Teardown, "");
            self.stage = Stage::Leaving;
        }
    }

    /// Sets up again what is playing, which is refused.
    pub(crate) fn insist(&mut self, now: Instant) {
        if self.is_playing() && !self.is_insisting {
            self.is_insisting = true;
            self.set_up(now);
        }
    }

    /// Says goodbye by RTCP alone.
    pub(crate) fn say_bye(&mut self) {
        if self.kind == Kind::Udp && self.is_playing() {
            self.datagrams.push(bye(OWN_SSRC));
        }
    }

    /// Bytes that came over TCP.
    pub(crate) fn receive(&mut self, now: Instant, truth: &Truth, bytes: &[u8]) -> Checked<()> {
        self.dialogue.receive(bytes);
        while let Some(heard) = self.dialogue.poll()? {
            match heard {
                Heard::Answer(answer) => self.answer(now, &answer)?,
                Heard::Packet { channel, bytes } => self.frame(now, truth, channel, &bytes)?,
            }
        }
        Ok(())
    }

    fn answer(&mut self, now: Instant, answer: &Answer) -> Checked<()> {
        self.patience = now + PATIENCE;
        match (answer.method, answer.status) {
            (Method::Describe, 401) if self.dialogue.is_new_login() => {
                self.ask(now, Method::Describe, "Accept: application/sdp\r\n");
            }
            (Method::Describe, 200) => {
                self.check_description(answer)?;
                self.stage = Stage::SettingUp;
                self.set_up(now);
            }
            // The stream has not begun yet.
            (Method::Describe, 503) => self.stage = Stage::Over(Duration::from_secs(1)),
            (Method::Setup, 455) if self.is_insisting => self.is_insisting = false,
            (Method::Setup, 200) if self.stage == Stage::SettingUp => {
                self.check_transport(answer)?;
                self.note_fresh(true);
                self.stage = Stage::Starting;
                self.ask(now, Method::Play, "");
            }
            (Method::Setup, 453) => {
                self.refusals += 1;
                self.note_over();
                self.stage = Stage::Over(Duration::from_secs(2));
            }
            (Method::Play, 200) if self.stage == Stage::Starting => self.begin(answer)?,
            (Method::Pause, 200) => {
                self.strict.cut();
                self.note_fresh(false);
                self.stage = Stage::Paused;
            }
            (Method::Teardown, 200) => {
                self.note_over();
                self.stage = Stage::Over(Duration::from_secs(1));
            }
            (Method::GetParameter, 200) => {}
            // The session is over, for example after a link was down for long.
            (_, 454) if !self.kind.is_stream() => {
                self.stage = Stage::Over(Duration::from_millis(500))
            }
            _ => {
                let (method, status) = (answer.method, answer.status);
                return broken(Rule::Answer, format!("{status} to {method:?} in {:?}", self.stage));
            }
        }
        Ok(())
    }

    fn note_fresh(&mut self, is_new: bool) {
        if !self.kind.is_stream() {
            self.notes.push(Note::Fresh { rtp: self.rtp, is_new });
        }
    }

    fn note_over(&mut self) {
        if !self.kind.is_stream() {
            self.notes.push(Note::Over { rtp: self.rtp, carrier: self.carrier });
        }
    }

    fn check_description(&self, answer: &Answer) -> Checked<()> {
        let body = &answer.body;
        let is_group = body.contains(&format!("c=IN IP4 {GROUP}/"));
        let is_well = body.contains("m=video ")
            && body.contains("sprop-parameter-sets=Z2QA")
            && is_group == (self.kind == Kind::Multicast);
        hold(is_well, Rule::Answer, || format!("description: {body}"))
    }

    fn check_transport(&self, answer: &Answer) -> Checked<()> {
        let transport = answer.header("Transport").unwrap_or_default();
        let port = self.rtp.port();
        let expected = match self.kind {
            Kind::Tcp(channel) => format!(";interleaved={channel}-{};", channel + 1),
            Kind::Tunnel => ";interleaved=0-1;".to_owned(),
            Kind::Udp => format!(";client_port={port}-{};server_port=8000-8001;", port + 1),
            Kind::Multicast => format!(";destination={GROUP};port={port}-{};", port + 1),
        };
        hold(transport.contains(&expected), Rule::Answer, || format!("transport: {transport}"))
    }

    /// PLAY was answered.
    fn begin(&mut self, answer: &Answer) -> Checked<()> {
        self.stage = Stage::Playing;
        self.promised = None;
        let Some(info) = answer.header("RTP-Info") else { return Ok(()) };
        let field = |name: &str| {
            let fields = info.split(';').filter_map(|field| field.split_once('='));
            fields.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value)
        };
        let first = field("seq").and_then(|it| it.parse::<u16>().ok());
        let first = first.zip(field("rtptime").and_then(|it| it.parse::<u32>().ok()));
        let Some(first) = first else { return broken(Rule::RtpInfo, info) };
        hold(info.starts_with("url=rtsp://10.0.0.1/main"), Rule::RtpInfo, || info.to_owned())?;
        if self.kind.is_stream() {
            self.promised = Some(first);
        } else {
            self.notes.push(Note::Promised { rtp: self.rtp, first });
        }
        Ok(())
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let asks = self.habits.asks.then_some(self.ask_at);
        let reports = (self.habits.reports && self.is_playing()).then_some(self.report_at);
        let nags = (self.habits.nags && self.is_playing()).then_some(self.complain_at);
        let resume = self.resume_at.filter(|_| self.stage == Stage::Paused);
        let patience = (self.stage != Stage::Paused).then_some(self.patience);
        [asks, reports, nags, resume, patience].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, truth: &Truth) {
        if matches!(self.stage, Stage::Over(_)) {
            return;
        }
        if self.stage == Stage::Paused && self.resume_at.is_some_and(|at| at <= now) {
            (self.stage, self.resume_at) = (Stage::Starting, None);
            self.ask(now, Method::Play, "");
        }
        if self.patience <= now && self.stage != Stage::Paused {
            // Nothing comes any more: it dials again.
            self.stage = Stage::Over(Duration::from_millis(300));
            return;
        }
        if self.habits.asks && self.ask_at <= now {
            self.ask_at = now + ASK_INTERVAL;
            if self.dialogue.session.is_some() && self.stage != Stage::Leaving {
                let patience = self.patience;
                self.ask(now, Method::GetParameter, "");
                // Media is what it waits for.
                self.patience = patience;
            }
        }
        if self.habits.reports && self.is_playing() && self.report_at <= now {
            self.report_at = now + REPORT_INTERVAL;
            let report = self.reception.report(now, OWN_SSRC, truth, &self.reports);
            self.feedback(report);
        }
        if self.habits.nags && self.is_playing() && self.complain_at <= now {
            self.complain_at = now + Duration::from_millis(300);
            self.feedback(picture_loss(OWN_SSRC, truth.ssrc));
        }
    }
}

pub(crate) const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 1, 2);
pub(crate) const GROUP_PORT: u16 = 5_004;
/// Without an answer or a packet for this long, a player gives up.
const PATIENCE: Duration = Duration::from_secs(5);
const ASK_INTERVAL: Duration = Duration::from_secs(20);
const OWN_SSRC: u32 = 0x0bad_cafe;
