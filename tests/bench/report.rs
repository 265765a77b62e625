//! Tables and plots of what was measured.

use std::fmt::Write as _;
use std::fs;

use crate::clip;
use crate::cost::Cost;
use crate::plot::{Line, chart};
use crate::server::Kind;
use crate::session::Transport;

/// Prints one line of a table, and keeps it for the file.
pub(crate) struct Report {
    text: String,
    costs: Vec<Cost>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { text: String::new(), costs: Vec::new() }
    }

    pub(crate) fn line(&mut self, line: &str) {
        println!("{line}");
        self.text.push_str(line);
        self.text.push('\n');
    }

    pub(crate) fn row(&mut self, what: &str, measured: &str) {
        self.line(&format!("| {what} | {measured} |"));
    }

    pub(crate) fn costs_begin(&mut self) {
        self.line("");
        let columns = [
            "viewers",
            "server",
            "CPU-s per viewer-minute",
            "× floor",
            "× peer",
            "RSS idle → now (anonymous), KiB",
            "switches per AU",
            "calls per AU",
            "sends per AU and viewer",
            "latency to the viewer's socket p50/p99, µs",
            "until it is read",
            "first to last viewer p50/p99, µs",
            "first packet p50/max, ms",
            "first IDR p50/max, ms",
            "lost of packets",
            "generator's CPU",
        ];
        self.line(&format!("| {} |", columns.join(" | ")));
        self.line(&format!("|{}", "---|".repeat(columns.len())));
    }

    /// Rows of one number of viewers: floor and peer before the camera, which is compared to them.
    pub(crate) fn cost(&mut self, cost: Cost) {
        let plan = cost.plan;
        let other = |kind: Kind| {
            let same = |other: &&Cost| {
                let it = other.plan;
                it.kind == kind && it.transport == plan.transport && it.count == plan.count
            };
            let other = self.costs.iter().rfind(same)?;
            Some(cost.cpu_s / other.cpu_s)
        };
        let ratio =
            |kind| other(kind).map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        let pair = |pair: Option<(i64, i64)>| match pair {
            Some((p50, p99)) => format!("{p50}/{p99}"),
            None => "–".to_owned(),
        };
        let times = |pair: Option<(std::time::Duration, std::time::Duration)>| match pair {
            Some((p50, max)) => format!("{:.0}/{:.0}", ms(p50), ms(max)),
            None => "–".to_owned(),
        };
        let calls = |value: f64, is_known: bool| match is_known {
            true => format!("{value:.2}"),
            false => "–".to_owned(),
        };
        let is_traced = plan.kind != Kind::Floor;
        let own = cost.own_latency.as_deref().map(|own| format!(" (own: {own})"));
        let closed =
            if cost.closed > 0 { format!(", {} closed", cost.closed) } else { String::new() };
        let cells = [
            format!("{} {}", plan.count, plan.transport),
            plan.kind.to_string(),
            format!("{:.4}", cost.cpu_s),
            ratio(Kind::Floor),
            ratio(Kind::Gst),
            format!(
                "{} → {} ({} → {})",
                cost.idle.rss_kib,
                cost.busy.rss_kib,
                cost.idle.anonymous_kib,
                cost.busy.anonymous_kib
            ),
            format!("{:.1}", cost.switches),
            calls(cost.calls, is_traced),
            calls(cost.sends, is_traced),
            format!("{}{}", pair(cost.latency), own.unwrap_or_default()),
            pair(cost.latency_read),
            pair(cost.spread),
            times(cost.first_packet),
            times(cost.first_idr),
            format!("{} of {}{closed}", cost.lost, cost.packets),
            format!("{:.0} %", cost.generator * 100.0),
        ];
        let line = format!("| {} |", cells.join(" | "));
        self.line(&line);
        self.costs.push(cost);
    }

    /// Writes the tables and the plots.
    pub(crate) fn save(&self) {
        let folder = clip::folder();
        fs::write(folder.join("report.md"), &self.text).unwrap();
        for transport in [Transport::Tcp, Transport::Udp] {
            let name = transport.to_string().to_lowercase();
            let cpu = self.lines(transport, |cost| Some(cost.cpu_s));
            let title = format!("CPU-seconds per viewer and minute, {transport}");
            fs::write(folder.join(format!("cpu-{name}.svg")), chart(&title, &cpu)).unwrap();
            let latency = self.lines(transport, |cost| cost.latency.map(|(_, p99)| p99 as f64));
            let title = format!("latency p99, µs, {transport}");
            fs::write(folder.join(format!("latency-{name}.svg")), chart(&title, &latency)).unwrap();
        }
        let mut csv = "server,transport,viewers,cpu_s_per_viewer_minute,rss_kib\n".to_owned();
        for cost in &self.costs {
            let (plan, rss) = (cost.plan, cost.busy.rss_kib);
            let who = format!("{},{},{}", plan.kind, plan.transport, plan.count);
            let _ = writeln!(csv, "{who},{:.5},{rss}", cost.cpu_s);
        }
        fs::write(folder.join("cost.csv"), csv).unwrap();
    }

    fn lines(&self, transport: Transport, value: impl Fn(&Cost) -> Option<f64>) -> Vec<Line> {
        let line = |kind: Kind| Line {
            name: kind.to_string(),
            points: self
                .costs
                .iter()
                .filter(|cost| cost.plan.kind == kind && cost.plan.transport == transport)
                .filter_map(|cost| Some((cost.plan.count as f64, value(cost)?)))
                .collect(),
        };
        [Kind::Gst, Kind::Ocellus, Kind::Floor].map(line).into_iter().collect()
    }
}

pub(crate) fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
