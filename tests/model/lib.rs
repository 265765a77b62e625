//! Compiles `src/ring` and what it names a second time, under loom or Miri.
//!
//! `scripts/model` runs both: loom explores every interleaving of the few atomics and locks that
//! are ours; Miri runs the unit and stress tests of the real ring with many schedules.

#[path = "../../src/h264/mod.rs"]
pub mod h264;
#[path = "../../src/ring/mod.rs"]
pub mod ring;
#[path = "../../src/stats/mod.rs"]
pub mod stats;
#[path = "../../src/time.rs"]
pub mod time;

#[cfg(all(test, loom))]
mod models;
