//! The natural policy gradient and TRPO: products against the Fisher matrix written out, the step
//! against its exact solution, and what an iteration promises of the policy that it leaves behind.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Scripted, bits, exact, make_in, state, table};
use cordada_env::{Env, Outcome, Space};
use cordada_rl::algo::on_policy::Sample;
use cordada_rl::algo::trpo::{At, Region};
use cordada_rl::algo::{Algorithm, find};
use cordada_rl::policy::{
    ActorCritic, ActorCriticSpec, Encoder, LogStd, PolicyTape, PolicyWeights,
};
use cordada_rl::policy_file::{Policy, PolicySpec};
use cordada_rl::rollout::{Target, TrackSizes, Trajectory};
use cordada_rl::trust_region::{ConjugateGradient, step_size};

const STATES: usize = 5;
const ACTIONS: usize = 3;

/// A softmax policy that is linear in a one-hot state, at some θ, and a walk through the states.
struct Walk {
    network: ActorCritic,
    theta: Vec<f32>,
    weights: PolicyWeights<f32>,
    states: Vec<usize>,
    actions: Vec<usize>,
    advantages: Vec<f64>,
    trajectory: Trajectory,
    samples: Vec<Sample>,
}

fn spec(action_space: Space, actor: &[usize], inputs: usize) -> ActorCriticSpec {
    ActorCriticSpec {
        inputs,
        action_space,
        encoder: Encoder::Flat,
        trunk: Vec::new(),
        memory: None,
        actor: actor.to_vec(),
        critic: Some(vec![4]),
        activation: "tanh".into(),
        layer_norm: false,
        log_std: LogStd::Shared,
        squash: false,
    }
}

impl Walk {
    fn new(steps: usize) -> Self {
        let network = ActorCritic::new(&spec(Space::Discrete { n: ACTIONS }, &[], STATES));
        let theta: Vec<f32> =
            (0..network.num_params()).map(|i| 0.9 * (1.7 * i as f32).sin()).collect();
        let mut weights = network.weights();
        network.pack(&theta, &mut weights);
        let states: Vec<usize> = (0..steps).map(|t| (t * t + t / 7) % STATES).collect();
        let actions: Vec<usize> = (0..steps).map(|t| (t * 5 + t / 3) % ACTIONS).collect();
        let advantages: Vec<f64> = (0..steps).map(|t| (0.37 * t as f64).sin() + 0.1).collect();
        let mut trajectory = Trajectory::new(TrackSizes {
            num_steps: steps,
            inputs: STATES,
            action_len: 1,
            num_params: ACTIONS,
            ..TrackSizes::default()
        });
        let mut tape = PolicyTape::default();
        for t in 0..steps {
            let x = &mut trajectory.inputs[t * STATES..(t + 1) * STATES];
            x[states[t]] = 1.0;
            let params = network.act(&weights, x, &mut [], &mut tape);
            let action = [actions[t] as f32];
            let log_prob = network.distribution().log_prob(params, None, &action);
            trajectory.params[t * ACTIONS..(t + 1) * ACTIONS].copy_from_slice(params);
            trajectory.actions[t] = action[0];
            let advantage = advantages[t] as f32;
            trajectory.targets[t] = Target { log_prob, advantage, ..Target::default() };
        }
        let samples = (0..steps as u32).map(|step| Sample { env: 0, step }).collect();
        Self { network, theta, weights, states, actions, advantages, trajectory, samples }
    }

    fn at(&self) -> At<'_> {
        (&self.network, &self.weights, None)
    }

    fn region(&self, every: usize) -> Region {
        let mut region = Region::new(&self.network);
        region.gather(&self.network, std::slice::from_ref(&self.trajectory), &self.samples, every);
        region.forward(self.at());
        region
    }

    /// π(· | s) by hand: θ = W `[A, S]` · b `[A]` · critic.
    fn policy(&self, state: usize) -> Vec<f64> {
        let logit =
            |a: usize| f64::from(self.theta[a * STATES + state] + self.theta[ACTIONS * STATES + a]);
        let weights: Vec<f64> = (0..ACTIONS).map(|a| logit(a).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|w| w / sum).collect()
    }

    /// ∇ log π(a | s).
    fn score(&self, state: usize, action: usize) -> Vec<f64> {
        let mut score = vec![0.0; ACTIONS * STATES + ACTIONS];
        for (b, pi) in self.policy(state).into_iter().enumerate() {
            let d = f64::from(u8::from(b == action)) - pi;
            score[b * STATES + state] = d;
            score[ACTIONS * STATES + b] = d;
        }
        score
    }

    /// The mean of Σ_a π(a | s) ∇ log π ∇ log πᵀ over every `every`-th step, plus c on the diagonal.
    fn dense(&self, every: usize, damping: f64) -> Vec<Vec<f64>> {
        let n = ACTIONS * STATES + ACTIONS;
        let mut fisher = vec![vec![0.0; n]; n];
        let chosen: Vec<usize> = self.states.iter().copied().step_by(every).collect();
        for &state in &chosen {
            for (action, pi) in self.policy(state).into_iter().enumerate() {
                let score = self.score(state, action);
                for (row, x) in fisher.iter_mut().zip(&score) {
                    let weight = pi * x / chosen.len() as f64;
                    row.iter_mut().zip(&score).for_each(|(sum, y)| *sum += weight * y);
                }
            }
        }
        fisher.iter_mut().enumerate().for_each(|(i, row)| row[i] += damping);
        fisher
    }

    /// The policy gradient: the mean of Â ∇ log π.
    fn gradient(&self) -> Vec<f64> {
        let mut gradient = vec![0.0; ACTIONS * STATES + ACTIONS];
        for (t, advantage) in self.advantages.iter().enumerate() {
            let score = self.score(self.states[t], self.actions[t]);
            let weight = advantage / self.states.len() as f64;
            gradient.iter_mut().zip(score).for_each(|(sum, s)| *sum += weight * s);
        }
        gradient
    }
}

