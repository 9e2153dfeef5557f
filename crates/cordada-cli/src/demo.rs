//! `cordada` without a command: one short run from start to result, in plain words.

use cordada::rl::train::RunConfig;

use crate::output::{Output, grouped};
use crate::report::Failure;
use crate::train::{create, train};

const ENV: &str = "CartPole-v1";
/// Mean return from which it counts as solved.
const THRESHOLD: f64 = 475.0;

pub(crate) fn run(output: Output) -> Result<(), Failure> {
    if !output.json && !output.quiet {
        output.note(format!(
            "cordada {}: teaching a cart to balance a pole, with PPO, in a few seconds.",
            env!("CARGO_PKG_VERSION")
        ));
        output.note("`cordada --help` shows everything else.\n");
    }
    let mut run = create(RunConfig::new("ppo", ENV, &[])?, None, 1)?;
    let finished = train(&mut run, output)?;
    let Some(evaluation) = finished.evaluation.filter(|_| !output.json) else {
        return Ok(());
    };
    if !output.quiet {
        output.note("");
    }
    let dir = run.dir().display().to_string();
    output.line(summary(&dir, finished.steps, finished.seconds, evaluation.mean_return));
    Ok(())
}

/// What was done, how well it went, and what to do next, for a terminal of 80 columns.
fn summary(dir: &str, steps: u64, seconds: f64, mean: f64) -> String {
    let steps = grouped(steps);
    let solved = if mean >= THRESHOLD { "it is" } else { "not yet, train longer" };
    format!(
        "\
Trained  a policy for {ENV} with PPO, in {steps} steps and {seconds:.1} s.
Result   It balances the pole for {mean:.1} of at most 500 steps on average, over
         100 new episodes. From {THRESHOLD:.0} it counts as solved: {solved}.
Run      {dir}: settings, metrics, checkpoints,
         and report.html with the curves, to open in a browser.

Try next:
  cordada eval {dir} --seed 2     100 other episodes
  cordada train ppo CartPole-v1 --steps 200k       a longer run
  cordada train ppo Pendulum-v1 --seeds 5          another task, five seeds
  cordada list envs                                all tasks
  tensorboard --logdir runs                        curves of several runs"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_whether_the_task_is_solved() {
        assert_eq!(cordada::env::find(ENV).unwrap().reward_threshold, Some(THRESHOLD));
        let solved = summary("runs/ppo-CartPole-v1-1", 100_096, 0.84, 500.0);
        assert!(solved.contains("in 100,096 steps and 0.8 s") && solved.contains("solved: it is."));
        let not = summary("runs/ppo-CartPole-v1-1", 100_096, 0.84, 474.9);
        assert!(not.contains("for 474.9 of") && not.contains("solved: not yet"));
        for text in [solved, not] {
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
    }
}
