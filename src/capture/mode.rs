//! Chooses among what a camera offers the mode that fits a request best.
//!
//! In this order: the size (exactly the one asked for, else the smallest that covers it, else the
//! largest); the rate (the lowest that is enough, else the highest); the cost of converting the
//! format (see `layout::USABLE`). Arithmetic only: the lists are the caller's.

use crate::sys::v4l2::{FourCc, FrameInterval, FrameSize, Interval};

/// The pictures that are wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    pub width: u32,
    pub height: u32,
    pub fps: f64,
    /// The only format that will do; `None` when the cheapest will.
    pub format: Option<FourCc>,
}

/// One mode that a camera offers; `F` is whatever names its format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate<F> {
    pub(super) format: F,
    /// Rank of the format: 0 is the cheapest to convert.
    pub(super) cost: usize,
    pub(super) width: u32,
    pub(super) height: u32,
    /// `None` when the driver does not tell.
    pub(super) interval: Option<Interval>,
}

/// Why a mode was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) size: &'static str,
    pub(super) rate: &'static str,
}

/// The candidates of one format: every size, and every range cut down to what fits best.
pub(super) fn candidates<F: Copy>(
    format: F,
    cost: usize,
    sizes: &[(FrameSize, Vec<FrameInterval>)],
    request: &Request,
) -> Vec<Candidate<F>> {
    let mut candidates = Vec::new();
    for (size, intervals) in sizes {
        let Some((width, height)) = fit_size(*size, request) else { continue };
        let candidate = |interval| Candidate { format, cost, width, height, interval };
        let known = candidates.len();
        let intervals = intervals.iter().filter_map(|&offer| fit_interval(offer, request));
        candidates.extend(intervals.map(|interval| candidate(Some(interval))));
        if candidates.len() == known {
            candidates.push(candidate(None));
        }
    }
    candidates
}

/// Picks the candidate that fits best; `None` when there is none.
pub(super) fn choose<F: Copy>(
    candidates: &[Candidate<F>],
    request: &Request,
) -> Option<(Candidate<F>, Reason)> {
    let best = candidates.iter().min_by(|a, b| {
        let size = |c: &Candidate<F>| size_rank(c.width, c.height, request);
        let rate = |c: &Candidate<F>| rate_rank(c.interval, request.fps);
        size(a)
            .cmp(&size(b))
            .then_with(|| rate(a).0.cmp(&rate(b).0))
            .then_with(|| rate(a).1.total_cmp(&rate(b).1))
            .then_with(|| a.cost.cmp(&b.cost))
    })?;
    let reason = Reason {
        size: match size_rank(best.width, best.height, request).0 {
            Fit::Exact => "the size is the one asked for",
            Fit::Enough => "it is the smallest size that covers",
            Fit::Short => "it is the largest size there is",
        },
        rate: match rate_rank(best.interval, request.fps).0 {
            Fit::Exact => "the rate is the one asked for",
            Fit::Enough if best.interval.is_none() => "the driver tells no rates",
            Fit::Enough => "it is the lowest rate that is enough",
            Fit::Short => "it is the highest rate at this size",
        },
    };
    Some((*best, reason))
}

/// The one size of an offered range that fits best, with even sides; `None` when it has none.
pub(super) fn fit_size(offer: FrameSize, request: &Request) -> Option<(u32, u32)> {
    let (width, height) = match offer {
        FrameSize::Discrete { width, height } => (width, height),
        FrameSize::Stepwise {
            width_min,
            width_max,
            width_step,
            height_min,
            height_max,
            height_step,
        } => (
            fit_side(width_min, width_max, width_step, request.width)?,
            fit_side(height_min, height_max, height_step, request.height)?,
        ),
    };
    let is_side = |side: u32| side.is_multiple_of(2) && (1..=SIDE_MAX).contains(&side);
    (is_side(width) && is_side(height)).then_some((width, height))
}

