//! Examples: what a model is shown, asked or tested with. They come from JSONL files or from
//! generated [tasks](crate::tasks); here they become tokens and batches. Rewards see the example
//! as a whole, see [`reward`](crate::reward).

mod batches;
mod comparisons;
mod jsonl;
pub(crate) mod lines;
mod tokenize;

use serde_json::{Map, Value};

use crate::chat::Message;
pub use batches::{Batches, Order};
pub use comparisons::{
    Comparison, Ranked, parse_comparisons, read_comparisons, tokenize_comparisons,
};
pub use jsonl::{parse_examples, read_examples};
pub use tokenize::{
    DataReport, Overlong, TokenizeOptions, Tokenized, tokenize_answers, tokenize_prompts,
};

/// Characters of a prompt that messages show.
const LABEL: usize = 48;

/// What a response follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A text; empty for an example that is text alone.
    Text(String),
    /// A conversation, for the model's chat template.
    Messages(Vec<Message>),
}

/// One example.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The prompt. A conversation without a [`completion`](Self::completion) may end with the
    /// answer to learn.
    pub prompt: Prompt,
    /// The answer to learn, if there is one.
    pub completion: Option<String>,
    /// All other fields, for rewards: `answer` above all.
    pub fields: Map<String, Value>,
}

impl Example {
    /// A text prompt without an answer.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompt: Prompt::Text(prompt.into()), completion: None, fields: Map::new() }
    }

    /// Adds the answer to learn.
    pub fn with_completion(mut self, completion: impl Into<String>) -> Self {
        self.completion = Some(completion.into());
        self
    }

    /// Sets a field.
    pub fn with_field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_string(), value.into());
        self
    }

    /// The beginning of the prompt, for messages: of a conversation, the last user's words.
    pub fn label(&self) -> String {
        match &self.prompt {
            Prompt::Text(text) => label(text),
            Prompt::Messages(messages) => {
                let user = messages.iter().rev().find(|m| m.role() == "user");
                label(&user.or(messages.last()).and_then(Message::content).unwrap_or_default())
            }
        }
    }
}

/// The beginning of a text, in quotes, on one line.
pub(crate) fn label(text: &str) -> String {
    match text.char_indices().nth(LABEL) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}", format!("{}…", &text[..end])),
    }
}

/// The type of a JSON value, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
