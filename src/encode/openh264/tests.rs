use openh264::decoder::Decoder;
use openh264::formats::YUVSource as _;

use super::*;
use crate::encode::Encoder as _;
use crate::frame::Plane;
use crate::h264::{NalType, ParameterSets, begins_picture, sei};

const SIZE: (u32, u32) = (320, 240);

fn settings() -> Settings {
    Settings {
        fps: 30.0,
        bitrate_bps: 500_000,
        gop: Duration::from_secs(1),
        colour: Colour { matrix: Matrix::Bt601, full_range: true },
        threads: 1,
    }
}

/// A gradient with some noise that moves: work for the rate control.
fn picture((width, height): (u32, u32), number: u64) -> Vec<u8> {
    let mut state = number + 1;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 61
    };
    let (width, rows) = (u64::from(width), u64::from(height * 3 / 2));
    let samples = (0..rows).flat_map(|y| (0..width).map(move |x| (x, y)));
    samples.map(|(x, y)| u8::try_from((x + y + 2 * number) / 3 % 200 + noise()).unwrap()).collect()
}

fn frame(bytes: &[u8], (width, height): (u32, u32), captured: Instant) -> Frame<'_> {
    let (y, chroma) = bytes.split_at((width * height) as usize);
    let (cb, cr) = chroma.split_at(chroma.len() / 2);
    let plane = |bytes, stride: u32| Plane { bytes, stride: stride as usize };
    Frame {
        format: PixelFormat::I420,
        width,
        height,
        colour: settings().colour,
        captured,
        planes: [plane(y, width), plane(cb, width / 2), plane(cr, width / 2)],
    }
}

/// Encodes one picture per capture time, in microseconds.
fn encode_at(
    encoder: &mut OpenH264,
    size: (u32, u32),
    times: impl IntoIterator<Item = u64>,
    mut wanted: impl FnMut(usize) -> bool,
) -> Vec<AccessUnit> {
    let encode = |(number, at): (usize, u64)| {
        let bytes = picture(size, number as u64);
        let frame = frame(&bytes, size, Instant::from_micros(9_000_000 + at));
        let mut unit = AccessUnit::default();
        let encoded = encoder.encode(&frame, wanted(number), &mut unit).unwrap();
        assert_eq!(encoded, Encoded::Unit, "no picture is left out");
        unit
    };
    times.into_iter().enumerate().map(encode).collect()
}

fn encode(count: u64, wanted: impl FnMut(usize) -> bool) -> Vec<AccessUnit> {
    let mut encoder = OpenH264::open(&settings()).unwrap();
    encode_at(&mut encoder, SIZE, (0..count).map(|number| number * 33_333), wanted)
}

fn idrs(units: &[AccessUnit]) -> Vec<usize> {
    (0..units.len()).filter(|&index| units[index].is_idr()).collect()
}

fn annexb(unit: &AccessUnit) -> Vec<u8> {
    unit.nal_units().flat_map(|nal| [&[0, 0, 0, 1], nal].concat()).collect()
}

/// Decodes all units, and returns the least PSNR of luma against the pictures, in dB.
fn psnr(units: &[AccessUnit], (width, height): (u32, u32)) -> f64 {
    let mut decoder = Decoder::new().unwrap();
    let mut least = f64::MAX;
    for (number, unit) in units.iter().enumerate() {
        let decoded = decoder.decode(&annexb(unit)).unwrap().unwrap();
        assert_eq!(decoded.dimensions(), (width as usize, height as usize));
        let source = picture((width, height), number as u64);
        let rows = decoded.y().chunks(decoded.strides().0).zip(source.chunks(width as usize));
        let errors = rows.take(height as usize).flat_map(|(decoded, source)| {
            decoded.iter().zip(source).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2))
        });
        let mean = errors.sum::<u64>() as f64 / f64::from(width * height);
        least = least.min(10.0 * (255.0 * 255.0 / mean.max(1e-6)).log10());
    }
    least
}

