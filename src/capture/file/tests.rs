use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::h264::annexb::nal_units;
use crate::h264::{NalType, nal_type};

const CLIP: &[u8] = include_bytes!("../../../tests/data/clip-320x240.h264");
const CLIP_LEN: usize = 90;
const GOP_LEN: usize = 30;

/// A file that is removed in the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(bytes: &[u8]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ocellus-clip-{}-{number}.h264", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn of_nals<'a>(nals: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let bytes: Vec<u8> =
            nals.into_iter().flat_map(|nal| [&[0, 0, 0, 1], nal].concat()).collect();
        Self::new(&bytes)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn clip() -> Vec<&'static [u8]> {
    nal_units(CLIP).collect()
}

fn is(nal: &[u8], wanted: NalType) -> bool {
    nal_type(nal) == Some(wanted)
}

fn find(wanted: NalType) -> &'static [u8] {
    nal_units(CLIP).find(|nal| is(nal, wanted)).unwrap()
}

fn due(file: &File) -> Instant {
    match file.wait() {
        Wait::Until(due) => due,
        Wait::Readable(_) => panic!("a file is always readable"),
    }
}

/// The next `count` access units as lists of NAL units, each fetched exactly when it is due.
fn play(file: &mut File, count: usize) -> Vec<Vec<Vec<u8>>> {
    let mut unit = AccessUnit::default();
    let mut units = Vec::new();
    for _ in 0..count {
        let now = due(file);
        assert!(file.capture(now, &mut unit).unwrap(), "unit {}", units.len());
        units.push(unit.nal_units().map(<[u8]>::to_vec).collect());
    }
    units
}

fn open(bytes: &Temporary) -> Result<File, Error> {
    File::open(&bytes.0, None)
}

fn types(unit: &[Vec<u8>]) -> Vec<u8> {
    unit.iter().map(|nal| nal[0] & 0x1f).collect()
}

#[test]
fn the_clip_is_played_as_it_is_and_in_a_loop() {
    let bytes = Temporary::new(CLIP);
    let mut file = open(&bytes).unwrap();
    let description = file.description();
    assert_eq!((description.width, description.height, file.fps()), (320, 240, 30.0));
    let first = play(&mut file, CLIP_LEN);
    let nals: Vec<Vec<u8>> = first.concat();
    assert_eq!(nals, clip(), "nothing is added, lost or changed");
    for (number, unit) in first.iter().enumerate() {
        let is_start = number % GOP_LEN == 0;
        assert_eq!(types(unit).starts_with(&[7, 8]), is_start, "unit {number}");
        assert_eq!(types(unit).contains(&5), is_start, "unit {number}");
    }
    for _ in 0..3 {
        assert!(play(&mut file, CLIP_LEN) == first);
    }
}

#[test]
fn capture_times_follow_the_schedule_through_the_loop() {
    let bytes = Temporary::new(CLIP);
    for fps in [Some(25.0), Some(30_000.0 / 1_001.0), None] {
        let mut file = File::open(&bytes.0, fps).unwrap();
        let mut unit = AccessUnit::default();
        let fps = fps.unwrap_or(30.0);
        for n in 0..270_u32 {
            let now = due(&file).max(Instant::from_micros(7_000_000));
            assert!(!file.capture(now - Duration::from_micros(1), &mut unit).unwrap() || n == 0);
            if n > 0 {
                assert!(file.capture(now, &mut unit).unwrap());
            }
            let exact = 6_999_999.0 + 1e6 * f64::from(n) / fps;
            let captured = unit.captured().as_micros() as f64;
            assert!((captured - exact).abs() <= 1.0, "unit {n} at {fps}");
        }
    }
}

#[test]
fn a_caller_who_was_late_catches_up_without_bursts() {
    let bytes = Temporary::new(CLIP);
    let mut file = open(&bytes).unwrap();
    let mut unit = AccessUnit::default();
    assert!(file.capture(Instant::ZERO, &mut unit).unwrap());
    // 0.9 s late: the units keep their times, and come at most twice as fast.
    let mut now = Instant::from_micros(900_000);
    let mut handed_out = Vec::new();
    for n in 1..100_u64 {
        assert!(file.capture(now, &mut unit).unwrap());
        assert_eq!(unit.captured().as_micros(), n * 1_000_000 / 30);
        handed_out.push(now);
        now = due(&file).max(now);
    }
    for pair in handed_out.windows(2) {
        let gap = pair[1].since(pair[0]).as_micros();
        assert!((16_666..=33_334).contains(&gap), "{gap} us");
    }
    assert_eq!(now.as_micros(), 100 * 1_000_000 / 30, "on schedule again");
}

