//! The threads with sources that fail, hang and come back; on the real clock, because they have it.

use std::os::fd::AsFd as _;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::*;
use crate::capture::{
    CodedSource, Coding, Error as CaptureError, Mode, Pattern, RawFrame, RawSource, Wait,
};
use crate::encode::{Choice, Encoder as _, OpenH264};
use crate::h264::{AccessUnit, ParameterSets};
use crate::ring::{Consumer, publisher};
use crate::time::Instant;

/// What the camera of a test does, decided by the test while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    /// Fails, and cannot be opened.
    Gone,
    /// Does not return from a call, until it may.
    Hangs,
    /// Fails once.
    Flickers,
    /// Has nothing to say, until it is opened again.
    Silent,
}

#[derive(Clone, Debug)]
struct Camera {
    mood: Arc<Mutex<Mood>>,
    size: Arc<Mutex<(u32, u32)>>,
    /// A device that is never readable.
    silence: Arc<Wake>,
}

impl Camera {
    fn new() -> Self {
        Self {
            mood: Arc::new(Mutex::new(Mood::Well)),
            size: Arc::new(Mutex::new((160, 96))),
            silence: Arc::new(Wake::new().unwrap()),
        }
    }

    fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn check(&self) -> Result<(), CaptureError> {
        let hangs = || *self.mood.lock().unwrap() == Mood::Hangs;
        while hangs() {
            pause(5);
        }
        let mut mood = self.mood.lock().unwrap();
        let is_gone = matches!(*mood, Mood::Gone | Mood::Flickers);
        if *mood == Mood::Flickers {
            *mood = Mood::Well;
        }
        if is_gone { Err(CaptureError::Gone { device: "/dev/video0".into() }) } else { Ok(()) }
    }

    fn is_silent(&self) -> bool {
        *self.mood.lock().unwrap() == Mood::Silent
    }

    fn open(&self) -> Result<(), CaptureError> {
        if self.is_silent() {
            self.be(Mood::Well);
        }
        self.check()
    }

    fn raw(&self) -> Result<Source, CaptureError> {
        self.open()?;
        let (width, height) = *self.size.lock().unwrap();
        let pattern = Pattern::new(width, height, 30.0);
        Ok(Source::Raw(Box::new(Raw { camera: self.clone(), pattern })))
    }

    fn coded(&self) -> Result<Source, CaptureError> {
        self.open()?;
        let (width, height) = *self.size.lock().unwrap();
        let settings = encode_settings(30.0);
        Ok(Source::Coded(Box::new(Coded {
            camera: self.clone(),
            pattern: Pattern::new(width, height, 30.0),
            encoder: OpenH264::open(&settings).unwrap(),
            is_idr_asked: false,
        })))
    }
}

#[derive(Debug)]
struct Raw {
    camera: Camera,
    pattern: Pattern,
}

impl RawSource for Raw {
    fn mode(&self) -> Mode {
        self.pattern.mode()
    }

    fn wait(&self) -> Wait<'_> {
        if self.camera.is_silent() {
            return Wait::Readable(self.camera.silence.as_fd());
        }
        self.pattern.wait()
    }

    fn capture(&mut self, now: Instant) -> Result<Option<RawFrame>, CaptureError> {
        self.camera.check()?;
        if self.camera.is_silent() {
            return Ok(None);
        }
        self.pattern.capture(now)
    }

    fn lost(&self) -> u64 {
        0
    }
}

#[derive(Debug)]
struct Coded {
    camera: Camera,
    pattern: Pattern,
    encoder: OpenH264,
    is_idr_asked: bool,
}

impl CodedSource for Coded {
    fn wait(&self) -> Wait<'_> {
        if self.camera.is_silent() {
            return Wait::Readable(self.camera.silence.as_fd());
        }
        self.pattern.wait()
    }

    fn fps(&self) -> f64 {
        30.0
    }

    fn capture(&mut self, now: Instant, unit: &mut AccessUnit) -> Result<bool, CaptureError> {
        self.camera.check()?;
        if self.camera.is_silent() {
            return Ok(false);
        }
        let Some(raw) = self.pattern.capture(now)? else { return Ok(false) };
        let is_asked = std::mem::take(&mut self.is_idr_asked);
        self.encoder.encode(&raw.frame(), is_asked, unit).unwrap();
        Ok(true)
    }

    fn request_idr(&mut self) {
        self.is_idr_asked = true;
    }

    fn change(&mut self, _: Coding) {}

    fn size(&self) -> (u32, u32) {
        *self.camera.size.lock().unwrap()
    }

    fn lost(&self) -> u64 {
        0
    }
}

