//! A camera that gets less of the machine than it is used to: memory, processor time, tasks.
//!
//! By control groups (cgroup v2), and by others who want the processor too.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use ocellus::sys::clock;

use super::booted::{Booted, Check, credentials};
use super::client::{Client, Lower};
use super::listener::{Listener, pause};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("starved_of_the_processor_by_others_nothing_gets_old", starved),
    ("with_less_processor_time_there_are_fewer_pictures_and_none_is_old", less_time),
    ("without_a_further_task_everything_goes_on", no_tasks),
    ("with_little_memory_left_those_who_watch_go_on_watching", little_memory),
    ("who_takes_nothing_costs_what_a_socket_may_hold", crowd_that_takes_nothing),
];

fn starved(camera: &Booted) {
    let listener = camera.listener(Lower::Tcp);
    listener.wait_for_pictures(20);
    let mark = listener.mark();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        pause(TIME);
        is_over.store(true, Ordering::Relaxed);
    });
    let starved = listener.mark();
    listener.wait_for_pictures(20);
    println!("  {} pictures in {TIME:?}", pictures(&listener, mark, starved));
    judge(&listener, starved);
    camera.pid();
}

fn less_time(camera: &Booted) {
    let listener = camera.listener(Lower::Tcp);
    let mark = listener.mark();
    let load = camera.load(TIME);
    let group = Group::of("slow", camera);
    let quota = load * 0.5 * PERIOD_US;
    let before = pictures(&listener, mark, listener.mark());
    let mark = listener.mark();
    group.set("cpu.max", &format!("{quota:.0} {PERIOD_US}"));
    pause(TIME);
    group.set("cpu.max", "max");
    let lifted = listener.mark();
    let during = pictures(&listener, mark, lifted);
    println!("  load {load:.2}: {before} pictures, half of it: {during}");
    let began = clock::now();
    // Its pace goes up again by one step in ten seconds.
    loop {
        let mark = listener.mark();
        pause(TIME);
        if pictures(&listener, mark, listener.mark()) * 10 >= before * 8 {
            break;
        }
        assert!(clock::now().since(began) < Duration::from_secs(90), "as before");
    }
    println!("  as before after {:?}", clock::now().since(began));
    assert!(during > 4 && during < before, "fewer, but some: {during} of {before}");
    judge(&listener, lifted);
    camera.pid();
}

/// How many came between two marks.
fn pictures(listener: &Listener, from: usize, to: usize) -> usize {
    listener.heard().packets[from..to].iter().filter(|packet| packet.is_last).count()
}

/// Nothing was lost on the way to the viewer, no picture is old, and afterwards all is as before.
fn judge(listener: &Listener, over: usize) {
    let heard = listener.heard();
    heard.assert_unbroken(Duration::from_secs(3));
    let oldest = heard.ages().into_iter().max().unwrap();
    // What was on its way when it was over, is.
    let after = heard.since(over);
    let after: Vec<_> = after.ages().into_iter().skip(2).collect();
    println!("  up to {oldest:?} old, afterwards {:?}", after.iter().max());
    assert!(oldest < Duration::from_secs(3), "{oldest:?}");
    assert!(after.iter().all(|age| *age < Duration::from_secs(2)), "{after:?}");
}

/// A running camera needs no further thread: for viewers, pages, or a camera that fails.
fn no_tasks(camera: &Booted) {
    let listener = camera.listener(Lower::Tcp);
    let group = Group::of("few", camera);
    let tasks = group.get("pids.current");
    group.set("pids.max", &tasks);
    let others = [Lower::Tcp, Lower::Udp].map(|lower| camera.listener(lower));
    camera.bench.set("inject_fatal_streaming_error", 1);
    for listener in others.iter().chain([&listener]) {
        listener.wait_for_pictures(10);
        listener.heard().assert_unbroken(Duration::from_secs(3));
    }
    let refused = group.events("pids.events", "max");
    println!("  {tasks} tasks, {refused} refused");
    assert_eq!(refused, 0);
    camera.pid();
}

/// A fifth of what it has is left to grow, and as many come as are let in from one address.
fn little_memory(camera: &Booted) {
    let room = camera.memory_kb() / 5;
    crowd(camera, room, Crowd::Reads);
}

