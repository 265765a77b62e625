//! Says at build time what will be slow at run time.
//!
//! OpenH264's x86 code is assembled with nasm, and silently left out without it.
#![allow(clippy::print_stdout, reason = "this is how a build script speaks")]

use std::env;
use std::process::{Command, Stdio};

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    let target = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let needs_nasm = matches!(target.as_str(), "x86" | "x86_64");
    if needs_nasm {
        println!("cargo::rerun-if-env-changed=PATH");
    }
    let mut nasm = Command::new("nasm");
    nasm.arg("-v").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if needs_nasm && nasm.status().is_err() {
        println!(
            "cargo::warning=nasm is not installed: encoding will be about 2.8 times slower \
             (install it, then run `cargo clean -p openh264-sys2` and build again)"
        );
    }
}
