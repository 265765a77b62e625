//! Whole worlds from one number: players, faults, and the calm after them.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use ocellus::stats::Ending;
use ocellus::time::Instant;

use super::client::{Habits, Kind};
use super::faults::{Targets, schedule};
use super::planted::Bug;
use super::router::Link;
use super::truth::{Checked, Rule, hold};
use super::world::{ADMIN, SHAPE, Shape, VIEWER, World};
use crate::cores;
use crate::hub::Random;

/// What a world came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Of every packet that arrived anywhere.
    pub(crate) digest: u64,
    pub(crate) simulated: Duration,
    pub(crate) happened: Happened,
}

/// How often it came to what is worth simulating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Happened {
    /// Sessions that ended, by the reason of [`Ending::ALL`].
    endings: [u64; 6],
    /// Access units that viewers were too slow for.
    dropped: u64,
    datagrams: u64,
    access_units: u64,
}

impl Happened {
    fn in_world(world: &World) -> Self {
        let stats = &world.camera.stats;
        Self {
            endings: Ending::ALL.map(|why| stats.endings.of(why).get()),
            dropped: stats.dropped.get(),
            datagrams: world.datagrams(),
            access_units: stats.access_units.get(),
        }
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in self.endings.iter_mut().zip(other.endings) {
            *sum += more;
        }
        self.dropped += other.dropped;
        self.datagrams += other.datagrams;
        self.access_units += other.access_units;
    }
}

/// Lives through one world: faults for a while, then none, and everybody watches again.
fn live(seed: u64) -> Checked<Outcome> {
    live_with(seed, None)
}

/// The same, in a camera with a bug.
pub(crate) fn live_with(seed: u64, bug: Option<Bug>) -> Checked<Outcome> {
    let mut random = Random(seed);
    let shape = Shape {
        packet_len: 300 + usize::try_from(random.below(1_073)).unwrap(),
        send_len: 4_096 << random.below(4),
        ..SHAPE
    };
    let mut world = World::new(random.next(), shape);
    let start = world.now;
    let witnesses = usize::from(random.percent(50));
    let players = 2 + usize::try_from(random.below(4)).unwrap();
    let mut links = vec![world.router.link(0).clone()];
    for index in 0..players {
        let (kind, habits) = draw_player(&mut random, index < witnesses);
        let link = Link::good(Duration::from_micros(200 + random.below(20_000)));
        links.push(link.clone());
        world.add(kind, habits, link, random.next());
    }
    let longest = if random.percent(10) { 240 } else { 45 };
    let span = Duration::from_secs(10 + random.below(longest));
    if let Some(bug) = bug {
        world.camera.plant(bug, start + Duration::from_secs(5));
    }
    let targets = Targets { witnesses, players };
    let is_traced = std::env::var_os("OCELLUS_TRACE").is_some();
    let _ = env_logger::try_init();
    for (at, event) in schedule(&mut random, world.now, span, targets, &links) {
        world.run_for(at.since(world.now))?;
        if is_traced {
            println!("{:?} {:?} {event:?}", world.now, world.now.since(start));
        }
        world.happen(&event);
    }
    world.run_for((start + span).since(world.now))?;
    if bug == Some(Bug::ForgetsIdrs) {
        world.encoder.gop = Duration::from_secs(3_600);
    }
    recover(&mut world)?;
    Ok(Outcome {
        digest: world.router.digest,
        simulated: world.now.since(start),
        happened: Happened::in_world(&world),
    })
}

fn draw_player(random: &mut Random, is_witness: bool) -> (Kind, Habits) {
    let kind = match random.below(6) {
        0 => Kind::Tcp(0),
        1 => Kind::Tcp(u8::try_from(2 * random.below(100)).unwrap()),
        2 => Kind::Tunnel,
        3 => Kind::Multicast,
        _ => Kind::Udp,
    };
    // Who gets datagrams has to be heard of: with what goes to a group, by asking.
    let asks = kind == Kind::Multicast || random.percent(50);
    let habits = Habits {
        login: if random.percent(20) { ADMIN } else { VIEWER },
        asks,
        reports: (kind == Kind::Udp && !asks) || random.percent(70),
        complains: random.percent(50),
        nags: random.percent(20),
        witness: is_witness.then_some(Duration::from_millis(100)),
    };
    (kind, habits)
}