fn times(matrix: &[Vec<f64>], v: &[f64]) -> Vec<f64> {
    matrix.iter().map(|row| row.iter().zip(v).map(|(m, v)| m * v).sum()).collect()
}

/// A x = b by Gauss's elimination, for A with a dominant diagonal or positive definite.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        let (pivots, below) = a.split_at_mut(i + 1);
        let pivot = &pivots[i];
        for (j, row) in below.iter_mut().enumerate() {
            let factor = row[i] / pivot[i];
            row.iter_mut().zip(pivot).for_each(|(x, p)| *x -= factor * p);
            b[i + 1 + j] -= factor * b[i];
        }
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| a[i][j] * b[j]).sum();
        b[i] = (b[i] - known) / a[i][i];
    }
    b
}

/// ‖got − want‖ / ‖want‖.
fn relative_error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let difference: f64 = got.iter().zip(want).map(|(&g, w)| (f64::from(g) - w).powi(2)).sum();
    (difference / want.iter().map(|w| w * w).sum::<f64>()).sqrt()
}

#[test]
fn products_are_those_of_the_fisher_matrix_written_out() {
    // Rows of one block, of two, and of three parts; all samples, and every third or seventh.
    for (steps, every) in [(40, 1), (150, 1), (150, 3), (1600, 1), (1599, 7)] {
        let walk = Walk::new(steps);
        let mut region = walk.region(1);
        // Another selection before this one leaves nothing behind.
        region.gather(&walk.network, std::slice::from_ref(&walk.trajectory), &walk.samples, every);
        region.forward(walk.at());
        let n = walk.network.actor_range().len();
        for seed in [0.7_f64, 1.3] {
            let v: Vec<f64> = (0..n).map(|i| (seed * i as f64).cos()).collect();
            let narrow: Vec<f32> = v.iter().map(|&v| v as f32).collect();
            let mut got = vec![f32::NAN; n];
            region.fisher_product(walk.at(), &narrow, &mut got);
            // The parts are parted by their own counts, so that every k-th is every k-th of each.
            let dense = if steps < 1024 { walk.dense(every, 0.0) } else { by_parts(&walk, every) };
            let error = relative_error(&got, &times(&dense, &v));
            assert!(error < 2e-6, "{steps} steps, every {every}: {error:e}");
        }
    }
}

/// The matrix where 1024 to 1600 samples fall into parts, each of which has its own k-th ones.
fn by_parts(walk: &Walk, every: usize) -> Vec<Vec<f64>> {
    let parts = walk.states.len() / 512;
    let per_part = walk.states.len().div_ceil(parts);
    let chosen = |part: &[usize]| part.iter().copied().step_by(every).collect::<Vec<_>>();
    let states = walk.states.chunks(per_part).flat_map(chosen).collect();
    Walk { states, ..Walk::new(walk.states.len()) }.dense(1, 0.0)
}

#[test]
fn products_allocate_nothing() {
    let walk = Walk::new(1100);
    let mut region = walk.region(2);
    let v = vec![0.1; walk.network.actor_range().len()];
    let mut out = v.clone();
    // Two, for the tapes' buffers take turns.
    region.fisher_product(walk.at(), &v, &mut out);
    region.fisher_product(walk.at(), &v, &mut out);
    let info = allocation_counter::measure(|| region.fisher_product(walk.at(), &v, &mut out));
    assert_eq!(info.count_total, 0, "{info:?}");
    // The negative control: the first product makes room.
    let mut first = walk.region(2);
    let info = allocation_counter::measure(|| first.fisher_product(walk.at(), &v, &mut out));
    assert!(info.count_total > 0);
}

