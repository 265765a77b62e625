#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "test samples")]

use super::*;
use crate::picture::{Converter, Picture};

const FULL: Colour = Colour { matrix: Matrix::Bt601, full_range: true };
const LIMITED: Colour = Colour { full_range: false, ..FULL };

/// Soft waves that use every value of the range.
fn waves(width: u32, height: u32, colour: Colour) -> Picture {
    let mut picture = Picture::new(width, height);
    picture.stamp(colour, crate::time::Instant::ZERO);
    let (black, luma, chroma) =
        if colour.full_range { (0.0, 255.0, 255.0) } else { (16.0, 219.0, 224.0) };
    let columns = width as usize;
    for (place, sample) in picture.luma.iter_mut().enumerate() {
        let (x, y) = ((place % columns) as f64, (place / columns) as f64);
        *sample = (black + luma * (0.5 + 0.5 * (x / 11.0).sin() * (y / 13.0).cos())).round() as u8;
    }
    for (index, plane) in [&mut picture.cb, &mut picture.cr].into_iter().enumerate() {
        for (place, sample) in plane.iter_mut().enumerate() {
            let (x, y) = ((place % (columns / 2)) as f64, (place / (columns / 2)) as f64);
            let wave = ((x + 5.0 * index as f64) / 9.0).cos() * (y / 8.0).sin();
            *sample = (128.0 + 0.5 * chroma * wave).round().min(255.0) as u8;
        }
    }
    picture
}

fn decode(jpeg: &[u8], width: u32, height: u32) -> Picture {
    let planes = [Plane { bytes: jpeg, stride: 0 }, Plane::default(), Plane::default()];
    let format = PixelFormat::Mjpeg;
    let frame = Frame { format, width, height, colour: FULL, planes, ..Picture::new(2, 2).frame() };
    let mut picture = Picture::default();
    Converter::default().convert(&frame, &mut picture).unwrap();
    picture
}

/// The largest difference, and the mean one.
fn difference(a: &[u8], b: &[u8]) -> (u8, f64) {
    assert_eq!(a.len(), b.len());
    let each = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
    (each.clone().max().unwrap(), each.map(f64::from).sum::<f64>() / a.len() as f64)
}

#[test]
fn what_is_decoded_is_what_was_encoded_in_full_range() {
    for (width, height) in [(64, 48), (50, 38), (2, 2), (18, 34)] {
        // The same drawing, once as it is to come out.
        let wanted = waves(width, height, FULL);
        for colour in [FULL, LIMITED] {
            let jpeg = encode(&waves(width, height, colour).frame(), 95).unwrap();
            let got = decode(&jpeg, width, height);
            let planes = [(&got.luma, &wanted.luma), (&got.cb, &wanted.cb), (&got.cr, &wanted.cr)];
            for (got, wanted) in planes {
                let (most, mean) = difference(got, wanted);
                assert!(most <= 12 && mean < 2.5, "{colour:?} {width}x{height}: {most} {mean}");
            }
        }
    }
}

#[test]
fn limited_range_ends_at_black_and_white() {
    let luma = |colour, sample| Jfif::of(colour).samples([sample; 2], [128; 2]).0[0];
    for (limited, full) in [(0, 0), (16, 0), (126, 128), (235, 255), (255, 255)] {
        assert_eq!(luma(LIMITED, limited), full);
        assert_eq!(luma(FULL, limited), limited);
    }
    let chroma = |colour, sample| Jfif::of(colour).samples([128; 2], [sample, 128]).1;
    for (limited, full) in [(0, 0), (16, 0), (72, 64), (128, 128), (240, 255), (255, 255)] {
        assert_eq!(chroma(LIMITED, limited), [full, 128]);
        assert_eq!(chroma(FULL, limited), [limited, 128]);
    }
}

/// Y, Cb and Cr of R, G and B in full range, by the definition.
fn samples_of(rgb: [f64; 3], red: f64, blue: f64) -> [u8; 3] {
    let [r, g, b] = rgb;
    let luma = red * r + (1.0 - red - blue) * g + blue * b;
    let (cb, cr) = ((b - luma) / (2.0 - 2.0 * blue), (r - luma) / (2.0 - 2.0 * red));
    [luma, cb + 128.0, cr + 128.0].map(|sample| sample.round().clamp(0.0, 255.0) as u8)
}

#[test]
fn a_colour_stays_the_same_colour_whatever_its_matrix() {
    let steps = [0.0, 64.0, 128.0, 192.0, 255.0];
    for r in steps {
        for g in steps {
            for b in steps {
                let [luma, cb, cr] = samples_of([r, g, b], 0.2126, 0.0722);
                let bt709 = Jfif::of(Colour { matrix: Matrix::Bt709, ..FULL });
                let ([luma, _], [cb, cr]) = bt709.samples([luma; 2], [cb, cr]);
                let wanted = samples_of([r, g, b], 0.299, 0.114);
                for (got, wanted) in [luma, cb, cr].into_iter().zip(wanted) {
                    assert!(got.abs_diff(wanted) <= 1, "{r} {g} {b}: {got} not {wanted}");
                }
            }
        }
    }
}

#[test]
fn more_quality_is_more_bytes_and_any_number_is_taken() {
    let picture = waves(64, 48, LIMITED);
    let sizes =
        [0, 1, 50, 80, 100, 255].map(|quality| encode(&picture.frame(), quality).unwrap().len());
    assert!(sizes.is_sorted() && sizes[1] < sizes[4], "{sizes:?}");
}

#[test]
fn short_planes_are_black_and_sides_that_do_not_fit_an_error() {
    let picture = waves(64, 48, FULL);
    let short = |len: usize| {
        let mut frame = picture.frame();
        frame.planes = frame.planes.map(|plane| Plane { bytes: &plane.bytes[..len], ..plane });
        decode(&encode(&frame, 95).unwrap(), 64, 48)
    };
    for len in 0..700 {
        let _ = short(len);
    }
    let nothing = short(0);
    assert!(nothing.luma.iter().all(|&sample| sample < 3));
    for (width, height) in [(65536, 2), (2, 65536), (0, 0), (63, 48), (64, 47)] {
        encode(&Frame { width, height, ..picture.frame() }, 80).unwrap_err();
    }
}
