//! Tests of the linear system: steps and gains by hand, the Riccati equation, the value of play.

use super::*;
use crate::check::{CheckOptions, check};
use crate::stream::role;

/// One state, one action: s' = s + a, cost s² + a².
fn scalar() -> LinearQuadratic {
    LinearQuadratic::new(LinearQuadraticOptions {
        dynamics: vec![1.0],
        control: vec![1.0],
        state_cost: vec![1.0],
        action_cost: vec![1.0],
        ..Default::default()
    })
    .unwrap()
}

fn cart() -> LinearQuadratic {
    LinearQuadratic::new(LinearQuadraticOptions::default()).unwrap()
}

#[test]
fn it_keeps_the_contract() {
    for noise in [0.0, 0.1] {
        let make = || {
            let options =
                LinearQuadraticOptions { noise, horizon: 20, ..LinearQuadraticOptions::default() };
            Box::new(LinearQuadratic::new(options).unwrap().limited()) as Box<dyn Env>
        };
        let max_episode_steps = Some(20);
        let options = CheckOptions { max_episode_steps, ..CheckOptions::default() };
        let report = check(make, &options);
        assert!(report.passed(), "{report}");
    }
}

#[test]
fn one_step_by_hand() {
    let (mut env, mut obs) = (cart(), [9.0; 2]);
    let mut stream = Stream::new(0, role::ENV, 0);
    env.set_state(&[2.0, -3.0]).unwrap();
    // s' = (2 − 0.3, −3 + 0.1 · 5); cost 4 + 0.1 · 9 + 0.1 · 25 = 7.4.
    let step = env.step(&[5.0], &mut stream, &mut obs);
    assert_eq!(obs, [1.7, -2.5]);
    assert!((step.reward + 7.4).abs() < 1e-12 && !step.outcome.ended(), "{step:?}");
    // Beyond the limit of 10.
    env.set_state(&[0.0, 0.0]).unwrap();
    let step = env.step(&[-25.0], &mut stream, &mut obs);
    assert!((step.reward + 10.0).abs() < 1e-12 && obs == [0.0, -1.0], "{step:?} {obs:?}");
    assert_eq!(stream.counter(), 0);
    assert!(env.step(&[f32::NAN], &mut stream, &mut obs).reward.is_nan());
}

#[test]
fn noise_has_its_deviation_and_starts_fill_their_box() {
    let options = LinearQuadraticOptions { noise: 0.5, start: 2.0, ..Default::default() };
    let mut env = LinearQuadratic::new(options).unwrap();
    let (mut stream, mut obs) = (Stream::new(1, role::ENV, 0), [0.0; 2]);
    let (mut squares, mut largest) = (0.0, 0.0f32);
    for _ in 0..2000 {
        env.reset(&mut stream, &mut obs);
        largest = obs.iter().fold(largest, |m, x| m.max(x.abs()));
        env.set_state(&[0.0, 0.0]).unwrap();
        env.step(&[0.0], &mut stream, &mut obs);
        squares += obs.iter().map(|x| f64::from(x * x)).sum::<f64>();
    }
    // Variance 0.25 from 4000 numbers: deviation 0.25 √(2 / 4000) = 0.0056.
    assert!((squares / 4000.0 - 0.25).abs() < 0.028, "{squares}");
    assert!(largest > 1.99 && largest <= 2.0, "{largest}");
}

#[test]
fn the_scalar_gain_by_hand() {
    // P = 1 + γ P − γ² P² / (1 + γ P) = 1 + γ P / (1 + γ P); at γ = 1 the golden ratio, K = P − 1.
    let golden = f64::midpoint(1.0, 5.0f64.sqrt());
    let env = scalar();
    assert!((env.riccati(1.0).unwrap()[0] - golden).abs() < 1e-13);
    assert!((env.optimal_gain(1.0).unwrap()[0] - (golden - 1.0)).abs() < 1e-13);
    // At γ = 0.9: 0.9 P² − 0.8 P − 1 = 0.
    let p = (0.8 + (0.64f64 + 3.6).sqrt()) / 1.8;
    assert!((env.riccati(0.9).unwrap()[0] - p).abs() < 1e-13);
    assert!((env.optimal_gain(0.9).unwrap()[0] - 0.9 * p / (1.0 + 0.9 * p)).abs() < 1e-13);
    assert_eq!(env.optimal_gain(0.0).unwrap(), [0.0]);
}

