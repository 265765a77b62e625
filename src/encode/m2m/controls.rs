//! Tells a driver what to make, through the controls that it has.
//!
//! V4L2, "Codec Control Reference"; H.264 table A-1 (levels). A control that the driver lacks is
//! left out and said once: the pictures are then what the driver makes of its own accord.

use std::time::Duration;

use nix::errno::Errno;

use crate::encode::Settings;
use crate::sys::v4l2::codec::control;
use crate::sys::v4l2::{self, Control, Device};

/// The controls that are set again while the encoder runs.
#[derive(Debug)]
pub(super) struct Controls {
    bitrate: Option<Control>,
    gop: Option<Control>,
    force_key_frame: Option<Control>,
    missing: Vec<&'static str>,
}

impl Controls {
    /// Finds the controls, and sets those that never change: no B frames, constant bitrate,
    /// parameter sets once, profile and level.
    ///
    /// # Errors
    ///
    /// [`v4l2::Error`], when the device is gone.
    pub(super) fn find(
        device: &Device,
        settings: &Settings,
        (width, height): (u32, u32),
    ) -> Result<Self, v4l2::Error> {
        let mut missing = Vec::new();
        let level = level(width, height, settings.fps, settings.bitrate_bps);
        for (name, id, values) in [
            ("B frames", control::B_FRAMES, &[0][..]),
            ("rate control", control::FRAME_RATE_CONTROL, &[1]),
            ("bitrate mode", control::BITRATE_MODE, &[CONSTANT_BITRATE]),
            ("header mode", control::HEADER_MODE, &[JOINED_WITH_FIRST_FRAME]),
            ("repeated headers", control::REPEAT_HEADERS, &[0]),
            ("profile", control::H264_PROFILE, &[CONSTRAINED_BASELINE, BASELINE, MAIN]),
            ("level", control::H264_LEVEL, &[level]),
        ] {
            match device.find_control(id)? {
                Some(control) => set_first(device, &control, values)?,
                None => missing.push(name),
            }
        }
        let mut find = |name, id| {
            let found = device.find_control(id)?;
            if found.is_none() {
                missing.push(name);
            }
            Ok(found)
        };
        Ok(Self {
            bitrate: find("bitrate", control::BITRATE)?,
            gop: find("GOP", control::GOP_SIZE)?,
            force_key_frame: find("forced key frames", control::FORCE_KEY_FRAME)?,
            missing,
        })
    }

    /// What the driver cannot be told, in our words.
    pub(super) fn missing(&self) -> &[&'static str] {
        &self.missing
    }

    /// Sets bitrate and GOP.
    ///
    /// # Errors
    ///
    /// [`v4l2::Error`]: EBUSY from drivers that want their stream to be stopped for it.
    pub(super) fn apply(&self, device: &Device, settings: &Settings) -> Result<(), v4l2::Error> {
        let pictures = pictures(settings.gop, settings.fps);
        // Where key frames can be asked for, the driver's own count only gets in their way.
        let gop = if self.force_key_frame.is_some() { pictures * 10 } else { pictures };
        for (control, value) in [(&self.bitrate, i64::from(settings.bitrate_bps)), (&self.gop, gop)]
        {
            let Some(control) = control else { continue };
            // Not `clamp`: a driver may say that there is nothing in between.
            let value = value.min(control.max).max(control.min);
            device.set_control(control, i32::try_from(value).unwrap_or(i32::MAX))?;
        }
        Ok(())
    }

    /// Asks for the next picture to be a key frame; answers whether the driver can be asked.
    ///
    /// # Errors
    ///
    /// [`v4l2::Error`], when the device is gone.
    pub(super) fn force_key_frame(&self, device: &Device) -> Result<bool, v4l2::Error> {
        let Some(control) = &self.force_key_frame else { return Ok(false) };
        device.set_control(control, 1).map(|()| true)
    }
}

/// Sets a control to the first of `values` that the driver accepts.
fn set_first(device: &Device, control: &Control, values: &[i32]) -> Result<(), v4l2::Error> {
    let mut refusal = None;
    for &value in values {
        match device.set_control(control, value) {
            Err(error) if error.errno == Errno::ENODEV => return Err(error),
            Err(error) => refusal = Some(error),
            Ok(()) => return Ok(()),
        }
    }
    if let Some(error) = refusal {
        log::info!("encode: the driver refuses {} of {values:?}: {error}", control.name);
    }
    Ok(())
}

