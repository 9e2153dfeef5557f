//! `cordada eval`: episodes with a trained policy.

use std::path::Path;

use cordada::log::RunDir;
use cordada::rl::checkpoint::{self, POLICY_FILE};
use cordada::rl::evaluate::{EvalOptions, evaluate};
use cordada::rl::policy_file::Policy;
use cordada::rl::train::RunConfig;

use crate::args::EvalArgs;
use crate::output::Output;
use crate::report::Failure;

/// Seed where no run says one.
const DEFAULT_SEED: u64 = 1;

pub(crate) fn run(args: &EvalArgs, output: Output) -> Result<(), Failure> {
    let (policy, seed) = read(&args.path, output)?;
    let spec = cordada::env::find(&policy.env)?;
    let env = spec.build();
    let spaces = (env.obs_space(), env.action_space());
    let action_space = policy.spec.action_space();
    if spaces != (&policy.obs_space, &action_space) {
        return Err(Failure::failed(
            format!(
                "{} is a policy for {} and {}, but {} has {} and {}",
                args.path.display(),
                policy.obs_space,
                action_space,
                spec.name,
                spaces.0,
                spaces.1
            ),
            "train a new one with this version",
        ));
    }
    let options = EvalOptions {
        episodes: args.episodes as usize,
        seed: args.seed.unwrap_or(seed),
        deterministic: !args.stochastic,
    };
    let evaluation = evaluate(&policy, &|| spec.build(), options);
    if output.json {
        output.object(&evaluation);
        return Ok(());
    }
    let (mean, std, n) = (evaluation.mean_return, evaluation.std_return, evaluation.episodes);
    let actions = if options.deterministic { "most probable actions" } else { "sampled actions" };
    output.line(format!("return  {mean:.1} ± {std:.1} over {n} episodes of {}", spec.name));
    output.line(format!("length  {:.1} steps, {actions}", evaluation.mean_length));
    Ok(())
}

/// The policy at a path, and the seed of its run.
fn read(path: &Path, output: Output) -> Result<(Policy, u64), Failure> {
    if path.is_file() {
        return Ok((Policy::read(path)?, DEFAULT_SEED));
    }
    // A folder of one checkpoint, and none of a run, is taken as its policy file.
    let file = path.join(POLICY_FILE);
    if file.is_file() {
        return Ok((Policy::read(&file)?, DEFAULT_SEED));
    }
    let dir = RunDir::open(path)?;
    let found = checkpoint::newest(&dir.checkpoints_dir())?;
    for warning in &found.refused {
        output.warning(warning);
    }
    // Only the seed is wanted of the config: a damaged one is no reason not to play.
    let config = dir.read_config().ok().and_then(|text| RunConfig::from_toml(&text).ok());
    Ok((found.policy, config.map_or(DEFAULT_SEED, |config| config.run.seed)))
}
