//! What `/metrics` says: counters, gauges and histograms as OpenMetrics text.
//!
//! The numbers are read when somebody asks. Those of viewers are up to a second old.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::Sources;
use crate::stats::{self, Counter, Ending, Histogram, Pipeline, Reception, Server};
use crate::sys::clock;
use crate::time::Instant;

pub(super) fn registry(sources: Sources) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Camera(sources)));
    registry
}

/// Reads everything at once.
#[derive(Debug)]
struct Camera(Sources);

impl Collector for Camera {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(&mut encoder);
        self.process(&mut page)?;
        self.pictures(&mut page)?;
        self.motion(&mut page)?;
        serving(&mut page, &self.0.server)?;
        self.viewers(&mut page)
    }
}

impl Camera {
    fn process(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION").into())];
        page.gauges("ocellus_build", "What runs; always 1", None, [(version, 1.0)])?;
        let memory = self.0.memory.as_ref().and_then(|memory| memory.bytes());
        let memory = memory.into_iter().map(|bytes| (NONE, as_f64(bytes)));
        page.gauges("process_resident_memory", "Memory in use", Some(&Unit::Bytes), memory)
    }

    /// From the source to the ring, by stream.
    fn pictures(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        type Field<T> = fn(&Pipeline) -> &T;
        let counters: [(&str, &str, Field<Counter>); 13] = [
            ("captured", "Taken from the source", |it| &it.captured),
            ("lost", "Lost in the driver", |it| &it.lost),
            ("undecodable", "Not to be decoded, from the source", |it| &it.undecodable),
            ("superseded", "Replaced by newer ones before they were encoded", |it| &it.superseded),
            ("left_out", "Left out: for a slower stream, or a slow board", |it| &it.left_out),
            ("encoded", "Made into access units", |it| &it.encoded),
            ("skipped", "Left out by the encoder's rate control", |it| &it.skipped),
            ("pool_empty", "Access units without a free slot", |it| &it.pool_empty),
            ("ring_full", "Access units that a consumer had no room for", |it| &it.ring_full),
            ("forced_idr", "IDR pictures that somebody asked for", |it| &it.forced_idr),
            ("source_reopened", "Times the source was opened again", |it| &it.reopened),
            ("placeholders", "NO SIGNAL pictures", |it| &it.placeholders),
            ("encoder_replaced", "Times the encoder was replaced", |it| &it.encoder_replaced),
        ];
        let streams = || self.0.streams.iter().map(|(name, it)| (stream_label(name), &**it));
        for (name, help, field) in counters {
            let rows = streams().map(|(label, it)| (label, field(it).get()));
            page.counters(&format!("ocellus_pictures_{name}"), help, None, rows)?;
        }
        let help = "1 while the source's pictures are shown, 0 while it is NO SIGNAL";
        let rows = streams().map(|(label, it)| (label, as_f64(it.is_live.get())));
        page.gauges("ocellus_source_live", help, None, rows)?;
        let help = "Pictures per second that the stream is held to";
        let rows = streams().map(|(label, it)| (label, it.fps_limit_milli.get()));
        let rows = rows.filter(|&(_, milli)| milli > 0);
        let rows = rows.map(|(label, milli)| (label, as_f64(milli) / 1e3));
        page.gauges("ocellus_fps_limit", help, None, rows)?;
        let rows = streams().map(|(label, it)| (label, it.encoder.get()));
        let rows = rows.filter(|(_, encoder)| !encoder.is_empty());
        let rows = rows.map(|([label], encoder)| ([label, ("encoder", encoder.into())], 1.0));
        page.gauges("ocellus_encoder", "The encoder at work; always 1", None, rows)?;
        let faults: [(&str, &str, Field<stats::Label>); 2] = [
            ("encoder", "Why the last encoder was given up; always 1", |it| &it.encoder_fault),
            ("source", "Why the source was last lost; always 1", |it| &it.source_fault),
        ];
        for (name, help, field) in faults {
            let rows = streams().map(|(label, it)| (label, field(it).get()));
            let rows = rows.filter(|(_, reason)| !reason.is_empty());
            let rows = rows.map(|([label], reason)| ([label, ("reason", reason.into())], 1.0));
            page.gauges(&format!("ocellus_{name}_fault"), help, None, rows)?;
        }
        let times: [(&str, &str, Field<Histogram>); 5] = [
            ("convert", "Conversion of a picture", |it| &it.convert_time),
            ("scale", "Scaling of a picture", |it| &it.scale_time),
            ("overlay", "Writing on a picture", |it| &it.overlay_time),
            ("motion_search", "Looking for motion in a picture", |it| &it.motion_time),
            ("encode", "Encoding of a picture", |it| &it.encode_time),
        ];
        for (name, help, field) in times {
            let rows = streams().map(|(label, it)| (label, field(it)));
            page.histograms(&format!("ocellus_{name}"), help, rows)?;
        }
        Ok(())
    }

