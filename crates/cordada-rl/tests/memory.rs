//! Policies with memory: gradients through time, sequences against single steps, and a task that
//! cannot be solved without remembering.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{make_in, settings_for, table};
use cordada_env::{Env, Outcome, Space, StateError, StateReader, StateWriter, Step, Stream, role};
use cordada_nn::{Cell, Init};
use cordada_rl::algo::ALGORITHMS;
use cordada_rl::evaluate::{EvalOptions, evaluate};
use cordada_rl::policy::{
    ActorCritic, ActorCriticSpec, Encoder, LogStd, MemorySpec, PolicyTape, Sequences,
};
use cordada_testkit::gradient::assert_gradient;

const STEPS: usize = 5;
const BATCH: usize = 3;
const INPUTS: usize = 2;

fn spec(cell: Cell, trunk: &[usize]) -> ActorCriticSpec {
    ActorCriticSpec {
        inputs: INPUTS,
        action_space: Space::vector(&[-1.0; 2], &[1.0; 2]),
        encoder: Encoder::Flat,
        trunk: trunk.to_vec(),
        memory: Some(MemorySpec { cell: cell.name().to_string(), size: 4 }),
        actor: vec![3],
        critic: Some(vec![3]),
        activation: "tanh".into(),
        layer_norm: false,
        log_std: LogStd::Shared,
        squash: false,
    }
}

/// Where episodes begin: in the middle of one sequence, at the beginning of another.
fn starts() -> Vec<bool> {
    let mut starts = vec![false; STEPS * BATCH];
    starts[2 * BATCH + 1] = true;
    starts[2] = true;
    starts
}

fn normals(n: usize) -> Vec<f64> {
    let mut stream = Stream::new(3, role::INIT, 1);
    (0..n).map(|_| stream.normal()).collect()
}

#[test]
fn the_gradient_through_time_is_that_of_differences() {
    for cell in Cell::ALL {
        for trunk in [&[][..], &[3]] {
            let network = ActorCritic::new(&spec(cell, trunk));
            let mut stream = Stream::new(1, role::INIT, 0);
            let theta: Vec<f64> = network.init(Init::Orthogonal, -0.5, &mut stream);
            let (p, s) = (network.distribution().num_params(), network.state_len());
            let x = normals(STEPS * BATCH * INPUTS);
            let state: Vec<f64> = normals(BATCH * s).iter().map(|x| 0.5 * x).collect();
            let d_params = normals(STEPS * BATCH * p);
            let d_values = normals(STEPS * BATCH);
            let starts = starts();
            let sequences = Some(Sequences { starts: &starts, state: &state });
            // Σ d · output is an objective with those derivatives.
            let objective = |theta: &[f64]| {
                let mut weights = network.weights();
                network.pack(theta, &mut weights);
                let mut tape = PolicyTape::default();
                let (params, values) = network.forward(&weights, &x, sequences, &mut tape);
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                dot(params, &d_params) + dot(values, &d_values)
            };
            let mut weights = network.weights();
            network.pack(&theta, &mut weights);
            let mut tape = PolicyTape::default();
            network.forward(&weights, &x, sequences, &mut tape);
            let mut grad = vec![0.0; theta.len()];
            let d = (Some(&d_params[..]), Some(&d_values[..]));
            network.backward(&weights, &x, &mut tape, d, &mut grad);
            assert_gradient(&format!("{cell:?} {trunk:?}"), &theta, &grad, 1e-7, objective);
        }
    }
}

