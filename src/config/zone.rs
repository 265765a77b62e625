//! The time zone as users write it, and wall times in it.
//!
//! POSIX.1-2024 8.3, the variable TZ: the rule itself and no name of a place, because the firmware
//! has no data base of places.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::NotAllowed;

/// `UTC`, or a rule like `CET-1CEST,M3.5.0,M10.5.0/3`.
#[derive(Clone)]
pub struct Zone {
    rule: String,
    time_zone: TimeZone,
}

impl Zone {
    /// Replaces what is in `into` by a time since 1970 in words, like `2026-11-26 18:05:42 CET`.
    ///
    /// # Cost
    ///
    /// No allocation once `into` holds [`Zone::TEXT_LEN_MAX`] bytes.
    pub fn text(&self, unix_micros: i64, into: &mut String) {
        into.clear();
        let time = Timestamp::from_microsecond(unix_micros);
        // What no calendar has comes of a clock that was never set.
        let time = time.unwrap_or(Timestamp::UNIX_EPOCH);
        let info = self.time_zone.to_offset_info(time);
        let local = info.offset().to_datetime(time);
        // Writing into a String does not fail.
        let _ = write!(
            into,
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02} {}",
            local.year(),
            local.month(),
            local.day(),
            local.hour(),
            local.minute(),
            local.second(),
            info.abbreviation(),
        );
    }

    /// Bytes of the longest text.
    pub const TEXT_LEN_MAX: usize = 19 + 1 + RULE_LEN_MAX;
}

impl Default for Zone {
    fn default() -> Self {
        Self { rule: "UTC".into(), time_zone: TimeZone::UTC }
    }
}

impl FromStr for Zone {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        if text == "UTC" {
            return Ok(Self::default());
        }
        if text.len() > RULE_LEN_MAX {
            return Err(NotAllowed(RULES));
        }
        let time_zone = TimeZone::posix(text).map_err(|_| NotAllowed(RULES))?;
        Ok(Self { rule: text.to_owned(), time_zone })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zone").field(&self.rule).finish()
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.rule == other.rule
    }
}

impl Eq for Zone {}

const RULES: &str = "UTC, or a rule for TZ as POSIX has it, like CET-1CEST,M3.5.0,M10.5.0/3";
/// The longest in use have 32.
const RULE_LEN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// As `date -u -d "2026-11-26 17:05:42" +%s` has it.
    const NOVEMBER: i64 = 1_795_712_742;
    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn text(zone: &str, seconds: i64) -> String {
        let mut text = "what was there".to_owned();
        zone.parse::<Zone>().unwrap().text(seconds * 1_000_000 + 999_999, &mut text);
        text
    }

    #[test]
    fn wall_times_follow_the_zone_and_its_summer() {
        assert_eq!(text("UTC", NOVEMBER), "2026-11-26 17:05:42 UTC");
        assert_eq!(text(BERLIN, NOVEMBER), "2026-11-26 18:05:42 CET");
        assert_eq!(text("<+0530>-5:30", NOVEMBER), "2026-11-26 22:35:42 +0530");
        // Summer ended at 01:00 UTC of the last Sunday in October.
        let change = 1_792_890_000;
        assert_eq!(text(BERLIN, change - 1), "2026-10-25 02:59:59 CEST");
        assert_eq!(text(BERLIN, change), "2026-10-25 02:00:00 CET");
        assert_eq!(text("UTC", -1), "1969-12-31 23:59:59 UTC");
    }

    #[test]
    fn a_time_that_no_calendar_has_is_a_text_all_the_same() {
        for micros in [i64::MIN, i64::MAX] {
            let mut text = String::new();
            Zone::default().text(micros, &mut text);
            assert_eq!(text, "1970-01-01 00:00:00 UTC");
        }
    }

    #[test]
    fn the_longest_text_fits() {
        let name = "a".repeat(30);
        let mut text = String::with_capacity(Zone::TEXT_LEN_MAX);
        let (room, at) = (text.capacity(), text.as_ptr());
        for rule in ["UTC", BERLIN, "<+0530>-5:30", &format!("{name}0")] {
            rule.parse::<Zone>().unwrap().text(NOVEMBER * 1_000_000, &mut text);
            assert_eq!((text.capacity(), text.as_ptr()), (room, at), "{rule}");
        }
    }

    #[test]
    fn rules_survive_the_way_to_text_and_back_and_names_of_places_are_refused() {
        for rule in ["UTC", "UTC0", BERLIN, "EST5EDT,M3.2.0,M11.1.0", "<-03>3", "JST-9"] {
            assert_eq!(rule.parse::<Zone>().unwrap().to_string(), rule);
        }
        let long = format!("<{}>0", "x".repeat(80));
        for rule in
            ["", "utc", "CET", "Europe/Berlin", ":CET-1", "CET-1CEST,M13.5.0,M10.5.0", &long]
        {
            assert!(rule.parse::<Zone>().is_err(), "{rule:?}");
        }
    }
}
