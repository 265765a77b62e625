//! Synthetic scenes: what must be found, and what must not be taken for motion.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "small numbers; shares are printed for whoever tunes the detector"
)]

use super::*;
use crate::frame::{Colour, Plane};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ground {
    Flat,
    Gradient,
    Texture,
}
const GROUNDS: [Ground; 3] = [Ground::Flat, Ground::Gradient, Ground::Texture];

/// A picture's size and rate.
#[derive(Clone, Copy, Debug)]
struct Format {
    width: usize,
    height: usize,
    rate: u64,
}
const HD: Format = Format { width: 1280, height: 720, rate: 30 };
const QVGA: Format = Format { width: 320, height: 240, rate: 10 };
const FORMATS: [Format; 2] = [HD, QVGA];

/// A square thing: its left upper corner, its side, and how much brighter it is than the ground.
#[derive(Clone, Copy, Debug)]
struct Thing {
    x: isize,
    y: isize,
    side: usize,
    contrast: i32,
}

/// A camera before a still ground, and the detector that looks through it.
struct Scene {
    format: Format,
    ground: Vec<u8>,
    noise: Vec<i32>,
    random: Random,
    luma: Vec<u8>,
    number: u64,
    detector: Detector,
}

struct Random(u32);

impl Random {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        (self.0 >> 8) as usize
    }

    /// Of a normal distribution, near enough: the sum of twelve uniform ones.
    fn normal(&mut self, sigma: f64) -> i32 {
        let sum: f64 = (0..12).map(|_| self.next() as f64 / f64::from(1 << 24)).sum();
        ((sum - 6.0) * sigma).round() as i32
    }
}

