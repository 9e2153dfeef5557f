//! Episodes of a finite decision process, drawn at random or all of them with their probabilities;
//! and gradient estimates from them, with standard errors. Estimators, objectives and scores are
//! the crate's own.

use std::ops::Range;

use cordada_env::{Outcome, Stream, role};
use cordada_rl::distribution::{Categorical, Distribution};
use cordada_rl::estimate::Segment;

use crate::mdp::{Mdp, Transition};

/// One step of an episode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) state: usize,
    pub(crate) action: usize,
    pub(crate) reward: f64,
    pub(crate) outcome: Outcome,
    /// The true successor, also where the episode was cut.
    pub(crate) next: usize,
}

/// Whole episodes, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Episodes {
    pub(crate) steps: Vec<Step>,
    /// Of each episode; they add up to 1.
    pub(crate) probabilities: Vec<f64>,
}

/// V for the states of the segment and for those that an episode was cut at: `[S]` each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Critic<'a> {
    pub(crate) value: &'a [f64],
    pub(crate) final_value: &'a [f64],
}

impl<'a> From<&'a [f64]> for Critic<'a> {
    fn from(value: &'a [f64]) -> Self {
        Self { value, final_value: value }
    }
}

/// Step `age` of an episode: what follows from `state`, `action` and the outcome `t`.
fn step(mdp: &Mdp, state: usize, action: usize, t: &Transition, age: usize) -> Step {
    let outcome = if t.terminated {
        Outcome::Terminated
    } else if mdp.time_limit == Some(age + 1) {
        Outcome::Truncated
    } else {
        Outcome::Continue
    };
    Step { state, action, reward: t.reward, outcome, next: t.next }
}

/// The index at which the sum of `probabilities` passes `u`.
fn pick(mut u: f64, probabilities: impl ExactSizeIterator<Item = f64>) -> usize {
    let last = probabilities.len() - 1;
    for (i, p) in probabilities.enumerate() {
        if u < p {
            return i;
        }
        u -= p;
    }
    last
}

/// The row of `table` that belongs to `state`.
fn row(table: &[f64], num_states: usize, state: usize) -> &[f64] {
    let width = table.len() / num_states;
    &table[state * width..(state + 1) * width]
}

impl Episodes {
    /// Draws `count` episodes of the softmax policy with table `theta`.
    pub(crate) fn sample(mdp: &Mdp, theta: &[f64], count: usize, seed: u64) -> Self {
        let pi = Distribution::Categorical(Categorical::new(mdp.num_actions));
        let mut world = Stream::new(seed, role::ENV, 0);
        let mut actor = Stream::new(seed, role::POLICY, 0);
        let mut steps: Vec<Step> = Vec::new();
        for _ in 0..count {
            let mut state = pick(world.uniform(), mdp.initial.iter().copied());
            for age in 0.. {
                let mut action = [0.0];
                pi.sample(row(theta, mdp.num_states, state), None, &mut actor, &mut action);
                let action = action[0] as usize;
                let outcomes = mdp.outcomes(state, action);
                let which = pick(world.uniform(), outcomes.iter().map(|t| t.probability));
                let step = step(mdp, state, action, &outcomes[which], age);
                steps.push(step);
                if step.outcome.ended() {
                    break;
                }
                state = step.next;
            }
        }
        Self { steps, probabilities: vec![1.0 / count as f64; count] }
    }

    /// All episodes of a process with a time limit, with the probabilities that `policy`,
    /// `[S, A]`, gives them.
    pub(crate) fn all(mdp: &Mdp, policy: &[f64]) -> Self {
        let mut all = Self { steps: Vec::new(), probabilities: Vec::new() };
        for (state, &probability) in mdp.initial.iter().enumerate() {
            if probability > 0.0 {
                all.continue_with(mdp, policy, (state, probability), &mut Vec::new());
            }
        }
        all
    }

    fn continue_with(
        &mut self,
        mdp: &Mdp,
        policy: &[f64],
        (state, probability): (usize, f64),
        path: &mut Vec<Step>,
    ) {
        for (action, &pi) in row(policy, mdp.num_states, state).iter().enumerate() {
            for t in mdp.outcomes(state, action) {
                let probability = probability * pi * t.probability;
                let step = step(mdp, state, action, t, path.len());
                path.push(step);
                if step.outcome.ended() {
                    self.steps.extend_from_slice(path);
                    self.probabilities.push(probability);
                } else {
                    self.continue_with(mdp, policy, (step.next, probability), path);
                }
                path.pop();
            }
        }
    }

