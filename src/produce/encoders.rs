//! Which encoder a stream has: the best that works, and another one when it does not.
//!
//! DESIGN "Healing": a hardware encoder that fails or stalls is replaced by OpenH264 with the very
//! next picture, and tried again later, each time after twice as long. An OpenH264 that fails is
//! opened again; failing [`FAILURES_MAX`] times in a row, it is for the supervisor.

use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};

use crate::encode::{self, Choice, Encoder, Error, M2m, OpenH264, Settings};
use crate::frame::{Colour, Frame};
use crate::stats::Pipeline;
use crate::time::Instant;

/// The encoder of one stream, opened when there is a picture for it.
#[derive(Debug)]
pub(super) struct Encoders {
    stream: String,
    choice: Choice,
    hardware: OpenHardware,
    open: Option<Open>,
    /// When hardware that failed is tried again, and how long it was left alone.
    retry: Option<(Instant, Duration)>,
    /// Of OpenH264, in a row.
    failures: u32,
    stats: Arc<Pipeline>,
}

#[derive(Debug)]
struct Open {
    encoder: Box<dyn Encoder>,
    is_hardware: bool,
    size: (u32, u32),
    colour: Colour,
    settings: Settings,
}

impl Encoders {
    pub(super) fn new(stream: String, choice: Choice, stats: Arc<Pipeline>) -> Self {
        let (hardware, open, retry): (OpenHardware, _, _) = (best_hardware, None, None);
        Self { stream, choice, hardware, open, retry, failures: 0, stats }
    }

    /// The encoder for pictures like `frame`; a new one starts with an IDR.
    ///
    /// # Errors
    ///
    /// When not even OpenH264 can be opened.
    pub(super) fn of(
        &mut self,
        frame: &Frame<'_>,
        settings: &Settings,
    ) -> Result<&mut dyn Encoder, Error> {
        let (size, colour) = ((frame.width, frame.height), frame.colour);
        let is_retry_due = self.retry.is_some_and(|(at, _)| frame.captured >= at)
            && self.open.as_ref().is_some_and(|open| !open.is_hardware);
        let open = match self.open.take() {
            Some(open) if open.size == size && open.colour == colour => {
                let better = is_retry_due.then(|| self.open_hardware(frame, open.settings));
                better.flatten().unwrap_or(open)
            }
            _ => self.open(frame, Settings { colour, ..*settings })?,
        };
        let open = self.open.insert(open);
        if (Settings { colour, ..*settings }) != open.settings {
            open.settings = Settings { colour, ..*settings };
            open.encoder.change(&open.settings)?;
        }
        Ok(&mut *open.encoder)
    }

    /// When the last IDR was captured, by the encoder that is open.
    pub(super) fn last_idr(&self) -> Instant {
        self.open.as_ref().and_then(|open| open.encoder.last_idr()).unwrap_or(Instant::ZERO)
    }

    /// The encoder has made a unit.
    pub(super) fn worked(&mut self) {
        self.failures = 0;
    }

    /// The encoder has failed: the next picture will have another one.
    ///
    /// # Errors
    ///
    /// `error`, when there is no other.
    pub(super) fn failed(&mut self, now: Instant, error: Error) -> Result<(), Error> {
        let was_hardware = self.open.take().is_some_and(|open| open.is_hardware);
        self.stats.encoder_replaced.increment();
        self.stats.encoder_fault.set(&error.to_string());
        if was_hardware {
            let pause = self.retry_later(now);
            warn!(
                "encode: replacing the encoder stream={} reason=\"{error}\" retry_after_s={}",
                self.stream,
                pause.as_secs()
            );
            return Ok(());
        }
        self.failures += 1;
        if self.failures > FAILURES_MAX {
            return Err(error);
        }
        warn!("encode: opening the encoder again stream={} reason=\"{error}\"", self.stream);
        Ok(())
    }

    /// Closes the encoder of a stream that nobody watches.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Has the next picture encoded by what `choice` says.
    pub(super) fn choose(&mut self, choice: Choice) {
        if choice != self.choice {
            (self.choice, self.open, self.retry) = (choice, None, None);
        }
    }

