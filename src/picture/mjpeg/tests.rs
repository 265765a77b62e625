#![allow(clippy::cast_possible_truncation, reason = "small test sizes")]

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::*;
use crate::frame::{Colour, Frame, PixelFormat, Plane};
use crate::picture::with_huffman_tables;
use crate::picture::{Converter, Picture};
use crate::time::Instant;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/data/jpeg/", $name)).as_slice()
    };
}

const BARS: &[u8] = fixture!("422.jpg");
const BARS_WITHOUT_TABLES: &[u8] = fixture!("422-without-tables.jpg");

fn decode(jpeg: &[u8], width: u32, height: u32) -> Result<Picture, Undecodable> {
    let mut picture = Picture::default();
    convert(&mut Converter::default(), jpeg, width, height, &mut picture).map(|()| picture)
}

fn convert(
    converter: &mut Converter,
    jpeg: &[u8],
    width: u32,
    height: u32,
    into: &mut Picture,
) -> Result<(), Undecodable> {
    let frame = Frame {
        format: PixelFormat::Mjpeg,
        width,
        height,
        colour: Colour { full_range: true, ..Colour::default() },
        captured: Instant::ZERO,
        planes: [Plane { bytes: jpeg, stride: 0 }, Plane::default(), Plane::default()],
    };
    converter.convert(&frame, into)
}

/// Peak signal to noise ratio, in dB.
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let error = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b)).powi(2);
    let mean = a.iter().zip(b).map(error).sum::<f64>() / a.len() as f64;
    10.0 * (255.0 * 255.0 / mean.max(1e-9)).log10()
}

fn planes_psnr(picture: &Picture, reference: &[u8]) -> [f64; 3] {
    let (luma, chroma) = reference.split_at(picture.luma.len());
    let (cb, cr) = chroma.split_at(picture.cb.len());
    [psnr(&picture.luma, luma), psnr(&picture.cb, cb), psnr(&picture.cr, cr)]
}

/// Whether every sample lies between its neighbours of the reference, which is as far as the
/// decoder's chroma may be smoothed.
fn is_among_neighbours(plane: &[u8], reference: &[u8], width: usize) -> bool {
    let height = plane.len() / width;
    plane.iter().enumerate().all(|(index, sample)| {
        let (x, y) = (index % width, index / width);
        let rows = y.saturating_sub(1)..=(y + 1).min(height - 1);
        let columns = x.saturating_sub(1)..=(x + 1).min(width - 1);
        let near = rows.flat_map(|y| columns.clone().map(move |x| reference[y * width + x]));
        let (least, most) = near.fold((255_u8, 0), |(a, b), near| (a.min(near), b.max(near)));
        (least.saturating_sub(3)..=most.saturating_add(3)).contains(sample)
    })
}

#[test]
fn what_is_decoded_is_what_ffmpeg_decodes() {
    for (name, jpeg, reference, width, height) in [
        ("4:2:2", BARS, fixture!("422.yuv"), 64, 48),
        ("no tables", BARS_WITHOUT_TABLES, fixture!("422.yuv"), 64, 48),
        ("4:2:2, ffmpeg", fixture!("422-ffmpeg.jpg"), fixture!("422-ffmpeg.yuv"), 64, 48),
        ("4:2:0", fixture!("420.jpg"), fixture!("420.yuv"), 50, 38),
        ("grey", fixture!("gray.jpg"), fixture!("gray.yuv"), 64, 48),
    ] {
        let picture = decode(jpeg, width, height).unwrap();
        let [luma, cb, cr] = planes_psnr(&picture, reference);
        assert!(luma > 60.0 && cb > 27.0 && cr > 27.0, "{name}: {luma:.1} {cb:.1} {cr:.1} dB");
        let (_, chroma) = reference.split_at(picture.luma.len());
        let (cb, cr) = chroma.split_at(picture.cb.len());
        assert!(is_among_neighbours(&picture.cb, cb, width as usize / 2), "{name}");
        assert!(is_among_neighbours(&picture.cr, cr, width as usize / 2), "{name}");
    }
    let grey = decode(fixture!("gray.jpg"), 64, 48).unwrap();
    assert!(grey.cb.iter().chain(&grey.cr).all(|&sample| sample == 128));
}

