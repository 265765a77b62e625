//! Turns the text of one request into a `Request`, and a `Response` into its bytes.
//!
//! RFC 2326 4 (messages), 6 (requests), 7 (responses), 12.17 (CSeq), 12.14 (Content-Length).
//!
//! Not implemented: reading responses (this server sends no requests), and keeping bodies: no
//! method here needs what a client's body says, only how long it is.

use std::fmt::Display;

use thiserror::Error;

use super::tunnel;

/// One request: its head, one header a line, unfolded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub method: Method,
    pub url: String,
    /// Whether the version is RTSP/1.0.
    pub is_version_1_0: bool,
    /// `None` when absent or not a number of 32 bits: only a parsed CSeq is ever echoed.
    pub cseq: Option<u32>,
    pub body_len: usize,
    /// `name: value` lines joined by line feeds; one allocation however many there are.
    headers: String,
}

/// What a request wants (RFC 2326 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Options,
    Describe,
    Setup,
    Play,
    Pause,
    Teardown,
    GetParameter,
    SetParameter,
    /// ANNOUNCE, RECORD, REDIRECT: methods of the standard that a camera has no use for.
    NotOffered,
    Unknown,
}

/// Why bytes are no request. Framing is lost: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    #[error("not rtsp")]
    NotRtsp,
    #[error("request line longer than {MAX_REQUEST_LINE_LEN} bytes")]
    RequestLineTooLong,
    #[error("request head too long")]
    HeadTooLong,
    #[error("malformed request: {reason}")]
    Malformed { cseq: Option<u32>, reason: &'static str },
    #[error("body longer than {MAX_BODY_LEN} bytes")]
    BodyTooLong { cseq: Option<u32> },
    #[error(transparent)]
    Tunnel(tunnel::Refused),
    #[error("way in of a tunnel is not base64")]
    NotBase64,
    #[error("too many requests ahead of their answers")]
    TooManyRequests,
    #[error("connection is closed")]
    Closed,
}

impl Request {
    /// Parses a request's head.
    ///
    /// # Shape
    ///
    /// `head`: everything up to the empty line; lines end in CRLF or LF. Bytes that are not UTF-8
    /// become replacement characters, which match no path and no user.
    pub(super) fn parse(head: &[u8]) -> Result<Self, Error> {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.lines();
        let request_line = lines.next().unwrap_or_default();
        let headers = unfold(lines);
        let cseq = values(&headers, "CSeq").next().and_then(parse_cseq);
        let malformed = |reason| Error::Malformed { cseq, reason };

        let is_control = |c: char| c.is_control() && c != '\t' && c != '\n';
        if request_line.contains(char::is_control) || headers.contains(is_control) {
            return Err(malformed("control character"));
        }
        let (method, rest) =
            request_line.split_once(' ').ok_or_else(|| malformed("request line"))?;
        let (url, version) =
            rest.trim().rsplit_once(' ').ok_or_else(|| malformed("request line"))?;
        let url = url.trim();
        if !version.starts_with("RTSP/") || url.is_empty() || url.contains(' ') {
            return Err(malformed("request line"));
        }
        if headers.lines().count() > MAX_HEADERS {
            return Err(malformed("too many headers"));
        }
        if !headers.lines().all(is_header) {
            return Err(malformed("header"));
        }
        let body_len = content_len(&headers, cseq)?;
        Ok(Self {
            method: Method::parse(method),
            url: url.to_owned(),
            is_version_1_0: version == "RTSP/1.0",
            cseq,
            body_len,
            headers,
        })
    }

    /// Value of the first header called `name`, in any case (RFC 2326 4.2).
    pub(super) fn header(&self, name: &'static str) -> Option<&str> {
        self.headers(name).next()
    }

    /// Values of every header called `name`, in order.
    pub(super) fn headers(&self, name: &'static str) -> impl Iterator<Item = &str> {
        values(&self.headers, name)
    }

    /// A text that means this request, without its body.
    #[cfg(any(test, fuzzing))]
    pub(super) fn emit(&self) -> Vec<u8> {
        let method = match self.method {
            Method::NotOffered => "RECORD",
            Method::Unknown => "BREW",
            method => method.name(),
        };
        let version = if self.is_version_1_0 { "RTSP/1.0" } else { "RTSP/2.0" };
        let mut text = format!("{method} {} {version}\r\n", self.url);
        for header in self.headers.lines() {
            text += header.trim_end();
            text += "\r\n";
        }
        text += "\r\n";
        text.into_bytes()
    }

    /// Bytes this request occupies, roughly: what waiting requests are limited by.
    pub(super) fn len(&self) -> usize {
        self.url.len() + self.headers.len() + size_of::<Self>()
    }
}

