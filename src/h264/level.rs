//! The level that a stream has to announce.
//!
//! H.264 A.3.1, table A-1: what binds a stream with one reference picture.
//!
//! Not implemented: level 1b, levels above 5.2.

/// The least `level_idc` whose limits hold pictures of this size, this rate and this bitrate.
///
/// # Units
///
/// `width`, `height`: luma samples. What no level holds gets 52.
#[must_use]
pub fn level_idc(width: u32, height: u32, fps: f64, bitrate_bps: u32) -> u8 {
    let [across, down] = [width, height].map(|samples| u64::from(samples.div_ceil(16)));
    let size = across * down;
    let fits = |limits: &&Limits| {
        limits.max_frame_size >= size
            && limits.max_frame_size * 8 >= across.max(down).pow(2)
            && limits.max_macroblocks_per_second as f64 >= size as f64 * fps
            && limits.max_bitrate_kbps * CPB_BR_NAL_FACTOR >= u64::from(bitrate_bps)
    };
    LEVELS.iter().find(fits).map_or(52, |limits| limits.level_idc)
}

struct Limits {
    level_idc: u8,
    max_macroblocks_per_second: u64,
    /// Macroblocks.
    max_frame_size: u64,
    max_bitrate_kbps: u64,
}

const fn level(level_idc: u8, per_second: u64, frame_size: u64, bitrate_kbps: u64) -> Limits {
    Limits {
        level_idc,
        max_macroblocks_per_second: per_second,
        max_frame_size: frame_size,
        max_bitrate_kbps: bitrate_kbps,
    }
}

/// Table A-1.
const LEVELS: [Limits; 16] = [
    level(10, 1_485, 99, 64),
    level(11, 3_000, 396, 192),
    level(12, 6_000, 396, 384),
    level(13, 11_880, 396, 768),
    level(20, 11_880, 396, 2_000),
    level(21, 19_800, 792, 4_000),
    level(22, 20_250, 1_620, 4_000),
    level(30, 40_500, 1_620, 10_000),
    level(31, 108_000, 3_600, 14_000),
    level(32, 216_000, 5_120, 20_000),
    level(40, 245_760, 8_192, 20_000),
    level(41, 245_760, 8_192, 50_000),
    level(42, 522_240, 8_704, 50_000),
    level(50, 589_824, 22_080, 135_000),
    level(51, 983_040, 36_864, 240_000),
    level(52, 2_073_600, 36_864, 240_000),
];

/// Bits per "kbit" of table A-1 for NAL units (`cpbBrNalFactor` of the Baseline profile).
const CPB_BR_NAL_FACTOR: u64 = 1_200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_follows_size_rate_and_bitrate() {
        assert_eq!(level_idc(320, 240, 10.0, 300_000), 12);
        assert_eq!(level_idc(1280, 720, 30.0, 2_000_000), 31);
        assert_eq!(level_idc(1280, 720, 30.0, 16_800_000), 31);
        assert_eq!(level_idc(1280, 720, 30.0, 16_800_001), 32);
        assert_eq!(level_idc(1280, 720, 31.0, 2_000_000), 32);
        assert_eq!(level_idc(1920, 1080, 30.0, 4_000_000), 40);
        assert_eq!(level_idc(8192, 16, 1.0, 1), 51, "a side is limited, too");
        assert_eq!(level_idc(u32::MAX, u32::MAX, 1.0, 1), 52);
    }
}
