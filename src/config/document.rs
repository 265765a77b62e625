//! The whole configuration of a camera, and its small parts.

use std::net::SocketAddr;

use serde::Serialize;

use super::json::{self, Entry};
use super::rtsp::LISTEN_COUNT_MAX;
use super::{Camera, Error, Network, Rtsp, Stream, Time, User, parse_address, stream, user};

/// What the owner decides about a camera.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// What people call this camera.
    pub name: String,
    pub camera: Camera,
    /// `main`, and `sub` where there is one.
    pub streams: Vec<Stream>,
    pub rtsp: Rtsp,
    pub http: Http,
    /// Whether viewers have to give name and password; false only on loopback addresses.
    pub auth: bool,
    pub users: Vec<User>,
    pub network: Network,
    pub time: Time,
}

/// The web side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Http {
    /// None when it is off; port 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
}

impl Config {
    /// Parses and checks a whole configuration.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong; see [`enum@Error`].
    pub fn from_json(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_LEN {
            return Err(Error::TooLong { len: text.len() });
        }
        let document = json::parse(text).map_err(Error::Syntax)?;
        let config = Self::read(&Entry::root(&document))?;
        config.validate()?;
        Ok(config)
    }

    /// The text that [`Config::from_json`] turns into this configuration: every key, in the
    /// reference's order. It holds the passwords.
    ///
    /// # Panics
    ///
    /// Never: a configuration has nothing that JSON cannot say.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("all keys are strings");
        text.push('\n');
        text
    }

    /// Checks what must hold between keys; values by themselves are checked where they are read.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] for what is there twice, or not at all, or not supported yet, and
    /// [`Error::OpenToStrangers`].
    pub fn validate(&self) -> Result<(), Error> {
        stream::validate(&self.streams)?;
        user::validate(&self.users)?;
        self.rtsp.validate()?;
        self.http.validate(&[&self.rtsp.listen, &self.rtsp.tls.listen])?;
        self.network.validate()?;
        self.time.validate()?;
        if self.auth {
            return Ok(());
        }
        let is_public = |address: &&SocketAddr| !address.ip().to_canonical().is_loopback();
        let rtsp = self.rtsp.listen.iter().chain(&self.rtsp.tls.listen);
        match rtsp.chain(&self.http.listen).find(is_public) {
            Some(&address) => Err(Error::OpenToStrangers { address }),
            None => Ok(()),
        }
    }

    fn read(root: &Entry<'_>) -> Result<Self, Error> {
        let keys =
            ["name", "camera", "streams", "rtsp", "http", "auth", "users", "network", "time"];
        let object = root.object(&keys)?;
        let default = Self::default();
        Ok(Self {
            name: object.get("name", default.name, |entry| {
                entry.text_that(is_name, "1 to 64 characters, none of them a control character")
            })?,
            camera: object.get("camera", default.camera, Camera::read)?,
            streams: object.get("streams", default.streams, |entry| entry.list(Stream::read))?,
            rtsp: object.get("rtsp", default.rtsp, Rtsp::read)?,
            http: object.get("http", default.http, Http::read)?,
            auth: object.get("auth", default.auth, Entry::boolean)?,
            users: object.get("users", default.users, |entry| entry.list(User::read))?,
            network: object.get("network", default.network, Network::read)?,
            time: object.get("time", default.time, Time::read)?,
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "ocellus".into(),
            camera: Camera::default(),
            streams: vec![Stream::default()],
            rtsp: Rtsp::default(),
            http: Http::default(),
            auth: true,
            users: Vec::new(),
            network: Network::default(),
            time: Time::default(),
        }
    }
}

impl Http {
    fn read(entry: &Entry<'_>) -> Result<Self, Error> {
        let object = entry.object(&["listen"])?;
        let listen = object.get("listen", Self::default().listen, |entry| {
            entry.list(|entry| entry.parsed_by(parse_address))
        })?;
        Ok(Self { listen })
    }

    fn validate(&self, others: &[&[SocketAddr]]) -> Result<(), Error> {
        let error = |path: &str, value: String, allowed: &str| {
            let (path, allowed) = (path.to_owned(), allowed.to_owned());
            Err(Error::NotAllowed { path, value, allowed })
        };
        let listen = &self.listen;
        if listen.len() > LISTEN_COUNT_MAX {
            let value = format!("a list of {}", listen.len());
            return error("http.listen", value, "a list of 0 to 8 addresses");
        }
        for (index, address) in listen.iter().enumerate() {
            let mut taken = others.iter().copied().chain([&listen[..index]]).flatten();
            if address.port() != 0 && taken.any(|other| other == address) {
                let (path, value) = (format!("http.listen[{index}]"), format!("\"{address}\""));
                return error(&path, value, "an address that nothing listens on yet");
            }
        }
        Ok(())
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: vec![SocketAddr::from(([0_u16; 8], 8080))] }
    }
}

/// What people may call a thing.
pub(super) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// Bytes of a configuration: a hundred times the reference.
pub const MAX_LEN: usize = 64 << 10;

#[cfg(test)]
mod tests;
