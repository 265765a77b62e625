//! The hand-over between threads: access units to consumers, pictures to the encoder, and the one
//! word that goes back.
//!
//! - [`publisher`]: a fixed pool of access units and one `heapless::spsc` queue per consumer,
//!   carrying `Arc`s. One thread publishes; each [`Consumer`] belongs to one thread. A slot of the
//!   pool is written only while the pool holds its only reference (`Arc::get_mut`), so no consumer
//!   can see a unit change.
//! - [`Newest`]: one slot; what is put replaces what has not been taken.
//! - [`IdrRequests`]: "IDR, please", limited.
//! - [`Stills`]: the next picture, for whoever asks.
//!
//! The publisher never waits. A consumer whose queue is full loses whole access units up to the
//! next IDR, and it alone; each is counted. A consumer that is gone leaves its queue full: its
//! losses go on being counted, and nobody else notices.
//!
//! Proved by unit tests, a two-thread stress test (also under Miri), and loom models in
//! `tests/model`.

mod idr_requests;
mod newest;
mod publisher;
mod stills;

pub use idr_requests::IdrRequests;
pub use newest::{Newest, Taken};
pub use publisher::{Consumer, Published, Publisher, publisher};
pub use stills::Stills;

/// The primitives of `std`, or loom's models of them.
mod sync {
    #[cfg(loom)]
    pub(super) use loom::sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    };
    #[cfg(not(loom))]
    pub(super) use std::sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    };
}
