//! Plots as SVG: lines over a logarithmic axis. Why without a library:
//! docs/adr/0061-own-plots-and-settings.md.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLORS: [&str; 5] = ["#0b6e99", "#d1495b", "#edae49", "#4f772d", "#6c4f9e"];

/// One picture.
pub struct Plot {
    /// Its file, without the ending.
    pub name: &'static str,
    pub title: &'static str,
    pub x: &'static str,
    pub y: &'static str,
    /// Names and points.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

impl Plot {
    pub fn svg(&self) -> String {
        let points = || {
            self.lines
                .iter()
                .flat_map(|(_, points)| points.iter().copied())
        };
        let scale = |x: f64| x.max(1e-9).log10();
        let least_x = points()
            .map(|(x, _)| scale(x))
            .fold(f64::INFINITY, f64::min);
        let most_x = points()
            .map(|(x, _)| scale(x))
            .fold(f64::NEG_INFINITY, f64::max);
        let most_y = points().map(|(_, y)| y).fold(0.0, f64::max) * 1.1;
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let to_x = |x: f64| LEFT + (scale(x) - least_x) / (most_x - least_x).max(1e-9) * width;
        let to_y = |y: f64| TOP + height - y / most_y.max(1e-9) * height;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{}</text>\n",
            self.title
        );
        for part in 0..=4 {
            let value = most_y * f64::from(part) / 4.0;
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{0}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>",
                LEFT + width,
                to_y(value),
                LEFT - 6.0,
                to_y(value) + 4.0,
                super::report::short(value),
            );
        }
        let mut marks: Vec<f64> = points().map(|(x, _)| x).collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        for x in marks.iter().step_by(marks.len().div_ceil(8).max(1)) {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                to_x(*x),
                TOP + height + 16.0,
                super::report::short(*x).trim_end_matches(".00"),
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            LEFT + width / 2.0,
            HEIGHT - 12.0,
            self.x,
            TOP + height / 2.0,
            self.y,
        );
        for (at, (name, points)) in self.lines.iter().enumerate() {
            let color = COLORS[at % COLORS.len()];
            let path: Vec<_> = points
                .iter()
                .map(|(x, y)| format!("{:.1},{:.1}", to_x(*x), to_y(*y)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>\
                 <text x=\"{}\" y=\"{}\" fill=\"{color}\">{name}</text>",
                path.join(" "),
                LEFT + width + 8.0,
                TOP + 16.0 * (at as f64 + 1.0),
            );
        }
        svg + "</svg>\n"
    }
}
