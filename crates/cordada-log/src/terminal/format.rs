//! Numbers, times and small drawings as short texts. Pure functions; what goes on a line is decided
//! in `line.rs`.

/// The characters that drawings are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbols {
    /// The done and the remaining part of a bar.
    pub(super) bar: [char; 2],
    /// Levels of a sparkline, lowest first.
    pub(super) levels: [char; 8],
    pub(super) arrow: &'static str,
    pub(super) ellipsis: &'static str,
}

/// For terminals that show Unicode.
pub(super) const UNICODE: Symbols = Symbols {
    bar: ['━', '─'],
    levels: ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
    arrow: "→",
    ellipsis: "…",
};

/// For all others.
pub(super) const ASCII: Symbols = Symbols {
    bar: ['#', '-'],
    levels: ['_', '.', '-', '~', '=', '+', '*', '#'],
    arrow: "->",
    ellipsis: "...",
};

/// A count or a rate with three significant digits: `850`, `2.05k`, `100k`, `1M`.
pub(super) fn count(number: f64) -> String {
    let mut scaled = number;
    for unit in ["", "k", "M", "G"] {
        // The limits are where rounding would show a fourth digit.
        if scaled < 999.5 || unit == "G" {
            let digits = match scaled {
                x if x.fract() == 0.0 || x >= 99.95 => 0,
                x if x >= 9.995 => 1,
                _ => 2,
            };
            return format!("{scaled:.digits$}{unit}");
        }
        scaled /= 1000.0;
    }
    unreachable!("the last unit takes every number")
}

/// A measured value with about four significant digits: `187.3`, `0.009`, `-12340`, `1.23e6`.
pub(super) fn value(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        x if x < 0.000_95 => format!("{number:.1e}"),
        x if x < 0.9995 => format!("{number:.3}"),
        x if x < 9.995 => format!("{number:.2}"),
        x if x < 999.95 => format!("{number:.1}"),
        x if x < 999_999.5 => format!("{number:.0}"),
        _ => format!("{number:.2e}"),
    }
}

/// A time in at most two units: `3s`, `1m05s`, `2h03m`, `3d04h`. Unit of the argument: seconds.
pub(super) fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A bar of `width` characters of which the share `done`, in [0, 1], is filled.
pub(super) fn bar(done: f64, width: usize, symbols: Symbols) -> String {
    // Rounded down: a full bar means that nothing remains.
    let full = ((done * width as f64) as usize).min(width);
    let part = |symbol: char, length| std::iter::repeat_n(symbol, length);
    part(symbols.bar[0], full).chain(part(symbols.bar[1], width - full)).collect()
}

/// One character per value, scaled from the lowest to the highest of them. Equal values stand at
/// half height.
pub(super) fn sparkline(values: &[f64], symbols: Symbols) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let top = (symbols.levels.len() - 1) as f64;
    let level = |value: f64| {
        let share = if high > low { (value - low) / (high - low) } else { 0.5 };
        symbols.levels[(share * top).round() as usize]
    };
    values.iter().map(|&value| level(value)).collect()
}

/// Number of columns a text takes. All texts here consist of characters one column wide; names that
/// users choose may not, and are then cut a little too late.
pub(super) fn width(text: &str) -> usize {
    text.chars().count()
}

/// The text, cut to `columns` with an ellipsis at the end.
pub(super) fn truncate(text: &str, columns: usize, symbols: Symbols) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let kept = columns.saturating_sub(width(symbols.ellipsis));
    text.chars().take(kept).chain(symbols.ellipsis.chars()).take(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_three_digits() {
        let expected = [
            (0.0, "0"),
            (0.25, "0.25"),
            (7.0, "7"),
            (850.4, "850"),
            (999.4, "999"),
            (999.6, "1.00k"),
            (2048.0, "2.05k"),
            (9_996.0, "10.0k"),
            (42_016.0, "42.0k"),
            (99_970.0, "100k"),
            (100_000.0, "100k"),
            (999_499.0, "999k"),
            (999_500.0, "1.00M"),
            (1_000_000.0, "1M"),
            (1_500_000.0, "1.50M"),
            (2.5e9, "2.50G"),
            (1.25e13, "12500G"),
        ];
        for (number, text) in expected {
            assert_eq!(count(number), text, "{number}");
        }
    }

    #[test]
    fn values_have_their_digits() {
        let expected = [
            (0.0, "0"),
            (0.000_02, "2.0e-5"),
            (0.0091, "0.009"),
            (-0.5512, "-0.551"),
            (0.9996, "1.00"),
            (2.0 / 3.0 * 10.0, "6.67"),
            (9.996, "10.0"),
            (187.345, "187.3"),
            (-999.96, "-1000"),
            (12_340.4, "12340"),
            (999_999.7, "1.00e6"),
            (-1.234_5e6, "-1.23e6"),
        ];
        for (number, text) in expected {
            assert_eq!(value(number), text, "{number}");
        }
    }

    #[test]
    fn times_have_two_units() {
        let expected = [
            (-1.0, "0s"),
            (0.4, "0s"),
            (59.4, "59s"),
            (59.6, "1m00s"),
            (65.0, "1m05s"),
            (3599.6, "1h00m"),
            (7380.0, "2h03m"),
            (86_400.0 * 3.0 + 3600.0 * 4.5, "3d04h"),
        ];
        for (seconds, text) in expected {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn bars_fill_from_the_left() {
        assert_eq!(bar(0.0, 8, UNICODE), "────────");
        // 0.42 · 8 = 3.36.
        assert_eq!(bar(0.42, 8, UNICODE), "━━━─────");
        assert_eq!(bar(0.999, 8, ASCII), "#######-");
        assert_eq!(bar(1.0, 8, ASCII), "########");
    }

    #[test]
    fn sparklines_span_the_range() {
        let rising: Vec<f64> = (0..8).map(f64::from).collect();
        assert_eq!(sparkline(&rising, UNICODE), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&rising, ASCII), "_.-~=+*#");
        // (−5 + 10)/10 · 7 = 3.5, which rounds to level 4.
        assert_eq!(sparkline(&[-10.0, -5.0, 0.0], UNICODE), "▁▅█");
        assert_eq!(sparkline(&[3.0, 3.0], UNICODE), "▅▅");
        assert_eq!(sparkline(&[], UNICODE), "");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(truncate("abcdef", 6, UNICODE), "abcdef");
        assert_eq!(truncate("abcdef", 5, UNICODE), "abcd…");
        assert_eq!(truncate("abcdef", 5, ASCII), "ab...");
        assert_eq!(truncate("abcdef", 2, ASCII), "..");
        assert_eq!(width("▁→…"), 3);
    }
}
