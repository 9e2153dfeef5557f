//! The tag `{% generation %}`: marks which part of a rendered conversation the assistant wrote.
//!
//! The engine does not know the tag. It is rewritten to a filter block, which keeps the rules for
//! white space around block tags; the filter puts marks around the text, which are taken out
//! again after rendering.

use std::ops::Range;

/// Name of the filter that the tag becomes.
pub(super) const FILTER: &str = "cordada_generation";

/// The template with `{% generation %}` as `{% filter … %}`, or `None` if it has no such tag.
///
/// Text between `{% raw %}` and `{% endraw %}`, comments and strings are left alone.
pub(super) fn rewrite(source: &str) -> Option<String> {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let (mut found, mut raw) = (false, false);
    while let Some(start) = rest.find('{') {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let opening = tag.as_bytes().get(1).copied();
        if raw && opening != Some(b'%') {
            out.push('{');
            rest = &tag[1..];
            continue;
        }
        let end = match opening {
            Some(b'#') => tag.find("#}").map(|i| i + 2),
            Some(b'{') => tag_end(tag, "}}"),
            Some(b'%') if raw => tag.find("%}").map(|i| i + 2),
            Some(b'%') => tag_end(tag, "%}"),
            _ => Some(1),
        };
        // An unclosed tag is the engine's to complain about.
        let Some(end) = end else { break };
        let (tag, after) = tag.split_at(end);
        let name = if opening == Some(b'%') { tag_name(tag) } else { "" };
        match name {
            "raw" => raw = true,
            "endraw" => raw = false,
            _ => {}
        }
        match name {
            "generation" if !raw => {
                found = true;
                out.push_str(&tag.replacen("generation", &format!("filter {FILTER}"), 1));
            }
            "endgeneration" if !raw => {
                out.push_str(&tag.replacen("endgeneration", "endfilter", 1));
            }
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(if found { rest } else { "" });
    found.then_some(out)
}

fn tag_name(tag: &str) -> &str {
    let inner = tag[2..].trim_start_matches(['-', '+']).trim_start();
    let len = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inner.len());
    &inner[..len]
}

/// Length of the tag that `text` starts with, up to and with `close`; strings inside do not end it.
fn tag_end(text: &str, close: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut i, mut quote, mut depth) = (2, None, 0_usize);
    while i < bytes.len() {
        if let Some(q) = quote {
            match bytes[i] {
                b'\\' => i += 1,
                b if b == q => quote = None,
                _ => {}
            }
        } else if depth == 0 && bytes[i..].starts_with(close.as_bytes()) {
            return Some(i + close.len());
        } else {
            match bytes[i] {
                b @ (b'\'' | b'"') => quote = Some(b),
                b'{' => depth += 1,
                b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        i += 1;
    }
    None
}

/// A mark that does not occur in `text`.
pub(super) fn mark_for(text: &str) -> String {
    let mut n = 0_usize;
    loop {
        let mark = format!("\u{1}{n}\u{1}");
        if !text.contains(&mark) {
            return mark;
        }
        n += 1;
    }
}

/// Takes the marks out of a rendered text: the text, and the byte ranges that lay between the
/// first and second, third and fourth, … mark.
pub(super) fn take_out(marked: &str, mark: &str) -> (String, Vec<Range<usize>>) {
    let (mut text, mut edges) = (String::with_capacity(marked.len()), Vec::new());
    for (i, part) in marked.split(mark).enumerate() {
        if i > 0 {
            edges.push(text.len());
        }
        text.push_str(part);
    }
    (text, edges.as_chunks::<2>().0.iter().map(|&[start, end]| start..end).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tag_itself_is_rewritten() {
        assert_eq!(
            rewrite("a{%- generation -%}b{% endgeneration +%}c").as_deref(),
            Some("a{%- filter cordada_generation -%}b{% endfilter +%}c")
        );
        let others = [
            "plain { text }",
            "{{ '{% generation %}' }}",
            "{# {% generation %} #}",
            "{% raw %}{% generation %}{{ {% endraw %}",
            "{% set generation = 1 %}",
            "{% if x == '%}{% generation %}' %}{% endif %}",
        ];
        for source in others {
            assert_eq!(rewrite(source), None, "{source}");
        }
        // Braces of an expression do not end it early.
        let source = "{{ {'a': {'b': 1}} }}{% generation %}{% endgeneration %} tail";
        assert!(rewrite(source).is_some_and(|s| s.ends_with("{% endfilter %} tail")));
    }

    #[test]
    fn marks_give_back_text_and_ranges() {
        let mark = mark_for("has \u{1}0\u{1} in it");
        assert_eq!(mark, "\u{1}1\u{1}");
        let marked = format!("ab{mark}cd{mark}e{mark}{mark}f");
        assert_eq!(take_out(&marked, &mark), ("abcdef".to_string(), vec![2..4, 5..5]));
    }
}
