//! Normalization of observations and rewards by running statistics: over a batch of environments
//! ([`ObsNormalizer`], [`RewardNormalizer`]), and as wrappers of a single one.

use super::pass_on;
use crate::env::{Env, Outcome, Step};
use crate::error::Error;
use crate::moments::RunningMoments;
use crate::space::{BoxSpace, Space};
use crate::state::{Persist, StateError, StateReader, StateWriter};
use crate::stream::Stream;

/// Options common to both normalizers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormalizeOptions {
    /// Bound of normalized values, above 0; default 10 (stable-baselines3, `VecNormalize`).
    pub clip: f64,
    /// Added to variances, above 0; default 10⁻⁸ (stable-baselines3, `VecNormalize`).
    pub epsilon: f64,
    /// Weight of the prior mean 0 and variance 1 in rows, at least 0; default 10⁻⁴
    /// (stable-baselines3, `RunningMeanStd`).
    pub initial_count: f64,
}

impl NormalizeOptions {
    fn check(&self) -> Result<(), Error> {
        // Written so that NaN fails too.
        let above_0 = |option, value: f64| {
            let wrong = Error::Option { option, value, range: "above 0" };
            if value > 0.0 { Ok(()) } else { Err(wrong) }
        };
        above_0("clip", self.clip)?;
        above_0("epsilon", self.epsilon)?;
        if self.initial_count >= 0.0 {
            return Ok(());
        }
        let (option, value) = ("initial_count", self.initial_count);
        Err(Error::Option { option, value, range: "at least 0" })
    }
}

impl Default for NormalizeOptions {
    fn default() -> Self {
        Self { clip: 10.0, epsilon: 1e-8, initial_count: 1e-4 }
    }
}

/// Normalizes observations to mean 0 and variance 1, component by component.
///
/// ```text
/// clip((o − mean) / √(var + ε), −clip, clip)
/// ```
///
/// Call [`ObsNormalizer::update`] with the new observations of every step of the vector
/// environment (those of the reset too), then [`ObsNormalizer::normalize`]. True last observations
/// are normalized without an update.
///
/// # Source
///
/// stable-baselines3 2.x, `VecNormalize`.
#[derive(Clone, Debug, PartialEq)]
pub struct ObsNormalizer {
    moments: RunningMoments,
    clip: f64,
    epsilon: f64,
    frozen: bool,
}

impl ObsNormalizer {
    /// A normalizer of rows of `dim` numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if an option is out of its range.
    pub fn new(dim: usize, options: NormalizeOptions) -> Result<Self, Error> {
        options.check()?;
        Ok(Self {
            moments: RunningMoments::with_count(dim, options.initial_count),
            clip: options.clip,
            epsilon: options.epsilon,
            frozen: false,
        })
    }

    /// The statistics so far.
    pub fn moments(&self) -> &RunningMoments {
        &self.moments
    }

    /// The statistics, to merge those of another worker.
    pub fn moments_mut(&mut self) -> &mut RunningMoments {
        &mut self.moments
    }

    /// Stops updates, as for an evaluation.
    pub fn freeze(&mut self) {
        self.frozen = true;
    }

    /// Allows updates again.
    pub fn unfreeze(&mut self) {
        self.frozen = false;
    }

    /// Takes in a batch of observations, unless frozen.
    ///
    /// # Shapes
    ///
    /// `rows`: `[B, D]`.
    pub fn update<T: Copy + Into<f64>>(&mut self, rows: &[T]) {
        if !self.frozen {
            self.moments.update(rows);
        }
    }

