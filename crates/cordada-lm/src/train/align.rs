//! Alignment: sample responses, score them, and ascend a surrogate of the score. One loop for all
//! of [`METHODS`](super::METHODS).

use std::collections::BTreeMap;

use cordada_env::{Persist, StateReader, StateWriter, Stream, role};
use cordada_nn::OptimizerConfig;
use cordada_rl::estimate::{explained_variance, soft_overlong_penalty};
use cordada_rl::objective::{BatchCounts, ProportionalKl};

use super::advantage::{Advantages, Baseline, Responses};
use super::method::AlignSettings;
use super::metrics::Spread;
use super::stage::{Broken, Stage, StageReport};
use super::surrogate::{Pass, Surrogate};
use crate::data::{Batches, Example, Order};
use crate::reward::{Response, Reward};
use crate::tokenizer::{Special, Tokenizer};
use crate::{Completion, Error, Finish, Group, LanguageModel, Request, Sampling, StepSettings};

/// Steps without any signal after which there is a warning.
const DULL_STEPS: u64 = 10;
/// Largest vocabulary for which the exact KL is computed.
const EXACT_KL_VOCABULARY: usize = 4096;

/// A prompt, ready to be sampled from.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// What a verifier may need to know.
    pub example: Example,
    /// Its text, as the model sees it.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
}

/// What alignment works with.
#[derive(Debug)]
pub struct AlignSetup {
    /// Switches of the method.
    pub settings: AlignSettings,
    /// The policy, trainable; with a value head if the settings have a critic.
    pub model: Box<dyn LanguageModel>,
    /// The model that the KL is taken to, where it is not the policy without its adapter.
    pub reference: Option<Box<dyn LanguageModel>>,
    /// Of the model.
    pub tokenizer: Tokenizer,
    /// Prompts to sample from.
    pub prompts: Vec<Prompt>,
    /// Scores responses.
    pub reward: Box<dyn Reward>,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Of every random stream.
    pub seed: u64,
}

/// Alignment under way.
#[derive(Debug)]
pub struct Align {
    setup: AlignSetup,
    sampling: Sampling,
    /// Which prompts come next, one at a time.
    cursor: Batches,
    shuffles: u32,
    beta: f64,
    baseline: Baseline,
    step: u64,
    /// Responses sampled so far: the next random stream.
    sampled: u64,
    /// Steps without any signal in a row.
    dull_steps: u64,
    /// Metrics of the reward's terms, under the names that they were first seen with.
    term_names: BTreeMap<String, &'static str>,
    last: Batch,
}

/// The responses of a step, as they were sampled and scored.
#[derive(Clone, Debug, Default)]
struct Batch {
    /// Prompts, and each one's completions.
    prompts: Vec<usize>,
    completions: Vec<Vec<Completion<f32>>>,
    texts: Vec<String>,
    scores: Vec<f64>,
}

impl Align {
    /// At the beginning.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if there are no prompts or one is too long for the model.
    pub fn new(setup: AlignSetup) -> Result<Self, Error> {
        let s = &setup.settings;
        if setup.prompts.is_empty() {
            return Err(Error::Setting("there are no prompts to sample from".into()));
        }
        let positions = setup.model.config().max_positions;
        let longest = setup.prompts.iter().map(|p| p.tokens.len()).max().unwrap_or(0);
        if longest + s.max_new_tokens > positions {
            return Err(Error::Setting(format!(
                "max_new_tokens = {} after a prompt of {longest} tokens is more than the model's \
                 {positions} positions; lower it, or shorten the prompts",
                s.max_new_tokens
            )));
        }
        let vocabulary = setup.model.config().vocab_size;
        if s.has_exact_kl() && vocabulary > EXACT_KL_VOCABULARY {
            return Err(Error::Setting(format!(
                "kl_estimator = exact keeps the reference's whole distribution of every token, and \
                 the vocabulary has {vocabulary}; up to {EXACT_KL_VOCABULARY} are allowed: set \
                 kl_estimator=k2"
            )));
        }
        let sampling = Sampling {
            temperature: s.temperature,
            max_new_tokens: s.max_new_tokens,
            stop_tokens: setup.model.config().eos_token_ids.clone(),
            ..Sampling::default()
        };
        let lengths = setup.prompts.iter().map(|p| p.tokens.len()).collect();
        let cursor = Batches::new(lengths, 1, Order::Shuffled, setup.seed)?;
        Ok(Self {
            beta: s.kl_coef,
            setup,
            sampling,
            cursor,
            shuffles: 0,
            baseline: Baseline::default(),
            step: 0,
            sampled: 0,
            dull_steps: 0,
            term_names: BTreeMap::new(),
            last: Batch::default(),
        })
    }

