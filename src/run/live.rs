//! What of a configuration the pictures are made by, and how that changes while the camera runs.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::{info, warn};
use ocellus::cli::RunArgs;
use ocellus::config::{self, Config, Impact, Rectangle, difference};
use ocellus::control::Refused;
use ocellus::encode;
use ocellus::frame::Colour;
use ocellus::picture::{Area, Orientation, motion};
use ocellus::produce::{self, ClockText, Control, Labels, Settings};

use super::source::Origin;
use crate::Failure;

/// The configuration that holds now, and the threads that it is made known to.
pub(super) struct Live {
    config: Mutex<Config>,
    /// What the source is opened by the next time.
    origin: Arc<Mutex<Origin>>,
    control: Control,
    /// What is read again when asked to: the file that it names, over which its flags win.
    args: RunArgs,
    /// How many streams there are; a source of access units has one, whatever is configured.
    stream_count: usize,
    is_coded: bool,
}

impl Live {
    pub(super) fn new(
        config: Config,
        origin: Arc<Mutex<Origin>>,
        control: Control,
        args: &RunArgs,
        (stream_count, is_coded): (usize, bool),
    ) -> Self {
        // Accounts are made at the start only.
        let args = RunArgs { no_generated_user: true, user: None, ..args.clone() };
        Self { config: Mutex::new(config), origin, control, args, stream_count, is_coded }
    }

    /// Every stream as it is now.
    pub(super) fn streams(&self) -> String {
        self.config().streams_json()
    }

    /// Changes one stream; answers what holds now.
    pub(super) fn change_stream(&self, name: &str, json: &str) -> Result<String, Refused> {
        let mut config = self.config();
        let known = config.streams.iter().position(|stream| stream.name.to_string() == name);
        if known.is_none_or(|index| index >= self.stream_count) {
            return Err(Refused::UnknownStream);
        }
        let change = config.change(name, json).ok_or(Refused::UnknownStream)?;
        let change = change.map_err(|error| Refused::NotAllowed(error.to_string()))?;
        if self.is_coded && !is_passed_on(&config, &change.config) {
            return Err(Refused::NotPossible(ENCODED_ALREADY.into()));
        }
        let answer = change.to_json();
        self.apply(&mut config, change.config);
        Ok(answer)
    }

    /// Reads the configuration file again, and takes from it what can be taken now.
    pub(super) fn reload(&self) {
        let Some(file) = &self.args.config else { return };
        let mut config = self.config();
        let read = crate::read_config(file).and_then(|mut new| {
            let none = || unreachable!("no account is made");
            self.args.apply(&mut new, None, none).map_err(super::usage)?;
            new.users.clone_from(&config.users);
            Ok(new)
        });
        match read {
            Ok(new) if self.is_coded && !is_passed_on(&config, &new) => {
                warn!("run: the configuration stays as it is reason=\"{ENCODED_ALREADY}\"");
            }
            Ok(new) => self.apply(&mut config, new),
            Err(Failure::Usage(error) | Failure::Running(error)) => {
                warn!("run: the configuration stays as it is reason=\"{error:#}\"");
            }
        }
    }

    fn apply(&self, old: &mut Config, new: Config) {
        let mut impact = Impact::Live;
        let mut next = old.clone();
        let differences = difference(old, &new);
        for (path, needs) in &differences {
            info!("run: changed {path} applied={}", needs.word());
            if *needs == Impact::Restart {
                warn!("run: {path} holds from the next start on");
            } else {
                impact = impact.max(*needs);
            }
        }
        if differences.iter().any(|(_, needs)| *needs != Impact::Restart) {
            next.adopt(&new);
            let mut origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
            // A faster stream may want a faster source.
            let fps = next.streams.first().map_or(0.0, |main| f64::from(main.fps));
            let is_slow = origin.fps().is_some_and(|source| fps > source);
            origin.follow(&next, self.is_coded);
            drop(origin);
            if impact == Impact::Reopen || is_slow {
                self.control.is_reopen_wanted.store(true, Ordering::Relaxed);
            }
            self.control.changes.put(settings(&next, self.stream_count));
            *old = next;
        }
    }

