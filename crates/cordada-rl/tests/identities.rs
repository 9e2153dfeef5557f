//! Equations that hold between the functions of this crate whatever the numbers are: estimators
//! against each other at the ends of λ, objectives at the old policy, distributions against sums
//! and integrals over all actions.

use cordada_env::{Outcome, Stream, role};
use cordada_rl::distribution::{
    Bernoulli, Beta, Categorical, DiagGaussian, Distribution, MultiCategorical, SquashedGaussian,
};
use cordada_rl::estimate::{
    Segment, VtraceConfig, gae, n_step_returns, reward_to_go, td_lambda_returns, vtrace,
};
use cordada_rl::objective::{ClipRange, clipped_surrogate, dual_clipped_surrogate, surrogate};
use proptest::prelude::*;

fn assert_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            (g - w).abs() <= tolerance * w.abs().max(1.0),
            "{what}: element {i} is {g:e}, expected {w:e}"
        );
    }
}

/// A segment with everything it borrows.
#[derive(Clone, Debug)]
struct Owned {
    num_envs: usize,
    rewards: Vec<f64>,
    values: Vec<f64>,
    outcomes: Vec<Outcome>,
    final_values: Vec<f64>,
    last_values: Vec<f64>,
}

impl Owned {
    fn segment(&self) -> Segment<'_, f64> {
        Segment {
            num_envs: self.num_envs,
            rewards: &self.rewards,
            values: &self.values,
            outcomes: &self.outcomes,
            final_values: &self.final_values,
            last_values: &self.last_values,
        }
    }

    /// An array of the segment's shape that `fill` writes.
    fn filled(&self, fill: impl FnOnce(&Segment<'_, f64>, &mut [f64])) -> Vec<f64> {
        let mut out = vec![0.0; self.rewards.len()];
        fill(&self.segment(), &mut out);
        out
    }

    fn gae(&self, gamma: f64, lambda: f64) -> (Vec<f64>, Vec<f64>) {
        let mut returns = vec![0.0; self.rewards.len()];
        let advantages = self.filled(|s, out| gae(s, gamma, lambda, out, &mut returns));
        (advantages, returns)
    }

    fn n_step(&self, gamma: f64, n: usize) -> Vec<f64> {
        let mut steps = vec![0; self.rewards.len()];
        self.filled(|s, out| n_step_returns(s, gamma, n, out, &mut steps))
    }
}

/// Segments of up to 12 steps in up to 3 environments, with many ends of both kinds.
/// `final_values` are NaN wherever they must not be read.
fn segments() -> impl Strategy<Value = Owned> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Continue),
        1 => Just(Outcome::Terminated),
        1 => Just(Outcome::Truncated),
    ];
    (1..12_usize, 1..4_usize).prop_flat_map(move |(num_steps, num_envs)| {
        let len = num_steps * num_envs;
        let numbers = || prop::collection::vec(-5.0..5.0_f64, len);
        (
            (numbers(), numbers(), numbers()),
            prop::collection::vec(outcome.clone(), len),
            prop::collection::vec(-5.0..5.0_f64, num_envs),
        )
            .prop_map(
                move |((rewards, values, mut final_values), outcomes, last_values)| {
                    for (value, outcome) in final_values.iter_mut().zip(&outcomes) {
                        if *outcome != Outcome::Truncated {
                            *value = f64::NAN;
                        }
                    }
                    Owned { num_envs, rewards, values, outcomes, final_values, last_values }
                },
            )
    })
}

