//! Draws the NO SIGNAL picture: what viewers get while a source delivers nothing, why, and when.
//!
//! Light text on one dark gray: it costs an encoder next to nothing and strains no eye at night.
//! The same words always give the same picture.

use super::Picture;
use super::lettering::{HEIGHT_MIN, Lettering};
use super::picture::NEUTRAL;

/// Draws the whole picture: `NO SIGNAL`, below it `reason` in up to four lines, and `time`.
///
/// At small sizes the reason goes first, then the time: what is shown can always be read.
pub fn draw(picture: &mut Picture, reason: &str, time: &str) {
    picture.luma.fill(GROUND);
    picture.cb.fill(NEUTRAL);
    picture.cr.fill(NEUTRAL);
    let (width, height) = (picture.width, picture.height);
    let Some((title, title_lines)) = title(width, height) else { return };
    let Some(small) = Lettering::highest((height / 20).max(HEIGHT_MIN), |_, _| true) else {
        return;
    };
    let per_line = (width - width / 16) / small.width();
    let step = small.height() + small.height() / 4;
    let mut room = height.saturating_sub(title.height() * title_lines.len()) / step;
    let times = usize::from(room > 0 && !time.is_empty() && time.chars().count() <= per_line);
    room -= times;
    let reason_lines = if per_line < REASON_LEN_MIN { 0 } else { room.min(REASON_LINES_MAX) };
    let reason = wrap(reason, per_line, reason_lines);

    let lines = reason.len() + times;
    let gap = if lines > 0 { title.height() / 2 } else { 0 };
    let text_height = title.height() * title_lines.len() + step * lines;
    // The gap is a luxury of pictures that have room for it.
    let gap = gap.min(height.saturating_sub(text_height));
    let mut y = height.saturating_sub(text_height + gap) / 2;
    for line in title_lines {
        centre(picture, &title, y, line, TITLE_INK);
        y += title.height();
    }
    y += gap;
    for line in &reason {
        centre(picture, &small, y, line, REASON_INK);
        y += step;
    }
    if times > 0 {
        centre(picture, &small, y, time, TIME_INK);
    }
}

/// The largest lettering in which the title takes up to three fifths of the width in one line, or
/// all of it in two.
fn title(width: usize, height: usize) -> Option<(Lettering, &'static [&'static str])> {
    let [line, two_lines]: [&[&str]; 2] = [&["NO SIGNAL"], &["NO", "SIGNAL"]];
    let wide = width * 3 / 5 / line[0].len();
    let one = Lettering::highest(height / 6, |glyph, _| glyph <= wide);
    let narrow = width / two_lines[1].len();
    let two = || Lettering::highest(height / 2, |glyph, high| glyph <= narrow && high <= 10);
    one.map(|lettering| (lettering, line)).or_else(|| two().map(|two| (two, two_lines)))
}

fn centre(picture: &mut Picture, lettering: &Lettering, y: usize, text: &str, ink: u8) {
    let len = text.chars().count() * lettering.width();
    let x = picture.width.saturating_sub(len) / 2;
    lettering.draw(&mut picture.luma, picture.width, (x, y), text.chars(), ink);
}

