//! `CartPoleNoVel-v1`: the cart-pole without its velocities, for policies with a memory.

use super::cartpole::{self, CartPole};
use crate::registry::EnvSpec;
use crate::wrapper::SelectObs;

/// Entry in the list of environments.
pub const SPEC: EnvSpec = EnvSpec {
    name: "CartPoleNoVel-v1",
    aliases: &["CartPoleNoVel"],
    source: "CartPole-v1 of Gymnasium 1.4.0; the name is rl-baselines3-zoo's, which shows zeros in \
             place of the velocities",
    summary: "balance a pole on a cart, seeing positions but no velocities",
    make: || Box::new(cartpole_no_vel()),
    ..cartpole::SPEC
};

/// The cart-pole that shows x and θ only.
#[allow(clippy::missing_panics_doc, reason = "constant indices never fail")]
pub fn cartpole_no_vel() -> SelectObs<CartPole> {
    SelectObs::new(CartPole::new(), &[0, 2]).expect("a cart-pole shows four numbers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::stream::{Stream, role};

    #[test]
    fn it_is_the_cart_pole_with_two_numbers() {
        let (mut full, mut part) = (CartPole::new(), cartpole_no_vel());
        let (mut one, mut two) = (Stream::new(4, role::ENV, 0), Stream::new(4, role::ENV, 0));
        let (mut all, mut shown) = ([0.0; 4], [0.0; 2]);
        full.reset(&mut one, &mut all);
        part.reset(&mut two, &mut shown);
        for t in 0..20u8 {
            assert_eq!(shown, [all[0], all[2]]);
            let action = [f32::from(t % 3 / 2)];
            let steps =
                (full.step(&action, &mut one, &mut all), part.step(&action, &mut two, &mut shown));
            assert_eq!(steps.0, steps.1);
        }
        assert_eq!((SPEC.max_episode_steps, SPEC.reward_threshold), (Some(500), Some(475.0)));
    }
}