    /// The optimizer that its model needs.
    pub fn optimizer(settings: &AlignSettings) -> OptimizerConfig {
        match OptimizerConfig::adamw() {
            OptimizerConfig::AdamW { beta1, beta2, eps, amsgrad, .. } => OptimizerConfig::AdamW {
                beta1,
                beta2,
                eps,
                amsgrad,
                weight_decay: settings.weight_decay,
            },
            other => other,
        }
    }

    /// The model as it is now, and its tokenizer, for looking at on the way.
    pub fn model_and_tokenizer(&mut self) -> (&mut dyn LanguageModel, &Tokenizer) {
        (&mut *self.setup.model, &self.setup.tokenizer)
    }

    /// The model, when training is over.
    pub fn into_model(self) -> (Box<dyn LanguageModel>, Tokenizer) {
        (self.setup.model, self.setup.tokenizer)
    }

    /// Samples and scores the responses of some prompts.
    fn sample(&mut self, prompts: Vec<usize>) -> Result<Batch, Error> {
        let g = self.setup.settings.group_size;
        let requests: Vec<Request> = prompts
            .iter()
            .map(|&p| {
                let stream = self.sampled as u32;
                self.sampled += g as u64;
                Request { prompt: self.setup.prompts[p].tokens.clone(), samples: g, stream }
            })
            .collect();
        let completions =
            self.setup.model.generate(&requests, &self.sampling, self.setup.seed, None)?;
        let mut texts = Vec::with_capacity(prompts.len() * g);
        for completion in completions.iter().flatten() {
            texts.push(self.setup.tokenizer.decode(text_tokens(completion), Special::Skip)?);
        }
        let all = prompts.iter().flat_map(|&p| std::iter::repeat_n(p, g));
        let responses: Vec<Response<'_>> = all
            .zip(completions.iter().flatten().zip(&texts))
            .map(|(p, (completion, text))| Response {
                example: &self.setup.prompts[p].example,
                prompt: &self.setup.prompts[p].text,
                text,
                tokens: completion.tokens.len(),
                finish: completion.finish,
            })
            .collect();
        let scores = self.setup.reward.score(&responses)?;
        Ok(Batch { prompts, completions, texts, scores })
    }

    /// The responses of a step; prompts whose responses all scored the same are replaced by others,
    /// as often as the settings say. Also the number of prompts that were replaced.
    fn collect(&mut self) -> Result<(Batch, usize), Error> {
        let (wanted, g) = (self.setup.settings.prompts_per_step, self.setup.settings.group_size);
        let prompts = (0..wanted).map(|_| self.cursor.next_batch()[0]).collect();
        let mut batch = self.sample(prompts)?;
        let mut replaced = 0;
        for _ in 0..self.setup.settings.resample {
            let dull: Vec<usize> = (0..wanted)
                .filter(|&i| {
                    let scores = &batch.scores[i * g..(i + 1) * g];
                    !cordada_rl::estimate::has_signal(scores)
                })
                .collect();
            if dull.is_empty() {
                break;
            }
            replaced += dull.len();
            let prompts = (0..dull.len()).map(|_| self.cursor.next_batch()[0]).collect();
            let fresh = self.sample(prompts)?;
            for (j, &i) in dull.iter().enumerate() {
                batch.prompts[i] = fresh.prompts[j];
                batch.completions[i].clone_from(&fresh.completions[j]);
                for k in 0..g {
                    batch.texts[i * g + k].clone_from(&fresh.texts[j * g + k]);
                    batch.scores[i * g + k] = fresh.scores[j * g + k];
                }
            }
        }
        Ok((batch, replaced))
    }

    fn groups(&self, batch: &Batch) -> Vec<Group> {
        let prompts = batch.prompts.iter().zip(&batch.completions);
        prompts
            .map(|(&p, completions)| {
                let tokens = completions.iter().map(|c| c.tokens.clone()).collect();
                Group::new(self.setup.prompts[p].tokens.clone(), tokens)
            })
            .collect()
    }