/// Breaks a text between words into lines of up to `len` characters; longer words, where they
/// must. The last of `lines_max` lines ends in dots when there is more.
fn wrap(text: &str, len: usize, lines_max: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    if len <= ELLIPSIS.len() || lines_max == 0 {
        return lines;
    }
    let mut line = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let count = word.chars().count();
        if used > 0 && used + 1 + count > len {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        for character in word.chars() {
            if used == len {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push(character);
            used += 1;
        }
    }
    if used > 0 {
        lines.push(line);
    }
    if lines.len() > lines_max {
        lines.truncate(lines_max);
        if let Some(last) = lines.last_mut() {
            let kept = last.chars().take(len - ELLIPSIS.len()).collect::<String>();
            *last = kept.trim_end().to_owned() + ELLIPSIS;
        }
    }
    lines
}

const REASON_LINES_MAX: usize = 4;
/// Characters per line: with fewer, most words are torn.
const REASON_LEN_MIN: usize = 10;
const ELLIPSIS: &str = "...";
/// Luma, legal in either range.
const GROUND: u8 = 34;
const TITLE_INK: u8 = 210;
const REASON_INK: u8 = 180;
const TIME_INK: u8 = 140;

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small test sizes")]
mod tests {
    use super::*;

    const REASON: &str =
        "/dev/video0: the camera was unplugged; it is looked for every two seconds";
    const TIME: &str = "2026-11-26 18:20:00 UTC";

    fn drawn(width: u32, height: u32, reason: &str, time: &str) -> Picture {
        let mut picture = Picture::new(width, height);
        draw(&mut picture, reason, time);
        picture
    }

    /// Rows and columns between which there is ink of this brightness.
    fn extent(picture: &Picture, ink: u8) -> Option<[usize; 4]> {
        let places = picture.luma.iter().enumerate().filter(|(_, luma)| **luma == ink);
        let places = places.map(|(at, _)| (at % picture.width, at / picture.width));
        places.fold(None, |extent, (x, y)| {
            let [left, right, top, bottom] = extent.unwrap_or([x, x, y, y]);
            Some([left.min(x), right.max(x), top.min(y), bottom.max(y)])
        })
    }

    #[test]
    fn every_size_from_32x32_on_shows_the_title_within_its_borders() {
        for (width, height) in
            [(32, 32), (48, 32), (64, 48), (160, 120), (320, 240), (1280, 720), (3840, 2160)]
        {
            let picture = drawn(width, height, REASON, TIME);
            let [left, right, top, bottom] = extent(&picture, TITLE_INK).expect("a title");
            let (width, height) = (width as usize, height as usize);
            assert!(right < width && bottom < height, "{picture:?}");
            let off_centre = (left + right).abs_diff(width - 1);
            assert!(off_centre <= width / 8, "{picture:?}: {left}..={right}");
            assert!(right - left > width * 2 / 5, "{picture:?} has a small title");
            assert!(bottom - top >= 6, "{picture:?} has a low title");
        }
    }

    #[test]
    fn the_title_reads_no_signal() {
        for (width, height) in [(32, 32), (320, 240), (1280, 720)] {
            let picture = drawn(width, height, "", "");
            let (lettering, lines) = title(picture.width, picture.height).unwrap();
            let mut y = (picture.height - lines.len() * lettering.height()) / 2;
            for line in lines {
                let x = (picture.width - line.len() * lettering.width()) / 2;
                let is_ink = |luma| luma == TITLE_INK;
                let read = lettering.read(&picture.luma, picture.width, (x, y), line.len(), is_ink);
                assert_eq!(read, *line, "{picture:?}");
                y += lettering.height();
            }
        }
    }

    #[test]
    fn reason_and_time_stand_below_the_title_from_160x120_on() {
        for (width, height) in [(160, 120), (320, 240), (640, 360), (1280, 720), (1920, 1080)] {
            let picture = drawn(width, height, REASON, TIME);
            let [.., title] = extent(&picture, TITLE_INK).unwrap();
            let [left, right, top, bottom] = extent(&picture, REASON_INK).unwrap();
            let [.., time, _] = extent(&picture, TIME_INK).unwrap();
            assert!(title < top && bottom < time, "{picture:?}: {title} {top} {bottom} {time}");
            assert!(left > 0 && right < picture.width - 1, "{picture:?}: {left}..={right}");
        }
    }

    #[test]
    fn every_small_size_can_be_drawn_with_any_words() {
        let long = "x".repeat(5_000);
        for width in (2..=90).step_by(2) {
            for height in (2..=90).step_by(2) {
                for (reason, time) in [("", ""), (REASON, TIME), (&long, &long), ("a", "")] {
                    drawn(width, height, reason, time);
                }
            }
        }
    }

    #[test]
    fn the_same_words_give_the_same_picture_whatever_was_there() {
        let mut again = Picture::new(320, 240);
        again.luma.fill(200);
        again.cb.fill(3);
        again.cr.fill(9);
        draw(&mut again, REASON, TIME);
        let first = drawn(320, 240, REASON, TIME);
        assert!(first.luma == again.luma && first.cb == again.cb && first.cr == again.cr);
        assert_ne!(first.luma, drawn(320, 240, "no driver", TIME).luma);
    }

    #[test]
    fn reasons_are_broken_between_words_and_cut_after_the_last_line() {
        let cases: [(&str, usize, usize, &[&str]); 7] = [
            ("one two three", 7, 4, &["one two", "three"]),
            ("one two three", 20, 4, &["one two three"]),
            ("abcdefghij kl", 4, 4, &["abcd", "efgh", "ij", "kl"]),
            ("one two three", 7, 1, &["one..."]),
            ("", 10, 4, &[]),
            ("  spaces\n and\tlines ", 10, 4, &["spaces and", "lines"]),
            ("no room", 3, 4, &[]),
        ];
        for (text, len, lines_max, lines) in cases {
            assert_eq!(wrap(text, len, lines_max), lines, "{text}");
        }
        assert!(wrap(&"word ".repeat(99), 17, 4).iter().all(|line| line.chars().count() <= 17));
    }
}
