//! Decides who sent a request: Digest challenges, nonces and answers.
//!
//! RFC 7616 with SHA-256 and MD5, with and without `qop`; RFC 2069 answers are those without.
//!
//! Not implemented: Basic (clients that take the first challenge would send the password in
//! clear), `auth-int`, `-sess` algorithms, user name hashing. `nc` is not checked: go2rtc and
//! others never send it.
//!
//! Nonces are stateless: a time and a keyed hash of it and of the peer's address. A nonce works
//! for five minutes from every connection of that address (go2rtc's producers share one), and
//! for as long as it likes on a connection that has used it (go2rtc and live555 give up when a
//! later request is refused).

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use md5::Md5;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::secret::Secret;
use super::user::User;
use crate::time::Instant;

/// The `Authorization` header of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    algorithm: Algorithm,
    username: Cow<'a, str>,
    nonce: Cow<'a, str>,
    uri: Cow<'a, str>,
    response: Cow<'a, str>,
    qop: Option<Qop<'a>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Qop<'a> {
    nc: Cow<'a, str>,
    cnonce: Cow<'a, str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha256,
}

/// Why an `Authorization` header holds no credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    #[error("not what RFC 7616 3.4 describes")]
    Malformed,
    #[error("a scheme, algorithm or quality of protection that was not offered")]
    NotOffered,
}

/// What credentials are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are those of the user at this index.
    Right(usize),
    /// They are right, but made with a nonce that is no longer, or never was, this peer's.
    Stale,
    Wrong,
}

/// What a request says about itself that credentials are checked against.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub method: &'a str,
    /// Whether [`Credentials::uri`] means what is asked for.
    pub is_for_this: bool,
    pub peer: IpAddr,
    /// The nonce that this connection has used with success.
    pub used_nonce: Option<&'a str>,
}

impl<'a> Credentials<'a> {
    /// Parses the value of an `Authorization` header.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] is the client's fault; for [`Error::NotOffered`] it may try again.
    pub fn parse(header: &'a str) -> Result<Self, Error> {
        let (scheme, parameters) = header.split_once([' ', '\t']).ok_or(Error::NotOffered)?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Err(Error::NotOffered);
        }
        let mut parameters = Parameters::parse(parameters)?;
        let algorithm = match parameters.take("algorithm") {
            None => None,
            Some(name) if name.eq_ignore_ascii_case("MD5") => Some(Algorithm::Md5),
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => Some(Algorithm::Sha256),
            Some(_) => return Err(Error::NotOffered),
        };
        let qop = match parameters.take("qop") {
            Some(qop) if qop.eq_ignore_ascii_case("auth") => Some(Qop {
                nc: parameters.take("nc").ok_or(Error::Malformed)?,
                cnonce: parameters.take("cnonce").ok_or(Error::Malformed)?,
            }),
            Some(qop) if !qop.is_empty() => return Err(Error::NotOffered),
            _ => None,
        };
        let mut required = |name| parameters.take(name).ok_or(Error::Malformed);
        let response = required("response")?;
        // retina 0.4 answers the SHA-256 challenge and does not say so: the length tells.
        let algorithm = algorithm.unwrap_or(match response.len() {
            SHA_256_HEX_LEN => Algorithm::Sha256,
            _ => Algorithm::Md5,
        });
        Ok(Self {
            algorithm,
            username: required("username")?,
            nonce: required("nonce")?,
            uri: required("uri")?,
            response,
            qop,
        })
    }

    #[must_use]
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// What was asked for, as the answer has it; it may be another form of the request's.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Checks the credentials. Takes as long for an unknown user as for a wrong password.
    #[must_use]
    pub fn verify(
        &self,
        now: Instant,
        claim: &Claim<'_>,
        (realm, users): (&str, &[User]),
        secret: &Secret,
    ) -> Verdict {
        let index = users.iter().position(|user| user.name == self.username);
        let password = index.and_then(|index| users.get(index)).map_or("", |user| &user.password);
        let expected = self.expected(claim.method, realm, password);
        let response = self.response.to_ascii_lowercase();
        let is_right = bool::from(expected.as_bytes().ct_eq(response.as_bytes()));
        match index {
            Some(index) if is_right && claim.is_for_this => {
                let is_fresh = claim.used_nonce == Some(&*self.nonce)
                    || is_own_nonce(now, &self.nonce, claim.peer, secret);
                if is_fresh { Verdict::Right(index) } else { Verdict::Stale }
            }
            _ => Verdict::Wrong,
        }
    }

    /// The response that the password's owner would have sent (RFC 7616 3.4.1).
    fn expected(&self, method: &str, realm: &str, password: &str) -> String {
        let hash = |text: &str| match self.algorithm {
            Algorithm::Md5 => hex(&Md5::digest(text)),
            Algorithm::Sha256 => hex(&Sha256::digest(text)),
        };
        let Self { username, nonce, uri, .. } = self;
        let ha1 = hash(&format!("{username}:{realm}:{password}"));
        let ha2 = hash(&format!("{method}:{uri}"));
        match &self.qop {
            Some(Qop { nc, cnonce }) => hash(&format!("{ha1}:{nonce}:{nc}:{cnonce}:auth:{ha2}")),
            None => hash(&format!("{ha1}:{nonce}:{ha2}")),
        }
    }
}

