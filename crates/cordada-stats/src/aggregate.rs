//! Aggregate statistics over a matrix of scores, `[runs, tasks]`: points without intervals, which
//! are in [`bootstrap`](crate::bootstrap). All as the Python package rliable 1.2 computes them.
//!
//! Scores of several tasks are comparable only after normalization, by which 0 is usually a random
//! policy and 1 a good one ([`Scores::normalized`]).

use crate::error::{Error, all_finite};
use crate::sample::{interquartile_mean, mean, median};

/// Scores of several runs on several tasks, all finite, at least one of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    num_tasks: usize,
    /// `[runs, tasks]`
    values: Vec<f64>,
}

impl Scores {
    /// Scores from one row per run.
    ///
    /// # Shapes
    ///
    /// `rows`: `[runs, tasks]`.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] without runs or tasks, [`Error::Ragged`] if rows differ in length,
    /// [`Error::NonFinite`] with the index in row-major order.
    pub fn new<R: AsRef<[f64]>>(rows: &[R]) -> Result<Self, Error> {
        let num_tasks = rows.first().ok_or(Error::Empty { what: "runs" })?.as_ref().len();
        let mut values = Vec::with_capacity(rows.len() * num_tasks);
        for (row, scores) in rows.iter().enumerate() {
            let got = scores.as_ref().len();
            if got != num_tasks {
                return Err(Error::Ragged { row, expected: num_tasks, got });
            }
            values.extend_from_slice(scores.as_ref());
        }
        Self::from_flat(values, num_tasks)
    }

    /// Scores from a matrix in row-major order.
    ///
    /// # Shapes
    ///
    /// `values`: `[runs, tasks]`.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] without runs or tasks, [`Error::Ragged`] if the last row is incomplete,
    /// [`Error::NonFinite`].
    pub fn from_flat(values: Vec<f64>, num_tasks: usize) -> Result<Self, Error> {
        if num_tasks == 0 {
            return Err(Error::Empty { what: "tasks" });
        }
        if values.is_empty() {
            return Err(Error::Empty { what: "runs" });
        }
        let rest = values.len() % num_tasks;
        if rest != 0 {
            let row = values.len() / num_tasks;
            return Err(Error::Ragged { row, expected: num_tasks, got: rest });
        }
        all_finite("score", &values)?;
        Ok(Self { num_tasks, values })
    }

    /// Scores of several runs on a single task.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] without runs, [`Error::NonFinite`].
    pub fn one_task(scores: &[f64]) -> Result<Self, Error> {
        Self::from_flat(scores.to_vec(), 1)
    }

    /// The number of runs.
    pub fn num_runs(&self) -> usize {
        self.values.len() / self.num_tasks
    }

    /// The number of tasks.
    pub fn num_tasks(&self) -> usize {
        self.num_tasks
    }

