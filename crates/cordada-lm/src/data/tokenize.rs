//! Examples become tokens: prompts for sampling, and prompts with the tokens to learn. Nothing is
//! cut or dropped without being counted, and more than a given share is refused.

use super::{Example, Prompt};
use crate::Error;
use crate::batch::Group;
use crate::chat::{ChatOptions, Message};
use crate::tokenizer::{Special, Tokenizer};

/// What happens to an example that is too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlong {
    /// It is left out: a cut answer teaches to stop nowhere.
    #[default]
    Drop,
    /// Its answer is cut at the limit; it is left out only if the prompt alone is too long.
    Cut,
}

/// Settings of turning examples into tokens.
#[derive(Clone, Debug)]
pub struct TokenizeOptions {
    /// Most tokens of prompt and answer together; for prompts alone, of the prompt.
    pub max_tokens: usize,
    /// What is longer.
    pub overlong: Overlong,
    /// Largest share of examples that may be cut or left out, 0 to 1.
    pub max_lost_share: f64,
    /// Tokens that end a text. The first one is put after an answer that has none; empty: none is.
    pub end_tokens: Vec<u32>,
    /// How conversations are rendered.
    pub chat: ChatOptions,
}

impl TokenizeOptions {
    /// Up to `max_tokens` tokens; longer ones are left out, which up to 5 % may be.
    pub fn new(max_tokens: usize, end_tokens: &[u32]) -> Self {
        Self {
            max_tokens,
            overlong: Overlong::default(),
            max_lost_share: 0.05,
            end_tokens: end_tokens.to_vec(),
            chat: ChatOptions::default(),
        }
    }
}

/// What became of the examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataReport {
    /// Examples that were given.
    pub examples: usize,
    /// Those that were kept, cut ones included.
    pub kept: usize,
    /// Those whose answer was cut.
    pub truncated: usize,
    /// Those that were left out.
    pub dropped: usize,
    /// Kept whole answers that do not end with an end token: a model that learns them does not
    /// learn to stop.
    pub without_end: usize,
    /// Tokens that were kept.
    pub tokens: usize,
    /// Those of them that are learned.
    pub scored: usize,
    /// Tokens of the longest example before cutting.
    pub longest: usize,
}

/// Examples as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenized<T> {
    /// What was kept.
    pub items: Vec<T>,
    /// Which example each came from.
    pub indices: Vec<usize>,
    /// What became of all.
    pub report: DataReport,
}

impl<T> Tokenized<T> {
    pub(super) fn new(examples: usize) -> Self {
        let report = DataReport { examples, ..DataReport::default() };
        Self { items: Vec::new(), indices: Vec::new(), report }
    }

    pub(super) fn keep(&mut self, index: usize, item: T) {
        self.items.push(item);
        self.indices.push(index);
        self.report.kept += 1;
    }

    /// Refuses data of which too much was lost.
    pub(super) fn check(self, options: &TokenizeOptions) -> Result<Self, Error> {
        let r = &self.report;
        let share = (r.truncated + r.dropped) as f64 / r.examples.max(1) as f64;
        if r.kept == 0 || share > options.max_lost_share {
            return Err(Error::Setting(format!(
                "with at most {} tokens, {} of {} examples are left out and {} are cut \
                 ({:.1} %, allowed are {:.1} %); the longest has {} tokens: allow more tokens, \
                 shorten the data, or allow a larger lost share",
                options.max_tokens,
                r.dropped,
                r.examples,
                r.truncated,
                100.0 * share,
                100.0 * options.max_lost_share,
                r.longest
            )));
        }
        Ok(self)
    }
}

