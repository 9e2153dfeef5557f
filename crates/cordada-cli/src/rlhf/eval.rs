//! `cordada rlhf eval`: perplexity of given answers, scores of sampled ones.

use std::sync::atomic::Ordering;
use std::time::Instant;

use cordada::lm::answer::{Answer, Asking, Estimate, Perplexity, has_answer, mean_score, score};
use cordada::lm::data::{Example, TokenizeOptions, read_examples, tokenize_answers};
use cordada::lm::reward::{self, Reward};
use cordada::lm::tasks::{self, Task};
use cordada::lm::train::Prompt;
use cordada::log::{Event, Sink, TerminalSink};
use serde_json::{Map, Value, json};

use super::args::EvalArgs;
use super::sample::{LONGEST, prompts};
use super::{Reader, usage};
use crate::interrupt::{STOP, watch};
use crate::output::Output;
use crate::report::Failure;

/// Examples or answers that are computed side by side.
const SIDE_BY_SIDE: usize = 128;

/// What was measured.
#[derive(Default)]
struct Measured {
    perplexity: Option<Perplexity>,
    prompts: usize,
    /// All answers' scores; none without a reward.
    score: Option<Estimate>,
    unscored: usize,
    cut: f64,
    length: f64,
    /// Parts of the score, and the task's figures of merit.
    figures: Vec<(String, f64)>,
}

pub(crate) fn run(args: &EvalArgs, output: Output) -> Result<(), Failure> {
    let task = args.task.as_deref().map(tasks::find).transpose().map_err(usage)?;
    let mut reward: Option<Box<dyn Reward>> = match (args.reward.is_empty(), task) {
        (false, _) => Some(Box::new(reward::parse_all(&args.reward).map_err(usage)?)),
        (true, Some(task)) => Some(task.reward()),
        (true, None) => None,
    };
    let examples = match (&args.data, task) {
        (Some(path), _) => read_examples(path)?,
        (None, Some(task)) => task.test(),
        (None, None) => unreachable!("the parser requires one of both"),
    };
    let answered: Vec<Example> = examples.iter().filter(|e| has_answer(e)).cloned().collect();
    if answered.is_empty() && reward.is_none() {
        return Err(Failure::usage(
            "there is nothing to measure: the examples have no answers, and there is no reward",
            "add \"completion\" to the examples, or score sampled answers with --reward",
        ));
    }
    let mut reader = Reader::open(&args.model)?;
    watch(output)?;
    let mut measured = Measured::default();
    if !answered.is_empty() {
        measured.perplexity = Some(perplexity(&mut reader, &answered, output)?);
    }
    if let Some(reward) = &mut reward {
        sampled(args, task, &mut reader, (&examples, &mut **reward), &mut measured, output)?;
    }
    tell(&measured, output);
    Ok(())
}

/// Progress on stderr.
struct Progress {
    sink: Option<TerminalSink>,
    began: Instant,
    total: usize,
}

impl Progress {
    fn new(what: &str, total: usize, output: Output) -> Self {
        let shown = !output.json && !output.quiet;
        let sink = shown.then(|| {
            let mut sink = TerminalSink::new(&output.terminal());
            sink.open(&format!("{what}: {total}"), total as u64);
            sink
        });
        Self { sink, began: Instant::now(), total }
    }

    /// Tells how far it is; an error if the user wants no more.
    fn at(&mut self, done: usize) -> Result<(), Failure> {
        let step = done as u64;
        if let Some(sink) = &mut self.sink {
            sink.record(&Event::Metrics { step, iteration: step, values: Vec::new() })?;
        }
        if STOP.load(Ordering::Relaxed) && done < self.total {
            return Err(Failure::interrupted());
        }
        Ok(())
    }

    fn close(mut self) {
        let (total, seconds) = (self.total, self.began.elapsed().as_secs_f64());
        if let Some(sink) = &mut self.sink {
            sink.close(&format!("done: {total} in {seconds:.1}s"));
        }
    }
}