#[test]
fn the_step_is_the_inverse_fisher_matrix_times_the_gradient() {
    let walk = Walk::new(300);
    let mut region = walk.region(1);
    let gradient = walk.gradient();
    let g: Vec<f32> = gradient.iter().map(|&g| g as f32).collect();
    let damping = 0.01;
    let want = solve(walk.dense(1, damping), gradient.clone());
    let mut x = vec![0.0; g.len()];
    let mut solver = ConjugateGradient::new(50, 1e-14, damping as f32);
    solver.solve(&g, &mut x, |v, out| region.fisher_product(walk.at(), v, out));
    let error = relative_error(&x, &want);
    assert!(error < 1e-4, "{error:e}");
    // ½ (β x)ᵀ (F + c I) β x = δ, and (F + c I) x = g.
    let step = f64::from(step_size(0.01, &x, solver.product()).unwrap());
    let along: f64 = want.iter().zip(&gradient).map(|(x, g)| x * g).sum();
    assert!((0.5 * step * step * along - 0.01).abs() < 1e-5, "{step}");
}

#[test]
fn shared_deviations_have_a_fisher_matrix_of_two() {
    // F of log σ is 2 in every row, whatever the mean is; and none between mean and deviation.
    let action_space = Space::vector(&[-1.0; 2], &[1.0; 2]);
    let network = ActorCritic::new(&spec(action_space, &[6], 3));
    let theta: Vec<f32> = (0..network.num_params()).map(|i| (0.3 * i as f32).sin()).collect();
    let mut weights = network.weights();
    network.pack(&theta, &mut weights);
    let steps = 100;
    let sizes = TrackSizes {
        num_steps: steps,
        inputs: 3,
        action_len: 2,
        num_params: 4,
        ..TrackSizes::default()
    };
    let mut trajectory = Trajectory::new(sizes);
    trajectory.inputs.iter_mut().enumerate().for_each(|(i, x)| *x = (0.9 * i as f32).cos());
    let samples: Vec<Sample> = (0..steps as u32).map(|step| Sample { env: 0, step }).collect();
    let mut region = Region::new(&network);
    region.gather(&network, &[trajectory], &samples, 1);
    region.forward((&network, &weights, None));
    let mut v = vec![0.0; network.actor_range().len()];
    let deviations = network.log_std_range().unwrap();
    v[deviations.clone()].copy_from_slice(&[1.0, -0.5]);
    let mut got = vec![f32::NAN; v.len()];
    region.fisher_product((&network, &weights, None), &v, &mut got);
    for (i, (got, v)) in got.iter().zip(&v).enumerate() {
        assert!((got - 2.0 * v).abs() < 1e-5, "{i}: {got}, 2 · {v}");
    }
}

/// A learner called `algo` in any environment.
fn learner(
    algo: &str,
    make_env: &dyn Fn() -> Box<dyn Env>,
    settings: &str,
    threads: usize,
) -> Box<dyn Algorithm> {
    make_in(find(algo).unwrap(), make_env, &table(settings), (3, threads)).unwrap()
}

fn metric(learner: &mut dyn Algorithm, name: &str) -> f64 {
    let report = learner.iterate().unwrap();
    report.metrics.iter().find(|(known, _)| *known == name).unwrap().1
}

/// The distribution's parameters for an observation.
fn params(policy: &Policy, obs: f32) -> (ActorCritic, Vec<f32>) {
    let PolicySpec::ActorCritic(spec) = &policy.spec else { panic!("no distribution") };
    let network = ActorCritic::new(spec);
    let mut weights = network.weights();
    network.pack(&policy.theta, &mut weights);
    let params = network.act(&weights, &[obs], &mut [], &mut PolicyTape::default()).to_vec();
    (network, params)
}

/// An environment of one observation and episodes of one step, worth −a².
fn parabola() -> impl Fn() -> Box<dyn Env> {
    let space = Space::vector(&[-10.0], &[10.0]);
    let play = |_: u32, _: f32, a: &[f32]| (-f64::from(a[0]).powi(2), Outcome::Terminated);
    Scripted::new(space, |_, _| 0.5, play).maker()
}

