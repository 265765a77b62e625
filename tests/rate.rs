//! The bitrate of whole streams, over every ten seconds of them.
//!
//! Time is that of the pictures: they are encoded as fast as the machine can.
#![allow(clippy::unwrap_used, reason = "tests may fail")]
#![allow(clippy::print_stdout, reason = "the figures are what a reader wants")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times and sizes are small and positive"
)]

use std::time::Duration;

use ocellus::capture::{Pattern, RawSource as _};
use ocellus::encode::{Encoded, Encoder as _, OpenH264, Settings};
use ocellus::frame::{Colour, Frame, PixelFormat, Plane};
use ocellus::h264::AccessUnit;
use ocellus::time::Instant;

/// What the camera sees.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sight {
    Pattern,
    /// Every sample on its own, this far around the middle.
    Noise(u8),
    /// A texture that drifts, under a little noise: leaves in the wind.
    Leaves,
}

struct Camera {
    width: usize,
    height: usize,
    pattern: Pattern,
    texture: Vec<u8>,
    samples: Vec<u8>,
    random: u64,
}

impl Camera {
    fn new(width: u32, height: u32, fps: f64) -> Self {
        let pattern = Pattern::new(width, height, fps);
        let (width, height) = (width as usize, height as usize);
        let mut camera = Self {
            width,
            height,
            pattern,
            texture: Vec::new(),
            samples: vec![128; width * height * 3 / 2],
            random: 0x9e37_79b9_7f4a_7c15,
        };
        // Noise, blurred twice along both axes.
        let (across, down) = (width + MARGIN, height + MARGIN);
        let mut texture: Vec<u8> = (0..across * down).map(|_| camera.random_byte()).collect();
        for step in [1, across, 1, across, 1, across] {
            for at in 0..texture.len() - step {
                texture[at] = u8::midpoint(texture[at], texture[at + step]);
            }
        }
        camera.texture = texture;
        camera
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn random_byte(&mut self) -> u8 {
        self.random().to_le_bytes()[3]
    }

    fn see(&mut self, sight: Sight, number: usize) {
        match sight {
            Sight::Pattern => {}
            Sight::Noise(reach) => {
                let mut random = self.random;
                for samples in self.samples.chunks_exact_mut(8) {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    for (sample, byte) in samples.iter_mut().zip(random.to_le_bytes()) {
                        let span = 2 * u16::from(reach) + 1;
                        let offset = u16::from(byte) * span / 256;
                        *sample = (128 - u16::from(reach) + offset).to_le_bytes()[0];
                    }
                }
                self.random = random;
            }
            Sight::Leaves => {
                let swing = |period: usize, reach: f64| {
                    let phase = (number % period) as f64 / period as f64;
                    ((phase * std::f64::consts::TAU).sin() * reach + reach) as usize
                };
                let (dx, dy) = (swing(47, 12.0), swing(31, 8.0));
                for y in 0..self.height {
                    let from = (y + dy) * (self.width + MARGIN) + dx;
                    let row = &self.texture[from..from + self.width];
                    let mut random = self.random;
                    for (sample, &leaf) in
                        self.samples[y * self.width..][..self.width].iter_mut().zip(row)
                    {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        *sample = leaf.saturating_add(random.to_le_bytes()[7] & 3);
                    }
                    self.random = random;
                }
            }
        }
    }

    fn with_frame<T>(
        &mut self,
        sight: Sight,
        number: usize,
        captured: Instant,
        work: impl FnOnce(&Frame<'_>) -> T,
    ) -> T {
        if sight == Sight::Pattern {
            let raw = self.pattern.capture(captured).unwrap().unwrap();
            return work(&Frame { captured, ..raw.frame() });
        }
        self.see(sight, number);
        let (y, chroma) = self.samples.split_at(self.width * self.height);
        let (cb, cr) = chroma.split_at(chroma.len() / 2);
        let plane = |bytes, stride| Plane { bytes, stride };
        work(&Frame {
            format: PixelFormat::I420,
            width: u32::try_from(self.width).unwrap(),
            height: u32::try_from(self.height).unwrap(),
            colour: Colour::default(),
            captured,
            planes: [plane(y, self.width), plane(cb, self.width / 2), plane(cr, self.width / 2)],
        })
    }
}

/// Samples that the texture is larger than the picture: as far as it drifts.
const MARGIN: usize = 32;

/// What one stream has come to: the capture time of every picture in microseconds, and the bytes
/// of its unit; zero bytes when the picture was left out.
struct Measured {
    units: Vec<(u64, usize)>,
    idrs: Vec<u64>,
}

impl Measured {
    /// Least and most of all windows of ten seconds within `micros`, as parts of `bps`.
    fn windows(&self, micros: std::ops::Range<u64>, bps: u32) -> (f64, f64) {
        let units: Vec<_> = self.units.iter().filter(|(at, _)| micros.contains(at)).collect();
        let end = micros.end.min(units.last().unwrap().0 + 1);
        let (mut least, mut most) = (f64::MAX, 0.0_f64);
        for (first, (start, _)) in units.iter().enumerate() {
            if start + WINDOW > end + SLACK {
                break;
            }
            let inside = units[first..].iter().take_while(|(at, _)| *at < start + WINDOW);
            let bits: usize = inside.map(|(_, len)| 8 * len).sum();
            let part = bits as f64 / 10.0 / f64::from(bps);
            (least, most) = (least.min(part), most.max(part));
        }
        (least, most)
    }

    fn skipped(&self) -> usize {
        self.units.iter().filter(|(_, len)| *len == 0).count()
    }

    /// Prints and returns what the whole stream kept to.
    fn report(&self, name: &str, bps: u32) -> (f64, f64) {
        let (least, most) = self.windows(0..u64::MAX, bps);
        let seconds = |len: usize| 8.0 * len as f64 / f64::from(bps);
        let largest = self.units.iter().map(|(_, len)| *len).max().unwrap();
        println!(
            "{name:40} {least:.3}..{most:.3} of the target, {} of {} left out, first IDR {:.2} s, largest unit {:.2} s",
            self.skipped(),
            self.units.len(),
            seconds(self.units[0].1),
            seconds(largest),
        );
        (least, most)
    }
}

/// Ten seconds, in microseconds.
const WINDOW: u64 = 10_000_000;
/// The last picture of a window is up to this long before its end.
const SLACK: u64 = 100_000;

fn settings(fps: f64, bitrate_bps: u32, gop: f64) -> Settings {
    let gop = Duration::from_secs_f64(gop);
    Settings { fps, bitrate_bps, gop, colour: Colour::default(), threads: 1 }
}

/// Encodes `seconds` of what `sight` says is to be seen in each second, with the changes of
/// settings and the forced IDRs that `before` makes.
fn encode(
    (width, height): (u32, u32),
    seconds: u64,
    settings: Settings,
    sight: impl Fn(u64) -> Sight,
    mut before: impl FnMut(usize, &mut OpenH264) -> bool,
) -> Measured {
    let mut camera = Camera::new(width, height, settings.fps);
    let mut encoder = OpenH264::open(&settings).unwrap();
    let mut unit = AccessUnit::default();
    let mut measured = Measured { units: Vec::new(), idrs: Vec::new() };
    for number in 0.. {
        let at = (number as f64 * 1e6 / settings.fps).ceil() as u64;
        if at >= seconds * 1_000_000 {
            break;
        }
        let captured = Instant::from_micros(5_000_000 + at);
        let is_wanted = before(number, &mut encoder);
        let encoded = camera.with_frame(sight(at / 1_000_000), number, captured, |frame| {
            encoder.encode(frame, is_wanted, &mut unit).unwrap()
        });
        assert_eq!(encoded == Encoded::Skipped, unit.is_empty());
        measured.units.push((at, unit.len()));
        if unit.is_idr() {
            measured.idrs.push(at);
        }
    }
    measured
}

fn never(_: usize, _: &mut OpenH264) -> bool {
    false
}

/// Every five seconds another sight.
fn cuts(first: Sight, second: Sight) -> impl Fn(u64) -> Sight {
    move |second_of_stream| if second_of_stream / 5 % 2 == 0 { first } else { second }
}

const HD: (u32, u32) = (1280, 720);

#[test]
fn small_pictures_at_300_kbps_hold() {
    let settings = settings(10.0, 300_000, 1.0);
    for sight in [Sight::Pattern, Sight::Leaves] {
        let measured = encode((320, 240), 60, settings, |_| sight, never);
        let (least, most) = measured.report(&format!("320x240@10 300k {sight:?}"), 300_000);
        assert!(most <= 1.1, "{most}");
        assert_eq!(measured.skipped(), 0);
        // The pattern is so easy that the least QP makes fewer bits.
        assert!(least >= 0.9 || sight == Sight::Pattern, "{least}");
    }
}

#[test]
fn hd_at_2_mbps_holds_and_so_it_does_with_forced_idrs() {
    let settings = settings(30.0, 2_000_000, 1.0);
    let pattern = encode(HD, 60, settings, |_| Sight::Pattern, never);
    assert!(pattern.report("720p30 2M Pattern", 2_000_000).1 <= 1.1);
    assert_eq!(pattern.skipped(), 0);
    let forced = |number: usize, _: &mut OpenH264| number % 30 == 14;
    let leaves = encode(HD, 30, settings, |_| Sight::Leaves, forced);
    let (least, most) = leaves.report("720p30 2M Leaves, forced IDRs", 2_000_000);
    assert!(least >= 0.9 && most <= 1.1, "{least} {most}");
    assert_eq!(leaves.skipped(), 0);
}

#[test]
fn hd_at_4_mbps_holds_over_cuts() {
    let settings = settings(30.0, 4_000_000, 1.0);
    let sight = cuts(Sight::Pattern, Sight::Noise(8));
    let measured = encode(HD, 60, settings, sight, never);
    let (_, most) = measured.report("720p30 4M Pattern, Noise(8)", 4_000_000);
    assert!(most <= 1.1, "{most}");
}

#[test]
fn hd_noise_at_8_mbps_holds() {
    let settings = settings(30.0, 8_000_000, 1.0);
    let some = encode(HD, 30, settings, |_| Sight::Noise(24), never);
    let (least, most) = some.report("720p30 8M Noise(24)", 8_000_000);
    assert!(least >= 0.9 && most <= 1.1, "{least} {most}");
    assert_eq!(some.skipped(), 0);
    // Over the full range one picture takes a fifth of a second at the greatest QP.
    let full = encode(HD, 60, settings, |_| Sight::Noise(127), never);
    let (least, most) = full.report("720p30 8M Noise(127)", 8_000_000);
    assert!(least >= 0.9 && most <= 1.1, "{least} {most}");
}

#[test]
fn a_change_of_bitrate_is_followed_within_three_seconds_and_without_an_idr() {
    let start = settings(30.0, 2_000_000, 2.0);
    let change = |number: usize, encoder: &mut OpenH264| {
        match number {
            450 => encoder.change(&Settings { bitrate_bps: 500_000, ..start }).unwrap(),
            900 => encoder.change(&start).unwrap(),
            _ => {}
        }
        false
    };
    let measured = encode((640, 360), 45, start, |_| Sight::Leaves, change);
    for (index, at) in measured.idrs.iter().enumerate() {
        assert_eq!(at / 100_000, 20 * index as u64, "IDRs come when they are due only");
    }
    for (from, bps) in [(0, 2_000_000), (15, 500_000), (30, 2_000_000)] {
        let (least, most) = measured.windows(from * 1_000_000..(from + 15) * 1_000_000, bps);
        let soon = (from + 1) * 1_000_000..(from + 3) * 1_000_000;
        let units = measured.units.iter().filter(|(at, _)| soon.contains(at));
        let followed = units.map(|(_, len)| 8 * len).sum::<usize>() as f64 / 2.0 / f64::from(bps);
        println!("from {from} s at {bps} bit/s: {least:.3}..{most:.3}; 1 to 3 s: {followed:.3}");
        assert!(least >= 0.9 && most <= 1.1, "{least} {most}");
        assert!((0.7..1.3).contains(&followed), "{followed}");
    }
    assert_eq!(measured.skipped(), 0);
}

#[test]
fn short_and_long_groups_of_pictures_hold_the_rate_too() {
    for gop in [0.5, 10.0] {
        for (name, sight) in [
            ("Leaves", cuts(Sight::Leaves, Sight::Leaves)),
            ("Pattern, Noise(24)", cuts(Sight::Pattern, Sight::Noise(24))),
        ] {
            let measured = encode(HD, 15, settings(30.0, 2_000_000, gop), sight, never);
            let name = format!("720p30 2M GOP {gop} s {name}");
            assert!(measured.report(&name, 2_000_000).1 <= 1.1);
        }
    }
}
