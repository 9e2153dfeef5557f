//! How Python writes values: `json.dumps` for the filter `tojson` and `str` for `{{ … }}`. Chat
//! templates are written for Python, so their output has to be Python's, byte for byte. It does
//! not read anything.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Options of Python's `json.dumps`.
struct Json {
    /// What one level of indentation is; `None` keeps everything on one line.
    indent: Option<String>,
    item: String,
    key: String,
    sort: bool,
    ascii: bool,
}

/// The filter `tojson` as Hugging Face's renderer defines it: `json.dumps` with
/// `ensure_ascii=False`, hence without the HTML escapes of Jinja's own filter.
///
/// # Errors
///
/// If an option is unknown or the value holds what JSON has no form for.
pub(super) fn tojson(value: &Value, options: &Kwargs) -> Result<String, Error> {
    let indent = match options.get::<Option<Value>>("indent")? {
        None => None,
        Some(v) if v.is_none() => None,
        Some(v) => Some(match v.as_str() {
            Some(text) => text.to_string(),
            None => " ".repeat(usize::try_from(v)?),
        }),
    };
    let separators = options.get::<Option<Vec<String>>>("separators")?.unwrap_or_else(|| {
        // Python leaves out the space at the end of a line.
        let item = if indent.is_some() { "," } else { ", " };
        vec![item.to_string(), ": ".to_string()]
    });
    let [item, key] = <[String; 2]>::try_from(separators)
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, "tojson needs two separators"))?;
    let json = Json {
        indent,
        item,
        key,
        sort: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    let mut out = String::new();
    json.value(&mut out, value, 0)?;
    Ok(out)
}

impl Json {
    fn value(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => {
                out.push_str(&match number(value)? {
                    x if x == "nan" => "NaN".to_string(),
                    x if x.ends_with("inf") => x.replace("inf", "Infinity"),
                    x => x,
                });
            }
            ValueKind::String => self.string(out, &text(value)),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.group(out, ['[', ']'], items.len(), depth, |out, i| {
                    self.value(out, &items[i], depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort {
                    keys.sort();
                }
                self.group(out, ['{', '}'], keys.len(), depth, |out, i| {
                    self.string(out, &text(&keys[i]));
                    out.push_str(&self.key);
                    self.value(out, &value.get_item(&keys[i])?, depth + 1)
                })?;
            }
            kind => {
                let problem = format!("tojson cannot write a value of kind {kind}");
                return Err(Error::new(ErrorKind::InvalidOperation, problem));
            }
        }
        Ok(())
    }

    fn group(
        &self,
        out: &mut String,
        brackets: [char; 2],
        len: usize,
        depth: usize,
        mut item: impl FnMut(&mut String, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                out.push_str(&indent.repeat(depth));
            }
        };
        out.push(brackets[0]);
        for i in 0..len {
            if i > 0 {
                out.push_str(&self.item);
            }
            line(out, depth + 1);
            item(out, i)?;
        }
        if len > 0 {
            line(out, depth);
        }
        out.push(brackets[1]);
        Ok(())
    }

    fn string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| str(value), str::to_string)
}

/// Python's `str` of a value; nothing for an undefined one, as Jinja prints it.
pub(super) fn str(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::String => value.as_str().unwrap_or_default().to_string(),
        _ => repr(value),
    }
}

/// Python's `repr` of a value.
fn repr(value: &Value) -> String {
    let each = |f: &dyn Fn(Value) -> String| -> Vec<String> {
        value.try_iter().map(|items| items.map(f).collect()).unwrap_or_default()
    };
    match value.kind() {
        ValueKind::None => "None".into(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.into(),
        ValueKind::Number => number(value).unwrap_or_else(|_| value.to_string()),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => format!("[{}]", each(&|v| repr(&v)).join(", ")),
        ValueKind::Map if value.as_object().is_none_or(|o| o.enumerator_len().is_some()) => {
            let pair = |key: Value| {
                let item = value.get_item(&key).unwrap_or(Value::UNDEFINED);
                format!("{}: {}", repr(&key), repr(&item))
            };
            format!("{{{}}}", each(&pair).join(", "))
        }
        _ => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// Python's `repr` of an `int` or a `float`: shortest digits that read back the same, with an
/// exponent below 10⁻⁴ and from 10¹⁶ on.
fn number(value: &Value) -> Result<String, Error> {
    if value.is_integer() {
        return Ok(value.to_string());
    }
    let x = f64::try_from(value.clone())?;
    if x.is_nan() {
        return Ok("nan".into());
    }
    if x.is_infinite() {
        return Ok(if x > 0.0 { "inf" } else { "-inf" }.into());
    }
    if x == 0.0 || (1e-4..1e16).contains(&x.abs()) {
        let digits = x.to_string();
        return Ok(if digits.contains('.') { digits } else { digits + ".0" });
    }
    let digits = format!("{x:e}");
    let (mantissa, exponent) = digits.split_once('e').unwrap_or((&digits, "0"));
    let (sign, exponent) =
        exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    Ok(format!("{mantissa}e{sign}{exponent:0>2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        // From Python's documentation of repr: 1e16 is the first with an exponent.
        let cases = [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (-2.5e300, "-2.5e+300"),
            (f64::INFINITY, "inf"),
        ];
        for (x, want) in cases {
            assert_eq!(number(&Value::from(x)).unwrap(), want);
        }
        assert_eq!(number(&Value::from(7)).unwrap(), "7");
    }

    #[test]
    fn values_print_as_python_prints_them() {
        let list = Value::from(vec![
            Value::from(()),
            Value::from(true),
            Value::from("a\n"),
            Value::from("it's"),
            Value::from(0.5),
        ]);
        assert_eq!(str(&list), r#"[None, True, 'a\n', "it's", 0.5]"#);
        let map = Value::from_pairs([("b", Value::from(1)), ("a", Value::from("x"))]);
        assert_eq!(str(&map), "{'b': 1, 'a': 'x'}");
    }
}
