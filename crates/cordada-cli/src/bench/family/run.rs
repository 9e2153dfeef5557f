//! One run: training, with evaluations on the way whose time does not count.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cordada::rl::Error;
use cordada::rl::algo::Algorithm;
use cordada::rl::train::RunConfig;

/// Evaluations on the way, the last one among them; there is one more before the first step.
pub(super) const EVALUATIONS: u32 = 20;
/// Episodes of each but the last.
pub(super) const EPISODES: usize = 20;
/// Episodes of the last evaluation.
pub(super) const FINAL_EPISODES: usize = 100;

/// What a run is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Budget {
    /// So many steps, rounded up to whole iterations.
    Steps(u64),
    /// So many seconds of training, rounded up to whole iterations; schedules run over the steps
    /// that are expected.
    Seconds { seconds: f64, expected_steps: u64 },
}

impl Budget {
    /// How much of it is used.
    fn share(self, steps: u64, seconds: f64) -> f64 {
        match self {
            Self::Steps(all) => steps as f64 / all as f64,
            Self::Seconds { seconds: all, .. } => seconds / all,
        }
    }

    fn total_steps(self) -> u64 {
        match self {
            Self::Steps(steps) | Self::Seconds { expected_steps: steps, .. } => steps,
        }
    }
}

/// An evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) steps: u64,
    /// Seconds of training up to here.
    pub(super) seconds: f64,
    /// Mean return of the episodes, by the most probable action.
    pub(super) mean_return: f64,
}

/// What came out of a run.
#[derive(Clone, Debug)]
pub(super) struct Trained {
    pub(super) steps: u64,
    /// Seconds of training, without evaluation.
    pub(super) seconds: f64,
    /// The learning curve.
    pub(super) points: Vec<Point>,
    /// Mean return of the last evaluation.
    pub(super) final_return: f64,
    /// Why it ended early, if it diverged; its last evaluation then counts, and it has failed.
    pub(super) error: Option<String>,
}

/// Trains on one thread; none if it was asked to stop.
pub(super) fn train(
    config: &RunConfig,
    budget: Budget,
    stop: &AtomicBool,
) -> Result<Option<Trained>, Error> {
    let mut config = config.clone();
    config.run.total_steps = budget.total_steps();
    let mut algorithm = config.make(1)?;
    let mut evaluate = |algorithm: &dyn Algorithm, episodes: usize| -> Result<f64, Error> {
        config.run.eval_episodes = episodes;
        Ok(config.evaluate(algorithm)?.mean_return)
    };
    let mean_return = evaluate(&*algorithm, EPISODES)?;
    let mut points = vec![Point { steps: 0, seconds: 0.0, mean_return }];
    let (mut seconds, mut evaluated, mut error) = (0.0, 0, None);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let began = Instant::now();
        let report = algorithm.iterate();
        seconds += began.elapsed().as_secs_f64();
        if let Err(diverged) = report {
            error = Some(diverged.to_string());
            break;
        }
        let steps = algorithm.steps();
        let share = budget.share(steps, seconds);
        let due = (share * f64::from(EVALUATIONS)) as u32;
        if share >= 1.0 {
            let mean_return = evaluate(&*algorithm, FINAL_EPISODES)?;
            points.push(Point { steps, seconds, mean_return });
            break;
        }
        if due > evaluated {
            evaluated = due;
            let mean_return = evaluate(&*algorithm, EPISODES)?;
            points.push(Point { steps, seconds, mean_return });
        }
    }
    let steps = algorithm.steps();
    let final_return = points[points.len() - 1].mean_return;
    Ok(Some(Trained { steps, seconds, points, final_return, error }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(budget: Budget) -> Trained {
        let config = RunConfig::new("ppo", "CartPole-v1", &[]).unwrap();
        train(&config, budget, &AtomicBool::new(false)).unwrap().unwrap()
    }

    #[test]
    fn a_curve_has_evenly_spaced_evaluations() {
        // An iteration has 256 steps: 40 of them in 10 240 steps, an evaluation after each second.
        let run = run(Budget::Steps(10_240));
        let steps: Vec<u64> = run.points.iter().map(|point| point.steps).collect();
        let want: Vec<u64> = (0..=20).map(|k| 512 * k).collect();
        assert_eq!(steps, want);
        assert!(run.points.is_sorted_by_key(|point| point.seconds));
        let last = run.points[20];
        assert_eq!((last.steps, last.seconds), (run.steps, run.seconds));
        assert_eq!((last.mean_return, &run.error), (run.final_return, &None));
        // Evaluations leave training as it is: another run is the same, whatever its time.
        let again = self::run(Budget::Steps(10_240));
        let returns = |t: &Trained| t.points.iter().map(|p| p.mean_return).collect::<Vec<_>>();
        assert_eq!(returns(&again), returns(&run));
    }

    #[test]
    fn a_timed_run_ends_with_the_first_iteration_past_its_time() {
        let run = run(Budget::Seconds { seconds: 0.05, expected_steps: 5000 });
        let before = run.points[run.points.len() - 2];
        assert!(before.seconds < 0.05 && run.seconds >= 0.05, "{run:?}");
        assert!(run.steps > 0 && run.steps.is_multiple_of(256));
    }

    #[test]
    fn what_was_asked_to_stop_has_no_result() {
        let config = RunConfig::new("ppo", "CartPole-v1", &[]).unwrap();
        let stopped = train(&config, Budget::Steps(512), &AtomicBool::new(true)).unwrap();
        assert!(stopped.is_none());
    }

    #[test]
    fn a_run_that_diverges_keeps_its_curve() {
        let changes = [("learning_rate".to_string(), toml::Value::Float(1e30))];
        let config = RunConfig::new("reinforce", "CartPole-v1", &changes).unwrap();
        let run = train(&config, Budget::Steps(100_000), &AtomicBool::new(false)).unwrap().unwrap();
        assert!(run.error.is_some() && run.steps < 100_000, "{run:?}");
        assert_eq!(run.final_return, run.points[run.points.len() - 1].mean_return);
    }
}
