//! Turns characters into the samples of their glyphs, magnified by whole numbers.
//!
//! The fonts are embedded-graphics' of ISO/IEC 8859-1; what they lack shows as a question mark.

use embedded_graphics::image::GetPixel;
use embedded_graphics::mono_font::MonoFont;
use embedded_graphics::mono_font::iso_8859_1::{
    FONT_5X8, FONT_6X10, FONT_6X12, FONT_8X13_BOLD, FONT_9X15_BOLD, FONT_9X18_BOLD, FONT_10X20,
};
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::{OriginDimensions, Point};

/// A font and how many samples one of its dots is wide and high.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lettering {
    font: &'static MonoFont<'static>,
    scale: usize,
}

impl Lettering {
    /// The one with the highest glyphs that `fits` (width, height) in samples, up to `height`.
    pub(super) fn highest(height: usize, fits: impl Fn(usize, usize) -> bool) -> Option<Self> {
        let letterings = FONTS.into_iter().flat_map(|font| {
            let scale_max = height / font.character_size.height as usize;
            (1..=scale_max).map(move |scale| Self { font, scale })
        });
        letterings
            .filter(|lettering| fits(lettering.width(), lettering.height()))
            // Of several as high, the last: the largest font shows the finest shapes.
            .max_by_key(Self::height)
    }

    /// Samples from one glyph to the next.
    pub(super) fn width(&self) -> usize {
        self.font.character_size.width as usize * self.scale
    }

    /// Samples of a glyph from top to bottom, the room for descenders among them.
    pub(super) fn height(&self) -> usize {
        self.font.character_size.height as usize * self.scale
    }

    /// Sets the samples of `text` that are ink to `ink`: its first glyph's left upper corner at
    /// `(x, y)` of a plane of rows of `stride` samples, into which it must fit.
    pub(super) fn draw(
        &self,
        plane: &mut [u8],
        stride: usize,
        (x, y): (usize, usize),
        text: impl Iterator<Item = char>,
        ink: u8,
    ) {
        for (index, character) in text.enumerate() {
            let left = x + index * self.width();
            for (dot_x, dot_y) in self.dots(character) {
                let (left, top) = (left + dot_x * self.scale, y + dot_y * self.scale);
                let rows = plane.chunks_mut(stride).skip(top).take(self.scale);
                rows.for_each(|row| row[left..left + self.scale].fill(ink));
            }
        }
    }

    /// The dots of a glyph that are ink, before they are magnified.
    fn dots(&self, character: char) -> impl Iterator<Item = (usize, usize)> {
        let (image, size) = (&self.font.image, self.font.character_size);
        let glyphs_per_row = (image.size().width / size.width) as usize;
        let index = self.font.glyph_mapping.index(character);
        let (width, height) = (size.width as usize, size.height as usize);
        let (left, top) = (index % glyphs_per_row * width, index / glyphs_per_row * height);
        let dots = (0..height).flat_map(move |y| (0..width).map(move |x| (x, y)));
        dots.filter(move |(x, y)| {
            let point = i32::try_from(left + x).ok().zip(i32::try_from(top + y).ok());
            let dot = point.and_then(|(x, y)| image.pixel(Point::new(x, y)));
            dot == Some(BinaryColor::On)
        })
    }
}

/// From the lowest to the highest; bold where there is one, for strokes that encoders keep.
const FONTS: [&MonoFont<'static>; 7] = [
    &FONT_5X8,
    &FONT_6X10,
    &FONT_6X12,
    &FONT_8X13_BOLD,
    &FONT_9X15_BOLD,
    &FONT_9X18_BOLD,
    &FONT_10X20,
];

/// Height of the lowest glyphs: with fewer samples letters can no longer be told apart.
pub(super) const HEIGHT_MIN: usize = 8;

#[cfg(test)]
impl Lettering {
    /// Reads back what stands in `count` cells of a plane; `'\u{0}'` for what is no glyph.
    pub(super) fn read(
        &self,
        plane: &[u8],
        stride: usize,
        (x, y): (usize, usize),
        count: usize,
        is_ink: impl Fn(u8) -> bool,
    ) -> String {
        let cell = |index: usize| {
            let left = x + index * self.width();
            let shown: Vec<bool> = (0..self.height() * self.width())
                .map(|at| (left + at % self.width(), y + at / self.width()))
                .map(|(x, y)| is_ink(plane[y * stride + x]))
                .collect();
            let looks_like = |character: &char| {
                let mut cell = vec![0; self.height() * self.width()];
                self.draw(&mut cell, self.width(), (0, 0), [*character].into_iter(), 1);
                cell.iter().zip(&shown).all(|(dot, shown)| (*dot == 1) == *shown)
            };
            (' '..='~').chain('¡'..='ÿ').find(looks_like).unwrap_or('\0')
        };
        (0..count).map(cell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_of_every_font_at_every_scale_reads_back() {
        for height in [8, 10, 12, 13, 15, 18, 20, 30, 90] {
            let lettering = Lettering::highest(height, |_, _| true).unwrap();
            assert_eq!(lettering.height(), height);
            // Small fonts draw Å as Ä and × as x.
            let text: String = (' '..='~')
                .chain('À'..='ÿ')
                .filter(|character| !"Å×".contains(*character))
                .collect();
            let count = text.chars().count();
            let stride = 3 + count * lettering.width();
            let mut plane = vec![0; stride * (2 + height)];
            lettering.draw(&mut plane, stride, (3, 2), text.chars(), 255);
            let read = lettering.read(&plane, stride, (3, 2), count, |sample| sample == 255);
            assert_eq!(read, text, "at {height}");
        }
    }

    #[test]
    fn what_the_fonts_lack_is_a_question_mark() {
        let lettering = Lettering::highest(20, |_, _| true).unwrap();
        let mut plane = vec![0; 40 * 20];
        lettering.draw(&mut plane, 40, (0, 0), "€漢\n\u{1f600}".chars(), 1);
        assert_eq!(lettering.read(&plane, 40, (0, 0), 4, |sample| sample == 1), "????");
    }

    #[test]
    fn the_highest_lettering_that_fits_is_taken() {
        assert!(Lettering::highest(HEIGHT_MIN - 1, |_, _| true).is_none());
        let narrow = Lettering::highest(90, |width, _| width <= 18).unwrap();
        assert_eq!((narrow.width(), narrow.height()), (18, 36));
        for height in HEIGHT_MIN..200 {
            let found = Lettering::highest(height, |_, _| true).unwrap().height();
            assert!(found <= height && found * 5 >= height * 4, "{found} of {height}");
        }
    }
}
