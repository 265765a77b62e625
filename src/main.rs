//! The composition root: parses the command line, turns the configuration into each module's own
//! settings, starts the threads, and says why when something cannot be.
//!
//! stdout carries what was asked for (URLs, `probe`, `--help`); everything else goes to stderr.

mod run;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use env_logger::Target;
use log::LevelFilter;
use ocellus::cli::{self, Command};
use ocellus::config::Config;
use ocellus::control::{self, Recent};
use ocellus::firmware;
use ocellus::sys::clock;

/// Why the process ends, and the code it ends with.
#[derive(Debug)]
enum Failure {
    /// Bad arguments or configuration.
    Usage(anyhow::Error),
    /// Everything else.
    Running(anyhow::Error),
}

fn main() -> ExitCode {
    // The kernel passes its own command line to process 1.
    if std::process::id() == 1 {
        firmware::run();
    }
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => error.exit(),
    };
    abort_on_panic();
    let log = Arc::<Recent>::default();
    start_logging(&log);
    let done = match command {
        Command::Run(args) => run::run(&args, log),
        Command::Probe { json } => probe(json),
        Command::Check { file } => check(&file),
        Command::Init => firmware::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => complain(&error, 2),
        Err(Failure::Running(error)) => complain(&error, 1),
    }
}

/// One line on stderr, whatever the log level is.
fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    // Nowhere is left to say that stderr is gone.
    let _ = writeln!(std::io::stderr(), "ocellus: {error:#}");
    ExitCode::from(code)
}

/// Prints what cameras there are.
fn probe(is_json: bool) -> Result<(), Failure> {
    let devices = ocellus::capture::probe();
    let text = if is_json { run::describe_as_json(&devices) } else { run::describe(&devices) };
    let text = text.map_err(running)?;
    std::io::stdout().write_all(text.as_bytes()).context("stdout").map_err(running)
}

/// Validates a configuration.
fn check(file: &Path) -> Result<(), Failure> {
    read_config(file).map(drop)
}

fn read_config(file: &Path) -> Result<Config, Failure> {
    let name = || file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(name).map_err(Failure::Usage)?;
    Config::from_json(&text).with_context(name).map_err(Failure::Usage)
}

fn running(error: anyhow::Error) -> Failure {
    Failure::Running(error)
}

/// A thread that panicked has left the camera in an unknown state: the supervisor starts afresh.
/// The web side alone is apart from it, and starts itself afresh.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        if thread::current().name() != Some(control::THREAD) {
            std::process::abort();
        }
    }));
}

/// Lines of `seconds.millis LEVEL text` on stderr, seconds since boot as in the kernel's log; the
/// newest are kept in `log`.
fn start_logging(log: &Arc<Recent>) {
    env_logger::Builder::new()
        .filter_level(LevelFilter::Info)
        .parse_default_env()
        .target(Target::Pipe(Box::new(log.and_stderr())))
        .format(|out, record| {
            let millis = clock::now().as_micros() / 1_000;
            let (seconds, millis) = (millis / 1_000, millis % 1_000);
            writeln!(out, "[{seconds:5}.{millis:03}] {:5} {}", record.level(), record.args())
        })
        .init();
}