#[test]
fn the_policy_moves_as_far_as_it_may() {
    for (algo, settings) in [
        ("trpo", "cg_damping = 1e-4"),
        ("trpo", "target_kl = 0.1\ncg_damping = 1e-4\nfisher_subsample = 4"),
        ("npg", "target_kl = 0.001\ncg_damping = 1e-6"),
    ] {
        let target = table(settings).get("target_kl").map_or(0.01, |v| v.as_float().unwrap());
        let settings = format!("{settings}\nnum_steps = 400\nactor = [8]\ncritic = [8]");
        let mut learner = learner(algo, &parabola(), &settings, 1);
        for _ in 0..3 {
            let (network, before) = params(&learner.policy(), 0.5);
            let told = metric(&mut *learner, "train/approx_kl");
            let (_, after) = params(&learner.policy(), 0.5);
            // There is but one observation, so its divergence is the mean.
            let kl = f64::from(network.distribution().kl(&before, &after, None));
            assert!((told - kl).abs() < 1e-4 * target, "{algo}: {told}, {kl}");
            let range = if algo == "npg" { 0.9..1.1 } else { 0.3..1.0 };
            assert!(range.contains(&(kl / target)), "{algo}: {kl} for {target}");
        }
    }
}

#[test]
fn a_policy_that_no_step_makes_better_stays_as_it_was() {
    // The best that can be done is to try less widely, and as σ falls the divergence grows faster
    // than its second order, which the first try reaches exactly.
    let settings = "num_steps = 512\nactor = [8]\ncritic = [8]\ntarget_kl = 0.5\ncg_damping = 0.0";
    let once = format!("{settings}\nline_search_max_tries = 1");
    let mut one_try = learner("trpo", &parabola(), &once, 1);
    let before = one_try.policy();
    let PolicySpec::ActorCritic(spec) = &before.spec else { panic!("no actor") };
    let network = ActorCritic::new(spec);
    assert_eq!(metric(&mut *one_try, "train/line_search"), -1.0);
    let after = one_try.policy();
    let (actor, critic) = (network.actor_range(), network.critic_range());
    assert_eq!(bits(&after.theta[actor.clone()]), bits(&before.theta[actor.clone()]));
    assert_ne!(after.theta[critic.clone()], before.theta[critic], "the critic learns all the same");
    let mut tries = learner("trpo", &parabola(), settings, 1);
    let shrunk = metric(&mut *tries, "train/line_search");
    assert!(shrunk >= 1.0, "shrunk {shrunk} times");
    assert_ne!(tries.policy().theta[actor.clone()], before.theta[actor]);
}

#[test]
fn a_rejected_step_leaves_the_weights_that_act_alone() {
    let settings = "num_steps = 512\nactor = [8]\ncritic = [8]\ntarget_kl = 0.5\ncg_damping = 0.0\n\
                    line_search_max_tries = 1";
    let mut learner = learner("trpo", &parabola(), settings, 1);
    let second_return = |learner: &mut dyn Algorithm| {
        learner.iterate().unwrap();
        let report = learner.iterate().unwrap();
        assert!(report.metrics.contains(&("train/line_search", -1.0)), "{report:?}");
        report.metrics[0]
    };
    let (name, got) = second_return(&mut *learner);
    assert_eq!(name, "rollout/episode_return");
    // N(μ, 1) with μ near 0: the mean of −a² is −1 ± √(2 / 512); five deviations.
    assert!((got + 1.0).abs() < 0.32, "{got}");
}

#[test]
fn threads_change_no_bit() {
    let settings = "num_envs = 5\nnum_steps = 330\ncritic_epochs = 2\nactor = [16]\ncritic = [16]";
    for (algo, env, more) in [
        ("trpo", "CartPole-v1", "fisher_subsample = 3"),
        ("trpo", "Pendulum-v1", "normalize_obs = true\nnormalize_rewards = true"),
        ("npg", "Acrobot-v1", "critic_batch_size = 1650"),
    ] {
        let settings = format!("{settings}\n{more}");
        let trace = |threads| {
            let spec = cordada_env::find(env).unwrap();
            let mut learner = learner(algo, &|| spec.build(), &settings, threads);
            let metrics: Vec<_> = (0..3).map(|_| exact(&learner.iterate().unwrap())).collect();
            (metrics, bits(&learner.policy().theta), state(&*learner))
        };
        let one = trace(1);
        for threads in [2, 7] {
            assert_eq!(trace(threads), one, "{algo} in {env} with {threads} threads");
        }
    }
}

#[test]
fn an_actor_that_is_not_apart_is_refused() {
    let refuse = |settings: &str| {
        let made = make_in(find("trpo").unwrap(), &parabola(), &table(settings), (1, 1));
        made.unwrap_err().to_string()
    };
    let apart = "for the actor moves without the critic";
    assert_eq!(refuse("trunk = [8]"), format!("trpo.trunk = [8]: [], {apart}"));
    assert_eq!(refuse("memory = \"gru\""), format!("trpo.memory = set: \"none\", {apart}"));
    let message = refuse("line_search_shrink = 1.0");
    assert_eq!(message, "trpo.line_search_shrink = 1: a number between 0 and 1");
    assert_eq!(refuse("target_kl = 0.0"), "trpo.target_kl = 0: a number above 0");
}
