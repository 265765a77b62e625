//! Draws the test pattern: colour bars with a bouncing box, a drifting zone plate, and below
//! them the picture's number and capture time beside a ramp and line gratings.
//!
//! ITU-R BT.601 limited range; 75 % colour bars.
//!
//! What stands still is drawn once per canvas. A picture costs the copies of what moves: the
//! box, the bars behind its last place, the zone plate and the digits. Everything that touches
//! chroma lies on even coordinates.

use std::convert::Infallible;
use std::fmt;

use embedded_graphics::Pixel;
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_6X10;
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::{DrawTarget, Drawable, OriginDimensions, Point, Size};
use embedded_graphics::text::{Baseline, Text};

use crate::frame::Plane;
use crate::time::Instant;

/// Everything that is copied into canvases of one size, and where it goes.
#[derive(Debug)]
pub(super) struct Drawing {
    width: usize,
    height: usize,
    /// One row of the colour bars for each plane; all their rows are alike.
    bars: [Vec<u8>; 3],
    /// Rows that the bars fill, from the top.
    bars_height: usize,
    /// The bouncing box, for each plane.
    box_tiles: [Tile; 3],
    /// Luma samples that the box moves per picture, across and down.
    box_step: (usize, usize),
    /// Luma of the drifting band: wider than the picture by one period.
    band: Tile,
    /// The digits 0 to 9 and the decimal point.
    glyphs: Vec<Tile>,
}

impl Drawing {
    pub(super) fn new(width: u32, height: u32) -> Self {
        assert!(
            width > 0 && height > 0 && width.is_multiple_of(2) && height.is_multiple_of(2),
            "{width}x{height} cannot be sampled 4:2:0"
        );
        let (width, height) = (width as usize, height as usize);
        let bars_height = even(height * 5 / 8).max(2);
        let band_height = even(height * 3 / 4).saturating_sub(bars_height);
        let scale = letter_scale(width, height);
        Self {
            width,
            height,
            bars: [0, 1, 2].map(|plane| bars_row(plane, width)),
            bars_height,
            box_tiles: box_tiles(even(bars_height.min(width) / 4).max(2)),
            box_step: (even(width / 160).max(2), even(height / 180).max(2)),
            band: band(width, band_height),
            glyphs: GLYPHS.iter().map(|glyph| Tile::lettered(glyph, scale)).collect(),
        }
    }

    /// A canvas with everything that does not move.
    pub(super) fn background(&self) -> Canvas {
        let chroma = || Tile::filled(self.width / 2, self.height / 2, NEUTRAL);
        let mut planes = [Tile::filled(self.width, self.height, BLACK), chroma(), chroma()];
        for (plane, (tile, row)) in planes.iter_mut().zip(&self.bars).enumerate() {
            tile.repeat_row(row, (0, 0), (row.len(), self.bars_height >> usize::from(plane > 0)));
        }
        let [luma, ..] = &mut planes;
        let (right, panel) = (even(self.width / 2), self.panel_top());
        let half = (self.height - panel) / 2;
        let gauges = self.width - right;
        let ramp = Tile::drawn(gauges, half, |x, _| ramp_luma(x, gauges));
        let lines = Tile::drawn(gauges, self.height - panel - half, |x, _| lines_luma(x, gauges));
        luma.blit(&ramp, (right, panel));
        luma.blit(&lines, (right, panel + half));
        let scale = letter_scale(self.width, self.height);
        let [first, second] = self.lines();
        luma.blit(&Tile::lettered("frame", scale), first);
        luma.blit(&Tile::lettered("s", scale), (second.0 + 12 * self.glyph_width(), second.1));
        Canvas { planes, box_at: (0, 0), captured: Instant::ZERO }
    }

