//! System calls: the one place with `unsafe`.
#![allow(unsafe_code, reason = "the island of DESIGN: every block states its preconditions")]

pub mod clock;
