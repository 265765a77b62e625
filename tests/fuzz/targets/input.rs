//! Draws decisions from the bytes that the fuzzer hands over, so that a flipped byte is another
//! decision and not another everything.

/// What is left to draw from; once it is used up, every number is zero.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    pub(crate) fn number<const BYTES: usize>(&mut self) -> u64 {
        (0..BYTES).fold(0, |number, _| (number << 8) | u64::from(self.byte()))
    }

    /// A number below `limit`, which is at most 256.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    /// Up to `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// As many bytes as the next one says.
    pub(crate) fn some(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte());
        self.take(len)
    }
}

/// Pieces that `bytes` can arrive in: a few of the length that `seed` says, then twice that, and so
/// on.
pub(crate) fn pieces(bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut len) = (bytes, usize::from(seed).max(1));
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(len.min(rest.len()));
        rest = after;
        len = if len > 1 << 12 { 1 } else { len + len.div_ceil(2) };
        (!piece.is_empty()).then_some(piece)
    })
}
