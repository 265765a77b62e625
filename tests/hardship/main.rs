//! The real camera among peers that mean harm, among faults, and for a long time.
//!
//! Whatever is done to it, viewers who behave are sent every packet, and a validator that is
//! written only from the RFCs judges what they got. `hostile` has what peers send (HOSTILE, section
//! 1), `faults` what happens to the machine (section 2), `soak` what hours do.
//!
//! Not here: faults that take a kernel of one's own (`tests/device`) or PID 1 (`tests/image`), and
//! those of a virtual clock (`tests/sim`).
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "real peers over real sockets and real time; a failed unwrap is a failed test"
)]

/// What `tests/interop` and `tests/bench` have, too: the same client, the same judge.
macro_rules! shared {
    ($($module:ident $path:literal),* $(,)?) => {
        $(
            #[allow(dead_code, unused_imports, reason = "the others use the rest of it")]
            #[path = $path]
            mod $module;
        )*
    };
}
shared! {
    camera "../interop/camera.rs",
    capture "../interop/capture.rs",
    client "../interop/client.rs",
    clip "../interop/clip.rs",
    digest "../interop/digest.rs",
    framing "../bench/framing.rs",
    load "../bench/load.rs",
    nal "../interop/nal.rs",
    process "../interop/process.rs",
    relay "../interop/relay.rs",
    session "../bench/session.rs",
    tally "../bench/tally.rs",
    validate "../interop/validate/mod.rs",
}

mod faults;
mod hostile;
mod soak;
mod stand;