#[test]
fn an_idr_comes_once_a_second_and_when_asked_for_with_its_parameter_sets() {
    let units = encode(100, |number| number == 40);
    assert_eq!(idrs(&units), [0, 30, 40, 70]);
    let sets = ParameterSets::of(&units[0]).unwrap();
    for unit in &units {
        let kinds: Vec<u8> = unit.nal_units().map(|nal| nal[0] & 0x1f).collect();
        assert_eq!(kinds, if unit.is_idr() { vec![7, 8, 5] } else { vec![1] });
        assert!(!unit.is_idr() || sets.are_in(unit), "parameter sets never change");
    }
    let described = sets.describe().unwrap();
    assert_eq!((described.width, described.height), SIZE);
    assert!(units[1].find(NalType::SPS).is_none());
}

#[test]
fn the_gop_is_kept_by_capture_time_with_jitter_and_with_rates_that_do_not_divide() {
    for fps in [7.0, 12.5, 24_000.0 / 1_001.0, 29.0] {
        let mut encoder = OpenH264::open(&Settings { fps, ..settings() }).unwrap();
        let jitter = |number: u64| (number * 7_919 % 1_000) as f64 / 1_000.0 * 0.4 / fps;
        let at = |number: u64| ((number as f64 / fps + jitter(number)) * 1e6) as u64;
        let units = encode_at(&mut encoder, SIZE, (0..200).map(at), |_| false);
        let due = 1_000_000 - (500_000.0 / fps) as u64 - 1;
        let mut last = None;
        for unit in &units {
            let now = unit.captured().as_micros();
            let is_due = last.is_none_or(|last| now - last >= due);
            assert_eq!(unit.is_idr(), is_due, "{fps}: {now} after {last:?}");
            last = if unit.is_idr() { Some(now) } else { last };
        }
    }
}

#[test]
fn the_vui_says_how_the_picture_was_captured_and_that_nothing_is_reordered() {
    use h264_reader::nal::sps::SeqParameterSet;
    use h264_reader::nal::{Nal as _, RefNal};

    let units = encode(1, |_| false);
    let nal = RefNal::new(units[0].find(NalType::SPS).unwrap(), &[], true);
    let sps = SeqParameterSet::from_bits(nal.rbsp_bits()).unwrap();
    let vui = sps.vui_parameters.unwrap();
    let signal = vui.video_signal_type.unwrap();
    assert!(signal.video_full_range_flag);
    assert_eq!(signal.colour_description.unwrap().matrix_coefficients, 6);
    assert_eq!(vui.bitstream_restrictions.unwrap().max_num_reorder_frames, 0);
}

#[test]
fn bitrate_rate_and_gop_change_without_an_idr_and_without_other_parameter_sets() {
    let mut encoder = OpenH264::open(&settings()).unwrap();
    let times = |from: u64| (from..from + 45).map(|number| number * 33_333);
    let before = encode_at(&mut encoder, SIZE, times(0), |_| false);
    let gop = Duration::from_millis(1_500);
    encoder.change(&Settings { bitrate_bps: 300_000, fps: 15.0, gop, ..settings() }).unwrap();
    let after = encode_at(&mut encoder, SIZE, times(45), |_| false);
    assert_eq!((idrs(&before), idrs(&after)), (vec![0, 30], vec![30]), "1.5 s after the last");
    assert!(ParameterSets::of(&before[0]).unwrap().are_in(&after[30]));
}

