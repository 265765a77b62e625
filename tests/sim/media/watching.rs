//! Players over TCP and UDP, on good links and on bad ones.

use std::time::Duration;

use super::client::{Habits, Kind};
use super::router::Link;
use super::world::{SHAPE, VIEWER, World};
use crate::cores;
use crate::hub::Random;

const HABITS: Habits = Habits {
    login: VIEWER,
    asks: true,
    reports: true,
    complains: true,
    nags: false,
    witness: None,
};
const EVERY_KIND: [Kind; 5] =
    [Kind::Tcp(0), Kind::Tcp(4), Kind::Udp, Kind::Multicast, Kind::Tunnel];

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn on_good_links_everybody_gets_every_picture_at_once() {
    cores::live(&cores::seeds(10), |seed| {
        let mut world = World::new(seed, SHAPE);
        let mut random = Random(!seed);
        for kind in EVERY_KIND {
            let habits = Habits { witness: Some(ms(50)), ..HABITS };
            world.add(kind, habits, Link::good(ms(1 + random.below(10))), random.next());
        }
        world.run_for(Duration::from_secs(60)).unwrap();
        for index in 0..EVERY_KIND.len() {
            let player = &world.players[index];
            assert!(player.client().unwrap().is_playing(), "{:?}", player.client());
            assert!(world.is_counted(index), "{:?}", world.players[index].peer());
        }
    });
}

#[test]
fn on_bad_links_what_arrives_is_still_right() {
    cores::live(&cores::seeds(20), |seed| {
        let mut world = World::new(seed, SHAPE);
        let mut random = Random(!seed);
        for kind in EVERY_KIND {
            let link = Link {
                jitter: ms(random.below(80)),
                reorders: random.percent(50),
                loss: (random.below(8), 60),
                duplicate_percent: random.below(4),
                corrupt_percent: random.below(3),
                ..Link::good(ms(random.below(100)))
            };
            world.add(kind, HABITS, link, random.next());
        }
        world.run_for(Duration::from_secs(60)).unwrap();
    });
}
