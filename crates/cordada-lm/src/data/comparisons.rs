//! What people prefer: several responses to a prompt with a ranking, from JSONL.
//!
//! | fields | what it is |
//! |---|---|
//! | `prompt` (or `messages`), `responses`, `ranking` | a ranking: lists of tied responses' numbers, the best first: `[[2], [0, 3], [1]]` |
//! | `prompt`, `chosen`, `rejected` | a pair |
//! | `chosen`, `rejected` | a pair of whole dialogues with the same beginning, as texts or as lists of messages |
//!
//! `margin` (how clear the judgement was, in units of the score), `weight` and `rater` may be given
//! with each. A response is a text, an object with a `text`, or a list with one message.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use super::jsonl::{object, parse_lines, take_prompt};
use super::{Example, Prompt, TokenizeOptions, Tokenized, kind, tokenize};
use crate::chat::{self, Message};
use crate::folder::io_error;
use crate::tokenizer::Tokenizer;
use crate::{Error, Group};

/// What ends the common part of two dialogues in one text, as Anthropic's HH data has them.
const ASSISTANT: &str = "\n\nAssistant:";

/// Responses to one prompt, and how somebody ranked them.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What they answer.
    pub prompt: Prompt,
    /// At least two.
    pub responses: Vec<String>,
    /// Place of each: a smaller one is better, equal ones are ties.
    pub places: Vec<usize>,
    /// Least distance of the scores that is wanted, of a pair.
    pub margin: f64,
    /// How much it counts.
    pub weight: f64,
    /// Who judged.
    pub rater: Option<String>,
}

/// A comparison as tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// The prompt with all responses. Only a token behind each response is scored, so that its
    /// state is that of the whole text.
    pub group: Group,
    /// As in [`Comparison`].
    pub places: Vec<usize>,
    /// As in [`Comparison`].
    pub margin: f64,
    /// As in [`Comparison`].
    pub weight: f64,
}

/// Reads the comparisons of a JSONL file.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read; [`Error::File`] naming the line and the field that is
/// wrong, or an empty file.
pub fn read_comparisons(path: &Path) -> Result<Vec<Comparison>, Error> {
    let file = File::open(path).map_err(|e| io_error(path, e))?;
    parse_comparisons(&mut BufReader::new(file), path)
}

/// Reads comparisons from what `path` names in messages, see [`read_comparisons`].
///
/// # Errors
///
/// As [`read_comparisons`].
pub fn parse_comparisons(reader: &mut impl BufRead, path: &Path) -> Result<Vec<Comparison>, Error> {
    let like = "{\"prompt\": \"…\", \"chosen\": \"…\", \"rejected\": \"…\"}";
    parse_lines(reader, path, ("comparison", like), comparison)
}

/// The comparison of a line, or what is wrong with it.
fn comparison(text: &str) -> Result<Comparison, String> {
    let mut fields = object(text)?;
    let number = |fields: &Map<String, Value>, name: &str, default: f64| match fields.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_f64()
            .filter(|x| *x >= 0.0)
            .ok_or_else(|| format!("field {name:?} is {value}; it must be a number of at least 0")),
    };
    let (margin, weight) = (number(&fields, "margin", 0.0)?, number(&fields, "weight", 1.0)?);
    let rater = fields.get("rater").and_then(Value::as_str).map(str::to_string);
    let (prompt, responses, places) = match (fields.contains_key("responses"), pair(&fields)) {
        (true, true) => {
            return Err("has both \"responses\" and \"chosen\"; keep one".to_string());
        }
        (true, false) => {
            let (responses, places) = ranking(&fields)?;
            (take_prompt(&mut fields, text)?, responses, places)
        }
        (false, true) => {
            let (prompt, responses) = chosen_and_rejected(&mut fields, text)?;
            (prompt, responses, vec![0, 1])
        }
        (false, false) => {
            return Err("has neither \"responses\" with a \"ranking\" nor \"chosen\" and \
                        \"rejected\""
                .to_string());
        }
    };
    Ok(Comparison { prompt, responses, places, margin, weight, rater })
}

fn pair(fields: &Map<String, Value>) -> bool {
    fields.contains_key("chosen") || fields.contains_key("rejected")
}

/// The responses that are ranked, and their places; others are left out.
fn ranking(fields: &Map<String, Value>) -> Result<(Vec<String>, Vec<usize>), String> {
    let list = fields["responses"].as_array().ok_or("field \"responses\" must be a list")?;
    let texts: Vec<String> = list
        .iter()
        .enumerate()
        .map(|(i, value)| response(value).ok_or_else(|| format!("response {i} has no text")))
        .collect::<Result<_, _>>()?;
    let wrong = "field \"ranking\" must be a list of lists of responses' numbers, the best first: \
                 [[2], [0, 3], [1]]";
    let groups = fields.get("ranking").and_then(Value::as_array).ok_or(wrong)?;
    let mut places = vec![None; texts.len()];
    for (place, tied) in groups.iter().enumerate() {
        for number in tied.as_array().ok_or(wrong)? {
            let i = number.as_u64().ok_or(wrong)? as usize;
            let known = texts.len();
            let slot = places
                .get_mut(i)
                .ok_or_else(|| format!("\"ranking\" names response {i} of {known}, from 0 on"))?;
            if slot.replace(place).is_some() {
                return Err(format!("\"ranking\" names response {i} twice"));
            }
        }
    }
    let ranked = texts.into_iter().zip(places).filter_map(|(text, place)| Some((text, place?)));
    let (responses, places): (Vec<_>, Vec<_>) = ranked.unzip();
    if responses.len() < 2 {
        return Err("\"ranking\" names fewer than two responses".to_string());
    }
    Ok((responses, places))
}