/// The tokens to learn: each example becomes a prompt with one completion, of which the answer is
/// scored and nothing else.
///
/// Of a conversation, every message of the assistant is scored if the chat template marks them
/// (`{% generation %}`), else the last one. What follows the end token of the last answer is left
/// out: it is never sampled. Of an example that is text alone, all is scored that has something
/// before it: the begin token, if the tokenizer adds one, else the first token.
///
/// # Errors
///
/// [`Error::Setting`] naming the example that has no answer, whose prompt's tokens are not the
/// beginning of the whole's, or that the template rejects; or if more than
/// [`TokenizeOptions::max_lost_share`] would be lost.
pub fn tokenize_answers(
    tokenizer: &Tokenizer,
    examples: &[Example],
    options: &TokenizeOptions,
) -> Result<Tokenized<Group>, Error> {
    let mut out = Tokenized::new(examples.len());
    for (i, example) in examples.iter().enumerate() {
        let mut pair = answer(tokenizer, example, options).map_err(|e| at(i, example, e))?;
        let total = pair.prompt.len() + pair.completion.len();
        out.report.longest = out.report.longest.max(total);
        let cut = total > options.max_tokens;
        if cut {
            let room = options.max_tokens.saturating_sub(pair.prompt.len());
            pair.cut(if options.overlong == Overlong::Cut { room } else { 0 });
        }
        if !pair.scored.contains(&true) {
            out.report.dropped += 1;
            continue;
        }
        let open = pair.completion.last().is_none_or(|t| !options.end_tokens.contains(t));
        out.report.truncated += usize::from(cut);
        out.report.without_end += usize::from(open && !cut);
        out.report.tokens += pair.prompt.len() + pair.completion.len();
        out.report.scored += pair.scored.iter().filter(|&&s| s).count();
        out.keep(i, pair.into_group());
    }
    out.check(options)
}

/// The tokens of the prompts alone, as a model is asked them: of a conversation, with the
/// beginning of the assistant's answer. An answer at the end of a conversation is left out.
///
/// # Errors
///
/// [`Error::Setting`] naming the example whose prompt has no token or that the template rejects;
/// or if more than [`TokenizeOptions::max_lost_share`] are longer than
/// [`TokenizeOptions::max_tokens`].
pub fn tokenize_prompts(
    tokenizer: &Tokenizer,
    examples: &[Example],
    options: &TokenizeOptions,
) -> Result<Tokenized<Vec<u32>>, Error> {
    let mut out = Tokenized::new(examples.len());
    for (i, example) in examples.iter().enumerate() {
        let ids = match &example.prompt {
            Prompt::Text(text) => prompt_tokens(tokenizer, text),
            Prompt::Messages(messages) => {
                let asked = match messages.split_last() {
                    Some((last, before)) if last.role() == "assistant" => before,
                    _ => messages,
                };
                let chat = ChatOptions { add_generation_prompt: true, ..options.chat.clone() };
                tokenizer.encode_chat(asked, &chat).map(|chat| chat.ids)
            }
        };
        let ids = ids.map_err(|e| at(i, example, e))?;
        if ids.is_empty() {
            let problem = "the prompt has no token; begin it with a word or a begin token";
            return Err(at(i, example, Error::Setting(problem.to_string())));
        }
        out.report.longest = out.report.longest.max(ids.len());
        if ids.len() > options.max_tokens {
            out.report.dropped += 1;
            continue;
        }
        out.report.tokens += ids.len();
        out.keep(i, ids);
    }
    out.check(options)
}

/// An error about an example.
fn at(index: usize, example: &Example, error: Error) -> Error {
    match error {
        Error::Setting(problem) => {
            Error::Setting(format!("example {} ({}): {problem}", index + 1, example.label()))
        }
        other => other,
    }
}

/// A prompt with its answer.
struct Pair {
    prompt: Vec<u32>,
    completion: Vec<u32>,
    scored: Vec<bool>,
}

impl Pair {
    fn cut(&mut self, tokens: usize) {
        self.completion.truncate(tokens);
        self.scored.truncate(tokens);
    }

    fn into_group(self) -> Group {
        let all = self.scored.iter().all(|&s| s);
        let scored = if all { Vec::new() } else { vec![self.scored] };
        Group { prompt: self.prompt, completions: vec![self.completion], scored }
    }
}

/// The tokens of a prompt and of its answer, the end token included.
pub(super) fn whole_answer(
    tokenizer: &Tokenizer,
    example: &Example,
    options: &TokenizeOptions,
    index: usize,
) -> Result<(Vec<u32>, Vec<u32>), Error> {
    let pair = answer(tokenizer, example, options).map_err(|e| at(index, example, e))?;
    Ok((pair.prompt, pair.completion))
}