    /// Where each episode lies among the steps.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let mut start = 0;
        self.steps.iter().enumerate().filter(|(_, s)| s.outcome.ended()).map(move |(i, _)| {
            let range = start..i + 1;
            start = i + 1;
            range
        })
    }

    /// A weight for each step, from an estimator of the crate on one segment with all episodes.
    ///
    /// Where a value must not be read, there is NaN.
    pub(crate) fn weights<'a>(
        &self,
        critic: impl Into<Critic<'a>>,
        estimator: impl FnOnce(&Segment<'_, f64>, &mut [f64]),
    ) -> Vec<f64> {
        let critic = critic.into();
        let column = |f: &dyn Fn(&Step) -> f64| self.steps.iter().map(f).collect::<Vec<f64>>();
        let cut = |step: &Step| step.outcome == Outcome::Truncated;
        let outcomes: Vec<Outcome> = self.steps.iter().map(|step| step.outcome).collect();
        let segment = Segment {
            num_envs: 1,
            rewards: &column(&|step| step.reward),
            values: &column(&|step| critic.value[step.state]),
            outcomes: &outcomes,
            final_values: &column(&|step| {
                if cut(step) { critic.final_value[step.next] } else { f64::NAN }
            }),
            last_values: &[f64::NAN],
        };
        let mut weights = vec![f64::NAN; self.steps.len()];
        estimator(&segment, &mut weights);
        weights
    }

    /// `weights` times γ^t, t counted from the episode's start.
    pub(crate) fn discounted(&self, gamma: f64, mut weights: Vec<f64>) -> Vec<f64> {
        for range in self.ranges() {
            let mut factor = 1.0;
            for weight in &mut weights[range] {
                *weight *= factor;
                factor *= gamma;
            }
        }
        weights
    }

    /// The mean over episodes of Σ_t ψ_t ∇ log π(a_t | s_t).
    ///
    /// `psi` makes ψ of a step from its index and its log π.
    pub(crate) fn gradient(
        &self,
        num_actions: usize,
        theta: &[f64],
        psi: impl Fn(usize, f64) -> f64,
    ) -> Estimate {
        let pi = Distribution::Categorical(Categorical::new(num_actions));
        let (mut mean, mut square) = (vec![0.0; theta.len()], vec![0.0; theta.len()]);
        let mut one = vec![0.0; theta.len()];
        for (range, &probability) in self.ranges().zip(&self.probabilities) {
            one.fill(0.0);
            for i in range {
                let (step, action) = (self.steps[i], [self.steps[i].action as f64]);
                let at = step.state * num_actions..(step.state + 1) * num_actions;
                let logits = &theta[at.clone()];
                let psi = psi(i, pi.log_prob(logits, None, &action));
                pi.add_score(logits, None, &action, psi, &mut one[at]);
            }
            for ((mean, square), &g) in mean.iter_mut().zip(&mut square).zip(&one) {
                *mean += probability * g;
                *square += probability * g * g;
            }
        }
        let variance = mean.iter().zip(&square).map(|(m, s)| (s - m * m).max(0.0)).collect();
        Estimate { mean, variance, num_episodes: self.probabilities.len() }
    }
}

/// A mean of episode gradients.
#[derive(Clone, Debug)]
pub(crate) struct Estimate {
    pub(crate) mean: Vec<f64>,
    /// Of one episode's gradient, component by component.
    variance: Vec<f64>,
    num_episodes: usize,
}

impl Estimate {
    /// The largest distance from `want` in units of the standard error, over all components.
    ///
    /// A component that never varies must be exact.
    pub(crate) fn max_z(&self, want: &[f64]) -> f64 {
        assert_eq!(self.mean.len(), want.len(), "gradients of different lengths");
        let count = self.num_episodes as f64;
        let z = |((mean, variance), want): ((&f64, &f64), &f64)| match (mean - want).abs() {
            error if *variance > 0.0 => error / (variance / count).sqrt(),
            error if error < 1e-15 => 0.0,
            _ => f64::INFINITY,
        };
        let pairs = self.mean.iter().zip(&self.variance).zip(want);
        let all: Vec<f64> = pairs.map(z).collect();
        assert!(all.iter().all(|z| !z.is_nan()), "an estimate is NaN: {self:?}");
        all.into_iter().fold(0.0, f64::max)
    }

    /// ‖standard error‖ / ‖want‖: how little a large z would need to be.
    pub(crate) fn relative_error(&self, want: &[f64]) -> f64 {
        (self.total_variance() / self.num_episodes as f64).sqrt() / norm(want)
    }

    /// E‖g − E[g]‖² of one episode's gradient g.
    pub(crate) fn total_variance(&self) -> f64 {
        self.variance.iter().sum()
    }
}

pub(crate) fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}
