//! The checker of environments: does an implementation keep the contract of `Env`? Whether its
//! dynamics are right is the question of `replay`.

use std::fmt;

use serde::Serialize;

use crate::env::{Env, Outcome};
use crate::space::Space;
use crate::state::{StateReader, StateWriter};
use crate::stream::{Stream, role};

#[cfg(test)]
pub(crate) mod probe;
#[cfg(test)]
mod tests;

/// What to check, and how long.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckOptions {
    /// Seed of the environment's stream and of the random actions.
    pub seed: u64,
    /// Steps of each run.
    pub steps: usize,
    /// Every episode has to end within this number of steps, if given.
    pub max_episode_steps: Option<u32>,
    /// Whether a reset has to leave no trace of earlier episodes. False for environments that keep
    /// running statistics, as normalizing wrappers do.
    pub memoryless_reset: bool,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { seed: 0, steps: 1000, max_episode_steps: None, memoryless_reset: true }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check.
    pub check: &'static str,
    /// Whether the environment passed it.
    pub passed: bool,
    /// What was done, or the first thing that was wrong.
    pub detail: String,
}

/// The results of all checks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One finding per check.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        self.findings.iter().all(|finding| finding.passed)
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.passed)
    }

    fn add(&mut self, check: &'static str, result: Result<String, String>) {
        let passed = result.is_ok();
        let (Ok(detail) | Err(detail)) = result;
        self.findings.push(Finding { check, passed, detail });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { check, passed, detail } in &self.findings {
            let verdict = if *passed { "ok" } else { "FAILED" };
            writeln!(f, "{check}: {verdict}: {detail}")?;
        }
        Ok(())
    }
}

/// Checks that an environment keeps the contract of [`Env`], with random allowed actions.
///
/// | check | passes if |
/// |---|---|
/// | `spaces` | rows are not empty, spaces do not change, sampled actions are in their space |
/// | `obs_written` | reset and step write every number of the observation |
/// | `obs_in_space` | every observation is in its space |
/// | `reward_finite` | every reward is a finite number |
/// | `action_mask` | the mask is written in full or not at all, and always allows something |
/// | `time_limit` | no episode is longer than the limit (only if one is given) |
/// | `determinism` | the same stream and the same actions give the same bits |
/// | `save_load` | a restored environment saves the same bytes and continues identically |
/// | `reset` | after a reset nothing is left of earlier episodes (unless that is waived) |
///
/// A panic of the environment is not caught.
pub fn check(make: impl Fn() -> Box<dyn Env>, options: &CheckOptions) -> Report {
    let mut report = Report::default();
    let spaces = check_spaces(&make, options);
    let usable = spaces.is_ok();
    report.add("spaces", spaces);
    if !usable {
        return report; // without spaces there is nothing to play with
    }
    check_play(&mut report, &make, options);
    report.add("determinism", check_determinism(&make, options));
    report.add("save_load", check_save_load(&make, options));
    if options.memoryless_reset {
        report.add("reset", check_reset(&make, options));
    }
    report
}

/// A number that no environment writes: a NaN with a payload of its own.
const UNWRITTEN: u32 = 0x7fc0_beef;

/// An environment that is being played with random actions.
struct Run {
    env: Box<dyn Env>,
    stream: Stream,
    policy: Stream,
    obs: Vec<f32>,
    action: Vec<f32>,
    mask: Vec<bool>,
}

/// What a step shows, in bits, so that NaNs and signs of zero count.
#[derive(Debug, PartialEq)]
struct Shown {
    obs: Vec<u32>,
    reward: u64,
    outcome: Outcome,
    drawn: u64,
}

impl Run {
    fn new(env: Box<dyn Env>, seed: u64) -> Self {
        let obs = vec![0.0; env.obs_space().len()];
        let action = vec![0.0; env.action_space().len()];
        let mask = vec![true; env.action_space().num_choices()];
        let (stream, policy) =
            (Stream::new(seed, role::ENV, 0), Stream::new(seed, role::POLICY, 0));
        Self { env, stream, policy, obs, action, mask }
    }

    fn reset(&mut self) {
        self.obs.fill(f32::from_bits(UNWRITTEN));
        self.env.reset(&mut self.stream, &mut self.obs);
    }

