//! Turns lines into text on every console of the kernel: HDMI, the serial line, or both.
//!
//! /dev/console is only the last console of the kernel's command line, so each one that it names is
//! opened, when its driver is there. A console may stop for good (a keyboard's scroll lock): each
//! has a thread and a bounded queue, and loses lines rather than hold anybody up.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::{fstat, makedev};

use super::{command_line, worker};
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
        let names = if is_console() { command_line::values("console") } else { Vec::new() };
        let mut queues: Vec<_> = names
            .iter()
            // Behind the name may be a rate: ttyS1,115200.
            .filter_map(|name| name.split(',').next())
            .filter_map(|name| {
                let path = Path::new("/dev").join(name);
                start(move || when_it_is_there(&path))
            })
            .collect();
        if queues.is_empty() {
            queues.extend(start(io::stderr));
        }
        Self { queues }
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
            if queue.try_send(Message::Flush(done)).is_ok() {
                let _ = wait.recv_timeout(end.since(clock::now()));
            }
        }
    }
}

/// Shows lines in a thread of their own, as soon as `open` returns.
fn start<W: Write>(open: impl FnOnce() -> W + Send + 'static) -> Option<SyncSender<Message>> {
    let (queue, messages) = sync_channel(QUEUE_LEN);
    let thread = thread::Builder::new().name("console".to_owned());
    thread.spawn(move || show_all(open(), &messages)).ok().map(|_| queue)
}

fn show_all(mut output: impl Write, messages: &Receiver<Message>) {
    for message in messages {
        match message {
            // A console that fails may come back: a monitor that is plugged in.
            Message::Line(line) => drop(output.write_all(&line)),
            // Who asked may have gone on.
            Message::Flush(done) => drop(done.try_send(())),
        }
    }
}

/// Opens a terminal once it can be; the driver of a serial line may come after process 1.
fn when_it_is_there(path: &Path) -> impl Write + use<> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(OFlag::O_NOCTTY.bits());
    let mut pause = FIRST_PAUSE;
    loop {
        match options.open(path) {
            Ok(terminal) => return terminal,
            Err(_) => worker::wait(pause),
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Whether standard error is the kernel's console, as it is for process 1 of a machine.
fn is_console() -> bool {
    fstat(io::stderr()).is_ok_and(|stat| stat.st_rdev == makedev(5, 1))
}

pub(super) fn refuse() {
    // Without a log there is nothing else; if even this fails, the exit status says it.
    let _ = writeln!(io::stderr(), "ocellus init is for process 1 of a firmware image only");
}

/// More than a start says before a slow console has shown the first lines.
const QUEUE_LEN: usize = 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);

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
    fn a_console_that_stopped_or_never_comes_holds_nobody_up() {
        let (_stop, stopped) = sync_channel(0);
        let (mut shown, output) = io::pipe().unwrap();
        let never = || when_it_is_there(Path::new("/dev/no-such-console"));
        let queues = [start(|| Stopped(stopped)), start(never), start(|| output)];
        let consoles = Consoles { queues: queues.into_iter().flatten().collect() };
        for _ in 0..2 * QUEUE_LEN {
            consoles.show(&Arc::from(*b"line\n"));
            let mut bytes = [0; 5];
            io::Read::read_exact(&mut shown, &mut bytes).unwrap();
            assert_eq!(&bytes, b"line\n");
        }
        consoles.flush(Duration::from_millis(10));
    }
}