    /// All scores in row-major order, `[runs, tasks]`.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The scores of all runs on one task.
    ///
    /// # Panics
    ///
    /// If there is no such task.
    pub fn task(&self, task: usize) -> impl Iterator<Item = f64> + Clone + '_ {
        assert!(task < self.num_tasks, "task {task} of {}", self.num_tasks);
        self.values[task..].iter().step_by(self.num_tasks).copied()
    }

    /// Scores on a scale by task: `(x − low) / (high − low)`, so that `low` becomes 0 and `high` 1.
    ///
    /// # Shapes
    ///
    /// `low`, `high`: `[tasks]`.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] if there is not one of each per task, [`Error::NonFinite`] if a result is
    /// not finite, as with `low` = `high`.
    pub fn normalized(&self, low: &[f64], high: &[f64]) -> Result<Self, Error> {
        for (what, bounds) in [("low scores", low), ("high scores", high)] {
            if bounds.len() != self.num_tasks {
                return Err(Error::Length { what, expected: self.num_tasks, got: bounds.len() });
            }
        }
        let rows = self.values.chunks_exact(self.num_tasks);
        let values = rows.flat_map(|row| {
            row.iter().zip(low.iter().zip(high)).map(|(x, (low, high))| (x - low) / (high - low))
        });
        Self::from_flat(values.collect(), self.num_tasks)
    }

    /// The mean of all scores.
    pub fn mean(&self) -> f64 {
        mean(&self.task_means())
    }

    /// The median over tasks of the mean over runs. With one task it is therefore the mean; the
    /// median over runs is [`quantile`](crate::quantile) at ½.
    pub fn median(&self) -> f64 {
        median(&mut self.task_means())
    }

    /// The interquartile mean: the mean of the middle half of all scores, runs and tasks together.
    ///
    /// ```text
    /// IQM = mean of x₍k₎ … x₍n−k−1₎      k = ⌊n/4⌋, n = runs · tasks, x sorted, from index 0
    /// ```
    ///
    /// # Source
    ///
    /// Agarwal et al. 2021, arXiv:2108.13264, section 4.3.
    pub fn iqm(&self) -> f64 {
        interquartile_mean(&mut self.values.clone())
    }

    /// By how much scores fall short of `gamma`, on average; what exceeds it does not make up for
    /// what is missing.
    ///
    /// ```text
    /// gap = γ − mean min(x, γ)
    /// ```
    ///
    /// # Source
    ///
    /// Agarwal et al. 2021, arXiv:2108.13264, section 4.3.
    pub fn optimality_gap(&self, gamma: f64) -> f64 {
        let capped = self.values.iter().map(|x| x.min(gamma)).sum::<f64>();
        gamma - capped / self.values.len() as f64
    }

    /// The performance profile by runs: the share of all scores above each threshold, strictly.
    ///
    /// ```text
    /// F(τ) = #{ (run, task) : x > τ } / (runs · tasks)
    /// ```
    ///
    /// # Shapes
    ///
    /// `thresholds`: `[K]`; result: `[K]`.
    ///
    /// # Source
    ///
    /// Agarwal et al. 2021, arXiv:2108.13264, eq. (2), the run-score distribution.
    pub fn profile(&self, thresholds: &[f64]) -> Vec<f64> {
        share_above(&self.values, thresholds)
    }

    /// The performance profile by tasks: the share of tasks whose mean over runs is above each
    /// threshold, strictly.
    ///
    /// # Shapes
    ///
    /// `thresholds`: `[K]`; result: `[K]`.
    ///
    /// # Source
    ///
    /// Agarwal et al. 2021, arXiv:2108.13264, section 4.2, the average-score distribution.
    pub fn average_profile(&self, thresholds: &[f64]) -> Vec<f64> {
        share_above(&self.task_means(), thresholds)
    }

    /// The mean over runs of each task, `[tasks]`.
    pub fn task_means(&self) -> Vec<f64> {
        let num_runs = self.num_runs() as f64;
        (0..self.num_tasks).map(|task| self.task(task).sum::<f64>() / num_runs).collect()
    }

    /// Overwrites the scores by runs of another matrix of the same shape: `run_of(task)` is called
    /// task by task, once for each run. What is copied is finite, so the result is.
    pub(crate) fn resample(&mut self, from: &Self, mut draw: impl FnMut(usize) -> usize) {
        let (num_runs, num_tasks) = (from.num_runs(), from.num_tasks);
        for task in 0..num_tasks {
            for run in 0..num_runs {
                let drawn = draw(num_runs);
                assert!(drawn < num_runs, "index {drawn} was drawn from {num_runs} runs");
                self.values[run * num_tasks + task] = from.values[drawn * num_tasks + task];
            }
        }
    }
}

fn share_above(values: &[f64], thresholds: &[f64]) -> Vec<f64> {
    let share = |tau: &f64| values.iter().filter(|&x| x > tau).count() as f64 / values.len() as f64;
    thresholds.iter().map(share).collect()
}

/// How likely a run of X beats a run of Y on a task, averaged over the tasks; a tie counts half.
///
/// ```text
/// P = mean over tasks of  ( #{ (i, j) : x_i > y_j } + ½ #{ (i, j) : x_i = y_j } ) / (n_x n_y)
/// ```
///
/// # Shapes
///
/// `x`, `y`: `[runs, tasks]`; the numbers of runs may differ.
///
/// # Errors
///
/// [`Error::Length`] if the numbers of tasks differ.
///
/// # Source
///
/// Agarwal et al. 2021, arXiv:2108.13264, section 4.3 (the Mann-Whitney U statistic).
pub fn probability_of_improvement(x: &Scores, y: &Scores) -> Result<f64, Error> {
    let tasks = x.num_tasks;
    if y.num_tasks != tasks {
        return Err(Error::Length {
            what: "the second matrix's row",
            expected: tasks,
            got: y.num_tasks,
        });
    }
    let pairs = (x.num_runs() * y.num_runs()) as f64;
    let of_task = |task: usize| {
        let wins = x.task(task).flat_map(|a| y.task(task).map(move |b| win(a, b)));
        wins.sum::<f64>() / pairs
    };
    Ok((0..tasks).map(of_task).sum::<f64>() / tasks as f64)
}

