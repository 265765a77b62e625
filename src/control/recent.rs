//! Keeps the newest lines of the log, for whoever asks later, and waits for nobody who reads them.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::stats::Counter;

/// The ring: whole lines, [`MAX_LEN`] bytes at most.
#[derive(Debug, Default)]
pub struct Recent {
    lines: Mutex<VecDeque<u8>>,
    /// Lines that came while somebody read.
    missed: Counter,
}

impl Recent {
    /// Takes one or more whole lines in; the oldest make room. Waits for nobody.
    pub fn push(&self, line: &[u8]) {
        let Ok(mut lines) = self.lines.try_lock() else {
            self.missed.increment();
            return;
        };
        let line = line.get(line.len().saturating_sub(MAX_LEN)..).unwrap_or(line);
        while lines.len() + line.len() > MAX_LEN {
            let end = lines.iter().position(|&byte| byte == b'\n').unwrap_or(lines.len() - 1);
            lines.drain(..=end);
        }
        lines.extend(line);
    }

    /// All of them, oldest first, and how many are missing since the start.
    #[must_use]
    pub fn read(&self) -> (Vec<u8>, u64) {
        // What a panic left is still text.
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, second) = lines.as_slices();
        ([first, second].concat(), self.missed.get())
    }

    /// A log that goes to stderr, as far as that takes it at once, and is kept here.
    #[must_use]
    pub fn and_stderr(self: &Arc<Self>) -> impl Write + Send + use<> {
        Tee { recent: Arc::clone(self), left_out: 0 }
    }
}

struct Tee {
    recent: Arc<Recent>,
    /// Lines since stderr was last written to, because nobody reads it.
    left_out: u64,
}

impl Write for Tee {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.recent.push(line);
        // Every thread writes here, that which serves as well: none may wait for a reader.
        let mut text = Vec::new();
        if self.left_out > 0 {
            writeln!(text, "{} lines that nobody read are left out here", self.left_out)?;
        }
        text.extend_from_slice(line);
        let mut pieces = text.chunks(PIECE_LEN);
        let count = pieces.len();
        while pieces.len() > 0 && has_room() {
            pieces.next().map_or(Ok(()), |piece| io::stderr().write_all(piece))?;
        }
        self.left_out = match pieces.len() {
            0 => 0,
            left if left == count => self.left_out + 1,
            // The note is out, and the rest of the line is missing.
            _ => 1,
        };
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Whether stderr takes a piece without making anybody wait.
fn has_room() -> bool {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// What a pipe takes whole when poll(2) says that it has room (PIPE_BUF, pipe(7)).
const PIECE_LEN: usize = 4_096;
/// HOSTILE's limit: some 600 lines.
const MAX_LEN: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_whole_lines_make_room_for_the_newest() {
        let recent = Recent::default();
        let line = |n: usize| format!("{n} {}\n", "x".repeat(n * 7 % 300));
        for n in 0..5_000 {
            recent.push(line(n).as_bytes());
            let (kept, missed) = recent.read();
            assert!(kept.len() <= MAX_LEN && missed == 0);
            assert!(kept.ends_with(line(n).as_bytes()));
        }
        let (kept, _) = recent.read();
        assert!(kept.len() > MAX_LEN - 1_000);
        let text = String::from_utf8(kept).unwrap();
        let first: usize = text.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(text, (first..5_000).map(line).collect::<String>());
    }

    #[test]
    fn a_line_longer_than_everything_leaves_its_end() {
        let recent = Recent::default();
        recent.push(b"short\n");
        recent.push(&[b'x'; MAX_LEN + 9]);
        assert_eq!(recent.read().0, [b'x'; MAX_LEN]);
        recent.push(b"short\n");
        assert_eq!(recent.read().0, b"short\n");
    }

    #[test]
    fn who_writes_does_not_wait_for_who_reads() {
        let recent = Recent::default();
        let reading = recent.lines.lock().unwrap();
        recent.push(b"missed\n");
        drop(reading);
        recent.push(b"kept\n");
        assert_eq!(recent.read(), (b"kept\n".to_vec(), 1));
    }
}