    /// Writes the normalized `rows` into `out`.
    ///
    /// # Shapes
    ///
    /// `rows`, `out`: `[B, D]`.
    ///
    /// # Panics
    ///
    /// If they differ in length.
    pub fn normalize<T: Copy + Into<f64>>(&self, rows: &[T], out: &mut [f32]) {
        assert_eq!(rows.len(), out.len(), "out has another length than rows");
        let dim = self.moments.mean().len().max(1);
        for (row, out) in rows.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
            for (i, (&x, out)) in row.iter().zip(out).enumerate() {
                *out = self.normalize_one(i, x.into());
            }
        }
    }

    /// Normalizes `rows` where they are.
    ///
    /// # Shapes
    ///
    /// `rows`: `[B, D]`.
    pub fn normalize_in_place(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.moments.mean().len().max(1)) {
            for (i, x) in row.iter_mut().enumerate() {
                *x = self.normalize_one(i, f64::from(*x));
            }
        }
    }

    /// One normalized number, of component `i`.
    ///
    /// # Panics
    ///
    /// If there is no component `i`.
    #[inline]
    pub fn normalize_one(&self, i: usize, x: f64) -> f32 {
        let scaled = (x - self.moments.mean()[i]) / (self.moments.var()[i] + self.epsilon).sqrt();
        scaled.clamp(-self.clip, self.clip) as f32
    }
}

impl Persist for ObsNormalizer {
    fn save(&self, w: &mut StateWriter) {
        self.moments.save(w);
        w.bool(self.frozen);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.moments.load(r)?;
        self.frozen = r.bool()?;
        Ok(())
    }
}

/// Divides rewards by the standard deviation of the discounted return; their sign stays.
///
/// ```text
/// R ← γ R + r per environment;   clip(r / √(var(R) + ε), −clip, clip);   R ← 0 at an episode's end
/// ```
///
/// Call [`RewardNormalizer::update`] with the rewards of every step, then
/// [`RewardNormalizer::normalize`].
///
/// # Source
///
/// stable-baselines3 2.x, `VecNormalize`.
#[derive(Clone, Debug, PartialEq)]
pub struct RewardNormalizer {
    moments: RunningMoments,
    returns: Vec<f64>,
    gamma: f64,
    clip: f64,
    epsilon: f64,
    frozen: bool,
}

impl RewardNormalizer {
    /// A normalizer for `num_envs` environments and the discount `gamma`.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if `gamma` is not in [0, 1] or an option is out of its range.
    pub fn new(num_envs: usize, gamma: f64, options: NormalizeOptions) -> Result<Self, Error> {
        options.check()?;
        if !(0.0..=1.0).contains(&gamma) {
            return Err(Error::Option { option: "gamma", value: gamma, range: "within [0, 1]" });
        }
        Ok(Self {
            moments: RunningMoments::with_count(1, options.initial_count),
            returns: vec![0.0; num_envs],
            gamma,
            clip: options.clip,
            epsilon: options.epsilon,
            frozen: false,
        })
    }

    /// The statistics of the discounted return so far.
    pub fn moments(&self) -> &RunningMoments {
        &self.moments
    }

    /// The statistics, to merge those of another worker.
    pub fn moments_mut(&mut self) -> &mut RunningMoments {
        &mut self.moments
    }

    /// The running discounted return of each environment.
    pub fn returns(&self) -> &[f64] {
        &self.returns
    }

    /// Stops updates, as for an evaluation.
    pub fn freeze(&mut self) {
        self.frozen = true;
    }

    /// Allows updates again.
    pub fn unfreeze(&mut self) {
        self.frozen = false;
    }

    /// Starts the running returns anew, as after a reset of all environments.
    pub fn reset(&mut self) {
        self.returns.fill(0.0);
    }

    /// Takes in the rewards of a step, unless frozen.
    ///
    /// # Shapes
    ///
    /// `rewards`, `outcomes`: `[N]`.
    ///
    /// # Panics
    ///
    /// If their lengths are not the number of environments.
    pub fn update<T: Copy + Into<f64>>(&mut self, rewards: &[T], outcomes: &[Outcome]) {
        assert_eq!(rewards.len(), self.returns.len(), "rewards is not [N]");
        assert_eq!(outcomes.len(), self.returns.len(), "outcomes is not [N]");
        if self.frozen {
            return;
        }
        for (running, &reward) in self.returns.iter_mut().zip(rewards) {
            *running = *running * self.gamma + reward.into();
        }
        self.moments.update(&self.returns);
        for (running, outcome) in self.returns.iter_mut().zip(outcomes) {
            if outcome.ended() {
                *running = 0.0;
            }
        }
    }

    /// One normalized reward.
    pub fn normalize_one(&self, reward: f64) -> f64 {
        let scaled = reward / (self.moments.var()[0] + self.epsilon).sqrt();
        scaled.clamp(-self.clip, self.clip)
    }

