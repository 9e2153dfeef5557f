//! Text to tokens and back, with the files of a Hugging Face tokenizer: `tokenizer.json`,
//! `tokenizer_config.json` and `chat_template.jinja`.
//!
//! The splitting itself is that of the crate `tokenizers`, the same code that transformers runs.

mod stream;
mod train;
mod vocabulary;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;
use crate::chat::{ChatOptions, ChatTemplate, Message};
use crate::folder::fields::Fields;
use crate::folder::{check_folder, file_error, io_error, pretty, read_text, write_atomically};
pub use stream::TokenStream;
pub use train::{BpeOptions, CHATML};
pub use vocabulary::Unit;

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";

/// What special tokens are for, under the names of `tokenizer_config.json`; chat templates know
/// them by these names.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"];

/// Whether special tokens are added or left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Encoding adds what begins and ends a text; decoding shows special tokens.
    Keep,
    /// Encoding adds nothing; decoding leaves special tokens out.
    Skip,
}

/// A conversation as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedChat {
    /// The rendered text.
    pub text: String,
    /// Its tokens; none are added to those of the template.
    pub ids: Vec<u32>,
    /// For each token, whether the assistant wrote it (`{% generation %}`); `None` if the template
    /// does not say.
    pub assistant_mask: Option<Vec<bool>>,
}

/// A tokenizer with its special tokens and chat template.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The fields of `tokenizer_config.json`, written back as they are.
    config: Map<String, Value>,
    /// The text of `chat_template.jinja`.
    template_file: Option<String>,
    special: BTreeMap<String, String>,
    template: Option<ChatTemplate>,
}

