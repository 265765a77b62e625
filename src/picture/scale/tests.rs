#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small test sizes")]

use super::*;
use crate::frame::{Colour, Matrix};
use crate::time::Instant;

/// A picture by its samples: plane, x, y.
fn picture(width: u32, height: u32, sample: impl Fn(usize, usize, usize) -> u8) -> Picture {
    let mut picture = Picture::new(width, height);
    picture.stamp(Colour { matrix: Matrix::Bt709, full_range: true }, Instant::from_micros(42));
    let width = width as usize;
    let planes = [&mut picture.luma, &mut picture.cb, &mut picture.cr];
    for ((index, plane), width) in planes.into_iter().enumerate().zip([width, width / 2, width / 2])
    {
        for (place, value) in plane.iter_mut().enumerate() {
            *value = sample(index, place % width, place / width);
        }
    }
    picture
}

fn noise(plane: usize, x: usize, y: usize) -> u8 {
    let mixed = (plane * 7919 + x * 104_729 + y * 1_299_709) as u32;
    (mixed.wrapping_mul(2_654_435_761) >> 24) as u8
}

fn scaled(from: &Picture, width: u32, height: u32) -> Picture {
    let mut into = Picture::new(width, height);
    Scaler::default().scale(&from.frame(), &mut into);
    into
}

fn planes(picture: &Picture) -> [(&[u8], usize); 3] {
    let chroma = picture.width / 2;
    [(&picture.luma, picture.width), (&picture.cb, chroma), (&picture.cr, chroma)]
}

#[test]
fn a_flat_picture_stays_flat_at_every_size() {
    let mut scaler = Scaler::default();
    for value in [0, 1, 128, 254, 255] {
        for from in [(2, 2), (16, 12), (34, 70), (66, 18), (320, 180)] {
            let source = picture(from.0, from.1, |plane, _, _| value ^ plane as u8);
            for to in (2..=70).step_by(2) {
                let mut into = Picture::new(to, 72 - to);
                scaler.scale(&source.frame(), &mut into);
                for (index, (plane, _)) in planes(&into).into_iter().enumerate() {
                    let wanted = value ^ index as u8;
                    assert!(plane.iter().all(|&got| got == wanted), "{value} {from:?} {to}");
                }
            }
        }
    }
}

/// Every even size to every other, each compared with the definition in floating point.
#[test]
fn every_size_from_2_to_70_equals_the_definition() {
    let mut scaler = Scaler::default();
    for from in (2..=70).step_by(2) {
        let source = picture(from, 6, noise);
        for to in (2..=70).step_by(2) {
            let mut wide = Picture::new(to, 8);
            scaler.scale(&source.frame(), &mut wide);
            assert_equals_reference(&wide, &source);
        }
        let source = picture(6, from, noise);
        for to in (2..=70).step_by(2) {
            let mut high = Picture::new(4, to);
            scaler.scale(&source.frame(), &mut high);
            assert_equals_reference(&high, &source);
        }
    }
}

/// The share of each sample of the source in one of the target, by the definition.
fn shares(sample: usize, source: usize, target: usize) -> Vec<f64> {
    let ratio = source as f64 / target as f64;
    let start = sample as f64 * ratio;
    let share = |index: usize| {
        let index = index as f64;
        if source >= target {
            ((start + ratio).min(index + 1.0) - start.max(index)).max(0.0) / ratio
        } else {
            let place = (start + ratio / 2.0 - 0.5).clamp(0.0, source as f64 - 1.0);
            (1.0 - (place - index).abs()).max(0.0)
        }
    };
    (0..source).map(share).collect()
}

