//! Draws one panel: grid, bands, curves, labels at the curves' ends.

use super::layout::{Frame, LABEL, LABEL_LINE, LEADER, SAMPLE};
use super::style::Names;
use super::svg::{Anchor, Svg, Text, polyline, px};
use super::{Panel, Series};

/// How the threshold is drawn.
pub(super) const THRESHOLD: &str =
    "stroke=\"#777777\" stroke-width=\"1.2\" stroke-dasharray=\"1.5 3\"";
const GRID: &str = "stroke=\"#e6e6e6\"";
const BASE: &str = "stroke=\"#9a9a9a\"";

pub(super) fn draw(svg: &mut Svg, panel: &Panel, frame: &Frame, names: &Names) {
    svg.text(frame.panel_left, frame.panel_top + 11.0, &panel.title, Text::bold(13.0));
    svg.text(frame.panel_left, frame.panel_top + 28.0, &panel.y_label, Text::quiet(LABEL));
    axes(svg, panel, frame);
    // Bands below single runs below lines, so that no algorithm covers another's line.
    for series in &panel.series {
        let color = names.style(&series.name).color;
        svg.open_group(&series.name);
        svg.path(&outline(series, frame), &format!("fill=\"{color}\" fill-opacity=\"0.14\""));
        for run in &series.runs {
            let d = polyline(run.points().iter().map(|&(x, y)| frame.at(x, y)));
            svg.path(
                &d,
                &format!("stroke=\"{color}\" stroke-width=\"0.7\" stroke-opacity=\"0.35\""),
            );
        }
        svg.close_group();
    }
    if let Some(threshold) = panel.threshold {
        let (_, y) = frame.at(0.0, threshold);
        svg.line((frame.left, y), (frame.right, y), THRESHOLD);
    }
    for series in &panel.series {
        svg.open_group(&series.name);
        names.style(&series.name).draw(svg, &center_line(series, frame), 1.8);
        svg.close_group();
    }
    if frame.end_labels {
        end_labels(svg, panel, frame, names);
    }
}

fn axes(svg: &mut Svg, panel: &Panel, frame: &Frame) {
    for (place, label) in frame.y.ticks() {
        let y = frame.bottom - place * (frame.bottom - frame.top);
        svg.line((frame.left, y), (frame.right, y), GRID);
        svg.text(frame.left - 6.0, y + 3.8, label, Text::quiet(LABEL).at(Anchor::End));
    }
    svg.line((frame.left, frame.bottom), (frame.right, frame.bottom), BASE);
    for (place, label) in frame.x.ticks() {
        let x = frame.left + place * (frame.right - frame.left);
        svg.line((x, frame.bottom), (x, frame.bottom + 4.0), BASE);
        svg.text(x, frame.bottom + 16.0, label, Text::quiet(LABEL).at(Anchor::Middle));
    }
    let middle = f64::midpoint(frame.left, frame.right);
    let style = Text::quiet(LABEL).at(Anchor::Middle);
    svg.text(middle, frame.bottom + 32.0, &panel.x_label, style);
}

/// Along the upper ends of the intervals and back along the lower ones.
fn outline(series: &Series, frame: &Frame) -> String {
    let points = || series.band.x().iter().zip(series.band.intervals());
    let upper = points().map(|(&x, interval)| frame.at(x, interval.high));
    let lower = points().rev().map(|(&x, interval)| frame.at(x, interval.low));
    format!("{}Z", polyline(upper.chain(lower)))
}

fn center_line(series: &Series, frame: &Frame) -> String {
    let points = series.band.x().iter().zip(series.band.intervals());
    let d = polyline(points.map(|(&x, interval)| frame.at(x, interval.point)));
    // A line of one point is invisible; so it gets a length.
    if series.band.x().len() == 1 { format!("{d}h4") } else { d }
}

/// Names at the right, each beside its curve's end or as close as the others allow, joined to it by
/// a thin line and marked by a piece of the curve's own.
fn end_labels(svg: &mut Svg, panel: &Panel, frame: &Frame, names: &Names) {
    let end = |series: &Series| {
        let last = series.band.x().len() - 1;
        frame.at(series.band.x()[last], series.band.intervals()[last].point)
    };
    let mut ends: Vec<(f64, f64, &str)> =
        panel.series.iter().map(|series| (end(series).0, end(series).1, &*series.name)).collect();
    ends.sort_by(|a, b| a.1.total_cmp(&b.1));
    let wanted: Vec<f64> = ends.iter().map(|end| end.1).collect();
    let placed = spread(&wanted, LABEL_LINE, frame.top + 2.0, frame.bottom - 2.0);
    for ((x, from, name), to) in ends.into_iter().zip(placed) {
        let (label, style) = (frame.right + LEADER, names.style(name));
        let thin =
            format!("stroke=\"{}\" stroke-width=\"0.8\" stroke-opacity=\"0.6\"", style.color);
        svg.line((x + 1.0, from), (label, to), &thin);
        style.draw(svg, &format!("M{} {}h{SAMPLE}", px(label), px(to)), 1.8);
        svg.text(label + SAMPLE + 4.0, to + 3.8, name, Text::plain(LABEL));
    }
}

/// Positions at least `gap` apart, in the same order, within `low` to `high`, as close to the wanted
/// ones as that allows in the sum of squares. If they do not fit they stand at equal distances.
///
/// # Source
///
/// The gaps subtracted, this is isotonic regression: pool adjacent violators (Ayer et al. 1955).
fn spread(wanted: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let room = high - low;
    let gap = gap.min(room / wanted.len().saturating_sub(1).max(1) as f64);
    // Blocks of labels that touch: sum of wanted positions without gaps, and number of labels.
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for (index, y) in wanted.iter().enumerate() {
        let mut block = (y - index as f64 * gap, 1);
        while let Some(&(sum, count)) = blocks.last() {
            if sum / count as f64 <= block.0 / block.1 as f64 {
                break;
            }
            block = (block.0 + sum, block.1 + count);
            blocks.pop();
        }
        blocks.push(block);
    }
    let last = low.max(high - (wanted.len() as f64 - 1.0) * gap);
    let means = blocks.iter().flat_map(|&(sum, count)| {
        std::iter::repeat_n((sum / count as f64).clamp(low, last), count)
    });
    means.enumerate().map(|(index, y)| y + index as f64 * gap).collect()
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn labels_move_as_little_as_they_must() {
        // The first two want the same place and share the move; the third has room.
        assert_eq!(spread(&[50.0, 50.0, 90.0], 10.0, 0.0, 100.0), [45.0, 55.0, 90.0]);
        // At the ends they are pushed inward.
        assert_eq!(spread(&[0.0, 1.0], 10.0, 0.0, 100.0), [0.0, 10.0]);
        assert_eq!(spread(&[99.0, 100.0, 100.0], 10.0, 0.0, 100.0), [80.0, 90.0, 100.0]);
        // 30, 32 and 41 become one block around 34.33: 24.33, 34.33, 44.33.
        let placed = spread(&[30.0, 32.0, 41.0], 10.0, 0.0, 100.0);
        assert!((placed[0] - (103.0 / 3.0 - 10.0)).abs() < 1e-9, "{placed:?}");
        // No room: equal distances.
        assert_eq!(spread(&[5.0, 5.0, 5.0], 10.0, 0.0, 10.0), [0.0, 5.0, 10.0]);
        assert_eq!(spread(&[7.0], 10.0, 0.0, 10.0), [7.0]);
    }
}