proptest! {
    #[test]
    fn gae_at_lambda_0_is_the_td_error(owned in segments(), gamma in 0.0..1.0_f64) {
        let (advantages, returns) = owned.gae(gamma, 0.0);
        let targets = owned.n_step(gamma, 1);
        assert_close("returns", &returns, &targets, 1e-12);
        let errors: Vec<f64> = targets.iter().zip(&owned.values).map(|(r, v)| r - v).collect();
        assert_close("advantages", &advantages, &errors, 1e-12);
    }

    #[test]
    fn gae_at_lambda_1_is_return_minus_value(owned in segments(), gamma in 0.0..1.0_f64) {
        let (advantages, _) = owned.gae(gamma, 1.0);
        let returns = owned.filled(|s, out| reward_to_go(s, gamma, out));
        let want: Vec<f64> = returns.iter().zip(&owned.values).map(|(r, v)| r - v).collect();
        assert_close("advantages", &advantages, &want, 1e-12);
    }

    #[test]
    fn lambda_returns_are_advantages_plus_values(
        owned in segments(), gamma in 0.0..1.0_f64, lambda in 0.0..1.0_f64,
    ) {
        let (_, returns) = owned.gae(gamma, lambda);
        let want = owned.filled(|s, out| td_lambda_returns(s, gamma, lambda, out));
        assert_close("returns", &returns, &want, 1e-12);
    }

    #[test]
    fn enough_steps_make_the_n_step_return_the_reward_to_go(
        owned in segments(), gamma in 0.0..1.0_f64,
    ) {
        let want = owned.filled(|s, out| reward_to_go(s, gamma, out));
        assert_close("returns", &owned.n_step(gamma, 12), &want, 1e-12);
    }

    #[test]
    fn vtrace_on_policy_is_the_n_step_return(
        owned in segments(), gamma in 0.0..1.0_f64, lambda in 0.0..1.0_f64,
    ) {
        let log_rhos = vec![0.0; owned.rewards.len()];
        let run = |lambda| {
            let config = VtraceConfig { gamma, lambda, rho_bar: 1.0, c_bar: 1.0, pg_rho_bar: 1.0 };
            let mut advantages = vec![0.0; owned.rewards.len()];
            let targets =
                owned.filled(|s, out| vtrace(s, &log_rhos, config, out, &mut advantages));
            (targets, advantages)
        };
        let (targets, advantages) = run(1.0);
        let want = owned.filled(|s, out| reward_to_go(s, gamma, out));
        assert_close("targets", &targets, &want, 1e-12);
        assert_close("advantages", &advantages, &owned.gae(gamma, 1.0).0, 1e-12);
        assert_close("targets with λ", &run(lambda).0, &owned.gae(gamma, lambda).1, 1e-12);
    }

    #[test]
    fn ppo_at_the_old_policy_is_the_policy_gradient(
        log_prob in -20.0..5.0_f32, advantage in -10.0..10.0_f32, clip_eps in 0.01..1.0_f32,
    ) {
        let got = clipped_surrogate(log_prob, log_prob, advantage, clip_eps);
        assert_eq!((got.psi, got.ratio, got.clipped), (advantage, 1.0, false));
    }

    #[test]
    fn clipping_is_a_lower_bound_and_infinity_is_none(
        log_ratio in -3.0..3.0_f64, advantage in -10.0..10.0_f64, clip_eps in 0.01..1.0_f64,
    ) {
        let free = surrogate(log_ratio, 0.0, advantage);
        let clipped = clipped_surrogate(log_ratio, 0.0, advantage, clip_eps);
        assert!(clipped.objective <= free.objective);
        assert!(clipped.psi == free.psi || clipped.psi == 0.0);
        let range = ClipRange::symmetric(f64::INFINITY);
        assert_eq!(clipped_surrogate(log_ratio, 0.0, advantage, range), free);
        let dual = dual_clipped_surrogate(log_ratio, 0.0, advantage, clip_eps, f64::INFINITY);
        assert_eq!(dual, clipped);
    }
}

/// One of each family; of the choices, small and larger ones.
fn families() -> Vec<Distribution> {
    vec![
        Distribution::Categorical(Categorical::new(1)),
        Distribution::Categorical(Categorical::new(2)),
        Distribution::Categorical(Categorical::new(7)),
        Distribution::MultiCategorical(MultiCategorical::new(&[3, 1, 4])),
        Distribution::Bernoulli(Bernoulli::new(3)),
        Distribution::DiagGaussian(DiagGaussian::new(2)),
        Distribution::SquashedGaussian(SquashedGaussian::new(2)),
        Distribution::SquashedGaussian(SquashedGaussian::with_bounds(&[-2.0, 0.0], &[1.0, 0.5])),
        Distribution::Beta(Beta::with_bounds(&[-2.0, 0.0], &[1.0, 0.5])),
    ]
}

/// All actions of a discrete distribution; none of a continuous one.
fn all_actions(pi: &Distribution) -> Vec<Vec<f64>> {
    let sizes = match pi {
        Distribution::Categorical(_) => vec![pi.num_params()],
        Distribution::MultiCategorical(_) => vec![3, 1, 4],
        Distribution::Bernoulli(_) => vec![2; pi.action_len()],
        _ => return Vec::new(),
    };
    let longer = |actions: Vec<Vec<f64>>, size: usize| {
        let with = |action: &Vec<f64>, i: usize| [&action[..], &[i as f64]].concat();
        actions
            .iter()
            .flat_map(|action| (0..size).map(|i| with(action, i)).collect::<Vec<_>>())
            .collect()
    };
    sizes.into_iter().fold(vec![Vec::new()], longer)
}