#[test]
fn two_states_and_one_action_solve_the_riccati_equation() {
    let gamma = 0.95;
    let env = cart();
    let p = env.riccati(gamma).unwrap();
    // Written out: P = Q + γ AᵀPA − γ² (AᵀPB)(BᵀPA) / (R + γ BᵀPB), A = [1 h; 0 1], B = [0 h]ᵀ.
    let h = 0.1;
    let a_p_a = [p[0], h * p[0] + p[1], h * p[0] + p[2], h * (h * p[0] + p[1]) + h * p[2] + p[3]];
    let b_p_a = [h * p[2], h * (h * p[2] + p[3])];
    let below = 0.1 + gamma * h * h * p[3];
    let q = [1.0, 0.0, 0.0, 0.1];
    for i in 0..4 {
        let (row, column) = (i / 2, i % 2);
        let reduced = gamma * gamma * b_p_a[row] * b_p_a[column] / below;
        let residual = q[i] + gamma * a_p_a[i] - reduced - p[i];
        assert!(residual.abs() < 1e-12, "{residual} at {i}: {p:?}");
    }
    let gain = env.optimal_gain(gamma).unwrap();
    for (got, b) in gain.iter().zip(b_p_a) {
        assert!((got - gamma * b / below).abs() < 1e-12, "{gain:?}");
    }
}

/// Discounted return of a = −gain · s from (1, −0.5).
fn play(gain: &[f64], gamma: f64) -> f64 {
    let (mut env, mut obs) = (cart(), [0.0; 2]);
    let mut stream = Stream::new(0, role::ENV, 0);
    env.set_state(&[1.0, -0.5]).unwrap();
    let (mut total, mut discount) = (0.0, 1.0);
    for _ in 0..2000 {
        let s = env.state().unwrap();
        let action = -(gain[0] * s[0] + gain[1] * s[1]);
        total += discount * env.step(&[action as f32], &mut stream, &mut obs).reward;
        discount *= gamma;
    }
    total
}

#[test]
fn playing_the_gain_earns_the_value_and_other_gains_earn_less() {
    let gamma = 0.97;
    let (p, gain) = (cart().riccati(gamma).unwrap(), cart().optimal_gain(gamma).unwrap());
    let value = -quadratic(&p, &[1.0, -0.5]);
    let best = play(&gain, gamma);
    // Actions are f32, a relative 6e-8; at the optimum their effect is of second order.
    assert!((best - value).abs() < 1e-7 * value.abs(), "{best} against {value}");
    for factor in [0.9, 1.1] {
        let other: Vec<f64> = gain.iter().map(|k| factor * k).collect();
        assert!(play(&other, gamma) < best - 1e-4 * best.abs(), "{factor}");
    }
}

#[test]
fn impossible_systems_are_refused() {
    let error = |change: fn(&mut LinearQuadraticOptions)| {
        let mut options = LinearQuadraticOptions::default();
        change(&mut options);
        LinearQuadratic::new(options).unwrap_err().to_string()
    };
    assert_eq!(error(|o| o.control.push(1.0)), "the control has 3 entries, it has to have 2");
    assert_eq!(error(|o| o.dynamics.clear()), "the number of states is 0, it has to be at least 1");
    assert_eq!(error(|o| o.state_cost[1] = 1.0), "the state's cost is 0, it has to be symmetric");
    assert_eq!(error(|o| o.action_limit = 0.0), "action_limit is 0, it has to be above 0");
    assert_eq!(error(|o| o.noise = -1.0), "noise is -1, it has to be at least 0");
    assert_eq!(error(|o| o.horizon = 0), "horizon is 0, it has to be at least 1");
    assert!(cart().riccati(1.5).is_err());
    // A state that doubles with every step and cannot be influenced.
    let hopeless = LinearQuadratic::new(LinearQuadraticOptions {
        dynamics: vec![2.0],
        control: vec![0.0],
        state_cost: vec![1.0],
        action_cost: vec![1.0],
        ..Default::default()
    });
    let error = hopeless.unwrap().riccati(1.0).unwrap_err();
    assert!(matches!(error, Error::NoConvergence { .. }), "{error}");
}
