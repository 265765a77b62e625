//! Measures what the README promises: latency, cost per viewer, memory, start-up, size.
//!
//! A program, not a test: it prints numbers and asserts nothing about them. Ratios within one run
//! mean something on a shared machine; times alone mean little. `scripts/bench` runs it.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a program that measures real time over real sockets, and prints"
)]

mod clip;
mod cost;
mod floor;
mod framing;
mod hardship;
mod joins;
mod load;
mod plot;
mod report;
mod server;
mod session;
mod stages;
mod tally;

use std::path::Path;
use std::thread;
use std::time::Duration;

use cost::Plan;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use report::{Report, ms};
use server::{Kind, Server};
use session::Transport;

/// What the command line says.
struct Options {
    is_quick: bool,
    /// Sections without this in their names are left out.
    only: Option<String>,
    time: Duration,
    churn: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [as_floor, clip, count, ..] = &arguments[..]
        && as_floor == "--as-floor"
    {
        return floor::serve(Path::new(clip), count.parse().unwrap());
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let options = Options::parse(&arguments);
    load::keep_apart(arguments.iter().any(|argument| argument == "--pin"));
    let mut report = Report::new();
    report.line(&machine());
    report.line("");
    report.line("| what | measured |");
    report.line("|---|---|");
    single_figures(&options, &mut report);
    costs(&options, &mut report);
    report.save();
}

impl Options {
    fn parse(arguments: &[String]) -> Self {
        let after = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1).cloned()
        };
        let is_quick = arguments.iter().any(|argument| argument == "--quick");
        let seconds = after("--seconds").map(|text| text.parse().expect("--seconds N"));
        let churn = after("--churn").map(|text| text.parse().expect("--churn N"));
        Self {
            is_quick,
            only: after("--only"),
            time: Duration::from_secs(seconds.unwrap_or(if is_quick { 5 } else { 20 })),
            churn: churn.unwrap_or(if is_quick { 500 } else { 5_000 }),
        }
    }

    fn wants(&self, section: &str) -> bool {
        self.only.as_ref().is_none_or(|only| section.contains(only.as_str()))
    }
}

/// Cores, kernel and what else the machine does at the moment.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("?");
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    format!(
        "{cores} cores ({}), Linux {}, load before the start {}",
        model.trim_start_matches([' ', '\t', ':']),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
    )
}

fn single_figures(options: &Options, report: &mut Report) {
    let quick = |few: usize, many: usize| if options.is_quick { few } else { many };
    if options.wants("size") {
        let len = std::fs::metadata(Server::binary()).unwrap().len();
        report.row("binary, stripped, x86-64", &format!("{len} bytes"));
    }
    if options.wants("start") {
        let times = (0..quick(3, 15)).map(|_| Server::time_to_first_reply()).collect();
        report.row("exec to the first RTSP reply", &spread(times));
    }
    for transport in [Transport::Tcp, Transport::Udp] {
        if options.wants(&format!("joins {transport}")) {
            let what = format!("PLAY to first IDR packet, 720p30 live, {transport}, one by one");
            report.row(&what, &spread(joins::one_by_one(transport, quick(3, 20))));
            let what = format!("the same, 100 joins within 500 ms, {transport}");
            report.row(&what, &spread(joins::at_once(transport, 100)));
        }
    }
    for (count, transport) in
        [(0, Transport::Tcp), (1, Transport::Tcp), (16, Transport::Tcp), (16, Transport::Udp)]
    {
        if options.wants(&format!("live {transport} {count}")) {
            joins::live(report, count, transport, options.time);
        }
    }
    if options.wants("stages") {
        stages::measure(report, options.time);
    }
    if options.wants("stall") {
        report.row("one of 16 TCP viewers stalls for 5 s", &hardship::stalled_viewer());
    }
    if options.wants("churn") {
        report.row("connect and abort", &hardship::churn(options.churn));
    }
    if options.wants("tight") {
        let (tcp, udp) = floor::tight(quick(2_000, 20_000));
        for (what, micros) in [("TCP, one send", tcp), ("UDP, one segmented message", udp)] {
            let minute = micros * 30.0 * 60.0 / 1e6;
            let measured = format!("{micros:.1} µs of CPU; at 30 fps {minute:.4} CPU-s a minute");
            report.row(&format!("tight loop: {what} of 8 kB"), &measured);
        }
    }
}

/// The clip from every server, to every number of viewers.
fn costs(options: &Options, report: &mut Report) {
    report.costs_begin();
    for transport in [Transport::Tcp, Transport::Udp] {
        for count in [1, 10, 100, 1_000] {
            for kind in [Kind::Floor, Kind::Gst, Kind::Ocellus] {
                let section = format!("cost {transport} {count} {kind}.");
                if !options.wants(&section) {
                    continue;
                }
                match cost::measure(Plan { kind, transport, count, time: options.time }) {
                    Some(cost) => report.cost(cost),
                    None => {
                        let cells = "– | ".repeat(13);
                        let who = format!("| {count} {transport} | {kind}");
                        report.line(&format!("{who} | not every viewer got a picture | {cells}"));
                    }
                }
            }
        }
    }
}

/// Median, 99 % and extremes.
fn spread(mut times: Vec<Duration>) -> String {
    let mut at = |percent| ms(tally::percentile(&mut times, percent).unwrap_or_default());
    let (p50, p99, min, max) = (at(50), at(99), at(0), at(100));
    format!("p50 {p50:.1} ms, p99 {p99:.1}, min {min:.1}, max {max:.1} (n={})", times.len())
}

fn pause(time: Duration) {
    thread::sleep(time);
}