    /// Turns a canvas that shows any earlier picture into picture `number`.
    pub(super) fn update(&self, canvas: &mut Canvas, number: u64, captured: Instant) {
        canvas.captured = captured;
        let was = canvas.box_at;
        canvas.box_at = self.box_at(number);
        for (index, tile) in canvas.planes.iter_mut().enumerate() {
            let shift = usize::from(index > 0);
            let (bars, shown) = (&self.bars[index], &self.box_tiles[index]);
            tile.repeat_row(bars, (was.0 >> shift, was.1 >> shift), (shown.width, shown.height()));
            tile.blit(shown, (canvas.box_at.0 >> shift, canvas.box_at.1 >> shift));
        }
        let [luma, ..] = &mut canvas.planes;
        let period = self.band.width - self.width;
        luma.blit_from(
            &self.band,
            to_usize(number * BAND_STEP % period as u64),
            (0, self.bars_height),
        );
        let [first, second] = self.lines();
        let millis = captured.as_micros() / 1_000;
        self.write(luma, number, 7, (first.0 + 6 * self.glyph_width(), first.1));
        self.write(luma, millis / 1_000, 7, second);
        let point = second.0 + 7 * self.glyph_width();
        luma.blit(&self.glyphs[10], (point, second.1));
        self.write(luma, millis % 1_000, 3, (point + self.glyph_width(), second.1));
    }

    /// Writes the last `count` decimal digits of `number`.
    fn write(&self, luma: &mut Tile, mut number: u64, count: usize, (x, y): (usize, usize)) {
        for place in (0..count).rev() {
            luma.blit(&self.glyphs[to_usize(number % 10)], (x + place * self.glyph_width(), y));
            number /= 10;
        }
    }

    fn box_at(&self, number: u64) -> (usize, usize) {
        let side = self.box_tiles[0].width;
        (
            bounce(number, self.box_step.0, self.width - side),
            bounce(number, self.box_step.1, self.bars_height - side),
        )
    }

    /// First row below the band.
    fn panel_top(&self) -> usize {
        self.bars_height + self.band.height()
    }

    /// Where the two lines of text begin.
    fn lines(&self) -> [(usize, usize); 2] {
        let glyph_height = self.glyphs[0].height();
        let gap = (self.height - self.panel_top()).saturating_sub(2 * glyph_height) / 3;
        let top = self.panel_top() + gap;
        [(self.glyph_width() / 3, top), (self.glyph_width() / 3, top + glyph_height + gap)]
    }

    fn glyph_width(&self) -> usize {
        self.glyphs[0].width
    }
}

/// One picture, drawn.
#[derive(Debug)]
pub(super) struct Canvas {
    /// Y, Cb, Cr.
    planes: [Tile; 3],
    /// Where the box is, in luma samples.
    box_at: (usize, usize),
    captured: Instant,
}

impl Canvas {
    pub(super) fn captured(&self) -> Instant {
        self.captured
    }

    /// Width and height in luma samples.
    pub(super) fn size(&self) -> (u32, u32) {
        let [luma, ..] = &self.planes;
        let side = |len: usize| u32::try_from(len).expect("made from a u32");
        (side(luma.width), side(luma.height()))
    }

    pub(super) fn planes(&self) -> [Plane<'_>; 3] {
        self.planes.each_ref().map(|tile| Plane { bytes: &tile.samples, stride: tile.width })
    }
}

/// A rectangle of samples, rows without gaps.
struct Tile {
    samples: Vec<u8>,
    width: usize,
}

impl Tile {
    fn filled(width: usize, height: usize, value: u8) -> Self {
        assert!(width > 0, "a tile has columns");
        Self { samples: vec![value; width * height], width }
    }

    fn drawn(width: usize, height: usize, sample: impl Fn(usize, usize) -> u8) -> Self {
        let mut tile = Self::filled(width, height, 0);
        for (y, row) in tile.samples.chunks_exact_mut(width).enumerate() {
            for (x, value) in row.iter_mut().enumerate() {
                *value = sample(x, y);
            }
        }
        tile
    }

    /// White letters on black, each `scale` times 6x10 samples.
    fn lettered(text: &str, scale: usize) -> Self {
        let cells = text.chars().count();
        let mut tile = Self::filled(6 * scale * cells, 10 * scale, BLACK);
        let style = MonoTextStyle::new(&FONT_6X10, BinaryColor::On);
        let text = Text::with_baseline(text, Point::zero(), style, Baseline::Top);
        let Ok(_) = text.draw(&mut Magnifier { tile: &mut tile, scale });
        tile
    }

    fn height(&self) -> usize {
        self.samples.len() / self.width
    }

