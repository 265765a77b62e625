//! Writes lines of text into the corners of a picture: light on a darkened box.
//!
//! Glyphs are about a 24th of the picture high. The box keeps a quarter of the light that was
//! there, so the text stands out from white, from black and from everything between.
//!
//! Not implemented: several lines, and right-to-left or combining characters.

use std::fmt;

use super::Picture;
use super::lettering::{HEIGHT_MIN, Lettering};
use super::mask::fill;
use super::picture::NEUTRAL;

/// Where a line of text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Corner {
    TopLeft,
    TopRight,
    BottomLeft,
    BottomRight,
}

/// Draws lines of text and keeps what they look like: one line for each corner.
#[derive(Default)]
pub struct Overlay {
    labels: [Label; 4],
}

impl Overlay {
    /// Writes `text` into a corner of the picture.
    ///
    /// Characters outside of ISO/IEC 8859-1 show as a question mark. A text that is wider than
    /// the picture ends in three dots; where not even one character and the dots have room, or
    /// glyphs of 8 samples, nothing is drawn.
    ///
    /// # Cost
    ///
    /// Reads and writes the box once; allocates only for a longer text or a larger picture than
    /// that corner had before.
    pub fn draw(&mut self, picture: &mut Picture, corner: Corner, text: &str) {
        let label = &mut self.labels[corner as usize];
        if label.text != text || label.picture != (picture.width, picture.height) {
            label.render(text, (picture.width, picture.height));
        }
        if !label.ink.is_empty() {
            label.stamp(picture, corner);
        }
    }
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.labels.iter().map(|label| &label.text)).finish()
    }
}

/// One line of text as it was rendered for pictures of one size.
#[derive(Default)]
struct Label {
    text: String,
    /// Width and height of the pictures this is for.
    picture: (usize, usize),
    /// Samples between the box and the picture's borders; even.
    margin: usize,
    /// Width of the box; even.
    width: usize,
    /// `LIGHT` or nothing for each sample of the box; empty when there is nothing to draw.
    ink: Vec<u8>,
}

impl Label {
    fn render(&mut self, text: &str, (width, height): (usize, usize)) {
        self.text.clear();
        self.text.push_str(text);
        self.picture = (width, height);
        self.ink.clear();
        let Some(layout) = Layout::new(text, (width, height)) else { return };
        (self.margin, self.width) = (layout.margin, layout.width);
        self.ink.resize(layout.width * layout.height, 0);
        let kept = text.chars().take(layout.kept);
        let dots = if layout.is_cut { ELLIPSIS.chars() } else { "".chars() };
        let origin = (layout.padding, layout.padding);
        layout.lettering.draw(&mut self.ink, self.width, origin, kept.chain(dots), LIGHT);
    }

    fn stamp(&self, picture: &mut Picture, corner: Corner) {
        let height = self.ink.len() / self.width;
        let (right, bottom) = (picture.width - self.margin, picture.height - self.margin);
        let left = match corner {
            Corner::TopLeft | Corner::BottomLeft => self.margin,
            Corner::TopRight | Corner::BottomRight => right - self.width,
        };
        let top = match corner {
            Corner::TopLeft | Corner::TopRight => self.margin,
            Corner::BottomLeft | Corner::BottomRight => bottom - height,
        };
        let rows = picture.luma.chunks_exact_mut(picture.width).skip(top);
        for (row, ink) in rows.zip(self.ink.chunks_exact(self.width)) {
            for (luma, ink) in row[left..left + self.width].iter_mut().zip(ink) {
                *luma = (*luma / 4 + FLOOR).max(*ink);
            }
        }
        let (columns, rows) = ((left / 2, (left + self.width) / 2), (top / 2, (top + height) / 2));
        fill(&mut picture.cb, picture.width / 2, columns, rows, NEUTRAL);
        fill(&mut picture.cr, picture.width / 2, columns, rows, NEUTRAL);
    }
}

/// How a line of text is set in a picture.
struct Layout {
    lettering: Lettering,
    margin: usize,
    /// Samples between the glyphs and the borders of their box.
    padding: usize,
    /// Of the box; both even.
    width: usize,
    height: usize,
    /// Characters that are shown, without the three dots that follow if the rest `is_cut`.
    kept: usize,
    is_cut: bool,
}

