//! Cuts a connection's byte stream into requests and interleaved frames.
//!
//! RFC 2326 4.1 and 10.12. Lines may end in LF alone, and empty lines between messages are
//! skipped: both are seen in the field.
//!
//! Invariant: what is buffered is one message at most, never more than `MAX_HEAD_LEN` bytes, and
//! what comes out does not depend on how the input was cut.

use super::message::{Error, MAX_HEAD_LEN, MAX_REQUEST_LINE_LEN, Request};
use super::tunnel::{self, Opening};

/// What a connection's bytes turn into.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    Request(Request),
    Interleaved {
        channel: u8,
        packet: Vec<u8>,
    },
    /// The connection's first request is HTTP's; what follows is not for this parser.
    Http(Result<Opening, tunnel::Refused>),
}

/// Incremental parser of one connection.
#[derive(Debug, Default)]
pub(super) struct Parser {
    state: State,
    /// Bytes of the head, or of the frame with its header, that is being read.
    buffer: Vec<u8>,
    /// Whether a message has been complete.
    has_begun: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Between,
    Head,
    /// `None` once a body, or a frame that nobody wants, is only to be passed over.
    Skip {
        left: usize,
        then: Option<Request>,
    },
    Frame,
}

impl Parser {
    /// Takes bytes from the front of `bytes` until one input is complete or they are used up.
    ///
    /// # Errors
    ///
    /// The peer's fault; where the next message starts is then unknown.
    pub(super) fn parse(&mut self, bytes: &mut &[u8]) -> Result<Option<Input>, Error> {
        loop {
            if let State::Skip { left: 0, then } = &mut self.state {
                let request = then.take();
                self.state = State::Between;
                if let Some(request) = request {
                    return Ok(Some(Input::Request(request)));
                }
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            match &mut self.state {
                State::Between => self.start(bytes)?,
                State::Skip { left, .. } => *left -= take(bytes, *left).len(),
                State::Head => {
                    if let Some(opening) = self.head(bytes)? {
                        return Ok(Some(opening));
                    }
                }
                State::Frame => {
                    if let Some(frame) = self.frame(bytes) {
                        return Ok(Some(frame));
                    }
                }
            }
        }
    }

    /// Whether a message has begun and is not complete.
    pub(super) const fn is_in_message(&self) -> bool {
        !matches!(self.state, State::Between)
    }

    /// Bytes that are kept of a message that is not complete.
    #[cfg(any(test, fuzzing))]
    pub(super) fn buffered_len(&self) -> usize {
        self.buffer.len()
    }

    fn start(&mut self, bytes: &mut &[u8]) -> Result<(), Error> {
        match bytes.first() {
            Some(b'\r' | b'\n') => drop(take(bytes, 1)),
            Some(&FRAME_START) => self.state = State::Frame,
            Some(byte) if byte.is_ascii_alphabetic() => self.state = State::Head,
            // A TLS handshake, or noise: there is no point in answering in plain text.
            _ => return Err(Error::NotRtsp),
        }
        self.buffer.clear();
        Ok(())
    }

    /// Reads on in a head; returns what it is when that is HTTP's.
    fn head(&mut self, bytes: &mut &[u8]) -> Result<Option<Input>, Error> {
        let line_end = bytes.iter().position(|&byte| byte == b'\n');
        let is_request_line = !self.buffer.contains(&b'\n');
        // One byte over the limit is enough to know, and bounds what is kept.
        let room = (MAX_HEAD_LEN + 1).saturating_sub(self.buffer.len());
        let line = take(bytes, line_end.map_or(room, |at| room.min(at + 1)));
        self.buffer.extend_from_slice(line);
        let line_len = self.buffer.len() - usize::from(self.buffer.ends_with(b"\n"));
        if is_request_line && line_len > MAX_REQUEST_LINE_LEN {
            return Err(Error::RequestLineTooLong);
        }
        if self.buffer.len() > MAX_HEAD_LEN {
            return Err(Error::HeadTooLong);
        }
        if self.buffer.ends_with(b"\n\n") || self.buffer.ends_with(b"\n\r\n") {
            if !self.has_begun && tunnel::is_http(&self.buffer) {
                self.state = State::Between;
                self.has_begun = true;
                return Ok(Some(Input::Http(Opening::parse(&self.buffer))));
            }
            let request = Request::parse(&self.buffer)?;
            self.has_begun = true;
            self.state = State::Skip { left: request.body_len, then: Some(request) };
        }
        Ok(None)
    }

    fn frame(&mut self, bytes: &mut &[u8]) -> Option<Input> {
        let missing = FRAME_HEADER_LEN.saturating_sub(self.buffer.len());
        self.buffer.extend_from_slice(take(bytes, missing));
        let &[_, channel, high, low] = self.buffer.first_chunk()?;
        let packet_len = usize::from(u16::from_be_bytes([high, low]));
        if packet_len > MAX_FRAME_LEN {
            self.state = State::Skip { left: packet_len, then: None };
            return None;
        }
        let missing = (FRAME_HEADER_LEN + packet_len).saturating_sub(self.buffer.len());
        self.buffer.extend_from_slice(take(bytes, missing));
        let packet = self.buffer.get(FRAME_HEADER_LEN..)?;
        if packet.len() < packet_len {
            return None;
        }
        let packet = packet.to_vec();
        self.has_begun = true;
        self.state = State::Between;
        Some(Input::Interleaved { channel, packet })
    }
}

/// Splits up to `len` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(len.min(bytes.len()));
    *bytes = rest;
    taken
}

