#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small test sizes")]

use super::*;
use crate::frame::{Colour, Matrix};
use crate::time::Instant;

const FORMATS: [PixelFormat; 6] = [
    PixelFormat::Yuyv,
    PixelFormat::Uyvy,
    PixelFormat::Nv12,
    PixelFormat::Nv21,
    PixelFormat::I420,
    PixelFormat::Yv12,
];

/// Noise that differs from byte to byte and from plane to plane.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Buffers for one picture: `extra` bytes after every row but the last.
fn buffers(
    format: PixelFormat,
    width: usize,
    height: usize,
    extra: usize,
) -> Vec<(Vec<u8>, usize)> {
    let shapes = match format {
        PixelFormat::Yuyv | PixelFormat::Uyvy | PixelFormat::Mjpeg => {
            vec![(2 * width, height)]
        }
        PixelFormat::Nv12 | PixelFormat::Nv21 => vec![(width, height), (width, height / 2)],
        PixelFormat::I420 | PixelFormat::Yv12 => {
            vec![(width, height), (width / 2, height / 2), (width / 2, height / 2)]
        }
    };
    let buffer = |(plane, (row, rows)): (usize, (usize, usize))| {
        let stride = row + extra + plane;
        (noise(stride * (rows - 1) + row, (width * height + plane + 1) as u32), stride)
    };
    shapes.into_iter().enumerate().map(buffer).collect()
}

fn frame(
    format: PixelFormat,
    width: usize,
    height: usize,
    buffers: &[(Vec<u8>, usize)],
) -> Frame<'_> {
    let mut planes = [Plane::default(); 3];
    for (plane, (bytes, stride)) in planes.iter_mut().zip(buffers) {
        *plane = Plane { bytes, stride: *stride };
    }
    let colour = Colour { matrix: Matrix::Bt709, full_range: true };
    let captured = Instant::from_micros(42);
    Frame { format, width: width as u32, height: height as u32, colour, captured, planes }
}

/// One sample, by the formats' definitions: plane 0 is Y, 1 is Cb, 2 is Cr.
fn reference(frame: &Frame<'_>, plane: usize, (x, y): (usize, usize)) -> u8 {
    let at = |plane: usize, x: usize, y: usize| {
        let Plane { bytes, stride } = frame.planes[plane];
        bytes[y * stride + x]
    };
    let packed = |offset: usize| {
        let mean = |a: u8, b: u8| ((f64::from(a) + f64::from(b)) / 2.0).round() as u8;
        mean(at(0, 4 * x + offset, 2 * y), at(0, 4 * x + offset, 2 * y + 1))
    };
    match (frame.format, plane) {
        (PixelFormat::Yuyv, 0) => at(0, 2 * x, y),
        (PixelFormat::Yuyv, 1) => packed(1),
        (PixelFormat::Yuyv, _) => packed(3),
        (PixelFormat::Uyvy, 0) => at(0, 2 * x + 1, y),
        (PixelFormat::Uyvy, 1) => packed(0),
        (PixelFormat::Uyvy, _) => packed(2),
        (PixelFormat::Nv12, 1) | (PixelFormat::Nv21, 2) => at(1, 2 * x, y),
        (PixelFormat::Nv12, 2) | (PixelFormat::Nv21, 1) => at(1, 2 * x + 1, y),
        (PixelFormat::Yv12, 1) => at(2, x, y),
        (PixelFormat::Yv12, 2) => at(1, x, y),
        (_, plane) => at(plane, x, y),
    }
}

const ORIENTATIONS: [Orientation; 4] = [
    Orientation { is_upside_down: false, is_mirrored: false },
    Orientation { is_upside_down: false, is_mirrored: true },
    Orientation { is_upside_down: true, is_mirrored: false },
    Orientation { is_upside_down: true, is_mirrored: true },
];

/// Where the source has the sample that belongs at `x`, `y` of a plane of that size.
fn origin(
    orientation: Orientation,
    (width, height): (usize, usize),
    (x, y): (usize, usize),
) -> (usize, usize) {
    // Undone in the reverse order: the mirror first, then half a turn.
    let (mut x, mut y) = (x, y);
    if orientation.is_mirrored {
        x = width - 1 - x;
    }
    if orientation.is_upside_down {
        (x, y) = (width - 1 - x, height - 1 - y);
    }
    (x, y)
}

fn assert_equals_reference(converted: &Frame<'_>, source: &Frame<'_>, orientation: Orientation) {
    assert_eq!(converted.format, PixelFormat::I420);
    assert_eq!((converted.width, converted.height), (source.width, source.height));
    assert_eq!((converted.colour, converted.captured), (source.colour, source.captured));
    for plane in 0..3 {
        let shift = usize::from(plane > 0);
        let size = (source.width as usize >> shift, source.height as usize >> shift);
        for y in 0..size.1 {
            for x in 0..size.0 {
                let Plane { bytes, stride } = converted.planes[plane];
                let from = origin(orientation, size, (x, y));
                let (got, wanted) = (bytes[y * stride + x], reference(source, plane, from));
                assert_eq!(
                    got, wanted,
                    "{:?} {orientation:?} {size:?} plane {plane} at {x},{y}",
                    source.format
                );
            }
        }
    }
}

