//! Everything that goes wrong, when it begins and when it ends; drawn from the seed.

use std::time::Duration;

use ocellus::time::Instant;

use super::encoder::Mode;
use super::router::Link;
use super::world::World;
use crate::hub::Random;

/// What begins or ends.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A host's link becomes this one.
    Link(usize, Box<Link>),
    /// A player does something; players count from 0.
    Act(usize, Act),
    Pictures(Mode),
    ParameterSets,
    /// The times of capture stand still, or go on.
    CaptureClock {
        stands: bool,
    },
    /// The wall clock is set.
    WallClock {
        step_micros: i64,
    },
    /// The camera's process is not run for so long.
    Sleep(Duration),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Reads nothing.
    Freeze(Duration),
    Pause(Duration),
    Leave,
    Insist,
    Bye,
    HangUp,
    PowerOff,
    PowerOn,
}

/// Whom faults may hit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Targets {
    /// Players up to this one are spared, and so is what all have in common.
    pub(crate) witnesses: usize,
    pub(crate) players: usize,
}

/// Draws faults from `now` on that are all over after `span`, in the order of their times.
pub(crate) fn schedule(
    random: &mut Random,
    now: Instant,
    span: Duration,
    targets: Targets,
    links: &[Link],
) -> Vec<(Instant, Event)> {
    let end = now + span;
    let mut events = Vec::new();
    for _ in 0..3 + random.below(9) {
        let begin = now + random.up_to(span);
        let until = (begin + random.up_to(Duration::from_secs(12))).max(begin).min(end);
        // Some last longer than a session lives.
        let until = if random.percent(10) { end } else { until };
        draw(random, (begin, until), targets, links, &mut events);
    }
    events.sort_by_key(|(at, _)| *at);
    events
}

fn draw(
    random: &mut Random,
    (begin, until): (Instant, Instant),
    targets: Targets,
    links: &[Link],
    events: &mut Vec<(Instant, Event)>,
) {
    let has_witness = targets.witnesses > 0;
    let count = u64::try_from(targets.players - targets.witnesses).unwrap();
    let player = targets.witnesses + usize::try_from(random.below(count)).unwrap();
    let mut act = |at, act| events.push((at, Event::Act(player, act)));
    let span = until.since(begin);
    match random.below(20) {
        0..=6 => {
            let is_common = !has_witness && random.percent(20);
            let host = if is_common { 0 } else { player + 1 };
            let bad = bad_link(random, &links[host]);
            events.push((begin, Event::Link(host, Box::new(bad))));
            events.push((until, Event::Link(host, Box::new(links[host].clone()))));
        }
        7 => act(begin, Act::Freeze(span)),
        8 => act(begin, Act::Pause(span)),
        9 => act(begin, Act::Leave),
        10 => act(begin, Act::Insist),
        11 => act(begin, Act::HangUp),
        12 | 13 => {
            // Without a word, or with one.
            if random.percent(50) {
                act(begin, Act::Bye);
            }
            let off = begin + Duration::from_millis(50);
            act(off, Act::PowerOff);
            act(until.max(off), Act::PowerOn);
            // Whether its house is dark, or its host says that nobody is there.
            if random.percent(50) {
                let down = Link { is_up: false, ..links[player + 1].clone() };
                events.push((off, Event::Link(player + 1, Box::new(down))));
                let up = Event::Link(player + 1, Box::new(links[player + 1].clone()));
                events.push((until.max(off), up));
            }
        }
        14 => {
            events.push((begin, Event::Pictures(Mode::Silent)));
            events.push((until, Event::Pictures(Mode::Live)));
        }
        15 => {
            events.push((begin, Event::Pictures(Mode::NoSignal)));
            events.push((until, Event::Pictures(Mode::Live)));
        }
        16 => events.push((begin, Event::ParameterSets)),
        17 => {
            events.push((begin, Event::CaptureClock { stands: true }));
            events.push((until, Event::CaptureClock { stands: false }));
        }
        18 => {
            let steps = [400_000, -700_000, 3_600_000_000, -3_600_000_000, -50 * YEAR_MICROS];
            let step_micros = steps[usize::try_from(random.below(5)).unwrap()];
            events.push((begin, Event::WallClock { step_micros }));
        }
        _ if has_witness => events.push((begin, Event::ParameterSets)),
        _ => {
            let span = random.up_to(Duration::from_secs(3)).min(until.since(begin));
            events.push((begin, Event::Sleep(span)));
        }
    }
}

fn bad_link(random: &mut Random, good: &Link) -> Link {
    let good = good.clone();
    let millis = |random: &mut Random, up_to| Duration::from_millis(random.below(up_to));
    match random.below(9) {
        0 => Link { is_up: false, ..good },
        1 => Link { loss: (1 + random.below(20), 1 + random.below(20)), ..good },
        // Bursts of ten and more.
        2 => Link { loss: (1 + random.below(3), 80 + random.below(18)), ..good },
        3 => Link { jitter: millis(random, 300), reorders: true, ..good },
        4 => Link { duplicate_percent: 1 + random.below(50), ..good },
        5 => Link { corrupt_percent: 1 + random.below(20), ..good },
        6 => Link { bytes_per_second: Some(1_000 << random.below(6)), ..good },
        7 => Link { mtu: 300 + usize::try_from(random.below(900)).unwrap(), ..good },
        _ => Link { delay: good.delay + millis(random, 800), jitter: millis(random, 50), ..good },
    }
}

impl World {
    pub(crate) fn happen(&mut self, event: &Event) {
        let now = self.now;
        match event {
            Event::Link(host, link) => *self.router.link(*host) = Link::clone(link),
            Event::Pictures(mode) => self.encoder.switch(now, *mode),
            Event::ParameterSets => self.encoder.change_parameter_sets(),
            Event::CaptureClock { stands } => {
                self.disturb();
                self.encoder.freeze_clock(stands.then_some(now));
            }
            Event::WallClock { step_micros } => self.wall_offset_micros += step_micros,
            Event::Sleep(span) => {
                self.disturb();
                self.camera.sleep(now + *span);
            }
            Event::Act(player, act) => self.act(*player, *act),
        }
    }

    fn act(&mut self, index: usize, act: Act) {
        let now = self.now;
        let player = &mut self.players[index];
        match act {
            Act::Freeze(span) => player.freeze(now + span),
            Act::HangUp => player.hang_up(now, Duration::from_millis(200)),
            Act::PowerOff => player.power_off(now),
            Act::PowerOn => player.power_on(now),
            Act::Pause(_) | Act::Leave | Act::Insist | Act::Bye => {
                let Some(client) = player.client_mut() else { return };
                match act {
                    Act::Pause(span) => client.pause(now, now + span),
                    Act::Leave => client.leave(now),
                    Act::Insist => client.insist(now),
                    _ => client.say_bye(),
                }
            }
        }
        player.wake(now);
    }
}

const YEAR_MICROS: i64 = 365 * 86_400 * 1_000_000;