fn answer(
    tokenizer: &Tokenizer,
    example: &Example,
    options: &TokenizeOptions,
) -> Result<Pair, Error> {
    match (&example.prompt, &example.completion) {
        (Prompt::Text(prompt), Some(completion)) => {
            text_pair(tokenizer, prompt, completion, options)
        }
        (Prompt::Text(_), None) => Err(Error::Setting(
            "has no answer to learn; give it a \"completion\", or \"messages\" that end with one"
                .to_string(),
        )),
        (Prompt::Messages(messages), Some(completion)) => {
            let said = Message::new("assistant", completion);
            exchange(tokenizer, messages, &[said], options)
        }
        (Prompt::Messages(messages), None) => conversation(tokenizer, messages, options),
    }
}

/// The tokens of a prompt, without an end token that the tokenizer would add.
fn prompt_tokens(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, Error> {
    let mut ids = tokenizer.encode(text, Special::Keep)?;
    let eos = tokenizer.special_id("eos_token");
    if eos.is_some() && ids.last().copied() == eos {
        let written = tokenizer.encode(text, Special::Skip)?.last().copied() == eos;
        if !written {
            ids.pop();
        }
    }
    Ok(ids)
}

fn text_pair(
    tokenizer: &Tokenizer,
    prompt: &str,
    completion: &str,
    options: &TokenizeOptions,
) -> Result<Pair, Error> {
    let mut prompt_ids = prompt_tokens(tokenizer, prompt)?;
    let mut ids = tokenizer.encode(&format!("{prompt}{completion}"), Special::Keep)?;
    let same = prompt_ids.iter().zip(&ids).take_while(|(a, b)| a == b).count();
    if same < prompt_ids.len() {
        let show = |ids: &[u32]| {
            tokenizer.decode(&ids[same.min(ids.len())..ids.len().min(same + 8)], Special::Keep)
        };
        return Err(Error::Setting(format!(
            "the prompt's tokens are not the beginning of those of prompt and answer: from token \
             {same} on they are {:?} alone and {:?} with the answer; move the space at the end of \
             the prompt to the beginning of the answer",
            show(&prompt_ids)?,
            show(&ids)?
        )));
    }
    if let Some(&end) = options.end_tokens.first()
        && ids.last().is_none_or(|t| !options.end_tokens.contains(t))
    {
        ids.push(end);
    }
    if prompt_ids.is_empty() {
        // The first token has no state that it is taken in.
        prompt_ids.extend(ids.first());
    }
    let completion = ids.split_off(prompt_ids.len());
    Ok(Pair { prompt: prompt_ids, scored: vec![true; completion.len()], completion })
}

fn exchange(
    tokenizer: &Tokenizer,
    prompt: &[Message],
    answer: &[Message],
    options: &TokenizeOptions,
) -> Result<Pair, Error> {
    let (prompt, mut completion) = tokenizer.encode_exchange(prompt, answer, &options.chat)?;
    // Templates put a line break behind the end token.
    if let Some(end) = completion.iter().rposition(|t| options.end_tokens.contains(t)) {
        completion.truncate(end + 1);
    }
    Ok(Pair { prompt, scored: vec![true; completion.len()], completion })
}

fn conversation(
    tokenizer: &Tokenizer,
    messages: &[Message],
    options: &TokenizeOptions,
) -> Result<Pair, Error> {
    let chat = ChatOptions { add_generation_prompt: false, ..options.chat.clone() };
    let encoded = tokenizer.encode_chat(messages, &chat)?;
    let Some(mask) = encoded.assistant_mask else {
        return match messages.split_last() {
            Some((last, before)) if last.role() == "assistant" && !before.is_empty() => {
                exchange(tokenizer, before, std::slice::from_ref(last), options)
            }
            _ => Err(no_answer()),
        };
    };
    let first = mask.iter().position(|&m| m).ok_or_else(no_answer)?.max(1);
    let last = mask.iter().rposition(|&m| m).map_or(first, |last| last + 1);
    let mut prompt = encoded.ids;
    prompt.truncate(last);
    let completion = prompt.split_off(first);
    Ok(Pair { prompt, completion, scored: mask[first..last].to_vec() })
}

fn no_answer() -> Error {
    Error::Setting(
        "the conversation has no answer to learn; its last message must be the assistant's"
            .to_string(),
    )
}
