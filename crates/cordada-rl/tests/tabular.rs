//! Methods with a table: updates by hand, the exact optimum where the model is known, and what
//! learning on and off the policy makes of a cliff.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{bits, exact, make_in, restore, state, table, through_file};
use cordada_env::toy_text::table_env::TableEnv;
use cordada_env::{
    Env, Space, StateError, StateReader, StateWriter, Step, Stream, Transition, TransitionTable,
};
use cordada_rl::algo::tabular::{EXPECTED_SARSA, Method, Q_LEARNING, SARSA, Tabular};
use cordada_rl::algo::{AlgoSpec, Algorithm, Setup, find};
use cordada_rl::estimate::td_target::greedy_action;

const METHODS: [(&AlgoSpec, Method); 3] = [
    (&Q_LEARNING, Method::QLearning),
    (&SARSA, Method::Sarsa),
    (&EXPECTED_SARSA, Method::ExpectedSarsa),
];

/// A learner whose table can be looked at.
fn learner(
    (algo, method): (&AlgoSpec, Method),
    make_env: &dyn Fn() -> Box<dyn Env>,
    settings: &str,
    (seed, total_steps): (u64, u64),
) -> Tabular {
    let settings = &table(settings);
    let setup = Setup { env: "Test-v0", make_env, settings, seed, total_steps, threads: 1 };
    Tabular::new(algo, method, &setup).unwrap()
}

/// Trains to the end in an environment of the list.
fn train(which: (&AlgoSpec, Method), env: &str, settings: &str, run: (u64, u64)) -> Tabular {
    let spec = cordada_env::find(env).unwrap();
    let mut learner = learner(which, &|| spec.build(), settings, run);
    while learner.steps() < run.1 {
        learner.iterate().unwrap();
    }
    learner
}

/// Two states one after the other: any action leads from 0 to 1 for a reward of 1, and from there
/// to the end for 2.
fn two_steps() -> Box<dyn Env> {
    let outcome = |state: usize, _: usize| {
        let (reward, terminated) = if state == 0 { (1.0, false) } else { (2.0, true) };
        vec![Transition { probability: 1.0, next_state: 1, reward, terminated }]
    };
    let table = TransitionTable::new(2, vec![1.0, 0.0], outcome).unwrap();
    Box::new(TableEnv::new("Two-v0", table))
}

/// Which entry differs, and its new value; asserts that all others are what they were.
fn changed(before: &[f64], after: &[f64]) -> Option<(usize, f64)> {
    let mut all = (0..before.len()).filter(|&i| before[i] != after[i]);
    let first = all.next();
    assert_eq!(all.next(), None, "{before:?}, {after:?}");
    first.map(|i| (i, after[i]))
}

#[test]
fn updates_by_hand() {
    // Q = 4 everywhere, α = γ = ε = ½. Entries of state 0 are 0 and 1, of state 1 are 2 and 3.
    let settings = "steps_per_iteration = 1\nlearning_rate = 0.5\ngamma = 0.5\nepsilon = 0.5\n\
                    initial_value = 4.0";
    for (algo, method) in METHODS {
        for seed in 1..=8 {
            let make_env: &dyn Fn() -> Box<dyn Env> = &two_steps;
            let mut learner = learner((algo, method), make_env, settings, (seed, 1000));
            let late = method == Method::Sarsa;
            let mut step = |n: usize| {
                let before = learner.q_values().to_vec();
                (0..n).for_each(|_| drop(learner.iterate().unwrap()));
                changed(&before, learner.q_values())
            };
            // 4 + ½ (1 + ½ · 4 − 4), whatever is bootstrapped from; SARSA waits for its next action.
            let waited = late.then(|| step(1));
            assert!(waited.is_none_or(|change| change.is_none()), "{}", algo.name);
            let (first, second);
            if late {
                // Both updates are made in the step that ends the episode.
                let before = learner.q_values().to_vec();
                learner.iterate().unwrap();
                let after = learner.q_values();
                let of = |range: std::ops::Range<usize>| {
                    changed(&before[range.clone()], &after[range.clone()])
                        .map(|(i, q)| (i + range.start, q))
                };
                (first, second) = (of(0..2).unwrap(), of(2..4).unwrap());
            } else {
                (first, second) = (step(1).unwrap(), step(1).unwrap());
            }
            assert_eq!(first.1, 3.5, "{}", algo.name);
            // 4 + ½ (2 − 4).
            assert_eq!(second.1, 3.0, "{}", algo.name);
            // State 0 again: state 1 has the values 3 and 4 now, in some order.
            let before = learner.q_values().to_vec();
            learner.iterate().unwrap();
            let next_value = match method {
                Method::QLearning => 4.0,
                Method::ExpectedSarsa => 0.5 * 4.0 + 0.5 * 3.5,
                Method::Sarsa => {
                    assert_eq!(learner.q_values(), before, "the next action is not known yet");
                    learner.iterate().unwrap();
                    // What is taken then is seen by what its own update changed.
                    let (at, _) = changed(&before[2..], &learner.q_values()[2..]).unwrap();
                    before[2 + at]
                }
            };
            let (at, got) = changed(&before[..2], &learner.q_values()[..2]).unwrap();
            let want = before[at] + 0.5 * (1.0 + 0.5 * next_value - before[at]);
            assert_eq!(got, want, "{} with seed {seed}", algo.name);
        }
    }
}