/// The text of a response.
fn response(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(object) => object.get("text")?.as_str().map(str::to_string),
        Value::Array(list) => match &list[..] {
            [message] => message.get("content")?.as_str().map(str::to_string),
            _ => None,
        },
        _ => None,
    }
}

/// The prompt of a pair, which may be what both dialogues begin with, and both answers.
fn chosen_and_rejected(
    fields: &mut Map<String, Value>,
    text: &str,
) -> Result<(Prompt, Vec<String>), String> {
    let get = |name: &str| match fields.get(name) {
        Some(value @ (Value::String(_) | Value::Array(_))) => Ok(value.clone()),
        other => {
            let found = other.map_or("missing", kind);
            Err(format!("field {name:?} is {found}; it must be a text or a list of messages"))
        }
    };
    let (chosen, rejected) = (get("chosen")?, get("rejected")?);
    if fields.contains_key("prompt") || fields.contains_key("messages") {
        let of = |value: &Value, name: &str| {
            response(value).ok_or_else(|| {
                format!("field {name:?} must hold one message, as the prompt is given")
            })
        };
        let responses = vec![of(&chosen, "chosen")?, of(&rejected, "rejected")?];
        return Ok((take_prompt(fields, text)?, responses));
    }
    match (&chosen, &rejected) {
        (Value::String(a), Value::String(b)) => {
            let at = common(a, b);
            let responses = vec![a[at..].to_string(), b[at..].to_string()];
            Ok((Prompt::Text(a[..at].to_string()), responses))
        }
        (Value::Array(a), Value::Array(b)) => dialogues(text, a, b),
        _ => Err("fields \"chosen\" and \"rejected\" must be of one kind".to_string()),
    }
}

/// Where the common beginning of two dialogues in text ends: behind the last time that the
/// assistant begins to speak in it, else before the word in which they differ.
fn common(a: &str, b: &str) -> usize {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    let same: usize = same.map(|(a, _)| a.len_utf8()).sum();
    match a[..same].rfind(ASSISTANT) {
        Some(at) => at + ASSISTANT.len(),
        None => a[..same].rfind(char::is_whitespace).unwrap_or(0),
    }
}

/// Two lists of messages that differ in the last one.
fn dialogues(text: &str, a: &[Value], b: &[Value]) -> Result<(Prompt, Vec<String>), String> {
    let wrong = "\"chosen\" and \"rejected\" must be the same messages up to the last one";
    let ((last_a, before_a), (last_b, before_b)) =
        a.split_last().zip(b.split_last()).ok_or(wrong)?;
    if before_a != before_b || before_a.is_empty() {
        return Err(wrong.to_string());
    }
    let said = |message: &Value| {
        message.get("content").and_then(Value::as_str).map(str::to_string).ok_or(wrong)
    };
    let responses = vec![said(last_a)?, said(last_b)?];
    let line = chat::value_from_json(text).map_err(|e| e.to_string())?;
    let list = line.get_attr("chosen").map_err(|e| e.to_string())?;
    let mut messages = Message::list_from_value(&list).map_err(|e| e.to_string())?;
    messages.pop();
    Ok((Prompt::Messages(messages), responses))
}

