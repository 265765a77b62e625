//! Turns what a person brought, or what the data partition keeps, into the certificate and key that
//! the camera serves RTSP over TLS with; makes them at the first start.
//!
//! One file in PEM has both, so that a power cut cannot part them. On the boot partition it is
//! taken and overwritten like the configuration: it holds a secret.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::folder::{self, Folder};
use super::settings::IDENTITY_GIVEN;
use crate::config::{Identity, NoIdentity, replace};

/// Takes the file from the boot partition, if it is there.
///
/// # Errors
///
/// Why it is not used, in words for the person; the file then stays.
pub(super) fn take(boot: &Path, data: &Path) -> Result<(), String> {
    let path = boot.join(IDENTITY_GIVEN);
    let Some(bytes) = folder::read(&path).map_err(|error| format!("it cannot be read: {error}"))?
    else {
        return Ok(());
    };
    if bytes.is_empty() || folder::is_half_erased(&bytes) {
        log::info!("firmware: erasure of {IDENTITY_GIVEN} goes on after a power cut");
    } else {
        let identity = parse(&bytes).map_err(|error| error.to_string())?;
        replace(&mut Folder::new(data), KEPT, &bytes)
            .map_err(|error| format!("it is right, but the camera cannot store it: {error}"))?;
        let fingerprint = identity.fingerprint();
        log::info!("firmware: certificate taken from {IDENTITY_GIVEN} sha256={fingerprint}");
    }
    if let Err(error) = folder::erase(&path) {
        log::error!("firmware: the key remains in {IDENTITY_GIVEN} on the card error={error}");
    }
    Ok(())
}

/// Puts certificate and key where the camera reads them, in memory, for their owner alone.
pub(super) fn hand_over(data: &Path, hostname: &str, path: &Path) -> io::Result<()> {
    let bytes = kept(data, hostname).map_err(io::Error::other)?;
    folder::remove(path)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)?.write_all(&bytes)
}

/// What the data partition keeps; else new ones, kept from now on.
fn kept(data: &Path, hostname: &str) -> Result<Vec<u8>, NoIdentity> {
    match folder::read(&data.join(KEPT)) {
        Ok(None) => {}
        Ok(Some(bytes)) => match parse(&bytes) {
            Ok(_) => return Ok(bytes),
            Err(error) => log::error!("firmware: {KEPT} is damaged, made anew error=\"{error}\""),
        },
        Err(error) => log::error!("firmware: {KEPT} cannot be read error={error}"),
    }
    let bytes = Identity::make(hostname)?.into_bytes();
    let fingerprint = parse(&bytes)?.fingerprint();
    log::info!("firmware: certificate made sha256={fingerprint}");
    if let Err(error) = replace(&mut Folder::new(data), KEPT, &bytes) {
        log::error!("firmware: the certificate is for this run only error={error}");
    }
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<Identity, NoIdentity> {
    Identity::from_pem(bytes, bytes)
}

/// Every name that is given to a file on the data partition: what a factory reset has to erase.
pub(super) const FILES: [&str; 2] = [KEPT, "identity.pem.new"];
const KEPT: &str = "identity.pem";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::firmware::folder::tests::Scratch;

    fn handed(data: &Path) -> String {
        let run = Scratch::new();
        let path = run.0.join("identity.pem");
        fs::write(&path, "left by somebody").unwrap();
        hand_over(data, "gate", &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = fs::read_to_string(path).unwrap();
        parse(text.as_bytes()).unwrap();
        text
    }

    #[test]
    fn it_is_made_once_kept_for_its_owner_alone_and_survives_damage_by_a_new_one() {
        let data = Scratch::new();
        let first = handed(&data.0);
        assert_eq!(handed(&data.0), first);
        assert_eq!(fs::metadata(data.0.join(KEPT)).unwrap().mode() & 0o777, 0o600);
        for len in [0, 1, first.len() / 2] {
            fs::write(data.0.join(KEPT), &first[..len]).unwrap();
            assert_ne!(handed(&data.0), first);
        }
        let other = Scratch::new();
        assert_ne!(handed(&other.0), first, "no two cameras share a key");
    }

    #[test]
    fn without_a_data_partition_it_is_for_one_run() {
        let data = Scratch::new();
        let nowhere = data.0.join("missing");
        assert_ne!(handed(&nowhere), handed(&nowhere));
    }

    #[test]
    fn a_persons_own_is_taken_and_its_key_disappears_from_the_boot_partition() {
        let (boot, data) = (Scratch::new(), Scratch::new());
        take(&boot.0, &data.0).unwrap();
        let made = handed(&data.0);
        let own = Identity::make("cam.example").unwrap();
        let path = boot.0.join(IDENTITY_GIVEN);
        fs::write(&path, &own).unwrap();
        take(&boot.0, &data.0).unwrap();
        assert!(!path.exists() && own != made);
        assert_eq!(handed(&data.0), own);
        // What a power cut left of it there.
        for rest in [vec![], vec![0; 4096]] {
            fs::write(&path, rest).unwrap();
            take(&boot.0, &data.0).unwrap();
            assert!(!path.exists());
            assert_eq!(handed(&data.0), own);
        }
    }

    #[test]
    fn a_wrong_one_is_answered_in_words_and_left_to_be_corrected() {
        let (boot, data) = (Scratch::new(), Scratch::new());
        let kept = handed(&data.0);
        let texts = [Identity::make("a").unwrap(), Identity::make("b").unwrap()];
        let [[certificate, key], [_, other]] =
            texts.each_ref().map(|text| <[&str; 2]>::from(text.split_at(text.find(KEY).unwrap())));
        for (text, why) in [
            (key.to_owned(), "no certificate in PEM"),
            (certificate.to_owned(), "no private key in PEM"),
            (format!("{certificate}{other}"), "cannot be used"),
        ] {
            fs::write(boot.0.join(IDENTITY_GIVEN), &text).unwrap();
            let said = take(&boot.0, &data.0).unwrap_err();
            assert!(said.contains(why) && !said.contains(KEY), "{said}");
            assert_eq!(fs::read_to_string(boot.0.join(IDENTITY_GIVEN)).unwrap(), text);
            assert_eq!(handed(&data.0), kept);
        }
    }

    const KEY: &str = "-----BEGIN PRIVATE KEY";
}
