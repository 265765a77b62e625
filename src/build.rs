//! Says at build time what will be slow at run time, and links the C++ library.
//!
//! OpenH264's x86 code is assembled with nasm, and silently left out without it. Of the C++ library
//! it needs little, which costs a camera a megabyte of memory if it is a shared one.
#![allow(clippy::print_stdout, reason = "this is how a build script speaks")]

use std::env;
use std::process::{Command, Stdio};

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    let target = |part: &str| env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    // On musl the C++ compiler of scripts/cross has the whole of it in the binary.
    if target("ENV") == "gnu" {
        link_cxx_library();
    }
    let needs_nasm = matches!(target("ARCH").as_str(), "x86" | "x86_64");
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

/// Statically where that is installed. `.cargo/config.toml` keeps the crates that need it from
/// naming it themselves, which is always the shared one.
fn link_cxx_library() {
    println!("cargo::rerun-if-env-changed=CXX");
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".into());
    let asked = Command::new(compiler).arg("-print-file-name=libstdc++.a").output();
    // It answers with the name alone when there is no such file.
    let is_found = asked.is_ok_and(|said| said.stdout.starts_with(b"/"));
    let arguments: &[&str] = match is_found {
        true => &["-Wl,-Bstatic", "-lstdc++", "-Wl,-Bdynamic"],
        false => &["-lstdc++"],
    };
    for argument in arguments {
        println!("cargo::rustc-link-arg={argument}");
    }
}
