//! Cuts request URLs into what names a stream and what is to be echoed.
//!
//! RFC 2326 3.2 and C.1.1. Clients append `trackID=0` to the base with or without regard to a
//! query: `/main/trackID=0`, `/main?q/trackID=0` and `/main/trackID=0?q` are all the same stream.
//!
//! Not implemented: percent-decoding; the paths of a camera need none, and an encoded path is
//! simply not found.

use std::net::SocketAddr;

/// The parts of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Url<'a> {
    /// `rtsp` or `rtsps`.
    scheme: &'static str,
    /// Host and port as the client wrote them, without user and password; empty when absent.
    authority: &'a str,
    /// Without slashes at its ends and without the track.
    pub path: &'a str,
    pub has_query: bool,
    /// What follows `trackID=`.
    pub track: Option<&'a str>,
}

impl<'a> Url<'a> {
    /// Parses an absolute URL or an absolute path.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority, rest) = match text.split_once("://") {
            _ if text.starts_with('/') => ("rtsp", "", text),
            None => return None,
            Some((scheme, rest)) => {
                let scheme =
                    ["rtsp", "rtsps"].into_iter().find(|s| s.eq_ignore_ascii_case(scheme))?;
                let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                (scheme, authority.rsplit('@').next()?, rest)
            }
        };
        // It comes back in Content-Base and RTP-Info, where other characters are separators.
        if !authority.chars().all(|c| c.is_ascii_alphanumeric() || "-._~%:[]".contains(c)) {
            return None;
        }
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let (path, track) = split_track(path);
        let track = track.or_else(|| split_track(query?).1);
        let has_query = query.is_some();
        Some(Self { scheme, authority, path: path.trim_matches('/'), has_query, track })
    }

    /// The path without the part that asks for multicast, and whether it was there.
    pub(super) fn multicast_path(&self) -> (&str, bool) {
        match self.path.strip_suffix(MULTICAST) {
            Some(before) if before.is_empty() || before.ends_with('/') => {
                (before.trim_end_matches('/'), true)
            }
            _ => (self.path, false),
        }
    }

    /// The Content-Base of the stream: no query, a slash at the end.
    ///
    /// The host is the one the client used: it is the one that works from where the client is.
    pub(super) fn base(&self, local: SocketAddr) -> String {
        let Self { scheme, authority, path, .. } = self;
        let slash = if path.is_empty() { "" } else { "/" };
        if authority.is_empty() {
            let local = SocketAddr::new(local.ip().to_canonical(), local.port());
            return format!("{scheme}://{local}/{path}{slash}");
        }
        format!("{scheme}://{authority}/{path}{slash}")
    }

    /// The absolute URL of the one track of the stream.
    pub(super) fn track_url(&self, local: SocketAddr) -> String {
        self.base(local) + TRACK_CONTROL
    }
}

/// Whether two URLs name the same stream, whatever their form.
///
/// A Digest `uri` may be the path alone (Bosch BVMS), without the track (HappyTime), or with or
/// without the slash at the end.
pub(super) fn is_same_stream(a: &str, b: &str) -> bool {
    let path = |text| Url::parse(text).map(|url| url.path);
    a == b || path(a).is_some_and(|a| path(b) == Some(a))
}

/// Splits `/trackID=N` off the end.
fn split_track(text: &str) -> (&str, Option<&str>) {
    let text = text.trim_end_matches('/');
    let Some((before, last)) = text.rsplit_once('/') else { return (text, None) };
    match last.split_at_checked(TRACK_PREFIX.len()) {
        Some((name, track)) if name.eq_ignore_ascii_case(TRACK_PREFIX) => (before, Some(track)),
        _ => (text, None),
    }
}

/// Behind a stream's path: the stream as it is sent to its group.
const MULTICAST: &str = "multicast";
const TRACK_PREFIX: &str = "trackID=";
/// `a=control` of the track, relative to the base.
pub(super) const TRACK_CONTROL: &str = "trackID=0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_url_names_its_stream() {
        for (text, path, has_query, track) in [
            ("rtsp://cam/main", "main", false, None),
            ("RTSP://cam:554/main/", "main", false, None),
            ("rtsps://[2001:db8::1]:322/main//", "main", false, None),
            ("rtsp://cam", "", false, None),
            ("rtsp://cam/", "", false, None),
            ("rtsp://@cam:8554", "", false, None),
            ("rtsp://user:p@ss@cam/main", "main", false, None),
            ("rtsp://cam/main/trackID=0", "main", false, Some("0")),
            ("rtsp://cam/main/TRACKid=0/", "main", false, Some("0")),
            ("rtsp://cam/trackID=4294967296", "", false, Some("4294967296")),
            ("rtsp://cam/main?a=1&b=2", "main", true, None),
            ("rtsp://cam?a=1", "", true, None),
            ("rtsp://cam/main?a=1/trackID=0", "main", true, Some("0")),
            ("rtsp://cam/main/trackID=0?a=1", "main", true, Some("0")),
            ("/main/trackID=-1", "main", false, Some("-1")),
            ("rtsp://cam/a/b/../main", "a/b/../main", false, None),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.path, url.has_query, url.track), (path, has_query, track), "{text}");
        }
        for text in
            ["*", "", "main", "http://cam/main", "rtsp:/cam", "rtsp://c;m/", "://", "rtsp://ä/"]
        {
            assert_eq!(Url::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_last_part_of_a_path_may_ask_for_multicast() {
        for (text, expected) in [
            ("rtsp://cam/main/multicast", ("main", true)),
            ("rtsp://cam/main/multicast/trackID=0", ("main", true)),
            ("rtsp://cam/multicast/", ("", true)),
            ("rtsp://cam/main", ("main", false)),
            ("rtsp://cam/mainmulticast", ("mainmulticast", false)),
            ("rtsp://cam/multicast/main", ("multicast/main", false)),
        ] {
            assert_eq!(Url::parse(text).unwrap().multicast_path(), expected, "{text}");
        }
    }

    #[test]
    fn the_base_ends_in_a_slash_and_has_neither_query_nor_password() {
        let local = "[::ffff:192.0.2.10]:8554".parse().unwrap();
        for (text, base) in [
            ("rtsp://cam/main", "rtsp://cam/main/"),
            ("rtsp://u:p@cam:554/main/trackID=0?x", "rtsp://cam:554/main/"),
            ("rtsps://[fe80::1%25eth0]/", "rtsps://[fe80::1%25eth0]/"),
            ("rtsp://cam", "rtsp://cam/"),
            ("/main", "rtsp://192.0.2.10:8554/main/"),
        ] {
            assert_eq!(Url::parse(text).unwrap().base(local), base);
        }
        let url = Url::parse("rtsp://cam/sub").unwrap();
        assert_eq!(url.track_url(local), "rtsp://cam/sub/trackID=0");
    }

    #[test]
    fn digest_uris_may_have_any_form_of_the_same_stream() {
        let request = "rtsp://cam/main/trackID=0";
        for uri in [request, "/main", "/main/", "rtsp://cam/main/", "rtsp://other:1/main/trackID=0"]
        {
            assert!(is_same_stream(uri, request), "{uri}");
        }
        for uri in ["rtsp://cam/sub", "/", "*", "", "main"] {
            assert!(!is_same_stream(uri, request), "{uri}");
        }
        assert!(is_same_stream("*", "*"));
    }
}