#[test]
fn an_image_without_tables_gets_the_standard_ones() {
    let completed = with_huffman_tables(BARS_WITHOUT_TABLES);
    assert_eq!(completed.len(), BARS_WITHOUT_TABLES.len() + HUFFMAN_TABLES.len());
    assert_eq!(planes_of(&completed), planes_of(BARS));
    assert_eq!(planes_of(BARS_WITHOUT_TABLES), planes_of(BARS));
}

fn planes_of(jpeg: &[u8]) -> [Vec<u8>; 3] {
    let picture = decode(jpeg, 64, 48).unwrap();
    [picture.luma, picture.cb, picture.cr]
}

#[test]
fn an_image_with_tables_or_none_at_all_is_handed_on_as_it_is() {
    for jpeg in [BARS, fixture!("422-ffmpeg.jpg"), b"no image", b"", &BARS[..30]] {
        assert_eq!(*with_huffman_tables(jpeg), *jpeg);
    }
}

#[test]
fn padding_around_an_image_is_normal() {
    let mut padded = vec![0; 5];
    padded.extend_from_slice(BARS_WITHOUT_TABLES);
    padded.extend([0; 7]);
    padded.extend_from_slice(&BARS[500..]);
    assert_eq!(planes_of(&padded), planes_of(BARS));
    assert_eq!(planes_of(&with_huffman_tables(&padded)), planes_of(BARS));
}

/// As libjpeg reports them: "extraneous bytes before marker 0xd9".
#[test]
fn bytes_too_many_before_the_end_are_normal() {
    let mut jpeg = BARS[..BARS.len() - 2].to_vec();
    jpeg.extend([0, 0, 0x55, 0xff, 0xff, 0xd9]);
    assert_eq!(planes_of(&jpeg), planes_of(BARS));
}

#[test]
fn an_image_that_is_cut_off_anywhere_is_refused() {
    for jpeg in [BARS, BARS_WITHOUT_TABLES, fixture!("gray.jpg"), fixture!("422-ffmpeg.jpg")] {
        for len in 0..jpeg.len() {
            assert!(decode(&jpeg[..len], 64, 48).is_err(), "{len} of {}", jpeg.len());
        }
    }
}

#[test]
fn an_image_that_lacks_its_lower_half_is_refused_although_it_ends_well() {
    let half = BARS.len() - (BARS.len() - 700) / 2;
    let mut jpeg = BARS[..half].to_vec();
    jpeg.extend([0xff, 0xd9]);
    assert!(decode(&jpeg, 64, 48).is_err());
}

#[test]
fn a_refused_image_leaves_the_picture_before() {
    let mut converter = Converter::default();
    let mut picture = Picture::default();
    convert(&mut converter, BARS, 64, 48, &mut picture).unwrap();
    let before = picture.clone();
    let half = BARS.len() / 2;
    convert(&mut converter, &BARS[..half], 64, 48, &mut picture).unwrap_err();
    assert_eq!([picture.luma, picture.cb, picture.cr], [before.luma, before.cb, before.cr]);
}

