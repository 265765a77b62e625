//! Encodes in software with OpenH264.
//!
//! The rate control is on and frame skipping off: every picture becomes an access unit, and RTP
//! time comes from the capture, never from a count. Scene-change detection is off, so that IDRs
//! come when they are due or asked for, and at no other time.

use std::fmt;
use std::time::Duration;

use openh264::encoder::{
    BitRate, Complexity, Encoder, EncoderConfig, FrameRate, FrameType, RateControlMode, VuiConfig,
};
use openh264::formats::YUVSource;
use openh264::{OpenH264API, Timestamp};

use super::{Encoded, Error, Settings};
use crate::frame::{Colour, Frame, Matrix, PixelFormat, Plane};
use crate::h264::AccessUnit;
use crate::sys;
use crate::time::Instant;

/// One software encoder.
pub struct OpenH264 {
    encoder: Encoder,
    /// From one IDR to the next, less half a picture: pictures do not come on the dot.
    idr_after: Duration,
    last_idr: Option<Instant>,
    /// The capture time that the encoder's own time counts from.
    origin: Option<Instant>,
}

impl OpenH264 {
    /// Opens an encoder. The first picture sets the size, and is an IDR.
    ///
    /// # Errors
    ///
    /// [`Error::OpenH264`] when the library refuses the settings.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        let config = EncoderConfig::new()
            .bitrate(BitRate::from_bps(settings.bitrate_bps))
            .max_frame_rate(FrameRate::from_hz(frame_rate(settings.fps)))
            .rate_control_mode(RateControlMode::Bitrate)
            .complexity(Complexity::Low)
            .skip_frames(false)
            .scene_change_detect(false)
            .vui(vui(settings.colour));
        let half_picture = Duration::from_secs_f64(0.5 / settings.fps.max(1.0));
        let mut encoder = Encoder::with_api_config(OpenH264API::from_source(), config)?;
        sys::encoder::silence(&mut encoder);
        Ok(Self {
            encoder,
            idr_after: settings.gop.saturating_sub(half_picture),
            last_idr: None,
            origin: None,
        })
    }

    /// When the last IDR was captured.
    #[must_use]
    pub fn last_idr(&self) -> Option<Instant> {
        self.last_idr
    }

    /// Encodes one I420 picture into `unit`: an IDR when one is due, or `is_idr_wanted`.
    ///
    /// # Errors
    ///
    /// [`Error::BadFrame`] is the caller's fault, the others are the encoder's.
    ///
    /// # Cost
    ///
    /// One copy of the encoded bytes; no allocation outside the library.
    pub fn encode(
        &mut self,
        frame: &Frame<'_>,
        is_idr_wanted: bool,
        unit: &mut AccessUnit,
    ) -> Result<Encoded, Error> {
        let source =
            I420::new(frame).ok_or(Error::BadFrame { width: frame.width, height: frame.height })?;
        let is_due = self.last_idr.is_none_or(|last| frame.captured.since(last) >= self.idr_after);
        if (is_due || is_idr_wanted) && self.last_idr.is_some() {
            self.encoder.force_intra_frame();
        }
        let origin = *self.origin.get_or_insert(frame.captured);
        let millis = u64::try_from(frame.captured.since(origin).as_millis()).unwrap_or(u64::MAX);
        let stream = self.encoder.encode_at(&source, Timestamp::from_millis(millis))?;
        unit.reset(frame.captured);
        if matches!(stream.frame_type(), FrameType::Skip | FrameType::Invalid) {
            return Ok(Encoded::Skipped);
        }
        for layer in (0..stream.num_layers()).filter_map(|index| stream.layer(index)) {
            for nal in (0..layer.nal_count()).filter_map(|index| layer.nal_unit(index)) {
                unit.push(without_start_code(nal))?;
            }
        }
        if unit.is_idr() {
            self.last_idr = Some(frame.captured);
        }
        Ok(if unit.is_empty() { Encoded::Skipped } else { Encoded::Unit })
    }
}

impl fmt::Debug for OpenH264 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenH264").field("last_idr", &self.last_idr).finish_non_exhaustive()
    }
}

/// A frame whose planes are as long as the library will read.
struct I420<'a>(&'a Frame<'a>);

impl<'a> I420<'a> {
    fn new(frame: &'a Frame<'a>) -> Option<Self> {
        let (width, height) = (frame.width as usize, frame.height as usize);
        let holds = |plane: &Plane<'_>, width: usize, height: usize| {
            plane.stride >= width
                && height
                    .checked_sub(1)
                    .is_some_and(|rows| plane.bytes.len() >= rows * plane.stride + width)
        };
        let [y, cb, cr] = &frame.planes;
        let is_good = frame.format == PixelFormat::I420
            && width.is_multiple_of(2)
            && height.is_multiple_of(2)
            && holds(y, width, height)
            && holds(cb, width / 2, height / 2)
            && holds(cr, width / 2, height / 2);
        is_good.then_some(Self(frame))
    }
}

impl YUVSource for I420<'_> {
    fn dimensions(&self) -> (usize, usize) {
        (self.0.width as usize, self.0.height as usize)
    }

    fn strides(&self) -> (usize, usize, usize) {
        let [y, cb, cr] = &self.0.planes;
        (y.stride, cb.stride, cr.stride)
    }

    fn y(&self) -> &[u8] {
        self.0.planes[0].bytes
    }

    fn u(&self) -> &[u8] {
        self.0.planes[1].bytes
    }

    fn v(&self) -> &[u8] {
        self.0.planes[2].bytes
    }
}