/// Pictures from one key frame to the next; at least one.
#[allow(
    clippy::cast_possible_truncation,
    reason = "seconds times pictures per second; a float that is too large becomes the maximum"
)]
fn pictures(gop: Duration, fps: f64) -> i64 {
    ((gop.as_secs_f64() * fps).round() as i64).clamp(1, i64::from(i32::MAX) / 10)
}

/// The lowest level that allows for the pictures: its place in the driver's menu.
fn level(width: u32, height: u32, fps: f64, bitrate_bps: u32) -> i32 {
    let macroblocks = u64::from(width.div_ceil(16)) * u64::from(height.div_ceil(16));
    // Twice over, no level is wrong by the rounding of a rate.
    #[allow(clippy::cast_precision_loss, reason = "a picture has few macroblocks")]
    let per_second = macroblocks as f64 * fps;
    let fits = |&(_, max_per_second, max_macroblocks, max_kbps): &(i32, f64, u64, u32)| {
        per_second <= max_per_second
            && macroblocks <= max_macroblocks
            && bitrate_bps <= max_kbps.saturating_mul(1000)
    };
    LEVELS.iter().find(|level| fits(level)).map_or(LEVEL_5_2, |&(index, ..)| index)
}

/// H.264 table A-1: the menu's index, macroblocks per second and per picture, kbit/s.
const LEVELS: [(i32, f64, u64, u32); 16] = [
    (0, 1_485.0, 99, 64),
    (2, 3_000.0, 396, 192),
    (3, 6_000.0, 396, 384),
    (4, 11_880.0, 396, 768),
    (5, 11_880.0, 396, 2_000),
    (6, 19_800.0, 792, 4_000),
    (7, 20_250.0, 1_620, 4_000),
    (8, 40_500.0, 1_620, 10_000),
    (9, 108_000.0, 3_600, 14_000),
    (10, 216_000.0, 5_120, 20_000),
    (11, 245_760.0, 8_192, 20_000),
    (12, 245_760.0, 8_192, 50_000),
    (13, 522_240.0, 8_704, 50_000),
    (14, 589_824.0, 22_080, 135_000),
    (15, 983_040.0, 36_864, 240_000),
    (LEVEL_5_2, 2_073_600.0, 36_864, 240_000),
];
const LEVEL_5_2: i32 = 16;

// videodev2.h: v4l2_mpeg_video_bitrate_mode, _header_mode, _h264_profile.
const CONSTANT_BITRATE: i32 = 1;
const JOINED_WITH_FIRST_FRAME: i32 = 1;
const BASELINE: i32 = 0;
const CONSTRAINED_BASELINE: i32 = 1;
const MAIN: i32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_the_lowest_that_allows_for_the_pictures() {
        for ((width, height, fps, kbps), index) in [
            ((176, 144, 15.0, 64), 0),     // 1
            ((176, 144, 15.0, 100), 2),    // 1.1, by the bitrate
            ((320, 240, 10.0, 300), 3),    // 1.2
            ((640, 360, 25.0, 1_000), 8),  // 3, by the macroblocks per second
            ((1280, 720, 30.0, 4_000), 9), // 3.1, exactly
            ((1280, 720, 31.0, 4_000), 10),
            ((1920, 1080, 30.0, 8_000), 11), // 4
            ((1920, 1080, 30.0, 30_000), 12),
            ((3840, 2160, 30.0, 20_000), 15),
            ((8192, 8192, 60.0, 20_000), LEVEL_5_2),
        ] {
            assert_eq!(level(width, height, fps, kbps * 1000), index, "{width}x{height}@{fps}");
        }
    }

    #[test]
    fn a_gop_is_counted_in_pictures() {
        assert_eq!(pictures(Duration::from_secs(1), 30.0), 30);
        assert_eq!(pictures(Duration::from_millis(2_500), 9.99), 25);
        assert_eq!(pictures(Duration::ZERO, 30.0), 1);
        assert_eq!(pictures(Duration::from_secs(u64::MAX), 60.0) * 10, 2_147_483_640);
    }
}