impl Layout {
    fn new(text: &str, (width, height): (usize, usize)) -> Option<Self> {
        let lettering = Lettering::highest((height / 24).max(HEIGHT_MIN), |_, _| true)?;
        let margin = (lettering.width() / 2) & !1;
        let padding = (lettering.width() / 4).max(1);
        let box_height = (lettering.height() + 2 * padding).next_multiple_of(2);
        let room = width.checked_sub(2 * (margin + padding))? / lettering.width();
        let count = text.chars().count();
        let is_cut = count > room;
        let kept = if is_cut { room.checked_sub(ELLIPSIS.len())? } else { count };
        let shown = if is_cut { room } else { count };
        (kept > 0 && box_height + 2 * margin <= height).then_some(Self {
            lettering,
            margin,
            padding,
            width: (shown * lettering.width() + 2 * padding).next_multiple_of(2),
            height: box_height,
            kept,
            is_cut,
        })
    }
}

const ELLIPSIS: &str = "...";
/// Luma of glyphs: white in the range 16..=235, and all but white in 0..=255.
const LIGHT: u8 = 235;
/// Keeps black black in the range 16..=235 when light is quartered.
const FLOOR: u8 = 12;

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small test sizes")]
mod tests {
    use super::*;

    const CORNERS: [Corner; 4] =
        [Corner::TopLeft, Corner::TopRight, Corner::BottomLeft, Corner::BottomRight];
    const SIZES: [(u32, u32); 9] = [
        (32, 32),
        (64, 48),
        (160, 120),
        (320, 240),
        (480, 270),
        (640, 480),
        (1280, 720),
        (1920, 1080),
        (3840, 2160),
    ];

    /// Backgrounds that text is to be read on: white, black, gray and noise.
    fn backgrounds(width: u32, height: u32) -> [Picture; 4] {
        let flat = |luma: u8| {
            let mut picture = Picture::new(width, height);
            picture.luma.fill(luma);
            picture.cb.fill(90);
            picture.cr.fill(170);
            picture
        };
        let mut noise = flat(0);
        let mut state = 0x9e37_79b9_u32;
        for sample in noise.luma.iter_mut().chain(&mut noise.cb).chain(&mut noise.cr) {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            *sample = (state >> 24) as u8;
        }
        [flat(255), flat(0), flat(128), noise]
    }

    /// Where a box of `layout` lies in a corner: left and top.
    fn place(layout: &Layout, corner: Corner, picture: &Picture) -> (usize, usize) {
        let right = picture.width - layout.margin - layout.width;
        let bottom = picture.height - layout.margin - layout.height;
        match corner {
            Corner::TopLeft => (layout.margin, layout.margin),
            Corner::TopRight => (right, layout.margin),
            Corner::BottomLeft => (layout.margin, bottom),
            Corner::BottomRight => (right, bottom),
        }
    }

    /// Reads the text off a picture, telling ink from ground by what lies half way.
    fn read(picture: &Picture, corner: Corner, text: &str) -> String {
        let layout = Layout::new(text, (picture.width, picture.height)).unwrap();
        let (left, top) = place(&layout, corner, picture);
        let at = (left + layout.padding, top + layout.padding);
        let count = layout.kept + if layout.is_cut { 3 } else { 0 };
        layout.lettering.read(&picture.luma, picture.width, at, count, |luma| luma > 155)
    }

    #[test]
    fn text_is_read_back_from_every_ground_corner_and_size() {
        let mut overlay = Overlay::default();
        for (width, height) in SIZES {
            for mut picture in backgrounds(width, height) {
                for (corner, text) in CORNERS.into_iter().zip(["12:5", "Hof", "0", "Tür?"]) {
                    overlay.draw(&mut picture, corner, text);
                    assert_eq!(read(&picture, corner, text), text, "{picture:?} {corner:?}");
                }
            }
        }
    }

    #[test]
    fn a_date_and_a_name_fit_from_160_samples_on() {
        let text = "2026-11-26 18:20:00 UTC";
        for (width, height) in SIZES.into_iter().filter(|(width, _)| *width >= 160) {
            for mut picture in backgrounds(width, height) {
                Overlay::default().draw(&mut picture, Corner::TopLeft, text);
                assert_eq!(read(&picture, Corner::TopLeft, text), text, "{picture:?}");
            }
        }
    }