fn whole_picture(sensitivity: u8) -> Settings {
    let area = Area { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
    let zones = vec![Zone { name: "all".into(), area, sensitivity }];
    Settings { zones, min_duration: Duration::ZERO, cool_down: Duration::from_secs(1) }
}

impl Scene {
    fn new(format: Format, ground: Ground, sigma: f64, settings: Settings) -> Self {
        let mut random = Random(0x2545_f491);
        let blocks: Vec<usize> = (0..4096).map(|_| random.next() % 120).collect();
        let luma_at = |x: usize, y: usize| match ground {
            Ground::Flat => 100,
            Ground::Gradient => 40 + 130 * (x + y) / (format.width + format.height),
            // Patches of a fortieth of the height, each with a fine pattern.
            Ground::Texture => {
                let patch = format.height / 40;
                40 + blocks[(x / patch + 61 * (y / patch)) % 4096] + 20 * ((x / 2 + y / 2) % 2)
            }
        };
        let places =
            (0..format.width * format.height).map(|at| (at % format.width, at / format.width));
        let ground: Vec<u8> = places.map(|(x, y)| luma_at(x, y) as u8).collect();
        let noise = (0..1 << 16).map(|_| random.normal(sigma)).collect();
        let detector = Detector::new(settings);
        Self { format, luma: ground.clone(), ground, noise, random, number: 0, detector }
    }

    /// Shows the next picture: the ground, a thing before it, under a light, with noise.
    fn show(&mut self, thing: Option<Thing>, light: &dyn Fn(f64, f64) -> f64) {
        let Format { width, height, .. } = self.format;
        let halves = [0.0, 0.5].map(|x| {
            [0; 256].map({
                let mut luma = -1.0;
                move |_: i32| {
                    luma += 1.0;
                    light(x, luma).clamp(0.0, 255.0) as u8
                }
            })
        });
        for (y, (row, ground)) in
            self.luma.chunks_mut(width).zip(self.ground.chunks(width)).enumerate()
        {
            row.copy_from_slice(ground);
            if let Some(thing) = thing
                && (thing.y..thing.y + thing.side as isize).contains(&(y as isize))
            {
                let (x, middle) =
                    (thing.x + thing.side as isize / 2, thing.y + thing.side as isize / 2);
                let x = x.clamp(0, width as isize - 1) as usize;
                let middle = middle.clamp(0, height as isize - 1) as usize;
                let luma = i32::from(self.ground[middle * width + x]) + thing.contrast;
                let left = thing.x.clamp(0, width as isize) as usize;
                let right = (thing.x + thing.side as isize).clamp(0, width as isize) as usize;
                row[left..right].fill(luma.clamp(0, 255) as u8);
            }
            let start = self.random.next() % (self.noise.len() - width);
            let noise = &self.noise[start..start + width];
            for (half, (row, noise)) in
                row.chunks_mut(width / 2).zip(noise.chunks(width / 2)).enumerate()
            {
                for (luma, noise) in row.iter_mut().zip(noise) {
                    *luma =
                        (i32::from(halves[half][usize::from(*luma)]) + noise).clamp(0, 255) as u8;
                }
            }
        }
        self.number += 1;
        let frame = Frame {
            format: PixelFormat::I420,
            width: width as u32,
            height: height as u32,
            colour: Colour::default(),
            captured: Instant::from_micros(self.number * 1_000_000 / self.format.rate),
            planes: [
                Plane { bytes: &self.luma, stride: width },
                Plane::default(),
                Plane::default(),
            ],
        };
        self.detector.look(&frame);
    }

    /// Shows pictures until motion begins or ends; how many it took.
    fn until(
        &mut self,
        is_motion: bool,
        count_max: u64,
        thing_at: impl Fn(u64) -> Option<Thing>,
    ) -> Option<u64> {
        (1..=count_max).find(|count| {
            self.show(thing_at(*count), &steady);
            self.detector.poll_event().is_some_and(|event| event.is_motion == is_motion)
        })
    }

    /// How many of `count` pictures of nothing that moves are taken for motion.
    fn false_alarms(&mut self, count: u64, light: impl Fn(u64, f64, f64) -> f64) -> u64 {
        let number = |number: u64| {
            self.show(None, &|x, luma| light(number, x, luma));
            u64::from(self.detector.level(0) > 0)
        };
        (0..count).map(number).sum()
    }
}

fn steady(_x: f64, luma: f64) -> f64 {
    luma
}

/// A thing at the start of its way, and how far it goes from picture to picture.
fn things(format: Format) -> Vec<(Thing, isize, isize)> {
    let mut things = Vec::new();
    let (width, height) = (format.width as isize, format.height as isize);
    for (index, percent) in [5, 10, 25, 50].into_iter().enumerate() {
        for (turn, contrast) in [25, -25, 80].into_iter().enumerate() {
            // Anywhere with regard to the grid of cells.
            let (x, y) = (width / 5 + 7 * index as isize, height / 7 + 5 * turn as isize);
            let thing = Thing { x, y, side: format.height * percent / 100, contrast };
            let slow = if height > 300 { 2 } else { 1 };
            things.extend([(thing, slow, 0), (thing, 0, slow), (thing, width / 40, height / 60)]);
        }
    }
    things
}

fn moved(thing: Thing, (x, y): (isize, isize), count: u64) -> Thing {
    let count = count as isize;
    Thing { x: thing.x + x * count, y: thing.y + y * count, ..thing }
}

/// Shows one of `every` scenes with things that appear or begin to move.
fn find_moving_things(format: Format, every: usize) {
    let (mut scenes, mut missed, mut worst) = (0, Vec::new(), 0);
    let mut index = 0;
    for ground in GROUNDS {
        for sigma in [0.0, 3.0, 6.0] {
            for (thing, x, y) in things(format) {
                for is_there in [false, true] {
                    index += 1;
                    if index % every != 0 {
                        continue;
                    }
                    scenes += 1;
                    let mut scene = Scene::new(format, ground, sigma, whole_picture(50));
                    let before = is_there.then_some(thing);
                    assert_eq!(scene.until(true, 15, |_| before), None, "{thing:?} rests");
                    let found = scene.until(true, 30, |count| Some(moved(thing, (x, y), count)));
                    worst = worst.max(found.unwrap_or(99));
                    if found.is_none_or(|count| count > 3) {
                        missed.push((ground, sigma, thing, x, y, is_there, found));
                    }
                }
            }
        }
    }
    println!(
        "{format:?}: {} of {scenes} found within 3 pictures, worst {worst}",
        scenes - missed.len()
    );
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn a_moving_box_is_found_within_three_pictures_at_1280x720() {
    find_moving_things(HD, 13);
}

#[test]
fn a_moving_box_is_found_within_three_pictures_at_320x240() {
    find_moving_things(QVGA, 1);
}

#[test]
fn motion_ends_after_the_box_stops_or_leaves() {
    for format in FORMATS {
        for (ground, sigma) in
            [(Ground::Flat, 0.0), (Ground::Gradient, 6.0), (Ground::Texture, 4.0)]
        {
            for leaves in [false, true] {
                let mut scene = Scene::new(format, ground, sigma, whole_picture(50));
                assert_eq!(scene.until(true, format.rate, |_| None), None);
                let (thing, step, _) = things(format)[9];
                let at = |count| Some(moved(thing, (2 * step, 0), count));
                assert!(scene.until(true, 3, at).is_some(), "{format:?} {ground:?}");
                let end = scene.until(false, format.rate, |count| at(count + 3));
                assert_eq!(end, None, "it still moves: {format:?} {ground:?}");
                let rests = if leaves { None } else { at(3 + format.rate) };
                let end = scene.until(false, 4 * format.rate, |_| rests).expect("an end");
                let seconds = end as f64 / format.rate as f64;
                println!("{format:?} {ground:?} leaves: {leaves}, ended after {seconds} s");
                assert!((1.0..=2.5).contains(&seconds), "{format:?} {ground:?} {seconds} s");
            }
        }
    }
}

/// Nothing but noise for a second, then `count` pictures under a light; the false alarms.
fn false_alarms(
    name: &str,
    format: Format,
    (ground, sigma): (Ground, f64),
    count: u64,
    light: impl Fn(u64, f64, f64) -> f64,
) -> u64 {
    let mut scene = Scene::new(format, ground, sigma, whole_picture(50));
    let before = scene.false_alarms(format.rate, |_, x, luma| light(0, x, luma));
    let during = scene.false_alarms(count, &light);
    let after = scene.false_alarms(format.rate, |_, x, luma| light(count, x, luma));
    let (width, height) = (format.width, format.height);
    println!(
        "{name} {width}x{height} {ground:?} sigma {sigma}: {before} + {during} + {after} \
         false of {}",
        count + 2 * format.rate
    );
    before + during + after
}

#[test]
fn noise_is_not_motion() {
    let mut false_count = 0;
    for (format, sigmas) in [(HD, [6.0, 10.0]), (QVGA, [3.0, 10.0])] {
        for (ground, sigma) in GROUNDS.into_iter().zip([sigmas[0], sigmas[1], sigmas[1]]) {
            false_count += false_alarms("noise", format, (ground, sigma), 330, |_, _, luma| luma);
        }
    }
    assert_eq!(false_count, 0);
}

#[test]
fn light_that_changes_from_black_to_white_in_ten_seconds_is_not_motion() {
    let mut false_count = 0;
    for format in FORMATS {
        let count = 10 * format.rate;
        let share = |number: u64| number as f64 / count as f64;
        for (ground, sigma) in GROUNDS.into_iter().zip([0.0, 2.0, 5.0]) {
            // The first half turns the light up, the second raises what is dark until all is white.
            let rise = |share: f64, luma: f64| {
                luma * (2.0 * share).min(1.0) + 255.0 * (2.0 * share - 1.0).max(0.0)
            };
            let dawn = |number, _, luma| rise(share(number), luma);
            let dusk = |number, _, luma| (1.0 - share(number)) * luma;
            let gain = |number, _, luma| 3.0 * share(number) * luma;
            let scene = (ground, sigma);
            let is_small = format.width < HD.width;
            if is_small || ground == Ground::Flat {
                false_count += false_alarms("dusk", format, scene, count, dusk);
            }
            if is_small || ground == Ground::Texture {
                false_count += false_alarms("dawn", format, scene, count, dawn);
            }
            if is_small || ground == Ground::Gradient {
                false_count += false_alarms("gain", format, scene, count, gain);
            }
        }
    }
    assert_eq!(false_count, 0);
}

/// Turns the light of a second of each scene off and on, at once and within a sixth of a second.
fn switch_light(format: Format, every: usize) -> u64 {
    /// The light when off, as gain and offset: ordinary, clipped at white, slight, black, a haze.
    const OFF: [(f64, f64); 5] = [(0.3, 0.0), (2.5, 40.0), (0.8, 0.0), (0.0, 0.0), (1.0, 30.0)];
    let mut scenes = Vec::new();
    for scene in GROUNDS.into_iter().zip([0.0, 4.0, 6.0]) {
        for off in OFF {
            for pictures in [1, (format.rate / 6).max(2)] {
                scenes.extend([(scene, off, pictures, false), (scene, off, pictures, true)]);
            }
        }
    }
    let mut false_count = 0;
    for (scene, (gain, offset), pictures, is_window) in scenes.into_iter().step_by(every) {
        let half = format.rate / 2;
        let light = |number: u64, x: f64, luma: f64| {
            let past = number % (2 * format.rate);
            let off = past.saturating_sub(half).min(pictures) as f64;
            let on = past.saturating_sub(3 * half).min(pictures) as f64;
            let share = (off - on) / pictures as f64;
            let is_lit = x > 0.0 || !is_window;
            if is_lit { luma + (luma * gain + offset - luma) * share } else { luma }
        };
        let name = format!("light * {gain} + {offset} in {pictures}, window: {is_window},");
        false_count += false_alarms(&name, format, scene, 2 * format.rate, light);
    }
    false_count
}

#[test]
fn a_light_switch_is_not_motion() {
    assert_eq!((switch_light(HD, 7), switch_light(QVGA, 1)), (0, 0));
}

#[test]
fn motion_is_reported_in_the_zones_it_is_in() {
    let zone = |x: f64, y: f64| Zone {
        name: format!("{x} {y}"),
        area: Area { x, y, width: 0.5, height: 0.5 },
        sensitivity: 50,
    };
    let zones = vec![zone(0.0, 0.0), zone(0.5, 0.0), zone(0.0, 0.5), zone(0.5, 0.5)];
    for format in FORMATS {
        for (index, (x, y)) in [(0, 0), (1, 0), (0, 1), (1, 1)].into_iter().enumerate() {
            let settings = Settings { zones: zones.clone(), ..whole_picture(50) };
            let mut scene = Scene::new(format, Ground::Texture, 4.0, settings);
            assert_eq!(scene.until(true, 10, |_| None), None);
            let (width, height) = (format.width as isize, format.height as isize);
            let (x, y) = (width / 8 + x * width / 2, height / 8 + y * height / 2);
            let thing = Thing { x, y, side: format.height / 10, contrast: 60 };
            for count in 0..10 {
                scene.show(Some(moved(thing, (width / 80, 0), count)), &steady);
                for zone in 0..4 {
                    assert_eq!(scene.detector.level(zone) > 0, zone == index, "{format:?} {zone}");
                }
            }
            let event = scene.detector.poll_event().expect("an event");
            assert_eq!((event.zone, event.is_motion), (index, true));
            assert_eq!(scene.detector.poll_event(), None);
            assert!(scene.detector.is_moving(index) && !scene.detector.is_moving(9));
        }
    }
}

#[test]
fn a_higher_sensitivity_finds_less_contrast_and_never_more_is_needed() {
    let mut needed_before = i32::MAX;
    for sensitivity in [1, 5, 10, 25, 50, 75, 100] {
        let is_found = |contrast: &i32| {
            let mut scene = Scene::new(QVGA, Ground::Flat, 1.0, whole_picture(sensitivity));
            assert_eq!(scene.until(true, 10, |_| None), None);
            let thing = Thing { x: 101, y: 53, side: 24, contrast: *contrast };
            scene.until(true, 3, |count| Some(moved(thing, (3, 1), count))).is_some()
        };
        let needed = (1..=150).find(is_found).expect("a contrast that is found");
        println!("sensitivity {sensitivity}: found from a contrast of {needed} on");
        assert!(needed <= needed_before, "{sensitivity}: {needed} after {needed_before}");
        needed_before = needed;
    }
    assert!(needed_before <= 5, "the highest sensitivity needs {needed_before} steps");
}

#[test]
fn motion_must_last_and_pauses_shorter_than_the_cool_down_do_not_end_it() {
    let settings = Settings {
        min_duration: Duration::from_secs(1),
        cool_down: Duration::from_secs(3),
        ..whole_picture(50)
    };
    let mut scene = Scene::new(QVGA, Ground::Flat, 2.0, settings);
    let thing = Thing { x: 20, y: 40, side: 24, contrast: 50 };
    let passes = |count: u64| Some(moved(thing, (4, 0), count));
    assert_eq!(scene.until(true, 10, |_| None), None);
    assert_eq!(scene.until(true, 5, passes), None, "it was there for half a second");
    assert_eq!(scene.until(true, 20, |_| None), None);
    assert_eq!(scene.until(true, 40, passes), Some(11), "it was there for a second");
    assert_eq!(scene.until(false, 20, |_| None), None, "a pause of two seconds");
    assert_eq!(scene.until(false, 10, passes), None);
    let end = scene.until(false, 60, |_| None).expect("an end");
    assert!((30..=37).contains(&end), "ended after {end} pictures");
}

#[test]
fn a_first_picture_and_another_size_only_teach() {
    let mut scene = Scene::new(QVGA, Ground::Texture, 2.0, whole_picture(100));
    assert_eq!(scene.until(true, 1, |_| None), None);
    let mut other = Scene::new(HD, Ground::Gradient, 2.0, whole_picture(100));
    std::mem::swap(&mut other.detector, &mut scene.detector);
    assert_eq!(other.until(true, 5, |_| None), None);
    std::mem::swap(&mut other.detector, &mut scene.detector);
    assert_eq!(scene.until(true, 5, |_| None), None);
}

#[test]
fn planes_of_any_shape_are_looked_at_as_far_as_they_go() {
    let mut detector = Detector::new(whole_picture(50));
    let bytes = vec![90; 6_000];
    for (width, height) in [(2, 2), (4, 4), (8, 2), (32, 32), (64, 48), (3840, 2160)] {
        for stride in [0, 1, 4, 31, 32, 64, 5_000, usize::MAX / 256] {
            for len in [0, 1, 63, 1_000, 6_000] {
                let plane = Plane { bytes: &bytes[..len], stride };
                let frame = Frame {
                    format: PixelFormat::I420,
                    width,
                    height,
                    colour: Colour::default(),
                    captured: Instant::ZERO,
                    planes: [plane; 3],
                };
                detector.look(&frame);
                assert!(detector.level(0) <= 100);
            }
        }
    }
}

#[test]
fn areas_become_the_cells_whose_centres_lie_in_them() {
    assert_eq!(inside(0.0, 1.0, 80), 0..80);
    assert_eq!(inside(0.25, 0.5, 80), 20..60);
    assert_eq!(inside(-1.0, 9.0, 80), 0..80);
    assert_eq!(inside(0.99, 0.02, 10), 10..10);
    for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -3.0] {
        assert!(inside(odd, 0.5, 80).end <= 80 && inside(0.5, odd, 80).end <= 80);
    }
}