fn converted(source: &Frame<'_>, orientation: Orientation) -> Picture {
    let mut picture = Picture::default();
    Converter::new(orientation).convert(source, &mut picture).unwrap();
    picture
}

#[test]
fn every_format_size_and_orientation_equals_the_definition_sample_by_sample() {
    for format in FORMATS {
        for width in (2..=70).step_by(2) {
            for (height, extra) in [(2, 0), (4, 1), (6, 13), (10, 0)] {
                let buffers = buffers(format, width, height, extra);
                let source = frame(format, width, height, &buffers);
                for orientation in ORIENTATIONS {
                    let picture = converted(&source, orientation);
                    assert_equals_reference(&picture.frame(), &source, orientation);
                }
            }
        }
    }
}

#[test]
fn an_arrow_points_the_other_way_in_a_mirror_and_down_when_turned() {
    // Bright at the left upper corner; chroma brighter there too.
    let luma = [9, 1, 1, 1, 1, 1, 1, 1];
    let (cb, cr) = ([7, 2], [8, 3]);
    let buffers = [(luma.to_vec(), 4), (cb.to_vec(), 2), (cr.to_vec(), 2)];
    let source = frame(PixelFormat::I420, 4, 2, &buffers);
    let corner = |is_upside_down, is_mirrored| {
        let picture = converted(&source, Orientation { is_upside_down, is_mirrored });
        let place = picture.luma.iter().position(|&sample| sample == 9).unwrap();
        (place, picture.cb, picture.cr)
    };
    assert_eq!(corner(false, false), (0, vec![7, 2], vec![8, 3]));
    assert_eq!(corner(false, true), (3, vec![2, 7], vec![3, 8]));
    assert_eq!(corner(true, false), (7, vec![2, 7], vec![3, 8]));
    assert_eq!(corner(true, true), (4, vec![7, 2], vec![8, 3]));
}

#[test]
fn only_planar_pictures_are_read_where_they_lie() {
    for format in FORMATS {
        let buffers = buffers(format, 16, 8, 0);
        let source = frame(format, 16, 8, &buffers);
        let Some(same) = in_place(&source) else {
            assert_ne!(format.plane_count(), 3, "{format:?}");
            continue;
        };
        assert_eq!(same.planes[0].bytes.as_ptr(), buffers[0].0.as_ptr());
        assert_equals_reference(&same, &source, Orientation::default());
    }
}

#[test]
fn a_picture_leaves_nothing_behind_in_the_next() {
    for orientation in ORIENTATIONS {
        let mut converter = Converter::new(orientation);
        let mut picture = Picture::default();
        for (index, format) in FORMATS.into_iter().chain(FORMATS).enumerate() {
            let width = 34 + 2 * (index % 3);
            let buffers = buffers(format, width, 6, index);
            let source = frame(format, width, 6, &buffers);
            converter.convert(&source, &mut picture).unwrap();
            assert_equals_reference(&picture.frame(), &source, orientation);
        }
    }
}

#[test]
fn planes_that_are_too_short_are_read_as_far_as_they_go() {
    for (format, orientation) in FORMATS.into_iter().zip(ORIENTATIONS.into_iter().cycle()) {
        let whole = buffers(format, 16, 8, 3);
        for cut in 0..=whole[0].0.len() {
            let mut short = whole.clone();
            for (bytes, _) in &mut short {
                bytes.truncate(cut);
            }
            let source = frame(format, 16, 8, &short);
            let picture = converted(&source, orientation);
            if cut == whole[0].0.len() {
                assert_equals_reference(&picture.frame(), &source, orientation);
            }
        }
        let none = Frame { planes: [Plane::default(); 3], ..frame(format, 16, 8, &whole) };
        assert_eq!(converted(&none, orientation).luma, Picture::new(16, 8).luma);
    }
}

/// The four quarters of a JPEG image follow the orientation like those of any other picture.
#[test]
fn a_jpeg_image_is_turned_like_any_other_picture() {
    let jpeg: &[u8] = include_bytes!("../../../tests/data/jpeg/422-without-tables.jpg");
    let planes = [Plane { bytes: jpeg, stride: 0 }, Plane::default(), Plane::default()];
    let source = Frame { planes, ..frame(PixelFormat::Mjpeg, 64, 48, &[]) };
    let upright = converted(&source, Orientation::default());
    assert_ne!(upright.luma, Picture::new(64, 48).luma);
    for orientation in ORIENTATIONS {
        let turned = converted(&source, orientation);
        let wanted = converted(&upright.frame(), orientation);
        assert_eq!(turned.luma, wanted.luma, "{orientation:?}");
        assert_eq!((turned.cb, turned.cr), (wanted.cb, wanted.cr), "{orientation:?}");
        assert_eq!((turned.colour, turned.captured), (source.colour, source.captured));
    }
}
