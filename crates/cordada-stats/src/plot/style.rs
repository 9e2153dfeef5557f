//! Which color and dash a name has.

use super::Panel;
use super::svg::Svg;
use crate::error::Error;

/// The colors of Okabe and Ito (2008), which readers with any color vision tell apart, without
/// yellow, which is illegible on white, and with gray for black, which is the text's.
const COLORS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d"];

/// Dashes; each is used with all colors before the next one is.
const DASHES: [&str; 4] = ["", "7 3", "2 2.5", "9 2.5 2 2.5"];

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) color: &'static str,
    pub(super) dash: &'static str,
}

impl Style {
    /// The style of the name with this index.
    fn new(index: usize) -> Self {
        Self { color: COLORS[index % COLORS.len()], dash: DASHES[index / COLORS.len()] }
    }

    /// Draws a path as a line of this style.
    pub(super) fn draw(self, svg: &mut Svg, d: &str, width: f64) {
        let dash = match self.dash {
            "" => String::new(),
            dash => format!(" stroke-dasharray=\"{dash}\""),
        };
        svg.path(d, &format!("stroke=\"{}\" stroke-width=\"{width}\"{dash}", self.color));
    }
}

/// All names of a plot; a name's place decides its style.
#[derive(Debug)]
pub(super) struct Names {
    names: Vec<String>,
    is_shown: Vec<bool>,
}

impl Names {
    /// The listed names, then those of the panels in the order of their first appearance.
    pub(super) fn collect(panels: &[Panel], listed: &[String]) -> Result<Self, Error> {
        let mut names: Vec<String> = Vec::new();
        let of_panels = panels.iter().flat_map(|panel| &panel.series).map(|series| &series.name);
        for name in listed.iter().chain(of_panels.clone()) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let most = COLORS.len() * DASHES.len();
        if names.len() > most {
            return Err(Error::TooManyNames { count: names.len(), most });
        }
        let is_shown = names.iter().map(|name| of_panels.clone().any(|n| n == name)).collect();
        Ok(Self { names, is_shown })
    }

    /// The names that a panel has, with their styles.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&str, Style)> {
        let styles = (0..).map(Style::new);
        let all = self.names.iter().zip(styles).zip(&self.is_shown);
        all.filter(|&(_, shown)| *shown).map(|((name, style), _)| (name.as_str(), style))
    }

    /// The style of a name of one of the panels.
    pub(super) fn style(&self, name: &str) -> Style {
        let index = self.names.iter().position(|n| n == name);
        Style::new(index.expect("names were collected from the same panels"))
    }
}
