//! Covers areas of a picture that nobody is to see: privacy masks.
//!
//! A masked area is filled flat in all three planes before anything is scaled, drawn, encoded or
//! looked at, so what was there leaves the camera in no form. Its borders are rounded outwards to
//! even samples: a chroma sample (4:2:0) that any covered luma sample has a part in is covered too.

use super::picture::NEUTRAL;
use super::{Area, Picture};

/// Fills `areas`; what of them lies outside of the picture is nowhere.
///
/// An area of no or negative size, or one of not-a-number, covers nothing.
///
/// # Cost
///
/// Writes the covered samples once; allocates nothing.
pub fn cover(picture: &mut Picture, areas: &[Area]) {
    let luma = if picture.colour.full_range { GRAY_FULL_RANGE } else { GRAY };
    for area in areas {
        let (left, right) = span(area.x, area.width, picture.width);
        let (top, bottom) = span(area.y, area.height, picture.height);
        if left >= right || top >= bottom {
            continue;
        }
        fill(&mut picture.luma, picture.width, (left, right), (top, bottom), luma);
        let (columns, rows) = ((left / 2, right / 2), (top / 2, bottom / 2));
        fill(&mut picture.cb, picture.width / 2, columns, rows, NEUTRAL);
        fill(&mut picture.cr, picture.width / 2, columns, rows, NEUTRAL);
    }
}

/// Fills a rectangle of a plane: columns and rows from the first to before the second.
pub(super) fn fill(
    plane: &mut [u8],
    stride: usize,
    (left, right): (usize, usize),
    (top, bottom): (usize, usize),
    value: u8,
) {
    for row in plane.chunks_exact_mut(stride).take(bottom).skip(top) {
        row[left..right].fill(value);
    }
}

/// The first sample of an area along one side of `size` samples, and the one behind its last; both
/// even and inside of the picture.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "conversions of floats saturate, and not-a-number becomes zero"
)]
fn span(start: f64, len: f64, size: usize) -> (usize, usize) {
    let first = (start * size as f64).floor() as usize;
    let behind = ((start + len) * size as f64).ceil() as usize;
    if len > 0.0 { (first.min(size) & !1, behind.min(size).next_multiple_of(2)) } else { (0, 0) }
}

/// A dark gray in the range 16..=235, and the same in 0..=255.
const GRAY: u8 = 48;
const GRAY_FULL_RANGE: u8 = 37;

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small test sizes")]
mod tests {
    use super::*;
    use crate::frame::{Colour, Matrix};
    use crate::time::Instant;

    /// A picture no sample of which looks masked.
    fn picture(width: u32, height: u32) -> Picture {
        let mut picture = Picture::new(width, height);
        picture.luma.fill(200);
        picture.cb.fill(10);
        picture.cr.fill(240);
        picture
    }

    fn area(x: f64, y: f64, width: f64, height: f64) -> Area {
        Area { x, y, width, height }
    }

    /// Whether a sample of a plane that is subsampled by `step` has a part in the area.
    fn is_inside(area: &Area, (x, y): (usize, usize), step: usize, picture: &Picture) -> bool {
        let overlaps = |at: usize, start: f64, len: f64, size: usize| {
            let (first, behind) = (at * step, (at + 1) * step);
            (first as f64) < (start + len) * size as f64 && behind as f64 > start * size as f64
        };
        overlaps(x, area.x, area.width, picture.width)
            && overlaps(y, area.y, area.height, picture.height)
    }

    /// The rectangle the area lies in, grown to even samples.
    fn is_near(area: &Area, (x, y): (usize, usize), picture: &Picture) -> bool {
        is_inside(area, (x / 2, y / 2), 2, picture)
    }

    #[test]
    fn every_sample_inside_is_covered_and_none_outside_of_the_even_border() {
        let shares = [0.0, 0.01, 0.13, 0.25, 0.5, 0.77, 0.99];
        let sizes = [0.001, 0.1, 1.0 / 3.0, 0.5, 1.0];
        for (width, height) in [(2, 2), (4, 6), (32, 32), (34, 18), (50, 46), (160, 90)] {
            for (index, x) in shares.into_iter().enumerate() {
                for (turn, side) in sizes.into_iter().enumerate() {
                    let area = area(x, shares[6 - index], side, sizes[4 - turn]);
                    let mut picture = picture(width, height);
                    cover(&mut picture, &[area]);
                    assert_covered(&picture, &area);
                }
            }
        }
    }

    fn assert_covered(picture: &Picture, area: &Area) {
        let chroma = picture.width / 2;
        for y in 0..picture.height {
            for x in 0..picture.width {
                let luma = picture.luma[y * picture.width + x];
                let place = format!("{area:?} of {picture:?} at {x},{y}");
                assert!(luma == GRAY || !is_inside(area, (x, y), 1, picture), "{place}");
                let index = y / 2 * chroma + x / 2;
                let samples = (luma, picture.cb[index], picture.cr[index]);
                let covered = is_near(area, (x, y), picture);
                let wanted = if covered { (GRAY, 128, 128) } else { (200, 10, 240) };
                assert_eq!(samples, wanted, "{place}");
            }
        }
    }

    #[test]
    fn areas_across_the_borders_cover_what_is_inside_of_the_picture() {
        let mut masked = picture(64, 48);
        cover(&mut masked, &[area(-0.5, -0.5, 0.75, 0.75)]);
        assert_covered(&masked, &area(0.0, 0.0, 0.25, 0.25));
        let mut masked = picture(64, 48);
        cover(&mut masked, &[area(0.75, 0.75, f64::INFINITY, 9.0)]);
        assert_covered(&masked, &area(0.75, 0.75, 0.25, 0.25));
    }

    #[test]
    fn areas_that_are_nowhere_cover_nothing() {
        let odd = [f64::NAN, f64::NEG_INFINITY, -1.0, -0.0, 0.0];
        let mut masked = picture(64, 48);
        for value in odd {
            cover(&mut masked, &[area(0.2, 0.2, value, 0.5), area(0.2, 0.2, 0.5, value)]);
        }
        cover(&mut masked, &[area(1.0, 0.0, 1.0, 1.0), area(f64::NAN, 0.0, 1.0, 1.0)]);
        cover(&mut masked, &[area(f64::INFINITY, 0.0, 1.0, 1.0), area(-2.0, 0.0, 1.0, 1.0)]);
        assert_eq!(masked.luma, picture(64, 48).luma);
        assert_eq!(masked.cb, picture(64, 48).cb);
    }

    #[test]
    fn several_areas_are_covered_and_the_gray_fits_the_range() {
        let mut masked = picture(64, 48);
        masked.stamp(Colour { matrix: Matrix::Bt601, full_range: true }, Instant::ZERO);
        cover(&mut masked, &[area(0.0, 0.0, 0.25, 1.0), area(0.75, 0.0, 0.25, 1.0)]);
        for row in masked.luma.chunks(64) {
            let wanted = |x: usize| if (16..48).contains(&x) { 200 } else { GRAY_FULL_RANGE };
            assert!(row.iter().enumerate().all(|(x, luma)| *luma == wanted(x)));
        }
    }
}
