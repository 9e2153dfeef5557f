//! Where everything stands: heading, legend, panels. The widths of texts are estimates.

use super::axis::Axis;
use super::style::Names;
use super::svg::{text_width, wrap};
use super::{Panel, PlotOptions, THRESHOLD_NAME};
use crate::band::Band;
use crate::curve::Curve;
use crate::error::Error;

/// Size of the letters on axes and at the ends of curves, and the distance of lines of such text.
pub(super) const LABEL: f64 = 11.0;
pub(super) const LABEL_LINE: f64 = 12.5;
/// From the end of the curves to their labels: a line there, and a piece of the curve's own line.
pub(super) const LEADER: f64 = 13.0;
pub(super) const SAMPLE: f64 = 15.0;
/// Room above the curves for the panel's title and the name of the ordinate, and below for labels
/// and name of the abscissa.
const ABOVE: f64 = 40.0;
const BELOW: f64 = 36.0;
/// Between panels.
const GUTTER: f64 = 22.0;
/// Between the lines of the legend.
const LEGEND_LINE: f64 = 20.0;
/// Size of the caption's letters, and the distance of its lines.
pub(super) const CAPTION: f64 = 11.5;
const CAPTION_LINE: f64 = 16.0;
/// Curves in less than this cannot be read.
const LEAST_PLOT: f64 = 120.0;

/// Positions and sizes in px.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) margin: f64,
    /// Baseline of the heading.
    pub(super) title_y: f64,
    legend_top: f64,
    legend_columns: usize,
    legend_column: f64,
    columns: usize,
    panel_size: (f64, f64),
    panels_top: f64,
    /// Room for labels left and right of the curves.
    insets: (f64, f64),
    axes: Vec<(Axis, Axis)>,
    end_labels: bool,
    caption: Vec<String>,
}

/// Where one panel stands.
#[derive(Clone, Debug)]
pub(super) struct Frame<'a> {
    /// Left end of the whole panel.
    pub(super) panel_left: f64,
    /// Upper end of the whole panel.
    pub(super) panel_top: f64,
    /// The ends of the area for curves.
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    pub(super) x: &'a Axis,
    pub(super) y: &'a Axis,
    pub(super) end_labels: bool,
}

impl Frame<'_> {
    /// The point of the picture for a point of a curve.
    pub(super) fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let across = self.left + self.x.place(x) * (self.right - self.left);
        (across, self.bottom - self.y.place(y) * (self.bottom - self.top))
    }
}

impl Layout {
    pub(super) fn new(
        panels: &[Panel],
        options: &PlotOptions,
        names: &Names,
    ) -> Result<Self, Error> {
        let (width, margin) = (options.width, 16.0);
        let columns = columns(panels, options)?;
        let inner = width - 2.0 * margin;
        let panel_width = (inner - GUTTER * (columns - 1) as f64) / columns as f64;
        let ranges = panels.iter().map(ranges).collect::<Result<Vec<_>, _>>()?;

        let longest = names.shown().map(|(name, _)| text_width(name, LABEL)).fold(0.0, f64::max);
        let right = if options.end_labels { LEADER + SAMPLE + 4.0 + longest } else { 14.0 };
        let most = panels.iter().map(|panel| panel.series.len()).max().unwrap_or(0);
        let rows = if options.end_labels { most as f64 * LABEL_LINE } else { 0.0 };
        let plot_height = (0.5 * panel_width).clamp(150.0, 320.0).max(rows);
        let y_ticks = (plot_height / 30.0) as usize;
        let y_axes = ranges.iter().map(|&(_, (low, high))| Axis::values(low, high, y_ticks));
        let y_axes: Vec<Axis> = y_axes.collect();
        let y_labels = y_axes.iter().flat_map(Axis::ticks).map(|(_, l)| text_width(l, LABEL));
        let left = y_labels.fold(0.0, f64::max) + 7.0;
        let plot_width = panel_width - left - right;
        if plot_width < LEAST_PLOT {
            return Err(Error::TooNarrow { plot_width, width, least: LEAST_PLOT });
        }
        let x_ticks = (plot_width / 62.0) as usize + 1;
        let x_axes = ranges.iter().map(|&((low, high), _)| Axis::steps(low, high, x_ticks));

        let mut layout = Self {
            width,
            height: 0.0,
            margin,
            title_y: margin + 14.0,
            legend_top: margin + if options.title.is_empty() { 0.0 } else { 28.0 },
            legend_columns: 1,
            legend_column: 0.0,
            columns,
            panel_size: (panel_width, ABOVE + plot_height + BELOW),
            panels_top: 0.0,
            insets: (left, right),
            axes: x_axes.zip(y_axes).collect(),
            end_labels: options.end_labels,
            caption: wrap(&options.caption, CAPTION, inner),
        };
        layout.stack(panels, names);
        Ok(layout)
    }

