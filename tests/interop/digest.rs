//! Answers Digest challenges as a client does, and checks answers as a judge does.
//!
//! RFC 7616 and RFC 2617 (which RFC 2326 names): MD5 and SHA-256, with and without `qop=auth`.
//!
//! Not implemented: `auth-int`, `-sess` algorithms, user name hashing.

use sha2::Digest;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    fn hex(self, text: &str) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Md5 => hex(&md5::Md5::digest(text)),
            Self::Sha256 => hex(&sha2::Sha256::digest(text)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// One `WWW-Authenticate: Digest` value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) realm: String,
    pub(crate) nonce: String,
    pub(crate) algorithm: Algorithm,
}

impl Challenge {
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let parameters = parameters(value)?;
        let algorithm = match find(&parameters, "algorithm") {
            None | Some("MD5") => Algorithm::Md5,
            Some("SHA-256") => Algorithm::Sha256,
            Some(_) => return None,
        };
        let [realm, nonce] = ["realm", "nonce"].map(|name| find(&parameters, name));
        Some(Self { realm: realm?.to_owned(), nonce: nonce?.to_owned(), algorithm })
    }

    /// Returns the value of the `Authorization` header for one request.
    pub(crate) fn answer(&self, credentials: &Credentials, method: &str, uri: &str) -> String {
        let Self { realm, nonce, algorithm } = self;
        let response = response(*algorithm, credentials, realm, nonce, method, uri, None);
        let name = match algorithm {
            Algorithm::Md5 => "",
            Algorithm::Sha256 => ", algorithm=SHA-256",
        };
        let user = &credentials.user;
        format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\"{name}"
        )
    }
}

/// Whether an `Authorization` value is right for these credentials; `uri` is taken as received.
pub(crate) fn is_right(value: &str, credentials: &Credentials, method: &str) -> Option<bool> {
    let parameters = parameters(value)?;
    let get = |name| find(&parameters, name);
    let algorithm =
        if get("algorithm") == Some("SHA-256") { Algorithm::Sha256 } else { Algorithm::Md5 };
    let qop = get("qop").and_then(|qop| Some([get("nc")?, get("cnonce")?, qop]));
    let (realm, nonce, uri) = (get("realm")?, get("nonce")?, get("uri")?);
    let expected = response(algorithm, credentials, realm, nonce, method, uri, qop);
    Some(get("username")? == credentials.user && get("response")? == expected)
}

fn response(
    algorithm: Algorithm,
    credentials: &Credentials,
    realm: &str,
    nonce: &str,
    method: &str,
    uri: &str,
    qop: Option<[&str; 3]>,
) -> String {
    let Credentials { user, password } = credentials;
    let ha1 = algorithm.hex(&format!("{user}:{realm}:{password}"));
    let ha2 = algorithm.hex(&format!("{method}:{uri}"));
    match qop {
        None => algorithm.hex(&format!("{ha1}:{nonce}:{ha2}")),
        Some([nc, cnonce, qop]) => {
            algorithm.hex(&format!("{ha1}:{nonce}:{nc}:{cnonce}:{qop}:{ha2}"))
        }
    }
}

/// Returns the parameters of a `Digest` value, unquoted.
pub(crate) fn parameters(value: &str) -> Option<Vec<(String, String)>> {
    let mut rest = value.strip_prefix("Digest ")?;
    let mut found = Vec::new();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        found.push((name.trim().to_owned(), value.trim().to_owned()));
        rest = after.trim_start_matches([',', ' ']);
    }
    Some(found)
}

fn find<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_7616_3_9_1_are_right() {
        let mufasa = Credentials { user: "Mufasa".into(), password: "Circle of Life".into() };
        let example = |algorithm: &str, response: &str| {
            format!(
                "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", \
                 uri=\"/dir/index.html\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
                 cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
                 response=\"{response}\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            )
        };
        let md5 = example("MD5", "8ca523f5e9506fed4657c9700eebdbec");
        let sha256 =
            example("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
        assert_eq!(is_right(&md5, &mufasa, "GET"), Some(true));
        assert_eq!(is_right(&sha256, &mufasa, "GET"), Some(true));
        assert_eq!(is_right(&sha256, &mufasa, "PUT"), Some(false));
    }

    #[test]
    fn an_answer_to_a_challenge_is_right_only_for_its_password() {
        let good = Credentials { user: "admin".into(), password: "a:b\"c".into() };
        let bad = Credentials { password: "wrong".into(), ..good.clone() };
        for suffix in ["", ", algorithm=SHA-256"] {
            let challenge = format!("Digest realm=\"cam\", nonce=\"00ff\"{suffix}");
            let answer = Challenge::parse(&challenge).unwrap().answer(&good, "PLAY", "rtsp://h/m/");
            assert_eq!(is_right(&answer, &good, "PLAY"), Some(true));
            assert_eq!(is_right(&answer, &bad, "PLAY"), Some(false));
        }
    }
}
