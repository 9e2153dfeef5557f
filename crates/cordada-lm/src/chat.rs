//! Chat templates: a conversation becomes the text that a model was trained on.
//!
//! Templates are Jinja, as Hugging Face's renderer runs it: `trim_blocks` and `lstrip_blocks`,
//! loop controls, Python's string methods, `tojson` without HTML escapes, `raise_exception`,
//! `strftime_now` and `{% generation %}`. What the text becomes in tokens is the matter of
//! [`Tokenizer`](crate::tokenizer::Tokenizer).

mod generation;
mod python;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
pub use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, State};
use serde::Deserialize as _;

use crate::Error;

/// The template that a model's files hold for conversations without tools.
const DEFAULT: &str = "default";
/// The template for conversations with tools, where files hold several.
const TOOL_USE: &str = "tool_use";

/// One message of a conversation: a mapping with at least a role.
#[derive(Clone, Debug, PartialEq)]
pub struct Message(Value);

impl Message {
    /// A message with a role (`system`, `user`, `assistant`, `tool`) and a text.
    pub fn new(role: &str, content: &str) -> Self {
        Self(Value::from_pairs([("role", role), ("content", content)]))
    }

    /// Reads a conversation: a JSON list of objects, each with a `role`. Order and further fields
    /// (`tool_calls`, `reasoning_content`) are kept.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] naming the message that has no role, or the place where JSON breaks.
    pub fn list_from_json(json: &str) -> Result<Vec<Self>, Error> {
        Self::list_from_value(&value_from_json(json)?)
    }

    /// Takes a conversation from a value, see [`Message::list_from_json`].
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] naming the message that has no role.
    pub fn list_from_value(list: &Value) -> Result<Vec<Self>, Error> {
        let items = list.try_iter().map_err(|_| {
            Error::Setting("a conversation must be a JSON list of messages".to_string())
        })?;
        items
            .enumerate()
            .map(|(i, message)| match message.get_attr("role") {
                Ok(role) if role.as_str().is_some() => Ok(Self(message)),
                _ => Err(Error::Setting(format!(
                    "message {i} of the conversation has no text \"role\"; \
                     it must look like {{\"role\": \"user\", \"content\": \"…\"}}"
                ))),
            })
            .collect()
    }

    /// Who speaks.
    pub fn role(&self) -> String {
        self.field("role").unwrap_or_default()
    }

    /// What is said; `None` if the message has no text.
    pub fn content(&self) -> Option<String> {
        self.field("content")
    }

    fn field(&self, name: &str) -> Option<String> {
        self.0.get_attr(name).ok()?.as_str().map(str::to_string)
    }
}

/// A value for a template from JSON; the order of keys is kept.
///
/// # Errors
///
/// [`Error::Setting`] with the place where JSON breaks.
pub fn value_from_json(json: &str) -> Result<Value, Error> {
    let mut reader = serde_json::Deserializer::from_str(json);
    Value::deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|e| Error::Setting(format!("this is not JSON: {e}")))
}

/// A point in time for `strftime_now`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Seconds since 1970-01-01 00:00:00 UTC.
    pub unix_seconds: i64,
    /// Seconds that the local clock is ahead of UTC.
    pub utc_offset_seconds: i32,
}

/// What a conversation is rendered with besides its messages.
#[derive(Clone, Debug, Default)]
pub struct ChatOptions {
    /// Whether the text ends with the beginning of an assistant's message.
    pub add_generation_prompt: bool,
    /// Name of the template where files hold several; by default `tool_use` if there are tools
    /// and such a template, else `default`.
    pub template: Option<String>,
    /// Descriptions of tools, a list.
    pub tools: Option<Value>,
    /// Further variables: `enable_thinking`.
    pub variables: BTreeMap<String, Value>,
    /// What `strftime_now` calls now; by default the clock of this machine.
    pub clock: Option<Clock>,
}

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The whole text.
    pub text: String,
    /// Byte ranges of `text` inside `{% generation %}`: what the assistant wrote; `None` if the
    /// template has no such blocks.
    pub generated: Option<Vec<Range<usize>>>,
}