/// Running threads, and what there is at their other ends.
struct Run {
    consumers: Vec<Consumer>,
    outlets: Vec<(Arc<IdrRequests>, Arc<Gauge>, Arc<Pipeline>)>,
    control: Control,
    settings: Settings,
    notices: Receiver<Notice>,
    stop: Arc<Wake>,
    threads: Vec<JoinHandle<()>>,
}

fn encode_settings(fps: f64) -> encode::Settings {
    let gop = Duration::from_secs(1);
    encode::Settings { fps, bitrate_bps: 300_000, gop, colour: Colour::default(), threads: 1 }
}

fn stream(name: &str, size: Option<(u32, u32)>, fps: f64) -> Stream {
    let (name, encode) = (name.to_owned(), encode_settings(fps));
    Stream { name, size, encode, encoder: Choice::OpenH264, has_utc: false }
}

fn run(source: Source, reopen: Reopen, streams: Vec<Stream>) -> Run {
    let (notices_in, notices) = mpsc::channel();
    let (mut consumers, mut ends, mut outlets) = (Vec::new(), Vec::new(), Vec::new());
    for _ in &streams {
        let stats = Arc::<Pipeline>::default();
        let (publisher, mut consumer) = publisher(1, 1 << 16, Arc::clone(&stats));
        consumers.append(&mut consumer);
        let (idr_requests, watchers) = (Arc::<IdrRequests>::default(), Arc::<Gauge>::default());
        ends.push((Arc::clone(&idr_requests), Arc::clone(&watchers), Arc::clone(&stats)));
        outlets.push(Outlet { publisher, idr_requests, watchers, stats });
    }
    let settings = Settings {
        orientation: Orientation::default(),
        masks: Vec::new(),
        overlay: Labels::default(),
        motion: None,
        streams,
        clock: ClockText(Arc::new(|_, text| text.push_str("12:00"))),
    };
    let stop = Arc::new(Wake::new().unwrap());
    let control = Control::default();
    let shared = Shared {
        outlets,
        wake: Arc::new(Wake::new().unwrap()),
        stop: Arc::clone(&stop),
        notices: notices_in,
        control: control.clone(),
        motion: Arc::default(),
    };
    let threads = start(source, reopen, settings.clone(), shared).unwrap();
    Run { consumers, outlets: ends, control, settings, notices, stop, threads }
}

fn run_raw(camera: &Camera, streams: Vec<Stream>) -> Run {
    let again = camera.clone();
    run(camera.raw().unwrap(), Arc::new(move || again.raw()), streams)
}

fn run_coded(camera: &Camera) -> Run {
    let again = camera.clone();
    let reopen = Arc::new(move || again.coded());
    run(camera.coded().unwrap(), reopen, vec![stream("main", None, 30.0)])
}

impl Run {
    /// The next access unit of a stream: whether it is an IDR, and the size that it says.
    fn next(&mut self, stream: usize) -> (bool, Option<(u32, u32)>) {
        for _ in 0..12_000 {
            if let Some(unit) = self.consumers[stream].pop() {
                let size = ParameterSets::of(&unit).map(|sets| sets.describe().unwrap());
                return (unit.is_idr(), size.map(|it| (it.width, it.height)));
            }
            pause(1);
        }
        panic!("no access unit of stream {stream} for 12 s");
    }

    /// Takes units until `is_it` is true of the counters of the first stream.
    fn until(&mut self, is_it: impl Fn(&Pipeline) -> bool) {
        while !is_it(&self.outlets[0].2) {
            self.next(0);
        }
    }

    /// Takes everything that is there.
    fn drain(&mut self, stream: usize) -> usize {
        std::iter::from_fn(|| self.consumers[stream].pop()).count()
    }