    /// Scores, with what the settings add for responses that were cut or came near it.
    fn shaped_scores(&self, batch: &Batch) -> Vec<f32> {
        let s = &self.setup.settings;
        let completions = batch.completions.iter().flatten();
        completions
            .zip(&batch.scores)
            .map(|(completion, &score)| {
                let cut = completion.finish != Finish::StopToken;
                let mut score = score;
                if cut && s.mask_truncated {
                    return f32::NAN;
                }
                if cut {
                    score += s.truncation_penalty;
                }
                if s.overlong_buffer > 0 {
                    let length = completion.tokens.len();
                    score += soft_overlong_penalty(length, s.max_new_tokens, s.overlong_buffer);
                }
                score as f32
            })
            .collect()
    }

    /// What the advantages are made of.
    fn responses(&mut self, batch: &Batch, groups: &[Group]) -> Responses {
        let completions = || batch.completions.iter().flatten();
        let scores = self.shaped_scores(batch);
        let s = &mut self.setup;
        let temperature = s.settings.temperature;
        // Without a model of its own, the reference is the policy without its adapter.
        let base = s.reference.is_none();
        let reference = s.reference.as_mut().unwrap_or(&mut s.model);
        let measured = self.beta > 0.0 || s.settings.kl_limit.is_some();
        let ref_log_prob = match (measured, base) {
            (false, _) => Vec::new(),
            (true, false) => reference.log_prob(groups, temperature).log_prob,
            (true, true) => reference.base_log_prob(groups, temperature).log_prob,
        };
        let ref_distributions = if s.settings.has_exact_kl() {
            reference.distributions(groups, temperature, base)
        } else {
            Vec::new()
        };
        let values = if s.settings.has_critic() {
            s.model.log_prob(groups, temperature).value
        } else {
            Vec::new()
        };
        Responses {
            lengths: completions().map(|c| c.tokens.len()).collect(),
            scores,
            old_log_prob: completions().flat_map(|c| c.log_prob.iter().copied()).collect(),
            ref_log_prob,
            ref_distributions,
            values,
        }
    }

    /// Of the present step.
    fn learning_rate(&self) -> f64 {
        let settings = &self.setup.settings;
        settings.learning_rate.at(self.step as f64 / self.setup.total_steps as f64)
    }

    /// Passes over the responses: the gradient steps.
    fn learn(&mut self, groups: &[Group], responses: &Responses, targets: &Advantages) -> Pass {
        let s = self.setup.settings.clone();
        let (g, n) = (s.group_size, groups.len());
        let starts = responses.starts();
        let learning_rate = self.learning_rate();
        let mut pass = Pass::default();
        for epoch in 0..s.epochs {
            let mut order: Vec<usize> = (0..n).collect();
            Stream::new(self.setup.seed, role::SHUFFLE, self.shuffles).shuffle(&mut order);
            self.shuffles = (self.shuffles + 1) & (u32::MAX >> 1);
            for minibatch in 0..s.minibatches {
                let range = n * minibatch / s.minibatches..n * (minibatch + 1) / s.minibatches;
                let chosen = &order[range];
                let part: Vec<Group> = chosen.iter().map(|&i| groups[i].clone()).collect();
                let numbers: Vec<usize> = chosen.iter().flat_map(|&i| i * g..(i + 1) * g).collect();
                let objective = Surrogate {
                    settings: &s,
                    beta: self.beta,
                    responses,
                    targets,
                    starts: &starts,
                    counts: BatchCounts::of(numbers.iter().map(|&i| responses.lengths[i])),
                    policy: self.step >= s.value_warmup,
                };
                let first = epoch == 0 && minibatch == 0;
                let reference = responses.distributions_of(&numbers, &starts);
                self.setup.model.score_near(
                    &part,
                    s.temperature,
                    &reference,
                    &mut |i, scores, d| {
                        objective.derive(numbers[i], scores, d, &mut pass, first);
                    },
                );
                let norm = self.setup.model.step(StepSettings {
                    learning_rate,
                    value_learning_rate: learning_rate * s.value_learning_rate_factor,
                    max_grad_norm: s.max_grad_norm,
                });
                pass.grad_norm.add(norm);
                if !norm.is_finite() {
                    return pass;
                }
            }
        }
        pass
    }

