//! Splits a byte stream into NAL units.
//!
//! H.264 Annex B. Start codes have three or four bytes; zeros before a start code belong to it
//! (`zero_byte`, `trailing_zero_8bits`) and are not part of a NAL unit.

use std::ops::Range;

use super::access_unit::{MAX_ACCESS_UNIT_LEN, TooLong};

/// Splits a byte stream that arrives in pieces of any size.
///
/// [`Splitter::receive`] takes a piece; then [`Splitter::peek`] shows the NAL units that are
/// complete, each until [`Splitter::consume`]. What lies before the first start code is skipped.
///
/// Holds at most [`MAX_ACCESS_UNIT_LEN`] bytes and one piece, in a buffer that is reused.
#[derive(Debug, Default)]
pub struct Splitter {
    bytes: Vec<u8>,
    state: State,
    /// Nothing before this index of `bytes` needs to be looked at again.
    scanned: usize,
    /// Whether the last piece has been received.
    is_ended: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Between NAL units: everything is skipped up to the next start code.
    #[default]
    Outside,
    /// The NAL unit that begins at this index is shown next.
    Inside(usize),
    /// A NAL unit has outgrown the limit, and nobody has consumed that fact.
    Overlong,
}

impl Splitter {
    /// Appends the next piece of the stream.
    pub fn receive(&mut self, piece: &[u8]) {
        let kept = match self.state {
            State::Inside(begin) => begin,
            State::Outside | State::Overlong => self.scanned,
        };
        self.bytes.drain(..kept.min(self.bytes.len()));
        self.scanned = self.scanned.saturating_sub(kept);
        if let State::Inside(begin) = &mut self.state {
            *begin = 0;
        }
        self.bytes.extend_from_slice(piece);
    }

    /// Says that the stream has ended: its last NAL unit is complete now.
    pub fn end(&mut self) {
        self.is_ended = true;
    }

    /// Forgets everything but the buffer.
    pub fn reset(&mut self) {
        self.bytes.clear();
        self.state = State::Outside;
        self.scanned = 0;
        self.is_ended = false;
    }

    /// The next NAL unit; `None` when more of the stream is needed. The answer changes with
    /// [`Splitter::consume`], [`Splitter::receive`] and [`Splitter::end`].
    ///
    /// # Shape
    ///
    /// Header byte first, no start code, emulation prevention bytes in place; never empty.
    ///
    /// # Errors
    ///
    /// [`TooLong`] in place of a NAL unit of more than [`MAX_ACCESS_UNIT_LEN`] bytes.
    pub fn peek(&mut self) -> Option<Result<&[u8], TooLong>> {
        loop {
            let begin = match self.state {
                State::Overlong => return Some(Err(TooLong)),
                State::Inside(begin) => begin,
                State::Outside => {
                    self.scanned = self.next_start_code()? + START_CODE_LEN;
                    self.state = State::Inside(self.scanned);
                    continue;
                }
            };
            let end = self.next_start_code();
            // Counts what is sure to lie before the next start code, so that the answer does not
            // depend on how the stream was cut into pieces.
            if end.unwrap_or(self.scanned) - begin > MAX_ACCESS_UNIT_LEN {
                self.state = State::Overlong;
                continue;
            }
            let nal = begin..begin + trimmed_len(self.bytes.get(begin..end?).unwrap_or(&[]));
            if nal.is_empty() {
                self.consume();
                continue;
            }
            return self.bytes.get(nal).map(Ok);
        }
    }

    /// Moves on from what [`Splitter::peek`] has shown.
    pub fn consume(&mut self) {
        self.state = State::Outside;
    }

    /// Index of the first start code at or after `scanned`, or the end of the stream, and moves
    /// `scanned` there.
    fn next_start_code(&mut self) -> Option<usize> {
        if let Some(at) = start_code(&self.bytes, self.scanned) {
            self.scanned = at;
            return Some(at);
        }
        let is_inside = matches!(self.state, State::Inside(_));
        if self.is_ended {
            self.scanned = self.bytes.len();
            return is_inside.then_some(self.scanned);
        }
        // The last two bytes may be the first two of a start code.
        self.scanned = self.scanned.max(self.bytes.len().saturating_sub(START_CODE_LEN - 1));
        None
    }
}

