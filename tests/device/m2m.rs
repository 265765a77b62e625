//! Checks the protocol of a hardware encoder's queues against vicodec: the kernel's virtual codec,
//! which is a stateful encoder in all but its codec (FWHT instead of H.264).
//!
//! vicodec encodes when a raw and a coded buffer are queued, in a kernel thread; its pictures have
//! at least 640x360 samples, and it has no controls but the GOP's length.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use ocellus::encode::m2m::{Counts, M2m, Session, probe, probe_for};
use ocellus::encode::{Error, Settings};
use ocellus::frame::{Colour, Frame, PixelFormat, Plane};
use ocellus::sys::v4l2::codec::CodecFormat;
use ocellus::sys::v4l2::{Buffers, Colorimetry, Device, Direction, FourCc, Queue, nodes};
use ocellus::time::Instant;

use super::{CheckOf, allocations};

type Check = CheckOf<Encoder>;

/// The ways in which vicodec is loaded: what they are called here, the module's parameters, and how
/// many pictures the long check gives it.
pub(super) const SETUPS: [(&str, &str, u64); 2] =
    [("m2m_single", "multiplanar=0", 1_000), ("m2m_multi", "multiplanar=1", 100)];

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("m2m_the_probe_finds_the_encoder_and_says_that_it_makes_no_h264", the_probe),
    ("m2m_every_picture_comes_out_with_the_stamp_it_went_in_with", every_picture),
    ("m2m_nothing_is_allocated_per_picture", no_allocation),
    ("m2m_a_key_frame_comes_when_it_is_asked_for", key_frames),
    ("m2m_a_drain_brings_everything_out_and_the_stream_goes_on_after_it", drained),
    ("m2m_a_drain_of_nothing_is_complete_at_once", drained_empty),
    ("m2m_a_reset_with_pictures_in_flight_loses_and_counts_only_these", reset),
    ("m2m_more_pictures_than_buffers_are_left_out_and_counted", exhausted),
    ("m2m_an_encoder_that_keeps_a_picture_too_long_is_stalled", stalled),
    ("m2m_a_buffer_that_the_kernel_refuses_stays_ours", refused),
    ("m2m_a_cameras_own_buffers_are_encoded_without_a_copy", shared),
    ("m2m_closing_under_load_leaves_nothing_behind", closed),
    // The last: it takes the device away for good.
    ("m2m_an_encoder_that_is_taken_away_is_gone", gone),
];

/// One vicodec.
pub(super) struct Encoder {
    path: PathBuf,
    pictures: u64,
}

impl Encoder {
    /// The encoder among vicodec's nodes.
    pub(super) fn find(pictures: u64) -> Self {
        let nodes = probe_for(FWHT);
        assert_eq!(nodes.len(), 1, "{nodes:?}");
        Self { path: nodes[0].path.clone(), pictures }
    }

    fn open(&self) -> Session {
        Session::open(&self.path, FWHT, &SETTINGS, WIDTH, HEIGHT).unwrap()
    }
}

/// The pictures of a test: a gradient that moves, so that no picture is like the one before.
struct Pictures {
    luma: Vec<u8>,
    chroma: Vec<u8>,
    number: u64,
}

impl Pictures {
    fn new() -> Self {
        let samples = |count: u32| (0..count).map(|at| u8::try_from((at / 7) % 200).unwrap());
        let area = WIDTH * HEIGHT;
        Self {
            luma: samples(area + 4 * STEP).collect(),
            chroma: samples(area / 4).collect(),
            number: 0,
        }
    }

    /// Gives the next picture; answers its capture time, if it was taken.
    fn give(&mut self, session: &mut Session) -> Option<Instant> {
        self.number += 1;
        self.give_at(session, self.at()).unwrap()
    }

    fn give_at(&self, session: &mut Session, at: Instant) -> Result<Option<Instant>, Error> {
        let shift = usize::try_from(self.number % 5 * u64::from(STEP)).unwrap();
        let half = Plane { bytes: &self.chroma, stride: WIDTH as usize / 2 };
        let frame = Frame {
            format: PixelFormat::I420,
            width: WIDTH,
            height: HEIGHT,
            colour: Colour::default(),
            captured: at,
            planes: [Plane { bytes: &self.luma[shift..], stride: WIDTH as usize }, half, half],
        };
        session.give(&frame).map(|is_given| is_given.then_some(at))
    }

    const fn at(&self) -> Instant {
        Instant::from_micros(1_000_000 + self.number * 33_333)
    }
}