#[test]
fn a_truncation_is_bootstrapped_from() {
    // One state and one action, −1 each step for ever, cut after three: Q = −1 / (1 − γ) = −10.
    let make_env: &dyn Fn() -> Box<dyn Env> = &|| {
        let outcome =
            Transition { probability: 1.0, next_state: 0, reward: -1.0, terminated: false };
        let table = TransitionTable::new(1, vec![1.0], |_, _| vec![outcome]).unwrap();
        let endless = TableEnv::new("Endless-v0", table);
        Box::new(cordada_env::wrapper::TimeLimit::new(Box::new(endless), 3))
    };
    for which in METHODS {
        let settings = "gamma = 0.9\nlearning_rate = 0.5\nsteps_per_iteration = 2000";
        let mut learner = learner(which, make_env, settings, (1, 2000));
        learner.iterate().unwrap();
        assert!((learner.q_values()[0] + 10.0).abs() < 1e-9, "{}", learner.q_values()[0]);
    }
}

/// The greedy policy of a table, each row a distribution.
fn greedy(q: &[f64], num_actions: usize) -> Vec<f64> {
    let row = |q: &[f64]| {
        let mut row = vec![0.0; num_actions];
        row[greedy_action(q, None)] = 1.0;
        row
    };
    q.chunks_exact(num_actions).flat_map(row).collect()
}

/// How much the greedy policy is worth from the start, and how much the best one is.
fn worth(learner: &Tabular, env: &str, gamma: f64) -> (f64, f64) {
    let env = (cordada_env::find(env).unwrap().make)();
    let model = env.table().unwrap();
    let (best, _) = model.value_iteration(gamma, 1e-13).unwrap();
    let policy = greedy(learner.q_values(), model.num_actions());
    let value = model.policy_evaluation(&policy, gamma).unwrap();
    let from_start = |v: &[f64]| -> f64 { v.iter().zip(model.initial()).map(|(v, p)| v * p).sum() };
    (from_start(&value), from_start(&best))
}

#[test]
fn q_learning_finds_the_exact_optimum() {
    // What is tried is random, which Q-learning does not mind. Where nothing is random but the
    // choice, α = 1 is exact; on the ice it falls.
    let cases = [
        ("FrozenLake-v1", "learning_rate = \"piecewise(0: 0.5, 0.3: 0.05, 1: 0.001)\"", 1_000_000),
        ("Taxi-v4", "learning_rate = 1.0", 600_000),
        ("CliffWalking-v1", "learning_rate = 1.0", 200_000),
    ];
    for (env, alpha, steps) in cases {
        let settings = format!("gamma = 0.95\nepsilon = 1.0\n{alpha}");
        let learner = train(METHODS[0], env, &settings, (1, steps));
        let (got, best) = worth(&learner, env, 0.95);
        assert!((got - best).abs() < 1e-9, "{env}: {got}, best is {best}");
    }
}

#[test]
fn on_policy_methods_find_the_best_policy_as_they_explore_less() {
    for which in &METHODS[1..] {
        let settings = "gamma = 0.95\nepsilon = \"linear(1, 0)\"\n\
                        learning_rate = \"piecewise(0: 0.3, 1: 0.002)\"";
        let learner = train(*which, "FrozenLake-v1", settings, (1, 1_000_000));
        let (got, best) = worth(&learner, "FrozenLake-v1", 0.95);
        assert!((got - best).abs() < 1e-9, "{}: {got}, best is {best}", which.0.name);
    }
}

/// States that the greedy policy goes through on the way along the cliff.
fn path(learner: &Tabular) -> Vec<usize> {
    let env = (cordada_env::find("CliffWalking-v1").unwrap().make)();
    let model = env.table().unwrap();
    let (mut state, mut path) = (36, Vec::new());
    while path.len() < 50 {
        let row = &learner.q_values()[state * 4..][..4];
        let outcome = model.outcomes(state, greedy_action(row, None))[0];
        path.push(outcome.next_state);
        if outcome.terminated {
            return path;
        }
        state = outcome.next_state;
    }
    panic!("the greedy policy does not arrive: {path:?}");
}

