//! Threads 1 and 2: from the source to the rings.
//!
//! An uncompressed source has a thread for capture and one for everything up to the access unit,
//! with one slot between them, in which the newest picture wins. A source of access units needs one
//! thread. A source that fails is closed and opened again, with back-off; the rings, and with them
//! every session, stay as they are, and viewers get a NO SIGNAL picture.
//!
//! | file | concept |
//! |---|---|
//! | `capturing`, `intake` | thread 1, and what it shares with thread 2 |
//! | `encoding` | thread 2, which watches over thread 1 |
//! | `studio` | a picture on its way to the encoders |
//! | `lane`, `pace`, `encoders` | one stream: which pictures, by which encoder |
//! | `placeholder` | NO SIGNAL |
//! | `passing` | access units as they come |

mod capturing;
mod encoders;
mod encoding;
mod intake;
mod lane;
mod loss;
mod pace;
mod passing;
mod placeholder;
mod studio;

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use thiserror::Error;

use crate::capture::{self, Source};
use crate::encode;
use crate::frame::Colour;
use crate::h264::AccessUnit;
use crate::picture::{Area, Orientation, Picture, motion};
use crate::ring::{IdrRequests, Newest, Publisher, Stills};
use crate::stats::{Gauge, Motion, Pipeline};
use crate::sys::{Wake, clock};
use crate::time::{Instant, NtpTimestamp};

/// What becomes of the source's pictures. Replaced as a whole while the threads run.
#[derive(Clone, Debug)]
pub struct Settings {
    pub orientation: Orientation,
    /// Of the picture as it is shown.
    pub masks: Vec<Area>,
    pub overlay: Labels,
    pub motion: Option<motion::Settings>,
    /// One for each outlet; `main` first.
    pub streams: Vec<Stream>,
    pub clock: ClockText,
}

impl Settings {
    /// Whether main's pictures are other than the source's.
    fn is_drawn_on(&self) -> bool {
        self.orientation != Orientation::default()
            || !self.masks.is_empty()
            || self.overlay != Labels::default()
    }
}

/// What is written on every picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    pub has_time: bool,
    pub name: Option<String>,
}

/// One encoding of the pictures.
#[derive(Clone, Debug)]
pub struct Stream {
    /// For logs.
    pub name: String,
    /// `None`: the source's own.
    pub size: Option<(u32, u32)>,
    /// The colour is that of the pictures, whatever this says.
    pub encode: encode::Settings,
    pub encoder: encode::Choice,
    /// Whether every access unit carries the wall time of its capture (MISB ST 0604).
    pub has_utc: bool,
}

/// Appends a wall time to a text, in the owner's time zone.
#[derive(Clone)]
pub struct ClockText(pub Arc<WriteTime>);

type WriteTime = dyn Fn(NtpTimestamp, &mut String) + Send + Sync;

impl fmt::Debug for ClockText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockText")
    }
}

/// What the threads tell whoever started them.
#[derive(Debug)]
pub enum Notice {
    /// The first access unit of this stream is in its ring.
    Ready { stream: usize },
    /// A thread cannot go on.
    Failed(Error),
}

/// Why a thread cannot go on; a fresh process may.
#[derive(Debug, Error)]
pub enum Error {
    #[error(transparent)]
    Encode(#[from] encode::Error),
    #[error("capture: the device's driver does not let go of one thread after the other")]
    Stuck,
}

/// Opens the source again: as it was opened first, or as it is to be now.
pub type Reopen = Arc<dyn Fn() -> Result<Source, capture::Error> + Send + Sync>;

/// The way out of one stream.
#[derive(Debug)]
pub struct Outlet {
    pub publisher: Publisher,
    pub idr_requests: Arc<IdrRequests>,
    /// How many watch, or wait to.
    pub watchers: Arc<Gauge>,
    pub stats: Arc<Pipeline>,
}

/// What the threads work with.
#[derive(Debug)]
pub struct Shared {
    /// One for each stream; a source of access units has one.
    pub outlets: Vec<Outlet>,
    /// Wakes the consumers after every access unit.
    pub wake: Arc<Wake>,
    /// Readable when the threads are to end.
    pub stop: Arc<Wake>,
    pub notices: mpsc::Sender<Notice>,
    pub control: Control,
    pub motion: Arc<Motion>,
}

/// What can be asked of the threads while they run.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// New settings: the newest ones win.
    pub changes: Arc<Newest<Settings>>,
    /// The source is to be opened again, because `Reopen` opens another one now.
    pub is_reopen_wanted: Arc<AtomicBool>,
    /// Main's next picture, from sources of pictures.
    pub pictures: Arc<Stills<Picture>>,
    /// Main's next IDR, from sources of access units.
    pub units: Arc<Stills<AccessUnit>>,
}

/// Whom threads tell what.
struct Tell {
    wake: Arc<Wake>,
    notices: mpsc::Sender<Notice>,
    stills: Arc<Stills<Picture>>,
    main: Arc<Pipeline>,
}

/// Starts the threads for `source`.
///
/// # Errors
///
/// When the system has no thread left.
///
/// # Panics
///
/// When there is no outlet: a camera without a stream is a caller's mistake.
pub fn start(
    source: Source,
    reopen: Reopen,
    settings: Settings,
    shared: Shared,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let Shared { mut outlets, wake, stop, notices, control, motion } = shared;
    let main = Arc::clone(&outlets.first().expect("a camera has a stream").stats);
    let is_reopen_wanted = control.is_reopen_wanted;
    let (stats, loss) = (Arc::clone(&main), Arc::default());
    let tools = capturing::Tools { reopen, is_reopen_wanted, stats, stop, loss };
    let tell = Tell { wake, notices, stills: control.pictures, main };
    match source {
        Source::Coded(source) => {
            tell.main.encoder.set("none: as the source has encoded it");
            let passing = passing::Passing {
                source: Some(source),
                tools,
                settings,
                changes: control.changes,
                outlet: outlets.swap_remove(0),
                stills: control.units,
                tell,
                is_ready: false,
                last_idr: Instant::ZERO,
                still_asked: Instant::ZERO,
            };
            Ok(vec![spawn("capture", move || passing.run())?])
        }
        Source::Raw(source) => {
            let mode = source.mode();
            let intake = Arc::new(intake::Intake::new(clock::now()));
            let lanes = outlets.into_iter().zip(&settings.streams).enumerate();
            let lane = |(index, (outlet, stream)): (usize, (Outlet, &Stream))| {
                lane::Lane::new(index, stream.clone(), outlet, mode.fps)
            };
            let encoding = encoding::Encoding {
                intake: Arc::clone(&intake),
                tools: tools.clone(),
                studio: studio::Studio::new(settings.clone(), motion),
                lanes: lanes.map(lane).collect(),
                settings,
                changes: control.changes,
                tell,
                placeholder: placeholder::Placeholder::default(),
                shape: ((mode.width, mode.height), Colour::default()),
                fps: mode.fps,
                abandoned: None,
            };
            let capturing = capturing::Capturing { source: Some(source), intake, tools };
            // Thread 1 is not waited for: a driver may hold it, and it holds nothing of ours.
            drop(spawn("capture", move || capturing.run())?);
            Ok(vec![spawn("encode", move || encoding.run())?])
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

#[cfg(test)]
mod tests;
