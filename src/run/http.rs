//! Puts the web side beside the camera: its listeners, what it may read, and its way to `serve`.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

use anyhow::Context as _;
use log::{info, warn};
use ocellus::config::Config;
use ocellus::control::{self, Doors, Recent, Settings, Snapshots, Sources, StreamControl};
use ocellus::serve::{self, Reactor};
use ocellus::stats::{Motion, Pipeline, Viewers};
use ocellus::sys::process::ResidentMemory;
use ocellus::sys::{Wake, tcp};

use super::live::Live;
use super::{REALM, known_user, random};

/// What the web side can have only while files can still be opened.
pub(super) struct Http {
    log: Arc<Recent>,
    memory: Option<Arc<ResidentMemory>>,
}

/// The same, with its listeners.
pub(super) struct Listening {
    http: Http,
    listeners: Vec<OwnedFd>,
}

impl Http {
    /// `None` when it is off.
    pub(super) fn prepare(config: &Config, log: Arc<Recent>) -> Option<Self> {
        if config.http.listen.is_empty() {
            return None;
        }
        let memory = ResidentMemory::open()
            .inspect_err(|errno| warn!("run: memory cannot be measured error={errno}"));
        Some(Self { log, memory: memory.ok().map(Arc::new) })
    }

    pub(super) fn listen(self, config: &Config) -> anyhow::Result<Listening> {
        let (mut listeners, mut addresses): (_, Vec<SocketAddr>) = (Vec::new(), Vec::new());
        for &address in &config.http.listen {
            let why = || format!("cannot listen on {address} (http.listen, --http)");
            let listener = tcp::listen(address).with_context(why)?;
            addresses.push(tcp::local_address(&listener).with_context(why)?);
            listeners.push(listener);
        }
        info!("control: listening http={addresses:?}");
        Ok(Listening { http: self, listeners })
    }
}

/// What there is to tell.
pub(super) struct Known<'a> {
    pub(super) config: &'a Config,
    pub(super) pipelines: &'a [(String, Arc<Pipeline>)],
    pub(super) server: &'a Arc<serve::Stats>,
    pub(super) motion: &'a Arc<Motion>,
    pub(super) snapshots: Snapshots,
}

impl Listening {
    /// Starts the thread, and has `reactor` take what comes from it.
    pub(super) fn start(
        self,
        reactor: Reactor,
        known: Known<'_>,
        live: &Arc<Live>,
        send_buffer_len: usize,
    ) -> anyhow::Result<Reactor> {
        let viewers = Arc::<Viewers>::default();
        let wake = Arc::new(Wake::new().context("eventfd")?);
        let (tunnels, handed_over) = mpsc::sync_channel(TUNNELS_MAX);
        let reactor = reactor
            .with_census(Arc::clone(&viewers))
            .with_handed_over((handed_over, Arc::clone(&wake)))?;
        let settings = Settings {
            realm: REALM.into(),
            users: known.config.users.iter().map(known_user).collect(),
            no_auth: !known.config.auth,
            entropy: random()?,
        };
        let sources = Sources {
            streams: known.pipelines.to_vec(),
            server: Arc::clone(known.server),
            viewers,
            memory: self.http.memory,
            log: self.http.log,
            motion: Arc::clone(known.motion),
            snapshots: known.snapshots,
            stream_control: stream_control(live),
        };
        let doors = Doors { listeners: self.listeners, send_buffer_len, tunnels, wake };
        control::start(settings, sources, doors).context("threads")?;
        Ok(reactor)
    }
}

fn stream_control(live: &Arc<Live>) -> StreamControl {
    let (described, changed) = (Arc::clone(live), Arc::clone(live));
    StreamControl {
        describe: Arc::new(move || described.streams()),
        change: Arc::new(move |name, json| changed.change_stream(name, json)),
    }
}

/// Connections on their way to `serve`, which takes them at once.
const TUNNELS_MAX: usize = 16;