    fn report(
        &self,
        batch: &Batch,
        responses: &Responses,
        targets: &Advantages,
        pass: &Pass,
        replaced: usize,
    ) -> StageReport {
        let n = batch.scores.len() as f64;
        let share = |f: &dyn Fn(&Completion<f32>) -> bool| {
            batch.completions.iter().flatten().filter(|c| f(c)).count() as f64 / n
        };
        let scores: Spread = batch.scores.iter().copied().filter(|s| !s.is_nan()).collect();
        let lengths: Spread = responses.lengths.iter().map(|&l| l as f64).collect();
        let kl: Spread = responses.kl_per_response().into_iter().collect();
        let advantages: Spread = targets.advantages.iter().map(|&a| f64::from(a)).collect();
        let mut metrics = vec![
            ("reward/mean", scores.mean()),
            ("reward/std", scores.std()),
            ("reward/no_signal", responses.share_without_signal(self.setup.settings.group_size)),
            ("reward/replaced_prompts", replaced as f64),
            ("reward/unscored", batch.scores.iter().filter(|s| s.is_nan()).count() as f64),
            ("response/length", lengths.mean()),
            ("response/cut", share(&|c| c.finish != Finish::StopToken)),
            ("train/objective", pass.objective.get()),
            ("train/entropy", pass.entropy.get()),
            ("train/clip_fraction", pass.clipped.get()),
            ("train/clip_fraction_low", pass.clipped_low.get()),
            ("train/approx_kl", pass.old_kl.get()),
            ("train/ratio_mean", pass.ratio.mean()),
            ("train/ratio_std", pass.ratio.std()),
            ("train/ratio_min", pass.ratio.min()),
            ("train/ratio_max", pass.ratio.max()),
            ("train/grad_norm", pass.grad_norm.get()),
            ("train/sampling_mismatch", pass.mismatch),
            ("train/learning_rate", self.learning_rate()),
            ("train/advantage_mean", advantages.mean()),
            ("train/advantage_std", advantages.std()),
        ];
        if kl.count() > 0 {
            metrics.extend(self.kl_metrics(responses, scores.mean(), kl.mean()));
        }
        if self.setup.settings.has_critic() {
            metrics.push(("train/value_loss", pass.value_loss.get()));
            let explained = explained_variance(&responses.values, &targets.returns);
            metrics
                .extend(explained.is_finite().then_some(("train/explained_variance", explained)));
        }
        let mut warnings = Vec::new();
        if kl.count() > 1 && kl.mean() < -4.0 * kl.standard_error() - 1e-6 {
            warnings.push(format!(
                "the mean KL to the reference is {:.4}, below zero by more than its error of {:.4}: \
                 a KL divergence cannot be; sampling and training disagree about the policy",
                kl.mean(),
                kl.standard_error()
            ));
        }
        if pass.mismatch > 0.0 {
            warnings.push(format!(
                "log-probabilities at sampling and in training differ by up to {:e}; they should be \
                 the same bits",
                pass.mismatch
            ));
        }
        StageReport { metrics, warnings }
    }
}