/// The NAL unit behind the library's start code of three or four bytes.
fn without_start_code(nal: &[u8]) -> &[u8] {
    let zeros = nal.iter().take_while(|&&byte| byte == 0).count();
    match nal.get(zeros) {
        Some(1) if zeros >= 2 => nal.get(zeros + 1..).unwrap_or(&[]),
        _ => nal,
    }
}

fn vui(colour: Colour) -> VuiConfig {
    match colour.matrix {
        Matrix::Bt601 => VuiConfig::bt601(),
        Matrix::Bt709 => VuiConfig::bt709(),
    }
    .full_range(colour.full_range)
}

/// The library takes 1 to 60; at 0 its rate control believes in one picture per second.
#[allow(clippy::cast_possible_truncation, reason = "a frame rate needs no more than f32")]
fn frame_rate(fps: f64) -> f32 {
    fps.clamp(1.0, 60.0) as f32
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail")]
mod tests {
    use super::*;
    use crate::h264::{NalType, ParameterSets};

    const WIDTH: u32 = 320;
    const HEIGHT: u32 = 240;

    fn settings() -> Settings {
        Settings {
            fps: 30.0,
            bitrate_bps: 500_000,
            gop: Duration::from_secs(1),
            colour: Colour { matrix: Matrix::Bt601, full_range: true },
        }
    }

    /// A gradient with some noise that moves: work for the rate control.
    fn picture(number: u64) -> Vec<u8> {
        let mut state = number + 1;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 61
        };
        let rows = u64::from(HEIGHT * 3 / 2);
        let samples = (0..rows).flat_map(|y| (0..u64::from(WIDTH)).map(move |x| (x, y)));
        samples
            .map(|(x, y)| u8::try_from((x + y + 2 * number) / 3 % 200 + noise()).unwrap())
            .collect()
    }

    fn encode(count: u64, mut wanted: impl FnMut(u64) -> bool) -> Vec<AccessUnit> {
        let mut encoder = OpenH264::open(&settings()).unwrap();
        (0..count)
            .map(|number| {
                let bytes = picture(number);
                let (y, chroma) = bytes.split_at((WIDTH * HEIGHT) as usize);
                let (cb, cr) = chroma.split_at(chroma.len() / 2);
                let half = (WIDTH / 2) as usize;
                let frame = Frame {
                    format: PixelFormat::I420,
                    width: WIDTH,
                    height: HEIGHT,
                    colour: settings().colour,
                    captured: Instant::from_micros(9_000_000 + number * 33_333),
                    planes: [
                        Plane { bytes: y, stride: WIDTH as usize },
                        Plane { bytes: cb, stride: half },
                        Plane { bytes: cr, stride: half },
                    ],
                };
                let mut unit = AccessUnit::default();
                let encoded = encoder.encode(&frame, wanted(number), &mut unit).unwrap();
                assert_eq!(encoded, Encoded::Unit, "frame skipping is off");
                unit
            })
            .collect()
    }

    #[test]
    fn an_idr_comes_once_a_second_and_when_asked_for_with_its_parameter_sets() {
        let units = encode(100, |number| number == 40);
        let idrs: Vec<usize> = (0..100).filter(|&i| units[i].is_idr()).collect();
        assert_eq!(idrs, [0, 30, 40, 70]);
        let sets = ParameterSets::of(&units[0]).unwrap();
        for unit in &units {
            let kinds: Vec<u8> = unit.nal_units().map(|nal| nal[0] & 0x1f).collect();
            assert_eq!(kinds, if unit.is_idr() { vec![7, 8, 5] } else { vec![1] });
            assert!(!unit.is_idr() || sets.are_in(unit), "parameter sets never change");
        }
        let described = sets.describe().unwrap();
        assert_eq!((described.width, described.height), (WIDTH, HEIGHT));
        assert!(units[1].find(NalType::SPS).is_none());
    }

    #[test]
    fn the_vui_says_how_the_picture_was_captured_and_that_nothing_is_reordered() {
        use h264_reader::nal::sps::SeqParameterSet;
        use h264_reader::nal::{Nal as _, RefNal};

        let units = encode(1, |_| false);
        let nal = RefNal::new(units[0].find(NalType::SPS).unwrap(), &[], true);
        let sps = SeqParameterSet::from_bits(nal.rbsp_bits()).unwrap();
        let vui = sps.vui_parameters.unwrap();
        assert!(vui.video_signal_type.unwrap().video_full_range_flag);
        assert_eq!(vui.bitstream_restrictions.unwrap().max_num_reorder_frames, 0);
    }

    #[test]
    fn the_rate_stays_near_the_target() {
        let units = encode(150, |_| false);
        let bits: usize = units.iter().skip(30).map(|unit| unit.len() * 8).sum();
        let bps = bits / 4;
        assert!((350_000..700_000).contains(&bps), "{bps} bit/s for 500,000");
    }

    #[test]
    fn a_picture_with_too_few_bytes_is_refused() {
        let mut encoder = OpenH264::open(&settings()).unwrap();
        let bytes = vec![0; (WIDTH * HEIGHT) as usize];
        let plane = Plane { bytes: &bytes, stride: WIDTH as usize };
        let short = Plane { bytes: &bytes[..100], stride: 160 };
        let frame = Frame {
            format: PixelFormat::I420,
            width: WIDTH,
            height: HEIGHT,
            colour: Colour::default(),
            captured: Instant::ZERO,
            planes: [plane, plane, short],
        };
        let refused = encoder.encode(&frame, false, &mut AccessUnit::default());
        assert!(matches!(refused, Err(Error::BadFrame { .. })));
    }
}
