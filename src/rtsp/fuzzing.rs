//! What must hold whatever a stranger writes: properties of the readers that nobody sees outside.
//!
//! `scripts/fuzz` looks for inputs that break them; `cargo test` replays the ones that are kept in
//! `tests/fuzz/corpus`, one folder for each target.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a property that does not hold is a panic"
)]

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::message::{Error, MAX_BODY_LEN, MAX_HEAD_LEN, Method, Request};
use super::multicast::Group;
use super::parser::{Input, MAX_FRAME_LEN, Parser};
use super::range::{From, is_reversed};
use super::transport::{self, Lower, Offer};
use super::tunnel::{Base64, NotBase64, Opening};
use super::url::{Url, is_same_stream};
use crate::time::NtpTimestamp;

/// A name, and what panics when a property does not hold for an input.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("rtsp_input", input),
    ("rtsp_messages", messages),
    ("rtsp_transport", transport),
    ("rtsp_range", range),
    ("rtsp_url", url),
    ("rtsp_tunnel", tunnel),
];

/// Any bytes: what comes out does not depend on how they were cut, what is kept is bounded, and a
/// request that is written out again is the same request.
fn input(bytes: &[u8]) {
    let whole = feed(bytes, [bytes.len()]);
    assert_eq!(feed(bytes, 1..=bytes.len()), whole);
    assert_eq!(feed(bytes, cuts(bytes)), whole);
    for input in whole.0 {
        let Input::Request(request) = input else { continue };
        assert!(request.body_len <= MAX_BODY_LEN);
        assert!(!request.url.contains(|c: char| c.is_control() || c == ' '));
        let text = request.emit();
        assert_eq!(Request::parse(&text).unwrap().emit(), text);
    }
}

/// A conversation of requests and frames: exactly those come out of it, in order.
fn messages(bytes: &[u8]) {
    let (mut stream, mut wanted) = (Vec::new(), Vec::new());
    let mut rest = bytes;
    while let Some((&[kind, len], after)) = rest.split_first_chunk() {
        let len = usize::from(len) * if kind & 0x80 == 0 { 1 } else { 33 };
        let (content, after) = after.split_at(len.min(after.len()));
        rest = after;
        if kind & 1 == 0 {
            // What is missing is filled up, so that a short input reaches the limit.
            let packet = [content, &vec![kind; len - content.len()]].concat();
            stream.extend([b'$', kind]);
            stream.extend(u16::try_from(packet.len()).unwrap().to_be_bytes());
            stream.extend(&packet);
            if packet.len() <= MAX_FRAME_LEN {
                wanted.push(Input::Interleaved { channel: kind, packet });
            }
        } else if let Some(request) = request(kind, content) {
            stream.extend(request.emit());
            stream.extend(vec![b'$'; request.body_len]);
            // The empty lines between messages that some clients send.
            stream.extend(&b"\r\n\n"[..usize::from(kind >> 5 & 3)]);
            wanted.push(Input::Request(request));
        }
    }
    let wanted = (wanted, None, false);
    assert_eq!(feed(&stream, [stream.len()]), wanted);
    assert_eq!(feed(&stream, cuts(bytes)), wanted);
}

/// A request whose headers are `content`, if there can be one.
fn request(kind: u8, content: &[u8]) -> Option<Request> {
    let methods = ["OPTIONS", "SETUP", "PLAY", "SET_PARAMETER", "RECORD", "BREW"];
    let method = methods[usize::from(kind >> 1) % methods.len()];
    let head = [method.as_bytes(), b" * RTSP/1.0\r\n", content, b"\r\n\r\n"].concat();
    let end = head.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let request = Request::parse(&head[..end]).ok()?;
    // Once more, for what is only a longer way to write the same.
    let request = Request::parse(&request.emit()).ok()?;
    (request.emit().len() <= MAX_HEAD_LEN && request.method != Method::Describe).then_some(request)
}

type Fed = (Vec<Input>, Option<Error>, bool);

/// Everything that comes out of `bytes` when they arrive in pieces ending at `cuts`.
fn feed(bytes: &[u8], cuts: impl IntoIterator<Item = usize>) -> Fed {
    let mut parser = Parser::default();
    let mut inputs = Vec::new();
    let mut start = 0;
    for end in cuts.into_iter().chain([bytes.len()]) {
        let end = end.clamp(start, bytes.len());
        let mut piece = &bytes[start..end];
        start = end;
        loop {
            match parser.parse(&mut piece) {
                Ok(Some(input)) => {
                    let is_http = matches!(input, Input::Http(_));
                    inputs.push(input);
                    // The rest is not for this parser.
                    if is_http {
                        return (inputs, None, false);
                    }
                }
                Ok(None) => break,
                Err(error) => return (inputs, Some(error), parser.is_in_message()),
            }
            assert!(parser.buffered_len() <= MAX_HEAD_LEN + 1);
        }
        assert!(piece.is_empty() && parser.buffered_len() <= MAX_HEAD_LEN + 1);
    }
    (inputs, None, parser.is_in_message())
}

/// Where to cut, drawn from the input, so that a finding is found again.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let mut state = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut at = 0;
    std::iter::from_fn(move || {
        state = state.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        // Mostly short pieces, now and then a long one.
        at += usize::from(u8::try_from(state >> 56).unwrap() >> (state >> 50 & 7));
        (at < 1 << 16).then_some(at)
    })
}