/// The next coded picture: its capture time, and whether it is a key frame.
fn take(session: &mut Session, patience: Duration) -> Option<(Instant, bool)> {
    loop {
        let coded = session.next(patience).unwrap()?;
        assert!(!coded.is_damaged);
        let bytes = session.bytes(&coded);
        let is_picture = !bytes.is_empty();
        let mut is_key = false;
        if is_picture {
            assert!(bytes.starts_with(&MAGIC), "{:x?}", &bytes[..8]);
            let field = |at: usize| u32::from_be_bytes(*bytes[at..].first_chunk().unwrap());
            // struct fwht_cframe_hdr: magic, version, width, height, flags, four of colour, size.
            assert_eq!((field(12), field(16)), (WIDTH, HEIGHT));
            assert_eq!(bytes.len(), HEADER_LEN + field(40) as usize);
            is_key = field(20) & FLAG_I_FRAME != 0;
        }
        if let Some(captured) = session.release(coded, is_picture).unwrap() {
            return Some((captured, is_key));
        }
        assert!(!is_picture, "a picture that nobody gave");
    }
}

/// Gives a picture and takes it; answers whether it is a key frame.
fn encode(session: &mut Session, pictures: &mut Pictures) -> bool {
    let given = pictures.give(session).expect("a buffer is free");
    let (captured, is_key) = take(session, LONG).expect("a picture comes out");
    assert_eq!(captured, given);
    is_key
}

fn the_probe(encoder: &Encoder) {
    let nodes = probe_for(FWHT);
    println!("  {}", serde_json::to_string(&nodes[0]).unwrap());
    assert_eq!((nodes[0].driver.as_str(), &nodes[0].problem), ("vicodec", &None));
    assert!(nodes[0].takes.iter().any(|format| format == "YU12"));
    assert_eq!(probe(), [], "no node makes H.264");
    let refused = M2m::open(&encoder.path, &SETTINGS, WIDTH, HEIGHT).unwrap_err();
    println!("  {refused}");
    assert!(matches!(refused, Error::Unsuitable(_)), "{refused:?}");
    let session = encoder.open();
    println!("  no control for: {}", session.missing_controls().join(", "));
    assert!(session.missing_controls().contains(&"bitrate"));
    assert!(!session.missing_controls().contains(&"GOP"));
}

fn every_picture(encoder: &Encoder) {
    let (mut session, mut pictures) = (encoder.open(), Pictures::new());
    let began = ocellus::sys::clock::now();
    let keys: Vec<u64> =
        (0..encoder.pictures).filter(|_| encode(&mut session, &mut pictures)).collect();
    let took = ocellus::sys::clock::now().since(began);
    let counts = session.counts();
    println!(
        "  {counts:?}, {} key frames, {} us each",
        keys.len(),
        took.as_micros() / u128::from(encoder.pictures)
    );
    let all = encoder.pictures;
    assert_eq!(counts, Counts { given: all, coded: all, ..Counts::default() });
    let expected: Vec<u64> = (0..all).step_by(GOP).collect();
    assert_eq!(keys, expected, "the GOP's control is obeyed");
}

fn no_allocation(encoder: &Encoder) {
    let (mut session, mut pictures) = (encoder.open(), Pictures::new());
    encode(&mut session, &mut pictures);
    let before = allocations::count();
    for _ in 0..20 {
        encode(&mut session, &mut pictures);
    }
    assert_eq!(allocations::count() - before, 0);
}

fn key_frames(encoder: &Encoder) {
    let (mut session, mut pictures) = (encoder.open(), Pictures::new());
    for asked in [false, false, true, false, true, true, false] {
        if asked {
            session.force_key_frame().unwrap();
        }
        let is_first = session.counts().given == 0;
        assert_eq!(encode(&mut session, &mut pictures), asked || is_first);
    }
    // With pictures in flight nothing is lost for it.
    pictures.give(&mut session);
    pictures.give(&mut session);
    session.force_key_frame().unwrap();
    assert_eq!(pictures.give(&mut session), None, "the drain comes first");
    assert!(take(&mut session, LONG).is_some() && take(&mut session, LONG).is_some());
    assert_eq!(take(&mut session, LONG), None);
    assert!(session.is_drained());
    session.reset().unwrap();
    assert!(encode(&mut session, &mut pictures));
    assert_eq!((session.counts().lost, session.counts().skipped), (0, 1));
}

fn drained(encoder: &Encoder) {
    let (mut session, mut pictures) = (encoder.open(), Pictures::new());
    encode(&mut session, &mut pictures);
    for _ in 0..3 {
        let given: Vec<_> = (0..3).map(|_| pictures.give(&mut session).unwrap()).collect();
        session.drain().unwrap();
        session.drain().unwrap();
        assert_eq!(pictures.give(&mut session), None, "nothing is taken during a drain");
        let out: Vec<_> =
            std::iter::from_fn(|| take(&mut session, LONG)).map(|(captured, _)| captured).collect();
        assert_eq!(out, given);
        assert!(session.is_drained());
        assert_eq!(pictures.give(&mut session), None, "nor after it");
        session.resume().unwrap();
        // This vicodec cannot go on without a new start, so it may be a key frame or not.
        encode(&mut session, &mut pictures);
    }
    assert_eq!(session.counts().lost, 0);
    println!("  {:?}", session.counts());
}

