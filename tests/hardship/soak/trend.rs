//! Tells growth from noise: least squares, and how far they can be trusted.
//!
//! A sample is the trend and noise. The standard error of the slope follows from what is left of the
//! samples when the line is taken away; a slope is held to be above its limit only if it is by
//! [`CERTAINTY`] of them. Two minutes find what leaks fast, half an hour what leaks slowly, and
//! neither cries wolf: the bound comes from the samples, not from taste.

use std::fmt;

/// What the samples of one value say.
#[derive(Clone, Debug)]
pub(super) struct Judgement {
    name: &'static str,
    mean: f64,
    /// Per hour.
    slope: f64,
    error: f64,
    /// What a single step, of which allocators are fond, can make of the slope.
    step: f64,
    limit: f64,
}

/// Of values at seconds, which are to grow by no more than `limit` an hour.
pub(super) fn judge(name: &'static str, points: &[(f64, f64)], limit: f64) -> Judgement {
    let count = points.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|it| it.0), mean(|it| it.1));
    let (mut xx, mut xy) = (0.0, 0.0);
    for (x, y) in points {
        xx += (x - mean_x).powi(2);
        xy += (x - mean_x) * (y - mean_y);
    }
    let slope = xy / xx;
    let left = points.iter().map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2));
    let error = (left.sum::<f64>() / (count - 2.0) / xx).sqrt();
    Judgement { name, mean: mean_y, slope: slope * HOUR, error: error * HOUR, step: 0.0, limit }
}

impl Judgement {
    /// One step is no growth, however large: the largest between two neighbours is let pass. In the
    /// middle of the samples it makes a slope of one and a half times itself over all of their time.
    pub(super) fn allowing_a_step(mut self, points: &[(f64, f64)]) -> Self {
        let largest =
            points.windows(2).map(|pair| (pair[1].1 - pair[0].1).abs()).fold(0.0, f64::max);
        self.step = 1.5 * largest / (points[points.len() - 1].0 - points[0].0) * HOUR;
        self
    }

    pub(super) fn is_well(&self) -> bool {
        self.slope - self.band() <= self.limit
    }

    fn band(&self) -> f64 {
        CERTAINTY * self.error + self.step
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, mean, slope, limit, .. } = self;
        let verdict = if self.is_well() { "well" } else { "GROWS" };
        let band = self.band();
        write!(
            f,
            "{name:20} mean {mean:9.1}, per hour {slope:+9.1} ± {band:.1}, limit {limit:.1}: {verdict}"
        )
    }
}

const HOUR: f64 = 3_600.0;
/// In standard errors. With ten degrees of freedom noise alone is above five once in 3,700 times.
const CERTAINTY: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Half of two minutes, or of half an hour, with noise of some pages.
    fn samples(count: u32, every: f64, per_second: f64, seed: u64) -> Vec<(f64, f64)> {
        let mut random = seed;
        let mut noise = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((random >> 33) % 9) as f64 - 4.0
        };
        let point = |n| {
            let at = f64::from(n) * every;
            (at, 6_400.0 + per_second * at + noise())
        };
        (0..count).map(point).collect()
    }

    #[test]
    fn neither_noise_nor_a_step_is_growth() {
        for seed in 0..200 {
            for (count, every) in [(12, 5.0), (90, 10.0)] {
                let mut points = samples(count, every, 0.0, seed);
                let judgement = judge("RSS", &points, 0.0);
                assert!(judgement.is_well(), "{seed}: {judgement}");
                let from = seed as usize % points.len();
                points[from..].iter_mut().for_each(|(_, value)| *value += 132.0);
                let judgement = judge("RSS", &points, 0.0).allowing_a_step(&points);
                assert!(judgement.is_well(), "{seed}: {judgement}");
            }
        }
    }

    #[test]
    fn what_leaks_is_found_the_sooner_the_more_it_is() {
        let is_well =
            |points: &[(f64, f64)]| judge("RSS", points, 100.0).allowing_a_step(points).is_well();
        for seed in 0..200 {
            // Half a kilobyte of every guest: two minutes see it.
            assert!(!is_well(&samples(12, 5.0, 1.2, seed)), "{seed}");
            // 50 bytes of every guest: half an hour does.
            assert!(!is_well(&samples(90, 10.0, 0.12, seed)), "{seed}");
            // Half of what may be is not too much.
            assert!(is_well(&samples(90, 10.0, 50.0 / 3_600.0, seed)), "{seed}");
        }
    }

    #[test]
    fn a_descriptor_that_is_lost_every_ten_seconds_is_found_in_two_minutes() {
        let point = |n: u32| (f64::from(n) * 5.0, 30.0 + f64::from(n / 2) + f64::from(n % 3));
        let points: Vec<(f64, f64)> = (0..12).map(point).collect();
        assert!(!judge("descriptors", &points, 0.0).is_well());
    }
}
