//! Tells from the first bytes of a connection whether it is HTTP or RTSP through HTTP.
//!
//! Apple's scheme (see `rtsp`'s tunnel): a GET or POST with a cookie of its own, or one that
//! accepts a type of its own.

/// What a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Http,
    Tunnel,
}

impl Opening {
    /// Judges what has come so far; `None` when it is not enough.
    ///
    /// What is neither counts as HTTP, whose library knows what to say to it.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
            return Some(Self::Http);
        }
        let mut lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        let request = lines.next().unwrap_or_default();
        let is_either = request.starts_with(b"GET ") || request.starts_with(b"POST ");
        let mut is_tunnel = false;
        // The last piece has no line's end yet.
        let count = bytes.iter().filter(|&&byte| byte == b'\n').count();
        for line in lines.take(count.saturating_sub(1)) {
            if line.is_empty() {
                return Some(if is_either && is_tunnel { Self::Tunnel } else { Self::Http });
            }
            is_tunnel |= is_tunnels(line);
        }
        (bytes.len() >= MAX_HEAD_LEN).then_some(Self::Http)
    }
}

fn is_tunnels(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else { return false };
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default();
    name.eq_ignore_ascii_case(b"x-sessioncookie")
        || (name.eq_ignore_ascii_case(b"accept")
            && value.split(|&byte| byte == b',').any(|kind| {
                kind.trim_ascii().eq_ignore_ascii_case(b"application/x-rtsp-tunnelled")
            }))
}

/// HTTP's and RTSP's alike.
pub(super) const MAX_HEAD_LEN: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_told_from_http_at_the_end_of_the_head_and_not_before() {
        let accept = "Accept: text/html, Application/X-RTSP-tunnelled";
        for (head, opening) in [
            ("GET /main HTTP/1.0\r\nX-SessionCookie: 4d9b\r\n\r\n", Opening::Tunnel),
            ("POST /main HTTP/1.1\nx-sessioncookie: 4d9b\nContent-Length: 9\n\n", Opening::Tunnel),
            (&format!("GET / HTTP/1.1\r\n{accept}\r\nHost: cam\r\n\r\n"), Opening::Tunnel),
            (&format!("DELETE / HTTP/1.1\r\n{accept}\r\n\r\n"), Opening::Http),
            ("GET / HTTP/1.1\r\nHost: x-sessioncookie:\r\n\r\n", Opening::Http),
            ("GET / HTTP/1.1\r\n\r\nx-sessioncookie: a\r\n\r\n", Opening::Http),
            ("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n", Opening::Http),
            ("GET\r\n\r\n", Opening::Http),
        ] {
            let end =
                head.find("\n\r\n").map_or_else(|| head.find("\n\n").unwrap() + 2, |at| at + 3);
            for len in 0..end {
                assert_eq!(Opening::of(&head.as_bytes()[..len]), None, "{:?}", &head[..len]);
            }
            for len in end..=head.len() {
                assert_eq!(Opening::of(&head.as_bytes()[..len]), Some(opening), "{head:?}");
            }
        }
    }

    #[test]
    fn garbage_and_heads_without_an_end_are_left_to_http() {
        for garbage in [&b"\x16\x03\x01\x02\x00"[..], b"\0", b"get / HTTP/1.1\r\n\r\n", b"\r\n"] {
            assert_eq!(Opening::of(garbage), Some(Opening::Http));
        }
        let mut long = b"GET / HTTP/1.1\r\nx-sessioncookie: ".to_vec();
        long.resize(MAX_HEAD_LEN - 1, b'a');
        assert_eq!(Opening::of(&long), None);
        long.push(b'a');
        assert_eq!(Opening::of(&long), Some(Opening::Http));
    }
}
