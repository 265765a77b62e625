//! Turns a bitrate into the quantization parameter of each picture.
//!
//! A leaky bucket by capture time: every unit pours its bits in, and the bitrate drains it. What
//! the bucket holds is counted in seconds of the bitrate and stays between empty and [`BUCKET`],
//! which is just under one second: so the units of any ten seconds are within a tenth of the
//! target. It is empty only where the least QP makes too few bits; a picture that would not fit
//! even at the greatest QP is left out.
//!
//! Between these ends one QP serves a whole GOP: the one at which the pictures of the next
//! seconds, IDR included, would bring the bucket back to where it should be at that point of the
//! GOP. After a cut, where the past says nothing, the activity of the picture bounds its bits.
//!
//! Not implemented: more than one QP in a picture.

use std::time::Duration;

use super::Settings;
use super::scene::{Activity, BLOCK, Residual};
use crate::time::Instant;

/// The rate control of one stream.
#[derive(Debug)]
pub(super) struct RateControl {
    target: Target,
    /// Luma samples of a picture.
    samples: f64,
    /// Seconds of the bitrate in the bucket when `captured` was.
    level: f64,
    captured: Option<Instant>,
    last_idr: Option<Instant>,
    /// Seconds from one IDR to the next, as they come: some are asked for.
    idr_interval: f64,
    intra: Past,
    inter: Past,
    /// QP of inter pictures, before rounding.
    base: f64,
    /// What the picture that is being encoded was planned with.
    planned: Planned,
}

/// What is to be held.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Target {
    bps: f64,
    fps: f64,
    gop: f64,
    /// What the bucket may hold, in seconds of the bitrate.
    bucket: f64,
    /// QP that a picture may be finer than the one before.
    step_down: f64,
    /// The part of the room in the bucket that one inter picture may take.
    inter_share: f64,
}

/// What pictures of one kind have cost.
#[derive(Clone, Copy, Debug, Default)]
struct Past {
    /// The last one.
    bits: f64,
    qp: f64,
    /// Bits times quantizer step, smoothed; zero before the first one.
    complexity: f64,
    /// The one with most to say of the last seconds, and when it was: what moves, stops, and moves
    /// again is no cut.
    residual: Residual,
    since: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Planned {
    qp: f64,
    is_idr: bool,
    /// Whether the past has nothing to say about it.
    is_cut: bool,
    residual: Residual,
}

impl RateControl {
    /// The rate control of a stream that begins with the next picture, of `samples` luma samples.
    pub(super) fn new(settings: &Settings, samples: usize) -> Self {
        let target = Target::of(settings);
        Self {
            target,
            samples: samples as f64,
            level: target.bucket / 4.0,
            captured: None,
            last_idr: None,
            idr_interval: target.gop,
            intra: Past::default(),
            inter: Past::default(),
            base: QP_MIN,
            planned: Planned::default(),
        }
    }

    /// Goes on with another target.
    pub(super) fn change(&mut self, settings: &Settings) {
        self.target = Target::of(settings);
        self.idr_interval = self.target.gop;
    }

    /// The QP of the picture that was `captured` now; nothing when it is to be left out.
    ///
    /// [`RateControl::encoded`] is called next, unless the picture is left out.
    pub(super) fn plan(
        &mut self,
        captured: Instant,
        is_idr: bool,
        activity: Activity,
    ) -> Option<u8> {
        let elapsed = self.captured.map_or(Duration::ZERO, |last| captured.since(last));
        self.level = (self.level - elapsed.as_secs_f64()).max(0.0);
        self.captured = Some(captured);
        let is_first = self.intra.complexity == 0.0;
        let (past, residual) =
            if is_idr { (self.intra, activity.intra) } else { (self.inter, activity.inter) };
        let is_known = past.complexity > 0.0;
        let is_cut = self.bound(&residual, QP_TYPICAL)
            > CUT_RATIO * self.bound(&past.residual, QP_TYPICAL) + CUT_FLOOR * self.samples;
        let room = self.target.bucket - self.level;
        let share = if is_idr { room.min(IDR_MAX) } else { room * self.target.inter_share };
        let wanted = if is_first { QP_MIN } else { self.wanted(captured) };
        if !is_idr && !is_first {
            self.base += (wanted - self.base).clamp(-self.target.step_down, STEP_UP);
        }
        let bits = |qp: f64| {
            let bound = self.bound(&residual, qp);
            // What is more to say than last time is taken for noise.
            let more = (bound - self.bound(&past.residual, qp)).max(0.0);
            if is_known { (past.bits_at(qp) + more).min(bound) } else { bound }
        };
        let mut qp = if is_idr { self.base - IDR_OFFSET } else { self.base };
        qp = hysteresis(qp, past.qp).clamp(QP_MIN, QP_MAX);
        while qp < QP_MAX && bits(qp) > share * self.target.bps {
            qp += 1.0;
        }
        let fits = bits(qp) <= room * self.target.bps || self.level <= LEVEL_LEAST || is_first;
        self.planned = Planned { qp, is_idr, is_cut: is_cut || !is_known, residual };
        fits.then(|| whole(qp))
    }

