//! The wall clock is stepped while viewers watch: by hours, to a time before 1980, by less than a
//! second.

use std::time::Duration;

use ocellus::sys::clock;
use ocellus::time::{Instant, NtpTimestamp};

use super::booted::{Booted, Check};
use super::client::Lower;
use super::listener::{pause, ticks};

pub(super) const CHECKS: &[(&str, Check)] =
    &[("wall_clock_steps_are_not_to_be_seen_in_a_running_session", steps)];

fn steps(camera: &Booted) {
    let right = RightTime::now();
    let listeners = [Lower::Tcp, Lower::Udp].map(|lower| camera.listener(lower));
    let marks = listeners.each_ref().map(|listener| {
        listener.wait_for("a report", |heard| !heard.reports.is_empty());
        listener.mark()
    });
    let restarts = camera.metric("ocellus_pictures_source_reopened_total");
    for step_s in [HOUR_S, -HOUR_S, HOUR_S, -FIFTY_YEARS_S] {
        step(i64::from(step_s) * 1_000_000);
        pause(Duration::from_millis(1_500));
    }
    listeners.iter().for_each(|listener| listener.wait_for_reports(1));
    assert!(clock::wall() < NtpTimestamp::from_unix(YEAR_1980), "{:?}", clock::wall().to_unix());
    begins_with_the_time_as_it_is(camera);
    right.restore();
    begins_with_the_time_as_it_is(camera);
    for (listener, mark) in listeners.iter().zip(marks) {
        let heard = listener.heard();
        let (offsets, ages) = (heard.report_offsets(), heard.ages());
        let (oldest, gop) = (ages.iter().max().unwrap(), heard.longest_gop());
        println!(
            "  {} pictures, up to {oldest:?} old, IDR within {gop:?}, reports off by {offsets:?} µs",
            ages.len()
        );
        assert!(heard.packets.len() > mark && !heard.has_ended);
        heard.assert_unbroken(Duration::from_secs(2));
        // What is left of a second is slewed, and nothing of an hour.
        assert!(offsets.iter().all(|off| off.abs() <= 3_000), "{offsets:?}");
        assert!(*oldest < Duration::from_secs(3), "by the clock that buffers are stamped with");
        // One a second, and a busy machine leaves out pictures.
        assert!(gop <= Duration::from_secs(3), "{gop:?}");
    }
    assert_eq!(camera.metric("ocellus_pictures_source_reopened_total"), restarts);
    small(&listeners.map(|listener| (listener.heard().reports.len(), listener)));
    camera.pid();
}

/// What time daemons would slew is slewed: by 500 ppm.
fn small(listeners: &[(usize, super::listener::Listener)]) {
    let right = RightTime::now();
    step(SMALL_STEP_US);
    for (before, listener) in listeners {
        listener.wait_for("two reports", |heard| heard.reports.len() >= before + 2);
        let heard = listener.heard();
        let offsets = heard.report_offsets();
        let reports = heard.reports.windows(2).zip(offsets.windows(2)).skip(before - 1);
        for (two, offsets) in reports {
            let passed = ticks(two[1].rtp.wrapping_sub(two[0].rtp));
            let moved = offsets[1] - offsets[0];
            println!("  {SMALL_STEP_US} µs: a report {passed:?} later has moved by {moved} µs");
            // Whole seconds count.
            let most = i64::try_from(passed.as_micros()).unwrap() * SLEW_PPM / 1_000_000;
            assert!((most - SLEW_PPM - 20..=most + 20).contains(&moved), "{moved} of {most}");
        }
        heard.assert_unbroken(Duration::from_secs(2));
    }
    right.restore();
}

/// Who comes now is told the time that the wall clock has now.
fn begins_with_the_time_as_it_is(camera: &Booted) {
    let listener = camera.listener(Lower::Tcp);
    listener.wait_for("a report", |heard| !heard.reports.is_empty());
    let off = clock::wall().micros_since(listener.heard().reports[0].ntp);
    println!("  a new session is told the time {off} µs ago");
    assert!((0..5_000_000).contains(&off), "{off} µs");
}

fn step(micros: i64) {
    let wall = clock::wall().offset_by_micros(micros).to_unix();
    clock::step(wall).unwrap();
}

/// Sets the wall clock right again, whatever has become of it.
struct RightTime(Instant, NtpTimestamp);

impl RightTime {
    fn now() -> Self {
        Self(clock::now(), clock::wall())
    }

    fn restore(&self) {
        clock::step(self.1.to_unix() + clock::now().since(self.0)).unwrap();
    }
}

impl Drop for RightTime {
    fn drop(&mut self) {
        self.restore();
    }
}

const HOUR_S: i32 = 3_600;
const FIFTY_YEARS_S: i32 = 50 * 365 * 86_400;
const YEAR_1980: Duration = Duration::from_secs(315_532_800);
const SMALL_STEP_US: i64 = 800_000;
const SLEW_PPM: i64 = 500;
