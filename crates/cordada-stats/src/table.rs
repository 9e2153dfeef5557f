//! Plain Markdown tables whose source is aligned too, and numbers with as many digits as they
//! deserve.

use std::fmt;

use crate::bootstrap::Interval;
use crate::error::Error;

/// On which side the cells of a column stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// A table, shown as Markdown by `to_string`.
///
/// Columns are padded by counting characters, so wide ones (Chinese, emoji) shift the source's
/// columns, not the rendered table. `|` and line breaks in cells are escaped.
///
/// # Examples
///
/// ```
/// use cordada_stats::{Align, Table};
///
/// let mut table = Table::new(&[("algorithm", Align::Left), ("IQM", Align::Right)]);
/// table.push(["PPO", "487.2 [470.1, 500.0]"])?;
/// table.push(["REINFORCE", "91.4 [60.2, 130.9]"])?;
/// assert_eq!(
///     table.to_string(),
///     "| algorithm |                  IQM |\n\
///      | :-------- | -------------------: |\n\
///      | PPO       | 487.2 [470.1, 500.0] |\n\
///      | REINFORCE |   91.4 [60.2, 130.9] |\n"
/// );
/// # Ok::<(), cordada_stats::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|&(name, align)| (escape(name), align)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// [`Error::Ragged`] if it does not have one cell per column.
    pub fn push<C: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = C>) -> Result<(), Error> {
        let cells: Vec<String> = cells.into_iter().map(|cell| escape(cell.as_ref())).collect();
        if cells.len() != self.columns.len() {
            let (row, expected, got) = (self.rows.len(), self.columns.len(), cells.len());
            return Err(Error::Ragged { row, expected, got });
        }
        self.rows.push(cells);
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            // Three is the least that a rule such as `--:` needs.
            cells.chain([self.columns[column].0.chars().count(), 3]).max().unwrap_or(3)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |f: &mut fmt::Formatter<'_>, cells: &mut dyn Iterator<Item = &str>| {
            for ((cell, &width), (_, align)) in cells.zip(&widths).zip(&self.columns) {
                match align {
                    Align::Left => write!(f, "| {cell:<width$} ")?,
                    Align::Right => write!(f, "| {cell:>width$} ")?,
                }
            }
            writeln!(f, "|")
        };
        line(f, &mut self.columns.iter().map(|(name, _)| name.as_str()))?;
        let rules: Vec<String> = widths.iter().zip(&self.columns).map(rule).collect();
        line(f, &mut rules.iter().map(String::as_str))?;
        for row in &self.rows {
            line(f, &mut row.iter().map(String::as_str))?;
        }
        Ok(())
    }
}

fn rule((&width, (_, align)): (&usize, &(String, Align))) -> String {
    let dashes = "-".repeat(width - 1);
    match align {
        Align::Left => format!(":{dashes}"),
        Align::Right => format!("{dashes}:"),
    }
}

fn escape(cell: &str) -> String {
    cell.trim().replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// A number with four significant digits, or all those before the point: `487.2`, `0.01235`,
/// `1234568`, `1.235e-7`.
pub fn number(value: f64) -> String {
    fixed(value, 3 - magnitude(value))
}

/// An estimate with its interval, `487.2 [470.1, 500.0]`: as many decimals as make three
/// significant digits of the interval's width, since what is finer than that is noise.
pub fn interval(interval: &Interval) -> String {
    let Interval { point, low, high } = *interval;
    let width = high - low;
    let decimals =
        if width > 0.0 { 2 - magnitude(width) } else { 3 - magnitude(low.abs().max(point.abs())) };
    format!("{} [{}, {}]", fixed(point, decimals), fixed(low, decimals), fixed(high, decimals))
}

/// The exponent of the leading digit.
fn magnitude(value: f64) -> i32 {
    // Zero and what is not finite have no leading digit; one digit before the point is neutral.
    if value == 0.0 || !value.is_finite() { 0 } else { value.abs().log10().floor() as i32 }
}

/// A number with so many decimals, or with an exponent where that would be unreadable.
fn fixed(value: f64, decimals: i32) -> String {
    let size = value.abs();
    if size >= 1e12 || decimals > 8 {
        // From here on only the leading digits count.
        let digits = (decimals + magnitude(value)).clamp(0, 8) as usize;
        return if value == 0.0 { "0".to_owned() } else { format!("{value:.digits$e}") };
    }
    let text = format!("{value:.*}", decimals.max(0) as usize);
    // What rounds to zero is not negative.
    let is_zero = text.bytes().all(|b| matches!(b, b'-' | b'0' | b'.'));
    match text.strip_prefix('-') {
        Some(rest) if is_zero => rest.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_they_deserve() {
        let cases = [
            (487.1523, "487.2"),
            (1_234_567.8, "1234568"),
            (0.012_345_6, "0.01235"),
            (-99.96, "-99.96"),
            (0.0, "0.000"),
            (1.2344e-7, "1.234e-7"),
            (2.5e15, "2.500e15"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
        ];
        for (value, want) in cases {
            assert_eq!(number(value), want, "{value}");
        }
    }

    #[test]
    fn the_width_of_an_interval_decides_its_digits() {
        let show = |point, low, high| interval(&Interval { point, low, high });
        assert_eq!(show(487.23, 470.11, 500.0), "487.2 [470.1, 500.0]");
        assert_eq!(show(0.91234, 0.85, 0.951), "0.912 [0.850, 0.951]");
        assert_eq!(show(-1203.4, -1402.2, -1003.9), "-1203 [-1402, -1004]");
        assert_eq!(show(-0.001, -0.4, 0.4), "-0.001 [-0.400, 0.400]");
        assert_eq!(show(-0.0001, -0.4, 0.4), "0.000 [-0.400, 0.400]");
        assert_eq!(show(500.0, 500.0, 500.0), "500.0 [500.0, 500.0]");
        assert_eq!(show(2.5e-9, 1.0e-9, 4.0e-9), "2.50e-9 [1.00e-9, 4.00e-9]");
    }

    #[test]
    fn cells_cannot_break_the_table() {
        let mut table = Table::new(&[("a|b", Align::Left), ("n", Align::Right)]);
        table.push(["x|y\nz", "1"]).unwrap();
        let text = table.to_string();
        assert_eq!(
            text,
            "| a\\|b   |   n |\n\
             | :----- | --: |\n\
             | x\\|y z |   1 |\n"
        );
        assert_eq!(table.push(["one"]), Err(Error::Ragged { row: 1, expected: 2, got: 1 }));
        assert_eq!(table.to_string(), text);
    }
}
