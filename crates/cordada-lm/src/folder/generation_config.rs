//! `generation_config.json`: a model's settings of sampling. Sampling itself is elsewhere.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::pretty;
use crate::Error;

/// Settings of sampling as a model's authors recommend them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a response.
    pub eos_token_ids: Vec<u32>,
    /// Token that begins a text.
    pub bos_token_id: Option<u32>,
    /// Token that fills up rows.
    pub pad_token_id: Option<u32>,
    /// Whether tokens are drawn instead of taking the most probable.
    pub do_sample: Option<bool>,
    /// Logits are divided by it; from 0 on.
    pub temperature: Option<f64>,
    /// Only the `top_k` most probable tokens are drawn; 0 for all.
    pub top_k: Option<usize>,
    /// Only the fewest tokens are drawn whose probabilities sum up to it; in (0, 1].
    pub top_p: Option<f64>,
    /// Only tokens are drawn that have this share of the greatest probability; in [0, 1].
    pub min_p: Option<f64>,
    /// Positive logits of tokens that occurred are divided by it, negative ones multiplied; 1 for
    /// no change.
    pub repetition_penalty: Option<f64>,
}

impl GenerationConfig {
    /// Reads the text of a file; fields that it does not name are ignored.
    ///
    /// # Errors
    ///
    /// [`Error::File`] naming the field, its value and its range.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let f = Fields::parse(text, path)?;
        let share = |name: &str, low_open: bool| match f.opt_number(name)? {
            Some(x) if x > 1.0 || (low_open && x == 0.0) => {
                let range = if low_open { "(0, 1]" } else { "[0, 1]" };
                Err(f.wrong(name, &format!("it must be in {range}")))
            }
            x => Ok(x),
        };
        Ok(Self {
            eos_token_ids: f.tokens("eos_token_id")?,
            bos_token_id: f.opt_token("bos_token_id")?,
            pad_token_id: f.opt_token("pad_token_id")?,
            do_sample: match f.get("do_sample") {
                None => None,
                Some(_) => Some(f.flag("do_sample", false)?),
            },
            temperature: f.opt_number("temperature")?,
            top_k: f.opt_token("top_k")?.map(|k| k as usize),
            top_p: share("top_p", true)?,
            min_p: share("min_p", false)?,
            repetition_penalty: match f.get("repetition_penalty") {
                None => None,
                Some(_) => Some(f.positive("repetition_penalty")?),
            },
        })
    }

    /// The text of a file; settings without a value are left out.
    pub fn to_text(&self) -> String {
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| {
            if !value.is_null() {
                map.insert(name.to_string(), value);
            }
        };
        put("eos_token_id", tokens(&self.eos_token_ids));
        put("bos_token_id", json!(self.bos_token_id));
        put("pad_token_id", json!(self.pad_token_id));
        put("do_sample", json!(self.do_sample));
        put("temperature", json!(self.temperature));
        put("top_k", json!(self.top_k));
        put("top_p", json!(self.top_p));
        put("min_p", json!(self.min_p));
        put("repetition_penalty", json!(self.repetition_penalty));
        pretty(&Value::Object(map))
    }
}

/// Tokens as Hugging Face writes them: `null`, a number, or a list.
pub(super) fn tokens(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [one] => json!(one),
        many => json!(many),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_writing_and_reading() {
        let text = r#"{"eos_token_id": [3, 1], "bos_token_id": 4, "pad_token_id": 0,
            "do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.0,
            "repetition_penalty": 1.1, "max_length": 20}"#;
        let path = Path::new("generation_config.json");
        let config = GenerationConfig::parse(text, path).unwrap();
        let want = GenerationConfig {
            eos_token_ids: vec![3, 1],
            bos_token_id: Some(4),
            pad_token_id: Some(0),
            do_sample: Some(true),
            temperature: Some(0.6),
            top_k: Some(20),
            top_p: Some(0.95),
            min_p: Some(0.0),
            repetition_penalty: Some(1.1),
        };
        assert_eq!(config, want);
        assert_eq!(GenerationConfig::parse(&want.to_text(), path).unwrap(), want);
        let none = GenerationConfig::default();
        assert_eq!(none.to_text(), "{}\n");
    }

    #[test]
    fn values_outside_their_range_are_named() {
        let path = Path::new("generation_config.json");
        let cases = [
            (r#"{"top_p": 0}"#, "top_p is 0; it must be in (0, 1]"),
            (r#"{"min_p": 1.5}"#, "min_p is 1.5; it must be in [0, 1]"),
            (r#"{"temperature": -1}"#, "temperature is -1; it must be a number from 0 on"),
            (r#"{"top_k": "all"}"#, "top_k is \"all\"; it must be a token"),
            (r#"{"repetition_penalty": 0}"#, "repetition_penalty is 0; it must be greater than 0"),
        ];
        for (text, want) in cases {
            let message = GenerationConfig::parse(text, path).unwrap_err().to_string();
            assert!(message.starts_with(&format!("generation_config.json: {want}")), "{message}");
        }
    }
}