    /// What moves, zone by zone.
    fn motion(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let zones = || {
            let zones = self.0.motion.zones.iter();
            zones.map(|zone| ([("zone", Cow::Owned(zone.name.clone()))], zone))
        };
        let moving = zones().map(|(label, zone)| (label, as_f64(zone.is_moving.get())));
        page.gauges("ocellus_motion", "1 while something moves", None, moving)?;
        let events = zones().map(|(label, zone)| (label, zone.events.get()));
        page.counters("ocellus_motion_events", "Motions that began", None, events)
    }

    /// One row for each viewer.
    fn viewers(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let viewers = self.0.viewers.read();
        let labels = |viewer: &stats::Viewer| {
            let stream = self.0.streams.get(viewer.stream).map_or("", |(name, _)| name);
            [
                ("session", viewer.number.to_string().into()),
                ("stream", Cow::Owned(stream.to_owned())),
                ("transport", viewer.transport.word().into()),
                ("peer", viewer.peer.to_string().into()),
            ]
        };
        let count = as_f64(viewers.iter().map(|viewer| viewer.sessions as u64).sum());
        page.gauges("ocellus_viewers", "Viewers who play", None, [(NONE, count)])?;
        type Count = fn(&stats::Viewer) -> u64;
        let counters: [(&str, &str, Option<Unit>, Count); 3] = [
            ("packets", "RTP packets sent to this viewer", None, |it| it.packets),
            ("payload", "RTP payload sent to this viewer", Some(Unit::Bytes), |it| it.octets),
            ("dropped", "Access units this viewer did not get", None, |it| it.dropped),
        ];
        for (name, help, unit, field) in counters {
            let rows = viewers.iter().map(|viewer| (labels(viewer), field(viewer)));
            page.counters(&format!("ocellus_viewer_{name}"), help, unit.as_ref(), rows)?;
        }
        let sessions = viewers.iter().map(|it| (labels(it), as_f64(it.sessions as u64)));
        let help = "Sessions that these packets serve: many for a group";
        page.gauges("ocellus_viewer_sessions", help, None, sessions)?;
        let ages = viewers.iter().map(|it| (labels(it), it.queue_age.as_secs_f64()));
        let help = "Age of the picture that is sent next";
        page.gauges("ocellus_viewer_queue_age", help, Some(&Unit::Seconds), ages)?;
        type Reading = fn(&Reception) -> Option<f64>;
        let reports: [(&str, &str, Option<Unit>, Reading); 4] = [
            ("lost_packets", "Packets that did not arrive, by its report", None, |it| {
                i32::try_from(it.lost).ok().map(f64::from)
            }),
            ("loss_ratio", "Part of the packets that did not arrive lately", None, |it| {
                Some(it.loss)
            }),
            ("jitter", "Jitter of arrival", Some(Unit::Seconds), |it| {
                Some(it.jitter.as_secs_f64())
            }),
            ("round_trip", "Time there and back", Some(Unit::Seconds), |it| {
                it.round_trip.map(|time| time.as_secs_f64())
            }),
        ];
        for (name, help, unit, reading) in reports {
            let rows = viewers.iter().filter_map(|viewer| {
                Some((labels(viewer), viewer.reception.as_ref().and_then(reading)?))
            });
            page.gauges(&format!("ocellus_viewer_{name}"), help, unit.as_ref(), rows)?;
        }
        Ok(())
    }
}

/// From the ring to the sockets, all viewers together.
fn serving(page: &mut Page<'_, '_>, server: &Server) -> fmt::Result {
    let bytes = Some(&Unit::Bytes);
    let counters: [(&str, &str, Option<&Unit>, &Counter); 10] = [
        ("access_units", "Access units packetized", None, &server.access_units),
        ("images_exhausted", "Dropped for all: too many held", None, &server.images_exhausted),
        ("connections", "RTSP connections accepted", None, &server.connections),
        ("connections_refused", "RTSP connections refused", None, &server.refused),
        ("plays", "Sessions that began to play", None, &server.plays),
        ("dropped", "Not sent to viewers who have stopped since", None, &server.dropped),
        ("stalled", "Viewers who took nothing any more", None, &server.stalled),
        ("sent", "Given to sockets", bytes, &server.bytes),
        ("send_calls", "Calls that gave something to sockets", None, &server.sends),
        ("loop_turns", "Turns of the server's loop", None, &server.turns),
    ];
    for (name, help, unit, counter) in counters {
        page.counters(&format!("ocellus_{name}"), help, unit, [(NONE, counter.get())])?;
    }
    let endings = Ending::ALL
        .map(|why| ([("reason", Cow::Borrowed(why.words()))], server.endings.of(why).get()));
    page.counters("ocellus_sessions_ended", "Sessions that are over", None, endings)?;
    let newest = Some(server.newest_micros.get()).filter(|&newest| newest > 0);
    let age = newest.map(|newest| clock::now().since(Instant::from_micros(newest)).as_secs_f64());
    let age = age.map(|age| (NONE, age));
    let help = "Since the newest picture was captured";
    page.gauges("ocellus_picture_age", help, Some(&Unit::Seconds), age)?;
    let times = [(NONE, &server.capture_to_socket)];
    page.histograms("ocellus_capture_to_socket", "From capture to a viewer's socket", times)
}

