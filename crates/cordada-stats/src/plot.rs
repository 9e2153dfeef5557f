//! Learning curves as SVG: one panel per environment, one color and dash per algorithm, the same in
//! every panel, with a shared legend and a label at each curve's end.
//!
//! The SVG is written here rather than by a plotting crate. `plotters`, the best known one, rounds
//! every coordinate to whole pixels, writes a dashed curve as one element per dash, cannot round the
//! joints of noisy curves, and knows neither groups nor tooltips; and where lines, legend and labels
//! stand is ours to compute either way. What it would have saved is fewer lines than working around
//! that. Text is SVG text in the reader's own font, so nothing here needs one.

mod axis;
mod layout;
mod panel;
mod style;
mod svg;

use crate::band::Band;
use crate::curve::Curve;
use crate::error::Error;
use layout::Layout;
use style::Names;
use svg::{Svg, Text};

/// The curves of one environment.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// Heading, usually the environment's name.
    pub title: String,
    /// What the abscissa counts, with its unit: `environment steps`, `time (s)`.
    pub x_label: String,
    /// What the ordinate measures: `episode return`.
    pub y_label: String,
    /// The curves; the order does not matter for their style.
    pub series: Vec<Series>,
    /// A level to compare with, drawn as a dotted line: the return that counts as solved.
    pub threshold: Option<f64>,
}

/// The runs of one algorithm on one environment.
#[derive(Clone, Debug)]
pub struct Series {
    /// The algorithm's name; the same name has the same style in every panel.
    pub name: String,
    /// Line and shaded interval. About 100 points are enough.
    pub band: Band,
    /// Single runs to draw as thin lines behind; may be empty.
    pub runs: Vec<Curve>,
}

/// How a plot is laid out.
#[derive(Clone, Debug)]
pub struct PlotOptions {
    /// Width in px, at least 320; default 900. The height follows.
    pub width: f64,
    /// Panels side by side; by default up to two with end labels and up to three without.
    pub columns: Option<usize>,
    /// Heading of the whole plot; none if empty.
    pub title: String,
    /// A note below: what line and band are, and of how many runs; none if empty.
    pub caption: String,
    /// Whether each curve has its name at its end; default true.
    pub end_labels: bool,
    /// Names in the order that decides their style, so that several plots agree; names that are not
    /// listed follow in the order of their first appearance.
    pub names: Vec<String>,
}

impl Default for PlotOptions {
    fn default() -> Self {
        Self {
            width: 900.0,
            columns: None,
            title: String::new(),
            caption: String::new(),
            end_labels: true,
            names: Vec::new(),
        }
    }
}

/// The panels as one SVG document.
///
/// # Units
///
/// Abscissa and ordinate are what the labels say; the picture is in px.
///
/// # Errors
///
/// [`Error::Empty`] without panels or with one without series, [`Error::TooManyNames`] with more
/// than 28 names, [`Error::OutOfRange`] for a width or a number of columns that makes no sense,
/// [`Error::NonFinite`] for a threshold, [`Error::TooNarrow`] if labels leave no room.
///
/// # Examples
///
/// ```
/// use cordada_stats::{Aligned, Center, Curve, Panel, PlotOptions, Series, learning_curves};
///
/// let runs = [
///     Curve::new([(0.0, 20.0), (50_000.0, 300.0), (100_000.0, 500.0)])?,
///     Curve::new([(0.0, 25.0), (50_000.0, 180.0), (100_000.0, 490.0)])?,
/// ];
/// let aligned = Aligned::new(&runs, &[0.0, 50_000.0, 100_000.0])?;
/// let band = aligned.percentile_band(Center::Median, 0.9)?;
/// let panel = Panel {
///     title: "CartPole-v1".into(),
///     x_label: "environment steps".into(),
///     y_label: "episode return".into(),
///     series: vec![Series { name: "PPO".into(), band, runs: runs.to_vec() }],
///     threshold: Some(475.0),
/// };
/// let svg = learning_curves(&[panel], &PlotOptions::default())?;
/// assert!(svg.starts_with("<svg ") && svg.contains(">PPO</text>"));
/// # Ok::<(), cordada_stats::Error>(())
/// ```
pub fn learning_curves(panels: &[Panel], options: &PlotOptions) -> Result<String, Error> {
    if panels.is_empty() {
        return Err(Error::Empty { what: "panels" });
    }
    let names = Names::collect(panels, &options.names)?;
    let layout = Layout::new(panels, options, &names)?;
    let label = if options.title.is_empty() {
        let titles: Vec<&str> = panels.iter().map(|panel| panel.title.as_str()).collect();
        format!("Learning curves: {}", titles.join(", "))
    } else {
        options.title.clone()
    };
    let mut svg = Svg::new(layout.width, layout.height, &label);
    if !options.title.is_empty() {
        svg.text(layout.margin, layout.title_y, &options.title, Text::bold(16.0));
    }
    legend(&mut svg, &layout, &names, panels);
    for (index, panel) in panels.iter().enumerate() {
        panel::draw(&mut svg, panel, &layout.panel(index), &names);
    }
    for (line, y) in layout.caption() {
        svg.text(layout.margin, y, line, Text::quiet(layout::CAPTION));
    }
    Ok(svg.finish())
}

/// Every name with a piece of its line, in columns of equal width.
fn legend(svg: &mut Svg, layout: &Layout, names: &Names, panels: &[Panel]) {
    svg.open_group("legend");
    for (index, (name, style)) in names.shown().enumerate() {
        let (x, y) = layout.legend_item(index);
        style.draw(svg, &format!("M{x:.1} {:.1}h26", y - 4.0), 2.2);
        svg.text(x + 33.0, y, name, Text::plain(12.0));
    }
    if panels.iter().any(|panel| panel.threshold.is_some()) {
        let (x, y) = layout.legend_item(names.shown().count());
        svg.line((x, y - 4.0), (x + 26.0, y - 4.0), panel::THRESHOLD);
        svg.text(x + 33.0, y, THRESHOLD_NAME, Text::plain(12.0));
    }
    svg.close_group();
}

/// The legend's word for a panel's threshold.
const THRESHOLD_NAME: &str = "threshold";

#[cfg(test)]
mod tests;
