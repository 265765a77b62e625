use super::*;
use crate::h264::annexb::nal_units;

/// 90 pictures of x264, an IDR picture with its parameter sets every 30.
const CLIP: &[u8] = include_bytes!("../../../../tests/data/clip-320x240.h264");
const GOP_LEN: usize = 30;

type Nals = Vec<Vec<u8>>;

/// The NAL units of each picture of the clip.
fn pictures() -> Vec<Nals> {
    let mut pictures: Vec<Nals> = Vec::new();
    let mut unit = AccessUnit::default();
    for nal in nal_units(CLIP) {
        if unit.is_empty() || is_complete_before(&unit, nal) {
            unit.reset(Instant::ZERO);
            pictures.push(Nals::new());
        }
        unit.push(nal).unwrap();
        pictures.last_mut().unwrap().push(nal.to_vec());
    }
    pictures
}

fn bytes<N: AsRef<[u8]>>(nals: &[N], start_code: &[u8]) -> Vec<u8> {
    nals.iter().flat_map(|nal| [start_code, nal.as_ref()].concat()).collect()
}

/// A camera whose buffers the test fills.
struct Camera {
    pictures: Pictures,
    sequence: u32,
    unit: AccessUnit,
    /// What came out.
    units: Vec<(Nals, u64)>,
}

impl Camera {
    fn new() -> Self {
        let pictures = Pictures::new((640, 480));
        Self { pictures, sequence: 0, unit: AccessUnit::default(), units: Vec::new() }
    }

    fn deliver_with(&mut self, bytes: &[u8], is_damaged: bool) -> Result<(), HasBPictures> {
        let captured = Instant::from_micros(1_000_000 + u64::from(self.sequence) * 33_333);
        let buffer = Buffer { bytes, sequence: self.sequence, captured, is_damaged };
        self.sequence += 1;
        let mut read = 0;
        while self.pictures.next(&buffer, &mut read, &mut self.unit)? {
            let nals = self.unit.nal_units().map(<[u8]>::to_vec).collect();
            self.units.push((nals, self.unit.captured().as_micros()));
        }
        assert_eq!(read, bytes.len(), "the buffer was not read to its end");
        Ok(())
    }

    fn deliver(&mut self, bytes: &[u8]) {
        self.deliver_with(bytes, false).unwrap();
    }

    fn nals(&self) -> Vec<Nals> {
        self.units.iter().map(|(nals, _)| nals.clone()).collect()
    }
}

#[test]
fn a_buffer_is_a_picture_with_its_capture_time() {
    let clip = pictures();
    for start_code in [&[0, 0, 1][..], &[0, 0, 0, 1], &[0, 0, 0, 0, 0, 1]] {
        let mut camera = Camera::new();
        for picture in &clip {
            // Padded, as some drivers do.
            let buffer = [bytes(picture, start_code), vec![0; 64]].concat();
            camera.deliver(&buffer);
        }
        assert!(camera.nals() == clip);
        for (n, (_, captured)) in (0..).zip(&camera.units) {
            assert_eq!(*captured, 1_000_000 + n * 33_333);
        }
        assert_eq!((camera.pictures.lost(), camera.pictures.size()), (0, (320, 240)));
    }
}

#[test]
fn parameter_sets_that_come_once_in_a_buffer_of_their_own_are_put_before_every_idr_picture() {
    let clip = pictures();
    let is_set = |nal: &Vec<u8>| matches!(nal_type(nal), Some(NalType::SPS | NalType::PPS));
    let sets: Nals = clip[0].iter().filter(|nal| is_set(nal)).cloned().collect();
    assert_eq!(sets.len(), 2);
    for apart in [false, true] {
        let mut camera = Camera::new();
        if apart {
            sets.iter().for_each(|set| camera.deliver(&bytes(&[set], &[0, 0, 0, 1])));
        } else {
            camera.deliver(&bytes(&sets, &[0, 0, 0, 1]));
        }
        for picture in &clip {
            let bare: Nals = picture.iter().filter(|nal| !is_set(nal)).cloned().collect();
            camera.deliver(&bytes(&bare, &[0, 0, 0, 1]));
        }
        let nals = camera.nals();
        assert_eq!(nals.len(), clip.len());
        for (n, picture) in nals.iter().enumerate() {
            assert_eq!(picture.starts_with(&sets), n % GOP_LEN == 0, "picture {n}");
        }
        assert_eq!(camera.pictures.lost(), 0);
    }
}

#[test]
fn a_buffer_with_several_pictures_gives_them_all_with_times_that_increase() {
    let clip = pictures();
    let mut camera = Camera::new();
    for three in clip.chunks(3) {
        camera.deliver(&bytes(&three.concat(), &[0, 0, 1]));
    }
    assert!(camera.nals() == clip);
    assert!(camera.units.windows(2).all(|pair| pair[0].1 < pair[1].1));
}

