//! Walks the rows of planes, and takes rows of interleaved samples apart.
//!
//! The loops are plain iterators that the compiler turns into vector code. They take pairs of
//! bytes as words: with byte indices the same loops are ten times slower under SSE2.

use std::slice::ChunksExactMut;

use super::Orientation;
use crate::frame::Plane;

/// The rows of a plane, each cut to `len` bytes; ends before a row that is shorter.
pub(super) fn rows(plane: Plane<'_>, len: usize) -> impl Iterator<Item = &[u8]> {
    plane.bytes.chunks(plane.stride.max(1)).map_while(move |row| row.get(..len))
}

/// The rows of a plane of our own in the order in which a source's rows belong there.
pub(super) struct RowsMut<'a> {
    rows: ChunksExactMut<'a, u8>,
    is_bottom_up: bool,
}

impl<'a> RowsMut<'a> {
    /// `len`: bytes per row, at least 1.
    pub(super) fn new(plane: &'a mut [u8], len: usize, orientation: Orientation) -> Self {
        let rows = plane.chunks_exact_mut(len);
        Self { rows, is_bottom_up: orientation.is_bottom_up() }
    }
}

impl<'a> Iterator for RowsMut<'a> {
    type Item = &'a mut [u8];

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_bottom_up { self.rows.next_back() } else { self.rows.next() }
    }
}

/// `half[i] = row[2 * i]`
pub(super) fn even_bytes(row: &[u8], half: &mut [u8]) {
    for (byte, pair) in half.iter_mut().zip(row.as_chunks().0) {
        *byte = low(u16::from_le_bytes(*pair));
    }
}

/// `half[i] = row[2 * i + 1]`
pub(super) fn odd_bytes(row: &[u8], half: &mut [u8]) {
    for (byte, pair) in half.iter_mut().zip(row.as_chunks().0) {
        *byte = low(u16::from_le_bytes(*pair) >> 8);
    }
}

/// Rounded means of the even bytes of two rows.
pub(super) fn even_bytes_of_two(upper: &[u8], lower: &[u8], half: &mut [u8]) {
    let pairs = upper.as_chunks().0.iter().zip(lower.as_chunks().0);
    for (byte, (upper, lower)) in half.iter_mut().zip(pairs) {
        let sum = (u16::from_le_bytes(*upper) & 0xff) + (u16::from_le_bytes(*lower) & 0xff);
        *byte = low((sum + 1) >> 1);
    }
}

/// Rounded means of the odd bytes of two rows.
pub(super) fn odd_bytes_of_two(upper: &[u8], lower: &[u8], half: &mut [u8]) {
    let pairs = upper.as_chunks().0.iter().zip(lower.as_chunks().0);
    for (byte, (upper, lower)) in half.iter_mut().zip(pairs) {
        let sum = (u16::from_le_bytes(*upper) >> 8) + (u16::from_le_bytes(*lower) >> 8);
        *byte = low((sum + 1) >> 1);
    }
}

/// Rounded means of two by two bytes.
pub(super) fn means_of_four(upper: &[u8], lower: &[u8], half: &mut [u8]) {
    let pairs = upper.as_chunks().0.iter().zip(lower.as_chunks().0);
    for (byte, (upper, lower)) in half.iter_mut().zip(pairs) {
        let (upper, lower) = (u16::from_le_bytes(*upper), u16::from_le_bytes(*lower));
        let sum = (upper & 0xff) + (upper >> 8) + (lower & 0xff) + (lower >> 8);
        *byte = low((sum + 2) >> 2);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the low byte is what is wanted")]
pub(super) fn low(word: u16) -> u8 {
    word as u8
}