    /// Learns what the picture planned last has cost.
    pub(super) fn encoded(&mut self, len: usize) {
        let bits = 8.0 * len as f64;
        let now = self.captured.unwrap_or_default();
        self.level += bits / self.target.bps;
        let Planned { qp, is_idr, is_cut, residual } = self.planned;
        let past = if is_idr { self.intra } else { self.inter };
        let is_more = self.bound(&residual, QP_TYPICAL) >= self.bound(&past.residual, QP_TYPICAL);
        let is_peak = is_more || now.since(past.since) > HOLD;
        let peak = if is_peak { (residual, now) } else { (past.residual, past.since) };
        // Pictures do not become much finer at once: the first of them would say everything anew.
        self.base = if self.inter.complexity == 0.0 { qp } else { self.base.max(qp - 0.5) };
        if is_idr {
            let pace = if is_cut { 1.0 } else { INTRA_PACE };
            self.intra.learn(bits, qp, peak, pace);
            if let Some(last) = self.last_idr.replace(now) {
                let interval = now.since(last).as_secs_f64();
                self.idr_interval += (interval - self.idr_interval) / 4.0;
            }
        } else {
            let pace = if is_cut { 1.0 } else { INTER_PACE };
            self.inter.learn(bits, qp, peak, pace);
        }
    }

    /// The QP at which the pictures of the next seconds bring the bucket to its middle.
    fn wanted(&self, now: Instant) -> f64 {
        let Target { bps, fps, gop, bucket, .. } = self.target;
        let interval = self.idr_interval.clamp(1.0 / fps, gop.max(1.0 / fps));
        let horizon = interval.clamp(HORIZON_MIN, HORIZON_MAX);
        let idrs = horizon / interval;
        let inters = (horizon * fps - idrs).max(0.0);
        // Before the first inter picture is known it counts as a tenth of an IDR.
        let inter = if self.inter.complexity > 0.0 {
            self.inter.complexity
        } else {
            self.intra.complexity / 10.0
        };
        let idr = self.intra.complexity / step_ratio(-IDR_OFFSET);
        let since_idr = self.last_idr.map_or(0.0, |last| now.since(last).as_secs_f64());
        // An IDR fills the bucket at once, and the rest of its GOP drains it again.
        let tide = self.intra.bits / bps * (0.5 - (since_idr / interval).min(1.0));
        let spare = (bucket / 2.0 + tide.clamp(-bucket / 3.0, bucket / 3.0)) - self.level;
        let available = (horizon + spare).max(horizon / 8.0) * bps;
        let free = (idrs * idr + inters * inter) / available;
        // An IDR takes no more than its share, however dear it would be at this QP.
        let rest = (available - idrs * IDR_MAX * bps).max(available / 8.0);
        let step = free.min(inters * inter / rest);
        (4.0 + 6.0 * step.max(f64::MIN_POSITIVE).log2()).clamp(QP_MIN, QP_MAX)
    }