impl Tokenizer {
    /// Reads a tokenizer from a model's folder.
    ///
    /// Truncation and padding that `tokenizer.json` asks for are not done: this program cuts
    /// nothing silently and needs no padding. `clean_up_tokenization_spaces` is not done either:
    /// it would change what a model said.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::File`] naming the file and what is wrong with it.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        check_folder(folder)?;
        let path = folder.join(TOKENIZER);
        if !path.exists() {
            let text = "this folder has no tokenizer.json; a tokenizer of another format must be \
                        saved again by transformers: \
                        AutoTokenizer.from_pretrained(…).save_pretrained(folder)";
            return Err(file_error(folder, text));
        }
        let bytes = std::fs::read(&path).map_err(|e| io_error(&path, e))?;
        let inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|e| file_error(&path, format!("this is no tokenizer: {e}")))?;
        let config = folder.join(CONFIG);
        let text = if config.exists() { read_text(&config)? } else { "{}".to_string() };
        Fields::parse(&text, &config)?;
        let map = serde_json::from_str(&text).unwrap_or_default();
        let template = folder.join(TEMPLATE);
        let template = if template.exists() { Some(read_text(&template)?) } else { None };
        Self::new(inner, map, template, folder)
    }

    /// Puts the parts together; `folder` is where they come from, for messages.
    fn new(
        mut inner: tokenizers::Tokenizer,
        config: Map<String, Value>,
        template_file: Option<String>,
        folder: &Path,
    ) -> Result<Self, Error> {
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|e| file_error(&folder.join(TOKENIZER), e.to_string()))?;
        let path = folder.join(CONFIG);
        let special = special_tokens(&config, &inner, &path)?;
        let template = match &template_file {
            Some(source) => Some(ChatTemplate::new(source, &folder.join(TEMPLATE))?),
            None => templates(&config, &path)?,
        };
        let template = template.map(|t| t.with_special_tokens(special.clone()));
        Ok(Self { inner, config, template_file, special, template })
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and, if there was one,
    /// `chat_template.jinja`; each file appears whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] naming the file.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(folder).map_err(|e| io_error(folder, e))?;
        let path = folder.join(TOKENIZER);
        let text = self
            .inner
            .to_string(true)
            .map_err(|e| file_error(&path, format!("the tokenizer cannot be written: {e}")))?;
        write_atomically(&path, text.as_bytes())?;
        if let Some(source) = &self.template_file {
            write_atomically(&folder.join(TEMPLATE), source.as_bytes())?;
        }
        let config = Value::Object(self.config.clone());
        write_atomically(&folder.join(CONFIG), pretty(&config).as_bytes())
    }

    /// Number of tokens, special ones included. A model may have more: rows of its embedding that
    /// no token uses.
    pub fn vocab_size(&self) -> usize {
        // Added tokens may leave gaps; what counts is the largest id.
        let ids = self.inner.get_vocab(true).into_values();
        ids.max().map_or(0, |id| id as usize + 1)
    }

    /// The id of a token.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, in the tokenizer's own spelling (`Ġhello`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of the token that `tokenizer_config.json` names `bos_token`, `eos_token`,
    /// `pad_token`, ….
    pub fn special_id(&self, role: &str) -> Option<u32> {
        self.token_id(self.special.get(role)?)
    }

    /// The text of special tokens by role: what chat templates see.
    pub fn special_tokens(&self) -> &BTreeMap<String, String> {
        &self.special
    }

    /// The chat template, if the model has one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// Sets the chat template for conversations; it is not written to files.
    #[must_use]
    pub fn with_chat_template(mut self, template: ChatTemplate) -> Self {
        self.template = Some(template.with_special_tokens(self.special.clone()));
        self
    }

    /// The tokens of a text.
    ///
    /// With [`Special::Keep`], the begin and end tokens are added that `tokenizer.json` asks for;
    /// `add_bos_token` and `add_eos_token` of `tokenizer_config.json` decide where they are given.
    /// The text of a special token (`<|im_end|>`) becomes that token either way.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the tokenizer has no token for a part of the text.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>, Error> {
        let keep = special == Special::Keep;
        let mut ids = self.encoding(text, keep)?.get_ids().to_vec();
        if keep {
            self.settle_edges(&mut ids);
        }
        Ok(ids)
    }

    fn encoding(&self, text: &str, special: bool) -> Result<tokenizers::Encoding, Error> {
        self.inner
            .encode(text, special)
            .map_err(|e| Error::Setting(format!("the text cannot be split into tokens: {e}")))
    }

    /// Does what `add_bos_token` and `add_eos_token` say, if they are there.
    fn settle_edges(&self, ids: &mut Vec<u32>) {
        let wanted = |name: &str| self.config.get(name).and_then(Value::as_bool);
        if let (Some(wanted), Some(bos)) = (wanted("add_bos_token"), self.special_id("bos_token")) {
            match (wanted, ids.first() == Some(&bos)) {
                (true, false) => ids.insert(0, bos),
                (false, true) => drop(ids.remove(0)),
                _ => {}
            }
        }
        if let (Some(wanted), Some(eos)) = (wanted("add_eos_token"), self.special_id("eos_token")) {
            match (wanted, ids.last() == Some(&eos)) {
                (true, false) => ids.push(eos),
                (false, true) => drop(ids.pop()),
                _ => {}
            }
        }
    }

    /// The text of tokens. Bytes that are no UTF-8 become U+FFFD; ids without a token, nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the tokenizer cannot join the tokens.
    pub fn decode(&self, ids: &[u32], special: Special) -> Result<String, Error> {
        self.inner
            .decode(ids, special == Special::Skip)
            .map_err(|e| Error::Setting(format!("the tokens cannot be joined to text: {e}")))
    }

    /// Decodes token by token, for text that appears as it is made.
    pub fn stream(&self, special: Special) -> TokenStream<'_> {
        TokenStream::new(self, special)
    }

    /// Renders a conversation and splits it into tokens; special tokens are those of the template
    /// alone, so that none is there twice.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the model has no chat template or the template rejects the
    /// conversation; [`Error::File`] if the template fails.
    pub fn encode_chat(
        &self,
        messages: &[Message],
        options: &ChatOptions,
    ) -> Result<EncodedChat, Error> {
        let template = self.template.as_ref().ok_or_else(|| {
            Error::Setting(
                "the tokenizer has no chat template; give one, or use plain text".to_string(),
            )
        })?;
        let rendered = template.render(messages, options)?;
        let encoding = self.encoding(&rendered.text, false)?;
        let assistant_mask = rendered.generated.map(|ranges| {
            let inside = |&(start, end): &(usize, usize)| {
                ranges.iter().any(|r| start < r.end && r.start < end)
            };
            encoding.get_offsets().iter().map(inside).collect()
        });
        Ok(EncodedChat { text: rendered.text, ids: encoding.get_ids().to_vec(), assistant_mask })
    }

    /// Splits a conversation into the tokens of a prompt and those of the answer to it.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the tokens of the prompt alone, with the beginning of an answer, are
    /// not the beginning of those of the whole: then a model would be trained on other tokens
    /// than it is asked with. Further as [`Tokenizer::encode_chat`].
    pub fn encode_exchange(
        &self,
        prompt: &[Message],
        answer: &[Message],
        options: &ChatOptions,
    ) -> Result<(Vec<u32>, Vec<u32>), Error> {
        let asked = ChatOptions { add_generation_prompt: true, ..options.clone() };
        let whole = ChatOptions { add_generation_prompt: false, ..options.clone() };
        let prompt_ids = self.encode_chat(prompt, &asked)?.ids;
        let all = self.encode_chat(&[prompt, answer].concat(), &whole)?.ids;
        let same = prompt_ids.iter().zip(&all).take_while(|(a, b)| a == b).count();
        if same < prompt_ids.len() {
            let show =
                |ids: &[u32]| self.decode(&ids[same..ids.len().min(same + 8)], Special::Keep);
            return Err(Error::Setting(format!(
                "the prompt is not the beginning of the conversation: from token {same} on it is \
                 {:?} alone and {:?} with the answer; the chat template changes earlier turns",
                show(&prompt_ids)?,
                show(&all)?
            )));
        }
        let answer_ids = all[same..].to_vec();
        Ok((prompt_ids, answer_ids))
    }
}

