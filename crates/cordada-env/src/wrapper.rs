//! Wrappers: environments around an environment that change what is seen, done or rewarded.
//! Normalization over a batch of environments is in `normalize`, usable without a wrapper.

pub mod action;
pub mod frame_stack;
pub mod normalize;
pub mod reward;
pub mod select;
pub mod time_limit;

pub use action::{ClipAction, RescaleAction};
pub use frame_stack::FrameStack;
pub use normalize::{
    NormalizeObs, NormalizeOptions, NormalizeReward, ObsNormalizer, RewardNormalizer,
};
pub use reward::{ClipReward, ScaleReward};
pub use select::SelectObs;
pub use time_limit::TimeLimit;

/// Methods of `Env` that a wrapper passes on to `self.inner` unchanged.
macro_rules! pass_on {
    ($($method:ident),* $(,)?) => { $(crate::wrapper::pass_on!(@ $method);)* };
    (@ obs_space) => {
        fn obs_space(&self) -> &crate::space::Space {
            self.inner.obs_space()
        }
    };
    (@ action_space) => {
        fn action_space(&self) -> &crate::space::Space {
            self.inner.action_space()
        }
    };
    (@ reset) => {
        fn reset(&mut self, stream: &mut crate::stream::Stream, obs: &mut [f32]) {
            self.inner.reset(stream, obs);
        }
    };
    (@ step) => {
        #[inline]
        fn step(
            &mut self,
            action: &[f32],
            stream: &mut crate::stream::Stream,
            obs: &mut [f32],
        ) -> crate::env::Step {
            self.inner.step(action, stream, obs)
        }
    };
    (@ recorded) => {
        fn reset_recorded(
            &mut self,
            draws: &[f64],
            obs: &mut [f32],
        ) -> Result<(), crate::error::Error> {
            self.inner.reset_recorded(draws, obs)
        }

        fn step_recorded(
            &mut self,
            action: &[f32],
            draws: &[f64],
            obs: &mut [f32],
        ) -> Result<crate::env::Step, crate::error::Error> {
            self.inner.step_recorded(action, draws, obs)
        }
    };
    (@ table) => {
        fn table(&self) -> Option<&crate::toy_text::table::TransitionTable> {
            // Tables have an inherent method of this name, which has no `Option`.
            crate::env::Env::table(&self.inner)
        }
    };
    (@ action_mask) => {
        fn action_mask(&self, mask: &mut [bool]) -> bool {
            self.inner.action_mask(mask)
        }
    };
    (@ persist) => {
        fn save(&self, w: &mut crate::state::StateWriter) {
            self.inner.save(w);
        }

        fn load(
            &mut self,
            r: &mut crate::state::StateReader<'_>,
        ) -> Result<(), crate::state::StateError> {
            self.inner.load(r)
        }
    };
    (@ state) => {
        fn state(&self) -> Option<Vec<f64>> {
            self.inner.state()
        }

        fn set_state(&mut self, state: &[f64]) -> Result<(), crate::error::Error> {
            self.inner.set_state(state)
        }
    };
}

pub(crate) use pass_on;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{CheckOptions, check};
    use crate::env::Env;
    use crate::registry::find;

    type Make = fn() -> Box<dyn Env>;

    fn make(name: &str) -> Box<dyn Env> {
        find(name).unwrap().build()
    }

    #[test]
    fn every_wrapper_keeps_the_contract() {
        let wrappers: [(&str, Make); 9] = [
            ("TimeLimit", || Box::new(TimeLimit::new(make("CartPole-v1"), 7))),
            ("NormalizeObs", || {
                let options = NormalizeOptions::default();
                Box::new(NormalizeObs::new(make("CartPole-v1"), options).unwrap())
            }),
            ("NormalizeReward", || {
                let options = NormalizeOptions::default();
                Box::new(NormalizeReward::new(make("Pendulum-v1"), 0.99, options).unwrap())
            }),
            ("FrameStack", || Box::new(FrameStack::new(make("CartPole-v1"), 3).unwrap())),
            ("SelectObs", || Box::new(SelectObs::new(make("CartPole-v1"), &[2, 0]).unwrap())),
            ("RescaleAction", || Box::new(RescaleAction::new(make("Pendulum-v1")).unwrap())),
            ("ClipAction", || Box::new(ClipAction::new(make("Pendulum-v1")).unwrap())),
            ("ClipReward", || Box::new(ClipReward::new(make("Pendulum-v1"), -1.0, 1.0).unwrap())),
            ("ScaleReward", || Box::new(ScaleReward::new(make("Pendulum-v1"), 0.1))),
        ];
        for (name, make) in wrappers {
            // Running statistics outlive a reset.
            let memoryless_reset = !name.starts_with("Normalize");
            let options = CheckOptions { memoryless_reset, ..CheckOptions::default() };
            let report = check(make, &options);
            assert!(report.passed(), "{name}: {report}");
        }
    }

    #[test]
    fn wrappers_nest_and_save_every_layer() {
        let make = || {
            let env = RescaleAction::new(make("Pendulum-v1")).unwrap();
            let env = NormalizeObs::new(env, NormalizeOptions::default()).unwrap();
            let env = FrameStack::new(env, 2).unwrap();
            let env = NormalizeReward::new(env, 0.99, NormalizeOptions::default()).unwrap();
            Box::new(TimeLimit::new(env, 50)) as Box<dyn Env>
        };
        let options = CheckOptions {
            max_episode_steps: Some(50),
            memoryless_reset: false,
            ..CheckOptions::default()
        };
        let report = check(make, &options);
        assert!(report.passed(), "{report}");
        assert_eq!(make().obs_space().len(), 6);
    }
}