fn win(a: f64, b: f64) -> f64 {
    if a > b {
        1.0
    } else if a == b {
        0.5
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-12, "{got}, expected {want}");
    }

    /// Three runs on two tasks.
    fn scores() -> Scores {
        Scores::new(&[[0.0, 1.0], [0.5, 1.0], [0.4, 2.0]]).unwrap()
    }

    #[test]
    fn mean_and_median_go_by_task() {
        // Means by task: 0.3 and 4/3; both mean and median of the two are 49/60.
        near(scores().mean(), 49.0 / 60.0);
        near(scores().median(), 49.0 / 60.0);
        // Means by task 1, 2 and 9: the median is that of means, not of scores.
        let three = Scores::new(&[[0.0, 2.0, 0.0], [2.0, 2.0, 18.0]]).unwrap();
        near(three.mean(), 4.0);
        near(three.median(), 2.0);
    }

    #[test]
    fn the_iqm_takes_runs_and_tasks_together() {
        // 0, 0.4, 0.5, 1, 1, 2 without one at each end: 2.9 / 4.
        near(scores().iqm(), 0.725);
        let eight = Scores::new(&[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]).unwrap();
        near(eight.iqm(), 4.5);
    }

    #[test]
    fn the_optimality_gap_does_not_reward_excess() {
        // min(x, 1): 0, 1, 0.5, 1, 0.4, 1; their mean is 0.65.
        near(scores().optimality_gap(1.0), 0.35);
        // min(x, ½): 0, ½, ½, ½, 0.4, ½; ½ − 0.4.
        near(scores().optimality_gap(0.5), 0.1);
    }

    #[test]
    fn profiles_count_what_is_strictly_above() {
        let taus = [-1.0, 0.0, 0.4, 1.0, 2.0];
        assert_eq!(scores().profile(&taus), [1.0, 5.0 / 6.0, 4.0 / 6.0, 1.0 / 6.0, 0.0]);
        assert_eq!(scores().average_profile(&taus), [1.0, 1.0, 0.5, 0.5, 0.0]);
    }

    #[test]
    fn a_tie_is_half_an_improvement() {
        let x = Scores::one_task(&[1.0, 2.0, 3.0]).unwrap();
        let y = Scores::one_task(&[2.0, 2.0]).unwrap();
        // 1 loses twice, 2 ties twice, 3 wins twice: (1 + 2) / 6.
        near(probability_of_improvement(&x, &y).unwrap(), 0.5);
        near(probability_of_improvement(&x, &x).unwrap(), 0.5);
        // Two tasks: on the first x always wins, on the second one of four pairs is a tie.
        let x = Scores::new(&[[9.0, 1.0], [8.0, 2.0]]).unwrap();
        let y = Scores::new(&[[0.0, 2.0], [1.0, 3.0]]).unwrap();
        near(probability_of_improvement(&x, &y).unwrap(), 1.125 / 2.0);
        near(probability_of_improvement(&y, &x).unwrap(), 1.0 - 1.125 / 2.0);
    }

    #[test]
    fn normalization_goes_by_task() {
        let scores = Scores::new(&[[10.0, -5.0], [20.0, 0.0]]).unwrap();
        let normalized = scores.normalized(&[10.0, -10.0], &[30.0, 0.0]).unwrap();
        assert_eq!(normalized.values(), [0.0, 0.5, 0.5, 1.0]);
        assert!(matches!(
            scores.normalized(&[1.0], &[2.0, 3.0]),
            Err(Error::Length { what: "low scores", expected: 2, got: 1 })
        ));
        assert!(matches!(
            scores.normalized(&[0.0, 1.0], &[1.0, 1.0]),
            Err(Error::NonFinite { index: 1, .. })
        ));
    }

    #[test]
    fn unusable_matrices_are_refused() {
        let none: [[f64; 2]; 0] = [];
        assert_eq!(Scores::new(&none), Err(Error::Empty { what: "runs" }));
        assert_eq!(Scores::new(&[[]]), Err(Error::Empty { what: "tasks" }));
        assert_eq!(
            Scores::new(&[vec![1.0, 2.0], vec![1.0]]),
            Err(Error::Ragged { row: 1, expected: 2, got: 1 })
        );
        // Four numbers would fill two rows of two.
        assert_eq!(
            Scores::new(&[vec![1.0, 2.0], vec![3.0], vec![4.0]]),
            Err(Error::Ragged { row: 1, expected: 2, got: 1 })
        );
        assert_eq!(
            Scores::from_flat(vec![1.0; 5], 2),
            Err(Error::Ragged { row: 2, expected: 2, got: 1 })
        );
        assert!(matches!(
            Scores::one_task(&[1.0, f64::INFINITY]),
            Err(Error::NonFinite { what: "score", index: 1, .. })
        ));
        let one = Scores::one_task(&[1.0]).unwrap();
        assert!(matches!(
            probability_of_improvement(&scores(), &one),
            Err(Error::Length { expected: 2, got: 1, .. })
        ));
    }
}
