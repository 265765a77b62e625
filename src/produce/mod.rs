//! Threads 1 and 2: from the source to the ring.
//!
//! An uncompressed source has a thread for capture and one for conversion and encoding, with one
//! slot between them, in which the newest picture wins. A source of access units needs one thread.
//! A source that fails is closed and opened again, with back-off; the ring, and with it every
//! session, stays as it is.
//!
//! Not implemented: the NO SIGNAL picture, and giving up on a stage that does not answer.

mod capturing;
mod encoding;
mod passing;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::capture::{self, RawFrame, Source};
use crate::encode;
use crate::ring::{IdrRequests, Newest, Publisher};
use crate::stats::Pipeline;
use crate::sys::Wake;

/// What the threads tell whoever started them.
#[derive(Debug)]
pub enum Notice {
    /// The first access unit is in the ring.
    Ready,
    /// A thread cannot go on.
    Failed(encode::Error),
}

/// Opens the source again, as it was opened first.
pub type Reopen = Box<dyn FnMut() -> Result<Source, capture::Error> + Send>;

/// What the threads work with.
#[derive(Debug)]
pub struct Shared {
    pub publisher: Publisher,
    pub idr_requests: Arc<IdrRequests>,
    pub stats: Arc<Pipeline>,
    /// Wakes the consumers after every access unit.
    pub wake: Arc<Wake>,
    /// Readable when the threads are to end.
    pub stop: Arc<Wake>,
    pub notices: mpsc::Sender<Notice>,
}

/// Starts the threads for `source`.
///
/// # Errors
///
/// When the system has no thread left.
pub fn start(
    source: Source,
    reopen: Reopen,
    settings: encode::Settings,
    shared: Shared,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    match source {
        Source::Coded(source) => {
            let passing =
                passing::Passing { source: Some(source), reopen, shared, is_ready: false };
            Ok(vec![spawn("capture", move || passing.run())?])
        }
        Source::Raw(source) => {
            let frames = Arc::new(Newest::<RawFrame>::default());
            let capturing = capturing::Capturing {
                source: Some(source),
                reopen,
                frames: Arc::clone(&frames),
                stats: Arc::clone(&shared.stats),
                stop: Arc::clone(&shared.stop),
            };
            let encoding = encoding::Encoding { frames, settings, shared };
            Ok(vec![
                spawn("capture", move || capturing.run())?,
                spawn("encode", move || encoding.run())?,
            ])
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}
