//! Decides who asks, for every protocol that asks for passwords: Digest, nonces, throttling.
//!
//! RFC 7616. Sans-I/O: time, the peer's address and the secret are arguments. `rtsp` and `control`
//! each keep a [`Secret`] and a [`Throttle`] of their own.

#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may fail")
)]

mod digest;
mod secret;
mod throttle;
mod user;

pub use digest::{Claim, Credentials, Error, Verdict, challenges, nonce};
pub use secret::Secret;
pub use throttle::{PENALTY, Throttle};
pub use user::{Role, User};