    /// One step with a random allowed action; returns reward and outcome.
    fn step(&mut self) -> (f64, Outcome) {
        let masked = self.env.action_mask(&mut self.mask);
        let mask = if masked { &self.mask[..] } else { &[] };
        let space = self.env.action_space();
        space.sample_masked(&mut self.policy, mask, &mut self.action);
        self.obs.fill(f32::from_bits(UNWRITTEN));
        let step = self.env.step(&self.action, &mut self.stream, &mut self.obs);
        (step.reward, step.outcome)
    }

    /// One step, with a reset after the end of an episode.
    fn advance(&mut self) -> Shown {
        let (reward, outcome) = self.step();
        if outcome.ended() {
            self.reset();
        }
        self.shown(reward, outcome)
    }

    fn shown(&self, reward: f64, outcome: Outcome) -> Shown {
        let obs = self.obs.iter().map(|x| x.to_bits()).collect();
        Shown { obs, reward: reward.to_bits(), outcome, drawn: self.stream.counter() }
    }

    /// Plays both for a while; the first step at which they differ is an error.
    fn compare(&mut self, other: &mut Self, steps: usize, what: &str) -> Result<(), String> {
        for t in 0..steps {
            let (ours, theirs) = (self.advance(), other.advance());
            if ours != theirs {
                return Err(format!("{what} at step {t}: {ours:?} against {theirs:?}"));
            }
        }
        Ok(())
    }
}

fn check_spaces(make: &dyn Fn() -> Box<dyn Env>, options: &CheckOptions) -> Result<String, String> {
    let env = make();
    let (obs_space, action_space) = (env.obs_space().clone(), env.action_space().clone());
    if obs_space.is_empty() || action_space.is_empty() {
        return Err(format!("an empty row: observations {obs_space}, actions {action_space}"));
    }
    let mut policy = Stream::new(options.seed, role::POLICY, 0);
    let mut action = vec![0.0; action_space.len()];
    for _ in 0..100 {
        action_space.sample(&mut policy, &mut action);
        action_space.contains(&action).map_err(|error| format!("sampled action: {error}"))?;
    }
    let mut run = Run::new(env, options.seed);
    run.reset();
    run.advance();
    if *run.env.obs_space() != obs_space || *run.env.action_space() != action_space {
        return Err("spaces changed with a step".into());
    }
    Ok(format!("observations {obs_space}, actions {action_space}"))
}

/// The checks that look at one long run; each keeps the first thing that is wrong.
fn check_play(report: &mut Report, make: &dyn Fn() -> Box<dyn Env>, options: &CheckOptions) {
    let mut run = Run::new(make(), options.seed);
    let (mut written, mut in_space) = (Ok(()), Ok(()));
    let (mut finite, mut mask, mut limit) = (Ok(()), Ok(()), Ok(()));
    let (mut elapsed, mut episodes) = (0u32, 0);
    run.reset();
    for t in 0..options.steps {
        written = written.and_then(|()| check_written(&run.obs, t));
        let found = run.env.obs_space().contains(&run.obs);
        in_space = in_space.and_then(|()| found.map_err(|error| format!("step {t}: {error}")));
        mask = mask.and_then(|()| check_mask(&*run.env, t));
        if mask.is_err() {
            break; // a wrong mask cannot be followed
        }
        let (reward, outcome) = run.step();
        elapsed += 1;
        let wrong = format!("step {t}: reward {reward}");
        finite = finite.and(if reward.is_finite() { Ok(()) } else { Err(wrong) });
        if outcome.ended() {
            episodes += 1;
            elapsed = 0;
            written = written.and_then(|()| check_written(&run.obs, t));
            run.reset();
        } else if options.max_episode_steps.is_some_and(|max| elapsed >= max) {
            let wrong = format!("step {t}: the episode goes on after {elapsed} steps");
            limit = limit.and(Err(wrong));
        }
    }
    let done = |result: Result<(), String>| {
        result.map(|()| format!("{} steps, {episodes} finished episodes", options.steps))
    };
    report.add("obs_written", done(written));
    report.add("obs_in_space", done(in_space));
    report.add("reward_finite", done(finite));
    report.add("action_mask", done(mask));
    if options.max_episode_steps.is_some() {
        report.add("time_limit", done(limit));
    }
}

fn check_written(obs: &[f32], t: usize) -> Result<(), String> {
    match obs.iter().position(|x| x.to_bits() == UNWRITTEN) {
        Some(i) => Err(format!("step {t}: component [{i}] was not written")),
        None => Ok(()),
    }
}