#[test]
fn a_damaged_or_missing_buffer_costs_the_rest_of_its_group() {
    type Damage = fn(&mut Camera, &[u8]);
    let damages: [(&str, Damage); 5] = [
        ("flagged", |camera, buffer| camera.deliver_with(buffer, true).unwrap()),
        ("dropped by the driver", |camera, _| camera.sequence += 1),
        ("empty", |camera, _| camera.deliver(&[])),
        ("no start code", |camera, buffer| camera.deliver(&vec![0x55; buffer.len()])),
        ("a picture without its first slice", |camera, _| camera.deliver(&[0, 0, 1, 0x41, 0x40])),
    ];
    let clip = pictures();
    for (name, damage) in damages {
        let mut camera = Camera::new();
        for (n, picture) in clip.iter().enumerate() {
            let buffer = bytes(picture, &[0, 0, 0, 1]);
            if n == 40 { damage(&mut camera, &buffer) } else { camera.deliver(&buffer) }
        }
        let wanted = [&clip[..40], &clip[60..]].concat();
        assert!(camera.nals() == wanted, "{name}: {} pictures", camera.units.len());
        assert_eq!(camera.pictures.lost(), 20, "{name}");
        assert!(!camera.pictures.needs_idr(), "{name}");
    }
}

#[test]
fn a_stream_that_begins_in_the_middle_begins_at_the_next_idr_picture() {
    let clip = pictures();
    let mut camera = Camera::new();
    clip[7..].iter().for_each(|picture| camera.deliver(&bytes(picture, &[0, 0, 0, 1])));
    assert!(camera.nals() == clip[GOP_LEN..]);
    assert_eq!(camera.pictures.lost(), 0, "nobody could have had them");
}

#[test]
fn a_nal_unit_of_four_megabytes_and_sets_of_no_size_are_survived() {
    let clip = pictures();
    let huge = [&[0, 0, 1, 0x41, 0x9a][..], &vec![0x55; 4 << 20]].concat();
    // Baseline, level 3, and then nothing that can be parsed.
    let bad_sps: &[u8] = &[0x67, 66, 0, 30, 0xff];
    let mut camera = Camera::new();
    for (n, picture) in clip.iter().enumerate() {
        match n {
            10 => camera.deliver(&huge),
            30 => camera.deliver(&bytes(&[bad_sps, &picture[1], &picture[2]], &[0, 0, 1])),
            _ => camera.deliver(&bytes(picture, &[0, 0, 1])),
        }
    }
    assert!(camera.nals() == [&clip[..10], &clip[60..]].concat());
}

#[test]
fn b_pictures_are_refused_at_the_second_one_of_a_group() {
    let clip = pictures();
    let b_picture: &[u8] = &[0x01, 0b1010_0000, 0xff];
    let mut camera = Camera::new();
    camera.deliver(&bytes(&clip[0], &[0, 0, 1]));
    camera.deliver(&bytes(&[b_picture], &[0, 0, 1]));
    camera.deliver(&bytes(&clip[1], &[0, 0, 1]));
    assert_eq!(camera.deliver_with(&bytes(&[b_picture], &[0, 0, 1]), false), Err(HasBPictures));

    let mut camera = Camera::new();
    for (n, picture) in clip.iter().enumerate() {
        camera.deliver(&bytes(picture, &[0, 0, 1]));
        if n % GOP_LEN == 5 {
            // A damaged picture that looks like one.
            camera.deliver(&bytes(&[b_picture], &[0, 0, 1]));
        }
    }
    assert_eq!(camera.units.len(), clip.len() + 3);
}

#[test]
fn a_change_of_parameter_sets_comes_with_its_idr_picture() {
    let clip = pictures();
    let mut raised = clip[0][0].clone();
    raised[3] = 40;
    let mut camera = Camera::new();
    for (n, picture) in clip.iter().enumerate() {
        if n == 45 {
            // Ahead of the picture that it is for, and once.
            camera.deliver(&bytes(&[&raised], &[0, 0, 0, 1]));
        }
        let slices = if n > 45 && n % GOP_LEN == 0 { &picture[2..] } else { &picture[..] };
        camera.deliver(&bytes(slices, &[0, 0, 0, 1]));
    }
    let nals = camera.nals();
    assert_eq!(nals.len(), clip.len());
    assert_eq!(nals[60][..2], [raised, clip[0][1].clone()]);
}

#[test]
fn capture_times_increase_whatever_the_driver_says() {
    let clip = pictures();
    let mut pictures = Pictures::new((320, 240));
    let mut unit = AccessUnit::default();
    let mut last = None;
    let mut stamps = [500, 500, 400, 1_000].iter().cycle();
    for (sequence, picture) in (0..).zip(&clip) {
        let bytes = bytes(picture, &[0, 0, 1]);
        let captured = Instant::from_micros(*stamps.next().unwrap());
        let buffer = Buffer { bytes: &bytes, sequence, captured, is_damaged: false };
        assert_eq!(pictures.next(&buffer, &mut 0, &mut unit), Ok(true));
        assert!(last < Some(unit.captured()), "picture {sequence}");
        last = Some(unit.captured());
    }
}