/// The smallest even `min + n * step` that is at least `wanted`, else the largest even one.
fn fit_side(min: u32, max: u32, step: u32, wanted: u32) -> Option<u32> {
    let max = max.max(min).min(SIDE_MAX.max(min));
    let step = step.max(1);
    let largest = min + (max - min) / step * step;
    let up = wanted.saturating_sub(min).div_ceil(step);
    let nearest = up.checked_mul(step).and_then(|rise| rise.checked_add(min));
    let nearest = nearest.map_or(largest, |side| side.min(largest));
    // Odd steps alternate; even steps from an odd minimum never get even.
    let neighbours = [Some(nearest), nearest.checked_add(step), nearest.checked_sub(step)];
    neighbours.into_iter().flatten().find(|side| side % 2 == 0 && (min..=largest).contains(side))
}

/// The one interval of an offered range that fits best; `None` when it is no rate.
pub(super) fn fit_interval(offer: FrameInterval, request: &Request) -> Option<Interval> {
    let interval = match offer {
        FrameInterval::Discrete(interval) => interval,
        FrameInterval::Range { min, max } => {
            let wanted = interval_of(request.fps);
            let (fastest, slowest) = (min.fps()?, max.fps().unwrap_or(0.0));
            if request.fps >= fastest {
                min
            } else if request.fps <= slowest {
                max
            } else {
                wanted
            }
        }
    };
    interval.fps().map(|_| interval)
}

/// The interval of a rate: exact for whole rates, within 0.001 Hz for others.
pub(super) fn interval_of(fps: f64) -> Interval {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "float casts saturate, and a rate is positive"
    )]
    let millihertz = (fps * 1000.0).round().max(1.0) as u32;
    if millihertz.is_multiple_of(1000) {
        Interval { numerator: 1, denominator: millihertz / 1000 }
    } else {
        Interval { numerator: 1000, denominator: millihertz }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Exact,
    Enough,
    Short,
}

/// Lower is better: the kind of fit, then the pixels too many or (counted from the top) too few.
fn size_rank(width: u32, height: u32, request: &Request) -> (Fit, u64) {
    let area = u64::from(width) * u64::from(height);
    if (width, height) == (request.width, request.height) {
        (Fit::Exact, 0)
    } else if width >= request.width && height >= request.height {
        (Fit::Enough, area)
    } else {
        (Fit::Short, u64::MAX - area)
    }
}

/// Lower is better. A camera's 29.97 is what people mean by 30.
fn rate_rank(interval: Option<Interval>, wanted: f64) -> (Fit, f64) {
    match interval.and_then(Interval::fps) {
        Some(fps) if (fps - wanted).abs() <= wanted * RATE_TOLERANCE => {
            (Fit::Exact, (fps - wanted).abs())
        }
        Some(fps) if fps > wanted => (Fit::Enough, fps),
        Some(fps) => (Fit::Short, -fps),
        // Behind every rate known to be enough.
        None => (Fit::Enough, f64::INFINITY),
    }
}

