//! Exploration of policies that choose one action for certain: ε-greedy, and noise on actions.
//! Keeping a noisy action within its box is the caller's.

use cordada_env::{Persist, StateError, StateReader, StateWriter, Stream};
use cordada_nn::Real;

use crate::estimate::td_target::{allowed, greedy_action};

/// The greedy action, or with probability ε any of the allowed ones.
///
/// Takes one number of the stream, whatever happens.
///
/// # Shapes
///
/// `q_values`, `mask`: `[A]`.
///
/// # Panics
///
/// If no action is allowed.
///
/// # Source
///
/// Sutton & Barto 2018, section 2.2.
pub fn epsilon_greedy<F: Real>(
    q_values: &[F],
    mask: Option<&[bool]>,
    epsilon: f64,
    stream: &mut Stream,
) -> usize {
    let u = stream.uniform();
    if u >= epsilon {
        return greedy_action(q_values, mask);
    }
    // Below ε, u / ε is uniform again.
    let mut actions = allowed(q_values.len(), mask);
    let count = actions.clone().count();
    let chosen = ((u / epsilon * count as f64) as usize).min(count.saturating_sub(1));
    actions.nth(chosen).expect("a choice needs an allowed action")
}

/// Adds independent normal noise of standard deviation `std` to every component of an action.
///
/// # Source
///
/// Fujimoto et al. 2018, arXiv:1802.09477, section 6.1: 0.1 for actions in [−1, 1].
pub fn add_gaussian_noise<F: Real>(std: f64, stream: &mut Stream, action: &mut [F]) {
    for a in action {
        *a += F::of(std * stream.normal());
    }
}

/// Ornstein-Uhlenbeck noise: normal noise that remembers where it was. One for each environment,
/// to be reset when an episode ends.
///
/// ```text
/// x ← x − θ x dt + σ √dt z,   z ~ N(0, 1);   a ← a + x
/// ```
///
/// # Source
///
/// Uhlenbeck & Ornstein 1930, doi:10.1103/PhysRev.36.823; Lillicrap et al. 2016, arXiv:1509.02971,
/// section 7: θ = 0.15, σ = 0.2. The step dt = 0.01 is that of OpenAI's baselines.
#[derive(Clone, Debug, PartialEq)]
pub struct OrnsteinUhlenbeck {
    theta: f64,
    sigma: f64,
    dt: f64,
    state: Vec<f64>,
}

impl OrnsteinUhlenbeck {
    /// Noise for actions of `action_len` numbers, at 0.
    ///
    /// # Panics
    ///
    /// If θ, σ or dt is negative or not finite.
    pub fn new(action_len: usize, theta: f64, sigma: f64, dt: f64) -> Self {
        for value in [theta, sigma, dt] {
            let valid = (0.0..f64::INFINITY).contains(&value);
            assert!(valid, "Ornstein-Uhlenbeck noise of θ = {theta}, σ = {sigma}, dt = {dt}");
        }
        Self { theta, sigma, dt, state: vec![0.0; action_len] }
    }

    /// Back to 0: an episode has ended.
    pub fn reset(&mut self) {
        self.state.fill(0.0);
    }

    /// Moves on, and adds the noise to an action.
    ///
    /// # Panics
    ///
    /// If the action has another length.
    pub fn add_to<F: Real>(&mut self, stream: &mut Stream, action: &mut [F]) {
        assert_eq!(action.len(), self.state.len(), "the action is not [A]");
        for (a, x) in action.iter_mut().zip(&mut self.state) {
            *x += self.sigma * self.dt.sqrt() * stream.normal() - self.theta * *x * self.dt;
            *a += F::of(*x);
        }
    }
}

impl Persist for OrnsteinUhlenbeck {
    fn save(&self, w: &mut StateWriter) {
        w.f64s(&self.state);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        r.f64s_into(&mut self.state)
    }
}

#[cfg(test)]
mod tests {
    use cordada_env::role;