#[test]
fn steps_and_sequences_have_the_same_bits() {
    for cell in Cell::ALL {
        let network = ActorCritic::new(&spec(cell, &[3]));
        let mut stream = Stream::new(1, role::INIT, 0);
        let theta: Vec<f32> = network.init(Init::Orthogonal, -0.5, &mut stream);
        let mut weights = network.weights();
        network.pack(&theta, &mut weights);
        let x: Vec<f32> = normals(STEPS * BATCH * INPUTS).iter().map(|x| *x as f32).collect();
        let s = network.state_len();
        let (starts, mut state) = (starts(), vec![0.25_f32; BATCH * s]);
        let (mut whole, mut tape) = (PolicyTape::default(), PolicyTape::default());
        let sequences = Sequences { starts: &starts, state: &state.clone() };
        let (params, values) = network.forward(&weights, &x, Some(sequences), &mut whole);
        let (p, rows) = (params.len() / (STEPS * BATCH), BATCH * INPUTS);
        for t in 0..STEPS {
            for (b, state) in state.chunks_exact_mut(s).enumerate() {
                if starts[t * BATCH + b] {
                    state.fill(0.0);
                }
            }
            let x = &x[t * rows..(t + 1) * rows];
            let (at, v) = network.act_and_value(&weights, x, &mut state, &mut tape);
            assert_eq!(at, &params[t * BATCH * p..(t + 1) * BATCH * p], "{cell:?}, step {t}");
            assert_eq!(v, &values[t * BATCH..(t + 1) * BATCH], "{cell:?}, step {t}");
        }
    }
}

/// Shows a sign at the first of four steps and asks for it at the last, when it shows nothing.
#[derive(Clone)]
struct Recall {
    spaces: (Space, Space),
    sign: f32,
    t: u32,
}

impl Recall {
    fn make() -> Box<dyn Env> {
        let spaces = (Space::vector(&[-1.0, 0.0], &[1.0, 1.0]), Space::Discrete { n: 2 });
        Box::new(Self { spaces, sign: 0.0, t: 0 })
    }

    fn show(&self, obs: &mut [f32]) {
        obs[0] = if self.t == 0 { self.sign } else { 0.0 };
        obs[1] = if self.t == 3 { 1.0 } else { 0.0 };
    }
}

impl Env for Recall {
    fn obs_space(&self) -> &Space {
        &self.spaces.0
    }

    fn action_space(&self) -> &Space {
        &self.spaces.1
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.sign = if stream.below(2) == 0 { -1.0 } else { 1.0 };
        self.t = 0;
        self.show(obs);
    }

    fn step(&mut self, action: &[f32], _: &mut Stream, obs: &mut [f32]) -> Step {
        let asked = self.t == 3;
        self.t += 1;
        self.show(obs);
        let right = (action[0] > 0.5) == (self.sign > 0.0);
        let reward = if asked && right { 1.0 } else { 0.0 };
        Step { reward, outcome: if asked { Outcome::Terminated } else { Outcome::Continue } }
    }

    fn save(&self, w: &mut StateWriter) {
        w.f32(self.sign);
        w.u32(self.t);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        (self.sign, self.t) = (r.f32()?, r.u32()?);
        Ok(())
    }
}

const SETTINGS: &str = "num_envs = 8\nnum_steps = 16\nnum_minibatches = 2\nnum_epochs = 4\n\
                        learning_rate = 0.01\nactor = []\ncritic = []\nmemory_size = 16\n\
                        workers = 2\nmode = \"round_robin\"\ngae_lambda = 1.0\n\
                        optimizer = \"adam\"\nentropy_coef = 0.0\n";

#[test]
fn what_was_seen_is_recalled_by_every_algorithm_with_memory() {
    let returns = |name: &str, memory: &str| {
        let algo = cordada_rl::algo::find(name).unwrap();
        let mut wishes = table(SETTINGS);
        wishes.extend(table(&format!("memory = \"{memory}\"")));
        // One step per segment needs more of them.
        let epochs = algo.fields.iter().any(|field| field.name == "num_epochs");
        let steps = if epochs { 16_000 } else { 60_000 };
        let settings = settings_for(algo, wishes);
        let mut learner = make_in(algo, &Recall::make, &settings, (1, 1)).unwrap();
        while learner.steps() < steps {
            learner.iterate().unwrap();
        }
        let options = EvalOptions { episodes: 200, seed: 9, deterministic: true };
        evaluate(&learner.policy(), &Recall::make, options).mean_return
    };
    for algo in ALGORITHMS.iter().filter(|algo| algo.recurrent) {
        if algo.name == "actor_critic" {
            // Segments of one step have no gradient through time.
            continue;
        }
        for memory in ["gru", "lstm"] {
            let found = returns(algo.name, memory);
            assert!(found > 0.95, "{} with {memory}: {found}", algo.name);
        }
    }
    // The negative control: without memory it is a guess.
    let found = returns("ppo", "none");
    assert!((0.3..0.7).contains(&found), "without memory: {found}");
}