impl Method {
    fn parse(name: &str) -> Self {
        match name {
            "ANNOUNCE" | "RECORD" | "REDIRECT" => Self::NotOffered,
            name => Self::OFFERED
                .into_iter()
                .find(|method| method.name() == name)
                .unwrap_or(Self::Unknown),
        }
    }

    /// The method as it is written on the wire, and hashed by Digest.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Options => "OPTIONS",
            Self::Describe => "DESCRIBE",
            Self::Setup => "SETUP",
            Self::Play => "PLAY",
            Self::Pause => "PAUSE",
            Self::Teardown => "TEARDOWN",
            Self::GetParameter => "GET_PARAMETER",
            Self::SetParameter => "SET_PARAMETER",
            Self::NotOffered | Self::Unknown => "",
        }
    }

    const OFFERED: [Self; 8] = [
        Self::Options,
        Self::Describe,
        Self::Setup,
        Self::Play,
        Self::Pause,
        Self::Teardown,
        Self::GetParameter,
        Self::SetParameter,
    ];
}

/// A response, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    status: u16,
    reason: &'static str,
    headers: String,
    body: String,
}

impl Response {
    pub(super) const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason, headers: String::new(), body: String::new() }
    }

    pub(super) const fn ok() -> Self {
        Self::new(200, "OK")
    }

    /// Adds a header.
    ///
    /// `value` holds no line end: what a peer sent comes from one line of a request that had no
    /// control characters, and everything else is ours.
    #[must_use]
    pub(super) fn header(mut self, name: &str, value: impl Display) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    #[must_use]
    pub(super) fn with_body(self, content_type: &str, body: String) -> Self {
        let response =
            self.header("Content-Type", content_type).header("Content-Length", body.len());
        Self { body, ..response }
    }

    /// The response's bytes. `cseq` is missing when the request's own could not be parsed.
    pub(super) fn emit(&self, cseq: Option<u32>) -> Vec<u8> {
        let Self { status, reason, headers, body } = self;
        let cseq = cseq.map(|cseq| format!("CSeq: {cseq}\r\n")).unwrap_or_default();
        format!("RTSP/1.0 {status} {reason}\r\n{cseq}Server: Ocellus\r\n{headers}\r\n{body}")
            .into_bytes()
    }
}

/// Joins continuation lines to the header they continue (RFC 2326 4.2, RFC 2068 4.2).
pub(super) fn unfold<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut headers = String::new();
    for line in lines.filter(|line| !line.is_empty()) {
        if line.starts_with([' ', '\t']) {
            headers.push(' ');
        } else if !headers.is_empty() {
            headers.push('\n');
        }
        headers.push_str(line.trim());
    }
    headers
}

pub(super) fn is_header(line: &str) -> bool {
    let is_token = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?={}".contains(c);
    line.split_once(':').is_some_and(|(name, _)| {
        let name = name.trim_end();
        !name.is_empty() && name.chars().all(is_token)
    })
}