/// Comparisons as tokens; one of which a response is too long is left out.
///
/// # Errors
///
/// As [`tokenize_answers`](super::tokenize_answers).
pub fn tokenize_comparisons(
    tokenizer: &Tokenizer,
    comparisons: &[Comparison],
    options: &TokenizeOptions,
) -> Result<Tokenized<Ranked>, Error> {
    let mut out = Tokenized::new(comparisons.len());
    for (i, c) in comparisons.iter().enumerate() {
        let examples = c.responses.iter().map(|response| Example {
            prompt: c.prompt.clone(),
            completion: Some(response.clone()),
            fields: Map::new(),
        });
        let mut group = Group::default();
        let mut longest = 0;
        for example in examples {
            let (prompt, mut completion) = tokenize::whole_answer(tokenizer, &example, options, i)?;
            longest = longest.max(prompt.len() + completion.len());
            // Nothing depends on which token this is: its state is what is scored.
            let behind = completion.last().copied().unwrap_or(prompt[prompt.len() - 1]);
            completion.push(behind);
            let mut scored = vec![false; completion.len()];
            scored[completion.len() - 1] = true;
            group.prompt = prompt;
            group.completions.push(completion);
            group.scored.push(scored);
        }
        out.report.longest = out.report.longest.max(longest);
        if longest > options.max_tokens {
            out.report.dropped += 1;
            continue;
        }
        out.report.tokens += group.num_rows();
        out.report.scored += group.completions.len();
        let Comparison { places, margin, weight, .. } = c.clone();
        out.keep(i, Ranked { group, places, margin, weight });
    }
    out.check(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::{Sort, Task};

    fn read(text: &str) -> Result<Vec<Comparison>, String> {
        parse_comparisons(&mut text.as_bytes(), Path::new("c.jsonl")).map_err(|e| e.to_string())
    }

    #[test]
    fn rankings_with_ties_are_read() {
        let c = &read(
            "{\"prompt\": \"p\", \"responses\": [\"a\", {\"text\": \"b\"}, \"c\", \"d\"], \
             \"ranking\": [[2], [0, 3]], \"rater\": \"eve\", \"weight\": 0.5}",
        )
        .unwrap()[0];
        // The second one is not ranked.
        assert_eq!(
            (&c.responses[..], &c.places[..]),
            (&["a", "c", "d"].map(String::from)[..], &[1, 0, 1][..])
        );
        assert_eq!((c.rater.as_deref(), c.weight, c.margin), (Some("eve"), 0.5, 0.0));
    }

    #[test]
    fn pairs_are_read_with_and_without_their_prompt() {
        let lines = "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\", \"margin\": 2}\n\
            {\"chosen\": \"\\n\\nHuman: hi\\n\\nAssistant: hello\", \
             \"rejected\": \"\\n\\nHuman: hi\\n\\nAssistant: help\"}\n\
            {\"chosen\": \"one two three\", \"rejected\": \"one two four\"}\n\
            {\"chosen\": [{\"role\": \"user\", \"content\": \"q\"}, \
                          {\"role\": \"assistant\", \"content\": \"x\"}], \
             \"rejected\": [{\"role\": \"user\", \"content\": \"q\"}, \
                          {\"role\": \"assistant\", \"content\": \"y\"}]}";
        let all = read(lines).unwrap();
        let text = |c: &Comparison| match &c.prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Messages(m) => m[0].content().unwrap(),
        };
        let got: Vec<(String, [&str; 2])> =
            all.iter().map(|c| (text(c), [&c.responses[0][..], &c.responses[1][..]])).collect();
        let want = [
            ("p", ["a", "b"]),
            ("\n\nHuman: hi\n\nAssistant:", [" hello", " help"]),
            ("one two", [" three", " four"]),
            ("q", ["x", "y"]),
        ];
        assert_eq!(got, want.map(|(p, r)| (p.to_string(), r)));
        assert_eq!(all[0].margin, 2.0);
        assert!(all.iter().all(|c| c.places == [0, 1]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, says) in [
            ("{\"prompt\": \"p\"}", "line 1: has neither \"responses\""),
            ("{\"prompt\": \"p\", \"chosen\": \"a\"}", "field \"rejected\" is missing"),
            ("{\"prompt\": \"p\", \"responses\": [\"a\", \"b\"]}", "field \"ranking\" must be"),
            (
                "{\"prompt\": \"p\", \"responses\": [\"a\", \"b\"], \"ranking\": [[0], [2]]}",
                "names response 2 of 2",
            ),
            (
                "{\"prompt\": \"p\", \"responses\": [\"a\", \"b\"], \"ranking\": [[0], [0]]}",
                "names response 0 twice",
            ),
            (
                "{\"prompt\": \"p\", \"responses\": [\"a\", \"b\"], \"ranking\": [[0]]}",
                "fewer than two",
            ),
            ("{\"chosen\": \"a\", \"rejected\": \"b\", \"weight\": -1}", "field \"weight\" is -1"),
            ("{\"responses\": [\"a\", \"b\"], \"ranking\": [[0], [1]]}", "has no \"prompt\""),
            ("", "holds no comparison"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }

    #[test]
    fn the_state_of_a_whole_response_is_scored() {
        let tokenizer = Sort.tokenizer().unwrap();
        let end = tokenizer.special_id("eos_token").unwrap();
        let c = Comparison {
            prompt: Prompt::Text("sort 2 1 :".into()),
            responses: vec![" 1 2".into(), " 2".into()],
            places: vec![0, 1],
            margin: 0.0,
            weight: 1.0,
            rater: None,
        };
        let options = TokenizeOptions::new(32, &[end]);
        let one = std::slice::from_ref(&c);
        let ranked = &tokenize_comparisons(&tokenizer, one, &options).unwrap().items[0];
        // Four characters, the end, and what is behind it; all but the last are read.
        let g = &ranked.group;
        assert_eq!((g.completions[0].len(), g.completions[1].len()), (6, 4));
        assert_eq!(g.completions[0][4], end);
        assert_eq!((g.num_targets(), g.num_rows()), (2, 10 + 5 + 3));
        assert!(g.scored.iter().all(|s| s.iter().filter(|&&s| s).count() == 1 && s[s.len() - 1]));
        // One that is too long is left out, which is too much here.
        let short = TokenizeOptions::new(12, &[end]);
        let error = tokenize_comparisons(&tokenizer, one, &short).unwrap_err().to_string();
        assert!(error.contains("1 of 1 examples are left out"), "{error}");
    }
}
