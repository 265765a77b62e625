//! Learns what each cell looks like when nothing moves, and says how far it is from that.
//!
//! A cell has a mean and a mean deviation that adapt while it is near its mean. One that left its
//! mean keeps it until it has looked alike for half a second: then that is its new mean.
//!
//! Light that changes for the whole picture alike, by a gain and an offset, moves all means at once
//! and so is no difference; cells that are clipped have no say in it. Light that changes by more,
//! or a quarter of the picture that gets brighter at once, is a switch: everything is learned anew,
//! and nothing is motion until lamps and exposure have settled. Where less of the picture changes
//! at once but still much, the next two pictures decide.
//!
//! Not implemented: light that changes gradually in a part of the picture only; it is motion.

use std::fmt;
use std::time::Duration;

use super::grid::STEP;
use crate::time::Instant;

#[derive(Default)]
pub(super) struct Model {
    cells: Vec<Cell>,
    /// How far each cell is from its mean.
    pub(super) differences: Vec<i32>,
    /// How far noise and changing light may take each cell from its mean.
    pub(super) tolerances: Vec<i32>,
    /// Pictures learned from since everything was learned anew.
    learned: i32,
    looked_at: Instant,
    /// Until when light may still be on its way to what it was switched to.
    settled_at: Instant,
    /// By how much light has lately changed from one picture to the next.
    drift: i32,
    /// Pictures in a row that more changed in than a thing in motion is likely to.
    doubtful: u32,
    /// Mean deviation of the calm cells in the last picture.
    noise: Option<i32>,
    scratch: Vec<i32>,
}

/// Brightness in units of the grid.
#[derive(Clone, Copy, Default)]
struct Cell {
    mean: i32,
    deviation: i32,
    /// What it has looked like since it left its mean.
    candidate: i32,
    /// For how long, in microseconds.
    candidate_us: i32,
}

/// How all means move with the light: `offset + (mean - pivot) * gain / GAIN_ONE`.
#[derive(Clone, Copy, Default)]
struct Light {
    pivot: i32,
    offset: i32,
    gain: i32,
    /// How far from the pivot the gain is known; what is farther moves as what is this far.
    reach: i32,
}

impl Light {
    fn shift(&self, mean: i32) -> i32 {
        let distance = (mean - self.pivot).clamp(-self.reach, self.reach);
        self.offset + distance * self.gain / GAIN_ONE
    }
}

impl Model {
    /// Compares a picture's cells with the model, then learns from them; whether the differences
    /// may be motion.
    pub(super) fn look(&mut self, cells: &[i32], at: Instant) -> bool {
        let elapsed_us = i32::try_from(at.since(self.looked_at).as_micros()).unwrap_or(i32::MAX);
        self.looked_at = at;
        if self.cells.len() != cells.len() {
            *self = Self {
                cells: vec![Cell::default(); cells.len()],
                differences: vec![0; cells.len()],
                tolerances: vec![0; cells.len()],
                scratch: Vec::with_capacity(cells.len()),
                looked_at: at,
                settled_at: at,
                ..Self::default()
            };
            self.learn_anew(cells);
            return false;
        }
        let elapsed_us = elapsed_us.min(ELAPSED_MAX_US);
        let is_switched = self.follow_light(cells);
        let share = self.compare(cells);
        let is_settling = at < self.settled_at;
        if is_switched || share > if is_settling { SHARE_SETTLING } else { SHARE_SWITCHED } {
            self.learn_anew(cells);
            self.settled_at = at + SETTLE;
            return false;
        }
        self.learn(cells, elapsed_us, is_settling);
        self.doubtful = if share > SHARE_DOUBTFUL { self.doubtful.saturating_add(1) } else { 0 };
        !is_settling && (self.doubtful == 0 || self.doubtful > DOUBTFUL_MAX)
    }

    /// Moves all means with the light; whether it changed so much that it was switched.
    fn follow_light(&mut self, cells: &[i32]) -> bool {
        self.drift -= self.drift / 8;
        let Some(light) = self.light(cells) else { return false };
        let lowest = cells.iter().copied().min().unwrap_or(0);
        let highest = cells.iter().copied().max().unwrap_or(0);
        let mut shift_max = 0;
        for cell in &mut self.cells {
            let shift = light.shift(cell.mean);
            shift_max = shift_max.max(shift.abs());
            cell.mean = shifted(cell.mean, shift, lowest, highest);
            cell.candidate = shifted(cell.candidate, shift, lowest, highest);
        }
        self.drift = self.drift.max(shift_max);
        shift_max > SWITCH_MIN
    }

