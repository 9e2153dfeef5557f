//! Finite decision processes that the theorem is shown on, as tables. Solving and sampling them is
//! done elsewhere.

/// One outcome of an action.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transition {
    pub(crate) probability: f64,
    pub(crate) next: usize,
    pub(crate) reward: f64,
    pub(crate) terminated: bool,
}

/// A finite Markov decision process.
#[derive(Clone, Debug)]
pub(crate) struct Mdp {
    pub(crate) num_states: usize,
    pub(crate) num_actions: usize,
    pub(crate) gamma: f64,
    /// Probability of starting in each state: `[S]`.
    pub(crate) initial: Vec<f64>,
    /// Outcomes of each action in each state: `[S, A]`. None where an episode has ended.
    pub(crate) transitions: Vec<Vec<Transition>>,
    /// Steps after which an episode is cut. No part of the process: a state's value does not
    /// depend on it.
    pub(crate) time_limit: Option<usize>,
}

impl Mdp {
    pub(crate) fn outcomes(&self, state: usize, action: usize) -> &[Transition] {
        &self.transitions[state * self.num_actions + action]
    }
}

fn go(probability: f64, next: usize, reward: f64) -> Transition {
    Transition { probability, next, reward, terminated: false }
}

fn end(probability: f64, state: usize, reward: f64) -> Transition {
    Transition { probability, next: state, reward, terminated: true }
}

/// Reward of staying in state 0 of the [`chain`].
pub(crate) const STAY_REWARD: f64 = 0.2;

/// Two states, two actions, all outcomes certain.
///
/// | state | action 0 | action 1 |
/// |---|---|---|
/// | 0 | stays, with a reward of 0.2 | goes to state 1 |
/// | 1 | goes back to state 0 | ends the episode with a reward of 1 |
pub(crate) fn chain() -> Mdp {
    Mdp {
        num_states: 2,
        num_actions: 2,
        gamma: 0.9,
        initial: vec![1.0, 0.0],
        transitions: vec![
            vec![go(1.0, 0, STAY_REWARD)],
            vec![go(1.0, 1, 0.0)],
            vec![go(1.0, 0, 0.0)],
            vec![end(1.0, 1, 1.0)],
        ],
        time_limit: None,
    }
}

/// FrozenLake's standard map of 4 × 4 fields, slippery: the move is the chosen one or one of its
/// two neighbors, with a third each. Reward 1 at the goal; goal and holes end the episode.
///
/// Actions: left, down, right, up.
pub(crate) fn frozen_lake() -> Mdp {
    const MAP: &[u8; 16] = b"SFFFFHFHFFFHHFFG";
    let step = |state: usize, direction: usize| {
        let (row, column) = (state / 4, state % 4);
        let (row, column) = match direction {
            0 => (row, column.saturating_sub(1)),
            1 => ((row + 1).min(3), column),
            2 => (row, (column + 1).min(3)),
            _ => (row.saturating_sub(1), column),
        };
        let next = row * 4 + column;
        let reward = f64::from(u8::from(MAP[next] == b'G'));
        let terminated = matches!(MAP[next], b'G' | b'H');
        Transition { probability: 1.0 / 3.0, next, reward, terminated }
    };
    let mut transitions = Vec::new();
    for (state, field) in MAP.iter().enumerate() {
        for action in 0..4 {
            let over = matches!(field, b'G' | b'H');
            let moves = if over { 0..0 } else { action + 3..action + 6 };
            transitions.push(moves.map(|direction| step(state, direction % 4)).collect());
        }
    }
    let mut initial = vec![0.0; 16];
    initial[0] = 1.0;
    Mdp { num_states: 16, num_actions: 4, gamma: 0.95, initial, transitions, time_limit: None }
}

/// Three states that an episode seldom leaves by itself: nearly all are cut after six steps.
pub(crate) fn time_limited() -> Mdp {
    Mdp {
        num_states: 3,
        num_actions: 2,
        gamma: 0.9,
        initial: vec![0.75, 0.25, 0.0],
        transitions: vec![
            vec![go(0.3, 0, 0.5), go(0.7, 1, 0.0)],
            vec![go(1.0, 2, -0.5)],
            vec![go(0.5, 0, 1.0), go(0.5, 2, 0.25)],
            vec![go(0.9, 1, 0.25), end(0.1, 1, -2.0)],
            vec![go(1.0, 1, 2.0)],
            vec![go(0.6, 0, 0.5), go(0.4, 2, -0.5)],
        ],
        time_limit: Some(6),
    }
}
