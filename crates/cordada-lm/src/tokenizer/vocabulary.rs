//! Tokenizers of a fixed vocabulary: one token for each character or each word, for generated
//! tasks.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Tokenizer;
use crate::Error;

/// Special tokens, with the ids 0 to 2: padding, the end of a text, and what is not in the
/// vocabulary.
const SPECIAL: [&str; 3] = ["<pad>", "<eos>", "<unk>"];

/// What one token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A character; white space counts.
    Character,
    /// A word; words are separated by white space, and decoding puts one space between them.
    Word,
}

impl Tokenizer {
    /// A tokenizer of `size` tokens: `<pad>`, `<eos>`, `<unk>`, the given ones, and fillers `<n>`.
    /// `<eos>` ends a text; nothing is put before one.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the tokens do not fit into `size` or one is there twice.
    ///
    /// # Examples
    ///
    /// ```
    /// use cordada_lm::tokenizer::{Special, Tokenizer, Unit};
    ///
    /// let tokenizer = Tokenizer::from_vocabulary(&["a", "b", " "], Unit::Character, 8)?;
    /// assert_eq!(tokenizer.encode("ab a", Special::Keep)?, [3, 4, 5, 3]);
    /// # Ok::<(), cordada_lm::Error>(())
    /// ```
    pub fn from_vocabulary(tokens: &[&str], unit: Unit, size: usize) -> Result<Self, Error> {
        let mut vocab = Map::new();
        for token in SPECIAL.iter().chain(tokens) {
            if vocab.insert((*token).to_string(), vocab.len().into()).is_some() {
                return Err(Error::Setting(format!("the token {token:?} is there twice")));
            }
        }
        if vocab.len() > size {
            let n = vocab.len();
            return Err(Error::Setting(format!("{n} tokens do not fit a vocabulary of {size}")));
        }
        for n in vocab.len()..size {
            vocab.insert(format!("<{n}>"), n.into());
        }
        let json = tokenizer_json(&vocab, unit).to_string();
        let inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|e| Error::Setting(format!("the tokenizer cannot be made: {e}")))?;
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": SPECIAL[0],
            "eos_token": SPECIAL[1],
            "unk_token": SPECIAL[2],
            "clean_up_tokenization_spaces": false,
        });
        let config = config.as_object().cloned().unwrap_or_default();
        Self::new(inner, config, None, Path::new(""))
    }
}

fn tokenizer_json(vocab: &Map<String, Value>, unit: Unit) -> Value {
    let (pre_tokenizer, decoder) = match unit {
        Unit::Character => (
            json!({
                "type": "Split",
                "pattern": { "Regex": "." },
                "behavior": "Isolated",
                "invert": false
            }),
            json!({ "type": "Fuse" }),
        ),
        Unit::Word => (json!({ "type": "WhitespaceSplit" }), Value::Null),
    };
    let special = |(id, content): (usize, &&str)| {
        json!({
            "id": id,
            "content": content,
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": true,
        })
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": SPECIAL.iter().enumerate().map(special).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": decoder,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": SPECIAL[2] },
    })
}