    /// More bits than a picture takes that leaves this to say: as many as if it were noise.
    fn bound(&self, residual: &Residual, qp: f64) -> f64 {
        let bits_of = |(bits, &count): (usize, &u32)| {
            let difference = 1.4 * (bits as f64 - 1.0).exp2() / BLOCK as f64;
            f64::from(count) * noise_bits(difference / step(qp))
        };
        let bits: f64 = residual.blocks.iter().enumerate().skip(1).map(bits_of).sum();
        let blocks: u32 = residual.blocks.iter().sum();
        self.samples * bits / f64::from(blocks.max(1))
    }
}

impl Target {
    fn of(settings: &Settings) -> Self {
        let fps = settings.fps.max(1.0);
        Self {
            bps: f64::from(settings.bitrate_bps.max(1)),
            fps,
            gop: settings.gop.as_secs_f64(),
            // A window holds up to one picture's time more than its ten seconds.
            bucket: (BUCKET - 1.0 / fps).max(BUCKET / 2.0),
            step_down: (STEP_DOWN_PER_SECOND / fps).clamp(STEP_DOWN_MIN, STEP_DOWN_MAX),
            inter_share: (INTER_SHARE_PER_SECOND / fps).clamp(INTER_SHARE_MIN, INTER_SHARE_MAX),
        }
    }
}

impl Past {
    fn learn(&mut self, bits: f64, qp: f64, peak: (Residual, Instant), pace: f64) {
        let complexity = bits * step(qp);
        self.complexity += (complexity - self.complexity) * pace;
        (self.bits, self.qp) = (bits, qp);
        (self.residual, self.since) = peak;
    }

    /// What the next one will take at most, at `qp`.
    fn bits_at(&self, qp: f64) -> f64 {
        let slope = if qp > self.qp { SLOPE_LEAST } else { SLOPE_MOST };
        self.bits * step_ratio(self.qp - qp).powf(slope)
    }
}

/// Stays at the QP there was while the wanted one is not clearly another.
fn hysteresis(wanted: f64, last: f64) -> f64 {
    if (wanted - last).abs() <= HYSTERESIS { last } else { wanted.round() }
}

/// Bits per luma sample of noise, chroma included, by its mean difference in quantizer steps: fitted
/// to what the library makes of full-range noise from QP 12 to 51.
fn noise_bits(ratio: f64) -> f64 {
    if ratio < 0.37 {
        14.0 * ratio * ratio
    } else if ratio < 1.0 {
        4.0 * ratio.powf(0.75)
    } else {
        4.0 * ratio.powf(0.45)
    }
}

/// The quantizer step (H.264 8.5.9): twice as much every 6 QP.
fn step(qp: f64) -> f64 {
    step_ratio(qp - 4.0)
}

fn step_ratio(qp: f64) -> f64 {
    (qp / 6.0).exp2()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in 0..=51")]
fn whole(qp: f64) -> u8 {
    qp as u8
}

/// Seconds of the bitrate in a full bucket: 10 % of ten seconds, and some air.
const BUCKET: f64 = 0.95;
/// Below this, nothing is gained by leaving out a picture.
const LEVEL_LEAST: f64 = 0.02;
/// Seconds of the bitrate that one IDR may take.
const IDR_MAX: f64 = 0.5;
/// What one inter picture may take of the room in the bucket: so much that a full second of them
/// would have eight times the room, but never most of it.
const INTER_SHARE_PER_SECOND: f64 = 8.0;
const INTER_SHARE_MIN: f64 = 0.25;
const INTER_SHARE_MAX: f64 = 0.5;
/// An IDR is what the GOP is predicted from: worth somewhat more.
const IDR_OFFSET: f64 = 2.0;
/// Seconds that a QP is chosen for.
const HORIZON_MIN: f64 = 1.0;
const HORIZON_MAX: f64 = 2.0;
/// QP per second and per picture: down slowly, so that an easy picture is not followed by a dear
/// one.
const STEP_DOWN_PER_SECOND: f64 = 30.0;
const STEP_DOWN_MIN: f64 = 1.0;
const STEP_DOWN_MAX: f64 = 3.0;
const STEP_UP: f64 = 6.0;
const HYSTERESIS: f64 = 0.75;
const INTRA_PACE: f64 = 0.5;
const INTER_PACE: f64 = 0.15;
/// Bits fall with the quantizer step to a power: this at least (noise), this at most.
const SLOPE_LEAST: f64 = 0.45;
const SLOPE_MOST: f64 = 1.2;
/// When there is so many times as much to say, and so many bits per sample more, it is a cut.
const CUT_RATIO: f64 = 2.0;
const CUT_FLOOR: f64 = 0.05;
/// Where that is compared.
const QP_TYPICAL: f64 = 26.0;
/// How long what there was to say is no surprise when it comes again.
const HOLD: Duration = Duration::from_secs(2);
/// Below this, nobody sees a difference, and CAVLC may run out of codes.
const QP_MIN: f64 = 12.0;
const QP_MAX: f64 = 51.0;

#[cfg(test)]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times and sizes are small and positive"
)]
mod tests;