fn drained_empty(encoder: &Encoder) {
    let (mut session, mut pictures) = (encoder.open(), Pictures::new());
    for _ in 0..2 {
        session.drain().unwrap();
        assert_eq!(take(&mut session, LONG), None);
        assert!(session.is_drained());
        session.resume().unwrap();
    }
    assert!(encode(&mut session, &mut pictures));
}

fn reset(encoder: &Encoder) {
    let (mut session, mut pictures) = (encoder.open(), Pictures::new());
    for round in 0..5 {
        assert!(encode(&mut session, &mut pictures), "a stream begins with a key frame");
        assert!(!encode(&mut session, &mut pictures));
        for _ in 0..round {
            pictures.give(&mut session).unwrap();
        }
        session.reset().unwrap();
        assert_eq!(session.in_flight(), 0);
    }
    // Also in the middle of a drain.
    pictures.give(&mut session).unwrap();
    session.drain().unwrap();
    session.reset().unwrap();
    assert!(encode(&mut session, &mut pictures));
    let Counts { given, coded, lost, unknown, .. } = session.counts();
    println!("  {given} given, {coded} coded, {lost} lost");
    assert_eq!((given, coded, lost, unknown), (11 + 11, 11, 11, 0));
}

fn exhausted(encoder: &Encoder) {
    let (mut session, mut pictures) = (encoder.open(), Pictures::new());
    let mut given = Vec::new();
    // Nobody takes anything: the coded buffers fill up, then the raw ones stay where they are.
    for _ in 0..30 {
        given.extend(pictures.give(&mut session));
    }
    println!("  {} of 30 in flight, {} raw buffers", given.len(), session.capacity());
    assert!((session.capacity()..20).contains(&given.len()));
    assert_eq!(session.counts().skipped, 30 - u64::try_from(given.len()).unwrap());
    for captured in given {
        assert_eq!(take(&mut session, LONG).map(|(captured, _)| captured), Some(captured));
    }
    assert_eq!(take(&mut session, LONG), None, "nothing is waited for");
    encode(&mut session, &mut pictures);
}

fn stalled(encoder: &Encoder) {
    let (mut session, mut pictures) = (encoder.open(), Pictures::new());
    pictures.give(&mut session).unwrap();
    let oldest = pictures.at();
    let later = |millis| oldest + Duration::from_millis(millis);
    // A gap is no stall: some drivers keep pictures back until more have come.
    for millis in 1_000..1_005 {
        pictures.give_at(&mut session, later(millis)).unwrap();
    }
    let stalled = pictures.give_at(&mut session, later(1_005)).unwrap_err();
    println!("  {stalled}");
    assert!(matches!(stalled, Error::Stalled(waited) if waited == Duration::from_millis(1_004)));
    session.reset().unwrap();
    pictures.number = 100;
    encode(&mut session, &mut pictures);
}

fn refused(encoder: &Encoder) {
    let device = Device::open(&encoder.path).unwrap();
    let colorimetry = Colorimetry::default();
    let format = CodecFormat { fourcc: FWHT, width: WIDTH, height: HEIGHT, size: 0, colorimetry };
    device.set_codec_format(Direction::Capture, &format).unwrap();
    let format = CodecFormat { fourcc: FourCc(*b"YU12"), ..format };
    let size = device.set_codec_format(Direction::Output, &format).unwrap().memory()[0].size;
    let mut raw = Buffers::allocate(&device, Direction::Output, 2).unwrap();
    let len = u32::try_from(raw.plane_mut(0, 0).len()).unwrap();
    assert!(len >= size);
    let error = raw.queue(0, Instant::ZERO, &[len + 1]).unwrap_err();
    println!("  {error}");
    assert_eq!((error.call, error.errno), ("VIDIOC_QBUF", Errno::EINVAL));
    assert_eq!(raw.free(), Some(0));
    raw.queue(0, Instant::ZERO, &[size]).unwrap();
    assert_eq!((raw.free(), raw.plane_mut(0, 0).len()), (Some(1), 0), "it is the driver's now");
    assert_eq!(raw.queue(0, Instant::ZERO, &[size]).unwrap_err().errno, Errno::EINVAL);
    raw.start().unwrap();
    raw.stop().unwrap();
    assert_eq!(raw.free(), Some(0), "a stop gives everything back");
}

