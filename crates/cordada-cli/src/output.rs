//! Everything that is printed: the one module that writes to stdout and stderr. A reader that went
//! away (`cordada list envs | head -1`) is no error.

#![allow(clippy::unused_self, reason = "callers print through one value, whatever a line needs")]

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ColorChoice;
use cordada::log::{Event, Sink, TerminalOptions};
use serde::Serialize;

use crate::args::Global;

/// Width where none is known. Unit: columns.
const DEFAULT_COLUMNS: usize = 80;
/// Text is not set wider than this, to stay readable. Unit: columns.
const MAX_COLUMNS: usize = 100;

/// How and where the program prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON on stdout instead of text.
    pub(crate) json: bool,
    /// No progress.
    pub(crate) quiet: bool,
    color: ColorChoice,
}

/// Set once stdout has no reader any more.
static CLOSED: AtomicBool = AtomicBool::new(false);

impl Output {
    pub(crate) fn new(global: Global) -> Self {
        Self { json: global.json, quiet: global.quiet, color: global.color }
    }

    /// A line of text to stdout; what a command is asked for.
    pub(crate) fn line(self, text: impl AsRef<str>) {
        write_stdout(text.as_ref());
    }

    /// A part of a line of text to stdout, shown at once.
    pub(crate) fn part(self, text: &str) {
        write_part(text);
    }

    /// The beginning of a line that the user goes on with, to stderr.
    pub(crate) fn prompt(self, text: &str) {
        let mut stderr = io::stderr().lock();
        // Nobody is left to tell if stderr is gone.
        let _ = write!(stderr, "{text}").and_then(|()| stderr.flush());
    }

    /// An object as a line of JSON to stdout.
    pub(crate) fn object(self, object: &impl Serialize) {
        write_stdout(
            &serde_json::to_string(object)
                .unwrap_or_else(|e| unreachable!("objects of plain values are JSON: {e}")),
        );
    }

    /// A line to stderr that is no result.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        // Nobody is left to tell if stderr is gone.
        let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
    }

    /// Whether progress is not wanted.
    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// A line of progress to stderr; `again`: the next one takes its place.
    pub(crate) fn progress(self, text: &str, again: bool) {
        let mut stderr = io::stderr().lock();
        let (start, end) = if self.stderr_is_terminal() {
            ("\r\x1b[K", if again { "" } else { "\n" })
        } else {
            ("", "\n")
        };
        let text: String = text.chars().take(self.columns().saturating_sub(1).max(20)).collect();
        // Nobody is left to tell if stderr is gone.
        let _ = write!(stderr, "{start}{text}{end}").and_then(|()| stderr.flush());
    }

    /// A warning to stderr.
    pub(crate) fn warning(self, text: &str) {
        self.note(format!("{} {text}", self.paint_stderr("33", "warning:")));
    }

    /// How progress is shown, on stderr.
    pub(crate) fn terminal(self) -> TerminalOptions {
        let detected = TerminalOptions::detect();
        let color = match self.color {
            ColorChoice::Always => true,
            ColorChoice::Auto => detected.color,
            ColorChoice::Never => false,
        };
        TerminalOptions { color, ..detected }
    }

    /// Whether stderr is a terminal, which shows what is typed into it.
    pub(crate) fn stderr_is_terminal(self) -> bool {
        io::stderr().is_terminal()
    }

    /// Text in bold on stdout, where there are colors.
    pub(crate) fn bold(self, text: &str) -> String {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let on = match self.color {
            ColorChoice::Always => true,
            ColorChoice::Auto => io::stdout().is_terminal() && !set("NO_COLOR") && !dumb,
            ColorChoice::Never => false,
        };
        if on { format!("\x1b[1m{text}\x1b[0m") } else { text.to_string() }
    }

    /// Text in a color on stderr, where there are colors.
    pub(crate) fn paint_stderr(self, code: &str, text: &str) -> String {
        if self.terminal().color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// Columns for text on stdout.
    pub(crate) fn columns(self) -> usize {
        let term = console::Term::stdout();
        let size = term.size_checked().map(|(_, columns)| usize::from(columns));
        size.unwrap_or(DEFAULT_COLUMNS).min(MAX_COLUMNS)
    }

    /// A table with a bold head. The last column is wrapped to the width that is left.
    pub(crate) fn table(self, head: &[&str], rows: &[Vec<String>]) {
        let last = head.len() - 1;
        let widths: Vec<usize> = (0..last)
            .map(|c| rows.iter().map(|row| width(&row[c])).chain([width(head[c])]).max())
            .map(|widest| widest.unwrap_or(0))
            .collect();
        let used: usize = widths.iter().map(|w| w + 2).sum();
        let room = self.columns().saturating_sub(used).max(20);
        let line = |cells: &[String]| -> String {
            let padded = cells[..last].iter().zip(&widths).map(|(cell, &w)| pad(cell, w) + "  ");
            let start: String = padded.collect();
            let wrapped = wrap(&cells[last], room);
            let indent = format!("\n{}", " ".repeat(used));
            (start + &wrapped.join(&indent)).trim_end().to_string()
        };
        let head: Vec<String> = head.iter().map(ToString::to_string).collect();
        self.line(self.bold(&line(&head)));
        for row in rows {
            self.line(line(row));
        }
    }
}