    use super::*;

    fn stream() -> Stream {
        Stream::new(5, role::POLICY, 0)
    }

    #[test]
    fn every_action_has_its_share() {
        // ε = ½ over three allowed actions: the greedy one ½ + ⅙, the others ⅙ each.
        let (q, mask) = ([1.0_f32, 9.0, 2.0, 0.0], Some(&[true, false, true, true][..]));
        let mut stream = stream();
        let mut counts = [0_u32; 4];
        for _ in 0..6000 {
            counts[epsilon_greedy(&q, mask, 0.5, &mut stream)] += 1;
        }
        assert_eq!(stream.counter(), 6000, "one number for each action");
        // Binomial with deviations 37 and 29; 5 of each.
        assert!(counts[2].abs_diff(4000) < 185, "{counts:?}");
        assert!(counts[0].abs_diff(1000) < 145 && counts[3].abs_diff(1000) < 145, "{counts:?}");
        assert_eq!(counts[1], 0, "a masked action");
        let greedy = (0..100).all(|_| epsilon_greedy(&q, None, 0.0, &mut stream) == 1);
        assert!(greedy, "ε = 0 is greedy");
    }

    #[test]
    fn gaussian_noise_is_that_of_the_stream() {
        let mut action = [1.0_f64, -2.0];
        add_gaussian_noise(0.5, &mut stream(), &mut action);
        let mut twin = stream();
        assert_eq!(action, [1.0 + 0.5 * twin.normal(), -2.0 + 0.5 * twin.normal()]);
    }

    #[test]
    fn a_process_by_hand() {
        // θ = 1, σ = 2, dt = ¼: x ← ¾ x + z.
        let (mut stream, mut twin) = (stream(), stream());
        let mut noise = OrnsteinUhlenbeck::new(1, 1.0, 2.0, 0.25);
        let mut x = 0.0;
        for step in 0..5 {
            let mut action = [10.0_f64];
            noise.add_to(&mut stream, &mut action);
            x = 0.75 * x + twin.normal();
            assert!((action[0] - 10.0 - x).abs() < 1e-14, "step {step}: {action:?}, {x}");
        }
        noise.reset();
        assert_eq!(noise, OrnsteinUhlenbeck::new(1, 1.0, 2.0, 0.25));
    }

    #[test]
    fn a_process_has_the_deviation_that_it_tends_to() {
        // x ← (1 − θ dt) x + σ √dt z tends to the variance σ² dt / (1 − (1 − θ dt)²).
        let (mut stream, mut noise) = (stream(), OrnsteinUhlenbeck::new(400, 0.15, 0.2, 1.0));
        let mut squares = 0.0;
        for step in 0..150 {
            let mut action = [0.0_f64; 400];
            noise.add_to(&mut stream, &mut action);
            if step >= 50 {
                squares += action.iter().map(|a| a * a).sum::<f64>() / 40_000.0;
            }
        }
        let want = 0.04 / (1.0 - 0.85 * 0.85);
        assert!((squares - want).abs() < 0.05 * want, "{squares}, {want}");
    }

    #[test]
    fn a_saved_process_continues() {
        let (mut stream, mut noise) = (stream(), OrnsteinUhlenbeck::new(2, 0.15, 0.2, 0.01));
        noise.add_to(&mut stream, &mut [0.0_f32; 2]);
        let mut w = StateWriter::new();
        noise.save(&mut w);
        let mut other = OrnsteinUhlenbeck::new(2, 0.15, 0.2, 0.01);
        other.load(&mut StateReader::new(w.as_bytes())).unwrap();
        assert_eq!(noise, other);
        let mut longer = OrnsteinUhlenbeck::new(3, 0.15, 0.2, 0.01);
        let error = longer.load(&mut StateReader::new(w.as_bytes())).unwrap_err();
        assert!(matches!(error, StateError::Length { expected: 3, found: 2, .. }), "{error}");
    }
}