/// A model's chat templates, by name.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    sources: BTreeMap<String, String>,
    path: PathBuf,
    special_tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Takes one template; `path` is the file that it comes from, for messages.
    ///
    /// # Errors
    ///
    /// [`Error::File`] naming the line that is not Jinja.
    pub fn new(source: &str, path: &Path) -> Result<Self, Error> {
        Self::named([(DEFAULT.to_string(), source.to_string())], path)
    }

    /// Takes several templates, each with its name.
    ///
    /// # Errors
    ///
    /// [`Error::File`] naming the line that is not Jinja.
    pub fn named(
        sources: impl IntoIterator<Item = (String, String)>,
        path: &Path,
    ) -> Result<Self, Error> {
        let template = Self {
            sources: sources.into_iter().collect(),
            path: path.to_path_buf(),
            special_tokens: BTreeMap::new(),
        };
        for (name, source) in &template.sources {
            let source = generation::rewrite(source).unwrap_or_else(|| source.clone());
            environment(String::new(), None)
                .template_from_named_str(name, &source)
                .map_err(|e| template.problem(&e))?;
        }
        Ok(template)
    }

    /// Sets the variables `bos_token`, `eos_token`, … of all templates.
    #[must_use]
    pub fn with_special_tokens(mut self, tokens: BTreeMap<String, String>) -> Self {
        self.special_tokens = tokens;
        self
    }

    /// Names of the templates, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// Renders a conversation.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if there is no template of that name or the template rejects the
    /// conversation (`raise_exception`), with its reason; [`Error::File`] if the template fails,
    /// with the line.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<Rendered, Error> {
        let (name, source) = self.choose(options)?;
        let context = self.context(messages, options);
        let Some(rewritten) = generation::rewrite(source) else {
            let text = self.run(name, source, String::new(), &context, options)?;
            return Ok(Rendered { text, generated: None });
        };
        // The first pass shows which mark does not occur in the text.
        let text = self.run(name, &rewritten, String::new(), &context, options)?;
        let mark = generation::mark_for(&text);
        let marked = self.run(name, &rewritten, mark.clone(), &context, options)?;
        let (unmarked, generated) = generation::take_out(&marked, &mark);
        if unmarked != text {
            return Err(Error::File {
                path: self.path.clone(),
                problem: "the chat template changes text after {% endgeneration %}, so which part \
                          the assistant wrote is unknown; move the change into the block"
                    .to_string(),
            });
        }
        Ok(Rendered { text, generated: Some(generated) })
    }

    fn choose(&self, options: &ChatOptions) -> Result<(&String, &String), Error> {
        let name = match &options.template {
            Some(name) => name,
            None if options.tools.is_some() && self.sources.contains_key(TOOL_USE) => TOOL_USE,
            None => DEFAULT,
        };
        self.sources.get_key_value(name).ok_or_else(|| {
            let names: Vec<&str> = self.names().collect();
            Error::Setting(format!(
                "{} has no chat template {name:?}; it has: {}",
                self.path.display(),
                names.join(", ")
            ))
        })
    }

    fn context(&self, messages: &[Message], options: &ChatOptions) -> Value {
        let mut variables: BTreeMap<String, Value> = BTreeMap::new();
        variables.extend(self.special_tokens.iter().map(|(k, v)| (k.clone(), v.into())));
        let messages: Vec<Value> = messages.iter().map(|m| m.0.clone()).collect();
        variables.insert("messages".into(), messages.into());
        // Hugging Face passes these two as None, not as undefined.
        let tools = options.tools.clone().unwrap_or_else(|| ().into());
        variables.insert("tools".into(), tools);
        variables.insert("documents".into(), ().into());
        variables.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        variables.extend(options.variables.clone());
        Value::from_pairs(variables)
    }

    fn run(
        &self,
        name: &str,
        source: &str,
        mark: String,
        context: &Value,
        options: &ChatOptions,
    ) -> Result<String, Error> {
        let environment = environment(mark, options.clock);
        environment
            .template_from_named_str(name, source)
            .and_then(|template| template.render(context.clone()))
            .map_err(|e| self.problem(&e))
    }

    fn problem(&self, error: &minijinja::Error) -> Error {
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(e) = cause {
            if let Some(Rejection(reason)) = e.downcast_ref() {
                return Error::Setting(format!(
                    "the chat template of {} rejects the conversation: {reason}",
                    self.path.display()
                ));
            }
            cause = e.source();
        }
        let line = error.line().map_or_else(String::new, |line| format!(", line {line}"));
        let detail = error.detail().map_or_else(String::new, |detail| format!(": {detail}"));
        let problem = format!("chat template{line}: {}{detail}", error.kind());
        Error::File { path: self.path.clone(), problem }
    }
}

/// What a template said through `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Rejection(String);

/// The engine, set up as Hugging Face's renderer sets up Jinja.
fn environment<'s>(mark: String, clock: Option<Clock>) -> Environment<'s> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    if let Ok(syntax) = syntax.build() {
        environment.set_syntax(syntax);
    }
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_formatter(|out, _, value| {
        out.write_str(&python::str(value)).map_err(minijinja::Error::from)
    });
    environment.set_unknown_method_callback(unknown_method);
    environment
        .add_filter("tojson", |value: &Value, options: Kwargs| python::tojson(value, &options));
    environment.add_filter("string", |value: &Value| python::str(value));
    environment.add_filter(generation::FILTER, move |text: &str| format!("{mark}{text}{mark}"));
    environment.add_function("raise_exception", |reason: String| {
        let error = minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception");
        Err::<Value, _>(error.with_source(Rejection(reason)))
    });
    environment.add_function("strftime_now", move |format: &str| strftime(clock, format));
    environment
}

/// The methods of Python's values, with the few that the library lacks.
fn unknown_method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, minijinja::Error> {
    if let (Some(text), Some(arg)) = (value.as_str(), args.first().and_then(Value::as_str)) {
        match method {
            "removeprefix" => return Ok(text.strip_prefix(arg).unwrap_or(text).into()),
            "removesuffix" => return Ok(text.strip_suffix(arg).unwrap_or(text).into()),
            "partition" => {
                let (a, b, c) = text.split_once(arg).map_or((text, "", ""), |(a, c)| (a, arg, c));
                return Ok(Value::from_iter([a, b, c].map(Value::from)));
            }
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn strftime(clock: Option<Clock>, format: &str) -> Result<String, minijinja::Error> {
    let now = match clock {
        None => Ok(jiff::Zoned::now()),
        Some(clock) => jiff::Timestamp::from_second(clock.unix_seconds).and_then(|time| {
            let offset = jiff::tz::Offset::from_seconds(clock.utc_offset_seconds)?;
            Ok(time.to_zoned(jiff::tz::TimeZone::fixed(offset)))
        }),
    };
    now.and_then(|now| jiff::fmt::strtime::format(format, &now)).map_err(|e| {
        let problem = format!("strftime_now({format:?}): {e}");
        minijinja::Error::new(ErrorKind::InvalidOperation, problem)
    })
}

#[cfg(test)]
mod tests;