    /// Copies `tile` to `at`; what hangs over the right or lower edge is cut off.
    fn blit(&mut self, tile: &Self, at: (usize, usize)) {
        self.blit_from(tile, 0, at);
    }

    /// Like [`Tile::blit`], without the first `skip` columns of `tile`.
    fn blit_from(&mut self, tile: &Self, skip: usize, (x, y): (usize, usize)) {
        let Some(room) = self.width.checked_sub(x) else { return };
        let width = room.min(tile.width - skip);
        let rows = self.samples.chunks_exact_mut(self.width).skip(y);
        for (row, source) in rows.zip(tile.samples.chunks_exact(tile.width)) {
            row[x..x + width].copy_from_slice(&source[skip..skip + width]);
        }
    }

    /// Copies columns of `row`, a full row of this tile, to the same columns of several rows.
    fn repeat_row(&mut self, row: &[u8], (x, y): (usize, usize), (width, height): (usize, usize)) {
        let source = &row[x..x + width];
        for row in self.samples.chunks_exact_mut(self.width).skip(y).take(height) {
            row[x..x + width].copy_from_slice(source);
        }
    }
}

impl fmt::Debug for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tile({}x{})", self.width, self.height())
    }
}

/// Draws every pixel as a square of `scale` samples.
struct Magnifier<'a> {
    tile: &'a mut Tile,
    scale: usize,
}

impl OriginDimensions for Magnifier<'_> {
    fn size(&self) -> Size {
        let side = |len: usize| u32::try_from(len / self.scale).unwrap_or(0);
        Size::new(side(self.tile.width), side(self.tile.height()))
    }
}

impl DrawTarget for Magnifier<'_> {
    type Color = BinaryColor;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<BinaryColor>>,
    {
        let square = Tile::filled(self.scale, self.scale, WHITE);
        for Pixel(point, colour) in pixels {
            let (Ok(x), Ok(y)) = (usize::try_from(point.x), usize::try_from(point.y)) else {
                continue;
            };
            if colour == BinaryColor::On {
                self.tile.blit(&square, (x * self.scale, y * self.scale));
            }
        }
        Ok(())
    }
}

/// One row of the colour bars in one plane.
fn bars_row(plane: usize, luma_width: usize) -> Vec<u8> {
    let width = if plane == 0 { luma_width } else { luma_width / 2 };
    // Edges on even luma columns, the same in all planes.
    let chroma_width = luma_width / 2;
    let bar = |x: usize| {
        let x = if plane == 0 { x / 2 } else { x };
        BARS[x * BARS.len() / chroma_width][plane]
    };
    (0..width).map(bar).collect()
}

/// Squares that get brighter from corner to corner, in orange.
fn box_tiles(side: usize) -> [Tile; 3] {
    let cell = (side / 8).max(1);
    let luma = Tile::drawn(side, side, |x, y| {
        let light = 60 + 120 * (x + y) / (2 * side);
        let light = if (x / cell + y / cell).is_multiple_of(2) { light } else { light / 2 + 16 };
        to_u8(light)
    });
    let chroma = |value| Tile::filled(side / 2, side / 2, value);
    [luma, chroma(74), chroma(176)]
}

/// Rings whose spacing shrinks outwards, side by side.
fn band(width: usize, height: usize) -> Tile {
    let period = even(3 * height).max(16);
    Tile::drawn(width + period, height, |x, y| {
        let dx = (x % period) as f64 - period as f64 / 2.0;
        let dy = y as f64 - height as f64 / 2.0;
        // The phase grows by a half turn per sample at the left and right edges: the finest
        // detail that can be sampled.
        let phase = (dx * dx + dy * dy) * std::f64::consts::PI / (period as f64);
        sample(126.0 + 90.0 * phase.cos())
    })
}

fn ramp_luma(x: usize, width: usize) -> u8 {
    to_u8(usize::from(BLACK) + usize::from(WHITE - BLACK) * x / width)
}

/// Vertical lines, in five fields from 16 samples per line pair down to 2.
fn lines_luma(x: usize, width: usize) -> u8 {
    let half_period = [8, 4, 3, 2, 1][x * 5 / width];
    if (x / half_period).is_multiple_of(2) { WHITE } else { BLACK }
}