/// Those who take nothing cost the kernel's memory: what a socket may hold, and no more.
fn crowd_that_takes_nothing(camera: &Booted) {
    crowd(camera, 16 * SEND_BUFFER_KB + camera.memory_kb() / 5, Crowd::TakesNothing);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Crowd {
    Reads,
    TakesNothing,
}

impl Crowd {
    /// Longer than the sockets take to fill.
    const fn stays(self) -> Duration {
        Duration::from_secs(match self {
            Self::Reads => 5,
            Self::TakesNothing => 12,
        })
    }
}

fn crowd(camera: &Booted, room_kb: u64, kind: Crowd) {
    let those_there = [Lower::Tcp, Lower::Udp].map(|lower| camera.listener(lower));
    let [tcp, _] = &those_there;
    tcp.wait_for_pictures(20);
    let group = Group::of("small", camera);
    // What it has already is not this group's: it is kept where it was first used.
    let before: u64 = group.get("memory.current").parse().unwrap();
    group.set("memory.max", &(before + room_kb * 1_024).to_string());
    // On one who is one too many the camera hangs up, which the client takes for a failure.
    let mut crowd: Vec<_> = (0..16).filter_map(|_| catch_unwind(join).ok().flatten()).collect();
    let (joined, began) = (crowd.len(), clock::now());
    while clock::now().since(began) < kind.stays() {
        match kind {
            Crowd::Reads => crowd.iter_mut().for_each(|it| it.listen(Duration::from_millis(5))),
            Crowd::TakesNothing => pause(Duration::from_millis(500)),
        }
    }
    let peak = group.get("memory.peak").parse::<u64>().unwrap().saturating_sub(before) / 1_024;
    drop(crowd);
    tcp.wait_for_pictures(20);
    let [kills, hits] = ["oom_kill", "max"].map(|name| group.events("memory.events", name));
    println!(
        "  room for {room_kb} kB: {joined} of 16 let in, up to {peak} kB more, limit met {hits} \
         times, {kills} killed"
    );
    assert!(joined >= 10, "{joined}");
    assert_eq!(kills, 0);
    camera.pid();
    for listener in &those_there {
        assert!(!listener.heard().has_ended);
        listener.heard().assert_unbroken(Duration::from_secs(3));
    }
}

/// One more viewer; none when it is not let in.
fn join() -> Option<Client> {
    let mut client = Client::connect(super::booted::URL, &credentials());
    let replies = [client.describe(), client.setup(Lower::Tcp), client.play()];
    replies.iter().all(|reply| reply.status() == 200).then_some(client)
}

/// A control group with the camera in it, for a while.
struct Group {
    folder: PathBuf,
}

impl Group {
    fn of(name: &str, camera: &Booted) -> Self {
        let root = Path::new(ROOT);
        fs::create_dir_all(root).unwrap();
        match mount(Some("cgroup2"), root, Some("cgroup2"), MsFlags::empty(), None::<&str>) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => panic!("{ROOT}: {errno}"),
        }
        fs::write(root.join("cgroup.subtree_control"), "+cpu +memory +pids").unwrap();
        let group = Self { folder: root.join(name) };
        fs::create_dir(&group.folder).unwrap();
        group.set("cgroup.procs", &camera.pid().to_string());
        group
    }

    fn set(&self, name: &str, value: &str) {
        let file = self.folder.join(name);
        fs::write(&file, value).unwrap_or_else(|error| panic!("{value} to {name}: {error}"));
    }

    fn get(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap().trim_end().to_owned()
    }

    fn events(&self, file: &str, name: &str) -> u64 {
        let text = self.get(file);
        let rows = text.lines().filter_map(|line| line.split_once(' '));
        rows.filter(|(key, _)| *key == name).map(|(_, count)| count.parse::<u64>().unwrap()).sum()
    }
}

impl Drop for Group {
    /// The camera is nobody's again.
    fn drop(&mut self) {
        for pid in self.get("cgroup.procs").lines() {
            let _ = fs::write(Path::new(ROOT).join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.folder);
    }
}

const TIME: Duration = Duration::from_secs(6);
const ROOT: &str = "/cgroup";
/// 128 kB, which the kernel counts twice.
const SEND_BUFFER_KB: u64 = 256;
/// The kernel's own.
const PERIOD_US: f64 = 100_000.0;
