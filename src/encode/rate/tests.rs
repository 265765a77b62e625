use super::*;
use crate::frame::Colour;

const SAMPLES: usize = 1280 * 720;

fn settings(fps: f64, bitrate_bps: u32, gop_s: f64) -> Settings {
    let gop = Duration::from_secs_f64(gop_s);
    Settings { fps, bitrate_bps, gop, colour: Colour::default(), threads: 1 }
}

/// Every block with this sum of differences.
fn activity(sum: u16) -> Activity {
    let mut residual = Residual::default();
    residual.blocks[(u16::BITS - sum.leading_zeros()) as usize] = 5_000;
    Activity { intra: residual, inter: residual }
}

/// An encoder whose pictures take `bits` at QP 30, and half of that 6 QP further up.
struct Model {
    rate: RateControl,
    at: u64,
    /// Capture time and bits of every picture, and the QP it had; none when it was left out.
    pictures: Vec<(u64, f64, Option<u8>)>,
}

impl Model {
    fn new(settings: &Settings) -> Self {
        Self { rate: RateControl::new(settings, SAMPLES), at: 0, pictures: Vec::new() }
    }

    fn encode(&mut self, micros: u64, is_idr: bool, bits: f64, sum: u16) {
        self.at += micros;
        let qp = self.rate.plan(Instant::from_micros(self.at), is_idr, activity(sum));
        let bits = qp.map_or(0.0, |qp| bits * ((30.0 - f64::from(qp)) / 6.0).exp2());
        if qp.is_some() {
            let len = whole_len(bits);
            self.rate.encoded(len);
        }
        self.pictures.push((self.at, bits, qp));
    }

    fn windows(&self, bps: f64) -> (f64, f64) {
        let last = self.at;
        let parts = self.pictures.iter().enumerate().filter(|(_, (at, ..))| at + WINDOW <= last);
        let parts = parts.map(|(first, (start, ..))| {
            let inside = self.pictures[first..].iter().take_while(|(at, ..)| at - start < WINDOW);
            inside.map(|(_, bits, _)| bits).sum::<f64>() / 10.0 / bps
        });
        parts.fold((f64::MAX, 0.0), |(least, most): (f64, f64), part| {
            (least.min(part), most.max(part))
        })
    }

    fn qps(&self) -> Vec<u8> {
        self.pictures.iter().filter_map(|(.., qp)| *qp).collect()
    }
}

const WINDOW: u64 = 10_000_000;

fn whole_len(bits: f64) -> usize {
    (bits / 8.0) as usize
}

#[test]
fn an_even_scene_gets_its_bitrate_at_an_even_qp() {
    for (gop, fps) in [(15, 30.0), (30, 30.0), (300, 30.0), (10, 10.0), (4, 4.0)] {
        let mut model = Model::new(&settings(fps, 2_000_000, f64::from(gop) / fps));
        let count = (60.0 * fps) as i32;
        for number in 0..count {
            let is_idr = number % gop == 0;
            let bits = if is_idr { 600_000.0 } else { 2_400_000.0 / fps };
            model.encode((1e6 / fps) as u64, is_idr, bits, 100);
        }
        let (least, most) = model.windows(2e6);
        assert!(least > 0.93 && most < 1.05, "GOP {gop} at {fps}: {least} {most}");
        let inters = model.qps();
        let late = inters.iter().skip(inters.len() / 3);
        let spread = late.clone().max().unwrap() - late.min().unwrap();
        assert!(spread <= 6, "GOP {gop} at {fps}: {spread} QP apart");
    }
}

#[test]
fn no_window_is_over_whatever_the_pictures_cost() {
    let mut state = 1_u64;
    let mut random = move |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for bitrate_bps in [300_000, 2_000_000, 8_000_000] {
        let mut model = Model::new(&settings(30.0, bitrate_bps, 1.0));
        let mut scene = (1.0, 100);
        for number in 0..3_000 {
            if number % 150 == 0 {
                let dearness = 1 << random(6);
                scene = (f64::from(dearness), 8 * u16::try_from(dearness).unwrap());
            }
            let kind = if number % 30 == 0 { 40_000.0 } else { 4_000.0 };
            let bits = kind * scene.0 * (0.5 + random(100) as f64 / 100.0);
            // Capture times are no metronome's.
            model.encode(25_000 + random(16_667), number % 30 == 0, bits, scene.1);
        }
        let (_, most) = model.windows(f64::from(bitrate_bps));
        assert!(most <= 1.1, "{bitrate_bps}: {most}");
    }
}

#[test]
fn an_easy_picture_gets_the_least_qp_and_leaves_no_credit() {
    let mut model = Model::new(&settings(30.0, 2_000_000, 1.0));
    for number in 0..900 {
        model.encode(33_333, number % 30 == 0, 1_000.0, 5);
    }
    assert!(model.qps().iter().skip(60).all(|&qp| qp == 12));
    assert!(model.rate.level < 0.05, "{}", model.rate.level);
    // What was not used in half a minute is not made up for.
    for number in 0..600 {
        model.encode(33_333, number % 30 == 0, 200_000.0, 100);
    }
    assert!(model.windows(2e6).1 <= 1.1);
}

#[test]
fn the_first_idr_is_sized_by_what_is_in_the_picture() {
    for bitrate_bps in [300_000, 2_000_000, 8_000_000] {
        let first = |sum| {
            let mut rate = RateControl::new(&settings(30.0, bitrate_bps, 1.0), SAMPLES);
            rate.plan(Instant::ZERO, true, activity(sum)).unwrap()
        };
        assert!(first(3) < first(200) && first(200) <= first(1_400));
        assert_eq!(first(0), 12);
    }
}

#[test]
fn a_cut_is_met_with_a_coarse_picture() {
    let mut model = Model::new(&settings(30.0, 2_000_000, 1.0));
    for number in 0..90 {
        model.encode(33_333, number % 30 == 0, 10_000.0, 8);
    }
    let before = *model.qps().last().unwrap();
    model.encode(33_333, false, 2_000_000.0, 1_000);
    let after = *model.qps().last().unwrap();
    assert!(after >= 45 && before <= 20, "{before} {after}");
}

#[test]
fn a_picture_that_does_not_fit_at_the_greatest_qp_is_left_out() {
    let mut model = Model::new(&settings(30.0, 1_000_000, 1.0));
    for number in 0..600 {
        // A third of a second at QP 51.
        model.encode(33_333, number % 30 == 0, 3_700_000.0, 1_400);
    }
    let left_out = model.pictures.iter().filter(|(.., qp)| qp.is_none()).count();
    assert!((500..570).contains(&left_out), "{left_out}");
    let (least, most) = model.windows(1e6);
    assert!(least >= 0.9 && most <= 1.1, "{least} {most}");
}

#[test]
fn another_bitrate_is_kept_at_once() {
    let (high, low) = (settings(30.0, 2_000_000, 1.0), settings(30.0, 500_000, 1.0));
    let mut model = Model::new(&high);
    for (next, bps) in [(&high, 2e6), (&low, 5e5), (&high, 2e6)] {
        model.rate.change(next);
        model.pictures.clear();
        for number in 0..600 {
            let is_idr = number % 30 == 0;
            model.encode(33_333, is_idr, if is_idr { 300_000.0 } else { 60_000.0 }, 100);
        }
        let (least, most) = model.windows(bps);
        assert!(least >= 0.9 && most <= 1.1, "{bps}: {least} {most}");
        let early = model.pictures[30..90].iter().map(|(_, bits, _)| bits).sum::<f64>() / 2.0;
        assert!((0.8..1.2).contains(&(early / bps)), "{bps}: {early}");
    }
}