    #[test]
    fn ink_stands_out_by_150_steps_and_chroma_is_neutral() {
        for mut picture in backgrounds(640, 480) {
            Overlay::default().draw(&mut picture, Corner::TopLeft, "Ärger|█");
            let layout = Layout::new("Ärger|█", (640, 480)).unwrap();
            for y in layout.margin..layout.margin + layout.height {
                for x in layout.margin..layout.margin + layout.width {
                    let luma = picture.luma[y * 640 + x];
                    assert!(luma == LIGHT || luma <= LIGHT - 150, "{luma} at {x},{y}");
                    let index = y / 2 * 320 + x / 2;
                    assert_eq!((picture.cb[index], picture.cr[index]), (NEUTRAL, NEUTRAL));
                }
            }
        }
    }

    #[test]
    fn nothing_outside_of_the_box_changes() {
        for (width, height) in [(32, 32), (64, 48), (320, 240), (1280, 720)] {
            for ground in backgrounds(width, height) {
                for corner in CORNERS {
                    let mut picture = ground.clone();
                    Overlay::default().draw(&mut picture, corner, "Tor 1");
                    let layout = Layout::new("Tor 1", (picture.width, picture.height)).unwrap();
                    let (left, top) = place(&layout, corner, &picture);
                    let columns = (left, left + layout.width);
                    fill(&mut picture.luma, width as usize, columns, (top, top + layout.height), 7);
                    let mut wanted = ground.clone();
                    fill(&mut wanted.luma, width as usize, columns, (top, top + layout.height), 7);
                    assert!(picture.luma == wanted.luma, "{picture:?} {corner:?}");
                    let columns = (left / 2, (left + layout.width) / 2);
                    let rows = (top / 2, (top + layout.height) / 2);
                    fill(&mut wanted.cb, width as usize / 2, columns, rows, NEUTRAL);
                    fill(&mut wanted.cr, width as usize / 2, columns, rows, NEUTRAL);
                    assert!(picture.cb == wanted.cb && picture.cr == wanted.cr, "{picture:?}");
                }
            }
        }
    }

    #[test]
    fn a_text_wider_than_the_picture_ends_in_three_dots() {
        let text = "Überwachungskamera am hinteren Ausgang des Lagers, zweiter Stock, links";
        for (width, height) in [(32, 32), (64, 48), (320, 240), (640, 480), (240, 720)] {
            let [mut picture, ..] = backgrounds(width, height);
            Overlay::default().draw(&mut picture, Corner::BottomRight, text);
            let shown = read(&picture, Corner::BottomRight, text);
            let kept = shown.strip_suffix("...").expect("three dots");
            assert!(text.starts_with(kept) && !kept.is_empty(), "{shown} at {width}x{height}");
        }
    }

    #[test]
    fn what_has_no_room_and_what_is_empty_is_left_out() {
        for (width, height, text) in
            [(2, 2, "1"), (16, 32, "long text"), (64, 10, "1"), (64, 48, "")]
        {
            let [ground, ..] = backgrounds(width, height);
            for corner in CORNERS {
                let mut picture = ground.clone();
                Overlay::default().draw(&mut picture, corner, text);
                assert!(picture.luma == ground.luma && picture.cb == ground.cb, "{picture:?}");
            }
        }
    }

    #[test]
    fn every_small_size_and_length_can_be_drawn() {
        let mut overlay = Overlay::default();
        for width in (2..=80).step_by(2) {
            for height in (2..=40).step_by(2) {
                let mut picture = Picture::new(width, height);
                for length in 0..=18 {
                    for corner in CORNERS {
                        overlay.draw(&mut picture, corner, &"0123456789abcdefgh"[..length]);
                    }
                }
            }
        }
    }

    #[test]
    fn a_changed_text_or_size_is_rendered_anew_and_an_unchanged_one_is_kept() {
        let mut overlay = Overlay::default();
        let mut rendered = Vec::new();
        for (text, width) in [("10:00", 640), ("10:00", 640), ("10:01", 640), ("10:01", 320)] {
            let mut picture = Picture::new(width, 480);
            overlay.draw(&mut picture, Corner::TopRight, text);
            assert_eq!(read(&picture, Corner::TopRight, text), text);
            rendered.push(overlay.labels[Corner::TopRight as usize].ink.as_ptr());
        }
        assert_eq!(rendered[0], rendered[3], "a buffer is not reused");
    }
}
