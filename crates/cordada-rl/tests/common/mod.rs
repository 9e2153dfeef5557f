//! What several test files share: making a learner from text, its whole state as bytes, and an
//! environment that is a few lines of script. What is tested stands in the test files.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![allow(dead_code, reason = "every test file compiles this one and uses a part of it")]

use std::path::Path;

use cordada_env::{Env, Outcome, Space, StateError, StateReader, StateWriter, Step, Stream};
use cordada_rl::Error;
use cordada_rl::algo::{self, AlgoSpec, Algorithm, Report, Setup};
use cordada_rl::policy::{ActorCritic, PolicyTape};
use cordada_rl::policy_file::{Policy, PolicySpec};
use toml::{Table, Value};

/// Length of the runs that learners of the tests believe to be in.
pub(crate) const TOTAL_STEPS: u64 = 100_000;

pub(crate) fn table(text: &str) -> Table {
    toml::from_str(text).unwrap()
}

pub(crate) fn ppo() -> &'static AlgoSpec {
    algo::find("ppo").unwrap()
}

/// A learner in an environment of the list.
pub(crate) fn make(env: &str, settings: &str, seed: u64, threads: usize) -> Box<dyn Algorithm> {
    let spec = cordada_env::find(env).unwrap();
    make_in(ppo(), &|| spec.build(), &table(settings), (seed, threads)).unwrap()
}

/// A learner in any environment.
pub(crate) fn make_in(
    algo: &AlgoSpec,
    make_env: &dyn Fn() -> Box<dyn Env>,
    settings: &Table,
    (seed, threads): (u64, usize),
) -> Result<Box<dyn Algorithm>, Error> {
    let total_steps = TOTAL_STEPS;
    (algo.make)(&Setup { env: "Test-v0", make_env, settings, seed, total_steps, threads })
}

/// Those of `wishes` that the algorithm has: so one list serves algorithms with other settings.
pub(crate) fn settings_for(algo: &AlgoSpec, wishes: Table) -> Table {
    let known = |key: &str| algo.fields.iter().any(|field| field.name == key);
    wishes.into_iter().filter(|(key, _)| known(key)).collect()
}

/// Changes of a run's config, as `--set` gives them.
pub(crate) fn changes(pairs: &[(&str, &str)]) -> Vec<(String, Value)> {
    let parse = |(key, value)| cordada_rl::config::parse_assignment(&format!("{key}={value}"));
    pairs.iter().copied().map(|pair| parse(pair).unwrap()).collect()
}

/// Everything but θ and the normalizer of observations.
pub(crate) fn state(algorithm: &dyn Algorithm) -> Vec<u8> {
    let mut w = StateWriter::new();
    algorithm.save(&mut w);
    w.into_bytes()
}

/// Restores a learner and asserts that all of the state is used up.
pub(crate) fn restore(algorithm: &mut dyn Algorithm, policy: &Policy, state: &[u8]) {
    let mut r = StateReader::new(state);
    algorithm.load(policy, &mut r).unwrap();
    r.finish().unwrap();
}

/// The policy written to a file and read again.
pub(crate) fn through_file(policy: &Policy, folder: &Path) -> Policy {
    let path = folder.join("policy.safetensors");
    std::fs::write(&path, policy.to_bytes().unwrap()).unwrap();
    Policy::read(&path).unwrap()
}

pub(crate) fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// Metrics with the bits of their values, so that NaN equals itself and 0 is not −0.
pub(crate) fn exact(report: &Report) -> Vec<(&'static str, u64)> {
    report.metrics.iter().map(|(name, value)| (*name, value.to_bits())).collect()
}

/// V(s) of a policy for each of the observations.
pub(crate) fn values(policy: &Policy, obs: &[f32]) -> Vec<f32> {
    let PolicySpec::ActorCritic(spec) = &policy.spec else { panic!("no values") };
    let network = ActorCritic::new(spec);
    let mut weights = network.weights();
    network.pack(&policy.theta, &mut weights);
    let (d, e) = (policy.input.obs_len(), policy.input.inputs());
    let mut x = vec![0.0; obs.len() / d * e];
    for (obs, x) in obs.chunks_exact(d).zip(x.chunks_exact_mut(e)) {
        policy.input.apply(obs, x);
    }
    network.value(&weights, &x, &mut [], &mut PolicyTape::default()).to_vec()
}

/// What step `t` of an episode gives for the observation before it and an action.
pub(crate) type Play = fn(u32, f32, &[f32]) -> (f64, Outcome);

/// An environment that is a script: what is seen after `t` steps of an episode, and what a step
/// from there gives. Observations are a row of one number.
#[derive(Clone)]
pub(crate) struct Scripted {
    pub(crate) action_space: Space,
    pub(crate) observe: fn(u32, &mut Stream) -> f32,
    pub(crate) play: Play,
    /// Which choices an observation allows, if not all.
    pub(crate) allow: Option<fn(f32, &mut [bool])>,
    obs_space: Space,
    t: u32,
    seen: f32,
}

impl Scripted {
    pub(crate) fn new(
        action_space: Space,
        observe: fn(u32, &mut Stream) -> f32,
        play: Play,
    ) -> Self {
        let obs_space = Space::vector(&[f32::NEG_INFINITY], &[f32::INFINITY]);
        Self { action_space, observe, play, allow: None, obs_space, t: 0, seen: 0.0 }
    }

    /// Makes copies.
    pub(crate) fn maker(self) -> impl Fn() -> Box<dyn Env> {
        move || Box::new(self.clone())
    }
}

impl Env for Scripted {
    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.t = 0;
        self.seen = (self.observe)(0, stream);
        obs[0] = self.seen;
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let (reward, outcome) = (self.play)(self.t, self.seen, action);
        self.t += 1;
        self.seen = (self.observe)(self.t, stream);
        obs[0] = self.seen;
        Step { reward, outcome }
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        self.allow.map(|allow| allow(self.seen, mask)).is_some()
    }

    fn save(&self, w: &mut StateWriter) {
        w.u32(self.t);
        w.f32(self.seen);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        (self.t, self.seen) = (r.u32()?, r.f32()?);
        Ok(())
    }
}
