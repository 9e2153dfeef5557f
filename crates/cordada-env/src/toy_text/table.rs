//! The transition table of a finite Markov decision process: the exact model, for dynamic
//! programming and for the environments that play it. What is computed from it is in `planning`.

use crate::error::Error;

/// One possible outcome of an action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// Its probability.
    pub probability: f64,
    /// The state that follows.
    pub next_state: usize,
    /// Its reward.
    pub reward: f64,
    /// Whether the episode ends with it.
    pub terminated: bool,
}

/// A finite Markov decision process: for each state and action the outcomes with their
/// probabilities, and how likely an episode starts in each state.
///
/// # Source
///
/// Sutton and Barto 2018, "Reinforcement Learning", eq. (3.2); Gymnasium 1.4.0, `P` and
/// `initial_state_distrib` of its toy-text environments.
///
/// # Examples
///
/// ```
/// use cordada_env::toy_text::frozen_lake::FrozenLake;
///
/// let lake = FrozenLake::new();
/// let (value, _) = lake.table().value_iteration(1.0, 1e-10)?;
/// assert!((value[0] - 14.0 / 17.0).abs() < 1e-6); // the best chance to cross the ice
/// # Ok::<(), cordada_env::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TransitionTable {
    num_states: usize,
    num_actions: usize,
    outcomes: Vec<Transition>,
    /// Where the outcomes of each (state, action) begin, and the end of the last: `[S·A + 1]`.
    starts: Vec<usize>,
    initial: Vec<f64>,
    /// Running sums of `initial`.
    cumulative: Vec<f64>,
}

/// Probabilities may add up to 1 within this, for sums of rounded numbers.
const SUM_TOLERANCE: f64 = 1e-9;

impl TransitionTable {
    /// A table of as many states as `initial` has probabilities, with the outcomes that `outcomes`
    /// gives for each (state, action).
    ///
    /// # Errors
    ///
    /// [`Error::Option`] without states or actions; [`Error::Table`] for a probability outside
    /// [0, 1], probabilities that do not add up to 1 or a next state that does not exist.
    pub fn new(
        num_actions: usize,
        initial: Vec<f64>,
        mut outcomes: impl FnMut(usize, usize) -> Vec<Transition>,
    ) -> Result<Self, Error> {
        let num_states = initial.len();
        for (option, count) in [("num_states", num_states), ("num_actions", num_actions)] {
            if count == 0 {
                return Err(Error::Option { option, value: 0.0, range: "at least 1" });
            }
        }
        check_distribution("start", &mut initial.iter().copied(), 0, None)?;
        let (mut all, mut starts) = (vec![], vec![0]);
        for state in 0..num_states {
            for action in 0..num_actions {
                let list = outcomes(state, action);
                let probabilities = &mut list.iter().map(|o| o.probability);
                check_distribution("outcome", probabilities, state, Some(action))?;
                if let Some(wrong) = list.iter().find(|o| o.next_state >= num_states) {
                    let (what, value) = ("an outcome leads to the state", wrong.next_state as f64);
                    return Err(Error::Table { what, value, state, action: Some(action) });
                }
                all.extend(list);
                starts.push(all.len());
            }
        }
        let sums = initial.iter().scan(0.0, |sum, p| {
            *sum += p;
            Some(*sum)
        });
        let cumulative = sums.collect();
        Ok(Self { num_states, num_actions, outcomes: all, starts, initial, cumulative })
    }

    /// Number of states, S.
    pub fn num_states(&self) -> usize {
        self.num_states
    }

    /// Number of actions, A; every one is possible in every state.
    pub fn num_actions(&self) -> usize {
        self.num_actions
    }

    /// How likely an episode starts in each state: `[S]`.
    pub fn initial(&self) -> &[f64] {
        &self.initial
    }

    /// The outcomes of an action.
    ///
    /// # Panics
    ///
    /// If there is no such state or action.
    #[inline]
    pub fn outcomes(&self, state: usize, action: usize) -> &[Transition] {
        assert!(action < self.num_actions, "there is no action {action}");
        let at = state * self.num_actions + action;
        &self.outcomes[self.starts[at]..self.starts[at + 1]]
    }

    /// The state that an episode starts in, for a uniform number `u` in [0, 1): the first at which
    /// the running sum of probabilities is above `u`.
    ///
    /// # Source
    ///
    /// Gymnasium 1.4.0, `categorical_sample`. If the sum ends below `u` by rounding, it takes the
    /// first state, which may be impossible; this takes the last possible one.
    pub fn sample_initial(&self, u: f64) -> usize {
        let state = self.cumulative.partition_point(|&sum| sum <= u);
        let last = || self.initial.iter().rposition(|&p| p > 0.0).unwrap_or(0);
        if state < self.num_states { state } else { last() }
    }