    fn open(&mut self, frame: &Frame<'_>, settings: Settings) -> Result<Open, Error> {
        let may_try = self.retry.is_none_or(|(at, _)| frame.captured >= at);
        let hardware = may_try.then(|| self.open_hardware(frame, settings)).flatten();
        match hardware {
            Some(open) => Ok(open),
            None => Ok(self.opened(Box::new(OpenH264::open(&settings)?), false, frame, settings)),
        }
    }

    fn open_hardware(&mut self, frame: &Frame<'_>, settings: Settings) -> Option<Open> {
        match (self.hardware)(&self.choice, &settings, (frame.width, frame.height)) {
            Hardware::Open(encoder) => Some(self.opened(encoder, true, frame, settings)),
            Hardware::None => None,
            Hardware::Refused => {
                self.retry_later(frame.captured);
                None
            }
        }
    }

    /// Leaves hardware alone for a while, which is answered: longer every time.
    fn retry_later(&mut self, now: Instant) -> Duration {
        let pause = self.retry.map_or(RETRY_FIRST, |(_, pause)| (pause * 2).min(RETRY_MAX));
        self.retry = Some((now + pause, pause));
        pause
    }

    fn opened(
        &self,
        encoder: Box<dyn Encoder>,
        is_hardware: bool,
        frame: &Frame<'_>,
        settings: Settings,
    ) -> Open {
        let (name, stream, size) = (encoder.name(), &self.stream, (frame.width, frame.height));
        info!("encode: stream={stream} encoder={name} size={}x{}", size.0, size.1);
        self.stats.encoder.set(&name);
        Open { encoder, is_hardware, size, colour: frame.colour, settings }
    }
}

/// What came of looking for a hardware encoder.
enum Hardware {
    Open(Box<dyn Encoder>),
    /// There is none, or it is not wanted.
    None,
    /// There is one, and it cannot be had now.
    Refused,
}

/// Looks for one: how, is for tests to say.
type OpenHardware = fn(&Choice, &Settings, (u32, u32)) -> Hardware;

/// The best of the machine's that `choice` allows.
fn best_hardware(choice: &Choice, settings: &Settings, (width, height): (u32, u32)) -> Hardware {
    let candidates = match choice {
        Choice::OpenH264 => Vec::new(),
        Choice::M2m(Some(path)) => vec![path.clone()],
        Choice::Auto | Choice::M2m(None) => {
            let nodes = encode::m2m::probe().into_iter();
            nodes.filter(|node| node.problem.is_none()).map(|node| node.path).collect()
        }
    };
    let is_none = candidates.is_empty();
    for path in candidates {
        match M2m::open(&path, settings, width, height) {
            Ok(encoder) => return Hardware::Open(Box::new(encoder)),
            Err(error) => warn!("encode: passed over {} reason=\"{error}\"", path.display()),
        }
    }
    if is_none { Hardware::None } else { Hardware::Refused }
}

