//! Curves as inline SVG. Only curves and grid lines are in the SVG, which is stretched to its box;
//! the labels are HTML beside it, so that text keeps its size on a phone.

use std::fmt::Write;

use super::axis::Axis;
use super::escape;
use super::series::{Point, Series};

/// The drawing's own units, which the page stretches to any size.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 400.0;

/// A metric is drawn on a logarithmic axis if it is always positive and its highest value is this
/// many times its median: otherwise one peak, as of the value loss at the start, flattens the rest.
const LOG_RATIO: f64 = 30.0;

/// What is drawn in one chart.
#[derive(Debug)]
pub(super) struct Chart<'a> {
    /// What it shows, for those who cannot see it.
    pub(super) title: &'a str,
    /// The curve, and its running mean.
    pub(super) series: Option<&'a Series>,
    /// Points marked on top.
    pub(super) marks: Option<&'a Series>,
    /// The right end of the horizontal axis.
    pub(super) last_step: f64,
    /// Whether it is the large chart, which shows single points and has more room for labels.
    pub(super) is_large: bool,
}

impl Chart<'_> {
    /// The chart as HTML, and whether its axis is logarithmic; `None` if there is nothing to draw.
    pub(super) fn to_html(&self) -> Option<(String, bool)> {
        let shown = || [self.series, self.marks].into_iter().flatten();
        let (low, high) =
            shown().filter_map(Series::range).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        let median = shown().find_map(Series::median)?;
        let y = if low > 0.0 && high >= LOG_RATIO * median {
            Axis::log(low, high, 4)
        } else {
            Axis::values(low, high, if self.is_large { 6 } else { 4 })
        };
        let x = Axis::steps(self.last_step, if self.is_large { 6 } else { 4 });
        let mut html = String::new();
        let longest = y.ticks().map(|(_, label)| label.chars().count()).max().unwrap_or(0).max(4);
        let size = if self.is_large { " large" } else { "" };
        let _ =
            write!(html, "<div class=\"plot{size}\" style=\"--y:{longest}ch\"><div class=\"y\">");
        for (place, label) in y.ticks() {
            let _ =
                write!(html, "<span style=\"top:{:.1}%\">{label}</span>", 100.0 * (1.0 - place));
        }
        let _ = write!(
            html,
            "</div><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"{}\">",
            escape(self.title)
        );
        html.push_str(&self.curves(&x, &y));
        html.push_str("</svg><div class=\"x\">");
        for (place, label) in x.ticks() {
            let _ = write!(html, "<span style=\"left:{:.1}%\">{label}</span>", 100.0 * place);
        }
        html.push_str("</div></div>");
        Some((html, y.log))
    }

    fn curves(&self, x: &Axis, y: &Axis) -> String {
        let mut svg = String::new();
        let mut path = |class: &str, d: &str| {
            if !d.is_empty() {
                let _ = write!(svg, "<path class=\"{class}\" d=\"{d}\"/>");
            }
        };
        let grid = y.ticks().fold(String::new(), |mut d, (place, _)| {
            let _ = write!(d, "M0 {}H{WIDTH}", decimal(HEIGHT * (1.0 - place)));
            d
        });
        path("grid", &grid);
        if let Some(series) = self.series {
            let (points, mean) = (series.points(), series.running_mean());
            if series.is_thinned() {
                // The extremes alone, as points, would show two curves with nothing in between.
                path("band", &format!("{}Z", line(&series.outline(), x, y)));
            } else if self.is_large {
                path("dots", &dots(&points, x, y));
            } else if !mean.is_empty() {
                path("raw", &line(&points, x, y));
            }
            path("mean", &line(if mean.is_empty() { &points } else { &mean }, x, y));
        }
        if let Some(marks) = self.marks {
            let marks = dots(&marks.points(), x, y);
            path("rim", &marks);
            path("mark", &marks);
        }
        svg
    }
}