#[test]
fn sarsa_stays_away_from_the_edge_and_q_learning_does_not() {
    // Sutton and Barto 2018, example 6.6: γ = 1, ε = 0.1.
    let settings = "gamma = 1.0\nepsilon = 0.1\nlearning_rate = \"piecewise(0: 0.5, 1: 0.02)\"\n\
                    steps_per_iteration = 50000";
    let edge = 25..=34;
    let mut returns = Vec::new();
    for which in METHODS {
        let run = (2, 400_000);
        let spec = cordada_env::find("CliffWalking-v1").unwrap();
        let mut learner = learner(which, &|| spec.build(), settings, run);
        let mut last = 0.0;
        while learner.steps() < run.1 {
            let report = learner.iterate().unwrap();
            assert_eq!(report.metrics[0].0, "rollout/episode_return");
            last = report.metrics[0].1;
        }
        returns.push(last);
        let path = path(&learner);
        let on_edge = path.iter().filter(|state| edge.contains(*state)).count();
        match which.1 {
            // Straight along the cliff: 13 steps, ten of them beside it.
            Method::QLearning => assert_eq!((path.len(), on_edge), (13, 10), "{path:?}"),
            _ => assert!(on_edge <= 1 && path.len() > 13, "{}: {path:?}", which.0.name),
        }
    }
    let [q_learning, sarsa, expected] = returns[..] else { panic!("three methods") };
    assert!(sarsa > q_learning + 10.0, "SARSA {sarsa}, Q-learning {q_learning}");
    assert!(expected > q_learning + 10.0, "Expected SARSA {expected}, Q-learning {q_learning}");
}

#[test]
fn a_restored_learner_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    for (algo, _) in METHODS {
        for env in ["FrozenLake-v1", "Taxi-v4", "CliffWalking-v1"] {
            let spec = cordada_env::find(env).unwrap();
            // In the middle of episodes, and of SARSA's updates.
            let settings = table("num_envs = 3\nsteps_per_iteration = 301");
            let make = |seed| make_in(algo, &|| spec.build(), &settings, (seed, 1)).unwrap();
            let (mut whole, mut resumed) = (make(3), make(3));
            whole.iterate().unwrap();
            restore(&mut *resumed, &through_file(&whole.policy(), folder.path()), &state(&*whole));
            assert_eq!(whole.steps(), 303);
            for _ in 0..5 {
                let (a, b) = (whole.iterate().unwrap(), resumed.iterate().unwrap());
                assert_eq!(exact(&a), exact(&b), "{} in {env}", algo.name);
                assert_eq!(bits(&whole.policy().theta), bits(&resumed.policy().theta));
                assert_eq!(state(&*whole), state(&*resumed), "{} in {env}", algo.name);
            }
            let mut other = make(4);
            other.iterate().unwrap();
            assert_ne!(state(&*other), state(&*make(3)), "{} in {env}", algo.name);
        }
    }
}

/// Three states, of which one is only passed through where an action is forbidden.
struct Forbidding(TableEnv);

impl Env for Forbidding {
    fn obs_space(&self) -> &Space {
        self.0.obs_space()
    }

    fn action_space(&self) -> &Space {
        self.0.action_space()
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.0.reset(stream, obs);
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        assert!(self.0.index() != Some(1) || action[0] != 2.0, "action 2 in state 1");
        self.0.step(action, stream, obs)
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        mask.copy_from_slice(&[true, true, self.0.index() != Some(1)]);
        true
    }

    fn save(&self, w: &mut StateWriter) {
        self.0.save(w);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.0.load(r)
    }
}

#[test]
fn forbidden_actions_are_neither_taken_nor_bootstrapped_from() {
    let make_env: &dyn Fn() -> Box<dyn Env> = &|| {
        let outcome = |state: usize, _: usize| {
            let terminated = state == 1;
            vec![Transition { probability: 1.0, next_state: 1, reward: -1.0, terminated }]
        };
        let table = TransitionTable::new(3, vec![1.0, 0.0], outcome).unwrap();
        Box::new(Forbidding(TableEnv::new("Forbidding-v0", table)))
    };
    for which in METHODS {
        // Untried actions look best, and the forbidden one is never tried.
        let settings =
            "gamma = 1.0\nlearning_rate = 0.5\nepsilon = 0.5\nsteps_per_iteration = 2000";
        let mut learner = learner(which, make_env, settings, (1, 2000));
        learner.iterate().unwrap();
        let q = learner.q_values();
        assert_eq!(q[5], 0.0, "{}: {q:?}", which.0.name);
        let want = [-2.0, -2.0, -2.0, -1.0, -1.0];
        assert!(q.iter().zip(want).all(|(q, want)| (q - want).abs() < 1e-6), "{q:?}");
    }
}

#[test]
fn other_spaces_are_refused() {
    for (algo, _) in METHODS {
        let refuse = |env: &str| {
            let spec = cordada_env::find(env).unwrap();
            let made = make_in(algo, &|| spec.build(), &table(""), (1, 1));
            made.unwrap_err().to_string()
        };
        let message = refuse("CartPole-v1");
        let begin = format!("{} cannot use the observation space ", algo.name);
        assert!(message.starts_with(&begin), "{message}");
        assert!(message.ends_with("; it takes Discrete observation spaces"), "{message}");
        assert!(refuse("Pendulum-v1").contains("action space"));
        assert_eq!(find(algo.name).unwrap().title, algo.title);
    }
}