/// The text of a token in `tokenizer_config.json`: itself, or an object with its `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

fn special_tokens(
    config: &Map<String, Value>,
    inner: &tokenizers::Tokenizer,
    path: &Path,
) -> Result<BTreeMap<String, String>, Error> {
    let mut found = BTreeMap::new();
    for role in ROLES {
        let Some(value) = config.get(role).filter(|v| !v.is_null()) else { continue };
        let text = token_text(value).ok_or_else(|| {
            let problem = format!("{role} is {value}; it must be a text or have a \"content\"");
            file_error(path, problem)
        })?;
        if inner.token_to_id(text).is_none() {
            let problem = format!("{role} is {text:?}, which is no token of {TOKENIZER}");
            return Err(file_error(path, problem));
        }
        found.insert(role.to_string(), text.to_string());
    }
    Ok(found)
}

/// The chat templates of `tokenizer_config.json`: one, or a list with names.
fn templates(config: &Map<String, Value>, path: &Path) -> Result<Option<ChatTemplate>, Error> {
    let wrong = || {
        file_error(
            path,
            "chat_template must be a text or a list of { \"name\": …, \"template\": … }",
        )
    };
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(source)) => ChatTemplate::new(source, path).map(Some),
        Some(Value::Array(list)) => {
            let pair = |entry: &Value| {
                let text = |name: &str| Some(entry.get(name)?.as_str()?.to_string());
                Some((text("name")?, text("template")?))
            };
            let named: Option<Vec<(String, String)>> = list.iter().map(pair).collect();
            ChatTemplate::named(named.ok_or_else(wrong)?, path).map(Some)
        }
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests;