/// OpenH264 takes no more.
const SIDE_MAX: u32 = 3840;
const RATE_TOLERANCE: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Request = Request { width: 640, height: 360, fps: 15.0, format: None };

    fn candidate(name: &str, cost: usize, size: (u32, u32), fps: u32) -> Candidate<&str> {
        let interval = (fps > 0).then_some(Interval { numerator: 1, denominator: fps });
        Candidate { format: name, cost, width: size.0, height: size.1, interval }
    }

    fn chosen<'a>(candidates: &[Candidate<&'a str>]) -> &'a str {
        // The order of the offers must not matter.
        let mut reversed = candidates.to_vec();
        reversed.reverse();
        let (best, _) = choose(candidates, &ASKED).expect("something is offered");
        assert_eq!(choose(&reversed, &ASKED).map(|(best, _)| best), Some(best));
        best.format
    }

    #[test]
    fn the_exact_size_wins_over_everything() {
        let exact = candidate("exact", 9, (640, 360), 5);
        let larger = candidate("larger", 0, (1280, 720), 15);
        let smaller = candidate("smaller", 0, (320, 180), 15);
        assert_eq!(chosen(&[smaller, larger, exact]), "exact");
    }

    #[test]
    fn else_the_smallest_size_that_covers() {
        let vga = candidate("vga", 0, (640, 480), 15);
        let hd = candidate("hd", 0, (1280, 720), 15);
        let wide_but_low = candidate("wide", 0, (1920, 300), 15);
        assert_eq!(chosen(&[wide_but_low, hd, vga]), "vga");
    }

    #[test]
    fn else_the_largest() {
        let small = candidate("small", 0, (160, 120), 15);
        let large = candidate("large", 0, (320, 240), 15);
        assert_eq!(chosen(&[small, large]), "large");
    }

    #[test]
    fn the_rate_is_the_lowest_that_is_enough() {
        let at = |name, fps| candidate(name, 0, (640, 360), fps);
        assert_eq!(chosen(&[at("10", 10), at("20", 20), at("30", 30)]), "20");
        assert_eq!(chosen(&[at("5", 5), at("10", 10)]), "10");
        assert_eq!(chosen(&[at("15", 15), at("20", 20), at("unknown", 0)]), "15");
        assert_eq!(chosen(&[at("unknown", 0), at("30", 30)]), "30");
        assert_eq!(chosen(&[at("unknown", 0), at("10", 10)]), "unknown");
    }

    #[test]
    fn ntsc_rates_count_as_the_whole_ones() {
        let ntsc = Interval { numerator: 1001, denominator: 30_000 };
        let request = Request { fps: 30.0, ..ASKED };
        let ntsc = Candidate { interval: Some(ntsc), ..candidate("ntsc", 0, (640, 360), 1) };
        let sixty = candidate("60", 0, (640, 360), 60);
        let (best, reason) = choose(&[sixty, ntsc], &request).unwrap();
        assert_eq!(best.format, "ntsc");
        assert_eq!(reason.rate, "the rate is the one asked for");
    }

    #[test]
    fn at_the_same_size_and_rate_the_cheapest_format_wins() {
        let packed = candidate("packed", 8, (640, 360), 15);
        let planar = candidate("planar", 0, (640, 360), 15);
        let faster = candidate("faster", 0, (640, 360), 30);
        assert_eq!(chosen(&[packed, faster]), "packed");
        assert_eq!(chosen(&[packed, faster, planar]), "planar");
    }

    #[test]
    fn nothing_offered_is_nothing_chosen() {
        assert_eq!(choose::<()>(&[], &ASKED), None);
    }

    #[test]
    fn ranges_give_the_even_size_that_covers() {
        let range = |min, max, step| FrameSize::Stepwise {
            width_min: min,
            width_max: max,
            width_step: step,
            height_min: min,
            height_max: max,
            height_step: step,
        };
        let fit = |offer, width, height| fit_size(offer, &Request { width, height, ..ASKED });
        assert_eq!(fit(range(16, 4096, 1), 640, 360), Some((640, 360)));
        assert_eq!(fit(range(32, 4096, 32), 640, 360), Some((640, 384)));
        assert_eq!(fit(range(1, 4096, 1), 641, 361), Some((642, 362)));
        assert_eq!(fit(range(16, 320, 16), 640, 360), Some((320, 320)));
        assert_eq!(fit(range(800, 1600, 8), 640, 360), Some((800, 800)));
        assert_eq!(fit(range(1, 9, 2), 4, 4), None);
        assert_eq!(fit(range(1, u32::MAX, 1), u32::MAX, u32::MAX), Some((3840, 3840)));
        for wanted in 0..200 {
            let (width, _) = fit(range(10, 100, 3), wanted, 50).unwrap();
            assert!(width % 2 == 0 && (10..=100).contains(&width) && (width - 10) % 3 == 0);
        }
        let huge = FrameSize::Discrete { width: 4656, height: 3496 };
        assert_eq!((fit(huge, 640, 360), fit(range(4096, 8192, 2), 640, 360)), (None, None));
        let odd = FrameSize::Discrete { width: 175, height: 144 };
        assert_eq!(fit(odd, 640, 360), None);
    }

    #[test]
    fn ranges_of_intervals_give_the_rate_asked_for() {
        let range = FrameInterval::Range {
            min: Interval { numerator: 1, denominator: 90 },
            max: Interval { numerator: 10, denominator: 10 },
        };
        let rate = |fps| fit_interval(range, &Request { fps, ..ASKED }).and_then(Interval::fps);
        assert_eq!(rate(15.0), Some(15.0));
        assert_eq!(rate(12.5), Some(12.5));
        assert_eq!(rate(120.0), Some(90.0));
        assert_eq!(rate(0.1), Some(1.0));
        let none = FrameInterval::Discrete(Interval { numerator: 0, denominator: 0 });
        assert_eq!(fit_interval(none, &ASKED), None);
    }
}
