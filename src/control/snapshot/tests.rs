use std::cell::Cell;
use std::future::Future;

use futures::future::join_all;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

use super::*;
use crate::encode::{Encoder as _, OpenH264, Settings};

const WIDTH: u32 = 320;
const HEIGHT: u32 = 240;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap()
}

/// A picture of one grey.
fn bytes(luma: u8) -> [Vec<u8>; 3] {
    let len = (WIDTH * HEIGHT) as usize;
    [vec![luma; len], vec![128; len / 4], vec![128; len / 4]]
}

fn frame(planes: &[Vec<u8>; 3], number: u64) -> Frame<'_> {
    let [luma, cb, cr] = planes;
    Frame {
        format: PixelFormat::I420,
        width: WIDTH,
        height: HEIGHT,
        colour: Colour::default(),
        captured: Instant::from_micros(number * 33_333),
        planes: [
            Plane { bytes: luma, stride: WIDTH as usize },
            Plane { bytes: cb, stride: WIDTH as usize / 2 },
            Plane { bytes: cr, stride: WIDTH as usize / 2 },
        ],
    }
}

/// IDR, then P.
fn units(luma: u8) -> [AccessUnit; 2] {
    let gop = Duration::from_secs(9);
    let colour = Colour::default();
    let settings = Settings { fps: 30.0, bitrate_bps: 4_000_000, gop, colour, threads: 1 };
    let mut encoder = OpenH264::open(&settings).unwrap();
    let planes = bytes(luma);
    [0, 1].map(|number| {
        let mut unit = AccessUnit::default();
        encoder.encode(&frame(&planes, number), false, &mut unit).unwrap();
        assert_eq!(unit.is_idr(), number == 0);
        unit
    })
}

fn copy(unit: &AccessUnit) -> AccessUnit {
    let mut copy = AccessUnit::default();
    copy.copy_from(unit);
    copy
}

/// Gives a still whenever somebody asks, until `work` is done; says how often.
async fn with_producer<S, T>(
    stills: &Stills<S>,
    make: impl Fn() -> S,
    work: impl Future<Output = T>,
) -> (T, usize) {
    let given = Cell::new(0);
    let produce = async {
        loop {
            if stills.is_asked() {
                given.set(given.get() + 1);
                stills.give(make());
            }
            yield_now().await;
        }
    };
    tokio::select! {
        done = work => (done, given.get()),
        () = produce => unreachable!("it never ends"),
    }
}

/// Width, height and the first pixel.
fn decoded(image: &[u8]) -> (usize, usize, u8) {
    let mut decoder = JpegDecoder::new(ZCursor::new(image));
    let pixels = decoder.decode().unwrap();
    let (width, height) = decoder.dimensions().unwrap();
    (width, height, pixels[0])
}

#[test]
fn those_who_ask_at_once_share_one_image() {
    let stills = Arc::<Stills<Picture>>::default();
    let shutter = Shutter::new(Snapshots::Raw(Arc::clone(&stills)));
    let all = join_all((0..WAITING_MAX).map(|_| shutter.snapshot()));
    let picture = || Picture::new(WIDTH, HEIGHT);
    let (images, given) = runtime().block_on(with_producer(&stills, picture, all));
    assert_eq!(given, 1);
    let first = images[0].as_ref().unwrap();
    assert!(images.iter().all(|image| image.as_ref().unwrap().as_ptr() == first.as_ptr()));
    // Luma 16 is black, whatever a picture in full range would make of it.
    assert!(matches!(decoded(first), (320, 240, 0..=3)), "{:?}", decoded(first));
}

#[test]
fn no_more_than_ten_images_a_second_are_made() {
    let stills = Arc::<Stills<Picture>>::default();
    let shutter = Shutter::new(Snapshots::Raw(Arc::clone(&stills)));
    let ask = async {
        let began = clock::now();
        let mut asked = 0;
        while clock::now().since(began) < INTERVAL * 3 {
            shutter.snapshot().await.unwrap();
            asked += 1;
            yield_now().await;
        }
        asked
    };
    let picture = || Picture::new(32, 32);
    let (asked, given) = runtime().block_on(with_producer(&stills, picture, ask));
    assert!((2..=3).contains(&given) && asked > 10, "{given} for {asked}");
}

#[test]
fn a_camera_without_pictures_says_so_in_time_and_too_many_at_once() {
    let shutter = Shutter::new(Snapshots::Raw(Arc::default()));
    let began = clock::now();
    let all = join_all((0..=WAITING_MAX).map(|_| shutter.snapshot()));
    let mut answers = runtime().block_on(all);
    assert_eq!(answers.pop().unwrap(), Err(NoSnapshot::TooMany));
    assert!(answers.iter().all(|answer| *answer == Err(NoSnapshot::NoPicture)), "{answers:?}");
    let took = clock::now().since(began);
    assert!(took >= PATIENCE && took < PATIENCE * 2, "{took:?}");
}

#[test]
fn a_picture_that_came_too_late_is_not_shown_later() {
    let stills = Arc::<Stills<AccessUnit>>::default();
    let shutter = Shutter::new(Snapshots::Coded(Arc::clone(&stills)));
    runtime().block_on(async {
        for _ in 0..3 {
            let asked = timeout(Duration::from_millis(1), shutter.shared()).await;
            assert!(asked.is_err(), "nobody gives one");
        }
        let [late, _] = units(40);
        stills.give(late);
        let fresh = || copy(&units(200)[0]);
        let (image, given) = with_producer(&stills, fresh, shutter.snapshot()).await;
        assert_eq!(given, 1, "three who were gone had asked for one picture");
        // 255 / 219 * (200 - 16)
        let luma = decoded(&image.unwrap()).2;
        assert!((210..=218).contains(&luma), "{luma}");
    });
}

#[test]
fn a_cameras_own_idr_becomes_an_image_and_what_cannot_be_decoded_is_said() {
    let stills = Arc::<Stills<AccessUnit>>::default();
    let shutter = Shutter::new(Snapshots::Coded(Arc::clone(&stills)));
    let [idr, p] = units(126);
    let run = runtime();
    let (image, _) = run.block_on(with_producer(&stills, || copy(&p), shutter.snapshot()));
    assert!(matches!(image, Err(NoSnapshot::NotMade(_))), "{image:?}");
    let (image, _) = run.block_on(with_producer(&stills, || copy(&idr), shutter.snapshot()));
    let (width, height, luma) = decoded(&image.unwrap());
    assert_eq!((width, height), (320, 240));
    assert!((126..=131).contains(&luma), "{luma}");
}
