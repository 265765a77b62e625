//! What happens to the pictures of one stream, from the source to the ring.

use std::fmt;

use super::{Counter, Gauge, Histogram, Label};

/// What happened to the pictures on their way from the source to the ring.
#[derive(Debug, Default)]
pub struct Pipeline {
    /// Pictures taken from the source.
    pub captured: Counter,
    /// Lost in the driver: damaged buffers and gaps in its sequence.
    pub lost: Counter,
    /// Pictures that could not be decoded, from a source that compresses them.
    pub undecodable: Counter,
    /// Replaced by a newer picture before the encoder had time for them.
    pub superseded: Counter,
    /// Left out on purpose: the stream is slower than its source, or the board is too slow.
    pub left_out: Counter,
    /// Pictures that became access units.
    pub encoded: Counter,
    /// Pictures the encoder's rate control left out.
    pub skipped: Counter,
    /// Access units that found no free slot in the pool.
    pub pool_empty: Counter,
    /// Access units that a consumer's full ring could not take.
    pub ring_full: Counter,
    /// IDR pictures that somebody asked for and got.
    pub forced_idr: Counter,
    /// Times the source was closed and opened again.
    pub reopened: Counter,
    /// NO SIGNAL pictures, in place of the source's.
    pub placeholders: Counter,
    /// Times an encoder was replaced by another or by itself, opened again.
    pub encoder_replaced: Counter,
    /// 1 while pictures are the source's, 0 while they are NO SIGNAL.
    pub is_live: Gauge,
    /// Pictures per second that the stream is held to, in thousandths; 0 before that is known.
    pub fps_limit_milli: Gauge,
    /// The encoder at work; empty before there is one.
    pub encoder: Label,
    /// Why the encoder before it was given up, and why the source was last lost; empty at first.
    pub encoder_fault: Label,
    pub source_fault: Label,
    /// From the source's layout to the encoder's, with rotation and masks.
    pub convert_time: Histogram,
    /// To the stream's size.
    pub scale_time: Histogram,
    /// Writing time and name on the picture.
    pub overlay_time: Histogram,
    /// Looking for motion.
    pub motion_time: Histogram,
    /// Encoding alone.
    pub encode_time: Histogram,
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counters = [
            ("captured", &self.captured),
            ("lost", &self.lost),
            ("undecodable", &self.undecodable),
            ("superseded", &self.superseded),
            ("left_out", &self.left_out),
            ("encoded", &self.encoded),
            ("skipped", &self.skipped),
            ("pool_empty", &self.pool_empty),
            ("ring_full", &self.ring_full),
            ("forced_idr", &self.forced_idr),
            ("reopened", &self.reopened),
            ("placeholders", &self.placeholders),
            ("encoder_replaced", &self.encoder_replaced),
        ];
        for (name, counter) in counters {
            write!(f, "{name}={} ", counter.get())?;
        }
        let (live, milli) = (self.is_live.get(), self.fps_limit_milli.get());
        write!(f, "live={live} fps_limit={}.{:03}", milli / 1_000, milli % 1_000)?;
        write!(f, " encoder=\"{}\"", self.encoder.get())?;
        let times = [
            ("convert", &self.convert_time),
            ("scale", &self.scale_time),
            ("overlay", &self.overlay_time),
            ("motion", &self.motion_time),
            ("encode", &self.encode_time),
        ];
        // What is switched off is no news.
        for (name, time) in times.into_iter().filter(|(_, time)| time.count() > 0) {
            write!(f, " {name}_us=[{time}]")?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_log_has_all_counters_and_the_times_of_what_is_done() {
        let pipeline = Pipeline::default();
        pipeline.placeholders.add(3);
        pipeline.fps_limit_milli.set(29_970);
        pipeline.encoder.set("OpenH264");
        pipeline.encode_time.record(Duration::from_micros(7));
        assert_eq!(
            pipeline.to_string(),
            "captured=0 lost=0 undecodable=0 superseded=0 left_out=0 encoded=0 skipped=0 \
             pool_empty=0 ring_full=0 forced_idr=0 reopened=0 placeholders=3 encoder_replaced=0 \
             live=0 fps_limit=29.970 encoder=\"OpenH264\" encode_us=[p50=7 p99=7 max=7 mean=7 n=1]"
        );
    }
}