/// The `WWW-Authenticate` headers of one 401.
///
/// The order of everything matters: FFmpeg keeps the last challenge and knows MD5 only; live555
/// needs realm, nonce and stale as the first three, in this order.
#[must_use]
pub fn challenges(realm: &str, nonce: &str, is_stale: bool) -> [String; 2] {
    let stale = if is_stale { ", stale=TRUE" } else { "" };
    let md5 = format!("Digest realm=\"{realm}\", nonce=\"{nonce}\"{stale}");
    [format!("{md5}, algorithm=SHA-256"), md5]
}

/// A nonce for `peer`: 32 hexadecimal digits (ZoneMinder trips over anything but).
#[must_use]
pub fn nonce(now: Instant, peer: IpAddr, secret: &Secret) -> String {
    nonce_of(now.as_micros() / 1_000_000, peer, secret)
}

fn nonce_of(seconds: u64, peer: IpAddr, secret: &Secret) -> String {
    // 2^32 s are 136 years of uptime; the hash guards what the mask leaves.
    let [_, _, _, _, time @ ..] = seconds.to_be_bytes();
    let address = peer.to_canonical().to_string();
    let hash = secret.hash("nonce", &[&time, address.as_bytes()]);
    hex(&time) + &hex(hash.get(..12).unwrap_or_default())
}

fn is_own_nonce(now: Instant, nonce: &str, peer: IpAddr, secret: &Secret) -> bool {
    let Some(Ok(seconds)) = nonce.get(..8).map(|time| u64::from_str_radix(time, 16)) else {
        return false;
    };
    let age = now.since(Instant::ZERO + Duration::from_secs(seconds));
    let is_ours = nonce_of(seconds, peer, secret).as_bytes().ct_eq(nonce.as_bytes());
    bool::from(is_ours) && age <= NONCE_LIFETIME
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `name=value` pairs in the order of the header.
struct Parameters<'a>(Vec<(&'a str, Cow<'a, str>)>);

impl<'a> Parameters<'a> {
    fn parse(mut text: &'a str) -> Result<Self, Error> {
        let mut parameters: Vec<(&str, Cow<'_, str>)> = Vec::new();
        loop {
            text = text.trim_start_matches([' ', '\t', ',']);
            if text.is_empty() {
                return Ok(Self(parameters));
            }
            let (name, rest) = text.split_once('=').ok_or(Error::Malformed)?;
            let name = name.trim();
            let is_known = parameters.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
            if is_known || parameters.len() == MAX_PARAMETERS {
                return Err(Error::Malformed);
            }
            let rest = rest.trim_start();
            let (value, rest) = match rest.strip_prefix('"') {
                Some(quoted) => unquote(quoted).ok_or(Error::Malformed)?,
                None => {
                    let end = rest.find(',').unwrap_or(rest.len());
                    let (value, rest) = rest.split_at(end);
                    (Cow::Borrowed(value.trim()), rest)
                }
            };
            parameters.push((name, value));
            text = rest;
        }
    }

    fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.0.iter().position(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(self.0.swap_remove(at).1)
    }
}

/// The value up to the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    let (plain, rest) = text.split_at(end);
    if let Some(rest) = rest.strip_prefix('"') {
        return Some((Cow::Borrowed(plain), rest));
    }
    let mut value = plain.to_owned();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return Some((Cow::Owned(value), chars.as_str())),
            '\\' => value.push(chars.next()?),
            other => value.push(other),
        }
    }
}

/// How long a nonce works from connections that have not used it: long enough for a recorder
/// that opens its connections one after another.
const NONCE_LIFETIME: Duration = Duration::from_secs(300);
/// A SHA-256 hash in hexadecimal digits.
const SHA_256_HEX_LEN: usize = 64;
/// RFC 7616 knows twelve.
const MAX_PARAMETERS: usize = 24;

