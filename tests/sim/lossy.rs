//! Seeded misery: lost, late, doubled and overtaking frames, and a network that comes and goes.

use std::panic::catch_unwind;
use std::time::Duration;

use super::camera::Bug;
use super::hub::{Random, Wire};
use super::rival::{Manner, Rival};
use super::world::{CAMERA, World, s};
use crate::cores;

fn bad_wire() -> Wire {
    Wire {
        plugged: true,
        delay: Duration::from_millis(2),
        jitter: Duration::from_millis(400),
        loss_percent: 30,
        duplicate_percent: 10,
    }
}

#[test]
fn a_link_that_loses_a_third_still_brings_a_lease_and_keeps_it() {
    cores::live(&cores::seeds(50), |seed| {
        let mut world = World::new(seed, 1);
        *world.hub.wire(CAMERA) = bad_wire();
        // A dozen DISCOVERs, of which one in two is answered.
        world.run_for(s(900));
        assert!(world.camera.has_dhcp(), "{:?}", world.camera.events);
        // Half of a lease's length is left for renewing it, at most 60 s apart.
        world.servers[0].lease_s = 3600;
        world.run_for(s(6 * 3600));
        *world.hub.wire(CAMERA) = Wire::good();
        world.run_for(s(200));
        assert!(world.camera.has_dhcp(), "{:?}", world.camera.events);
    });
}

#[test]
fn whatever_happens_the_camera_ends_with_the_address_the_network_gives() {
    let worlds = cores::live(&cores::seeds(200), |seed| live(seed, None));
    let hours = worlds.iter().map(|(_, lived)| lived.as_secs_f64()).sum::<f64>() / 3_600.0;
    println!("{} worlds of leases, {hours:.0} hours simulated", worlds.len());
}

/// What each bug comes to.
const NOTICED: [(Bug, &str); 5] = [
    (Bug::LosesTwice, "nothing to lose"),
    (Bug::MisreadsTheTerm, "and nobody grants it"),
    (Bug::RenewsAnother, "renewed another one"),
    (Bug::SpeaksForWhatItLost, "sent from a lost address"),
    (Bug::TakesASecondOne, "a second address"),
];

#[test]
fn every_planted_bug_is_noticed() {
    for (bug, complaint) in NOTICED {
        let complaints = (1..=20).filter_map(|seed| {
            let panicked = catch_unwind(|| live(seed, Some(bug))).err()?;
            panicked.downcast_ref::<String>().cloned()
        });
        let first =
            complaints.into_iter().next().unwrap_or_else(|| panic!("nobody noticed {bug:?}"));
        assert!(first.contains(complaint), "{bug:?}: {first}");
    }
}

/// Forty things go wrong, then nothing more; answers how long that was.
fn live(seed: u64, bug: Option<Bug>) -> Duration {
    let mut random = Random(seed ^ 0x5eed);
    let mut world = World::new(seed, 2);
    let start = world.now;
    world.camera.planted = bug;
    world.servers[1].on = false;
    for _ in 0..40 {
        happen(&mut world, &mut random);
        world.run_for(random.up_to(s(400)));
    }
    // Nothing to be had but link-local.
    world.rival = None;
    world.plug(true);
    *world.hub.wire(CAMERA) = Wire::good();
    world.servers.iter_mut().for_each(|server| server.on = false);
    world.run_for(s(1800));
    assert!(world.address().unwrap().is_link_local(), "{:?}", world.camera.events);
    // And a server again.
    world.servers[1].on = true;
    world.run_for(s(140));
    assert_eq!(world.address(), Some(world.servers[1].offers), "{:?}", world.camera.events);
    world.now.since(start)
}

/// One of everything that goes wrong.
fn happen(world: &mut World, random: &mut Random) {
    let server = usize::from(random.percent(50));
    match random.below(7) {
        0 => world.servers[server].on ^= true,
        1 => {
            let [a, b, c, _] = world.servers[server].offers.octets();
            let host = u8::try_from(10 + random.below(100)).unwrap();
            world.servers[server].offers = [a, b, c, host].into();
        }
        2 => world.plug(false),
        3 => world.plug(true),
        4 => {
            *world.hub.wire(CAMERA) = Wire { plugged: world.hub.wire(CAMERA).plugged, ..bad_wire() }
        }
        5 => {
            *world.hub.wire(CAMERA) =
                Wire { plugged: world.hub.wire(CAMERA).plugged, ..Wire::good() }
        }
        _ => {
            let address = world.address().filter(std::net::Ipv4Addr::is_link_local);
            let rival = address.map(|address| Rival::new(address, Manner::Insists, world.now));
            world.rival = rival;
        }
    }
}