#[test]
fn a_caller_who_was_suspended_goes_on_where_he_was() {
    let bytes = Temporary::new(CLIP);
    let mut file = open(&bytes).unwrap();
    let wanted = play(&mut open(&bytes).unwrap(), 10);
    let mut unit = AccessUnit::default();
    let mut last = None;
    for (n, wanted) in wanted.iter().enumerate() {
        let now = if n == 5 { Instant::from_micros(604_800_000_000) } else { due(&file) };
        assert!(file.capture(now, &mut unit).unwrap());
        assert!(unit.nal_units().eq(wanted.iter().map(Vec::as_slice)), "unit {n}");
        assert!(last < Some(unit.captured()), "capture times increase");
        last = Some(unit.captured());
    }
    assert_eq!(last, Some(Instant::from_micros(604_800_000_000 + 4 * 1_000_000 / 30)));
}

#[test]
fn every_idr_picture_comes_with_parameter_sets() {
    let clip = clip();
    for lost in [&[NalType::SPS][..], &[NalType::PPS], &[NalType::SPS, NalType::PPS]] {
        // Only the first of each kind stays; an access unit delimiter comes before every picture.
        let mut nals: Vec<&[u8]> = Vec::new();
        for nal in &clip {
            let is_lost = lost.iter().any(|&wanted| is(nal, wanted));
            if is_lost && nals.contains(nal) {
                continue;
            }
            if is(nal, NalType::IDR_SLICE) && nals.len() > 4 {
                nals.push(&[0x09, 0x10]);
            }
            nals.push(nal);
        }
        let bytes = Temporary::of_nals(nals);
        let units = play(&mut open(&bytes).unwrap(), 2 * CLIP_LEN);
        for number in (0..2 * CLIP_LEN).step_by(GOP_LEN) {
            let nals = &units[number];
            let found = |wanted| nals.iter().filter(|nal| is(nal, wanted)).collect::<Vec<_>>();
            assert_eq!(found(NalType::SPS), [find(NalType::SPS)], "unit {number}");
            assert_eq!(found(NalType::PPS), [find(NalType::PPS)], "unit {number}");
            let types = types(nals);
            let place = |wanted| types.iter().position(|&kind| kind == wanted);
            assert!(place(9).is_none_or(|place| place == 0), "{types:?}");
            assert!(place(7) < place(8) && place(8) < place(5), "{types:?}");
        }
    }
}

#[test]
fn what_comes_before_the_first_idr_with_parameter_sets_is_dropped_in_every_round() {
    let p_slice = find(NalType::NON_IDR_SLICE);
    let idr_slice = find(NalType::IDR_SLICE);
    let early: [&[u8]; 4] = [p_slice, idr_slice, p_slice, p_slice];
    let bytes = Temporary::of_nals(early.into_iter().chain(clip()));
    let mut file = open(&bytes).unwrap();
    let wanted = play(&mut open(&Temporary::new(CLIP)).unwrap(), 2 * CLIP_LEN);
    assert!(play(&mut file, 2 * CLIP_LEN) == wanted);
}

#[test]
fn a_damaged_picture_costs_the_rest_of_its_group_and_no_time() {
    let clip = clip();
    let huge = vec![0x41; 4 << 20];
    let wanted = play(&mut open(&Temporary::new(CLIP)).unwrap(), CLIP_LEN);
    let tenth = clip.iter().position(|nal| *nal == wanted[10].last().unwrap().as_slice()).unwrap();
    let many = vec![&[0x06, 0xff][..]; 70];
    // A NAL unit of 4 MB; a picture without its first slice; more NAL units than a picture has.
    for damage in [vec![huge.as_slice()], vec![&[0x09, 0x10], &[0x41, 0x40, 1]], many] {
        let nals = clip[..tenth].iter().copied().chain(damage).chain(clip[tenth..].iter().copied());
        let bytes = Temporary::of_nals(nals);
        let mut file = open(&bytes).unwrap();
        let played = play(&mut file, 9 + 60);
        assert!(played[..9] == wanted[..9]);
        let rest = &played[played.iter().position(|unit| *unit == wanted[30]).unwrap()..];
        assert!(rest.len() >= 59 && *rest == wanted[30..30 + rest.len()]);
        assert!(played.len() - rest.len() <= 10, "the damaged group ends at the damage");
    }
}

#[test]
fn filler_data_is_left_out() {
    let nals = clip().into_iter().flat_map(|nal| [nal, &[0x0c, 0xff, 0xff, 0x80]]);
    let bytes = Temporary::of_nals(nals);
    let nals: Vec<Vec<u8>> = play(&mut open(&bytes).unwrap(), CLIP_LEN).concat();
    assert_eq!(nals, clip());
}

#[test]
fn empty_nal_units_short_start_codes_and_trailing_zeros_change_nothing() {
    let mut bytes = vec![0; 5];
    for (index, nal) in clip().into_iter().enumerate() {
        bytes.extend([[0, 0, 1].as_slice(), &[0, 0, 0, 1], &[0, 0, 1, 0, 0, 1]][index % 3]);
        bytes.extend(nal);
        bytes.extend(std::iter::repeat_n(0, index % 4));
    }
    let bytes = Temporary::new(&bytes);
    let nals: Vec<Vec<u8>> = play(&mut open(&bytes).unwrap(), CLIP_LEN).concat();
    assert_eq!(nals, clip());
}

