//! What moves in which zone.

use std::fmt;

use super::{Counter, Gauge};

/// The zones that are watched; none while nobody looks for motion.
#[derive(Debug, Default)]
pub struct Motion {
    pub zones: Vec<MotionZone>,
}

/// One zone.
#[derive(Debug)]
pub struct MotionZone {
    /// No other has it.
    pub name: String,
    /// 1 from the beginning of motion to its end, else 0.
    pub is_moving: Gauge,
    /// Motions that began.
    pub events: Counter,
}

impl Motion {
    /// Zones of these names, in which nothing moved yet.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let zone =
            |name| MotionZone { name, is_moving: Gauge::default(), events: Counter::default() };
        Self { zones: names.into_iter().map(zone).collect() }
    }

    /// Motion begins or ends in a zone, by its index.
    pub fn set(&self, zone: usize, is_moving: bool) {
        if let Some(zone) = self.zones.get(zone) {
            zone.is_moving.set(u64::from(is_moving));
            zone.events.add(u64::from(is_moving));
        }
    }

    /// Nobody looks any more.
    pub fn forget(&self) {
        self.zones.iter().for_each(|zone| zone.is_moving.set(0));
    }
}

impl fmt::Display for Motion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, zone) in self.zones.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            let (name, events) = (&zone.name, zone.events.get());
            write!(f, "{space}zone={name:?} moving={} events={events}", zone.is_moving.get())?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_every_zone() {
        let motion = Motion::new(["door".to_owned(), "a \"b\"".to_owned()]);
        motion.zones[0].is_moving.set(1);
        motion.zones[0].events.increment();
        let wanted = r#"zone="door" moving=1 events=1 zone="a \"b\"" moving=0 events=0"#;
        assert_eq!(motion.to_string(), wanted);
        assert_eq!(Motion::default().to_string(), "");
    }
}