    /// How the light changed, if most cells agree about it: a line fitted to their changes.
    fn light(&mut self, cells: &[i32]) -> Option<Light> {
        let median = self.median(cells);
        let (mut count, mut sum_x, mut sum_d) = (0_i64, 0_i64, 0_i64);
        let (mut sum_xx, mut sum_xd, mut sum_dd, mut said) = (0_i64, 0_i64, 0_i64, 0_i64);
        for (cell, now) in self.cells.iter().zip(cells) {
            let difference = now - cell.mean;
            let says = !is_clipped(cell.mean, *now);
            said += i64::from(says);
            let agrees = i64::from(says && (difference - median).abs() < AGREE);
            let (x, d) = (agrees * i64::from(cell.mean - GRAY), agrees * i64::from(difference));
            count += agrees;
            sum_x += x;
            sum_d += d;
            sum_xx += x * x;
            sum_xd += x * d;
            sum_dd += d * d;
        }
        if count * 5 < said * 3 || said * 50 < cells.len() as i64 || count == 0 {
            return None;
        }
        let variance = (sum_xx - sum_x * sum_x / count) / count;
        // What noise put into a mean is missing from the difference to it, which looks like a loss
        // of contrast.
        let noise = i64::from(self.noise.unwrap_or(0));
        let noise_of_means = noise * noise * 3 / 2 / i64::from(self.learned.min(MEAN_PICTURES));
        let covariance = (sum_xd - sum_x * sum_d / count) / count + noise_of_means;
        // Two answers that were averaged are none.
        let spread =
            (sum_dd - sum_d * sum_d / count) / count - covariance * covariance / (variance + 1);
        let step = i64::from(STEP);
        if spread > 3 * noise * noise + step * step / 2 {
            return None;
        }
        // What differs little in brightness says little about a gain.
        let gain = covariance * i64::from(GAIN_ONE) / (variance + i64::from(4 * STEP * STEP));
        let narrow = |value: i64| i32::try_from(value).unwrap_or(0);
        Some(Light {
            pivot: narrow(sum_x / count) + GRAY,
            offset: narrow(sum_d / count),
            gain: narrow(gain).clamp(-GAIN_ONE / 2, GAIN_ONE / 2),
            reach: narrow(3 * variance.max(0).isqrt()),
        })
    }

    /// Fills differences and tolerances; how much more of the picture, in thousandths, got brighter
    /// than darker, or the other way round.
    fn compare(&mut self, cells: &[i32]) -> usize {
        let measured = self.measure_noise(cells);
        // Where half of the picture changed there is no telling how: it did not get noisier at once.
        let noise = match self.noise {
            Some(noise) => measured.min(2 * noise + STEP / 4),
            None => {
                self.cells.iter_mut().for_each(|cell| cell.deviation = measured);
                measured
            }
        };
        self.noise = Some(noise);
        // The mean of few pictures is itself noisy.
        let tenths = NOISE_TENTHS + NOISE_TENTHS / (2 * self.learned);
        let (mut brighter, mut darker) = (0_u32, 0_u32);
        let outputs = self.differences.iter_mut().zip(&mut self.tolerances);
        for ((cell, now), (difference, tolerance)) in self.cells.iter().zip(cells).zip(outputs) {
            *difference = now - cell.mean;
            *tolerance = cell.deviation.max(noise) * tenths / 10 + 2 * self.drift;
            brighter += u32::from(*difference > *tolerance + CHANGE_MIN);
            darker += u32::from(-*difference > *tolerance + CHANGE_MIN);
        }
        brighter.abs_diff(darker) as usize * 1_000 / cells.len()
    }

    /// Adapts what is near its mean, and adopts what has stayed elsewhere; all of it while light
    /// settles.
    fn learn(&mut self, cells: &[i32], elapsed_us: i32, is_settling: bool) {
        let weight = |time_constant_us: i32| {
            (elapsed_us / (time_constant_us / WEIGHT_ONE)).min(WEIGHT_ONE / 2)
        };
        let mean_weight = weight(MEAN_US).max(WEIGHT_ONE / (self.learned + 1));
        let deviation_weight = weight(DEVIATION_US);
        let limits = self.differences.iter().zip(&self.tolerances);
        for ((cell, now), (difference, tolerance)) in self.cells.iter_mut().zip(cells).zip(limits) {
            let limit = tolerance + CHANGE_MIN;
            if difference.abs() <= limit {
                cell.mean += weighted(*difference, mean_weight);
                cell.deviation += weighted(difference.abs() - cell.deviation, deviation_weight);
                cell.candidate_us = 0;
                cell.candidate = cell.mean;
            } else if (now - cell.candidate).abs() <= limit {
                cell.candidate_us += elapsed_us;
                if cell.candidate_us >= ADOPT_US {
                    (cell.mean, cell.candidate_us) = (cell.candidate, 0);
                }
            } else {
                cell.candidate = *now;
                cell.candidate_us = 0;
            }
            if is_settling && difference.abs() > limit {
                cell.mean = *now;
            }
        }
        self.learned = (self.learned + 1).min(LEARNED_MAX);
    }