/// The faults are over.
fn recover(world: &mut World) -> Checked<()> {
    let calm = world.now;
    let mut datagram_viewers = Vec::new();
    for index in 0..world.players.len() {
        let is_counted = world.is_counted(index);
        let player = &mut world.players[index];
        let is_datagram = !player.kind.is_stream();
        let Some(client) = player.client_mut() else { continue };
        (client.calm, client.first_packet) = (calm, None);
        if is_datagram && is_counted && client.is_playing() {
            datagram_viewers.push(index);
        }
    }
    for _ in 0..40 {
        world.run_for(Duration::from_millis(500))?;
        for index in 0..world.players.len() {
            let may_wait = datagram_viewers.contains(&index).then_some(calm);
            check_picture(world, index, calm, may_wait)?;
        }
    }
    for index in 0..world.players.len() {
        let is_counted = world.is_counted(index);
        let (now, player) = (world.now, &world.players[index]);
        let client = player.client();
        let last = client.filter(|client| client.is_playing()).and_then(|client| client.last_idr);
        let is_back = last.is_some_and(|at| now.since(at) < PICTURE_WITHIN);
        hold(is_back && is_counted, Rule::Back, || {
            format!("player {}: counted {is_counted}, {:?} {client:?}", index + 1, player.kind)
        })?;
    }
    Ok(())
}

/// Who was there when the faults ended has a picture two seconds later; who comes, or hears again
/// by TCP, two seconds after the first packet that was not held up by the faults: smoltcp repairs
/// one loss per round trip at best, and per second at worst.
fn check_picture(
    world: &World,
    index: usize,
    calm: Instant,
    may_wait_from: Option<Instant>,
) -> Checked<()> {
    let player = &world.players[index];
    let Some(client) = player.client().filter(|client| client.is_playing()) else { return Ok(()) };
    let has_picture = client.last_idr.is_some_and(|at| at > calm);
    // Who has dialled again since counts from its first packet.
    let from = may_wait_from.filter(|_| client.began < calm).or(client.first_packet);
    let is_late = from.is_some_and(|from| world.now.since(from) > PICTURE_WITHIN);
    hold(has_picture || !is_late, Rule::Picture, || {
        format!("player {} ({:?}) has none since {from:?}", index + 1, player.kind)
    })
}

/// Two seconds, and what the longest way takes.
const PICTURE_WITHIN: Duration = Duration::from_millis(2_100);

fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let times = [usage.user_time(), usage.system_time()];
    times
        .map(|time| Duration::from_micros(time.num_microseconds().try_into().unwrap()))
        .iter()
        .sum()
}

#[test]
fn whatever_happens_everybody_watches_again() {
    let before = cpu_time();
    let worlds = cores::live(&cores::seeds(1_000), live);
    let (mut simulated, mut happened, mut failures) = (Duration::ZERO, Happened::default(), 0);
    for (seed, result) in &worlds {
        match result {
            Ok(outcome) => {
                simulated += outcome.simulated;
                happened.add(&outcome.happened);
            }
            Err(violation) => {
                println!("OCELLUS_SEED={seed}: {violation:?}");
                failures += 1;
            }
        }
    }
    let (count, simulated, spent) = (worlds.len(), simulated.as_secs_f64(), cpu_time() - before);
    println!(
        "{count} worlds, {:.1} hours simulated, {:.0} s of processor time: {:.0} s per second and core",
        simulated / 3_600.0,
        spent.as_secs_f64(),
        simulated / spent.as_secs_f64()
    );
    println!("{happened:?}");
    assert_eq!(failures, 0, "of {count} worlds");
    // A world in which nothing happens proves nothing.
    let Happened { endings, dropped, .. } = happened;
    assert!(count < 500 || (endings.iter().all(|&it| it > 0) && dropped > 0), "{endings:?}");
}

#[test]
fn the_same_seed_makes_the_same_world_byte_for_byte() {
    for seed in 1..=5 {
        let outcome = live(seed).unwrap();
        assert_eq!(live(seed).unwrap(), outcome, "OCELLUS_SEED={seed}");
    }
}
