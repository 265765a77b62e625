//! Nobody gives addresses: the camera finds one itself, and yields to others.

use std::net::Ipv4Addr;

use ocellus::net::{Event, Origin};

use super::rival::{Manner, Rival};
use super::world::{World, s};
use crate::cores;

/// The address that this camera takes when nobody objects.
fn favourite() -> Ipv4Addr {
    let mut world = World::new(1, 0);
    world.run_for(s(30));
    world.address().unwrap()
}

fn alone(seed: u64, manner: Manner, after_s: u64) -> World {
    let mut world = World::new(seed, 0);
    let rival = Rival::new(favourite(), manner, world.now + s(after_s));
    world.rival = Some(rival);
    world
}

#[test]
fn a_camera_without_a_server_takes_the_same_link_local_address_every_time() {
    cores::live(&cores::seeds(50), |seed| {
        let mut world = World::new(seed, 1);
        world.servers[0].on = false;
        world.run_for(s(20));
        assert_eq!(world.address(), Some(favourite()));
        assert!(favourite().is_link_local());
    });
}

#[test]
fn an_address_that_somebody_has_is_never_used() {
    cores::live(&cores::seeds(50), |seed| {
        let mut world = alone(seed, Manner::Owns, 0);
        world.run_for(s(60));
        let told = world.told();
        let [Event::Acquired(lease)] = told.as_slice() else { panic!("{told:?}") };
        assert_ne!(lease.address, favourite());
        assert_eq!(world.rival.unwrap().objections, 0, "it was spoken for");
    });
}

#[test]
fn of_two_that_probe_at_once_neither_takes_the_address_blindly() {
    cores::live(&cores::seeds(50), |seed| {
        let mut world = alone(seed, Manner::Probes, 9);
        world.run_for(s(60));
        assert_ne!(world.address().unwrap(), favourite());
    });
}

#[test]
fn a_newcomer_is_told_that_the_address_is_taken() {
    let mut world = alone(3, Manner::Probes, 30);
    world.run_for(s(29));
    assert_eq!(world.address(), Some(favourite()));
    let announced = world.rival.as_ref().unwrap().objections;
    world.run_for(s(10));
    assert_eq!(world.address(), Some(favourite()));
    assert!(world.rival.unwrap().objections >= announced + 4);
}

#[test]
fn a_host_that_insists_is_answered_once_and_then_gets_the_address() {
    for (every_s, kept) in [(4, false), (60, true)] {
        let mut world = alone(4, Manner::Insists, 30);
        world.rival.as_mut().unwrap().every = s(every_s);
        world.run_for(s(100));
        let told = world.told();
        assert_eq!(world.address() == Some(favourite()), kept, "{told:?}");
        assert_eq!(told.len(), if kept { 1 } else { 3 }, "{told:?}");
        assert!(world.camera.held.is_some_and(|lease| lease.origin == Origin::LinkLocal));
    }
}
