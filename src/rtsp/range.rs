//! Reads what a PLAY wants to see, and says what it gets, in the words of the Range header.
//!
//! RFC 2326 3.5 to 3.7 and 12.29. ONVIF Streaming ("RTSP audio and video synchronization") wants
//! `clock=` in the answer, for which the camera has to know the time.
//!
//! A live stream plays from now, whatever was asked for: players ask for `npt=0.000-`, `npt=now-`
//! and `npt=0.000-2.000`, and recorders for times of day. Only what can be no range at all, because
//! it ends before it begins, is refused.
//!
//! Not implemented: SMPTE units, and the end of a range.

use std::fmt;

use crate::time::NtpTimestamp;

/// Whether a range ends before it begins. What cannot be read is not said to.
pub(super) fn is_reversed(header: &str) -> bool {
    let range = header.split(';').next().unwrap_or_default();
    let Some((unit, range)) = range.split_once('=') else { return false };
    let Some((start, end)) = range.split_once('-') else { return false };
    let (start, end) = (start.trim(), end.trim());
    match unit.trim() {
        "npt" => matches!((npt(start), npt(end)), (Some(start), Some(end)) if end < start),
        "clock" => matches!((utc(start), utc(end)), (Some(start), Some(end)) if end < start),
        _ => false,
    }
}

/// Seconds, or `hours:minutes:seconds` (RFC 2326 3.6).
fn npt(text: &str) -> Option<f64> {
    text.split(':').try_fold(0.0, |sum, part| {
        let is_number = part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let part: f64 = is_number.then(|| part.parse().ok())??;
        Some(sum * 60.0 + part)
    })
}

/// Date and time of a fixed number of digits (RFC 2326 3.7), which sort as what they mean; the
/// fraction's sort so too.
fn utc(text: &str) -> Option<(&str, &str)> {
    let (whole, fraction) = text.strip_suffix('Z')?.split_once('.').unwrap_or((text, ""));
    let whole = whole.trim_end_matches('Z');
    let (date, time) = whole.split_once('T')?;
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_right = date.len() == 8 && time.len() == 6 && is_digits(date) && is_digits(time);
    (is_right && is_digits(fraction)).then_some((whole, fraction))
}

/// What a PLAY gets: from this moment of the wall clock, or from now by no clock at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct From(pub Option<NtpTimestamp>);

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(at) = self.0 else { return f.write_str("npt=now-") };
        let since_1970 = at.to_unix();
        let (days, second) = (since_1970.as_secs() / DAY_S, since_1970.as_secs() % DAY_S);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let millis = since_1970.subsec_millis();
        write!(f, "clock={year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{millis:03}Z-")
    }
}

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01.
///
/// Counted in years that begin in March, so that the day that some years lack is the last; 400 of
/// them have 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_1970;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

const DAY_S: u64 = 86_400;
/// From the first of March of the year 0.
const DAYS_TO_1970: u64 = 719_468;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_moment_is_written_as_date_and_time_of_day() {
        for (micros, text) in [
            (1_795_358_240_257_000, "clock=20261122T143720.257Z-"),
            (0, "clock=19700101T000000.000Z-"),
            (951_782_399_999_999, "clock=20000228T235959.999Z-"),
            (951_782_400_000_000, "clock=20000229T000000.000Z-"),
            (2_147_483_648_000_000, "clock=20380119T031408.000Z-"),
        ] {
            // Rounded up, because NTP's fractions are not decimal.
            let at = NtpTimestamp::from_unix(Duration::from_micros(micros));
            let at = NtpTimestamp(at.0 + 1);
            assert_eq!(From(Some(at)).to_string(), text);
        }
        assert_eq!(From(None).to_string(), "npt=now-");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let mut expected = (1970, 1, 1);
        for days in 0..60_000 {
            assert_eq!(date(days), expected);
            let (year, month, day) = expected;
            let len = match month {
                2 => 28 + u64::from(is_leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == len => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }

    #[test]
    fn only_what_ends_before_it_begins_is_reversed() {
        for header in [
            "npt=10-5",
            "npt = 0:00:10.5 - 10",
            "npt=1:00:00-59:59.9;time=19970123T143720Z",
            "clock=19961108T143720.25Z-19961108T143720.24Z",
            "clock=20261122T143720Z-20261122T143719.9Z",
        ] {
            assert!(is_reversed(header), "{header}");
        }
        for header in [
            "npt=0.000-2.000",
            "npt=0.000-",
            "npt=now-",
            "npt=-20",
            "npt=5-5",
            "npt=",
            "npt=99999999999999999999-",
            "npt=1e9-5",
            "clock=99991231T235959Z-",
            "clock=20261122T143720Z-20261122T143720.1Z",
            "clock=20261122T143720.257Z-garbage",
            // What is no time is before nothing.
            "clock=2999112T143720Z-20261122T143720Z",
            "clock=29991122T14372Z-20261122T143720Z",
            "clock=2999112xT143720Z-20261122T143720Z",
            "clock=29991122T14372xZ-20261122T143720Z",
            "clock=29991122T143720.xZ-20261122T143720Z",
            "smpte=10:07:33-10:07:00",
            "garbage",
            "",
        ] {
            assert!(!is_reversed(header), "{header}");
        }
    }
}
