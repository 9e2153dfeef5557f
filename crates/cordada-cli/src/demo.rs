//! `cordada` without a command: one short run from start to result, in plain words.

use cordada::rl::train::RunConfig;

use crate::output::{Output, grouped};
use crate::report::Failure;
use crate::train::{create, train};

const ENV: &str = "CartPole-v1";

pub(crate) fn run(output: Output) -> Result<(), Failure> {
    let spec = cordada::env::find(ENV)?;
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
    let (mean, episodes) = (evaluation.mean_return, evaluation.episodes);
    let (limit, threshold) = (spec.max_episode_steps.unwrap_or(0), spec.reward_threshold);
    let solved = match threshold {
        Some(t) if mean >= t => format!("The task counts as solved from {t:.0}: solved."),
        Some(t) => format!("The task counts as solved from {t:.0}: not solved yet, train longer."),
        None => String::new(),
    };
    let (steps, seconds, dir) = (grouped(finished.steps), finished.seconds, run.dir().display());
    if !output.quiet {
        output.note("");
    }
    output.line(format!(
        "\
Trained  a policy for {ENV} with PPO, in {steps} steps and {seconds:.1} s.
Result   It balances the pole for {mean:.1} of {limit} steps on average, over {episodes} new
         episodes. {solved}
Run      {dir}: settings, metrics, checkpoints.

Try next:
  cordada eval {dir} --seed 2     100 other episodes
  cordada train ppo CartPole-v1 --steps 200k       a longer run
  cordada train ppo Pendulum-v1 --seeds 5          another task, five seeds
  cordada list envs                                all tasks
  tensorboard --logdir runs                        the curves, in a browser"
    ));
    Ok(())
}
