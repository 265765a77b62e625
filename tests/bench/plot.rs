//! Draws lines over the number of viewers, both axes logarithmic, as SVG.

use std::fmt::Write as _;

/// A named line: viewers, and what was measured.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// An SVG document.
pub(crate) fn chart(title: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points).filter(|(_, y)| *y > 0.0);
    let x = Axis::around(points().map(|(x, _)| *x), LEFT, WIDTH - RIGHT);
    let y = Axis::around(points().map(|(_, y)| *y), HEIGHT - BOTTOM, TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{title}</text>\n"
    );
    for value in x.ticks() {
        let at = x.at(value);
        let (top, bottom) = (TOP, HEIGHT - BOTTOM);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>",
            bottom + 16.0
        );
    }
    for value in y.ticks() {
        let at = y.at(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
    }
    for (line, colour) in lines.iter().zip(COLOURS) {
        let drawn: Vec<(f64, f64)> =
            line.points.iter().copied().filter(|(_, y)| *y > 0.0).collect();
        let Some(&(last_x, last_y)) = drawn.last() else { continue };
        let path: Vec<String> =
            drawn.iter().map(|&(a, b)| format!("{:.1},{:.1}", x.at(a), y.at(b))).collect();
        let path = path.join(" ");
        let _ = writeln!(
            svg,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
            x.at(last_x) + 6.0,
            y.at(last_y) + 4.0,
            line.name
        );
    }
    svg + "</svg>\n"
}

/// Decades between two ends of the picture.
struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn around(values: impl Iterator<Item = f64> + Clone, start: f64, end: f64) -> Self {
        let low = values.clone().fold(f64::MAX, f64::min).min(1e9).log10().floor();
        let high = values.fold(f64::MIN_POSITIVE, f64::max).log10().ceil().max(low + 1.0);
        Self { low, high, start, end }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - self.low) / (self.high - self.low);
        self.start + (self.end - self.start) * share
    }

    /// 1, 2 and 5 of every decade.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        let decades = self.low as i32..=self.high as i32;
        let ticks = decades.flat_map(|decade| {
            [1.0, 2.0, 5.0].map(|step: f64| match decade {
                0.. => step * 10_f64.powi(decade),
                // Divided, not multiplied: 0.2 and not 0.20000000000000001.
                _ => step / 10_f64.powi(-decade),
            })
        });
        let last = 10_f64.powf(self.high) * 1.001;
        ticks.filter(move |tick| *tick <= last)
    }
}

const COLOURS: [&str; 3] = ["#888888", "#0a5fb4", "#c06000"];
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 30.0;
