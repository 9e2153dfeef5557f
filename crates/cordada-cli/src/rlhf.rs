//! `cordada rlhf`: language models, from a new one to an aligned one. What is common to the
//! commands is here; each has a file of its own.

mod args;
mod chat;
mod demo;
mod eval;
mod new;
mod plan;
mod sample;
mod train;

use cordada::lm;
use cordada::lm::answer::Answer;
use cordada::lm::folder::GenerationConfig;
use cordada::lm::load::{self, Loaded};
use cordada::lm::tokenizer::Tokenizer;
use cordada::lm::{Model, Sampling, Threads};
use cordada::rl;

use self::args::{ModelArgs, SamplingArgs};
pub(crate) use self::args::{RlhfCommand, method_names};
pub(crate) use self::train::{is_stage, resume};
use crate::output::Output;
use crate::report::Failure;

pub(crate) fn run(command: &RlhfCommand, output: Output) -> Result<(), Failure> {
    match command {
        RlhfCommand::New(args) => new::run(args, output),
        RlhfCommand::Sft(args) => train::sft(args, output),
        RlhfCommand::Align(args) => train::align(args, output),
        RlhfCommand::Resume(args) => train::resume(args, output),
        RlhfCommand::Sample(args) => sample::run(args, output),
        RlhfCommand::Chat(args) => chat::run(args, output),
        RlhfCommand::Eval(args) => eval::run(args, output),
        RlhfCommand::Plan(args) => plan::run(args, output),
        RlhfCommand::Demo(args) => demo::run(args, output),
    }
}

/// A model that was read for sampling.
struct Reader {
    model: Model<f32>,
    tokenizer: Tokenizer,
    /// What its authors recommend for sampling.
    generation: GenerationConfig,
}

impl Reader {
    fn open(args: &ModelArgs) -> Result<Self, Failure> {
        let loaded: Loaded = load::read(&args.model)?;
        let generation = lm::folder::read_generation_config(&loaded.folder)?.unwrap_or_default();
        let (model, tokenizer) = loaded.into_model(Threads::new(usize::from(args.threads))?);
        Ok(Self { model, tokenizer, generation })
    }

    /// How tokens are drawn: as the flags say, else as the model's authors recommend.
    fn sampling(&self, args: &SamplingArgs, longest: usize) -> Result<Sampling, Failure> {
        let g = &self.generation;
        // Recommended values are those of sampling, if it is not switched off.
        let recommended = g.do_sample != Some(false);
        let of = |given: Option<f64>, theirs: Option<f64>, default: f64| {
            given.or(theirs.filter(|_| recommended)).unwrap_or(default)
        };
        let top_k = args.top_k.or(g.top_k.filter(|_| recommended)).unwrap_or(0);
        let sampling = Sampling {
            temperature: of(args.temperature, g.temperature, 1.0),
            top_k,
            top_p: of(args.top_p, g.top_p, 1.0),
            min_p: of(args.min_p, g.min_p, 0.0),
            repetition_penalty: of(args.repetition_penalty, g.repetition_penalty, 1.0),
            max_new_tokens: args.max_new_tokens.unwrap_or(longest),
            min_new_tokens: 0,
            stop_tokens: self.model.transformer().config().eos_token_ids.clone(),
        };
        sampling.check().map_err(usage)?;
        Ok(sampling)
    }
}

/// How an answer ended, in words.
fn ending(answer: &Answer) -> String {
    let how = answer.finish.name().replace('_', " ");
    let tokens = if answer.tokens == 1 { "token" } else { "tokens" };
    format!("{} {tokens}, ended by {how}, log-probability {:.3}", answer.tokens, answer.log_prob)
}

/// An error of settings, which the user can put right on the command line.
pub(crate) fn usage(error: lm::Error) -> Failure {
    match error {
        lm::Error::Setting(message) => {
            Failure::usage(message, "`cordada rlhf --help` shows all commands")
        }
        lm::Error::Rl(
            rl::Error::UnknownKey { ref section, .. } | rl::Error::BadValue { ref section, .. },
        ) if section == "run" => {
            // The settings of this kind of run, not of the one that `cordada train` makes.
            let lm::Error::Rl(error) = error else { unreachable!("it was matched") };
            let nearest = match &error {
                rl::Error::UnknownKey { nearest: Some(name), .. } => {
                    format!("did you mean \"{name}\"? ")
                }
                _ => String::new(),
            };
            let help = format!("{nearest}`cordada list settings stage` shows all");
            Failure::from(error).with_help(help)
        }
        other => Failure::from(other),
    }
}