impl Align {
    /// What is told of the distance from the reference.
    fn kl_metrics(&self, responses: &Responses, score: f64, kl: f64) -> [(&'static str, f64); 5] {
        let k1 = responses.kl();
        let per_token: Spread = k1.iter().map(|&k1| f64::from(k1)).collect();
        // k3 of every token: never below 0.
        let k3: Spread = k1.iter().map(|&k1| f64::from(-k1).exp_m1() + f64::from(k1)).collect();
        [
            ("kl/response", kl),
            ("kl/token", per_token.mean()),
            ("kl/token_k3", k3.mean()),
            ("kl/coefficient", self.beta),
            ("reward/minus_kl", score - self.beta * kl),
        ]
    }

    /// Refuses a batch that is too far from the reference, before anything is learned from it.
    fn check_kl(&self, responses: &Responses) -> Result<(), Error> {
        let kl: Spread = responses.kl_per_response().into_iter().collect();
        let mean = kl.mean();
        if self.setup.settings.kl_limit.is_some_and(|limit| mean > limit) {
            return Err(Error::Setting(format!(
                "the mean KL of step {} is {mean:.2}, above kl_limit; the batch is saved. Raise \
                 kl_coef, lower the learning rate, or raise kl_limit",
                self.step
            )));
        }
        Ok(())
    }

    /// Counts steps that teach nothing, and warns where they become many.
    fn watch_signal(&mut self, responses: &Responses, report: &mut StageReport) {
        let settings = &self.setup.settings;
        let of_all = responses.share_without_signal(responses.scores.len());
        let of_groups = responses.share_without_signal(settings.group_size);
        let dull = of_all == 1.0 || (settings.compares_responses() && of_groups == 1.0);
        self.dull_steps = if dull { self.dull_steps + 1 } else { 0 };
        if self.dull_steps == DULL_STEPS {
            report.warnings.push(format!(
                "for {DULL_STEPS} steps all responses to a prompt have scored the same: nothing is \
                 learned from them. Look at some with `cordada rlhf eval`; then raise group_size or \
                 the temperature, choose easier prompts, or a reward that tells more"
            ));
        }
    }

    /// Adds what the reward says of its terms and of responses that it could not score.
    fn tell_terms(&mut self, report: &mut StageReport) {
        for term in self.setup.reward.report() {
            let known = self.term_names.get(&term.name).copied();
            let name = known.unwrap_or_else(|| {
                // Metrics have names that live as long as the program; a reward has a few terms.
                let name: &'static str = format!("reward/term_{}", term.name).leak();
                self.term_names.insert(term.name.clone(), name);
                name
            });
            report.metrics.push((name, term.mean));
        }
        let failures = self.setup.reward.take_failures();
        report.warnings.extend(failures.iter().map(ToString::to_string));
    }
}

/// The tokens of a completion that are text: without the token that ended it.
fn text_tokens(completion: &Completion<f32>) -> &[u32] {
    match completion.finish {
        Finish::StopToken => &completion.tokens[..completion.tokens.len() - 1],
        _ => &completion.tokens,
    }
}

impl Stage for Align {
    fn iterate(&mut self) -> Result<StageReport, Error> {
        let (batch, replaced) = self.collect()?;
        let groups = self.groups(&batch);
        let responses = self.responses(&batch, &groups);
        self.last = batch;
        self.check_kl(&responses)?;
        let targets = responses.advantages(&self.setup.settings, self.beta, &mut self.baseline);
        let pass = self.learn(&groups, &responses, &targets);
        let mut report = self.report(&self.last, &responses, &targets, &pass, replaced);
        self.tell_terms(&mut report);
        self.watch_signal(&responses, &mut report);
        if !pass.grad_norm.get().is_finite() {
            return Err(Error::Setting(format!(
                "a gradient of step {} is not finite; it was dropped. The batch is saved; lower \
                 the learning rate, or look at its scores",
                self.step
            )));
        }
        let kl = responses.kl_per_response();
        if !kl.is_empty() {
            let mean = kl.iter().sum::<f64>() / kl.len() as f64;
            if let Some(target) = self.setup.settings.kl_target {
                let horizon = self.setup.settings.kl_horizon;
                let mut controller = ProportionalKl { beta: self.beta, target, horizon };
                controller.update(mean, kl.len());
                self.beta = controller.beta;
            }
        }
        self.step += 1;
        Ok(report)
    }

    fn step(&self) -> u64 {
        self.step
    }

    fn total_steps(&self) -> u64 {
        self.setup.total_steps
    }

    fn model(&self) -> &dyn LanguageModel {
        &*self.setup.model
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.setup.tokenizer
    }

    fn last_batch(&self) -> Vec<Broken> {
        let g = self.setup.settings.group_size;
        let prompts = self.last.prompts.iter().flat_map(|&p| std::iter::repeat_n(p, g));
        prompts
            .zip(self.last.texts.iter().zip(&self.last.scores))
            .map(|(p, (text, &score))| Broken {
                prompt: self.setup.prompts[p].text.clone(),
                response: text.clone(),
                score: score.is_finite().then_some(score),
            })
            .collect()
    }

    fn save(&self, w: &mut StateWriter) {
        w.u64(self.step);
        w.u64(self.sampled);
        w.u64(u64::from(self.shuffles));
        w.u64(self.dull_steps);
        w.f64(self.beta);
        let (mean, batches) = self.baseline.state();
        w.f64(mean);
        w.u64(batches);
        self.cursor.save(w);
        self.setup.model.save(w);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), Error> {
        let state = |e: cordada_env::StateError| Error::Setting(e.to_string());
        self.step = r.u64().map_err(state)?;
        self.sampled = r.u64().map_err(state)?;
        self.shuffles = r.u64().map_err(state)? as u32;
        self.dull_steps = r.u64().map_err(state)?;
        self.beta = r.f64().map_err(state)?;
        self.baseline = Baseline::restore(r.f64().map_err(state)?, r.u64().map_err(state)?);
        self.cursor.load(r).map_err(state)?;
        self.setup.model.load(r).map_err(state)
    }
}

#[cfg(test)]
mod tests;
