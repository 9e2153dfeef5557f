//! Training a byte-level BPE tokenizer on a text. The same text gives the same tokenizer.

use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::Tokenizer;
use crate::Error;

/// The chat template of a new tokenizer: ChatML.
pub const CHATML: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
    {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Special tokens that every new tokenizer has, with the ids 0 to 3.
const BASE: [&str; 4] = ["<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Where words end: as in GPT-4, but each digit stands alone, so that numbers are always written
/// with the same tokens.
const WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Settings of a new tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpeOptions {
    /// Number of tokens: 256 bytes, the special ones, the rest merged from the text.
    pub vocab_size: usize,
    /// Special tokens besides `<|pad|>`, `<|endoftext|>`, `<|im_start|>` and `<|im_end|>`.
    pub special_tokens: Vec<String>,
}

impl Tokenizer {
    /// Trains a byte-level BPE tokenizer with a ChatML template; `<|im_end|>` ends a text.
    ///
    /// A text that offers too few pairs gives fewer tokens than asked for, see
    /// [`Tokenizer::vocab_size`].
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the size leaves no room for the 256 bytes and the special tokens.
    ///
    /// # Source
    ///
    /// Sennrich et al. 2016, arXiv:1508.07909, algorithm 1; on bytes: Radford et al. 2019.
    ///
    /// # Examples
    ///
    /// ```
    /// use cordada_lm::tokenizer::{BpeOptions, Special, Tokenizer};
    ///
    /// let options = BpeOptions { vocab_size: 270, special_tokens: Vec::new() };
    /// let tokenizer = Tokenizer::train_bpe(&["hello hello hello"], &options)?;
    /// let ids = tokenizer.encode("hello", Special::Skip)?;
    /// assert_eq!(tokenizer.decode(&ids, Special::Skip)?, "hello");
    /// # Ok::<(), cordada_lm::Error>(())
    /// ```
    pub fn train_bpe(texts: &[&str], options: &BpeOptions) -> Result<Self, Error> {
        let mut special: Vec<&str> = BASE.to_vec();
        for token in &options.special_tokens {
            if !special.contains(&token.as_str()) {
                special.push(token);
            }
        }
        let least = 256 + special.len();
        if options.vocab_size < least {
            return Err(Error::Setting(format!(
                "a vocabulary of {} tokens is too small; 256 bytes and {} special tokens need at \
                 least {least}",
                options.vocab_size,
                special.len()
            )));
        }
        let inner = train(texts, options.vocab_size, &special)
            .map_err(|e| Error::Setting(format!("the tokenizer cannot be trained: {e}")))?;
        Self::new(inner, config(), None, Path::new(""))
    }
}

fn train(
    texts: &[&str],
    vocab_size: usize,
    special: &[&str],
) -> tokenizers::Result<tokenizers::Tokenizer> {
    let mut inner = tokenizers::Tokenizer::new(BPE::default());
    let words = SplitPattern::Regex(WORDS.to_string());
    let words = Split::new(words, SplitDelimiterBehavior::Isolated, false)?;
    let bytes = ByteLevel::new(false, true, false);
    inner.with_pre_tokenizer(Some(Sequence::new(vec![words.into(), bytes.into()])));
    inner.with_decoder(Some(ByteLevel::new(false, true, false)));
    inner.with_post_processor(Some(ByteLevel::new(false, false, false)));
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .show_progress(false)
        .special_tokens(special.iter().map(|t| AddedToken::from(*t, true)).collect())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    inner.train(&mut TrainerWrapper::BpeTrainer(trainer), texts.iter())?;
    Ok(inner)
}

/// The fields of `tokenizer_config.json`.
fn config() -> Map<String, Value> {
    let fields = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": null,
        "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>",
        "clean_up_tokenization_spaces": false,
        "chat_template": CHATML,
    });
    match fields {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
