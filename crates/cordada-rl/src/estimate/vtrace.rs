//! V-trace: value targets and advantages for actions of an older policy.

use cordada_nn::Real;

use super::Segment;

/// Discount and truncation levels of V-trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VtraceConfig<F> {
    /// Discount γ ∈ [0, 1].
    pub gamma: F,
    /// Trace decay λ ∈ [0, 1]; the paper's main text has 1 (its remark 2 introduces it).
    pub lambda: F,
    /// ρ̄: truncation of the weight of a TD error; sets the fixed point. Paper: 1.
    pub rho_bar: F,
    /// c̄: truncation of the trace; sets the speed. Paper: 1.
    pub c_bar: F,
    /// Truncation of the weight of the policy gradient. Paper: 1.
    pub pg_rho_bar: F,
}

/// V-trace targets and policy-gradient advantages.
///
/// With `ρ_t = π(a_t | s_t) / μ(a_t | s_t)`, μ the policy that acted:
///
/// ```text
/// δ_t = min(ρ̄, ρ_t) (r_t + γ V(s'_t) − V(s_t))
/// v_t = V(s_t) + δ_t + γ λ min(c̄, ρ_t) (v_{t+1} − V(s_{t+1}))
/// A_t = min(ρ̄_pg, ρ_t) (r_t + γ v_{t+1} − V(s_t))
/// ```
///
/// At an end of the episode or of the segment the trace stops and V(s'_t) takes the place of
/// v_{t+1}. The advantage holds the weight ρ already: its objective is the plain policy gradient.
///
/// # Shapes
///
/// `log_rhos` (`log ρ_t`), `targets` (`v_t`), `advantages`: `[T, N]`.
///
/// # Panics
///
/// If the lengths do not agree.
///
/// # Source
///
/// Espeholt et al. 2018, arXiv:1802.01561, eq. (1) and remark 1 for the recursion, section 4.2.
pub fn vtrace<F: Real>(
    segment: &Segment<'_, F>,
    log_rhos: &[F],
    config: VtraceConfig<F>,
    targets: &mut [F],
    advantages: &mut [F],
) {
    let n = segment.num_envs;
    let len = segment.num_steps() * n;
    assert_eq!(log_rhos.len(), len, "log_rhos have another shape than rewards");
    assert_eq!(targets.len(), len, "targets have another shape than rewards");
    assert_eq!(advantages.len(), len, "advantages have another shape than rewards");
    for i in (0..len).rev() {
        let rho = log_rhos[i].exp();
        let (reward, value) = (segment.rewards[i], segment.values[i]);
        let next_value = segment.next_value(i);
        let delta = rho.min(config.rho_bar) * (reward + config.gamma * next_value - value);
        let (next_target, trace) = if segment.continues(i) {
            let c = config.lambda * rho.min(config.c_bar);
            (targets[i + n], config.gamma * c * (targets[i + n] - next_value))
        } else {
            (next_value, F::ZERO)
        };
        targets[i] = value + (delta + trace);
        advantages[i] = rho.min(config.pg_rho_bar) * (reward + config.gamma * next_target - value);
    }
}

#[cfg(test)]
mod tests {
    use cordada_env::Outcome;

    use super::super::check_value::{outcomes, segment};
    use super::*;

    #[test]
    fn weights_are_truncated_and_ends_stop_the_trace() {
        // γ = ½, λ = 1; ρ = 2, ½, 4 against bars ρ̄ = 1, c̄ = ½, ρ̄_pg = 3.
        // TD errors as in GAE: −½, 3, 3½, so δ = −½, 1½, 3½ and v_2 = 3½, v_1 = 1 + 1½ = 2½,
        // v_0 = 2 − ½ + ½·½·(2½ − 1) = 1.875.
        // A_0 = 2 (1 + ½·2½ − 2) = ½, A_1 = ½ (2 + ½·4 − 1) = 1½, A_2 = 3 (3 + ½·1 − 0) = 10½.
        let outcomes = outcomes(Outcome::Truncated);
        let log_rhos = [2.0_f64.ln(), 0.5_f64.ln(), 4.0_f64.ln()];
        let config =
            VtraceConfig { gamma: 0.5, lambda: 1.0, rho_bar: 1.0, c_bar: 0.5, pg_rho_bar: 3.0 };
        let (mut targets, mut advantages) = ([0.0; 3], [0.0; 3]);
        vtrace(&segment(&outcomes), &log_rhos, config, &mut targets, &mut advantages);
        for (got, want) in targets.iter().zip([1.875, 2.5, 3.5]) {
            assert!((got - want).abs() < 1e-14, "target {got}, expected {want}");
        }
        for (got, want) in advantages.iter().zip([0.5, 1.5, 10.5]) {
            assert!((got - want).abs() < 1e-14, "advantage {got}, expected {want}");
        }
    }
}