/// The NAL units of a byte stream that is all there, like one buffer of an encoder.
///
/// # Shape
///
/// As [`Splitter::peek`].
pub fn nal_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = stream;
    std::iter::from_fn(move || {
        let (nal, after) = split_first(rest)?;
        rest = after;
        Some(nal)
    })
}

/// The first NAL unit of a byte stream that is all there, and what begins with the next start code.
///
/// # Shape
///
/// As [`Splitter::peek`].
#[must_use]
pub fn split_first(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut begin = start_code(stream, 0)? + START_CODE_LEN;
    loop {
        let end = start_code(stream, begin);
        let (nal, rest) = stream.split_at_checked(end.unwrap_or(stream.len()))?;
        let nal = nal.get(begin..)?;
        match nal.get(..trimmed_len(nal))? {
            [] => begin = end? + START_CODE_LEN,
            nal => return Some((nal, rest)),
        }
    }
}

/// Index of the first `00 00 01` at or after `from`.
fn start_code(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        // Most of a picture is passed over in words: no start code begins in one without a zero.
        while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk)
            && !has_zero(u64::from_ne_bytes(*word))
        {
            at += size_of::<u64>();
        }
        match window(bytes, at..at.checked_add(START_CODE_LEN)?)? {
            [0, 0, 1] => return Some(at),
            // The third byte can be no byte of a start code that begins here or before.
            [_, _, 2..=u8::MAX] => at += START_CODE_LEN,
            _ => at += 1,
        }
    }
}

/// Whether one of the eight bytes is zero: only then does the subtraction set a top bit, of that
/// byte or of one above it, that was not set before.
const fn has_zero(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    word.wrapping_sub(ONES) & !word & (ONES << 7) != 0
}

fn window(bytes: &[u8], range: Range<usize>) -> Option<[u8; START_CODE_LEN]> {
    bytes.get(range)?.first_chunk().copied()
}

