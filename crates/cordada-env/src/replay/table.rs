//! Comparison of a recorded transition table with the environment's.

use super::recording::Recording;
use crate::env::Env;
use crate::error::Error;

/// Probabilities may differ by this, a rounding; everything else is exact.
const TOLERANCE: f64 = 1e-15;

/// Compares the tensors `P.*` and `initial_distribution`, if there are any. `name` is the
/// environment's.
pub(super) fn compare(
    recording: &Recording<'_>,
    name: &'static str,
    env: &dyn Env,
) -> Result<(), Error> {
    if !recording.has("P.count") {
        return Ok(());
    }
    let no_table = || Error::NoTable { path: recording.path.to_path_buf(), env: name };
    let table = env.table().ok_or_else(no_table)?;
    let (s, a) = (table.num_states(), table.num_actions());
    let check = |tensor: &'static str, index: Vec<usize>, recorded: f64, here: f64| {
        let exact = !matches!(tensor, "P.prob" | "initial_distribution");
        let tolerance = if exact { 0.0 } else { TOLERANCE };
        // Written so that NaN fails too.
        if (recorded - here).abs() <= tolerance {
            return Ok(());
        }
        let path = recording.path.to_path_buf();
        Err(Error::TableDiffers { path, tensor, index, recorded, here })
    };

    let initial = recording.tensor("initial_distribution", Some(s))?;
    for (state, (&recorded, &here)) in initial.iter().zip(table.initial()).enumerate() {
        check("initial_distribution", vec![state], recorded, here)?;
    }
    let count = recording.tensor("P.count", Some(s * a))?;
    // Lists shorter than the longest are padded.
    let width = recording.tensor("P.next", None)?.len() / (s * a);
    let read = |tensor| recording.tensor(tensor, Some(s * a * width));
    let (next, prob, reward, done) =
        (read("P.next")?, read("P.prob")?, read("P.reward")?, read("P.done")?);
    for (row, &recorded) in count.iter().enumerate() {
        let (state, action) = (row / a, row % a);
        let outcomes = table.outcomes(state, action);
        check("P.count", vec![state, action], recorded, outcomes.len() as f64)?;
        for (k, outcome) in outcomes.iter().enumerate() {
            let at = row * width + k;
            let index = || vec![state, action, k];
            check("P.next", index(), next[at], outcome.next_state as f64)?;
            check("P.prob", index(), prob[at], outcome.probability)?;
            check("P.reward", index(), reward[at], outcome.reward)?;
            check("P.done", index(), done[at], f64::from(u8::from(outcome.terminated)))?;
        }
    }
    Ok(())
}
