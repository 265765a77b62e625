//! Two viewers behind a bad network, and one who is not: loss, duplicates, reordering and delay by
//! the kernel's netem, on a virtual cable of which the viewers' end is in a namespace of its own.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use ocellus::sys::netlink::Netlink;

use super::booted::{Booted, Check, credentials};
use super::client::Lower;
use super::guest;
use super::link::{Impairment, Link};
use super::listener::{Heard, Listener, Manners, pause};

pub(super) const CHECKS: &[(&str, Check)] =
    &[("bad_network_is_felt_by_those_behind_it_and_in_the_network_only", bad_network)];

fn bad_network(camera: &Booted) {
    let near = camera.listener(Lower::Tcp);
    let namespace = cable();
    let behind = |lower| {
        let manners = Manners { url: URL, namespace: Some(&namespace), ..Manners::of(lower) };
        Listener::start(&manners, &credentials())
    };
    let (tcp, udp) = (behind(Lower::Tcp), behind(Lower::Udp));
    let memory = camera.memory_kb();
    let load = camera.load(Duration::from_secs(4));
    let mut link = Link::open(if_nametoindex(CAMERA_END).unwrap());
    let mut loads = Vec::new();
    for (impairment, what, is_felt) in PHASES {
        link.impair(impairment);
        loads.push(camera.load(Duration::from_secs(6)));
        // Chance may want longer.
        udp.wait_for(what, is_felt);
    }
    link.impair(&Impairment::default());
    // What was on its way; and a report on everything.
    udp.wait_for_reports(1);
    pause(Duration::from_secs(1));
    let grown = camera.memory_kb().saturating_sub(memory);
    let (near, tcp, udp) = (near.heard(), tcp.heard(), udp.heard());
    println!("  load {load:.2}, then {loads:.2?}; {grown} kB more");
    for heard in [&near, &tcp] {
        heard.assert_unbroken(Duration::from_secs(3));
    }
    let oldest = [&near, &tcp].map(|heard| heard.ages().into_iter().max().unwrap());
    println!(
        "  the near one's pictures are up to {:?} old, those by TCP {:?}",
        oldest[0], oldest[1]
    );
    assert!(oldest[0] < Duration::from_secs(2), "{oldest:?}");
    only_lost(&near, &udp);
    counted(&near, &udp);
    assert!(loads.iter().all(|it| *it < 1.5 * load + 0.1), "{load} {loads:?}");
    assert!(grown < 1_024, "{memory} kB and {grown} more");
    camera.pid();
}

/// What came by UDP is what was sent, and what has not come was lost on the way: a few of a hundred.
fn only_lost(near: &Heard, udp: &Heard) {
    let content = |heard: &Heard| -> BTreeSet<_> {
        heard.packets.iter().map(super::listener::Packet::content).collect()
    };
    let (sent, came) = (content(near), content(udp));
    assert!(came.is_subset(&sent), "{:?}", came.difference(&sent));
    // Of what was sent while the other one listened; the last may not have come yet.
    let (begin, end) = (udp.packets[0].at, near.packets.last().unwrap().at - SURELY_THERE);
    let due = near.packets.iter().filter(|packet| (begin..end).contains(&packet.at));
    let lost = due.clone().filter(|packet| !came.contains(&packet.content())).count();
    println!("  UDP: {} came, {lost} lost, {} twice", came.len(), udp.packets.len() - came.len());
    // 5 % in less than half of the time, by runs of packets.
    assert!(lost * 100 <= 15 * due.count(), "{lost} lost");
}

fn has_loss_and_duplicates(heard: &Heard) -> bool {
    let steps = || heard.packets.windows(2).map(|it| it[1].sequence.wrapping_sub(it[0].sequence));
    steps().any(|step| (2..100).contains(&step)) && steps().any(|step| step == 0)
}

fn has_been_overtaken(heard: &Heard) -> bool {
    let mut pairs = heard.packets.windows(2);
    pairs.any(|two| two[1].sequence.wrapping_sub(two[0].sequence).cast_signed() < -1)
}

/// Every report says how many packets the camera had sent, whatever had become of them.
fn counted(near: &Heard, udp: &Heard) {
    // Nothing was lost before the network got worse.
    let first = udp.packets[0].sequence;
    let sent: Vec<_> = near.packets.iter().skip_while(|packet| packet.sequence != first).collect();
    for report in &udp.reports[1..] {
        let after = |timestamp: u32| timestamp.wrapping_sub(report.rtp).cast_signed() > 0;
        let until = sent.iter().take_while(|packet| !after(packet.timestamp)).count();
        assert_eq!(until, report.packet_count as usize, "{report:?}");
    }
    let offsets = udp.report_offsets();
    println!("  {} reports, off by {offsets:?} µs", offsets.len());
    assert!(offsets.len() >= 3 && offsets.iter().all(|off| off.abs() <= 3_000), "{offsets:?}");
}

/// Plugs a cable in; the namespace with its other end. The firmware gives the camera's end its
/// address.
fn cable() -> OwnedFd {
    for module in ["veth", "sch_netem"] {
        guest::insert(&Path::new("/net").join(module).with_extension("ko"), "");
    }
    let namespace = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        OwnedFd::from(std::fs::File::open("/proc/thread-self/ns/net").unwrap())
    });
    let namespace = namespace.join().unwrap();
    super::link::plug_in(CAMERA_END, VIEWERS_END, &namespace);
    let other_end = namespace.try_clone().unwrap();
    let configured = std::thread::spawn(move || {
        setns(other_end, CloneFlags::CLONE_NEWNET).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let index = if_nametoindex(VIEWERS_END).unwrap();
        netlink.add_address(index, VIEWERS_ADDRESS, 24).unwrap();
        netlink.set_up(index).unwrap();
    });
    configured.join().unwrap();
    namespace
}

const CAMERA_END: &str = "eth0";
const VIEWERS_END: &str = "viewers";
// The camera's is in scripts/device-test.
const URL: &str = "rtsp://192.0.2.1:554/main";
const VIEWERS_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SURELY_THERE: Duration = Duration::from_secs(1);
/// A network, what it does, and whether it has done so.
type Phase = (&'static Impairment, &'static str, fn(&Heard) -> bool);
const PHASES: [Phase; 2] = [
    (&LOSSY, "packets that are lost, and some that come twice", has_loss_and_duplicates),
    (&LATE, "packets that overtake others", has_been_overtaken),
];
const LOSSY: Impairment =
    Impairment { loss_percent: 5, duplicate_percent: 5, at_once_percent: 0, delay: Duration::ZERO };
const LATE: Impairment = Impairment {
    loss_percent: 0,
    duplicate_percent: 0,
    at_once_percent: 40,
    delay: Duration::from_millis(200),
};
