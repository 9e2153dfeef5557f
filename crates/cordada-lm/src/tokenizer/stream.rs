//! Decoding token by token. A token may hold a part of a character; text comes out only when its
//! characters are whole.

use super::{Special, Tokenizer};
use crate::Error;

/// Text of tokens as they come; what it has given out, joined, is what
/// [`Tokenizer::decode`] gives for all tokens at once.
#[derive(Clone, Debug)]
pub struct TokenStream<'a> {
    tokenizer: &'a Tokenizer,
    special: Special,
    ids: Vec<u32>,
    /// Tokens before this one are no longer needed to know how the next are written.
    start: usize,
    /// Tokens before this one have been given out.
    shown: usize,
}

impl<'a> TokenStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, special: Special) -> Self {
        Self { tokenizer, special, ids: Vec::new(), start: 0, shown: 0 }
    }

    /// Takes a token and gives out the text that is now certain, which may be empty.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the tokenizer cannot join the tokens.
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        self.ids.push(id);
        let (before, text) = self.texts()?;
        // An incomplete character decodes to U+FFFD at the end.
        if text.len() <= before.len() || text.ends_with('\u{FFFD}') {
            return Ok(String::new());
        }
        self.start = self.shown;
        self.shown = self.ids.len();
        Ok(text[before.len()..].to_string())
    }

    /// Ends the text: gives out what is left, with U+FFFD for incomplete characters.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the tokenizer cannot join the tokens.
    pub fn finish(self) -> Result<String, Error> {
        let (before, text) = self.texts()?;
        Ok(text.get(before.len()..).unwrap_or_default().to_string())
    }

    /// The text from `start`, without and with the tokens that have not been given out. The tokens
    /// from `start` to `shown` are decoded again because some tokenizers write the first token of
    /// a text otherwise than the same token later.
    fn texts(&self) -> Result<(String, String), Error> {
        let decode = |ids: &[u32]| self.tokenizer.decode(ids, self.special);
        Ok((decode(&self.ids[self.start..self.shown])?, decode(&self.ids[self.start..])?))
    }
}