/// Label and value; what is known at build time is not copied.
type Label = (&'static str, Cow<'static, str>);

const NONE: [Label; 0] = [];

fn stream_label(name: &str) -> [Label; 1] {
    [("stream", Cow::Owned(name.to_owned()))]
}

/// A page as it is written, family by family. A family's rows have labels, or it is one row
/// without.
struct Page<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Page<'_, '_> {
    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl IntoIterator<Item = ([Label; N], u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in rows {
            if N == 0 {
                family.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            } else {
                let mut row = family.encode_family(&labels)?;
                row.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl IntoIterator<Item = ([Label; N], f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in rows {
            if N == 0 {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn histograms<'h, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([Label; N], &'h Histogram)>,
    ) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for (labels, histogram) in rows {
            let (sum, count, buckets) = read(histogram);
            if N == 0 {
                family.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            } else {
                let mut row = family.encode_family(&labels)?;
                row.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

/// Sum, count, and upper bounds with how many are in each bucket alone, the last without bound.
///
/// The bounds are the powers of two of a microsecond, where the histogram is exact.
fn read(histogram: &Histogram) -> (f64, u64, Vec<(f64, u64)>) {
    let mut buckets = Vec::new();
    let mut below = 0;
    for exponent in BOUNDS {
        // Counted in passing: what is written meanwhile may be in a later bucket only.
        let count = histogram.count_below(exponent).max(below);
        let bound = Duration::from_micros(1 << exponent).as_secs_f64();
        buckets.push((bound, count - below));
        below = count;
    }
    let count = histogram.count().max(below);
    buckets.push((f64::INFINITY, count - below));
    (histogram.sum().as_secs_f64(), count, buckets)
}

/// 53 bits are more than these ever have.
#[allow(clippy::cast_precision_loss, reason = "a gauge is a floating-point number by definition")]
const fn as_f64(value: u64) -> f64 {
    value as f64
}

/// From 128 µs to 8.4 s.
const BOUNDS: std::ops::RangeInclusive<u32> = 7..=23;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::encoding::text;

    use super::*;
    use crate::control::{Refused, Snapshots, StreamControl};
    use crate::stats::Motion;

    #[test]
    fn streams_and_zones_are_told_by_their_names() {
        let pipelines = [Arc::<Pipeline>::default(), Arc::default()];
        let motion = Arc::new(Motion::new(["door".to_owned(), "a \"b\"".to_owned()]));
        let sources = Sources {
            streams: ["main", "sub"]
                .map(str::to_owned)
                .into_iter()
                .zip(pipelines.clone())
                .collect(),
            server: Arc::default(),
            viewers: Arc::default(),
            memory: None,
            log: Arc::default(),
            motion: Arc::clone(&motion),
            snapshots: Snapshots::Raw(Arc::default()),
            stream_control: StreamControl {
                describe: Arc::new(String::new),
                change: Arc::new(|_, _| Err(Refused::UnknownStream)),
            },
        };
        let registry = registry(sources);
        let page = || {
            let mut page = String::new();
            text::encode(&mut page, &registry).unwrap();
            page
        };
        let before = page();
        assert!(!before.contains("ocellus_encoder{") && !before.contains("ocellus_fps_limit{"));
        let [main, sub] = &pipelines;
        main.encoder.set("m2m /dev/video11");
        main.is_live.set(1);
        main.encoder_fault.set("encoder: the device is gone");
        sub.source_fault.set("no picture for 3 s");
        main.fps_limit_milli.set(29_970);
        sub.left_out.add(20);
        sub.placeholders.increment();
        sub.encoder_replaced.add(2);
        main.undecodable.add(4);
        main.motion_time.record(Duration::from_micros(100));
        motion.zones[1].is_moving.set(1);
        motion.zones[1].events.add(3);
        let page = page();
        for line in [
            r#"ocellus_encoder{stream="main",encoder="m2m /dev/video11"} 1.0"#,
            r#"ocellus_encoder_fault{stream="main",reason="encoder: the device is gone"} 1.0"#,
            r#"ocellus_source_fault{stream="sub",reason="no picture for 3 s"} 1.0"#,
            r#"ocellus_source_live{stream="main"} 1.0"#,
            r#"ocellus_source_live{stream="sub"} 0.0"#,
            r#"ocellus_fps_limit{stream="main"} 29.97"#,
            r#"ocellus_pictures_left_out_total{stream="sub"} 20"#,
            r#"ocellus_pictures_undecodable_total{stream="main"} 4"#,
            r#"ocellus_pictures_placeholders_total{stream="sub"} 1"#,
            r#"ocellus_pictures_encoder_replaced_total{stream="sub"} 2"#,
            r#"ocellus_motion_search_seconds_sum{stream="main"} 0.0001"#,
            r#"ocellus_scale_seconds_count{stream="main"} 0"#,
            r#"ocellus_motion{zone="door"} 0.0"#,
            r#"ocellus_motion{zone="a \"b\""} 1.0"#,
            r#"ocellus_motion_events_total{zone="a \"b\""} 3"#,
        ] {
            assert!(page.lines().any(|it| it == line), "{line}\n{page}");
        }
    }
}
