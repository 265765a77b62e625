//! What becomes of a lease when servers go, come back, refuse, and when the cable is pulled.

use std::net::Ipv4Addr;

use ocellus::net::{Event, Lease, Origin};
use smoltcp::wire::DhcpMessageType;

use super::world::{World, s};

fn leased(world: &mut World) -> Lease {
    world.run_for(s(1));
    let told = world.told();
    let [Event::Acquired(lease)] = told.as_slice() else { panic!("{told:?}") };
    lease.clone()
}

#[test]
fn the_lease_is_renewed_at_t1_with_the_server_itself() {
    let mut world = World::new(1, 2);
    let lease = leased(&mut world);
    let Origin::Dhcp { server, .. } = lease.origin else { panic!("{lease:?}") };
    world.servers.iter_mut().for_each(|server| server.seen.clear());
    world.run_for(s(300));
    assert!(matches!(world.told()[..], [Event::Renewed(_)]));
    for asked in &world.servers {
        let unicasts = asked.seen.iter().filter(|(_, _, unicast)| *unicast).count();
        assert_eq!(unicasts, usize::from(asked.identifier == server), "{:?}", asked.seen);
    }
}

#[test]
fn a_server_that_is_gone_costs_the_address_only_when_the_lease_runs_out() {
    let mut world = World::new(2, 1);
    let lease = leased(&mut world);
    world.servers[0].on = false;
    world.run_for(s(598));
    assert_eq!((world.told(), world.address()), (vec![], Some(lease.address)));
    world.run_for(s(30));
    let told = world.told();
    let [Event::Lost, Event::Acquired(fallback)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(fallback.origin, Origin::LinkLocal);
    world.servers[0].on = true;
    world.run_for(s(70));
    assert_eq!(world.told(), [Event::Lost, Event::Acquired(lease)]);
}

#[test]
fn another_server_may_answer_the_broadcast_of_t2() {
    let mut world = World::new(3, 2);
    world.servers[1].on = false;
    let lease = leased(&mut world);
    world.servers[0].on = false;
    world.servers[1].on = true;
    world.run_for(s(520));
    assert_eq!((world.told(), &world.servers[1].seen), (vec![], &vec![]), "T2 is at 525 s");
    world.run_for(s(79));
    let told = world.told();
    assert!(matches!(told.as_slice(), [Event::Renewed(_)]), "{told:?}");
    assert_eq!(world.address(), Some(lease.address));
    let (_, kind, unicast) = world.servers[1].seen[0];
    assert_eq!((kind, unicast), (DhcpMessageType::Request, false));
}

#[test]
fn a_network_that_is_renumbered_gives_a_new_address_at_the_next_renewal() {
    let mut world = World::new(4, 1);
    let lease = leased(&mut world);
    world.servers[0].offers = Ipv4Addr::new(192, 168, 7, 99);
    // The book of the old network stays until it is asked.
    world.run_for(s(320));
    let told = world.told();
    let [Event::Lost, Event::Acquired(new)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(new.address, world.servers[0].offers);
    assert_ne!(new.address, lease.address);
    assert_eq!(world.servers[0].seen[2].1, DhcpMessageType::Request);
}

#[test]
fn a_cable_that_is_pulled_and_put_back_keeps_the_lease_and_confirms_it() {
    let mut world = World::new(5, 1);
    let lease = leased(&mut world);
    for _ in 0..10 {
        world.plug(false);
        world.run_for(s(7));
        world.plug(true);
        world.run_for(s(3));
        assert_eq!(world.told(), [Event::Renewed(lease.clone())]);
    }
}

#[test]
fn a_cable_into_another_network_brings_that_networks_address() {
    let mut world = World::new(6, 1);
    leased(&mut world);
    world.plug(false);
    world.run_for(s(5));
    world.plug(true);
    world.servers[0].offers = Ipv4Addr::new(10, 9, 8, 7);
    world.run_for(s(15));
    let told = world.told();
    assert!(matches!(told.as_slice(), [Event::Lost, Event::Acquired(_)]), "{told:?}");
    assert_eq!(world.address(), Some(Ipv4Addr::new(10, 9, 8, 7)));
}

#[test]
fn a_cable_that_is_out_for_longer_than_the_lease_costs_the_address() {
    let mut world = World::new(7, 1);
    let lease = leased(&mut world);
    world.plug(false);
    world.run_for(s(601));
    assert_eq!((world.told(), world.address()), (vec![Event::Lost], None));
    world.plug(true);
    world.run_for(s(5));
    assert_eq!(world.told().last(), Some(&Event::Acquired(lease)));
}