/// Numbers from which tests take rows of parameters; log standard deviations stay in [−1, 1].
fn numbers() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(-3.0..3.0_f64, 16)
}

fn params(pi: &Distribution, numbers: &[f64]) -> Vec<f64> {
    let mut params = numbers[..pi.num_params()].to_vec();
    if matches!(pi, Distribution::DiagGaussian(_) | Distribution::SquashedGaussian(_)) {
        params[pi.action_len()..].iter_mut().for_each(|log_std| *log_std /= 3.0);
    }
    params
}

fn score(pi: &Distribution, params: &[f64], action: &[f64]) -> Vec<f64> {
    let mut d = vec![0.0; params.len()];
    pi.add_score(params, None, action, 1.0, &mut d);
    d
}

proptest! {
    #[test]
    fn kl_is_positive_and_0_at_equality(a in numbers(), b in numbers()) {
        for pi in families() {
            let (p, q) = (params(&pi, &a), params(&pi, &b));
            let kl = pi.kl(&p, &q, None);
            assert!(kl >= -1e-14, "{pi:?}: {kl}");
            if pi.num_params() > 1 {
                assert!(kl > 0.0, "{pi:?}: {kl}");
            }
            assert!(pi.kl(&p, &p, None).abs() < 1e-14);
            let mut d = vec![0.0; p.len()];
            pi.add_kl_gradient_p(&p, &p, None, 1.0, &mut d);
            pi.add_kl_gradient_q(&p, &p, None, 1.0, &mut d);
            assert_close("gradient at equality", &d, &vec![0.0; p.len()], 1e-14);
        }
    }

    /// Sums over all actions: Σ π = 1, E[∇ log π] = 0, H = −E[log π], KL = E[log p − log q],
    /// F v = E[∇ log π (∇ log π)ᵀ v].
    #[test]
    fn expectations_over_all_actions(a in numbers(), b in numbers(), v in numbers()) {
        for pi in families() {
            let actions = all_actions(&pi);
            let (p, q, v) = (params(&pi, &a), params(&pi, &b), params(&pi, &v));
            let (mut total, mut entropy, mut kl) = (0.0, 0.0, 0.0);
            let (mut mean_score, mut fisher) = (vec![0.0; p.len()], vec![0.0; p.len()]);
            for action in &actions {
                let log_prob = pi.log_prob(&p, None, action);
                let weight = log_prob.exp();
                total += weight;
                entropy -= weight * log_prob;
                kl += weight * (log_prob - pi.log_prob(&q, None, action));
                let score = score(&pi, &p, action);
                let along: f64 = score.iter().zip(&v).map(|(s, v)| s * v).sum();
                for i in 0..p.len() {
                    mean_score[i] += weight * score[i];
                    fisher[i] += weight * score[i] * along;
                }
            }
            if !actions.is_empty() {
                let got = [total, pi.entropy(&p, None), pi.kl(&p, &q, None)];
                assert_close("sums", &got, &[1.0, entropy, kl], 1e-12);
                assert_close("E[∇ log π]", &mean_score, &vec![0.0; p.len()], 1e-13);
                let mut product = vec![9.0; p.len()];
                pi.fisher_product(&p, None, &v, &mut product);
                assert_close("F v", &product, &fisher, 1e-12);
            }
        }
    }

    #[test]
    fn a_masked_choice_is_a_smaller_choice(
        a in numbers(), b in numbers(), mask in prop::collection::vec(any::<bool>(), 7),
        which in 0..7_usize, psi in -2.0..2.0_f64,
    ) {
        let mut mask = mask;
        mask[which] = true;
        let kept: Vec<usize> = (0..7).filter(|&i| mask[i]).collect();
        let large = Distribution::Categorical(Categorical::new(7));
        let small = Distribution::Categorical(Categorical::new(kept.len()));
        let pick = |row: &[f64]| kept.iter().map(|&i| row[i]).collect::<Vec<f64>>();
        let (p, q) = (&a[..7], &b[..7]);
        let (small_p, small_q) = (pick(p), pick(q));
        let action = [which as f64];
        let small_action = [kept.iter().position(|&i| i == which).expect("allowed") as f64];
        let masked = Some(&mask[..]);
        assert_eq!(
            large.log_prob_entropy(p, masked, &action),
            small.log_prob_entropy(&small_p, None, &small_action)
        );
        assert_eq!(large.kl(p, q, masked), small.kl(&small_p, &small_q, None));
        let (mut d, mut small_d) = (vec![0.0; 7], vec![0.0; kept.len()]);
        large.add_score_entropy(p, masked, &action, psi, 0.3, &mut d);
        large.add_kl_gradient_q(p, q, masked, 0.7, &mut d);
        small.add_score_entropy(&small_p, None, &small_action, psi, 0.3, &mut small_d);
        small.add_kl_gradient_q(&small_p, &small_q, None, 0.7, &mut small_d);
        assert_eq!(pick(&d), small_d);
        assert!((0..7).all(|i| mask[i] || d[i] == 0.0), "a masked logit has a gradient: {d:?}");
    }

    #[test]
    fn several_choices_are_a_product(a in numbers(), choice in (0..3_u8, 0..1_u8, 0..4_u8)) {
        let all = Distribution::MultiCategorical(MultiCategorical::new(&[3, 1, 4]));
        let action = [choice.0, choice.1, choice.2].map(f64::from);
        let (mut log_prob, mut entropy, mut d) = (0.0, 0.0, vec![0.0; 8]);
        for (i, r) in [0..3, 3..4, 4..8].into_iter().enumerate() {
            let one = Distribution::Categorical(Categorical::new(r.len()));
            let part = one.log_prob_entropy(&a[r.clone()], None, &action[i..=i]);
            log_prob += part.0;
            entropy += part.1;
            one.add_score_entropy(&a[r.clone()], None, &action[i..=i], 1.5, 0.2, &mut d[r]);
        }
        let mut got = vec![0.0; 8];
        all.add_score_entropy(&a[..8], None, &action, 1.5, 0.2, &mut got);
        assert_eq!(all.log_prob_entropy(&a[..8], None, &action), (log_prob, entropy));
        assert_eq!(got, d);
    }

    /// What makes the ratio of the first pass over a batch exactly 1.
    #[test]
    fn rows_and_batches_give_the_same_bits(a in numbers(), b in numbers(), seed in any::<u64>()) {
        let mut stream = Stream::new(seed, role::POLICY, 0);
        for pi in families() {
            let single = |xs: Vec<f64>| xs.iter().map(|&x| x as f32).collect::<Vec<f32>>();
            let rows = [single(params(&pi, &a)), single(params(&pi, &b))];
            let mut actions = vec![0.0_f32; 2 * pi.action_len()];
            for (row, action) in rows.iter().zip(actions.chunks_exact_mut(pi.action_len())) {
                pi.sample(row, None, &mut stream, action);
            }
            let batch = rows.concat();
            let (mut log_prob, mut entropy) = ([0.0; 2], [0.0; 2]);
            pi.log_prob_entropy_batch(&batch, None, &actions, &mut log_prob, &mut entropy);
            let (psi, mut d) = ([0.7, -1.3], vec![0.0; batch.len()]);
            pi.add_score_entropy_batch(&batch, None, &actions, &psi, 0.1, &mut d);
            for i in 0..2 {
                let action = &actions[i * pi.action_len()..][..pi.action_len()];
                assert_eq!(pi.log_prob(&rows[i], None, action), log_prob[i]);
                assert_eq!(pi.entropy(&rows[i], None), entropy[i]);
                let mut want = vec![0.0; pi.num_params()];
                pi.add_score_entropy(&rows[i], None, action, psi[i], 0.1, &mut want);
                assert_eq!(&d[i * want.len()..][..want.len()], &want[..]);
            }
        }
    }
}