/// Position after `number` steps of something that runs to and fro between 0 and `range`.
fn bounce(number: u64, step: usize, range: usize) -> usize {
    if range == 0 {
        return 0;
    }
    let position = to_usize(number * step as u64 % (2 * range as u64));
    if position < range { position } else { 2 * range - position }
}

/// Samples per font pixel: two lines of 13 letters fill half of the panel's width.
fn letter_scale(width: usize, height: usize) -> usize {
    (height / 120).min(width / 160).max(1)
}

fn even(len: usize) -> usize {
    len & !1
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("reduced modulo something small")
}

fn to_u8(value: usize) -> u8 {
    u8::try_from(value).expect("a luma value")
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn sample(value: f64) -> u8 {
    value as u8
}

/// Y, Cb, Cr of white, yellow, cyan, green, magenta, red and blue at 75 %.
const BARS: [[u8; 3]; 7] = [
    [180, 128, 128],
    [162, 44, 142],
    [131, 156, 44],
    [112, 72, 58],
    [84, 184, 198],
    [65, 100, 212],
    [35, 212, 114],
];
const GLYPHS: [&str; 11] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "."];
const BLACK: u8 = 16;
const WHITE: u8 = 235;
const NEUTRAL: u8 = 128;
/// Samples that the band drifts per picture.
const BAND_STEP: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_small_size_can_be_drawn() {
        for width in (2..=66).step_by(2) {
            for height in (2..=66).step_by(2) {
                let drawing = Drawing::new(width, height);
                let mut canvas = drawing.background();
                for number in [0, 1, 100, u64::from(u32::MAX)] {
                    drawing.update(&mut canvas, number, Instant::from_micros(number));
                }
                assert_eq!(canvas.size(), (width, height));
            }
        }
    }

    #[test]
    fn all_samples_stay_in_limited_range() {
        let drawing = Drawing::new(640, 360);
        let mut canvas = drawing.background();
        drawing.update(&mut canvas, 1_234, Instant::from_micros(98_765_432));
        let [luma, cb, cr] = &canvas.planes;
        assert!(luma.samples.iter().all(|sample| (BLACK..=WHITE).contains(sample)));
        assert!(cb.samples.iter().chain(&cr.samples).all(|sample| (16..=240).contains(sample)));
    }

    #[test]
    fn the_counter_and_the_time_can_be_read_back() {
        let drawing = Drawing::new(320, 240);
        let mut canvas = drawing.background();
        drawing.update(&mut canvas, 12_045, Instant::from_micros(6_789_012_345));
        let [first, second] = drawing.lines();
        let read = |cells: std::ops::Range<usize>, (x, y): (usize, usize)| -> String {
            cells
                .map(|cell| glyph_at(&drawing, &canvas, (x + cell * drawing.glyph_width(), y)))
                .collect()
        };
        assert_eq!(read(6..13, first), "0012045");
        assert_eq!(read(0..11, second), "0006789.012");
    }

    #[test]
    fn something_moves_in_every_picture() {
        let drawing = Drawing::new(320, 240);
        let mut canvas = drawing.background();
        let mut before = Vec::new();
        for number in 0..100 {
            drawing.update(&mut canvas, number, Instant::ZERO);
            let bars = canvas.planes[0].samples[..320 * 150].to_vec();
            assert_ne!(bars, before, "the box stands still at {number}");
            before = bars;
        }
    }

    /// The only glyph that matches what the canvas shows.
    fn glyph_at(drawing: &Drawing, canvas: &Canvas, (x, y): (usize, usize)) -> &'static str {
        let luma = &canvas.planes[0];
        let shown = |glyph: &Tile| {
            (0..glyph.height()).all(|row| {
                let start = (y + row) * luma.width + x;
                let wanted = &glyph.samples[row * glyph.width..(row + 1) * glyph.width];
                &luma.samples[start..start + glyph.width] == wanted
            })
        };
        let mut found = GLYPHS.iter().zip(&drawing.glyphs).filter(|(_, glyph)| shown(glyph));
        let (name, _) = found.next().expect("a glyph");
        assert!(found.next().is_none());
        name
    }
}