/// Length without the zeros at the end, which no NAL unit has (7.4.1).
fn trimmed_len(nal: &[u8]) -> usize {
    nal.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

/// Bytes of `start_code_prefix_one_3bytes`.
const START_CODE_LEN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    type Nals = Vec<Result<Vec<u8>, TooLong>>;

    /// Feeds `stream` in the pieces that `cuts` makes, and collects everything.
    fn split(stream: &[u8], mut cut: impl FnMut(usize) -> usize) -> Nals {
        let mut splitter = Splitter::default();
        let mut nals = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
            splitter.receive(piece);
            drain(&mut splitter, &mut nals);
            rest = after;
        }
        splitter.end();
        drain(&mut splitter, &mut nals);
        nals
    }

    fn drain(splitter: &mut Splitter, nals: &mut Nals) {
        while let Some(nal) = splitter.peek() {
            let nal = nal.map(<[u8]>::to_vec);
            assert_eq!(splitter.peek().map(|nal| nal.map(<[u8]>::to_vec)), Some(nal.clone()));
            nals.push(nal);
            splitter.consume();
            assert!(nals.len() < 1_000, "there is no end to them");
        }
    }

    fn whole(stream: &[u8]) -> Nals {
        split(stream, |len| len)
    }

    /// Equal results for the whole stream, byte by byte, and at seeded random cuts.
    fn assert_chunk_invariant(stream: &[u8]) -> Nals {
        let nals = whole(stream);
        assert_eq!(split(stream, |_| 1), nals, "byte by byte");
        for seed in 1..20_u64 {
            let mut state = seed;
            let random = |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                usize::try_from(state >> 60).unwrap()
            };
            assert_eq!(split(stream, random), nals, "seed {seed}");
        }
        nals
    }

    fn at_once(stream: &[u8]) -> Vec<&[u8]> {
        nal_units(stream).take(stream.len() + 1).collect()
    }

    fn oks(nals: &[&[u8]]) -> Nals {
        nals.iter().map(|nal| Ok(nal.to_vec())).collect()
    }

    const CASES: [(&[u8], &[&[u8]]); 12] = [
        (b"", &[]),
        (b"no start code at all", &[]),
        (&[0, 0, 1], &[]),
        (&[0, 0, 0, 0, 0], &[]),
        (&[0, 0, 1, 0x65], &[&[0x65]]),
        (&[0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2], &[&[0x67, 1], &[0x68, 2]]),
        (&[0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x65], &[&[0x67, 1], &[0x68, 2], &[0x65]]),
        // Trailing zeros, also at the very end.
        (&[0, 0, 1, 0x41, 9, 0, 0, 0, 0, 0, 0, 1, 0x41, 8, 0, 0, 0], &[&[0x41, 9], &[0x41, 8]]),
        // Empty NAL units.
        (&[0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0x41, 0, 0, 1], &[&[0x41]]),
        // Emulation prevention bytes stay.
        (
            &[0, 0, 1, 0x41, 0, 0, 3, 0, 0, 3, 1, 0, 0, 1, 0x41, 1],
            &[&[0x41, 0, 0, 3, 0, 0, 3, 1], &[0x41, 1]],
        ),
        // Garbage, also with zeros, before the first start code.
        (&[7, 0, 0, 2, 0, 1, 0, 0, 0, 0, 1, 0x09, 0x10], &[&[0x09, 0x10]]),
        (&[0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0], &[&[1], &[0, 1]]),
    ];

    #[test]
    fn nal_units_are_those_between_start_codes_however_the_stream_is_cut() {
        for (stream, nals) in CASES {
            assert_eq!(assert_chunk_invariant(stream), oks(nals), "{stream:?}");
            assert_eq!(at_once(stream), nals, "{stream:?}");
        }
    }

    #[test]
    fn a_start_code_is_found_behind_any_number_of_zeros() {
        for zeros in 2..40 {
            let stream = [&vec![0; zeros][..], &[1, 0x41, 0x80]].concat();
            assert_eq!(at_once(&[&stream[..], &stream].concat()), [[0x41, 0x80]; 2], "{zeros}");
        }
    }

    #[test]
    fn random_bytes_of_a_small_alphabet_give_the_same_units_both_ways() {
        let mut state = 1_u64;
        for len in 0..400 {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                [0, 0, 0, 1, 1, 2, 3][usize::try_from((state >> 33) % 7).unwrap()]
            };
            let stream: Vec<u8> = (0..len).map(|_| next()).collect();
            let nals = assert_chunk_invariant(&stream);
            let units = at_once(&stream);
            assert_eq!(nals, oks(&units));
            // Joined again, nothing but the zeros and the garbage in front has gone.
            let joined: Vec<u8> =
                units.iter().flat_map(|nal| [&[0, 0, 1], *nal].concat()).collect();
            assert_eq!(at_once(&joined), units);
        }
    }

    #[test]
    fn a_nal_unit_over_the_limit_is_reported_once_and_the_next_one_is_found() {
        for (len, fits) in
            [(MAX_ACCESS_UNIT_LEN, true), (MAX_ACCESS_UNIT_LEN + 1, false), (4 << 20, false)]
        {
            let mut stream = vec![0, 0, 1];
            stream.extend(std::iter::repeat_n(0x41, len));
            stream.extend([0, 0, 1, 0x65, 1]);
            for piece in [stream.len(), 1 << 16, 4_095] {
                let nals = split(&stream, |_| piece);
                assert_eq!(nals.len(), 2, "{len} in pieces of {piece}");
                assert_eq!(nals[0].is_ok(), fits, "{len} in pieces of {piece}");
                assert_eq!(nals[1], Ok(vec![0x65, 1]));
            }
        }
    }

    #[test]
    fn memory_stays_bounded_whatever_comes() {
        for filler in [0x00, 0x01, 0xff] {
            for head in [&[][..], &[0, 0, 1, 0x41]] {
                let mut splitter = Splitter::default();
                splitter.receive(head);
                for _ in 0..4 * (MAX_ACCESS_UNIT_LEN >> 16) {
                    splitter.receive(&[filler; 1 << 16]);
                    while splitter.peek().is_some() {
                        splitter.consume();
                    }
                    assert!(splitter.bytes.len() <= MAX_ACCESS_UNIT_LEN + (2 << 16));
                }
            }
        }
    }

    #[test]
    fn a_reset_splitter_starts_anew() {
        let mut splitter = Splitter::default();
        splitter.receive(&[0, 0, 1, 0x41, 1]);
        splitter.end();
        assert_eq!(splitter.peek(), Some(Ok(&[0x41, 1][..])));
        splitter.reset();
        assert_eq!(splitter.peek(), None);
        splitter.receive(&[2, 0, 0, 1, 0x65]);
        assert_eq!(splitter.peek(), None, "the unit may go on");
        splitter.end();
        assert_eq!(splitter.peek(), Some(Ok(&[0x65][..])));
    }
}
