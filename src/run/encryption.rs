//! Gets what RTSP over TLS needs before anybody connects: certificate, key and listeners.
//!
//! Both files are made when neither is there, so that viewers can pin the certificate from the
//! first start on; without names, the certificate is good for one run.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use log::{info, warn};
use ocellus::config::{Config, Identity};
use ocellus::serve::Tls;
use ocellus::sys::tcp;

/// Where to listen, and with which certificate.
pub(super) struct Encryption {
    listen: Vec<SocketAddr>,
    identity: Identity,
}

impl Encryption {
    /// Reads or makes the certificate, if the configuration asks for encryption. To be called
    /// while files can still be read and made.
    pub(super) fn prepare(config: &Config) -> anyhow::Result<Option<Self>> {
        let tls = &config.rtsp.tls;
        if tls.listen.is_empty() {
            return Ok(None);
        }
        let hostname = &config.network.hostname;
        let identity = match (&tls.certificate, &tls.key) {
            (Some(certificate), Some(key)) => read_or_make(certificate, key, hostname)?,
            _ => {
                warn!(
                    "run: the certificate is good for this run only; rtsp.tls.certificate and \
                     rtsp.tls.key name files to keep one in"
                );
                let text = Identity::make(hostname).context("certificate")?;
                Identity::from_pem(text.as_bytes(), text.as_bytes()).context("certificate")?
            }
        };
        Ok(Some(Self { listen: tls.listen.clone(), identity }))
    }

    /// Listens; `url` is the stream's in clear, without account.
    pub(super) fn listen(self, url: impl Fn(SocketAddr) -> String) -> anyhow::Result<Listening> {
        let (mut listeners, mut urls) = (Vec::new(), Vec::new());
        for address in self.listen {
            let why = || format!("cannot listen on {address} (rtsp.tls.listen, --rtsps)");
            let listener = tcp::listen(address).with_context(why)?;
            let url = url(tcp::local_address(&listener).with_context(why)?);
            urls.push(url.replacen("rtsp:", "rtsps:", 1));
            listeners.push(listener);
        }
        let fingerprint = self.identity.fingerprint();
        info!("serve: encrypted urls={urls:?} certificate_sha256={fingerprint}");
        Ok((listeners, Tls::new(self.identity.certified())?))
    }
}

pub(super) type Listening = (Vec<OwnedFd>, Tls);

fn read_or_make(certificate: &Path, key: &Path, hostname: &str) -> anyhow::Result<Identity> {
    let names = || format!("{} and {}", certificate.display(), key.display());
    let [has_certificate, has_key] = [certificate, key].map(Path::exists);
    if !has_certificate && !has_key {
        make(certificate, key, hostname).with_context(names)?;
        info!("run: certificate and key made {}", names());
    } else if !(has_certificate && has_key) {
        bail!("of {} only one is there (rtsp.tls.certificate, rtsp.tls.key)", names());
    }
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    Identity::from_pem(&read(certificate)?, &read(key)?).with_context(names)
}

fn make(certificate: &Path, key: &Path, hostname: &str) -> anyhow::Result<()> {
    let text = Identity::make(hostname)?;
    // The certificate is the first part, and what everybody may see.
    let key_at = text.find(KEY_BEGINS).context("no key was made")?;
    let (public, secret) = text.split_at(key_at);
    if certificate == key {
        return Ok(write_new(key, &text, 0o600)?);
    }
    write_new(key, secret, 0o600)?;
    // A key alone would keep every later start from making a pair.
    write_new(certificate, public, 0o644).inspect_err(|_| drop(fs::remove_file(key)))?;
    Ok(())
}

/// Makes a file, whole or not at all.
fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.inspect_err(|_| drop(fs::remove_file(path)))
}

const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY";