fn perplexity(
    reader: &mut Reader,
    examples: &[Example],
    output: Output,
) -> Result<Perplexity, Failure> {
    let config = reader.model.transformer().config();
    let options = TokenizeOptions {
        // Left-out answers are told; how many may be is the reader's to judge.
        max_lost_share: 1.0,
        ..TokenizeOptions::new(config.max_positions, &config.eos_token_ids)
    };
    let data = tokenize_answers(&reader.tokenizer, examples, &options).map_err(usage)?;
    if data.report.dropped > 0 {
        let (n, all) = (data.report.dropped, data.report.examples);
        output.warning(&format!("{n} of {all} answers are too long for the model and left out"));
    }
    let mut measured = Perplexity::default();
    let mut progress =
        Progress::new("measuring the perplexity of answers", data.items.len(), output);
    for (i, part) in data.items.chunks(SIDE_BY_SIDE).enumerate() {
        measured.add(&mut reader.model, part);
        progress.at(i * SIDE_BY_SIDE + part.len())?;
    }
    progress.close();
    Ok(measured)
}

/// Samples and scores answers.
fn sampled(
    args: &EvalArgs,
    task: Option<&dyn Task>,
    reader: &mut Reader,
    (examples, reward): (&[Example], &mut dyn Reward),
    measured: &mut Measured,
    output: Output,
) -> Result<(), Failure> {
    let longest = task.map_or(LONGEST, Task::max_new_tokens);
    let sampling = reader.sampling(&args.sampling, longest)?;
    let prompts = prompts(reader, examples)?;
    let asking = Asking {
        tokenizer: &reader.tokenizer,
        sampling: &sampling,
        stop: &args.sampling.stop,
        samples: args.samples as usize,
        seed: args.sampling.seed,
    };
    let at_once = (SIDE_BY_SIDE / asking.samples).max(1);
    let mut progress = Progress::new("sampling answers to prompts", prompts.len(), output);
    let mut answers: Vec<Vec<Answer>> = Vec::new();
    for part in prompts.chunks(at_once) {
        let first = answers.len();
        answers.extend(asking.ask(&mut reader.model, part, first).map_err(usage)?);
        progress.at(answers.len())?;
    }
    progress.close();
    let scores = score(reward, &prompts, &answers).map_err(usage)?;
    for failure in reward.take_failures() {
        output.warning(&failure.to_string());
    }
    measured.prompts = prompts.len();
    measured.score = Some(mean_score(&scores));
    measured.unscored = scores.iter().flatten().filter(|s| s.is_nan()).count();
    let n = answers.iter().flatten().count() as f64;
    let all = || answers.iter().flatten();
    measured.cut = all().filter(|a| a.finish.is_cut()).count() as f64 / n;
    measured.length = all().map(|a| a.tokens as f64).sum::<f64>() / n;
    let parts = reward.report();
    measured.figures = parts.into_iter().map(|t| (format!("reward/{}", t.name), t.mean)).collect();
    if let Some(task) = task {
        measured.figures.extend(figures(task, &prompts, &answers));
    }
    Ok(())
}

fn figures(task: &dyn Task, prompts: &[Prompt], answers: &[Vec<Answer>]) -> Vec<(String, f64)> {
    let pairs: Vec<(&Example, &str)> = prompts
        .iter()
        .zip(answers)
        .flat_map(|(p, all)| all.iter().map(move |a| (&p.example, a.text.as_str())))
        .collect();
    task.evaluate(&pairs).into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn tell(measured: &Measured, output: Output) {
    let m = measured;
    if output.json {
        let mut object = Map::new();
        if let Some(p) = m.perplexity {
            object.insert("perplexity".into(), json!(p.value()));
            object.insert("scored_tokens".into(), json!(p.tokens));
        }
        if let Some(s) = m.score {
            object.insert("prompts".into(), json!(m.prompts));
            object.insert("score".into(), json!(s.mean));
            object.insert("score_half_width".into(), json!(s.half_width));
            object.insert("unscored".into(), json!(m.unscored));
            object.insert("cut".into(), json!(m.cut));
            object.insert("length".into(), json!(m.length));
        }
        let figures = m.figures.iter().map(|(name, value)| (name.clone(), json!(value)));
        object.extend(figures);
        return output.object(&Value::Object(object));
    }
    let row = |name: &str, text: String| output.line(format!("{name:<24}{text}"));
    if let Some(p) = m.perplexity {
        row("perplexity", format!("{:.3} over {} tokens of given answers", p.value(), p.tokens));
    }
    if let Some(s) = m.score {
        let (mean, half, n) = (s.mean, s.half_width, m.prompts);
        row("score", format!("{mean:.4} ± {half:.4} (95 %) over {n} prompts"));
        if m.unscored > 0 {
            row("unscored", format!("{} answers", m.unscored));
        }
        row("length", format!("{:.1} tokens, {:.1} % cut", m.length, 100.0 * m.cut));
    }
    for (name, value) in &m.figures {
        row(name, format!("{value:.4}"));
    }
}