#[cfg(test)]
mod tests {
    use super::super::user::Role;
    use super::*;

    const REALM: &str = "ocellus";

    fn users() -> Vec<User> {
        [
            ("admin", "se:cr@t/%#", Role::Admin),
            ("jürgen \"x\\", "пароль", Role::Viewer),
            ("", "", Role::Viewer),
        ]
        .map(|(name, password, role)| User { name: name.into(), password: password.into(), role })
        .into()
    }

    fn peer() -> IpAddr {
        "192.0.2.7".parse().unwrap()
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    /// An answer as RFC 7616 has it; written apart from the code under test.
    fn answer(nonce: &str, user: usize, password: &str, sha256: bool, with_qop: bool) -> String {
        let hash = |text: String| {
            if sha256 { hex(&Sha256::digest(text)) } else { hex(&Md5::digest(text)) }
        };
        let name = &users()[user].name;
        let ha1 = hash(format!("{name}:{REALM}:{password}"));
        let ha2 = hash("PLAY:rtsp://cam/main/".into());
        let (response, qop) = if with_qop {
            (
                hash(format!("{ha1}:{nonce}:00000001:0a4f:auth:{ha2}")),
                ", qop=\"auth\", nc=00000001, cnonce=\"0a4f\"",
            )
        } else {
            (hash(format!("{ha1}:{nonce}:{ha2}")), "")
        };
        let algorithm = if sha256 { ", algorithm=SHA-256" } else { "" };
        let name = name.replace('\\', "\\\\").replace('"', "\\\"");
        format!(
            "Digest username=\"{name}\", realm=\"{REALM}\", nonce=\"{nonce}\", \
             uri=\"rtsp://cam/main/\", response=\"{response}\"{algorithm}{qop}"
        )
    }

    fn verify(now: u64, header: &str, used_nonce: Option<&str>) -> Verdict {
        let secret = Secret::new([3; 32]);
        let credentials = Credentials::parse(header).unwrap();
        let is_for_this = credentials.uri() == "rtsp://cam/main/";
        let claim = Claim { method: "PLAY", is_for_this, peer: peer(), used_nonce };
        credentials.verify(at(now), &claim, (REALM, &users()), &secret)
    }

    #[test]
    fn rfc_7616_and_2617_examples_hash_as_printed() {
        let text =
            r#"Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html",
            algorithm=SHA-256, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001,
            cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, opaque="x",
            response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1""#
                .replace('\n', " ");
        let credentials = Credentials::parse(&text).unwrap();
        let expected = credentials.expected("GET", "http-auth@example.org", "Circle of Life");
        assert_eq!(expected, credentials.response);

        let text = r#"Digest username="Mufasa", realm="testrealm@host.com", uri="/dir/index.html",
            nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", nc=00000001, cnonce="0a4f113b", qop=auth,
            algorithm="MD5", response="6629fae49393a05397450978507c4ef1""#
            .replace('\n', " ");
        let credentials = Credentials::parse(&text).unwrap();
        let expected = credentials.expected("GET", "testrealm@host.com", "Circle Of Life");
        assert_eq!(expected, credentials.response);
    }

    #[test]
    fn right_passwords_are_right_in_every_form_and_wrong_ones_wrong() {
        let fresh = nonce(at(1_000), peer(), &Secret::new([3; 32]));
        for (index, user) in users().iter().enumerate() {
            for (sha256, with_qop) in [(false, false), (false, true), (true, false), (true, true)] {
                let right = answer(&fresh, index, &user.password, sha256, with_qop);
                assert_eq!(verify(1_010, &right, None), Verdict::Right(index), "{right}");
                let wrong = answer(&fresh, index, "guess", sha256, with_qop);
                assert_eq!(verify(1_010, &wrong, None), Verdict::Wrong);
                let stranger = right.replacen("username=\"", "username=\"x", 1);
                assert_eq!(verify(1_010, &stranger, None), Verdict::Wrong);
                let elsewhere = right.replace("cam/main/\"", "cam/sub/\"");
                assert_eq!(verify(1_010, &elsewhere, None), Verdict::Wrong);
            }
        }
        let retina =
            answer(&fresh, 0, "se:cr@t/%#", true, false).replace(", algorithm=SHA-256", "");
        assert_eq!(verify(1_010, &retina, None), Verdict::Right(0), "{retina}");
        let upper =
            answer(&fresh, 0, "se:cr@t/%#", true, false).replace("response=\"a", "response=\"A");
        assert_eq!(verify(1_010, &upper, None), Verdict::Right(0));
    }

    #[test]
    fn an_unknown_user_with_an_empty_password_stays_unknown() {
        let fresh = nonce(at(5), peer(), &Secret::new([3; 32]));
        let known = answer(&fresh, 2, "", false, false);
        assert_eq!(verify(5, &known, None), Verdict::Right(2));
        let ha1 = hex(&Md5::digest(format!("nobody:{REALM}:")));
        let ha2 = hex(&Md5::digest("PLAY:/main"));
        let response = hex(&Md5::digest(format!("{ha1}:{fresh}:{ha2}")));
        let header = format!(
            "Digest username=\"nobody\", nonce=\"{fresh}\", uri=\"/main\", response=\"{response}\""
        );
        assert_eq!(verify(5, &header, None), Verdict::Wrong);
    }

    #[test]
    fn a_nonce_lives_five_minutes_or_as_long_as_its_connection() {
        let fresh = nonce(at(1_000), peer(), &Secret::new([3; 32]));
        assert_eq!(fresh.len(), 32);
        assert!(fresh.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let right = answer(&fresh, 0, "se:cr@t/%#", false, false);
        assert_eq!(verify(1_300, &right, None), Verdict::Right(0));
        assert_eq!(verify(1_301, &right, None), Verdict::Stale);
        assert_eq!(verify(1_000_000, &right, Some(&fresh)), Verdict::Right(0));
        assert_eq!(verify(1_000_000, &right, Some("other")), Verdict::Stale);

        let foreign = nonce(at(1_000), "192.0.2.8".parse().unwrap(), &Secret::new([3; 32]));
        let of_last_boot = nonce(at(1_000), peer(), &Secret::new([4; 32]));
        for other in [&*foreign, &of_last_boot, "", "ä", "0000003é"] {
            let right = answer(other, 0, "se:cr@t/%#", false, false);
            assert_eq!(verify(1_001, &right, None), Verdict::Stale, "{other}");
            let wrong = answer(other, 0, "guess", false, false);
            assert_eq!(verify(1_001, &wrong, None), Verdict::Wrong, "{other}");
        }
        let mapped = nonce(at(1_000), "::ffff:192.0.2.7".parse().unwrap(), &Secret::new([3; 32]));
        assert_eq!(mapped, fresh);
    }

    #[test]
    fn headers_that_are_no_digest_answers_are_told_apart() {
        let full = "username=\"a\", nonce=\"b\", uri=\"c\", response=\"d\"";
        for (header, error) in [
            ("Basic YTpi", Error::NotOffered),
            ("Basic", Error::NotOffered),
            ("Basic !!!", Error::NotOffered),
            ("", Error::NotOffered),
            ("Digest ", Error::Malformed),
            ("Digest username", Error::Malformed),
            ("Digest username=\"a", Error::Malformed),
            ("Digest username=\"a\\", Error::Malformed),
            ("Digest username=\"a\", nonce=\"b\", uri=\"c\"", Error::Malformed),
            (&format!("Digest {full}, algorithm=MD5-sess"), Error::NotOffered),
            (&format!("Digest {full}, qop=auth-int, nc=1, cnonce=2"), Error::NotOffered),
            (&format!("Digest {full}, qop=auth"), Error::Malformed),
            (&format!("Digest {full}, username=\"a\""), Error::Malformed),
            (&format!("Digest {}", "username=\"a\",".repeat(500)), Error::Malformed),
        ] {
            assert_eq!(Credentials::parse(header), Err(error), "{header}");
        }
        let many = (0..500).map(|n| format!("x{n}=y,")).collect::<String>();
        assert_eq!(Credentials::parse(&format!("Digest {many}")), Err(Error::Malformed));
        assert!(
            Credentials::parse(&format!("digest\t{full}, algorithm=\"md5\", qop=\"\"")).is_ok()
        );
    }

    #[test]
    fn challenges_have_the_layout_that_live555_scans_for() {
        let [sha256, md5] = challenges("cam", "00ff", false);
        assert_eq!(md5, "Digest realm=\"cam\", nonce=\"00ff\"");
        assert_eq!(sha256, "Digest realm=\"cam\", nonce=\"00ff\", algorithm=SHA-256");
        let [sha256, md5] = challenges("cam", "00ff", true);
        assert_eq!(md5, "Digest realm=\"cam\", nonce=\"00ff\", stale=TRUE");
        assert_eq!(sha256, "Digest realm=\"cam\", nonce=\"00ff\", stale=TRUE, algorithm=SHA-256");
    }
}
