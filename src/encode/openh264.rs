//! Encodes in software with OpenH264.
//!
//! The library encodes each picture at the QP that [`RateControl`] says: nothing about bitrate,
//! frame rate or GOP is its business, so that all three may change from one picture to the next.
//! Every picture becomes an access unit, unless it does not fit the bitrate even at the greatest
//! QP. RTP time comes from the capture, never from a count.

use std::time::Duration;

use super::rate::RateControl;
use super::scene::Scene;
use super::{Encoded, Error, Settings};
use crate::frame::{Colour, Frame, Matrix, PixelFormat};
use crate::h264::{AccessUnit, level_idc};
use crate::sys::encoder as library;
use crate::time::Instant;

/// One software encoder.
#[derive(Debug)]
pub struct OpenH264 {
    settings: Settings,
    /// From one IDR to the next, less half a picture: pictures do not come on the dot.
    idr_after: Duration,
    /// Opened by the first picture, whose size it has.
    stream: Option<Stream>,
    last_idr: Option<Instant>,
    /// An IDR was asked for with a picture that was left out.
    is_idr_owed: bool,
    scene: Scene,
}

/// The library, and what depends on the size of the pictures.
#[derive(Debug)]
struct Stream {
    encoder: library::Encoder,
    settings: library::Settings,
    rate: RateControl,
    /// The capture time that the library's time counts from.
    origin: Instant,
}

impl OpenH264 {
    /// Makes an encoder. The first picture sets the size, and is an IDR.
    ///
    /// # Errors
    ///
    /// None yet: the library is opened, and may refuse, when the first picture comes.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            settings: *settings,
            idr_after: idr_after(settings),
            stream: None,
            last_idr: None,
            is_idr_owed: false,
            scene: Scene::default(),
        })
    }

    /// The stream that `frame` belongs to; a new one, which begins with an IDR, when its size or
    /// its colour differs from the one before, or it needs a higher level than that announces.
    fn stream(&mut self, frame: &Frame<'_>) -> Result<(&mut Stream, bool), Error> {
        let mut settings = library_settings(&self.settings, frame.width, frame.height);
        let is_new = match &self.stream {
            None => true,
            Some(stream) => {
                // A level that is higher than needed does no harm, a change of it does.
                settings.level_idc = settings.level_idc.max(stream.settings.level_idc);
                settings != stream.settings
            }
        };
        if is_new {
            // The library's threads end before others start.
            self.stream = None;
            let samples = frame.width as usize * frame.height as usize;
            self.stream = Some(Stream {
                encoder: library::Encoder::open(&settings)?,
                settings,
                rate: RateControl::new(&self.settings, samples),
                origin: frame.captured,
            });
        }
        Ok((self.stream.as_mut().expect("there is one by now"), is_new))
    }
}

impl super::Encoder for OpenH264 {
    fn name(&self) -> String {
        "openh264".into()
    }

    /// # Cost
    ///
    /// One copy of the encoded bytes; no allocation outside the library after the first picture.
    fn encode(
        &mut self,
        frame: &Frame<'_>,
        is_idr_wanted: bool,
        unit: &mut AccessUnit,
    ) -> Result<Encoded, Error> {
        let bad = Error::BadFrame { width: frame.width, height: frame.height };
        if !is_i420(frame) {
            return Err(bad);
        }
        unit.reset(frame.captured);
        let is_due = self.last_idr.is_none_or(|last| frame.captured.since(last) >= self.idr_after);
        let activity = self.scene.look(&frame.planes[0], frame.width as usize);
        let is_owed = self.is_idr_owed;
        let (stream, is_new) = self.stream(frame)?;
        let is_idr = is_due || is_idr_wanted || is_owed || is_new;
        let Some(qp) = stream.rate.plan(frame.captured, is_idr, activity) else {
            self.is_idr_owed = is_idr;
            return Ok(Encoded::Skipped);
        };
        if is_idr {
            stream.encoder.force_idr();
        }
        let picture = library::Picture {
            planes: frame.planes.map(|plane| (plane.bytes, plane.stride)),
            millis: frame.captured.since(stream.origin).as_millis().try_into().unwrap_or(u64::MAX),
        };
        let nal_units = stream.encoder.encode(&picture, qp).map_err(|error| match error {
            library::Error::ShortPicture => bad,
            library::Error::Failed { .. } => error.into(),
        })?;
        for nal in nal_units {
            unit.push(without_start_code(nal))?;
        }
        stream.rate.encoded(unit.len());
        self.is_idr_owed = is_idr && !unit.is_idr();
        if unit.is_idr() {
            self.last_idr = Some(frame.captured);
        }
        Ok(if unit.is_empty() { Encoded::Skipped } else { Encoded::Unit })
    }

    fn last_idr(&self) -> Option<Instant> {
        self.last_idr
    }

    /// Takes effect with the next picture. Parameter sets stay the same, and no IDR is made,
    /// unless the stream now needs a higher level, or other threads or colours are set.
    fn change(&mut self, settings: &Settings) -> Result<(), Error> {
        self.settings = *settings;
        self.idr_after = idr_after(settings);
        if let Some(stream) = &mut self.stream {
            stream.rate.change(settings);
        }
        Ok(())
    }
}

fn idr_after(settings: &Settings) -> Duration {
    settings.gop.saturating_sub(Duration::from_secs_f64(0.5 / settings.fps.max(1.0)))
}

fn library_settings(settings: &Settings, width: u32, height: u32) -> library::Settings {
    let rows = height.div_ceil(16);
    let slices = u32::from(settings.threads).min(rows / SLICE_ROWS_MIN).clamp(1, SLICES_MAX);
    library::Settings {
        width,
        height,
        level_idc: level_idc(width, height, settings.fps, settings.bitrate_bps),
        colour_description: colour_description(settings.colour),
        is_full_range: settings.colour.full_range,
        slices: u16::try_from(slices).unwrap_or(1),
    }
}

/// Whether `frame` is what the library takes; how long its planes are is checked there.
fn is_i420(frame: &Frame<'_>) -> bool {
    let is_side = |side: u32| side.is_multiple_of(2) && (16..=SIDE_MAX).contains(&side);
    frame.format == PixelFormat::I420 && is_side(frame.width) && is_side(frame.height)
}

/// H.264 E.2.1: primaries, transfer characteristics and matrix coefficients.
fn colour_description(colour: Colour) -> [u8; 3] {
    match colour.matrix {
        Matrix::Bt601 => [6, 6, 6],
        Matrix::Bt709 => [1, 1, 1],
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

/// Macroblock rows of a slice: with fewer, what prediction loses is not worth the thread.
const SLICE_ROWS_MIN: u32 = 4;
/// Threads that the library has.
const SLICES_MAX: u32 = 4;
/// Luma samples of a side that the library takes.
const SIDE_MAX: u32 = 3840;

#[cfg(test)]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times and sizes are small and positive"
)]
mod tests;