fn assert_equals_reference(scaled: &Picture, source: &Picture) {
    for ((got, width), (from, from_width)) in planes(scaled).into_iter().zip(planes(source)) {
        let (height, from_height) = (got.len() / width, from.len() / from_width);
        let columns: Vec<_> = (0..width).map(|x| shares(x, from_width, width)).collect();
        for y in 0..height {
            let rows = shares(y, from_height, height);
            for (x, columns) in columns.iter().enumerate() {
                let row = |row: &[u8]| -> f64 {
                    row.iter().zip(columns).map(|(&sample, share)| f64::from(sample) * share).sum()
                };
                let wanted: f64 = from
                    .chunks_exact(from_width)
                    .zip(&rows)
                    .map(|(from, share)| row(from) * share)
                    .sum();
                let got = f64::from(got[y * width + x]);
                assert!(
                    (got - wanted).abs() < 0.75,
                    "{from_width}x{from_height} to {width}x{height} at {x},{y}: {got} not {wanted}"
                );
            }
        }
    }
}

#[test]
fn half_the_size_is_the_rounded_mean_of_four() {
    for width in (4..=72).step_by(4) {
        let source = picture(width, 12, noise);
        let half = scaled(&source, width / 2, 6);
        for ((half, width), (source, stride)) in planes(&half).into_iter().zip(planes(&source)) {
            for (place, &got) in half.iter().enumerate() {
                let at = 2 * (place / width) * stride + 2 * (place % width);
                let four =
                    [at, at + 1, at + stride, at + stride + 1].map(|at| u16::from(source[at]));
                assert_eq!(u16::from(got), (four.iter().sum::<u16>() + 2) / 4);
            }
        }
    }
}

#[test]
fn a_ramp_stays_a_ramp() {
    for (from, to) in [(1280, 480), (640, 352), (320, 640), (300, 500), (704, 702)] {
        let ramp = |x: usize, width: usize| (255.0 * (x as f64 + 0.5) / width as f64) as u8;
        let source =
            picture(from, 8, |plane, x, _| ramp(x, from as usize >> usize::from(plane > 0)));
        for (plane, width) in planes(&scaled(&source, to, 6)) {
            for row in plane.chunks_exact(width) {
                assert!(row.is_sorted(), "{from} to {to}");
                for (x, &sample) in row.iter().enumerate() {
                    let error = sample.abs_diff(ramp(x, width));
                    assert!(error <= 1, "{from} to {to} at {x}: {error}");
                }
            }
        }
    }
}

#[test]
fn the_mean_stays_when_a_picture_shrinks() {
    let mean = |plane: &[u8]| {
        plane.iter().map(|&sample| f64::from(sample)).sum::<f64>() / plane.len() as f64
    };
    let source = picture(320, 180, noise);
    for to in [(160, 90), (120, 68), (318, 178), (106, 60), (34, 18), (2, 2)] {
        let small = scaled(&source, to.0, to.1);
        for ((small, _), (source, _)) in planes(&small).into_iter().zip(planes(&source)) {
            let difference = (mean(small) - mean(source)).abs();
            assert!(difference < 0.5, "{to:?}: {difference}");
        }
    }
}

#[test]
fn the_same_size_is_a_copy_and_keeps_what_the_picture_says_of_itself() {
    let source = picture(34, 18, noise);
    let same = scaled(&source, 34, 18);
    assert_eq!(planes(&same), planes(&source));
    assert_eq!((same.colour, same.captured), (source.colour, source.captured));
}

#[test]
fn rows_are_read_at_their_stride_and_short_planes_as_far_as_they_go() {
    let source = picture(32, 18, noise);
    let padded: Vec<Vec<u8>> = planes(&source)
        .iter()
        .map(|(plane, width)| {
            plane.chunks_exact(*width).flat_map(|row| [row, &[9; 5]].concat()).collect()
        })
        .collect();
    let mut frame = source.frame();
    for (plane, bytes) in frame.planes.iter_mut().zip(&padded) {
        *plane = Plane { bytes, stride: plane.stride + 5 };
    }
    for (width, height) in [(16, 9 + 1), (16, 18), (64, 36), (10, 6)] {
        let mut into = Picture::new(width, height);
        Scaler::default().scale(&frame, &mut into);
        assert_eq!(planes(&into), planes(&scaled(&source, width, height)));
        for cut in 0..padded[0].len() {
            let mut short = frame;
            for plane in &mut short.planes {
                plane.bytes = &plane.bytes[..cut.min(plane.bytes.len())];
            }
            Scaler::default().scale(&short, &mut into);
        }
    }
}
