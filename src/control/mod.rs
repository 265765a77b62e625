//! Thread 4: says over HTTP how the camera is, and hands RTSP that comes through HTTP to `serve`.
//!
//! `GET /healthz` for whoever restarts things, `/metrics` (OpenMetrics text) for whoever watches,
//! `/log` for the admin; `/snapshot.jpg`, the newest picture; `/api/streams`, what the streams are
//! and, by `PATCH`, what they are to be. Ordinary web code: axum and hyper on one current-thread runtime. The media
//! path neither calls it nor waits for it; should it panic, it is started again, with back-off.
//!
//! | file | concept |
//! |---|---|
//! | `server`, `opening` | connections, their limits, and which of them are HTTP |
//! | `login` | Digest for HTTP |
//! | `pages`, `metrics` | what is answered |
//! | `snapshot` | the newest picture as a JPEG image |
//! | `streams` | changes while the camera runs |
//! | `recent` | the newest lines of the log |
//!
//! Not implemented: TLS; making room for a newcomer by closing who was idle longest.

#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may fail")
)]

mod login;
mod metrics;
mod opening;
mod pages;
mod recent;
mod server;
mod snapshot;
mod streams;

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use log::{error, warn};

pub use recent::Recent;
pub use snapshot::Snapshots;
pub use streams::{Refused, StreamControl};

use self::pages::Site;
use self::snapshot::Shutter;
use crate::auth::{Secret, Throttle, User};
use crate::stats::{Motion, Pipeline, Server, Viewers};
use crate::sys::process::ResidentMemory;
use crate::sys::{ByteStream, Wake, clock};

/// Who may ask.
#[derive(Debug)]
pub struct Settings {
    /// As RTSP's: stored hashes may hold it.
    pub realm: String,
    pub users: Vec<User>,
    pub no_auth: bool,
    /// Secret of this boot.
    pub entropy: [u8; 32],
}

/// What there is to tell.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The streams' names, and what happens to their pictures.
    pub streams: Vec<(String, Arc<Pipeline>)>,
    pub server: Arc<Server>,
    pub viewers: Arc<Viewers>,
    /// `None` where the kernel does not say.
    pub memory: Option<Arc<ResidentMemory>>,
    pub log: Arc<Recent>,
    pub motion: Arc<Motion>,
    /// Where `/snapshot.jpg` comes from.
    pub snapshots: Snapshots,
    pub stream_control: StreamControl,
}

/// Sockets, and the way to `serve`.
#[derive(Debug)]
pub struct Doors {
    pub listeners: Vec<OwnedFd>,
    /// Bytes that may wait in the kernel for one viewer who comes through HTTP.
    pub send_buffer_len: usize,
    /// For connections that RTSP is spoken on; what does not fit is closed.
    pub tunnels: SyncSender<ByteStream>,
    /// Written after each.
    pub wake: Arc<Wake>,
}

/// The name that the hook for panics knows the thread by.
pub const THREAD: &str = "control";

/// Starts the thread, which lives as long as the process.
///
/// # Errors
///
/// When there can be no more threads.
pub fn start(settings: Settings, sources: Sources, doors: Doors) -> io::Result<()> {
    let site = Arc::new(Site {
        realm: settings.realm,
        users: settings.users,
        no_auth: settings.no_auth,
        secret: Secret::new(settings.entropy),
        throttle: Mutex::new(Throttle::default()),
        registry: metrics::registry(sources.clone()),
        shutter: Shutter::new(sources.snapshots.clone()),
        sources,
    });
    let run = move || {
        keep_running(|| server::run(&site, &doors));
    };
    thread::Builder::new().name(THREAD.into()).spawn(run).map(drop)
}

/// Runs `work` until it ends by itself, again after every error and panic: soon at first, later
/// if it lasts no longer.
fn keep_running<T>(mut work: impl FnMut() -> io::Result<T>) -> T {
    let mut pause = PAUSE_MIN;
    loop {
        let started = clock::now();
        match catch_unwind(AssertUnwindSafe(&mut work)) {
            Ok(Ok(done)) => return done,
            Ok(Err(error)) => warn!("control: ended error=\"{error}\" again_in={pause:?}"),
            // The hook has said where.
            Err(_) => error!("control: panicked again_in={pause:?}"),
        }
        if clock::now().since(started) >= PAUSE_MAX {
            pause = PAUSE_MIN;
        }
        // Nobody unparks this thread; should it wake early, it starts early.
        thread::park_timeout(pause);
        pause = PAUSE_MAX.min(pause * 2);
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_or_fails_is_started_again_later_each_time_until_it_ends() {
        let mut starts = Vec::new();
        keep_running(|| {
            starts.push(clock::now());
            match starts.len() {
                1 => panic!("a test's panic"),
                2 => Err(io::Error::other("a test's error")),
                3 => panic!("another panic of a test"),
                _ => Ok(()),
            }
        });
        let pauses: Vec<Duration> = starts.windows(2).map(|two| two[1].since(two[0])).collect();
        assert_eq!(pauses.len(), 3);
        for (pause, least) in pauses.iter().zip([100, 200, 400]) {
            assert!(*pause >= Duration::from_millis(least), "{pauses:?}");
        }
    }
}