#[test]
fn parameter_sets_may_change_on_the_way() {
    // The same SPS at another level: what a camera does that raises its rate.
    let mut raised = find(NalType::SPS).to_vec();
    raised[3] = 40;
    let second = clip().len() / 2;
    let nals = clip().into_iter().enumerate().map(|(index, nal)| {
        if index > second && is(nal, NalType::SPS) { raised.as_slice() } else { nal }
    });
    let bytes = Temporary::of_nals(nals);
    let units = play(&mut open(&bytes).unwrap(), 2 * CLIP_LEN);
    let levels: Vec<u8> = units.iter().step_by(GOP_LEN).map(|unit| unit[0][3]).collect();
    let level = find(NalType::SPS)[3];
    assert_eq!(levels, [level, level, 40, level, level, 40]);
}

#[test]
fn b_pictures_are_noticed() {
    let has_b = |nals: Vec<&[u8]>| {
        let bytes = Temporary::of_nals(nals);
        let mut units = Units::open(&bytes.0).unwrap();
        let mut unit = AccessUnit::default();
        assert_eq!(units.next(&mut unit, Instant::ZERO).unwrap(), Progress::Unit);
        has_b_slices(&mut units, &mut unit).unwrap()
    };
    let clip = clip();
    let first_p = clip.iter().position(|nal| is(nal, NalType::NON_IDR_SLICE)).unwrap();
    let mut with_b = clip[..first_p + 2].to_vec();
    with_b.push(&[0x01, 0b1010_0000, 0xff]);
    assert!(has_b(with_b));
    assert!(!has_b(clip.clone()));
    assert!(!has_b(clip[..first_p].to_vec()));
}

#[test]
fn a_file_that_cannot_be_played_is_refused_with_the_reason() {
    let (sps, pps) = (find(NalType::SPS), find(NalType::PPS));
    let (idr, p) = (find(NalType::IDR_SLICE), find(NalType::NON_IDR_SLICE));
    // Baseline, level 3, and then nothing that can be parsed.
    let bad_sps: &[u8] = &[0x67, 66, 0, 30, 0xff];
    let no_start_code = "no start code: not an H.264 Annex B byte stream";
    let cases = [
        (Temporary::new(b""), no_start_code),
        (Temporary::new(b"just a text"), no_start_code),
        (Temporary::new(&[0; 1_000]), no_start_code),
        (Temporary::of_nals([idr, p]), "no sequence parameter set"),
        (Temporary::of_nals([pps, idr]), "no sequence parameter set"),
        (Temporary::of_nals([sps, idr]), "no picture parameter set"),
        (Temporary::of_nals([bad_sps, pps, idr]), "parameter sets that cannot be used"),
        (Temporary::of_nals([sps, pps, p, p]), "no IDR picture after its parameter sets"),
        (Temporary::of_nals([idr, sps, pps]), "no IDR picture after its parameter sets"),
    ];
    for (bytes, wanted) in cases {
        match open(&bytes) {
            Err(Error::BadFile { path, reason }) => {
                assert_eq!((path, reason), (bytes.0.clone(), wanted))
            }
            other => panic!("{wanted}: {other:?}"),
        }
    }
    let directory = File::open(&std::env::temp_dir(), None).unwrap_err();
    assert!(directory.to_string().ends_with("not a regular file"), "{directory}");
    let missing = File::open(Path::new("/nonexistent/clip.h264"), None).unwrap_err();
    assert_eq!(missing.to_string(), "/nonexistent/clip.h264: open: No such file or directory");
}

#[test]
fn a_file_that_is_emptied_while_it_plays_is_an_error_in_the_end() {
    let bytes = Temporary::new(CLIP);
    let mut file = open(&bytes).unwrap();
    play(&mut file, 1);
    std::fs::write(&bytes.0, b"").unwrap();
    let mut unit = AccessUnit::default();
    let outcome = (0..2 * CLIP_LEN).find_map(|_| file.capture(due(&file), &mut unit).err());
    assert!(matches!(outcome, Some(Error::BadFile { .. })), "{outcome:?}");
}

#[test]
fn sixteen_megabytes_of_anything_else_do_not_hold_up_the_caller() {
    let mut bytes = CLIP.to_vec();
    bytes.extend(vec![0xff; 17 << 20]);
    let bytes = Temporary::new(&bytes);
    let mut file = open(&bytes).unwrap();
    let mut unit = AccessUnit::default();
    let outcomes: Vec<bool> =
        (0..=CLIP_LEN).map(|_| file.capture(due(&file), &mut unit).unwrap()).collect();
    assert_eq!(outcomes.iter().filter(|&&is_unit| !is_unit).count(), 1, "{outcomes:?}");
}
