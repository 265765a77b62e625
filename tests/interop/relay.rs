//! Stands between a client that speaks plain RTSP and a camera that is spoken to otherwise: through
//! HTTP, or encrypted with a pinned certificate. What the client hears is what the camera sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// A URL in clear for what the camera has at `url`, through HTTP.
pub(crate) fn through_http(url: &str) -> String {
    let (address, path) = split(url);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let client = client.unwrap();
            thread::spawn(move || tunnel(client, address, number));
        }
    });
    format!("rtsp://{own}/{path}")
}

fn tunnel(client: TcpStream, address: SocketAddr, number: usize) {
    let head = |method: &str| {
        format!("{method} / HTTP/1.0\r\nx-sessioncookie: {}-{number}\r\n\r\n", std::process::id())
    };
    let mut out = TcpStream::connect(address).unwrap();
    out.write_all(head("GET").as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        out.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.0 200 "), "{}", String::from_utf8_lossy(&answer));
    let mut way_in = TcpStream::connect(address).unwrap();
    way_in.write_all(head("POST").as_bytes()).unwrap();
    let mut asked = client.try_clone().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = asked.read(&mut bytes) {
            if way_in.write_all(STANDARD.encode(&bytes[..len]).as_bytes()).is_err() {
                break;
            }
        }
    });
    let mut client = client;
    let _ = std::io::copy(&mut out, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
}

/// A URL in clear for what the camera has at the `rtsps` URL `url`, if it shows `certificate`.
pub(crate) fn decrypted(url: &str, certificate: &Path) -> String {
    let (address, path) = split(url);
    let config = pinned(certificate);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let config = Arc::clone(&config);
            thread::spawn(move || decrypt(&client.unwrap(), address, config));
        }
    });
    format!("rtsp://{own}/{path}")
}

/// A client's settings that let it talk to the owner of this certificate alone.
pub(crate) fn pinned(certificate: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

pub(crate) fn session(config: Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(config, ServerName::try_from("ocellus.local").unwrap()).unwrap()
}

fn decrypt(mut client: &TcpStream, address: SocketAddr, config: Arc<ClientConfig>) {
    let mut session = session(config);
    let mut camera = TcpStream::connect(address).unwrap();
    camera.set_nodelay(true).unwrap();
    client.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    // Who does not read is felt at the camera soon.
    setsockopt(&camera, sockopt::RcvBuf, &65_536).unwrap();
    setsockopt(&client, sockopt::SndBuf, &4_096).unwrap();
    let mut bytes = vec![0; 1 << 16];
    loop {
        while session.wants_write() {
            if session.write_tls(&mut camera).is_err() {
                return;
            }
        }
        let mut fds = [
            PollFd::new(client.as_fd(), PollFlags::POLLIN),
            PollFd::new(camera.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut fds, PollTimeout::NONE).unwrap();
        let [asks, answers] = fds.map(|fd| fd.any() == Some(true));
        if answers {
            if !matches!(session.read_tls(&mut camera), Ok(1..)) {
                return;
            }
            let state = session.process_new_packets().unwrap();
            let len = state.plaintext_bytes_to_read();
            bytes.resize(bytes.len().max(len), 0);
            session.reader().read_exact(&mut bytes[..len]).unwrap();
            if client.write_all(&bytes[..len]).is_err() || state.peer_has_closed() {
                return;
            }
        }
        if asks {
            match client.read(&mut bytes) {
                Ok(len @ 1..) => session.writer().write_all(&bytes[..len]).unwrap(),
                _ => return,
            }
        }
    }
}

/// Address and path of a URL with a literal address.
pub(crate) fn split(url: &str) -> (SocketAddr, String) {
    let rest = url.split("://").nth(1).unwrap();
    let (address, path) = rest.split_once('/').unwrap();
    (address.rsplit('@').next().unwrap().parse().unwrap(), path.to_owned())
}
