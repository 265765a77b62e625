//! The wireless network that the camera joins.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use serde::Serialize;

use super::json::Entry;
use super::{Error, NotAllowed};

/// A network with a password (WPA2-Personal or WPA3-Personal).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wifi {
    pub ssid: String,
    pub psk: Psk,
    /// Where the camera is: decides about channels and power (ISO 3166-1, two letters).
    pub country: String,
}

/// A passphrase, or the key made of it; no message ever shows it.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Psk(String);

impl Wifi {
    pub(super) fn read(entry: &Entry<'_>) -> Result<Self, Error> {
        let object = entry.object(&["ssid", "psk", "country"])?;
        Ok(Self {
            ssid: object.require("ssid", SSIDS, |entry| entry.text_that(is_ssid, SSIDS))?,
            psk: object.require("psk", PSKS, Entry::parsed)?,
            country: object
                .require("country", COUNTRIES, |entry| entry.text_that(is_country, COUNTRIES))?,
        })
    }

    /// The text of wpa_supplicant.conf(5). It holds the key.
    #[must_use]
    pub fn wpa_supplicant_conf(&self) -> String {
        let mut ssid = String::new();
        for byte in self.ssid.bytes() {
            // Writing into a String does not fail.
            let _ = write!(ssid, "{byte:02x}");
        }
        // A text in quotes ends at the last of them, so that those inside need no escape. WPA3 needs
        // the passphrase itself; a radio without WPA3 still joins networks that have both.
        let (key_mgmt, psk) = match &self.psk.0 {
            key if is_key(key) => ("WPA-PSK", key.clone()),
            passphrase => ("WPA-PSK SAE", format!("\"{passphrase}\"")),
        };
        let country = &self.country;
        format!(
            "country={country}\nsae_pwe=2\nnetwork={{\n\tssid={ssid}\n\tscan_ssid=1\n\
             \tkey_mgmt={key_mgmt}\n\tieee80211w=1\n\tpsk={psk}\n}}\n"
        )
    }
}

impl FromStr for Psk {
    type Err = NotAllowed;

    /// IEEE 802.11-2020 J.4.1: a passphrase, or the 256 bit key in hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        let is_passphrase =
            (8..=63).contains(&text.len()) && text.bytes().all(|byte| (32..=126).contains(&byte));
        (is_passphrase || is_key(text)).then(|| Self(text.to_owned())).ok_or(NotAllowed(PSKS))
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(..)")
    }
}

fn is_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_ssid(text: &str) -> bool {
    (1..=32).contains(&text.len())
}

fn is_country(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

const SSIDS: &str = "a network's name of 1 to 32 bytes";
const PSKS: &str = "a passphrase of 8 to 63 ASCII characters, or 64 hexadecimal digits";
const COUNTRIES: &str = "a country's two capital letters, like \"DE\"";

#[cfg(test)]
mod tests {
    use super::super::Network;
    use super::*;

    fn read(wifi: &str) -> Result<Wifi, String> {
        let text = format!(r#"{{ "network": {{ "wifi": {wifi} }} }}"#);
        let network = Network::from_json(&text).map_err(|error| format!("{error} {error:?}"))?;
        Ok(network.wifi.unwrap())
    }

    fn with(ssid: &str, psk: &str, country: &str) -> Result<Wifi, String> {
        read(&serde_json::json!({ "ssid": ssid, "psk": psk, "country": country }).to_string())
    }

    #[test]
    fn every_length_of_name_and_passphrase_is_judged_by_the_standard() {
        for len in 0..70 {
            let text = "g".repeat(len);
            assert_eq!(with(&text, "12345678", "DE").is_ok(), (1..=32).contains(&len), "{len}");
            assert_eq!(with("n", &text, "DE").is_ok(), (8..=63).contains(&len), "{len}");
            let hex = "a".repeat(len);
            assert_eq!(with("n", &hex, "DE").is_ok(), (8..=64).contains(&len), "{len}");
        }
        for psk in ["pässwort", "tab\ttab12", "line\nline", "1234567\u{7f}"] {
            assert!(with("n", psk, "DE").is_err(), "{psk:?}");
        }
        for country in ["", "D", "de", "DEU", "D1", "00"] {
            assert!(with("n", "12345678", country).is_err(), "{country:?}");
        }
    }

    #[test]
    fn nothing_of_a_name_or_a_passphrase_can_leave_its_line() {
        let wifi = with("a\"\n}\nb", "\"x\" y#\\z\"", "DE").unwrap();
        let lines: Vec<_> = wifi.wpa_supplicant_conf().lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "country=DE",
                "sae_pwe=2",
                "network={",
                "\tssid=61220a7d0a62",
                "\tscan_ssid=1",
                "\tkey_mgmt=WPA-PSK SAE",
                "\tieee80211w=1",
                "\tpsk=\"\"x\" y#\\z\"\"",
                "}",
            ]
        );
        let key = "0123456789abcdefABCDEF".repeat(3)[..64].to_owned();
        let conf = with("n", &key, "DE").unwrap().wpa_supplicant_conf();
        assert!(conf.contains(&format!("psk={key}\n")), "{conf}");
        assert!(conf.contains("key_mgmt=WPA-PSK\n"), "the key is of no use for WPA3: {conf}");
    }

    #[test]
    fn no_message_shows_the_key() {
        let secret = "tr0ub4dor";
        for text in [
            format!(r#""{secret}""#),
            format!(r#"["{secret}"]"#),
            format!(r#"{{ "ssid": "n", "psk": ["{secret}"], "country": "DE" }}"#),
            format!(r#"{{ "ssid": "n", "psk": "{secret}ü", "country": "DE" }}"#),
            format!(r#"{{ "ssid": "n", "psk": "{}", "country": "DE" }}"#, secret.repeat(30)),
            format!(r#"{{ "ssid": "n", "psk": "{secret}", "country": "de" }}"#),
        ] {
            let message = read(&text).unwrap_err();
            assert!(!message.contains(secret), "{message}");
        }
        let wifi = with("n", secret, "DE").unwrap();
        assert!(!format!("{wifi:?}").contains(secret));
        assert!(serde_json::to_string(&wifi).unwrap().contains(secret), "it has to be saved");
    }
}
