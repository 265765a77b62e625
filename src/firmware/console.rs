//! Turns lines into text on every console of the kernel: HDMI, the serial line, or both.
//!
//! /dev/console is only the last console of the kernel's command line, so each one that
//! /sys/class/tty/console/active names is opened. A console may stop for good (a keyboard's scroll
//! lock): each has a thread and a bounded queue, and loses lines rather than hold anybody up.

use std::fs::{OpenOptions, read_to_string};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::{fstat, makedev};

use crate::sys::clock;

/// The consoles that show what they are told to.
#[derive(Debug)]
pub(super) struct Consoles {
    queues: Vec<SyncSender<Message>>,
}

#[derive(Debug)]
enum Message {
    Line(Arc<[u8]>),
    /// Answered when everything before it was shown.
    Flush(SyncSender<()>),
}

impl Consoles {
    /// Opens what standard error stands for: the kernel's consoles, or that file alone.
    pub(super) fn open() -> Self {
        let mut outputs: Vec<Box<dyn Write + Send>> = Vec::new();
        if is_console() {
            let active = read_to_string(ACTIVE).unwrap_or_default();
            let opened = active.split_whitespace().filter_map(|name| open(name).ok());
            outputs.extend(opened);
        }
        if outputs.is_empty() {
            outputs.push(Box::new(io::stderr()));
        }
        Self { queues: outputs.into_iter().filter_map(start).collect() }
    }

    pub(super) fn show(&self, line: &Arc<[u8]>) {
        for queue in &self.queues {
            // Full: that console has stopped, or is slower than the log.
            let _ = queue.try_send(Message::Line(Arc::clone(line)));
        }
    }

    /// Returns when all lines are shown, or after `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let end = clock::now() + patience;
        for queue in &self.queues {
            let (done, wait) = sync_channel(1);
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
                queue.try_send(Message::Flush(done))
            {
                continue;
            }
            let _ = wait.recv_timeout(end.since(clock::now()));
        }
    }
}

/// Shows lines in a thread of their own.
fn start(output: Box<dyn Write + Send>) -> Option<SyncSender<Message>> {
    let (queue, messages) = sync_channel(QUEUE_LEN);
    let thread = thread::Builder::new().name("console".to_owned());
    thread.spawn(move || show_all(output, &messages)).ok().map(|_| queue)
}

fn show_all(mut output: Box<dyn Write + Send>, messages: &Receiver<Message>) {
    for message in messages {
        match message {
            // A console that fails may come back: a monitor that is plugged in.
            Message::Line(line) => drop(output.write_all(&line)),
            // Who asked may have gone on.
            Message::Flush(done) => drop(done.try_send(())),
        }
    }
}

/// Whether standard error is the kernel's console, as it is for process 1 of a machine.
fn is_console() -> bool {
    fstat(io::stderr()).is_ok_and(|stat| stat.st_rdev == makedev(5, 1))
}

fn open(name: &str) -> io::Result<Box<dyn Write + Send>> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(OFlag::O_NOCTTY.bits());
    Ok(Box::new(options.open(Path::new("/dev").join(name))?))
}

pub(super) fn refuse() {
    // Without a log there is nothing else; if even this fails, the exit status says it.
    let _ = writeln!(io::stderr(), "ocellus init is for process 1 of a firmware image only");
}

/// Names of terminals, the one of /dev/console last (Documentation/ABI/testing/sysfs-tty).
const ACTIVE: &str = "/sys/class/tty/console/active";
/// More than a start says before a slow console has shown the first lines.
const QUEUE_LEN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows nothing, ever.
    struct Stopped(Receiver<()>);

    impl Write for Stopped {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_console_that_stopped_holds_nobody_up() {
        let (_stop, stopped) = sync_channel(0);
        let (mut shown, output) = io::pipe().unwrap();
        let outputs: [Box<dyn Write + Send>; 2] = [Box::new(Stopped(stopped)), Box::new(output)];
        let consoles = Consoles { queues: outputs.into_iter().filter_map(start).collect() };
        for _ in 0..2 * QUEUE_LEN {
            consoles.show(&Arc::from(*b"line\n"));
            consoles.queues.last().unwrap().send(Message::Line(Arc::from(*b"more\n"))).unwrap();
            let mut bytes = [0; 10];
            io::Read::read_exact(&mut shown, &mut bytes).unwrap();
            assert_eq!(&bytes, b"line\nmore\n");
        }
        consoles.flush(Duration::from_millis(10));
    }
}
