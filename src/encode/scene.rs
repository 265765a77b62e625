//! Measures how busy a picture is, and how much of it is new, before it is encoded.
//!
//! Every sixteenth row of luma, in blocks of sixteen samples: enough to see a cut, and cheap.

use crate::frame::Plane;

/// The rows that were looked at last.
#[derive(Debug, Default)]
pub(super) struct Scene {
    rows: Vec<u8>,
}

/// What prediction leaves of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Activity {
    /// Differences between neighbours in a row: what an intra picture has to say.
    pub(super) intra: Residual,
    /// The same, or from the picture before if that is less: what an inter picture has to say.
    pub(super) inter: Residual,
}

/// Blocks by the sum of their absolute differences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Residual {
    /// At `n`: those whose sum has `n` bits, which is `2^(n-1)` or more.
    pub(super) blocks: [u32; SUM_BITS + 1],
}

impl Scene {
    /// Compares `luma` with the picture before; without one, everything is new.
    ///
    /// # Cost
    ///
    /// Reads and keeps a sixteenth of the samples; allocates when the size is new.
    pub(super) fn look(&mut self, luma: &Plane<'_>, width: usize) -> Activity {
        let rows = luma.bytes.chunks(luma.stride.max(1)).step_by(ROW_STEP);
        let rows = rows.filter_map(|row| row.get(..width)).filter(|row| !row.is_empty());
        let len = rows.clone().count() * width;
        let is_first = self.rows.len() != len;
        self.rows.resize(len, 0);
        let mut activity = Activity::default();
        for (row, before) in rows.zip(self.rows.chunks_exact_mut(width.max(1))) {
            let blocks = row.as_chunks::<BLOCK>().0.iter();
            let shifted = row[1..].chunks(BLOCK);
            let earlier = before.as_chunks::<BLOCK>().0.iter();
            for ((block, shifted), earlier) in blocks.zip(shifted).zip(earlier) {
                let detail = difference(block, shifted);
                let change = if is_first { detail } else { difference(block, earlier) };
                activity.intra.add(detail);
                activity.inter.add(detail.min(change));
            }
            before.copy_from_slice(row);
        }
        activity
    }
}

impl Residual {
    fn add(&mut self, sum: u16) {
        self.blocks[SUM_BITS.min((u16::BITS - sum.leading_zeros()) as usize)] += 1;
    }
}

fn difference(block: &[u8; BLOCK], other: &[u8]) -> u16 {
    block.iter().zip(other).map(|(&a, &b)| u16::from(a.abs_diff(b))).sum()
}

/// Samples of a block.
pub(super) const BLOCK: usize = 16;
/// A sum is `BLOCK * 255` at most.
pub(super) const SUM_BITS: usize = 12;
const ROW_STEP: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 64;

    fn look(scene: &mut Scene, sample: impl Fn(usize, usize) -> u8) -> Activity {
        let rows = (0..48).flat_map(|y| (0..WIDTH).map(move |x| (x, y)));
        let bytes: Vec<u8> = rows.map(|(x, y)| sample(x, y)).collect();
        scene.look(&Plane { bytes: &bytes, stride: WIDTH }, WIDTH)
    }

    /// Blocks whose sum has `bits` bits or more.
    fn from(residual: &Residual, bits: usize) -> u32 {
        residual.blocks[bits..].iter().sum()
    }

    #[test]
    fn a_flat_picture_has_nothing_to_say_and_stripes_have() {
        let mut scene = Scene::default();
        let flat = look(&mut scene, |_, _| 77);
        assert_eq!((flat.intra.blocks[0], flat.inter.blocks[0]), (12, 12), "three rows of four");
        let stripes = look(&mut Scene::default(), |x, _| if x % 2 == 0 { 0 } else { 255 });
        assert_eq!(stripes.intra.blocks[SUM_BITS], 12);
        assert_eq!(stripes.inter, stripes.intra, "without a picture before, everything is new");
    }

    #[test]
    fn what_stays_is_not_new_and_what_differs_is() {
        let mut scene = Scene::default();
        let picture = |x: usize, y: usize| (x * 37 + y * 11).to_le_bytes()[0];
        look(&mut scene, picture);
        let same = look(&mut scene, picture);
        assert_eq!(same.inter.blocks[0], 12);
        assert_eq!(from(&same.intra, 9), 12, "256 and more");
        let brighter = look(&mut scene, |x, y| picture(x, y).wrapping_add(3) | 1);
        assert_eq!(brighter.inter.blocks[0], 0);
        // A cut to an easy picture is as new as that picture is detailed.
        assert_eq!(look(&mut scene, |_, _| 0).inter.blocks[0], 12);
    }

    #[test]
    fn another_size_and_a_narrow_picture_are_looked_at_without_harm() {
        let mut scene = Scene::default();
        look(&mut scene, |x, _| x.to_le_bytes()[0]);
        for (width, len) in [(16, 16 * 20), (2, 8), (0, 0)] {
            let bytes = vec![9; len];
            let seen = scene.look(&Plane { bytes: &bytes, stride: width }, width);
            assert_eq!(from(&seen.intra, 1), 0);
        }
    }
}
