//! One program for every target: libFuzzer, with the target that `OCELLUS_FUZZ` names; `list`
//! lists them.
//!
//! `scripts/fuzz` builds and runs it; the arguments are libFuzzer's.
#![no_main]
#![allow(clippy::disallowed_types, reason = "libFuzzer's macro names files")]

use std::process;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

mod targets;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fn target() -> fn(&[u8]) {
    let wanted = std::env::var("OCELLUS_FUZZ").unwrap_or_default();
    let known = || targets::TARGETS.iter().chain(ocellus::rtsp::fuzzing::TARGETS);
    if let Some((_, run)) = known().find(|(name, _)| *name == wanted) {
        return *run;
    }
    known().for_each(|(name, _)| println!("{name}"));
    process::exit(if wanted == "list" { 0 } else { 2 });
}

fuzz_target!(init: { TARGET.get_or_init(target); }, |data: &[u8]| {
    TARGET.get_or_init(target)(data);
});