/// A line through the points; a single one becomes a dot.
fn line(points: &[Point], x: &Axis, y: &Axis) -> String {
    let mut d = String::new();
    for (index, point) in points.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let _ = write!(d, "{command}{}", at(point, x, y));
    }
    if points.len() == 1 {
        d.push_str("h0");
    }
    d
}

/// Lines of no length, which round ends make into dots that stay round when the drawing is
/// stretched.
fn dots(points: &[Point], x: &Axis, y: &Axis) -> String {
    points.iter().fold(String::new(), |mut d, point| {
        let _ = write!(d, "M{}h0", at(point, x, y));
        d
    })
}

fn at(point: &Point, x: &Axis, y: &Axis) -> String {
    let (x, y) = (WIDTH * x.place(point.step), HEIGHT * (1.0 - y.place(point.value)));
    format!("{} {}", decimal(x), decimal(y))
}

/// A coordinate, as short as a tenth of a unit allows.
fn decimal(coordinate: f64) -> String {
    let text = format!("{coordinate:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: &[(f64, f64)]) -> Series {
        let mut series = Series::default();
        for &(step, value) in points {
            series.push(step, value);
        }
        series
    }

    fn chart<'a>(series: &'a Series, marks: Option<&'a Series>) -> Chart<'a> {
        Chart { title: "a \"b\"", series: Some(series), marks, last_step: 40.0, is_large: false }
    }

    #[test]
    fn a_curve_runs_through_its_points() {
        // x: 10 of 40 is 250 of 1000; y from 0 to 4: 1 is 300 of 400 from the top.
        let curve = series(&[(0.0, 0.0), (10.0, 1.0), (40.0, 4.0)]);
        let mark = series(&[(20.0, 2.0)]);
        let (html, is_log) = chart(&curve, Some(&mark)).to_html().unwrap();
        assert!(!is_log);
        assert!(html.contains(r#"<path class="mean" d="M0 400L250 300L1000 0"/>"#), "{html}");
        assert!(html.contains(r#"<path class="mark" d="M500 200h0"/>"#), "{html}");
        assert!(html.contains(r#"<path class="grid" d="M0 400H1000M0 300H1000"#), "{html}");
        assert!(html.contains(r#"<span style="top:75.0%">1</span>"#), "{html}");
        assert!(html.contains(r#"<span style="left:25.0%">10</span>"#), "{html}");
        assert!(html.contains(r#"aria-label="a &quot;b&quot;""#), "{html}");
    }

    #[test]
    fn a_single_point_is_a_dot_and_none_is_no_chart() {
        let (html, _) = chart(&series(&[(40.0, 7.0)]), None).to_html().unwrap();
        assert!(html.contains(r#"class="mean" d="M1000 200h0""#), "{html}");
        assert!(chart(&series(&[(1.0, f64::NAN)]), None).to_html().is_none());
    }

    #[test]
    fn a_thinned_curve_is_an_area_around_its_mean() {
        let points: Vec<(f64, f64)> = (0..601).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let curve = series(&points);
        let (html, _) = Chart { last_step: 600.0, ..chart(&curve, None) }.to_html().unwrap();
        // Buckets of 4: the first has its high, 1, at step 1 and its low, 0, at step 0.
        assert!(html.contains(r#"<path class="band" d="M1.7 0L8.3 0L"#), "{html}");
        assert!(html.contains(r#"L6.7 400L0 400Z"/>"#), "{html}");
        // The first bucket's mean is 1/2 at step 1.5.
        assert!(html.contains(r#"<path class="mean" d="M2.5 200L"#), "{html}");
        assert!(!html.contains(r#"class="raw""#) && !html.contains(r#"class="dots""#));
    }

    #[test]
    fn one_peak_among_small_values_makes_the_axis_logarithmic() {
        let peak = |base: f64| series(&[(1.0, 100.0), (2.0, base), (3.0, base), (4.0, base)]);
        assert!(chart(&peak(2.0), None).to_html().unwrap().1);
        assert!(!chart(&peak(4.0), None).to_html().unwrap().1);
        // There is no logarithm of what is not positive.
        assert!(!chart(&peak(-2.0), None).to_html().unwrap().1);
    }
}