/// In a row: an encoder that cannot be had again is for the supervisor.
const FAILURES_MAX: u32 = 3;
const RETRY_FIRST: Duration = Duration::from_secs(30);
const RETRY_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::Encoded;
    use crate::h264::AccessUnit;
    use crate::picture::Picture;

    /// Encodes three pictures and fails.
    #[derive(Debug)]
    struct Frail(OpenH264, u32);

    impl Encoder for Frail {
        fn name(&self) -> String {
            "frail".into()
        }

        fn encode(
            &mut self,
            frame: &Frame<'_>,
            is_idr_wanted: bool,
            unit: &mut AccessUnit,
        ) -> Result<Encoded, Error> {
            self.1 += 1;
            if self.1 > 3 { Err(Error::Gone) } else { self.0.encode(frame, is_idr_wanted, unit) }
        }

        fn last_idr(&self) -> Option<Instant> {
            self.0.last_idr()
        }

        fn change(&mut self, settings: &Settings) -> Result<(), Error> {
            self.0.change(settings)
        }
    }

    fn frail(choice: &Choice, settings: &Settings, _: (u32, u32)) -> Hardware {
        match choice {
            Choice::OpenH264 => Hardware::None,
            _ => Hardware::Open(Box::new(Frail(OpenH264::open(settings).unwrap(), 0))),
        }
    }

    fn settings() -> Settings {
        let gop = Duration::from_secs(60);
        Settings { fps: 1.0, bitrate_bps: 100_000, gop, colour: Colour::default(), threads: 1 }
    }

    /// The encoder of each picture, one per second, and whether it made an IDR; `None`: it failed.
    fn encode(encoders: &mut Encoders, seconds: u64) -> Vec<Option<(String, bool)>> {
        let mut picture = Picture::new(64, 64);
        let mut unit = AccessUnit::default();
        let mut at = |second: u64| {
            picture.stamp(Colour::default(), Instant::from_micros((100 + second) * 1_000_000));
            let frame = picture.frame();
            let encoder = encoders.of(&frame, &settings()).unwrap();
            match encoder.encode(&frame, false, &mut unit) {
                Ok(_) => Some((encoder.name(), unit.is_idr())),
                Err(error) => {
                    encoders.failed(frame.captured, error).unwrap();
                    None
                }
            }
        };
        (0..seconds).map(&mut at).collect()
    }

    #[test]
    fn hardware_that_fails_is_replaced_with_the_next_picture_and_tried_ever_more_seldom() {
        let stats = Arc::<Pipeline>::default();
        let mut encoders = Encoders::new("main".into(), Choice::Auto, Arc::clone(&stats));
        encoders.hardware = frail;
        let made = encode(&mut encoders, 150);
        let failures: Vec<usize> = (0..150).filter(|&at| made[at].is_none()).collect();
        // Three pictures, a failure, 30 s without it; three more, and 60 s.
        assert_eq!(failures, [3, 36, 99]);
        let name = |at: usize| made[at].as_ref().map(|(name, _)| name.as_str());
        assert_eq!(
            (name(2), name(4), name(32), name(33)),
            (Some("frail"), Some("openh264"), Some("openh264"), Some("frail"))
        );
        let idrs: Vec<usize> =
            (0..150).filter(|&at| made[at].as_ref().is_some_and(|(_, is_idr)| *is_idr)).collect();
        assert!([0, 4, 33, 37, 96, 100].iter().all(|at| idrs.contains(at)), "{idrs:?}");
        assert_eq!(stats.encoder_replaced.get(), 3);
        assert_eq!(stats.encoder.get(), "openh264");
        assert_eq!(stats.encoder_fault.get(), Error::Gone.to_string());
    }

    #[test]
    fn whoever_wants_openh264_gets_no_other_and_the_same_one() {
        let mut encoders = Encoders::new("main".into(), Choice::OpenH264, Arc::default());
        encoders.hardware = frail;
        let made = encode(&mut encoders, 10);
        assert!(made.iter().all(|it| it.as_ref().is_some_and(|(name, _)| name == "openh264")));
        assert_eq!(made.iter().flatten().filter(|(_, is_idr)| *is_idr).count(), 1);
    }

    #[test]
    fn hardware_that_cannot_be_had_is_stood_in_for_and_asked_again_later() {
        fn refused(_: &Choice, _: &Settings, _: (u32, u32)) -> Hardware {
            Hardware::Refused
        }
        let mut encoders = Encoders::new("main".into(), Choice::M2m(None), Arc::default());
        encoders.hardware = refused;
        let made = encode(&mut encoders, 40);
        assert!(made.iter().all(|it| it.as_ref().is_some_and(|(name, _)| name == "openh264")));
        // Asking in vain costs the viewers nothing.
        assert_eq!(made.iter().flatten().filter(|(_, is_idr)| *is_idr).count(), 1);
    }

    #[test]
    fn an_openh264_that_fails_again_and_again_is_for_the_supervisor() {
        let mut encoders = Encoders::new("main".into(), Choice::OpenH264, Arc::default());
        let now = Instant::from_micros(1);
        for _ in 0..FAILURES_MAX {
            assert!(encoders.failed(now, Error::Gone).is_ok());
        }
        assert!(encoders.failed(now, Error::Gone).is_err());
        encoders.worked();
        assert!(encoders.failed(now, Error::Gone).is_ok());
    }
}
