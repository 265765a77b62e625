//! Where RTSP listens for encrypted connections, and which certificate it shows.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use super::Error;
use super::json::{Entry, Object};
use super::rtsp::{LISTEN_COUNT_MAX, parse_address};

/// The encrypted side of the RTSP server.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tls {
    /// None: no encryption. The firmware listens on port 322 of all addresses.
    pub listen: Vec<SocketAddr>,
    /// A file in PEM, with the chain after the certificate. Made, with the key, when neither file
    /// is there; without a name, made for one run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// A file in PEM; may be the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

impl Tls {
    pub(super) fn read(entry: &Entry<'_>) -> Result<Self, Error> {
        let object = entry.object(&["listen", "certificate", "key"])?;
        let file = |object: &Object<'_>, key: &str| {
            object.get(key, None, |entry| {
                let is_path = |text: &str| (1..=4_096).contains(&text.len());
                let text = entry.text_that(is_path, "the name of a file")?;
                Ok(Some(PathBuf::from(text)))
            })
        };
        Ok(Self {
            listen: object.get("listen", Vec::new(), |entry| {
                entry.list(|entry| entry.parsed_by(parse_address))
            })?,
            certificate: file(&object, "certificate")?,
            key: file(&object, "key")?,
        })
    }

    /// Checks that it goes together with itself and the addresses of the other side.
    pub(super) fn validate(&self, others: &[SocketAddr]) -> Result<(), Error> {
        let not_allowed = |key: &str, value: String, allowed: &str| {
            let path = format!("rtsp.tls.{key}");
            Err(Error::NotAllowed { path, value, allowed: allowed.into() })
        };
        if self.listen.len() > LISTEN_COUNT_MAX {
            let value = format!("a list of {}", self.listen.len());
            return not_allowed("listen", value, "a list of at most 8 addresses");
        }
        for (index, address) in self.listen.iter().enumerate() {
            let mut earlier = self.listen.iter().take(index).chain(others);
            if address.port() != 0 && earlier.any(|other| other == address) {
                let allowed = "an address that is not in the lists yet";
                return not_allowed(&format!("listen[{index}]"), format!("\"{address}\""), allowed);
            }
        }
        match (&self.certificate, &self.key) {
            (Some(_), None) => not_allowed("key", "nothing".into(), "a file, with a certificate"),
            (None, Some(_)) => not_allowed("certificate", "nothing".into(), "a file, with a key"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn read(tls: &str) -> Result<Config, String> {
        let text = format!(r#"{{ "rtsp": {{ "listen": ["[::]:554"], "tls": {tls} }} }}"#);
        Config::from_json(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_comes_back_and_nothing_means_no_encryption() {
        let tls = read(
            r#"{ "listen": ["[::]:322", "127.0.0.1:0"], "certificate": "a.pem", "key": "k" }"#,
        );
        let config = tls.unwrap();
        assert_eq!(config.rtsp.tls.listen.len(), 2);
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
        assert!(read("{}").unwrap().rtsp.tls.listen.is_empty());
        assert_eq!(Config::default().rtsp.tls, read("{}").unwrap().rtsp.tls);
    }

    #[test]
    fn what_does_not_go_together_is_refused_in_words() {
        let cases = [
            (
                r#"{ "listen": ["[::]:554"] }"#,
                r#"rtsp.tls.listen[0]: "[::]:554" is not allowed; allowed is an address that is not in the lists yet"#,
            ),
            (
                r#"{ "listen": ["[::]:322", "[::]:322"] }"#,
                r#"rtsp.tls.listen[1]: "[::]:322" is not allowed; allowed is an address that is not in the lists yet"#,
            ),
            (
                r#"{ "listen": ["322"] }"#,
                r#"rtsp.tls.listen[0]: "322" is not allowed; allowed is ADDRESS:PORT, like 192.168.1.2:554, 0.0.0.0:8554 or [::]:8554"#,
            ),
            (
                r#"{ "certificate": "a.pem" }"#,
                "rtsp.tls.key: nothing is not allowed; allowed is a file, with a certificate",
            ),
            (
                r#"{ "key": "a.pem" }"#,
                "rtsp.tls.certificate: nothing is not allowed; allowed is a file, with a key",
            ),
            (
                r#"{ "keys": "a.pem" }"#,
                "rtsp.tls.keys: unknown key; the nearest known key is rtsp.tls.key",
            ),
        ];
        for (tls, message) in cases {
            assert_eq!(read(tls).unwrap_err(), message);
        }
        let nine: Vec<String> = (0..9).map(|_| "\"127.0.0.1:0\"".to_owned()).collect();
        assert!(read(&format!(r#"{{ "listen": [{}] }}"#, nine.join(","))).is_err());
    }

    #[test]
    fn an_open_camera_may_listen_for_nobody_outside_encrypted_or_not() {
        let text = |address: &str| {
            format!(
                r#"{{ "auth": false, "http": {{ "listen": [] }}, "rtsp": {{ "listen": ["127.0.0.1:554"],
                      "tls": {{ "listen": ["{address}"] }} }} }}"#
            )
        };
        assert!(Config::from_json(&text("[::1]:322")).is_ok());
        assert!(Config::from_json(&text("[::]:322")).is_err());
    }
}