    fn config(&self) -> MutexGuard<'_, Config> {
        // A configuration is replaced as a whole.
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of the pictures, for the first `count` streams.
pub(super) fn settings(config: &Config, count: usize) -> Settings {
    let camera = &config.camera;
    let zone = config.time.zone.clone();
    Settings {
        orientation: Orientation {
            is_upside_down: camera.rotate == 180,
            is_mirrored: camera.mirror,
        },
        masks: camera.masks.iter().copied().map(area).collect(),
        overlay: Labels {
            has_time: camera.overlay.time,
            name: camera.overlay.name.then(|| config.name.clone()),
        },
        motion: camera.motion.enabled.then(|| motion_settings(&camera.motion)),
        streams: config.streams.iter().take(count).map(stream).collect(),
        clock: ClockText(Arc::new(move |wall, text| {
            let micros = i64::try_from(wall.to_unix().as_micros()).unwrap_or(i64::MAX);
            zone.text(micros, text);
        })),
    }
}

/// Whether a source that is encoded already can follow a change: by its bitrate, its GOP and its
/// controls, and in whatever does not concern the pictures.
fn is_passed_on(old: &Config, new: &Config) -> bool {
    let shape = |config: &Config| {
        let streams = config.streams.iter().take(1);
        streams.map(|it| (it.size, it.fps)).next()
    };
    wants_pictures(new) == wants_pictures(old) && shape(new) == shape(old)
}

/// What the pictures themselves are needed for, so that a camera's own H.264 will not do.
pub(super) fn wants_pictures(config: &Config) -> Option<&'static str> {
    let camera = &config.camera;
    [
        (config.streams.len() > 1, "the sub stream"),
        (camera.rotate != 0 || camera.mirror, "turning the picture"),
        (!camera.masks.is_empty(), "the privacy mask"),
        (camera.overlay != config::Overlay::default(), "the overlay"),
        (camera.motion.enabled, "motion detection"),
        (
            config.streams.iter().any(|stream| stream.encoder != config::Encoder::Auto),
            "the encoder that is configured",
        ),
    ]
    .into_iter()
    .find_map(|(is_so, why)| is_so.then_some(why))
}

fn stream(stream: &config::Stream) -> produce::Stream {
    let is_main = stream.name == config::StreamName::Main;
    produce::Stream {
        name: stream.name.to_string(),
        size: (!is_main).then_some((stream.size.width, stream.size.height)),
        encode: encode::Settings {
            fps: f64::from(stream.fps),
            bitrate_bps: stream.bitrate_kbps * 1_000,
            gop: Duration::from_secs_f64(stream.gop_s),
            colour: Colour::default(),
            threads: if is_main { threads() } else { 1 },
        },
        encoder: match &stream.encoder {
            config::Encoder::Auto => encode::Choice::Auto,
            config::Encoder::OpenH264 => encode::Choice::OpenH264,
            config::Encoder::M2m(path) => encode::Choice::M2m(path.clone()),
        },
        has_utc: stream.utc_sei,
    }
}

/// Threads for one picture: all processors but one, which everything else has.
fn threads() -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(processors - 1).unwrap_or(THREADS_MAX).clamp(1, THREADS_MAX)
}

fn motion_settings(motion: &config::Motion) -> motion::Settings {
    let zone = |zone: config::MotionZone| motion::Zone {
        name: zone.name,
        area: area(zone.area),
        sensitivity: u8::try_from(zone.sensitivity).unwrap_or(100),
    };
    motion::Settings {
        zones: motion.watched().into_iter().map(zone).collect(),
        min_duration: Duration::from_secs_f64(motion.min_duration_s),
        cool_down: Duration::from_secs_f64(motion.cool_down_s),
    }
}

fn area(rectangle: Rectangle) -> Area {
    let [x, y, width, height] = rectangle.shares();
    Area { x, y, width, height }
}

const ENCODED_ALREADY: &str = "this source is encoded already: of its streams and pictures only \
                               bitrate, GOP and controls can be changed while it runs";
/// More slices cost more bits than they save time.
const THREADS_MAX: u16 = 4;
