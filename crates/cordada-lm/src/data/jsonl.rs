//! Examples from JSONL: one JSON object a line. Every problem names file, line and field.
//!
//! | fields | what it is |
//! |---|---|
//! | `prompt`, `completion` | a prompt (text or list of messages) with the answer to learn |
//! | `prompt`, anything else (`answer`) | a prompt, with what rewards need to judge answers |
//! | `messages` | a conversation; the assistant's messages are what is learned |
//! | `text` | text alone, all of it learned |

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use super::lines::{LineEnd, read_line};
use super::{Example, Prompt, kind};
use crate::Error;
use crate::chat::{self, Message};
use crate::folder::{file_error, io_error};

/// Longest line in bytes: a novel is about a megabyte.
const MAX_LINE: usize = 64 << 20;

/// Reads the examples of a JSONL file; empty lines are left out.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read; [`Error::File`] naming the line and the field that is
/// wrong, or an empty file.
pub fn read_examples(path: &Path) -> Result<Vec<Example>, Error> {
    let file = File::open(path).map_err(|e| io_error(path, e))?;
    parse_examples(&mut BufReader::new(file), path)
}

/// Reads examples from what `path` names in messages, see [`read_examples`].
///
/// # Errors
///
/// As [`read_examples`].
pub fn parse_examples(reader: &mut impl BufRead, path: &Path) -> Result<Vec<Example>, Error> {
    let like = "{\"prompt\": \"…\", \"completion\": \"…\"}";
    parse_lines(reader, path, ("example", like), example)
}

/// Reads what the lines of a file hold; empty ones are left out. `what` a line holds, and how that
/// looks, are for messages.
pub(super) fn parse_lines<T>(
    reader: &mut impl BufRead,
    path: &Path,
    (what, like): (&str, &str),
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Error> {
    let mut items = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        let at = |problem: String| file_error(path, format!("line {number}: {problem}"));
        match read_line(reader, &mut line, MAX_LINE).map_err(|e| io_error(path, e))? {
            LineEnd::Input => break,
            LineEnd::TooLong => {
                return Err(at(format!(
                    "longer than {} MiB; one line must be one {what}, with line breaks inside \
                     texts written as \\n",
                    MAX_LINE >> 20
                )));
            }
            LineEnd::Whole => {}
        }
        // Some editors begin a file with a byte order mark.
        let bytes = match number {
            1 => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line),
            _ => &line,
        };
        let text = std::str::from_utf8(bytes).map_err(|e| {
            at(format!("byte {} is not UTF-8; save the file as UTF-8", e.valid_up_to() + 1))
        })?;
        if !text.trim().is_empty() {
            items.push(parse(text).map_err(at)?);
        }
    }
    if items.is_empty() {
        let problem = format!("holds no {what}; each line must be an object such as {like}");
        return Err(file_error(path, problem));
    }
    Ok(items)
}

/// The object of a line.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => {
            let found = kind(&other);
            Err(format!("is {found}; it must be an object {{\"prompt\": \"…\", …}}"))
        }
        Err(e) => {
            let message = e.to_string();
            let place = format!(" at line {} column {}", e.line(), e.column());
            let message = message.strip_suffix(&place).unwrap_or(&message);
            Err(format!("not JSON at column {}: {message}", e.column()))
        }
    }
}

/// Takes the prompt out of a line's fields: a text or a list of messages.
pub(super) fn take_prompt(fields: &mut Map<String, Value>, text: &str) -> Result<Prompt, String> {
    let given = |name: &str| fields.get(name).is_some_and(|v| !v.is_null());
    let prompt = match (given("prompt"), given("messages")) {
        (true, true) => {
            return Err("has both \"prompt\" and \"messages\"; keep one".to_string());
        }
        (true, false) if fields["prompt"].is_array() => conversation(text, "prompt")?,
        (true, false) => Prompt::Text(take_text(fields, "prompt", " or list of messages")?),
        (false, true) => conversation(text, "messages")?,
        (false, false) => return Err(no_prompt(fields)),
    };
    fields.remove("prompt");
    fields.remove("messages");
    Ok(prompt)
}

/// The example of a line, or what is wrong with it.
fn example(text: &str) -> Result<Example, String> {
    let mut fields = object(text)?;
    let given = |name: &str| fields.get(name).is_some_and(|v| !v.is_null());
    if given("text") && !given("prompt") && !given("messages") {
        if given("completion") {
            return Err("has \"text\" and \"completion\"; rename \"text\" to \"prompt\", or join \
                        both in \"text\""
                .to_string());
        }
        let completion = Some(take_text(&mut fields, "text", "")?);
        return Ok(Example { prompt: Prompt::Text(String::new()), completion, fields });
    }
    let prompt = take_prompt(&mut fields, text)?;
    let completion = completion(&mut fields)?;
    Ok(Example { prompt, completion, fields })
}

fn no_prompt(fields: &Map<String, Value>) -> String {
    let names: Vec<String> = fields.keys().map(|k| format!("{k:?}")).collect();
    let has = if names.is_empty() { "nothing".to_string() } else { names.join(", ") };
    format!(
        "has no \"prompt\", \"messages\" or \"text\", but {has}; rename the field that holds the \
         prompt to \"prompt\" and the one with the answer to learn to \"completion\""
    )
}

fn take_text(fields: &mut Map<String, Value>, name: &str, or: &str) -> Result<String, String> {
    match fields.remove(name) {
        Some(Value::String(text)) => Ok(text),
        other => {
            let found = other.as_ref().map_or("null", kind);
            Err(format!("field {name:?} is {found}; it must be a text{or}"))
        }
    }
}

/// A list of messages, read from the line's text so that the order of keys is kept for templates.
fn conversation(text: &str, name: &str) -> Result<Prompt, String> {
    let line = chat::value_from_json(text).map_err(|e| e.to_string())?;
    let list = line.get_attr(name).map_err(|e| e.to_string())?;
    let messages = Message::list_from_value(&list).map_err(|e| format!("field {name:?}: {e}"))?;
    if messages.is_empty() {
        return Err(format!("field {name:?} is an empty list; it needs at least one message"));
    }
    Ok(Prompt::Messages(messages))
}

/// The answer to learn: a text, or a list with one message of the assistant.
fn completion(fields: &mut Map<String, Value>) -> Result<Option<String>, String> {
    match fields.remove("completion") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Array(list)) => {
            let said = |m: &Value| {
                let assistant = m.get("role")?.as_str()? == "assistant";
                assistant.then(|| m.get("content")?.as_str().map(str::to_string)).flatten()
            };
            match &list[..] {
                [message] => said(message).map(Some),
                _ => None,
            }
            .ok_or_else(|| {
                "field \"completion\" must be a text or a list of one message \
                 {\"role\": \"assistant\", \"content\": \"…\"}; put longer exchanges into \
                 \"messages\""
                    .to_string()
            })
        }
        Some(other) => {
            let found = kind(&other);
            Err(format!("field \"completion\" is {found}; it must be a text"))
        }
    }
}