/// ∫ π = 1 and E[∇ log π] = 0 for a density, by the midpoint rule.
fn integrate(pi: &Distribution, params: &[f64], low: f64, high: f64) -> (f64, Vec<f64>) {
    let steps = 40_000;
    let h = (high - low) / f64::from(steps);
    let (mut total, mut mean_score) = (0.0, vec![0.0; params.len()]);
    for k in 0..steps {
        let action = [low + h * (f64::from(k) + 0.5)];
        let weight = h * pi.log_prob(params, None, &action).exp();
        total += weight;
        for (sum, s) in mean_score.iter_mut().zip(score(pi, params, &action)) {
            *sum += weight * s;
        }
    }
    (total, mean_score)
}

#[test]
fn densities_integrate_to_1_and_scores_to_0() {
    let gaussian = Distribution::DiagGaussian(DiagGaussian::new(1));
    let squashed = Distribution::SquashedGaussian(SquashedGaussian::new(1));
    let bounded = Distribution::SquashedGaussian(SquashedGaussian::with_bounds(&[-0.5], &[2.5]));
    let beta = Distribution::Beta(Beta::with_bounds(&[-0.5], &[2.5]));
    for params in [[0.0, 0.0], [0.4, -0.7], [-0.8, -0.2]] {
        for (pi, low, high) in [
            (&gaussian, -12.0, 12.0),
            (&squashed, -1.0, 1.0),
            (&bounded, -0.5, 2.5),
            (&beta, -0.5, 2.5),
        ] {
            let (total, mean_score) = integrate(pi, &params, low, high);
            assert!((total - 1.0).abs() < 1e-5, "{pi:?} at {params:?}: {total}");
            assert_close("E[∇ log π]", &mean_score, &[0.0; 2], 1e-4);
        }
    }
}

