//! What training needs of a language model. What crosses this line is tokens, log-probabilities, ψ
//! and settings of the optimizer, so that another machine's implementation can stand beside
//! [`Model`], which computes on the processor.

use std::fmt::Debug;

use cordada_env::{StateError, StateReader, StateWriter};

use crate::generate::{Completion, Request, StopCheck};
use crate::{Error, Group, Model, ModelConfig, Objective, Sampling, StepSettings, TokenScores};

/// A policy over tokens that samples and learns.
pub trait LanguageModel: Debug + Send {
    /// Its shape.
    fn config(&self) -> &ModelConfig;

    /// Threads that it computes with; they never change a result.
    fn num_threads(&self) -> usize;

    /// Scores of the completions' tokens under the policy.
    fn log_prob(&mut self, groups: &[Group], temperature: f64) -> TokenScores<f32>;

    /// The same under the model without its adapter: the reference of a policy that trains one.
    fn base_log_prob(&mut self, groups: &[Group], temperature: f64) -> TokenScores<f32>;

    /// Scores the completions' tokens, asks `objective` for its derivatives, and adds its gradient
    /// to the sum that [`step`](Self::step) follows.
    fn score(
        &mut self,
        groups: &[Group],
        temperature: f64,
        objective: &mut Objective<'_, f32>,
    ) -> TokenScores<f32>;

    /// `ln π` of every token of the vocabulary where the completions' tokens were chosen,
    /// `[tokens, V]`; with `base`, without the adapter. For small vocabularies.
    fn distributions(&mut self, groups: &[Group], temperature: f64, base: bool) -> Vec<f32>;

    /// [`score`](Self::score) with the exact KL divergence to a reference's
    /// [`distributions`](Self::distributions) among scores and derivatives.
    fn score_near(
        &mut self,
        groups: &[Group],
        temperature: f64,
        reference: &[f32],
        objective: &mut Objective<'_, f32>,
    ) -> TokenScores<f32>;

    /// Samples completions with the log-probabilities that [`log_prob`](Self::log_prob) gives.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a prompt that it cannot read or a setting outside its range.
    fn generate(
        &mut self,
        requests: &[Request],
        sampling: &Sampling,
        seed: u64,
        stop: Option<&StopCheck<'_>>,
    ) -> Result<Vec<Vec<Completion<f32>>>, Error>;

    /// Moves along the summed gradient and clears it; returns its norm before clipping. One that is
    /// not finite moves nothing.
    fn step(&mut self, settings: StepSettings) -> f64;

    /// All parameters, without the adapter's, in the order of [`Layout`](crate::Layout).
    fn theta(&self) -> &[f32];

    /// The adapter's parameters, if it trains one.
    fn adapter_theta(&self) -> Option<&[f32]>;

    /// Appends all that training changes: parameters and optimizers.
    fn save(&self, w: &mut StateWriter);

    /// Restores what [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// [`StateError`] if it is of another kind of model.
    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError>;
}

impl LanguageModel for Model<f32> {
    fn config(&self) -> &ModelConfig {
        self.transformer().config()
    }

    fn num_threads(&self) -> usize {
        self.threads().count()
    }

    fn log_prob(&mut self, groups: &[Group], temperature: f64) -> TokenScores<f32> {
        Self::log_prob(self, groups, temperature)
    }

    fn base_log_prob(&mut self, groups: &[Group], temperature: f64) -> TokenScores<f32> {
        Self::base_log_prob(self, groups, temperature)
    }

    fn score(
        &mut self,
        groups: &[Group],
        temperature: f64,
        objective: &mut Objective<'_, f32>,
    ) -> TokenScores<f32> {
        Self::score(self, groups, temperature, objective)
    }

    fn distributions(&mut self, groups: &[Group], temperature: f64, base: bool) -> Vec<f32> {
        Self::distributions(self, groups, temperature, base)
    }

    fn score_near(
        &mut self,
        groups: &[Group],
        temperature: f64,
        reference: &[f32],
        objective: &mut Objective<'_, f32>,
    ) -> TokenScores<f32> {
        Self::score_near(self, groups, temperature, reference, objective)
    }

    fn generate(
        &mut self,
        requests: &[Request],
        sampling: &Sampling,
        seed: u64,
        stop: Option<&StopCheck<'_>>,
    ) -> Result<Vec<Vec<Completion<f32>>>, Error> {
        Self::generate(self, requests, sampling, seed, stop)
    }

    fn step(&mut self, settings: StepSettings) -> f64 {
        Self::step(self, settings)
    }

    fn theta(&self) -> &[f32] {
        &self.weights().theta
    }

    fn adapter_theta(&self) -> Option<&[f32]> {
        self.adapter().map(|a| &a.theta[..])
    }

    fn save(&self, w: &mut StateWriter) {
        w.f32s(self.adapter_theta().unwrap_or(self.theta()));
        w.f32s(self.value_head().map_or(&[], |v| &v.theta));
        for optimizer in self.optimizers() {
            w.u64(optimizer.steps());
            for (_, values) in optimizer.state() {
                w.f32s(values);
            }
        }
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        let (theta, value, optimizers) = self.state_mut();
        r.f32s_into(theta)?;
        r.f32s_into(value.unwrap_or(&mut []))?;
        for optimizer in optimizers {
            optimizer.set_steps(r.u64()?);
            for (_, values) in optimizer.state_mut() {
                r.f32s_into(values)?;
            }
        }
        self.pack();
        Ok(())
    }
}