/// An image of noise, as the other encoder writes it.
fn noise(width: u16, height: u16, set: impl Fn(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let samples: Vec<_> =
        (0..3 * usize::from(width) * usize::from(height)).map(|_| next()).collect();
    let mut jpeg = vec![];
    let mut encoder = Encoder::new(&mut jpeg, 80);
    set(&mut encoder);
    encoder.encode(&samples, width, height, ColorType::Ycbcr).unwrap();
    jpeg
}

#[test]
fn restart_markers_change_nothing() {
    for sampling in [SamplingFactor::R_4_4_4, SamplingFactor::R_4_2_2, SamplingFactor::R_4_2_0] {
        let plain = noise(64, 48, |encoder| encoder.set_sampling_factor(sampling));
        for interval in [1, 2, 3, 4, 7] {
            let restarted = noise(64, 48, |encoder| {
                encoder.set_sampling_factor(sampling);
                encoder.set_restart_interval(interval);
            });
            assert!(restarted.len() > plain.len());
            assert_eq!(planes_of(&restarted), planes_of(&plain), "{sampling:?} {interval}");
        }
    }
}

#[test]
fn what_is_not_a_baseline_image_of_the_pictures_size_is_refused_with_its_reason() {
    let progressive = noise(64, 48, |encoder| encoder.set_progressive(true));
    let several_scans = noise(64, 48, |encoder| encoder.set_optimized_huffman_tables(true));
    let changed = |offset: usize, value: &[u8]| {
        let mut jpeg = BARS.to_vec();
        let frame_header = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        jpeg[frame_header + offset..][..value.len()].copy_from_slice(value);
        jpeg
    };
    for (jpeg, reason) in [
        (progressive, "not a baseline JPEG image"),
        (several_scans, "a JPEG image of several scans"),
        (changed(4, &[12]), "a JPEG image of more than 8 bits per sample"),
        (changed(5, &[0xff; 4]), "a JPEG image of another size"),
        (changed(5, &[0; 4]), "a JPEG image of another size"),
        (changed(5, &[0, 64, 0, 48]), "a JPEG image of another size"),
        (changed(11, &[0x44]), "a JPEG image of unusual sampling"),
        (changed(11, &[0x00]), "a JPEG image of unusual sampling"),
        (changed(9, &[2]), "a corrupt JPEG image"),
        (b"GIF89a".to_vec(), "no JPEG image"),
        (vec![0; 100], "no JPEG image"),
        (vec![0xff; 100], "no JPEG image"),
        (vec![], "no JPEG image"),
    ] {
        assert_eq!(decode(&jpeg, 64, 48).unwrap_err(), Undecodable { reason });
    }
}

/// Every byte of the headers at every value that breaks something, then random ones anywhere.
#[test]
fn no_change_of_bytes_makes_it_panic() {
    let mut converter = Converter::default();
    let mut picture = Picture::default();
    let mut refused = 0;
    let seeds = [BARS, BARS_WITHOUT_TABLES, fixture!("gray.jpg"), fixture!("422-ffmpeg.jpg")];
    let mut refuse = |jpeg: &[u8]| {
        refused += u32::from(convert(&mut converter, jpeg, 64, 48, &mut picture).is_err());
    };
    for seed in seeds {
        let mut jpeg = seed.to_vec();
        for at in 0..700.min(seed.len()) {
            for value in [0, 1, 2, 0x0f, 0x10, 0x22, 0x7f, 0x80, 0xc4, 0xfe, 0xff] {
                jpeg[at] = value;
                refuse(&jpeg);
            }
            jpeg[at] = seed[at];
        }
        let mut state = 7_u32;
        for _ in 0..5_000 {
            for _ in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                jpeg[(state >> 8) as usize % seed.len()] = state as u8 ^ (state >> 24) as u8;
            }
            refuse(&jpeg);
            jpeg.copy_from_slice(seed);
        }
    }
    assert!(refused > 1_000, "{refused}");
}

/// A legal image whose DC values grow without end: as many steps of +2047 as it has blocks.
#[test]
fn brightness_that_grows_beyond_every_sample_does_not_end_the_camera() {
    let (width, height) = (640_u16, 480_u16);
    let mut jpeg = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    jpeg.extend([255; 64]);
    jpeg.extend([0xff, 0xc0, 0, 11, 8]);
    jpeg.extend([height.to_be_bytes(), width.to_be_bytes()].concat());
    jpeg.extend([1, 1, 0x11, 0]);
    jpeg.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0]);
    // T.81 tables K.3 and K.5: DC category 11, its eleven bits, and the end of the block.
    let block = "111111110".chars().chain("11111111111".chars()).chain("1010".chars());
    let count = usize::from(width) * usize::from(height) / 64;
    let bits: Vec<u8> =
        std::iter::repeat_n(block, count).flatten().map(|bit| u8::from(bit == '1')).collect();
    for byte in bits.chunks(8) {
        let byte = byte.iter().fold(0, |byte, bit| byte << 1 | bit);
        jpeg.push(byte);
        if byte == 0xff {
            jpeg.push(0);
        }
    }
    jpeg.extend([0xff, 0xd9]);
    let _ = decode(&jpeg, width.into(), height.into());
}
