//! The certificate that encrypted connections are served with, and its key: made, read, shown.
//!
//! RFC 5280 and 7468 (PEM). A camera makes its own, ECDSA on P-256 and signed by itself, which no
//! authority vouches for: clients pin it, by the file or by its fingerprint. It names the camera's
//! host name only, as the addresses change, and never expires: a camera has no clock when it starts.

use std::fmt;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// A certificate with its chain, and the private key.
#[derive(Clone)]
pub struct Identity {
    certified: CertifiedKey,
}

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum NoIdentity {
    #[error("no certificate in PEM")]
    NoCertificate,
    #[error("no private key in PEM")]
    NoKey,
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    #[error("cannot be made: {0}")]
    NotMade(#[from] rcgen::Error),
}

impl Identity {
    /// Makes a new one; returns the text that [`Identity::from_pem`] takes for both.
    ///
    /// # Errors
    ///
    /// [`NoIdentity::NotMade`], for want of randomness.
    pub fn make(hostname: &str) -> Result<String, NoIdentity> {
        let names = vec![hostname.to_owned(), format!("{hostname}.local")];
        let mut certificate = CertificateParams::new(names)?;
        certificate.distinguished_name = DistinguishedName::new();
        certificate.distinguished_name.push(DnType::CommonName, hostname);
        certificate.key_usages.push(KeyUsagePurpose::DigitalSignature);
        certificate.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        let key = KeyPair::generate()?;
        let certificate = certificate.self_signed(&key)?;
        Ok(certificate.pem() + &key.serialize_pem())
    }

    /// Takes what files hold; both texts may be the same.
    ///
    /// # Errors
    ///
    /// All but [`NoIdentity::NotMade`]: the author's fault.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, NoIdentity> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|_| NoIdentity::NoCertificate)?;
        if chain.is_empty() {
            return Err(NoIdentity::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| NoIdentity::NoKey)?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())?;
        Ok(Self { certified })
    }

    /// What rustls signs with.
    #[must_use]
    pub fn certified(&self) -> CertifiedKey {
        self.certified.clone()
    }

    /// SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` writes it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let certificate = self.certified.cert.first().map_or(&[][..], |first| first.as_ref());
        let bytes = Sha256::digest(certificate);
        let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        bytes.join(":")
    }
}

impl fmt::Debug for Identity {
    /// Leaves the key out, so that no log can hold it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.fingerprint()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_another_and_comes_back_from_its_text() {
        let texts = [Identity::make("gate").unwrap(), Identity::make("gate").unwrap()];
        let [one, other] = texts.each_ref().map(|text| {
            let identity = Identity::from_pem(text.as_bytes(), text.as_bytes()).unwrap();
            let again = Identity::from_pem(text.as_bytes(), text.as_bytes()).unwrap();
            assert_eq!(identity.fingerprint(), again.fingerprint());
            identity.fingerprint()
        });
        assert_ne!(one, other);
        assert_eq!((one.len(), one.split(':').count()), (95, 32));
    }

    #[test]
    fn a_key_of_another_certificate_and_half_a_text_are_refused() {
        let texts = [Identity::make("a").unwrap(), Identity::make("b").unwrap()];
        let [a, b] = texts.each_ref().map(String::as_bytes);
        assert!(matches!(Identity::from_pem(a, b), Err(NoIdentity::Unusable(_))));
        let key_at = texts[0].find("-----BEGIN PRIVATE KEY").unwrap();
        let (certificate, key) = a.split_at(key_at);
        assert!(Identity::from_pem(certificate, key).is_ok());
        assert!(matches!(Identity::from_pem(key, key), Err(NoIdentity::NoCertificate)));
        assert!(matches!(Identity::from_pem(certificate, certificate), Err(NoIdentity::NoKey)));
        for len in 0..key_at.saturating_sub(20) {
            assert!(Identity::from_pem(&a[..len], a).is_err(), "{len}");
        }
    }

    #[test]
    fn debug_output_has_no_key() {
        let text = Identity::make("gate").unwrap();
        let identity = Identity::from_pem(text.as_bytes(), text.as_bytes()).unwrap();
        assert_eq!(format!("{identity:?}"), format!("Identity({:?})", identity.fingerprint()));
    }
}