pub(super) fn values<'a>(headers: &'a str, name: &'static str) -> impl Iterator<Item = &'a str> {
    headers
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(move |(found, _)| found.trim_end().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn parse_cseq(text: &str) -> Option<u32> {
    parse_digits(text)
}

/// A number written in digits only: `str::parse` alone would also take a sign.
fn parse_digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// How many bytes of body follow the head. Different values are an attempt to smuggle requests.
fn content_len(headers: &str, cseq: Option<u32>) -> Result<usize, Error> {
    let malformed = Error::Malformed { cseq, reason: "content length" };
    let mut body_len = None;
    for value in values(headers, "Content-Length") {
        let value = parse_digits(value).ok_or(malformed)?;
        if body_len.is_some_and(|known| known != value) {
            return Err(malformed);
        }
        body_len = Some(value);
    }
    match usize::try_from(body_len.unwrap_or(0)) {
        Ok(len) if len <= MAX_BODY_LEN => Ok(len),
        _ => Err(Error::BodyTooLong { cseq }),
    }
}

/// A URL of a camera and a method; live555 has 200 bytes, gortsplib 2 kB for the URL alone.
pub const MAX_REQUEST_LINE_LEN: usize = 1024;
/// The longest real heads (GStreamer with RealMedia headers and a SHA-256 answer) are below 2 kB.
pub const MAX_HEAD_LEN: usize = 8 * 1024;
/// A real request has a dozen.
pub const MAX_HEADERS: usize = 64;
/// Parameters of SET_PARAMETER; none is used.
pub const MAX_BODY_LEN: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Request, Error> {
        Request::parse(head.as_bytes())
    }

    #[test]
    fn a_request_of_gstreamer_is_read_like_rtsp_types_reads_it() {
        let text = "SETUP rtsp://cam/main/trackID=0 RTSP/1.0\r\nCSeq: 4\r\nUser-Agent: GStreamer\
                    /1.22.0\r\nUser-Agent: GStreamer\r\nTransport: RTP/AVP;unicast;client_port=\
                    5000-5001\r\n\r\n";
        let ours = parse(text).unwrap();
        let (message, _) = rtsp_types::Message::<Vec<u8>>::parse(text.as_bytes()).unwrap();
        let rtsp_types::Message::Request(theirs) = message else { panic!("not a request") };
        assert_eq!(ours.method.name(), <&str>::from(theirs.method()));
        assert_eq!(ours.url, theirs.request_uri().unwrap().as_str());
        assert_eq!(
            ours.cseq.unwrap().to_string(),
            theirs.header(&rtsp_types::headers::CSEQ).unwrap().as_str()
        );
        assert_eq!(ours.header("transport"), Some("RTP/AVP;unicast;client_port=5000-5001"));
        assert_eq!(ours.headers("USER-AGENT").count(), 2);
    }

    #[test]
    fn only_a_cseq_of_32_bits_is_known() {
        for (text, cseq) in [
            ("CSeq: 1", Some(1)),
            ("cseq :  4294967295 ", Some(u32::MAX)),
            ("CSeq: 4294967296", None),
            ("CSeq: -1", None),
            ("CSeq: +1", None),
            ("CSeq: 1 2", None),
            ("CSeq:", None),
            ("Other: 1", None),
        ] {
            let request = parse(&format!("OPTIONS * RTSP/1.0\r\n{text}\r\n")).unwrap();
            assert_eq!(request.cseq, cseq, "{text}");
        }
        let long = format!("OPTIONS * RTSP/1.0\r\nCSeq: {}\r\n", "9".repeat(5_000));
        assert_eq!(parse(&long).unwrap().cseq, None);
    }

    #[test]
    fn content_lengths_that_do_not_fit_are_refused() {
        let with = |lines: &str| parse(&format!("SET_PARAMETER * RTSP/1.0\nCSeq: 7\n{lines}\n"));
        assert_eq!(with("Content-Length: 4096").unwrap().body_len, 4096);
        assert_eq!(with("Content-Length: 5\nContent-Length: 5").unwrap().body_len, 5);
        for too_long in ["4097", "999999999", "4294967295"] {
            let error = with(&format!("Content-Length: {too_long}")).unwrap_err();
            assert_eq!(error, Error::BodyTooLong { cseq: Some(7) }, "{too_long}");
        }
        for bad in ["-1", "18446744073709551615", "99999999999999999999", "0x10", "1 2", "+3"] {
            let error = with(&format!("Content-Length: {bad}")).unwrap_err();
            assert!(matches!(error, Error::Malformed { cseq: Some(7), .. }), "{bad}");
        }
        assert!(with("Content-Length: 1\nContent-Length: 2").is_err());
    }

    #[test]
    fn request_lines_that_are_none_are_malformed() {
        for line in [
            "OPTIONS",
            "OPTIONS *",
            "OPTIONS rtsp://cam/main",
            "OPTIONS RTSP/1.0",
            "OPTIONS  RTSP/1.0",
            "GET / HTTP/1.1",
            "DESCRIBE rtsp://cam/a b RTSP/1.0",
            "DESCRIBE rtsp://cam/\u{1} RTSP/1.0",
        ] {
            assert!(parse(&format!("{line}\r\nCSeq: 1\r\n")).is_err(), "{line}");
        }
        for version in ["RTSP/2.0", "RTSP/9.9", "RTSP/"] {
            let request = parse(&format!("OPTIONS * {version}\r\nCSeq: 1\r\n")).unwrap();
            assert!(!request.is_version_1_0);
        }
    }

    #[test]
    fn the_65th_header_is_refused() {
        for count in 1..=MAX_HEADERS * 2 {
            let head = format!("OPTIONS * RTSP/1.0\r\n{}", "a: b\r\n".repeat(count));
            assert_eq!(parse(&head).is_ok(), count <= MAX_HEADERS, "{count}");
        }
    }

    #[test]
    fn folded_headers_are_joined_and_control_characters_refused() {
        let request = parse("OPTIONS * RTSP/1.0\nA: one\n  two\n\tthree\nCSeq: 3\n").unwrap();
        assert_eq!(request.header("a"), Some("one two three"));
        assert_eq!(request.cseq, Some(3));
        assert!(parse("OPTIONS * RTSP/1.0\nAuthorization: Digest a=\"\0\"\n").is_err());
        assert!(parse("OPTIONS * RTSP/1.0\nno colon\n").is_err());
        assert!(parse("OPTIONS * RTSP/1.0\n: empty\n").is_err());
        for name in ["a b", "a(b)", "a/b", "ä"] {
            assert!(parse(&format!("OPTIONS * RTSP/1.0\n{name}: c\n")).is_err(), "{name}");
        }
    }
}