    fn end(self) {
        self.stop.wake();
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

fn pause(millis: u16) {
    nix::poll::poll(&mut [], millis).unwrap();
}

#[test]
fn viewers_of_a_lost_camera_get_no_signal_and_then_its_pictures_again() {
    let camera = Camera::new();
    let mut run = run_raw(&camera, vec![stream("main", None, 30.0)]);
    assert_eq!(run.next(0), (true, Some((160, 96))));
    camera.be(Mood::Gone);
    run.until(|stats| stats.placeholders.get() == 1);
    let began = clock::now();
    run.drain(0);
    assert_eq!(run.outlets[0].2.is_live.get(), 0);
    run.until(|stats| stats.placeholders.get() == 3);
    let took = clock::now().since(began);
    assert!((Duration::from_millis(1_500)..Duration::from_secs(4)).contains(&took), "{took:?}");
    // Who comes now does not wait a second.
    let (idr_requests, ..) = &run.outlets[0];
    assert!(idr_requests.request(clock::now()));
    run.until(|stats| stats.forced_idr.get() == 1);
    run.drain(0);
    camera.be(Mood::Well);
    run.until(|stats| stats.is_live.get() == 1);
    assert_eq!(run.outlets[0].2.reopened.get(), 1);
    run.end();
}

#[test]
fn no_signal_begins_and_ends_with_an_idr_and_its_parameter_sets() {
    let camera = Camera::new();
    let long = Stream {
        encode: encode::Settings { gop: Duration::from_secs(60), ..encode_settings(30.0) },
        ..stream("main", None, 30.0)
    };
    let mut run = run_raw(&camera, vec![long]);
    run.next(0);
    let idrs = |run: &mut Run, count: usize| {
        let mut seen = 0;
        while seen < count {
            let (is_idr, size) = run.next(0);
            assert_eq!(is_idr, size.is_some());
            seen += usize::from(is_idr);
        }
    };
    camera.be(Mood::Gone);
    idrs(&mut run, 1);
    assert_eq!(run.outlets[0].2.placeholders.get(), 1);
    camera.be(Mood::Well);
    idrs(&mut run, 1);
    run.until(|stats| stats.is_live.get() == 1);
    run.end();
}

#[test]
fn a_driver_that_does_not_answer_costs_a_thread_and_no_session() {
    let camera = Camera::new();
    let mut run = run_raw(&camera, vec![stream("main", None, 30.0)]);
    run.next(0);
    // The first thread hangs; whoever opens the device anew finds it well.
    let hung = Camera { mood: Arc::clone(&camera.mood), ..camera.clone() };
    hung.be(Mood::Hangs);
    run.until(|stats| stats.placeholders.get() >= 1);
    // Both threads hang now: the second is given up on as well.
    let failed = loop {
        run.drain(0);
        match run.notices.try_recv() {
            Ok(Notice::Failed(error)) => break error,
            Ok(Notice::Ready { .. }) | Err(mpsc::TryRecvError::Empty) => pause(20),
            Err(error) => panic!("{error}"),
        }
    };
    assert!(matches!(failed, Error::Stuck), "{failed}");
    hung.be(Mood::Well);
    run.end();
}

#[test]
fn the_sub_stream_is_encoded_once_at_start_and_then_for_viewers_only() {
    let camera = Camera::new();
    let streams = vec![stream("main", None, 30.0), stream("sub", Some((96, 64)), 10.0)];
    let mut run = run_raw(&camera, streams);
    assert_eq!(run.next(1), (true, Some((96, 64))));
    run.until(|stats| stats.encoded.get() >= 30);
    assert_eq!((run.drain(1), run.outlets[1].2.encoded.get()), (0, 1));
    run.outlets[1].1.set(1);
    assert_eq!(run.next(1), (true, Some((96, 64))), "it begins with an IDR");
    let (main, sub) = (run.outlets[0].2.encoded.get(), run.outlets[1].2.encoded.get());
    run.until(|stats| stats.encoded.get() >= main + 60);
    let sub = run.outlets[1].2.encoded.get() - sub;
    assert!((18..=22).contains(&sub), "{sub} for 60 of main at a third of the rate");
    run.outlets[1].1.set(0);
    run.until(|stats| stats.encoded.get() >= main + 65);
    run.drain(1);
    run.until(|stats| stats.encoded.get() >= main + 95);
    assert_eq!(run.drain(1), 0, "nobody watches any more");
    run.end();
}

#[test]
fn another_size_comes_with_its_parameter_sets_and_another_rate_without() {
    let camera = Camera::new();
    let mut run = run_raw(&camera, vec![stream("main", None, 30.0)]);
    assert_eq!(run.next(0), (true, Some((160, 96))));
    *camera.size.lock().unwrap() = (192, 112);
    run.control.is_reopen_wanted.store(true, std::sync::atomic::Ordering::Relaxed);
    let (mut frames, mut size) = (0, Some((160, 96)));
    while size != Some((192, 112)) {
        let (_, said) = run.next(0);
        size = said.or(size);
        frames += 1;
        assert!(frames < 60);
    }
    assert_eq!(run.outlets[0].2.placeholders.get(), 0, "a change is no fault");
    let mut settings = run.settings.clone();
    settings.streams[0].encode.fps = 10.0;
    run.control.changes.put(settings);
    run.until(|stats| stats.left_out.get() > 0);
    run.drain(0);
    let (before, left_out) = (run.outlets[0].2.encoded.get(), run.outlets[0].2.left_out.get());
    run.until(|stats| stats.encoded.get() >= before + 10);
    let left_out = run.outlets[0].2.left_out.get() - left_out;
    assert!((18..=22).contains(&left_out), "{left_out} for 10 at a third of the rate");
    run.end();
}

#[test]
fn a_coded_camera_that_is_lost_is_stood_in_for_at_its_own_size() {
    let camera = Camera::new();
    let mut run = run_coded(&camera);
    assert_eq!(run.next(0), (true, Some((160, 96))));
    assert!(run.outlets[0].0.request(clock::now() + Duration::from_millis(1)));
    camera.be(Mood::Gone);
    run.until(|stats| stats.placeholders.get() == 2);
    run.drain(0);
    assert_eq!(run.next(0), (true, Some((160, 96))));
    camera.be(Mood::Well);
    run.until(|stats| stats.is_live.get() == 1);
    run.until(|stats| stats.encoded.get() >= 40);
    run.end();
}

#[test]
fn whoever_asks_gets_the_next_picture() {
    let camera = Camera::new();
    let mut run = run_raw(&camera, vec![stream("main", None, 30.0)]);
    run.next(0);
    let (tx, rx) = mpsc::channel();
    run.control.pictures.ask(move |still: Arc<Picture>| tx.send(still).unwrap());
    let still = rx.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!((still.frame().width, still.frame().height), (160, 96));
    run.end();
}

#[test]
fn a_camera_that_says_nothing_at_all_is_opened_again_within_two_seconds() {
    let cameras = [Camera::new(), Camera::new()];
    let mut runs = [run_raw(&cameras[0], vec![stream("main", None, 30.0)]), run_coded(&cameras[1])];
    for (run, camera) in runs.iter_mut().zip(&cameras) {
        run.next(0);
        let began = clock::now();
        camera.be(Mood::Silent);
        run.until(|stats| stats.reopened.get() == 1);
        let took = clock::now().since(began);
        // Not before it may be merely slow; with a second for a loaded machine.
        let fair = Duration::from_millis(900)..Duration::from_secs(3);
        assert!(fair.contains(&took), "{took:?}");
        run.until(|stats| stats.is_live.get() == 1);
        run.drain(0);
        run.next(0);
    }
    runs.into_iter().for_each(Run::end);
}

/// What this process has open and running.
fn held() -> (usize, usize) {
    let count = |folder: &str| std::fs::read_dir(folder).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

#[test]
fn a_thousand_losses_and_returns_leave_no_descriptor_and_no_thread_behind() {
    // In a process of its own: other tests open and start things too.
    if std::env::var_os("OCELLUS_TEST_ALONE").is_none() {
        let name = thread::current().name().unwrap().to_owned();
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let alone = command.args(["--exact", &name, "--nocapture"]).env("OCELLUS_TEST_ALONE", "1");
        let output = alone.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let cameras: Vec<Camera> = (0..10).map(|_| Camera::new()).collect();
    let start = |(number, camera)| match number % 2 {
        0 => run_raw(camera, vec![stream("main", None, 30.0)]),
        _ => run_coded(camera),
    };
    let mut runs: Vec<Run> = cameras.iter().enumerate().map(start).collect();
    let mut early = (0, 0);
    for cycle in 1..=100 {
        cameras.iter().for_each(|camera| camera.be(Mood::Flickers));
        runs.iter_mut().for_each(|run| run.until(|stats| stats.reopened.get() >= cycle));
        if cycle == 5 {
            early = held();
        }
    }
    // The last of the threads that opened a source may not have ended yet.
    let is_even = (0..100).any(|_| {
        pause(20);
        held() == early
    });
    assert!(is_even, "{early:?} descriptors and threads, and later {:?}", held());
    for mut run in runs {
        run.drain(0);
        run.next(0);
        assert_eq!(run.outlets[0].2.reopened.get(), 100);
        run.end();
    }
}
