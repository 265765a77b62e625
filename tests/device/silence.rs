//! A viewer who was there from the start and never said a word.

use std::time::Duration;

use ocellus::sys::clock;

use super::booted::{Booted, Check};
use super::listener::pause;

/// The last of the guest: its time runs while the others do their worst, steps of the clock too.
pub(super) const CHECKS: &[(&str, Check)] =
    &[("silent_session_ends_when_its_time_is_over_and_not_before", ends)];

fn ends(camera: &Booted) {
    let since = camera.silent.heard().packets[0].at;
    let over = since + TIMEOUT + Duration::from_secs(10);
    pause(over.since(clock::now()));
    let heard = camera.silent.heard();
    let last = heard.packets.last().unwrap().at.since(since);
    println!("  packets for {last:?}");
    assert!(heard.has_ended, "it was told so");
    // By the second, and the machine may be busy.
    assert!(last > TIMEOUT - Duration::from_secs(3), "{last:?}");
    assert!(last < TIMEOUT + Duration::from_secs(5), "{last:?}");
    heard.assert_unbroken(Duration::from_secs(10));
}

/// What the camera enforces, having promised 60 s.
const TIMEOUT: Duration = Duration::from_secs(90);
