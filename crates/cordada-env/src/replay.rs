//! Replay of recorded trajectories: does an environment behave exactly as the one that was
//! recorded? The recordings are made elsewhere.

use std::path::Path;

use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::env::{Env, Outcome};
use crate::error::Error;
use crate::registry::find;
use crate::stream::{Stream, role};

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
/// For each trajectory the environment, with its time limit, is reset, its state is overwritten by
/// the first recorded one, and the recorded actions are applied. Compared are state, observation,
/// reward and end of every step; not the observation before the first step, which no environment
/// shows again once its state is overwritten. Where both ends are recorded at once, terminated is
/// the right answer.
///
/// A recording is a safetensors file with the metadata `env_id`, `kwargs` and `trajectories` (a
/// JSON list of objects with a `name`), and these tensors for each name.
///
/// # Shapes
///
/// `<name>.state`: `[T+1, S]`; `action`: `[T, A]`; `obs`: `[T+1, D]`; `reward`, `terminated`,
/// `truncated`: `[T]`.
///
/// # Errors
///
/// [`Error`] if the file cannot be read, is not such a recording, or its environment is unknown,
/// has other options or does not let its state be set.
pub fn replay(path: &Path) -> Result<ReplayReport, Error> {
    let bytes =
        std::fs::read(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
    let format = |source| Error::Format { path: path.to_path_buf(), source };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(format)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(format)?;
    let recording = Recording { path, tensors };

    let env_id = metadata(path, &header, "env_id")?;
    let spec = find(&env_id)?;
    let kwargs = metadata(path, &header, "kwargs")?;
    let no_kwargs = |kwargs: String| {
        let none = kwargs == "{}" || kwargs == "null";
        let path = path.to_path_buf();
        if none { Ok(()) } else { Err(Error::Kwargs { path, env: spec.name, kwargs }) }
    };
    no_kwargs(kwargs)?;
    let list: Vec<Trajectory> = serde_json::from_str(&metadata(path, &header, "trajectories")?)
        .map_err(|_| Error::Metadata { path: path.to_path_buf(), key: "trajectories" })?;

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
        no_kwargs(trajectory.kwargs.to_string())?;
        compare(&recording, &trajectory.name, &mut *spec.build(), &mut report)?;
    }
    Ok(report)
}

/// An entry of the metadata `trajectories`.
#[derive(Deserialize)]
struct Trajectory {
    name: String,
    #[serde(default)]
    kwargs: Value,
}

fn metadata(path: &Path, header: &Metadata, key: &'static str) -> Result<String, Error> {
    // The map's own order is random; one look-up does not depend on it.
    let value = header.metadata().as_ref().and_then(|map| map.get(key));
    value.cloned().ok_or_else(|| Error::Metadata { path: path.to_path_buf(), key })
}

/// Replays one trajectory.
fn compare(
    recording: &Recording<'_>,
    name: &str,
    env: &mut dyn Env,
    report: &mut ReplayReport,
) -> Result<(), Error> {
    let (d, a) = (env.obs_space().len(), env.action_space().len());
    let s = env.state().ok_or(Error::NoState)?.len();
    let rewards = recording.tensor(name, "reward", None)?;
    let steps = rewards.len();
    let states = recording.tensor(name, "state", Some((steps + 1) * s))?;
    let actions = recording.tensor(name, "action", Some(steps * a))?;
    let want_obs = recording.tensor(name, "obs", Some((steps + 1) * d))?;
    let terminated = recording.tensor(name, "terminated", Some(steps))?;
    let truncated = recording.tensor(name, "truncated", Some(steps))?;
    let actions: Vec<f32> = actions.iter().map(|&x| x as f32).collect();

    // A recording of a random environment carries its draws; none here has any after the reset.
    let mut stream = Stream::new(0, role::EVAL_ENV, 0);
    let mut obs = vec![0.0; d];
    env.reset(&mut stream, &mut obs);
    env.set_state(&states[..s])?;
    for t in 0..steps {
        let step = env.step(&actions[t * a..(t + 1) * a], &mut stream, &mut obs);
        let state = env.state().ok_or(Error::NoState)?;
        let (row, obs_row) = ((t + 1) * s..(t + 2) * s, (t + 1) * d..(t + 2) * d);
        for (&got, &want) in state.iter().zip(&states[row]) {
            report.max_diff_state = report.max_diff_state.max(difference(got, want));
        }
        for (&got, &want) in obs.iter().zip(&want_obs[obs_row]) {
            report.max_diff_obs = report.max_diff_obs.max(difference(f64::from(got), want));
            report.max_ulp_obs = report.max_ulp_obs.max(ulps(got, want as f32));
        }
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

/// An opened recording.
struct Recording<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

impl Recording<'_> {
    /// The tensor `<trajectory>.<name>` as numbers, of `len` elements if given.
    fn tensor(&self, trajectory: &str, name: &str, len: Option<usize>) -> Result<Vec<f64>, Error> {
        let tensor = format!("{trajectory}.{name}");
        let path = || self.path.to_path_buf();
        let Ok(view) = self.tensors.tensor(&tensor) else {
            return Err(Error::Tensor { path: path(), tensor });
        };
        let Some(values) = widen(view.dtype(), view.data()) else {
            let dtype = format!("{:?}", view.dtype());
            return Err(Error::TensorType { path: path(), tensor, dtype });
        };
        match len {
            Some(expected) if expected != values.len() => {
                let found = values.len();
                Err(Error::TensorLength { path: path(), tensor, expected, found })
            }
            _ => Ok(values),
        }
    }
}

/// Little-endian numbers as `f64`, exact for all that recordings hold; none for other types.
fn widen(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f64>> {
    fn each<const N: usize>(bytes: &[u8], from: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks().0.iter().map(|&b| from(b)).collect()
    }
    Some(match dtype {
        Dtype::F64 => each(bytes, f64::from_le_bytes),
        Dtype::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
        Dtype::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
        Dtype::U8 | Dtype::BOOL => each(bytes, |[b]| f64::from(b)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
