//! Turns log records into lines on the console, stamped like the kernel's own.
//!
//! Standard error of process 1 is /dev/console, which the kernel opened; the stamp is seconds of
//! CLOCK_MONOTONIC, which starts with the kernel.

use std::io::Write;
use std::panic;

use crate::sys::clock;

/// Sends the log to the console, and panics of any thread to the log.
pub(super) fn start_log() {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Info);
    // The kernel hands unknown NAME=VALUE arguments of its command line on to process 1.
    builder.parse_default_env();
    builder.format(|out, record| {
        let micros = clock::now().as_micros();
        let level = match record.level() {
            log::Level::Error => "error: ",
            log::Level::Warn => "warning: ",
            log::Level::Info | log::Level::Debug | log::Level::Trace => "",
        };
        let (s, rest) = (micros / 1_000_000, micros % 1_000_000);
        writeln!(out, "[{s:5}.{rest:06}] {level}{}", record.args())
    });
    // A second logger could only come from a caller that broke the contract of `run`.
    let _ = builder.try_init();
    panic::set_hook(Box::new(|info| log::error!("firmware: panic: {info}")));
}

pub(super) fn refuse() {
    // Without a log there is nothing else; if even this fails, the exit status says it.
    let _ = writeln!(std::io::stderr(), "ocellus init is for process 1 of a firmware image only");
}
