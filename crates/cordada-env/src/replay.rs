//! Replay of recorded trajectories: does an environment behave exactly as the one that was
//! recorded? The recordings are made elsewhere.

use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::env::{Env, Outcome};
use crate::error::Error;
use crate::registry::find;
use crate::stream::{Stream, role};

mod recording;
mod table;

use recording::Recording;

/// How far an environment departs from a recording.
///
/// A difference is infinite (in JSON: null) where one side alone is not a number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplayReport {
    /// The recording.
    pub file: String,
    /// Name of the environment.
    pub env: String,
    /// Number of trajectories.
    pub trajectories: usize,
    /// Number of steps, over all trajectories.
    pub steps: usize,
    /// Largest absolute difference of a number of the state.
    pub max_diff_state: f64,
    /// Largest absolute difference of a number of an observation.
    pub max_diff_obs: f64,
    /// Largest difference of a number of an observation in units in the last place of `f32`.
    pub max_ulp_obs: u32,
    /// Largest absolute difference of a reward.
    pub max_diff_reward: f64,
    /// Number of steps whose end (terminated, truncated, neither) differs.
    pub flag_mismatches: usize,
}

/// Replays every trajectory of a recording and compares every step.
///
/// An environment that takes recorded draws ([`Env::reset_recorded`]) is driven by those of the
/// trajectory, and compared from the reset on. Any other is reset, its state is overwritten by the
/// first recorded one, and the steps are compared; not the observation before the first step,
/// which no environment shows again once its state is overwritten. Compared are observation,
/// reward and end of every step, and the state if it is recorded. Where both ends are recorded at
/// once, terminated is the right answer. A recorded transition table has to be the environment's.
///
/// A recording is a safetensors file with the metadata `env_id`, `kwargs` (a JSON object of
/// options) and `trajectories` (a JSON list of objects with a `name`, `kwargs` where they differ,
/// and `initial_state_set` where the state was overwritten after the reset), and these tensors for
/// each name.
///
/// # Shapes
///
/// `<name>.state`: `[T+1, S]`; `action`: `[T, A]`; `obs`: `[T+1, D]`; `reward`, `terminated`,
/// `truncated`: `[T]`; `draws`: all draws in their order; `draws_ptr`: `[T+2]`, the reset's draws
/// are those from entry 0 to entry 1, those of step t from entry t + 1 to entry t + 2.
///
/// Of the whole file: `initial_distribution` `[S]`, `P.count` `[S, A]`, `P.next`, `P.prob`,
/// `P.reward` and `P.done` `[S, A, K]`: the table under the options of the last trajectory.
///
/// # Errors
///
/// [`Error`] if the file cannot be read, is not such a recording, its environment is unknown, has
/// other options or another transition table, or can be driven neither by draws nor from a state.
pub fn replay(path: &Path) -> Result<ReplayReport, Error> {
    let bytes =
        std::fs::read(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
    let format = |source| Error::Format { path: path.to_path_buf(), source };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(format)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(format)?;
    let recording = Recording { path, tensors };

    let spec = find(&metadata(path, &header, "env_id")?)?;
    let options: Option<Map<String, Value>> = json(path, &header, "kwargs")?;
    let list: Vec<Trajectory> = json(path, &header, "trajectories")?;
    let build = |own: Option<&Map<String, Value>>| {
        let mut options = options.clone().unwrap_or_default();
        options.extend(own.cloned().unwrap_or_default());
        let kwargs = Value::Object(options).to_string();
        spec.build_with(&kwargs).map_err(|source| {
            let (path, source) = (path.to_path_buf(), Box::new(source));
            Error::Kwargs { path, env: spec.name, kwargs, source }
        })
    };

    let mut report = ReplayReport {
        file: path.display().to_string(),
        env: spec.name.to_string(),
        trajectories: list.len(),
        steps: 0,
        max_diff_state: 0.0,
        max_diff_obs: 0.0,
        max_ulp_obs: 0,
        max_diff_reward: 0.0,
        flag_mismatches: 0,
    };
    for trajectory in &list {
        let mut env = build(trajectory.kwargs.as_ref())?;
        compare(&recording, trajectory, &mut *env, &mut report)?;
    }
    let last = build(list.last().and_then(|trajectory| trajectory.kwargs.as_ref()))?;
    table::compare(&recording, spec.name, &*last)?;
    Ok(report)
}

/// An entry of the metadata `trajectories`.
#[derive(Deserialize)]
struct Trajectory {
    name: String,
    #[serde(default)]
    kwargs: Option<Map<String, Value>>,
    #[serde(default)]
    initial_state_set: bool,
}

fn metadata(path: &Path, header: &Metadata, key: &'static str) -> Result<String, Error> {
    // The map's own order is random; one look-up does not depend on it.
    let value = header.metadata().as_ref().and_then(|map| map.get(key));
    value.cloned().ok_or_else(|| Error::Metadata { path: path.to_path_buf(), key })
}

fn json<T: DeserializeOwned>(
    path: &Path,
    header: &Metadata,
    key: &'static str,
) -> Result<T, Error> {
    let text = metadata(path, header, key)?;
    serde_json::from_str(&text).map_err(|_| Error::Metadata { path: path.to_path_buf(), key })
}

/// Replays one trajectory.
fn compare(
    recording: &Recording<'_>,
    trajectory: &Trajectory,
    env: &mut dyn Env,
    report: &mut ReplayReport,
) -> Result<(), Error> {
    let name = &trajectory.name;
    let read = |what: &str, len| recording.tensor(&format!("{name}.{what}"), len);
    let (d, a) = (env.obs_space().len(), env.action_space().len());
    let rewards = read("reward", None)?;
    let steps = rewards.len();
    let actions = read("action", Some(steps * a))?;
    let terminated = read("terminated", Some(steps))?;
    let truncated = read("truncated", Some(steps))?;
    let actions: Vec<f32> = actions.iter().map(|&x| x as f32).collect();
    let mut shown = Shown { obs: read("obs", Some((steps + 1) * d))?, d, states: None };
    if let Some(s) = env.state().map(|state| state.len()) {
        shown.states = recording.optional(&format!("{name}.state"), (steps + 1) * s)?;
    }

    let draws = recorded_draws(recording, name, steps)?;
    let wrong = |step: usize| {
        move |source: Error| Error::Step {
            path: recording.path.to_path_buf(),
            trajectory: name.clone(),
            step,
            source: Box::new(source),
        }
    };
    let mut obs = vec![0.0; d];
    // Only a random environment needs draws after the reset; the others come with a state.
    let mut stream = Stream::new(0, role::EVAL_ENV, 0);
    let driven = match draws.as_ref().map(|draws| env.reset_recorded(&draws[0], &mut obs)) {
        Some(Ok(())) => draws,
        None | Some(Err(Error::NoDraws)) => None,
        Some(Err(error)) => return Err(wrong(0)(error)),
    };
    if driven.is_none() {
        env.reset(&mut stream, &mut obs);
    }
    if driven.is_none() || trajectory.initial_state_set {
        let s = env.state().ok_or(Error::NoState).map_err(wrong(0))?.len();
        let states = read("state", Some((steps + 1) * s))?;
        env.set_state(&states[..s]).map_err(wrong(0))?;
    } else {
        shown.compare(0, env, &obs, report);
    }
    for t in 0..steps {
        let action = &actions[t * a..(t + 1) * a];
        let step = match &driven {
            Some(draws) => {
                env.step_recorded(action, &draws[t + 1], &mut obs).map_err(wrong(t + 1))?
            }
            None => env.step(action, &mut stream, &mut obs),
        };
        shown.compare(t + 1, env, &obs, report);
        let diff = difference(step.reward, rewards[t]);
        report.max_diff_reward = report.max_diff_reward.max(diff);
        let want = match (terminated[t] != 0.0, truncated[t] != 0.0) {
            (true, _) => Outcome::Terminated,
            (false, true) => Outcome::Truncated,
            (false, false) => Outcome::Continue,
        };
        report.flag_mismatches += usize::from(step.outcome != want);
    }
    report.steps += steps;
    Ok(())
}

/// What a recording shows of its environment: observations `[T+1, d]` and, perhaps, states.
struct Shown {
    obs: Vec<f64>,
    d: usize,
    states: Option<Vec<f64>>,
}

impl Shown {
    /// Compares what `env` shows with row `t`.
    fn compare(&self, t: usize, env: &dyn Env, obs: &[f32], report: &mut ReplayReport) {
        for (&got, &want) in obs.iter().zip(&self.obs[t * self.d..]) {
            report.max_diff_obs = report.max_diff_obs.max(difference(f64::from(got), want));
            report.max_ulp_obs = report.max_ulp_obs.max(ulps(got, want as f32));
        }
        let state = env.state().unwrap_or_default();
        let Some(states) = &self.states else { return };
        for (&got, &want) in state.iter().zip(&states[t * state.len()..]) {
            report.max_diff_state = report.max_diff_state.max(difference(got, want));
        }
    }
}

/// The draws of the reset and of every step, if they are recorded.
fn recorded_draws(
    recording: &Recording<'_>,
    name: &str,
    steps: usize,
) -> Result<Option<Vec<Vec<f64>>>, Error> {
    let tensor = format!("{name}.draws");
    if !recording.has(&tensor) {
        return Ok(None);
    }
    let draws = recording.tensor(&tensor, None)?;
    let pointers = recording.tensor(&format!("{name}.draws_ptr"), Some(steps + 2))?;
    let parts = pointers.windows(2).map(|ends| {
        let (from, to) = (ends[0] as usize, ends[1] as usize);
        let part = draws.get(from..to).map(<[f64]>::to_vec);
        part.ok_or_else(|| Error::TensorLength {
            path: recording.path.to_path_buf(),
            tensor: tensor.clone(),
            expected: to,
            found: draws.len(),
        })
    });
    parts.collect::<Result<_, _>>().map(Some)
}

/// Absolute difference; infinite if one of the two alone is NaN.
fn difference(a: f64, b: f64) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    let difference = (a - b).abs();
    if difference.is_nan() { f64::INFINITY } else { difference }
}

/// How many floats lie between two; the maximum if one of the two alone is NaN.
fn ulps(a: f32, b: f32) -> u32 {
    // Floats in order are sign-magnitude integers in order; both zeros are 0.
    let ordered = |x: f32| {
        let magnitude = i64::from(x.to_bits() & 0x7fff_ffff);
        if x.is_sign_negative() { -magnitude } else { magnitude }
    };
    match (a.is_nan(), b.is_nan()) {
        (true, true) => 0,
        (false, false) => (ordered(a) - ordered(b)).unsigned_abs() as u32,
        _ => u32::MAX,
    }
}

#[cfg(test)]
mod tests;
