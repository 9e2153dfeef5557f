//! Writes SVG elements. All styles are attributes, none is a style sheet, so that several plots can
//! stand in one HTML page without touching it or each other.

use std::fmt::Write;

/// Fonts of about Arial's widths, which [`text_width`] estimates.
const FONTS: &str = "Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif";

/// Side of a text that its position is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    pub(super) size: f64,
    pub(super) color: &'static str,
    pub(super) is_bold: bool,
    pub(super) anchor: Anchor,
}

impl Text {
    pub(super) fn plain(size: f64) -> Self {
        Self { size, color: "#222222", is_bold: false, anchor: Anchor::Start }
    }

    pub(super) fn bold(size: f64) -> Self {
        Self { is_bold: true, ..Self::plain(size) }
    }

    /// Gray of which the contrast with white is still 6 to 1.
    pub(super) fn quiet(size: f64) -> Self {
        Self { color: "#5f5f5f", ..Self::plain(size) }
    }

    pub(super) fn at(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }
}

/// An SVG document in the making.
#[derive(Debug)]
pub(super) struct Svg {
    out: String,
}

impl Svg {
    /// A white page; `label` is what it shows, for those who cannot see it.
    pub(super) fn new(width: f64, height: f64, label: &str) -> Self {
        let out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{}\" \
             font-family=\"{FONTS}\" fill=\"none\" stroke-linejoin=\"round\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
            escape(label)
        );
        Self { out }
    }

    /// Begins a group; browsers show its name where the pointer is on it.
    pub(super) fn open_group(&mut self, name: &str) {
        let _ = writeln!(self.out, "<g><title>{}</title>", escape(name));
    }

    pub(super) fn close_group(&mut self) {
        self.out.push_str("</g>\n");
    }

    /// A path with attributes that are already escaped.
    pub(super) fn path(&mut self, d: &str, attributes: &str) {
        let _ = writeln!(self.out, "<path d=\"{d}\" {attributes}/>");
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), attributes: &str) {
        let d = format!("M{} {}L{} {}", px(from.0), px(from.1), px(to.0), px(to.1));
        self.path(&d, attributes);
    }

    /// A text whose baseline is at `y`.
    pub(super) fn text(&mut self, x: f64, y: f64, text: &str, style: Text) {
        let anchor = match style.anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let weight = if style.is_bold { " font-weight=\"600\"" } else { "" };
        let _ = writeln!(
            self.out,
            "<text x=\"{}\" y=\"{}\" font-size=\"{}\" fill=\"{}\"{weight}{anchor}>{}</text>",
            px(x),
            px(y),
            style.size,
            style.color,
            escape(text)
        );
    }

    pub(super) fn finish(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }
}

/// A coordinate, as short as a tenth of a px allows.
pub(super) fn px(coordinate: f64) -> String {
    let text = format!("{coordinate:.1}");
    match text.strip_suffix(".0") {
        Some("-0") => "0".to_owned(),
        Some(whole) => whole.to_owned(),
        None => text,
    }
}

/// A path through points.
pub(super) fn polyline(points: impl IntoIterator<Item = (f64, f64)>) -> String {
    let mut d = String::new();
    for (x, y) in points {
        let command = if d.is_empty() { 'M' } else { 'L' };
        let _ = write!(d, "{command}{} {}", px(x), px(y));
    }
    d
}

/// Text for element content and attributes. Characters that no XML may contain are left out.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push(' '),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

/// The width of a text in px, a little more than in Arial, since the reader's font may differ.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    let ems = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.28,
        'f' | 't' | 'r' | ' ' | '-' | '(' | ')' | '[' | ']' | '/' | '1' => 0.4,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.9,
        'A'..='Z' => 0.7,
        // East Asian characters and symbols fill their square.
        c if c as u32 >= 0x2e80 => 1.0,
        _ => 0.56,
    };
    1.06 * size * text.chars().map(ems).sum::<f64>()
}

/// The text in lines that fit the width, broken between words.
pub(super) fn wrap(text: &str, size: f64, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if text_width(line, size) + text_width(word, size) + 0.5 * size <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