/// Whether stdout has lost its reader.
pub(crate) fn stdout_is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// One whole line at a time, so that threads do not mix theirs.
fn write_stdout(text: &str) {
    write_part(&format!("{text}\n"));
}

fn write_part(text: &str) {
    if stdout_is_closed() {
        return;
    }
    let mut stdout = io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        CLOSED.store(true, Ordering::Relaxed);
    }
}

/// Events as lines of JSON on stdout.
#[derive(Debug)]
pub(crate) struct JsonSink {
    output: Output,
    /// The run's seed, where several runs share stdout.
    seed: Option<u64>,
    /// Set when nobody reads any more.
    stop: &'static AtomicBool,
}

impl JsonSink {
    pub(crate) fn new(output: Output, stop: &'static AtomicBool) -> Self {
        Self { output, seed: None, stop }
    }

    /// Puts the run's seed on every line.
    pub(crate) fn with_seed(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }
}

impl Sink for JsonSink {
    fn record(&mut self, event: &Event) -> Result<(), cordada::log::Error> {
        #[derive(Serialize)]
        struct Seeded<'a> {
            #[serde(flatten)]
            event: &'a Event,
            seed: u64,
        }
        match self.seed.filter(|_| !matches!(event, Event::Start { .. })) {
            Some(seed) => self.output.object(&Seeded { event, seed }),
            None => self.output.object(event),
        }
        if stdout_is_closed() {
            self.stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), cordada::log::Error> {
        Ok(())
    }
}

/// Columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

/// The text with spaces up to `columns`.
pub(crate) fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// The text in lines of at most `columns`, broken at spaces; at least one line.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if lines[last].is_empty() {
            lines[last].push_str(word);
        } else if width(&lines[last]) + 1 + width(word) <= columns {
            lines[last].push(' ');
            lines[last].push_str(word);
        } else {
            lines.push(word.to_string());
        }
    }
    lines
}

/// A count with its thousands apart: `1,234,567`.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count in few characters: `990`, `100k`, `1.5M`.
pub(crate) fn short(count: f64) -> String {
    let (value, unit) = match count.abs() {
        x if x >= 999_500.0 => (count / 1e6, "M"),
        x if x >= 1000.0 => (count / 1e3, "k"),
        _ => (count, ""),
    };
    let text = if value.abs() < 99.95 && !unit.is_empty() {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    };
    format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_spaces() {
        assert_eq!(wrap("ab cd efg h", 5), ["ab cd", "efg h"]);
        assert_eq!(wrap("ab cdef", 6), ["ab", "cdef"]);
        assert_eq!(wrap("abcdefg h", 3), ["abcdefg", "h"], "a long word stays whole");
        assert_eq!(wrap("", 3), [""]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            (grouped(7), grouped(1234), grouped(1_234_567)),
            ("7".into(), "1,234".into(), "1,234,567".into())
        );
        for (count, text) in [
            (990.0, "990"),
            (100_000.0, "100k"),
            (1_500_000.0, "1.5M"),
            (12_340.0, "12.3k"),
            (999_700.0, "1M"),
        ] {
            assert_eq!(short(count), text);
        }
    }
}
