//! `cordada rlhf sample`: answers of a model to prompts.

use std::sync::atomic::Ordering;

use cordada::lm::answer::{Answer, Asking};
use cordada::lm::data::{Example, TokenizeOptions, read_examples};
use cordada::lm::train::{Prompt, prepare_prompts};
use serde::Serialize;

use super::args::SampleArgs;
use super::{Reader, ending, usage};
use crate::interrupt::{STOP, watch};
use crate::output::{Output, stdout_is_closed};
use crate::report::Failure;

/// Answers that are sampled side by side.
const SIDE_BY_SIDE: usize = 256;
/// Longest answer if nothing says otherwise. Unit: tokens.
pub(super) const LONGEST: usize = 128;

#[derive(Serialize)]
struct Line<'a> {
    prompt: &'a str,
    sample: usize,
    #[serde(flatten)]
    answer: &'a Answer,
}

pub(crate) fn run(args: &SampleArgs, output: Output) -> Result<(), Failure> {
    let mut reader = Reader::open(&args.model)?;
    let sampling = reader.sampling(&args.sampling, LONGEST)?;
    let examples = match (&args.prompt, &args.data) {
        (Some(text), _) => vec![Example::new(text)],
        (None, Some(path)) => read_examples(path)?,
        (None, None) => unreachable!("the parser requires one of both"),
    };
    let prompts = prompts(&reader, &examples)?;
    let asking = Asking {
        tokenizer: &reader.tokenizer,
        sampling: &sampling,
        stop: &args.sampling.stop,
        samples: args.samples as usize,
        seed: args.sampling.seed,
    };
    watch(output)?;
    let several = prompts.len() > 1 || args.samples > 1;
    let at_once = (SIDE_BY_SIDE / asking.samples).max(1);
    for (i, part) in prompts.chunks(at_once).enumerate() {
        let answers = asking.ask(&mut reader.model, part, i * at_once).map_err(usage)?;
        for (prompt, answers) in part.iter().zip(&answers) {
            show(prompt, answers, several, output);
        }
        if stdout_is_closed() {
            return Ok(());
        }
        if STOP.load(Ordering::Relaxed) {
            return Err(Failure::interrupted());
        }
    }
    Ok(())
}

/// The prompts as tokens, of which one at least must be left for the answer.
pub(super) fn prompts(reader: &Reader, examples: &[Example]) -> Result<Vec<Prompt>, Failure> {
    let config = reader.model.transformer().config();
    let most = config.max_positions.saturating_sub(1);
    // A prompt that the model cannot read is no question of share here.
    let options = TokenizeOptions {
        max_lost_share: 0.0,
        ..TokenizeOptions::new(most, &config.eos_token_ids)
    };
    Ok(prepare_prompts(&reader.tokenizer, examples, &options).map_err(usage)?.0)
}

fn show(prompt: &Prompt, answers: &[Answer], several: bool, output: Output) {
    for (sample, answer) in answers.iter().enumerate() {
        if output.json {
            output.object(&Line { prompt: &prompt.text, sample, answer });
        } else if several {
            let head = format!("{:?}, sample {}: {}", prompt.text, sample + 1, ending(answer));
            output.line(output.bold(&head));
            output.line(&answer.text);
        } else {
            output.line(&answer.text);
            if !output.quiet {
                output.note(format!("({})", ending(answer)));
            }
        }
    }
}