fn shared(encoder: &Encoder) {
    let camera = nodes().into_iter().map(|path| Device::open(&path).unwrap());
    let camera = camera.into_iter().find(|node| node.info().driver == "vivid").unwrap();
    let yu12 = FourCc(*b"YU12");
    // Of 640x360 vicodec wants eight lines more than vivid has.
    let (width, height) = (640, 480);
    let given = camera.set_format(yu12, width, height).unwrap();
    assert_eq!((given.width, given.height), (width, height));
    let pictures = Queue::start(&camera, 4).unwrap();
    let count = u32::try_from(pictures.len()).unwrap();
    let exported: Vec<_> = (0..count).map(|index| pictures.export(index, 0).unwrap()).collect();

    let device = Device::open(&encoder.path).unwrap();
    let colorimetry = Colorimetry::default();
    let format = CodecFormat { fourcc: FWHT, width, height, size: 0, colorimetry };
    device.set_codec_format(Direction::Capture, &format).unwrap();
    let format = CodecFormat { fourcc: yu12, ..format };
    device.set_codec_format(Direction::Output, &format).unwrap();
    let mut raw = Buffers::for_shared(&device, Direction::Output, count).unwrap();
    let mut coded = Buffers::allocate(&device, Direction::Capture, 2).unwrap();
    while let Some(index) = coded.free() {
        coded.queue(index, Instant::ZERO, &[]).unwrap();
    }
    raw.start().unwrap();
    coded.start().unwrap();
    let mut lens = Vec::new();
    for _ in 0..10 {
        let lease = loop {
            camera.wait_filled(LONG).unwrap();
            if let Some(lease) = pictures.dequeue().unwrap() {
                break lease;
            }
        };
        let index = usize::try_from(lease.index()).unwrap();
        let used = u32::try_from(lease.plane(0).len()).unwrap();
        let captured = lease.captured().unwrap();
        raw.queue_shared(index, captured, &[(exported[index].as_fd(), used)]).unwrap();
        let picture = loop {
            device.wait_filled(LONG).unwrap();
            if let Some(picture) = coded.dequeue().unwrap() {
                break picture;
            }
        };
        assert_eq!((picture.captured, picture.is_damaged), (Some(captured), false));
        assert!(coded.bytes(&picture).starts_with(&MAGIC));
        lens.push(coded.bytes(&picture).len());
        coded.queue(picture.index(), Instant::ZERO, &[]).unwrap();
        assert_eq!(raw.dequeue().unwrap().map(|done| done.index()), Some(index));
    }
    println!(
        "  {} pictures of {} to {} bytes",
        lens.len(),
        lens.iter().min().unwrap(),
        lens.iter().max().unwrap()
    );
}

fn closed(encoder: &Encoder) {
    let before = open_files();
    for count in 0..20 {
        let (mut session, mut pictures) = (encoder.open(), Pictures::new());
        for _ in 0..count {
            pictures.give(&mut session);
        }
        if count % 3 == 0 {
            session.drain().unwrap();
        }
    }
    assert_eq!(open_files(), before);
    encode(&mut encoder.open(), &mut Pictures::new());
}

fn gone(encoder: &Encoder) {
    let (mut session, mut pictures) = (encoder.open(), Pictures::new());
    encode(&mut session, &mut pictures);
    pictures.give(&mut session).unwrap();
    fs::write("/sys/bus/platform/drivers/vicodec/unbind", "vicodec.0").unwrap();
    pictures.number += 1;
    let error = pictures.give_at(&mut session, pictures.at()).unwrap_err();
    println!("  {error}");
    assert!(matches!(error, Error::Gone), "{error:?}");
    assert!(matches!(session.next(LONG).unwrap_err(), Error::Gone));
    drop(session);
    let again = Session::open(&encoder.path, FWHT, &SETTINGS, WIDTH, HEIGHT).unwrap_err();
    assert!(matches!(again, Error::Gone), "{again:?}");
}

fn open_files() -> usize {
    fs::read_dir(Path::new("/proc/self/fd")).unwrap().count()
}

const FWHT: FourCc = FourCc(*b"FWHT");
const MAGIC: [u8; 8] = [0x4f, 0x4f, 0x4f, 0x4f, 0xff, 0xff, 0xff, 0xff];
const HEADER_LEN: usize = 44;
/// `V4L2_FWHT_FL_I_FRAME`.
const FLAG_I_FRAME: u32 = 0x400;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;
/// Samples from one picture to the next.
const STEP: u32 = 64;
const GOP: usize = 12;
const SETTINGS: Settings = Settings {
    fps: 30.0,
    bitrate_bps: 1_000_000,
    gop: Duration::from_millis(400),
    colour: Colour { matrix: ocellus::frame::Matrix::Bt601, full_range: false },
    threads: 1,
};
/// The machine is emulated, and others may be at work on the one beneath.
const LONG: Duration = Duration::from_secs(10);