/// A choice of what is offered, and Transport headers, one a line: what is chosen was offered, can
/// be sent to, and is what the answer says.
fn transport(bytes: &[u8]) {
    let (&offered, text) = bytes.split_first().unwrap_or((&0, bytes));
    let text = String::from_utf8_lossy(text);
    let group = Group {
        rtp: SocketAddr::from(([239, 255, 1, 2], 5004)),
        rtcp: SocketAddr::from(([239, 255, 1, 2], 5005)),
        ttl: 1,
        source: (offered & 8 != 0).then_some([192, 0, 2, 1].into()),
        from: None,
    };
    let offer = Offer {
        has_interleaved: offered & 1 != 0,
        has_udp: offered & 2 != 0,
        group: (offered & 4 != 0).then_some(group),
    };
    let Some(chosen) = transport::choose(text.lines(), offer) else { return };
    match chosen.lower {
        Lower::Interleaved { rtp_channel, rtcp_channel } => {
            assert!(offer.has_interleaved && rtp_channel.checked_add(1) == Some(rtcp_channel));
        }
        Lower::Udp { rtp_port, rtcp_port } => {
            assert!(offer.has_udp && rtp_port > 0 && rtp_port % 2 == 0 && rtcp_port > rtp_port);
        }
        Lower::Multicast(chosen) => assert_eq!(Some(chosen), offer.group),
    }
    let answer = chosen.reply((8000, 8001), 0x1a2b_3c4d).to_string();
    assert!(answer.len() < 128 && !answer.contains(char::is_control), "{answer}");
    assert_eq!(transport::choose([&*answer].into_iter(), offer), Some(chosen));
}

/// Two times of day, and the text of a Range header: what ends before it begins does not do so the
/// other way round, and what the camera writes it reads in the right order.
fn range(bytes: &[u8]) {
    let (times, text) = bytes.split_at(bytes.len().min(16));
    let mut times = times.as_chunks::<8>().0.iter().map(|word| u64::from_be_bytes(*word));
    let text = String::from_utf8_lossy(text);
    if is_reversed(&text) {
        let range = text.split(';').next().unwrap();
        let (unit, range) = range.split_once('=').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        assert!(!is_reversed(&format!("{unit}={end}-{start}")), "{text}");
    }
    let (Some(one), Some(other)) = (times.next(), times.next()) else { return };
    let [one, other] = [one, other].map(NtpTimestamp);
    let [first, last] = [one, other].map(|at| From(Some(at)).to_string());
    assert!(first.len() == "clock=20261122T143720.257Z-".len() && first.is_ascii(), "{first}");
    let millis = |at: NtpTimestamp| at.to_unix().as_millis();
    let both = first.clone() + last.trim_start_matches("clock=").trim_end_matches('-');
    assert_eq!(is_reversed(&both), millis(other) < millis(one), "{both}");
}

/// A URL: what it is answered with means the same stream and has nothing in it that a client would
/// take for the end of a header or a parameter.
fn url(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let local = SocketAddr::from(([192, 0, 2, 10], 8554));
    let Some(url) = Url::parse(&text) else {
        assert!(!is_same_stream(&text, "rtsp://cam/main"));
        return;
    };
    assert!(is_same_stream(&text, &text));
    let (stream, _) = url.multicast_path();
    assert!(url.path.starts_with(stream) && !url.path.ends_with('/'));
    // One track is cut off; a second is part of the path, which is then that of no stream.
    if url.path.to_ascii_lowercase().contains("trackid=") {
        return;
    }
    let base = url.base(local);
    let again = Url::parse(&base).unwrap();
    assert_eq!((again.path, again.has_query, again.track), (url.path, false, None));
    assert_eq!(again.base(local), base);
    let track = url.track_url(local);
    let again = Url::parse(&track).unwrap();
    assert_eq!((again.path, again.has_query, again.track), (url.path, false, Some("0")));
    assert!(is_same_stream(&text, &base) && is_same_stream(&track, &text));
}

/// What comes through HTTP: any cut decodes to the same, what was encoded comes back, and a head
/// either opens a tunnel with a printable cookie or is refused.
fn tunnel(bytes: &[u8]) {
    let whole = decode(bytes, [bytes.len()]);
    assert_eq!(decode(bytes, 1..=bytes.len()), whole);
    assert_eq!(decode(bytes, cuts(bytes)), whole);
    assert!(whole.0.len() <= bytes.len() / 4 * 3);
    // Every piece by itself, with padding and a line's end, as clients do.
    let (mut encoded, mut start) = (String::new(), 0);
    for end in cuts(bytes).take_while(|&end| end < bytes.len()).chain([bytes.len()]) {
        encoded += &STANDARD.encode(&bytes[start..end]);
        encoded += ["", "\r\n", "\n", " "][end % 4];
        start = end;
    }
    assert_eq!(decode(encoded.as_bytes(), cuts(bytes)), (bytes.to_vec(), Ok(())));
    let _ = Opening::parse(bytes);
}

/// Everything that base64 in pieces ending at `cuts` stands for.
fn decode(bytes: &[u8], cuts: impl IntoIterator<Item = usize>) -> (Vec<u8>, Result<(), NotBase64>) {
    let (mut base64, mut decoded, mut start) = (Base64::default(), Vec::new(), 0);
    for end in cuts.into_iter().chain([bytes.len()]) {
        let end = end.clamp(start, bytes.len());
        if let Err(error) = base64.decode(&bytes[start..end], &mut decoded) {
            return (decoded, Err(error));
        }
        start = end;
    }
    (decoded, Ok(()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Runs every kept input of every target.
    #[test]
    fn no_input_that_was_kept_breaks_a_property() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        for (name, target) in TARGETS {
            let mut count = 0;
            for entry in std::fs::read_dir(corpus.join(name)).unwrap() {
                target(&std::fs::read(entry.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "nothing is kept for {name}");
        }
    }
}