    fn learn_anew(&mut self, cells: &[i32]) {
        for (cell, now) in self.cells.iter_mut().zip(cells) {
            (cell.mean, cell.candidate, cell.candidate_us) = (*now, *now, 0);
        }
        self.learned = 1;
        self.drift = 0;
    }

    /// Median of the differences, from a thousand cells at most.
    fn median(&mut self, cells: &[i32]) -> i32 {
        self.sample(cells, 0);
        let middle = self.scratch.len() / 2;
        *self.scratch.select_nth_unstable(middle).1
    }

    /// The mean deviation of cells in this picture, from the calmest quarter of them: however
    /// much moves, most of that quarter does not.
    fn measure_noise(&mut self, cells: &[i32]) -> i32 {
        let median = self.median(cells);
        let mut noise = NOISE_MAX;
        for centre in [0, median] {
            self.sample(cells, centre);
            self.scratch.iter_mut().for_each(|difference| *difference = difference.abs());
            let quarter = self.scratch.len() / 4;
            // The lower quartile of |z| is 0.32 of a normal distribution's deviation, its mean 0.8.
            noise = noise.min(*self.scratch.select_nth_unstable(quarter).1 * 5 / 2);
        }
        noise
    }

    /// Fills `scratch` with differences less `offset`, of cells that are not clipped if there are
    /// such.
    fn sample(&mut self, cells: &[i32], offset: i32) {
        let step = cells.len().div_ceil(1_000);
        let pairs = self.cells.iter().zip(cells).step_by(step);
        self.scratch.clear();
        let says = pairs.clone().filter(|(cell, now)| !is_clipped(cell.mean, **now));
        self.scratch.extend(says.map(|(cell, now)| now - cell.mean - offset));
        if self.scratch.len() < SAMPLES_MIN {
            self.scratch.extend(pairs.map(|(cell, now)| now - cell.mean - offset));
        }
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model({} cells)", self.cells.len())
    }
}

/// A brightness moved with the light, which takes it no further than the picture's own extremes:
/// what is clipped gets no brighter.
fn shifted(value: i32, shift: i32, lowest: i32, highest: i32) -> i32 {
    let moved = value + shift;
    if shift > 0 { moved.min(highest.max(value)) } else { moved.max(lowest.min(value)) }
}

/// Whether a cell stays so dark or bright that more or less light would leave it as it is.
fn is_clipped(mean: i32, now: i32) -> bool {
    !(DARKEST..=BRIGHTEST).contains(&now) && (now - mean).abs() < STEP
}

fn weighted(value: i32, weight: i32) -> i32 {
    (value * weight + WEIGHT_ONE / 2) >> 12
}

const WEIGHT_ONE: i32 = 1 << 12;
const GAIN_ONE: i32 = 1 << 14;
/// Least difference above noise that a mean does not follow.
const CHANGE_MIN: i32 = STEP * 3 / 2;
/// Tenths of a mean deviation of noise that are no difference: 3.6 standard deviations.
const NOISE_TENTHS: i32 = 45;
/// Differences that can be judged by.
const SAMPLES_MIN: usize = 10;
/// More is not noise, whatever it is.
const NOISE_MAX: i32 = 4 * STEP;
/// Cells darker or brighter than these may be clipped, in either range and under noise.
const DARKEST: i32 = 20 * STEP;
const BRIGHTEST: i32 = 230 * STEP;
/// Cells whose change is this near to the median of all agree about the light.
const AGREE: i32 = 4 * STEP;
/// Light that changes by more from one picture to the next was switched.
const SWITCH_MIN: i32 = 6 * STEP;
/// Thousandths of the picture that are the light when they get brighter (or darker) at once, while
/// it settles, and that may be: it is waited for what the next two pictures show.
const SHARE_SWITCHED: usize = 250;
const SHARE_SETTLING: usize = 80;
const SHARE_DOUBTFUL: usize = 25;
const DOUBTFUL_MAX: u32 = 2;
/// How long lamps and the camera's exposure take to settle.
const SETTLE: Duration = Duration::from_millis(300);
/// Cells start from here when they are weighed, which keeps the sums small.
const GRAY: i32 = 128 * STEP;
/// Pictures that noise in a mean is averaged over, at 10 pictures per second.
const MEAN_PICTURES: i32 = 10;
/// How fast a mean follows: slowly enough for what moves slowly to be seen.
const MEAN_US: i32 = 500_000;
const DEVIATION_US: i32 = 3_000_000;
/// How long something must stand still to be part of the background.
const ADOPT_US: i32 = 500_000;
/// A longer pause counts as this long.
const ELAPSED_MAX_US: i32 = 1_000_000;
const LEARNED_MAX: i32 = 1 << 12;
