//! Turns a luma plane into the mean brightness of square cells.

use std::fmt;

use crate::frame::Plane;

/// The cells of pictures of one size.
pub(super) struct Grid {
    /// Luma samples of the pictures, across and down.
    picture: (usize, usize),
    /// Samples of a cell, across and down; what the last cells leave of the picture is not seen.
    side: usize,
    pub(super) columns: usize,
    pub(super) rows: usize,
    /// Mean luma of each cell times [`STEP`], row by row.
    pub(super) cells: Vec<i32>,
    /// Sums down the columns of the row of cells at hand.
    sums: Vec<u16>,
}

impl Grid {
    /// 80 x 45 cells or more, up to twice as many each way; fewer where they would get smaller
    /// than 4 samples.
    pub(super) fn new(width: usize, height: usize) -> Self {
        let side = (width / 80).min(height / 45).max(width / 160).max(height / 90).max(4);
        let (columns, rows) = (width / side, height / side);
        Self {
            picture: (width, height),
            side,
            columns,
            rows,
            cells: vec![0; columns * rows],
            sums: vec![0; columns * side],
        }
    }

    pub(super) fn is_for(&self, width: usize, height: usize) -> bool {
        self.picture == (width, height)
    }

    /// Measures a picture. Cells that the plane is too short for keep what they had.
    ///
    /// Large cells are measured in 16 of their rows at least, and not in all of them.
    pub(super) fn measure(&mut self, luma: Plane<'_>) {
        if self.columns == 0 || luma.stride < self.sums.len() {
            return;
        }
        let skip = (self.side / 16).max(1);
        let weight = (self.side.div_ceil(skip) * self.side) as u64;
        let strips = luma.bytes.chunks(luma.stride * self.side);
        for (cells, strip) in self.cells.chunks_exact_mut(self.columns).zip(strips) {
            if strip.len() < luma.stride * (self.side - 1) + self.sums.len() {
                break;
            }
            self.sums.fill(0);
            for row in strip.chunks(luma.stride).step_by(skip) {
                for (sum, luma) in self.sums.iter_mut().zip(row) {
                    // 32 rows of 255 fit; a check would keep this from being vector code.
                    *sum = sum.wrapping_add(u16::from(*luma));
                }
            }
            for (cell, sums) in cells.iter_mut().zip(self.sums.chunks_exact(self.side)) {
                let sum = sums.iter().fold(0_u32, |sum, luma| sum.wrapping_add(u32::from(*luma)));
                let mean = u64::from(sum) * u64::from(STEP.unsigned_abs()) / weight;
                *cell = i32::try_from(mean).unwrap_or(0);
            }
        }
    }
}

impl fmt::Debug for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grid({}x{} of {})", self.columns, self.rows, self.side)
    }
}

/// One step of luma in the units of cells.
pub(super) const STEP: i32 = 1 << 8;
