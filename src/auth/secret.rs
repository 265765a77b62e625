//! Turns the boot secret into nonces, session ids and everything else nobody may guess.
//!
//! HMAC-SHA-256 (RFC 2104) keyed with 32 bytes of the operating system's entropy; a counter makes
//! every session id new.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// 32 bytes drawn once per boot.
pub struct Secret {
    key: [u8; 32],
    drawn: u64,
}

impl Secret {
    #[must_use]
    pub const fn new(key: [u8; 32]) -> Self {
        Self { key, drawn: 0 }
    }

    /// A keyed hash of `parts`, in a space of its own for each `purpose`.
    ///
    /// # Panics
    ///
    /// Never: HMAC takes keys of any length.
    #[must_use]
    pub fn hash(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("any key length is valid");
        for part in [purpose.as_bytes()].iter().chain(parts) {
            // Lengths keep (ab, c) and (a, bc) apart.
            mac.update(&part.len().to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// 128 bits that were never drawn before.
    ///
    /// # Panics
    ///
    /// Never: the hash has 256.
    pub fn draw(&mut self) -> u128 {
        self.drawn += 1;
        let hash = self.hash("draw", &[&self.drawn.to_be_bytes()]);
        u128::from_be_bytes(*hash.first_chunk().expect("a SHA-256 has 32 bytes"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_from_each_other_and_between_boots() {
        let mut drawn = Vec::new();
        for boot in 0..4 {
            let mut secret = Secret::new([boot; 32]);
            drawn.extend((0..1_000).map(|_| secret.draw()));
        }
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 4_000);
    }

    #[test]
    fn purposes_and_parts_are_kept_apart() {
        let secret = Secret::new([7; 32]);
        let hashes = [
            secret.hash("a", &[b"bc"]),
            secret.hash("ab", &[b"c"]),
            secret.hash("a", &[b"b", b"c"]),
            secret.hash("a", &[b"bc", b""]),
        ];
        for (at, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..at].contains(hash));
        }
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
