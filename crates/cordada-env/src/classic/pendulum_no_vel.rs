//! `PendulumNoVel-v1`: the pendulum without its velocity, for policies with a memory.

use super::pendulum::{self, Pendulum};
use crate::registry::EnvSpec;
use crate::wrapper::SelectObs;

/// Entry in the list of environments.
pub const SPEC: EnvSpec = EnvSpec {
    name: "PendulumNoVel-v1",
    aliases: &["PendulumNoVel"],
    source: "Pendulum-v1 of Gymnasium 1.4.0; the name is rl-baselines3-zoo's, which shows a zero in \
             place of the velocity",
    summary: "swing up a pendulum and hold it, seeing its angle but no velocity",
    make: || Box::new(pendulum_no_vel()),
    ..pendulum::SPEC
};

/// The pendulum that shows cos θ and sin θ only.
#[allow(clippy::missing_panics_doc, reason = "constant indices never fail")]
pub fn pendulum_no_vel() -> SelectObs<Pendulum> {
    SelectObs::new(Pendulum::new(), &[0, 1]).expect("a pendulum shows three numbers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::stream::{Stream, role};

    #[test]
    fn it_shows_the_angle_only() {
        let mut env = pendulum_no_vel();
        let mut obs = [9.0; 2];
        env.set_state(&[std::f64::consts::FRAC_PI_2, 0.0]).unwrap();
        // θ' = 0.05 · 15 · sin(π/2) = 0.75, θ = π/2 + 0.05 · 0.75; sin θ = cos 0.0375.
        env.step(&[0.0], &mut Stream::new(0, role::ENV, 0), &mut obs);
        let want = [-0.037_491_21, 0.999_296_96];
        assert!(obs.iter().zip(want).all(|(x, y): (&f32, f32)| (x - y).abs() < 1e-7), "{obs:?}");
        assert_eq!((env.obs_space().len(), SPEC.max_episode_steps), (2, Some(200)));
    }
}