    /// The outcome of an action, for a uniform number `u` in [0, 1), by the same rule.
    ///
    /// # Panics
    ///
    /// If there is no such state or action.
    #[inline]
    pub fn sample(&self, state: usize, action: usize, u: f64) -> &Transition {
        let outcomes = self.outcomes(state, action);
        let (mut sum, mut last) = (0.0, 0);
        for (k, outcome) in outcomes.iter().enumerate() {
            sum += outcome.probability;
            if sum > u {
                return outcome;
            }
            if outcome.probability > 0.0 {
                last = k;
            }
        }
        &outcomes[last]
    }
}

fn check_distribution(
    of: &'static str,
    probabilities: &mut dyn Iterator<Item = f64>,
    state: usize,
    action: Option<usize>,
) -> Result<(), Error> {
    let (what, what_sum) = match of {
        "start" => ("a start has the probability", "starts have probabilities that add up to"),
        _ => ("an outcome has the probability", "outcomes have probabilities that add up to"),
    };
    let mut sum = 0.0;
    for (i, p) in probabilities.enumerate() {
        if !(0.0..=1.0).contains(&p) {
            let state = if action.is_some() { state } else { i };
            return Err(Error::Table { what, value: p, state, action });
        }
        sum += p;
    }
    if (sum - 1.0).abs() > SUM_TOLERANCE {
        return Err(Error::Table { what: what_sum, value: sum, state, action });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(probability: f64, next_state: usize) -> Transition {
        Transition { probability, next_state, reward: 0.0, terminated: false }
    }

    #[test]
    fn the_first_running_sum_above_the_draw_counts() {
        let lists = [vec![outcome(0.25, 0), outcome(0.0, 1), outcome(0.75, 2)]];
        let table = |initial| TransitionTable::new(1, initial, |_, _| lists[0].clone()).unwrap();
        let table_of = table(vec![0.0, 0.5, 0.5]);
        let next = |u| table_of.sample(1, 0, u).next_state;
        // Running sums 0.25, 0.25, 1: a sum that equals the draw does not count.
        assert_eq!([next(0.0), next(0.2499), next(0.25), next(0.9999)], [0, 0, 2, 2]);
        let start = |u| table_of.sample_initial(u);
        assert_eq!([start(0.0), start(0.4999), start(0.5), start(0.9999)], [1, 1, 2, 2]);
        // A sum that rounding leaves below the draw.
        let third = 1.0 / 3.0 - 1e-12;
        let short = table(vec![third, 2.0 * third, 0.0]);
        assert_eq!(short.sample_initial(1.0 - f64::EPSILON), 1);
        let outcomes = [outcome(third, 1), outcome(2.0 * third, 2), outcome(0.0, 0)];
        let short = TransitionTable::new(1, vec![1.0; 1], |_, _| {
            outcomes.iter().map(|o| Transition { next_state: 0, reward: 1.0, ..*o }).collect()
        });
        assert_eq!(*short.unwrap().sample(0, 0, 1.0 - f64::EPSILON), {
            Transition { reward: 1.0, next_state: 0, ..outcomes[1] }
        });
    }

    #[test]
    fn impossible_tables_are_refused() {
        let error = |initial: &[f64], list: &[Transition]| {
            TransitionTable::new(1, initial.to_vec(), |_, _| list.to_vec()).unwrap_err().to_string()
        };
        let fine = [outcome(1.0, 0)];
        assert_eq!(error(&[], &fine), "num_states is 0, it has to be at least 1");
        assert_eq!(
            error(&[0.5, 0.25], &fine),
            "starts have probabilities that add up to 0.75 in state 0"
        );
        assert_eq!(error(&[2.0, -1.0], &fine), "a start has the probability 2 in state 0");
        assert_eq!(
            error(&[1.0], &[outcome(1.0, 1)]),
            "an outcome leads to the state 1 in state 0, action 0"
        );
        assert_eq!(
            error(&[1.0], &[outcome(f64::NAN, 0)]),
            "an outcome has the probability NaN in state 0, action 0"
        );
        assert_eq!(
            error(&[1.0], &[]),
            "outcomes have probabilities that add up to 0 in state 0, action 0"
        );
        let none = TransitionTable::new(0, vec![1.0], |_, _| vec![]).unwrap_err().to_string();
        assert_eq!(none, "num_actions is 0, it has to be at least 1");
    }
}
