//! A client's half of RTSP: requests out; answers and interleaved packets in. No I/O.
//!
//! RFC 2326, and Digest (RFC 7616) with MD5. Whatever is not exactly as it should be is an error.

use std::collections::VecDeque;
use std::fmt::Write;

use md5::{Digest, Md5};

use super::truth::{Checked, Rule, broken, hold};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Describe,
    Setup,
    Play,
    Pause,
    Teardown,
    GetParameter,
}

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Self::Describe => "DESCRIBE",
            Self::Setup => "SETUP",
            Self::Play => "PLAY",
            Self::Pause => "PAUSE",
            Self::Teardown => "TEARDOWN",
            Self::GetParameter => "GET_PARAMETER",
        }
    }
}

/// What came.
#[derive(Debug)]
pub(crate) enum Heard {
    Answer(Answer),
    Packet { channel: u8, bytes: Vec<u8> },
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) method: Method,
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Value of the first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

#[derive(Debug)]
pub(crate) struct Dialogue {
    url: String,
    login: (&'static str, &'static str),
    nonce: Option<String>,
    pub(crate) session: Option<String>,
    cseq: u32,
    awaited: VecDeque<(u32, Method)>,
    input: Vec<u8>,
}

impl Dialogue {
    pub(crate) fn new(url: &str, login: (&'static str, &'static str)) -> Self {
        Self {
            url: url.to_owned(),
            login,
            nonce: None,
            session: None,
            cseq: 0,
            awaited: VecDeque::new(),
            input: Vec::new(),
        }
    }

    /// The request, with `more` header lines, as it is to be sent.
    pub(crate) fn ask(&mut self, method: Method, more: &str) -> Vec<u8> {
        self.cseq += 1;
        self.awaited.push_back((self.cseq, method));
        let track = if method == Method::Setup { "/trackID=0" } else { "" };
        let uri = format!("{}{track}", self.url);
        let mut text = format!("{} {uri} RTSP/1.0\r\nCSeq: {}\r\n", method.name(), self.cseq);
        if let Some(nonce) = &self.nonce {
            text.push_str(&digest(self.login, nonce, method.name(), &uri));
        }
        if let Some(session) = &self.session {
            write!(text, "Session: {session}\r\n").unwrap();
        }
        text.push_str(more);
        text.push_str("\r\n");
        text.into_bytes()
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next thing that has come whole.
    pub(crate) fn poll(&mut self) -> Checked<Option<Heard>> {
        match self.input.first() {
            None => Ok(None),
            Some(b'$') => Ok(self.packet()),
            Some(b'R') => self.answer(),
            Some(other) => broken(Rule::Answer, format!("neither answer nor packet: {other:02x}")),
        }
    }

    fn packet(&mut self) -> Option<Heard> {
        let &[_, channel, high, low] = self.input.get(..4)?.as_array()?;
        let end = 4 + usize::from(u16::from_be_bytes([high, low]));
        let bytes = self.input.get(4..end)?.to_vec();
        self.input.drain(..end);
        Some(Heard::Packet { channel, bytes })
    }

    fn answer(&mut self) -> Checked<Option<Heard>> {
        let Some(len) = self.input.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = String::from_utf8_lossy(&self.input[..len]).into_owned();
        let Some((expected, method)) = self.awaited.front().copied() else {
            return broken(Rule::Answer, format!("nobody asked for {head}"));
        };
        let mut answer = Answer { method, status: 0, head, body: String::new() };
        let body_len = answer.header("Content-Length").map_or(0, |text| text.parse().unwrap());
        let end = len + 4 + body_len;
        let Some(body) = self.input.get(len + 4..end) else { return Ok(None) };
        answer.body = String::from_utf8_lossy(body).into_owned();
        self.input.drain(..end);
        self.awaited.pop_front();
        let status = answer.head.strip_prefix("RTSP/1.0 ").and_then(|rest| rest.get(..3));
        answer.status = status.and_then(|text| text.parse().ok()).unwrap_or(0);
        let is_well = answer.status >= 200 && answer.header("CSeq") == Some(&expected.to_string());
        hold(is_well, Rule::Answer, || format!("to {expected}: {}", answer.head))?;
        self.note(&answer)?;
        Ok(Some(Heard::Answer(answer)))
    }

    /// Whether it was challenged, and has not answered yet.
    pub(crate) const fn is_new_login(&self) -> bool {
        self.cseq == 1
    }

    /// Remembers what later requests need.
    fn note(&mut self, answer: &Answer) -> Checked<()> {
        if let Some(challenge) = answer.header("WWW-Authenticate").filter(|_| answer.status == 401)
        {
            let nonce = challenge.split("nonce=\"").nth(1).and_then(|it| it.split('"').next());
            hold(nonce.is_some(), Rule::Answer, || format!("no nonce in {challenge}"))?;
            self.nonce = nonce.map(ToOwned::to_owned);
        }
        if let Some(session) = answer.header("Session") {
            let id = session.strip_suffix(";timeout=60").unwrap_or(session);
            let is_ours = self.session.as_deref().is_none_or(|own| own == id);
            hold(is_ours && id.len() == 32, Rule::Answer, || format!("session {session}"))?;
            self.session = Some(id.to_owned());
        }
        Ok(())
    }
}

fn digest(login: (&str, &str), nonce: &str, method: &str, uri: &str) -> String {
    let hash = |text: String| {
        Md5::digest(text).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    };
    let ((user, password), realm) = (login, REALM);
    let ha1 = hash(format!("{user}:{realm}:{password}"));
    let ha2 = hash(format!("{method}:{uri}"));
    let response = hash(format!("{ha1}:{nonce}:{ha2}"));
    format!(
        "Authorization: Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", \
         uri=\"{uri}\", response=\"{response}\"\r\n"
    )
}

pub(crate) const REALM: &str = "ocellus";