const FRAME_START: u8 = b'$';
/// `$`, channel, 16 bits of length.
const FRAME_HEADER_LEN: usize = 4;
/// A compound RTCP packet of a viewer is some 100 bytes; longer frames are passed over unread.
pub const MAX_FRAME_LEN: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::super::message::{MAX_BODY_LEN, Method};
    use super::*;

    /// Everything that comes out of `bytes` when they arrive in pieces ending at `cuts`.
    fn feed(bytes: &[u8], cuts: &[usize]) -> (Vec<Input>, Option<Error>, bool) {
        let mut parser = Parser::default();
        let mut inputs = Vec::new();
        let mut start = 0;
        for &end in cuts.iter().chain([&bytes.len()]) {
            let mut piece = &bytes[start..end];
            start = end;
            loop {
                assert!(parser.buffer.len() <= MAX_HEAD_LEN + 1);
                match parser.parse(&mut piece) {
                    Ok(Some(input)) => {
                        assert!(inputs.len() < bytes.len(), "there is no end to them");
                        let is_http = matches!(input, Input::Http(_));
                        inputs.push(input);
                        if is_http {
                            return (inputs, None, parser.is_in_message());
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return (inputs, Some(error), parser.is_in_message()),
                }
            }
            assert!(piece.is_empty());
        }
        (inputs, None, parser.is_in_message())
    }

    fn streams() -> Vec<Vec<u8>> {
        let mut body = b"SET_PARAMETER * RTSP/1.0\nCSeq: 2\nContent-Length: 7\n\nOPTIONS".to_vec();
        body.extend(b"$\x01\x00\x04abcd$\x00\x00\x00\r\n\r\nOPTIONS * RTSP/1.0\r\nCSeq: 3\r\n\r\n");
        let mut long_frame = b"$\x00\xff\xff".to_vec();
        long_frame.extend(vec![b'x'; 0xffff]);
        long_frame.extend(b"OPTIONS * RTSP/1.0\r\nCSeq: 3\r\n\r\n$\x01\x10");
        let line_of = |len: usize| [vec![b'A'; len], b"\r\n\r\n".to_vec()].concat();
        vec![
            body,
            long_frame,
            b"\r\n".repeat(1_000),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            line_of(MAX_REQUEST_LINE_LEN - 1),
            line_of(MAX_REQUEST_LINE_LEN + 1),
            vec![b'A'; 65_536],
            [&b"OPTIONS * RTSP/1.0\r\nA: "[..], &vec![b'b'; 1 << 20]].concat(),
            [&b"OPTIONS * RTSP/1.0\r\n"[..], &b"a: b\r\n".repeat(10_000)].concat(),
            b"OPTIONS * RTSP/1.0\r\nContent-Length: 4\r\n\r\n\r\n\r".to_vec(),
            b"GET /x HTTP/1.1\r\n\r\n".to_vec(),
            b"OPTIONS * RTSP/1.0\r\n\r\nGET /x HTTP/1.1\r\n\r\n".to_vec(),
        ]
    }

    #[test]
    fn what_comes_out_does_not_depend_on_the_cuts() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        for bytes in streams() {
            let whole = feed(&bytes, &[]);
            assert_eq!(feed(&bytes, &(1..bytes.len()).collect::<Vec<_>>()), whole);
            for _ in 0..20 {
                let mut cuts = Vec::new();
                let mut at = 0;
                loop {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    at += usize::try_from(seed % 700).unwrap();
                    if at >= bytes.len() {
                        break;
                    }
                    cuts.push(at);
                }
                assert_eq!(feed(&bytes, &cuts), whole);
            }
        }
    }

    #[test]
    fn requests_and_frames_come_out_in_order() {
        let (inputs, error, is_in_message) = feed(&streams()[0], &[]);
        assert_eq!((error, is_in_message, inputs.len()), (None, false, 4));
        let Input::Request(request) = &inputs[0] else { panic!("not a request") };
        assert_eq!((request.method, request.body_len), (Method::SetParameter, 7));
        assert_eq!(inputs[1], Input::Interleaved { channel: 1, packet: b"abcd".to_vec() });
        assert_eq!(inputs[2], Input::Interleaved { channel: 0, packet: Vec::new() });
        let Input::Request(request) = &inputs[3] else { panic!("not a request") };
        assert_eq!(request.cseq, Some(3));
    }

    #[test]
    fn each_hostile_stream_ends_as_the_law_says() {
        let ends = streams().iter().map(|bytes| feed(bytes, &[]).1).collect::<Vec<_>>();
        let malformed = Some(Error::Malformed { cseq: None, reason: "request line" });
        assert_eq!(
            ends,
            [
                None,
                None,
                None,
                Some(Error::NotRtsp),
                malformed,
                Some(Error::RequestLineTooLong),
                Some(Error::RequestLineTooLong),
                Some(Error::HeadTooLong),
                Some(Error::HeadTooLong),
                None,
                None,
                malformed,
            ]
        );
    }

    #[test]
    fn frames_up_to_the_limit_are_kept_and_longer_ones_skipped() {
        for len in (0..64).chain(MAX_FRAME_LEN - 2..MAX_FRAME_LEN + 3) {
            let size = u16::try_from(len).unwrap().to_be_bytes();
            let frame = [&[b'$', 5][..], &size, &vec![7; len]].concat();
            let (inputs, error, is_in_message) = feed(&frame, &[]);
            assert_eq!((error, is_in_message), (None, false));
            assert_eq!(inputs.len(), usize::from(len <= MAX_FRAME_LEN), "{len}");
        }
    }

    #[test]
    fn heads_up_to_the_limit_are_read() {
        let line = "OPTIONS * RTSP/1.0\r\nA: ";
        for len in MAX_HEAD_LEN - 2..MAX_HEAD_LEN + 3 {
            let head = format!("{line}{}\r\n\r\n", "b".repeat(len - line.len() - 4));
            let (inputs, error, _) = feed(head.as_bytes(), &[]);
            let expected = (len > MAX_HEAD_LEN).then_some(Error::HeadTooLong);
            assert_eq!((inputs.len(), error), (usize::from(len <= MAX_HEAD_LEN), expected));
        }
    }

    #[test]
    fn every_body_length_is_passed_over() {
        for len in [0, 1, 2, 100, MAX_BODY_LEN] {
            let head = format!("SET_PARAMETER * RTSP/1.0\r\nContent-Length: {len}\r\n\r\n");
            let bytes = [head.as_bytes(), &vec![b'$'; len], head.as_bytes()].concat();
            let (inputs, error, is_in_message) = feed(&bytes, &[]);
            assert_eq!((inputs.len(), error), (if len == 0 { 2 } else { 1 }, None));
            assert_eq!(is_in_message, len > 0);
        }
    }
}