fn check_mask(env: &dyn Env, t: usize) -> Result<(), String> {
    let n = env.action_space().num_choices();
    let (mut over_true, mut over_false) = (vec![true; n], vec![false; n]);
    let masked = env.action_mask(&mut over_true);
    if env.action_mask(&mut over_false) != masked {
        return Err(format!("step {t}: once there is a mask and once there is none"));
    }
    if !masked {
        let untouched = over_true.iter().all(|&m| m) && over_false.iter().all(|&m| !m);
        let wrong = || format!("step {t}: the mask was written but reported as absent");
        return if untouched { Ok(()) } else { Err(wrong()) };
    }
    if over_true != over_false {
        return Err(format!("step {t}: the mask was not written in full"));
    }
    let mut sizes = vec![];
    choice_sizes(env.action_space(), &mut sizes);
    let mut rest = &over_true[..];
    for (i, size) in sizes.into_iter().enumerate() {
        let (allowed, tail) = rest.split_at(size);
        if !allowed.contains(&true) {
            return Err(format!("step {t}: the mask allows none of the choices of component {i}"));
        }
        rest = tail;
    }
    Ok(())
}

/// How many choices each discrete component has.
fn choice_sizes(space: &Space, sizes: &mut Vec<usize>) {
    match space {
        Space::Discrete { n } => sizes.push(*n),
        Space::MultiDiscrete { nvec } => sizes.extend(nvec),
        Space::MultiBinary { n } => sizes.extend(std::iter::repeat_n(2, *n)),
        Space::Box(_) => {}
        Space::Dict(parts) => parts.iter().for_each(|(_, part)| choice_sizes(part, sizes)),
    }
}

fn check_determinism(
    make: &dyn Fn() -> Box<dyn Env>,
    options: &CheckOptions,
) -> Result<String, String> {
    let (mut one, mut two) = (Run::new(make(), options.seed), Run::new(make(), options.seed));
    one.reset();
    two.reset();
    if one.shown(0.0, Outcome::Continue) != two.shown(0.0, Outcome::Continue) {
        return Err("two environments differ after the reset".into());
    }
    one.compare(&mut two, options.steps, "two environments differ")?;
    Ok(format!("two environments are identical for {} steps", options.steps))
}

fn check_save_load(
    make: &dyn Fn() -> Box<dyn Env>,
    options: &CheckOptions,
) -> Result<String, String> {
    // Right after the reset, soon after it, and somewhere later.
    for at in [0, 1, 7, options.steps / 2] {
        let mut run = Run::new(make(), options.seed);
        run.reset();
        for _ in 0..at {
            run.advance();
        }
        let mut w = StateWriter::new();
        run.env.save(&mut w);
        let saved = w.into_bytes();

        let (stream, policy) = (run.stream, run.policy);
        let mut restored = Run { stream, policy, ..Run::new(make(), options.seed) };
        let mut r = StateReader::new(&saved);
        let loaded = restored.env.load(&mut r).and_then(|()| r.finish());
        loaded.map_err(|error| format!("saved at step {at}: {error}"))?;
        let mut w = StateWriter::new();
        restored.env.save(&mut w);
        if w.as_bytes() != saved {
            return Err(format!("saved at step {at}: the restored one saves other bytes"));
        }
        let what = format!("saved at step {at}: the restored one differs");
        run.compare(&mut restored, options.steps / 2, &what)?;
    }
    Ok(format!("restored from 4 points, identical for {} steps", options.steps / 2))
}

fn check_reset(make: &dyn Fn() -> Box<dyn Env>, options: &CheckOptions) -> Result<String, String> {
    let mut used = Run::new(make(), options.seed);
    used.reset();
    let first = used.shown(0.0, Outcome::Continue).obs;
    for _ in 0..options.steps / 2 {
        used.advance();
    }
    let mut fresh = Run::new(make(), options.seed);
    (fresh.stream, fresh.policy) = (used.stream, used.policy);
    used.reset();
    fresh.reset();
    if used.shown(0.0, Outcome::Continue) != fresh.shown(0.0, Outcome::Continue) {
        return Err("a used environment starts otherwise than a fresh one".into());
    }
    let again = used.shown(0.0, Outcome::Continue).obs;
    let what = "a used environment differs from a fresh one after the reset";
    used.compare(&mut fresh, options.steps / 2, what)?;
    let starts = if first == again { "the same start twice" } else { "random starts" };
    Ok(format!("a used environment is like a fresh one; {starts}"))
}