    /// Places legend, panels and caption below each other.
    fn stack(&mut self, panels: &[Panel], names: &Names) {
        let threshold = panels.iter().any(|p| p.threshold.is_some()).then_some(THRESHOLD_NAME);
        let entries: Vec<f64> =
            names.shown().map(|(n, _)| n).chain(threshold).map(|n| text_width(n, 12.0)).collect();
        self.legend_column = 33.0 + entries.iter().copied().fold(0.0, f64::max) + 22.0;
        let fitting = ((self.width - 2.0 * self.margin) / self.legend_column) as usize;
        let lines = entries.len().div_ceil(fitting.max(1));
        // As few columns as that many lines need, so that the last line is not much shorter.
        self.legend_columns = entries.len().div_ceil(lines);
        self.panels_top = self.legend_top + lines as f64 * LEGEND_LINE + 14.0;
        let rows = panels.len().div_ceil(self.columns) as f64;
        let panels_height = rows * self.panel_size.1 + (rows - 1.0) * GUTTER;
        let lines = self.caption.len() as f64;
        let caption = if lines > 0.0 { 10.0 + lines * CAPTION_LINE } else { 0.0 };
        self.height = (self.panels_top + panels_height + caption + self.margin).ceil();
    }

    /// Left end and baseline of an entry of the legend.
    pub(super) fn legend_item(&self, index: usize) -> (f64, f64) {
        let (line, column) = (index / self.legend_columns, index % self.legend_columns);
        let x = self.margin + column as f64 * self.legend_column;
        (x, self.legend_top + 12.0 + line as f64 * LEGEND_LINE)
    }

    /// The lines of the caption with their baselines; the last one is at the lower margin.
    pub(super) fn caption(&self) -> impl Iterator<Item = (&str, f64)> {
        let first = self.height - self.margin - (self.caption.len() as f64 - 1.0) * CAPTION_LINE;
        let baselines = (0..).map(move |line| first + f64::from(line) * CAPTION_LINE);
        self.caption.iter().map(String::as_str).zip(baselines)
    }

    /// Where the panel of this index stands.
    pub(super) fn panel(&self, index: usize) -> Frame<'_> {
        let (row, column) = (index / self.columns, index % self.columns);
        let (width, height) = self.panel_size;
        let panel_left = self.margin + column as f64 * (width + GUTTER);
        let panel_top = self.panels_top + row as f64 * (height + GUTTER);
        Frame {
            panel_left,
            panel_top,
            left: panel_left + self.insets.0,
            right: panel_left + width - self.insets.1,
            top: panel_top + ABOVE,
            bottom: panel_top + height - BELOW,
            x: &self.axes[index].0,
            y: &self.axes[index].1,
            end_labels: self.end_labels,
        }
    }
}

/// The number of panels side by side.
fn columns(panels: &[Panel], options: &PlotOptions) -> Result<usize, Error> {
    let width = options.width;
    if !(320.0..=1e5).contains(&width) {
        return Err(Error::OutOfRange { what: "width", value: width, range: "at least 320 px" });
    }
    match options.columns {
        Some(0) => {
            Err(Error::OutOfRange { what: "number of columns", value: 0.0, range: "at least 1" })
        }
        Some(columns) => Ok(columns.min(panels.len())),
        None => {
            let least = if options.end_labels { 420.0 } else { 280.0 };
            Ok(((width / least) as usize).clamp(1, panels.len()))
        }
    }
}

type Range = (f64, f64);

/// The ranges of all that a panel shows: abscissa, ordinate.
fn ranges(panel: &Panel) -> Result<(Range, Range), Error> {
    if panel.series.is_empty() {
        return Err(Error::Empty { what: "series in a panel" });
    }
    if let Some(value) = panel.threshold.filter(|value| !value.is_finite()) {
        return Err(Error::NonFinite { what: "threshold", index: 0, value });
    }
    let runs = || panel.series.iter().flat_map(|series| &series.runs).flat_map(Curve::points);
    let bands = || panel.series.iter().map(|series| &series.band);
    let xs = bands().flat_map(Band::x).copied().chain(runs().map(|&(x, _)| x));
    let intervals = bands().flat_map(Band::intervals);
    let ys = intervals.flat_map(|i| [i.point, i.low, i.high]).chain(runs().map(|&(_, y)| y));
    Ok((range(xs), range(ys.chain(panel.threshold))))
}

fn range(values: impl Iterator<Item = f64>) -> Range {
    let wider = |(low, high): Range, x: f64| (low.min(x), high.max(x));
    values.fold((f64::INFINITY, f64::NEG_INFINITY), wider)
}
