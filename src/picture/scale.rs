//! Scales an I420 picture to another size.
//!
//! Down by the mean of the source samples that a sample covers, those at the edges by the share
//! that is covered; up by linear interpolation between the two nearest. Each axis on its own, so a
//! picture may grow in one and shrink in the other.
//!
//! Not implemented: keeping chroma where it was sited; in steps of half a chroma sample it moves
//! with the luma's centre.
//!
//! Vertical first, into one row of sums in fixed point, then horizontal. The weights of one
//! sample add up to exactly one in both, so a flat picture stays flat. Sums are of wrapping
//! arithmetic that never wraps: with checks the loops would not become vector code.

use std::fmt;

use super::Picture;
use super::rows::{means_of_four, rows};
use crate::frame::{Frame, PixelFormat, Plane};

/// Scales pictures, at best of one size to one other.
#[derive(Default)]
pub struct Scaler {
    luma: PlaneScaler,
    chroma: PlaneScaler,
}

impl Scaler {
    /// Fills `into`, which has the size that is wanted, with the picture `from`.
    ///
    /// Rows whose source a plane is too short for keep what `into` had.
    ///
    /// # Panics
    ///
    /// When `from` is not I420: the caller's mistake.
    ///
    /// # Cost
    ///
    /// Reads every sample once per row it is needed for; allocates only when a size changes.
    pub fn scale(&mut self, from: &Frame<'_>, into: &mut Picture) {
        assert_eq!(from.format, PixelFormat::I420, "only I420 pictures are scaled");
        let [luma, cb, cr] = from.planes;
        let source = [from.width as usize, from.height as usize];
        let target = [into.width, into.height];
        self.luma.scale(luma, source, &mut into.luma, target);
        let [source, target] = [source, target].map(|size| size.map(|side| side / 2));
        self.chroma.scale(cb, source, &mut into.cb, target);
        self.chroma.scale(cr, source, &mut into.cr, target);
        into.stamp(from.colour, from.captured);
    }
}

impl fmt::Debug for Scaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scaler({:?} to {:?})", self.luma.source, self.luma.target)
    }
}

/// Scales planes of one size to one other; sizes are width and height.
#[derive(Default)]
struct PlaneScaler {
    source: [usize; 2],
    target: [usize; 2],
    horizontal: Axis,
    vertical: Axis,
    /// One row of the source's width: means of rows, in units of 1 / [`ONE`].
    sums: Vec<u32>,
}

impl PlaneScaler {
    fn scale(&mut self, from: Plane<'_>, source: [usize; 2], into: &mut [u8], target: [usize; 2]) {
        if [source, target].iter().flatten().any(|&side| side == 0) {
            return;
        }
        if source == target.map(|side| 2 * side) {
            halve(from, source[0], into);
            return;
        }
        if (source, target) != (self.source, self.target) {
            (self.source, self.target) = (source, target);
            self.horizontal = Axis::new(source[0], target[0]);
            self.vertical = Axis::new(source[1], target[1]);
            self.sums.resize(source[0], 0);
        }
        for (row, taps) in into.chunks_exact_mut(target[0]).zip(self.vertical.taps()) {
            if sum_rows(from, taps, &mut self.sums).is_none() {
                break;
            }
            self.horizontal.interpolate(&self.sums, row);
        }
    }
}

/// For every sample of the target, which samples of the source make it, and with which weights.
#[derive(Default)]
struct Axis {
    first: Vec<usize>,
    /// `per_sample` for each, from `first` on.
    weights: Vec<u16>,
    per_sample: usize,
}

impl Axis {
    fn new(source: usize, target: usize) -> Self {
        let span = if source >= target { covered } else { between };
        let spans: Vec<_> = (0..target).map(|sample| span(sample, source, target)).collect();
        let per_sample = spans.iter().map(|(_, weights)| weights.len()).max().unwrap_or(1);
        let mut axis = Self { first: vec![], weights: vec![0; target * per_sample], per_sample };
        for ((first, span), weights) in spans.iter().zip(axis.weights.chunks_exact_mut(per_sample))
        {
            let padded = (*first).min(source - per_sample);
            weights[first - padded..][..span.len()].copy_from_slice(span);
            axis.first.push(padded);
        }
        axis
    }

    fn taps(&self) -> impl Iterator<Item = (usize, &[u16])> {
        self.first.iter().copied().zip(self.weights.chunks_exact(self.per_sample.max(1)))
    }