#[test]
fn another_size_a_higher_level_or_other_threads_begin_with_an_idr_that_announces_them() {
    let mut encoder = OpenH264::open(&settings()).unwrap();
    let mut at = 0;
    let mut next = |encoder: &mut OpenH264, size| {
        at += 33_333;
        encode_at(encoder, size, [at], |_| false).remove(0)
    };
    let first = ParameterSets::of(&next(&mut encoder, SIZE)).unwrap();
    assert!(!next(&mut encoder, SIZE).is_idr());
    let higher = Settings { bitrate_bps: 4_000_000, ..settings() };
    encoder.change(&higher).unwrap();
    let unit = next(&mut encoder, SIZE);
    assert!(unit.is_idr() && !first.are_in(&unit));
    encoder.change(&settings()).unwrap();
    assert!(!next(&mut encoder, SIZE).is_idr(), "a lower level would do, and is not announced");
    let unit = next(&mut encoder, (640, 480));
    let described = ParameterSets::of(&unit).unwrap().describe().unwrap();
    assert_eq!((described.width, described.height), (640, 480));
    encoder.change(&Settings { threads: 2, ..settings() }).unwrap();
    assert!(next(&mut encoder, (640, 480)).is_idr());
}

#[test]
fn slices_are_as_many_as_threads_and_decode() {
    let large = (640, 368);
    for (size, threads, slices) in [(large, 1, 1), (large, 2, 2), (large, 4, 4), ((320, 112), 4, 1)]
    {
        let settings = Settings { threads, bitrate_bps: 4_000_000, ..settings() };
        let mut encoder = OpenH264::open(&settings).unwrap();
        let times = (0..35).map(|number| number * 33_333);
        let units = encode_at(&mut encoder, size, times, |_| false);
        for unit in &units {
            let is_slice = |nal: &&[u8]| matches!(nal[0] & 0x1f, 1 | 5);
            assert_eq!(unit.nal_units().filter(is_slice).count(), slices);
            let begin = unit.nal_units().filter(|nal| is_slice(nal) && begins_picture(nal)).count();
            assert_eq!(begin, 1);
        }
        let least = psnr(&units, size);
        assert!(least > 30.0, "{threads} threads: {least} dB");
    }
}

#[test]
fn the_threads_of_the_library_end_with_the_encoder() {
    // Other tests have threads, too, but not a hundred of them.
    let count = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = count();
    for _ in 0..50 {
        let mut encoder = OpenH264::open(&Settings { threads: 2, ..settings() }).unwrap();
        encode_at(&mut encoder, SIZE, [0, 33_333], |_| false);
    }
    let after = count();
    assert!(after < before + 40, "{before} threads before, {after} after");
}

#[test]
fn a_stream_with_time_stamps_in_it_decodes() {
    let mut units = encode(20, |_| false);
    for (number, unit) in (0..).zip(&mut units) {
        unit.insert_before_slices(&sei::utc_sei(1_800_000_000_000_000 + number, true)).unwrap();
        let nal = unit.find(NalType::SEI).unwrap();
        assert_eq!(sei::parse_utc_sei(nal), Some((1_800_000_000_000_000 + number, 0x1f)));
    }
    let kinds: Vec<u8> = units[0].nal_units().map(|nal| nal[0] & 0x1f).collect();
    assert_eq!(kinds, [7, 8, 6, 5]);
    assert!(psnr(&units, SIZE) > 30.0);
}

#[test]
fn a_picture_with_too_few_bytes_or_an_odd_side_is_refused() {
    let mut encoder = OpenH264::open(&settings()).unwrap();
    let bytes = picture(SIZE, 0);
    let good = frame(&bytes, SIZE, Instant::ZERO);
    let mut short = good;
    short.planes[2].bytes = &short.planes[2].bytes[1..];
    let mut narrow = good;
    narrow.planes[1].stride = 159;
    let bad = [
        short,
        narrow,
        Frame { width: 321, ..good },
        Frame { height: 0, ..good },
        Frame { format: PixelFormat::Nv12, ..good },
    ];
    let mut unit = AccessUnit::default();
    for frame in bad {
        let refused = encoder.encode(&frame, false, &mut unit);
        assert!(matches!(refused, Err(Error::BadFrame { .. })), "{refused:?}");
    }
    assert_eq!(encoder.encode(&good, false, &mut unit).unwrap(), Encoded::Unit);
    assert!(unit.is_idr());
}
