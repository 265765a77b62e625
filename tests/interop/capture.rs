//! Holds what one RTSP connection said and carried, and cuts a byte stream into it.
//!
//! RFC 2326 4 (messages) and 10.12 (interleaved frames). A capture is what the validator reads; the
//! client writes real ones and `golden` makes them by hand.
//!
//! Not implemented: requests from the server, which a camera never sends.

use std::net::SocketAddr;
use std::time::Duration;

/// One connection's dialogue and media, in the order of arrival.
#[derive(Clone, Debug, Default)]
pub(crate) struct Capture {
    /// Time since the UNIX epoch at which `at` is zero.
    pub(crate) started: Duration,
    pub(crate) events: Vec<Event>,
}

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An RTSP request that the client wrote.
    Request(Vec<u8>),
    /// An RTSP response, head and body.
    Response(Vec<u8>),
    /// The payload of one `$` frame.
    Interleaved { channel: u8, packet: Vec<u8> },
    /// One datagram that arrived on the client's port `to`.
    Datagram { to: u16, from: SocketAddr, packet: Vec<u8> },
    /// Bytes of the stream that are neither a response nor a frame.
    Garbage(Vec<u8>),
    /// The server closed the connection.
    Closed,
}

/// Cuts the server's half of a connection into responses and frames, at any chunking.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    buffer: Vec<u8>,
    /// Something was neither response nor frame: there is no way back into step.
    lost: bool,
}

impl Splitter {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole item, or `None` until more bytes have come.
    pub(crate) fn next_item(&mut self) -> Option<Kind> {
        let start = self.buffer.get(..self.buffer.len().min(5))?;
        if start.is_empty() {
            return None;
        }
        if self.lost {
            return Some(Kind::Garbage(std::mem::take(&mut self.buffer)));
        }
        if start[0] == b'$' {
            let header = self.buffer.get(..4)?;
            let end = 4 + usize::from(u16::from_be_bytes([header[2], header[3]]));
            let channel = header[1];
            let packet = self.buffer.get(4..end)?.to_vec();
            self.buffer.drain(..end);
            return Some(Kind::Interleaved { channel, packet });
        }
        if !b"RTSP/".starts_with(start) {
            self.lost = true;
            return Some(Kind::Garbage(std::mem::take(&mut self.buffer)));
        }
        let head = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
        let body: usize = Message::parse(&self.buffer[..head])
            .and_then(|message| message.header("Content-Length")?.parse().ok())
            .unwrap_or(0);
        let response = self.buffer.get(..head + body)?.to_vec();
        self.buffer.drain(..head + body);
        Some(Kind::Response(response))
    }
}

/// A request or response as text: the first line, the headers in order, the body.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) start: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
        let mut lines = text.split("\r\n");
        let start = lines.next()?.to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        Some(Self { start, headers, body: bytes[head + 4..].to_vec() })
    }

    /// Returns the first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|header| header.0.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the values of every header of this name, in order.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let matches = move |header: &&(String, String)| header.0.eq_ignore_ascii_case(name);
        self.headers.iter().filter(matches).map(|(_, value)| value.as_str())
    }

    /// Returns the status code of a response, or 0 where there is none.
    pub(crate) fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or(0)
    }

    pub(crate) fn method(&self) -> &str {
        self.word(0)
    }

    pub(crate) fn uri(&self) -> &str {
        self.word(1)
    }

    pub(crate) fn version(&self) -> &str {
        self.word(2)
    }

    fn word(&self, index: usize) -> &str {
        self.start.split(' ').nth(index).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 3\r\n\r\n$$R\
        $\x00\x00\x02\x80\x60$\x01\x00\x00RTSP/1.0 200 OK\r\nCSeq: 2\r\n\r\nGET / RTSP/1.0";

    fn split(cuts: impl Iterator<Item = usize>) -> Vec<Kind> {
        let (mut splitter, mut items, mut from) = (Splitter::default(), Vec::new(), 0);
        for to in cuts.chain([STREAM.len()]) {
            splitter.push(&STREAM[from..to]);
            from = to;
            while let Some(item) = splitter.next_item() {
                match (items.last_mut(), item) {
                    (Some(Kind::Garbage(seen)), Kind::Garbage(more)) => seen.extend(more),
                    (_, item) => items.push(item),
                }
            }
        }
        items
    }

    #[test]
    fn a_stream_is_cut_alike_at_any_chunking() {
        let whole = split([].into_iter());
        assert_eq!(whole.len(), 5);
        assert!(matches!(&whole[0], Kind::Response(bytes) if bytes.ends_with(b"$$R")));
        assert_eq!(whole[1], Kind::Interleaved { channel: 0, packet: vec![0x80, 0x60] });
        assert_eq!(whole[2], Kind::Interleaved { channel: 1, packet: vec![] });
        assert_eq!(whole[4], Kind::Garbage(b"GET / RTSP/1.0".to_vec()));
        assert_eq!(split(1..STREAM.len()), whole);
        for cut in 1..STREAM.len() {
            assert_eq!(split([cut].into_iter()), whole, "cut at {cut}");
        }
    }
}