    fn interpolate(&self, sums: &[u32], row: &mut [u8]) {
        match self.per_sample {
            2 => self.interpolate_of::<2>(sums, row),
            3 => self.interpolate_of::<3>(sums, row),
            4 => self.interpolate_of::<4>(sums, row),
            5 => self.interpolate_of::<5>(sums, row),
            _ => {
                for (sample, (first, weights)) in row.iter_mut().zip(self.taps()) {
                    *sample = weigh(&sums[first..], weights);
                }
            }
        }
    }

    /// The same with a number of weights that the compiler knows.
    fn interpolate_of<const N: usize>(&self, sums: &[u32], row: &mut [u8]) {
        let taps = self.first.iter().zip(self.weights.as_chunks::<N>().0);
        for (sample, (&first, weights)) in row.iter_mut().zip(taps) {
            *sample = weigh(&sums[first..first + N], weights);
        }
    }
}

fn weigh(sums: &[u32], weights: &[u16]) -> u8 {
    let sum = sums
        .iter()
        .zip(weights)
        .fold(HALF, |sum, (&mean, &weight)| sum.wrapping_add(mean.wrapping_mul(u32::from(weight))));
    sum.to_be_bytes()[0]
}

/// The first of the samples of the source that a smaller target's sample covers, and the share of
/// each.
fn covered(sample: usize, source: usize, target: usize) -> (usize, Vec<u16>) {
    // In a unit of which a sample of the source has `target`, and one of the target `source`.
    let (start, end) = (sample * source, (sample + 1) * source);
    let (first, last) = (start / target, (end - 1) / target);
    // Rounding what was covered so far, not each share, is what keeps their sum.
    let share_before = |place: usize| {
        let place = place.clamp(start, end) - start;
        rounded_share(place, source)
    };
    let weight = |index: usize| share_before((index + 1) * target) - share_before(index * target);
    (first, (first..=last).map(weight).collect())
}

/// The left one of the two samples of the source that a larger target's sample lies between, and
/// the share of each; one alone at the edges.
fn between(sample: usize, source: usize, target: usize) -> (usize, Vec<u16>) {
    // Centres, in a unit of which a sample of the source has `2 * target`.
    let from_first = ((2 * sample + 1) * source).saturating_sub(target);
    let (first, rest) = (from_first / (2 * target), from_first % (2 * target));
    if first + 1 >= source {
        return (source - 1, vec![ONE]);
    }
    let right = rounded_share(rest, 2 * target);
    (first, vec![ONE - right, right])
}

/// `ONE * part / whole`, rounded; `part` is at most `whole`.
fn rounded_share(part: usize, whole: usize) -> u16 {
    let (part, whole) = (part as u64, whole as u64);
    u16::try_from((part * u64::from(ONE) + whole / 2) / whole).unwrap_or(ONE)
}

/// Weighted means of whole rows; `None` when the plane is too short.
fn sum_rows(from: Plane<'_>, (first, weights): (usize, &[u16]), sums: &mut [u32]) -> Option<()> {
    let mut is_empty = true;
    for (index, &weight) in (first..).zip(weights).filter(|(_, weight)| **weight > 0) {
        let row = from.bytes.get(index * from.stride..)?.get(..sums.len())?;
        let samples = sums.iter_mut().zip(row);
        // 15 bits at most, which lets the product be one of 16-bit words.
        let weight = u32::from(weight & 0x7fff);
        if is_empty {
            samples.for_each(|(sum, &sample)| *sum = u32::from(sample).wrapping_mul(weight));
        } else {
            samples.for_each(|(sum, &sample)| {
                *sum = sum.wrapping_add(u32::from(sample).wrapping_mul(weight));
            });
        }
        is_empty = false;
    }
    Some(())
}

/// Half the width and half the height, by the rounded mean of four: the commonest ratio.
fn halve(from: Plane<'_>, width: usize, into: &mut [u8]) {
    let mut source = rows(from, width);
    for row in into.chunks_exact_mut(width / 2) {
        let (Some(upper), Some(lower)) = (source.next(), source.next()) else { break };
        means_of_four(upper, lower, row);
    }
}

/// What the weights of a sample add up to, in each axis: 255 times its square, and [`HALF`], fit
/// 32 bits.
const ONE: u16 = 1 << 12;
/// Half a sample, in the square of [`ONE`].
const HALF: u32 = 1 << 23;

#[cfg(test)]
mod tests;