/// Frequencies of 40,000 samples against probabilities, within 4 standard errors.
#[test]
fn samples_of_choices_have_their_probabilities() {
    let samples = 40_000;
    for (index, pi) in families().iter().enumerate() {
        let actions = all_actions(pi);
        let numbers = [0.3, -1.0, 0.8, 0.1, -0.4, 1.2, -2.0, 0.5];
        let p = params(pi, &numbers);
        let mut stream = Stream::new(5, role::POLICY, index as u32);
        let mut counts = vec![0_u32; actions.len()];
        let mut action = vec![0.0; pi.action_len()];
        for _ in 0..if actions.is_empty() { 0 } else { samples } {
            pi.sample(&p, None, &mut stream, &mut action);
            counts[actions.iter().position(|a| *a == action).expect("an action")] += 1;
        }
        for (action, &count) in actions.iter().zip(&counts) {
            let want = pi.log_prob(&p, None, action).exp();
            let error = (want * (1.0 - want) / f64::from(samples)).sqrt();
            let got = f64::from(count) / f64::from(samples);
            assert!((got - want).abs() <= 4.0 * error, "{pi:?}, {action:?}: {got}, {want}");
        }
    }
}

/// A masked choice is never sampled, and the others are in proportion.
#[test]
fn samples_respect_the_mask() {
    let pi = Distribution::Categorical(Categorical::new(3));
    let mut stream = Stream::new(8, role::POLICY, 0);
    let mut counts = [0.0_f64; 3];
    for _ in 0..10_000 {
        let mut action = [0.0_f32];
        pi.sample(&[3.0_f32.ln(), 9.0, 0.0], Some(&[true, false, true]), &mut stream, &mut action);
        counts[action[0] as usize] += 1.0;
    }
    assert_eq!(counts[1], 0.0);
    let error = (0.75 * 0.25 / 10_000.0_f64).sqrt();
    assert!((counts[0] / 10_000.0 - 0.75).abs() < 4.0 * error, "{counts:?}");
}

/// Mean and variance of the samples, before squashing, within 4 standard errors.
#[test]
fn samples_of_numbers_have_their_moments() {
    let samples = 40_000;
    let params = [0.3, -0.5];
    let std = (-0.5_f64).exp();
    let squashed = Distribution::SquashedGaussian(SquashedGaussian::with_bounds(&[1.0], &[5.0]));
    for pi in [Distribution::DiagGaussian(DiagGaussian::new(1)), squashed] {
        let mut stream = Stream::new(6, role::POLICY, 0);
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..samples {
            let mut action = [0.0_f64];
            pi.sample(&params, None, &mut stream, &mut action);
            let u = match pi {
                Distribution::SquashedGaussian(_) => ((action[0] - 3.0) / 2.0).atanh(),
                _ => action[0],
            };
            sum += u;
            squares += (u - 0.3) * (u - 0.3);
        }
        let count = f64::from(samples);
        let error = std / count.sqrt();
        assert!((sum / count - 0.3).abs() < 4.0 * error, "{pi:?}: mean {}", sum / count);
        let variance = squares / count;
        let error = std * std * (2.0 / count).sqrt();
        assert!((variance - std * std).abs() < 4.0 * error, "{pi:?}: variance {variance}");
    }
}