    /// Writes the normalized `rewards` into `out`.
    ///
    /// # Panics
    ///
    /// If they differ in length.
    pub fn normalize<T: Copy + Into<f64>>(&self, rewards: &[T], out: &mut [f32]) {
        assert_eq!(rewards.len(), out.len(), "out has another length than rewards");
        for (out, &reward) in out.iter_mut().zip(rewards) {
            *out = self.normalize_one(reward.into()) as f32;
        }
    }
}

impl Persist for RewardNormalizer {
    fn save(&self, w: &mut StateWriter) {
        self.moments.save(w);
        w.f64s(&self.returns);
        w.bool(self.frozen);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.moments.load(r)?;
        r.f64s_into(&mut self.returns)?;
        self.frozen = r.bool()?;
        Ok(())
    }
}

/// Shows normalized observations; see [`ObsNormalizer`]. Every observation shown is also taken in.
#[derive(Clone, Debug)]
pub struct NormalizeObs<E> {
    inner: E,
    normalizer: ObsNormalizer,
    obs_space: Space,
}

impl<E: Env> NormalizeObs<E> {
    /// Normalizes the observations of `inner`.
    ///
    /// # Errors
    ///
    /// [`Error::Wrapper`] if observations are not a box; [`Error::Option`] if an option is out of
    /// its range.
    pub fn new(inner: E, options: NormalizeOptions) -> Result<Self, Error> {
        let Space::Box(space) = inner.obs_space() else {
            return Err(Error::Wrapper {
                wrapper: "NormalizeObs",
                needs: "a box of observations",
                space: Box::new(inner.obs_space().clone()),
            });
        };
        let (dim, bound) = (space.low.len(), options.clip as f32);
        let normalizer = ObsNormalizer::new(dim, options)?;
        let clipped = BoxSpace::new(vec![-bound; dim], vec![bound; dim], space.shape.clone())?;
        Ok(Self { inner, normalizer, obs_space: Space::Box(clipped) })
    }

    /// The normalizer, to inspect or to freeze it.
    pub fn normalizer_mut(&mut self) -> &mut ObsNormalizer {
        &mut self.normalizer
    }

    fn show(&mut self, obs: &mut [f32]) {
        self.normalizer.update(obs);
        self.normalizer.normalize_in_place(obs);
    }
}

impl<E: Env> Env for NormalizeObs<E> {
    pass_on!(action_space, action_mask, state);

    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.inner.reset(stream, obs);
        self.show(obs);
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let step = self.inner.step(action, stream, obs);
        self.show(obs);
        step
    }

    fn save(&self, w: &mut StateWriter) {
        self.inner.save(w);
        self.normalizer.save(w);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.inner.load(r)?;
        self.normalizer.load(r)
    }
}

/// Gives normalized rewards; see [`RewardNormalizer`].
#[derive(Clone, Debug)]
pub struct NormalizeReward<E> {
    inner: E,
    normalizer: RewardNormalizer,
}

impl<E: Env> NormalizeReward<E> {
    /// Normalizes the rewards of `inner` for the discount `gamma`.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if `gamma` is not in [0, 1] or an option is out of its range.
    pub fn new(inner: E, gamma: f64, options: NormalizeOptions) -> Result<Self, Error> {
        Ok(Self { inner, normalizer: RewardNormalizer::new(1, gamma, options)? })
    }

    /// The normalizer, to inspect or to freeze it.
    pub fn normalizer_mut(&mut self) -> &mut RewardNormalizer {
        &mut self.normalizer
    }
}

impl<E: Env> Env for NormalizeReward<E> {
    pass_on!(obs_space, action_space, action_mask, state);

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.normalizer.reset();
        self.inner.reset(stream, obs);
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let step = self.inner.step(action, stream, obs);
        self.normalizer.update(&[step.reward], &[step.outcome]);
        Step { reward: self.normalizer.normalize_one(step.reward), ..step }
    }

    fn save(&self, w: &mut StateWriter) {
        self.inner.save(w);
        self.normalizer.save(w);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.inner.load(r)?;
        self.normalizer.load(r)
    }
}

#[cfg(test)]
mod tests;
