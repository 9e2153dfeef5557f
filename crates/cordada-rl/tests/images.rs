//! Images: the convolutions are taken by themselves, learn, act from the policy file, and an
//! observation that is none is refused for them.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{make_in, restore, settings_for, state, table, through_file};
use cordada_env::{
    BoxSpace, Env, Outcome, Space, StateError, StateReader, StateWriter, Step, Stream,
};
use cordada_rl::algo;
use cordada_rl::evaluate::{EvalOptions, evaluate};
use cordada_rl::policy::Encoder;
use cordada_rl::policy_file::PolicySpec;

const SIDE: usize = 36;

/// A bright field in one half of a gray picture: say in which.
#[derive(Clone)]
struct WhichHalf {
    spaces: (Space, Space),
    right: bool,
}

impl WhichHalf {
    fn make() -> Box<dyn Env> {
        let n = 2 * SIDE * SIDE;
        let picture = BoxSpace::new(vec![0.0; n], vec![1.0; n], vec![2, SIDE, SIDE]).unwrap();
        let spaces = (Space::Box(picture), Space::Discrete { n: 2 });
        Box::new(Self { spaces, right: false })
    }

    fn paint(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.right = stream.below(2) == 1;
        let (row, column) = (stream.below(SIDE - 8), stream.below(SIDE / 2 - 8));
        let column = column + if self.right { SIDE / 2 } else { 0 };
        for (i, pixel) in obs.iter_mut().enumerate() {
            let (y, x) = (i / SIDE % SIDE, i % SIDE);
            let inside = (row..row + 8).contains(&y) && (column..column + 8).contains(&x);
            *pixel = if inside { 1.0 } else { 0.25 };
        }
    }
}

impl Env for WhichHalf {
    fn obs_space(&self) -> &Space {
        &self.spaces.0
    }

    fn action_space(&self) -> &Space {
        &self.spaces.1
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.paint(stream, obs);
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let reward = if (action[0] > 0.5) == self.right { 1.0 } else { 0.0 };
        self.paint(stream, obs);
        Step { reward, outcome: Outcome::Terminated }
    }

    fn save(&self, w: &mut StateWriter) {
        w.bool(self.right);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.right = r.bool()?;
        Ok(())
    }
}

const SETTINGS: &str = "num_envs = 8\nnum_steps = 16\nnum_minibatches = 2\nnum_epochs = 2\n\
                        learning_rate = 5e-4\nactor = []\ncritic = []\nhidden = []\n\
                        learning_starts = 64\nbuffer_size = 2000\nbatch_size = 64\n\
                        train_freq = 2\nsteps_per_iteration = 128\nepsilon = 0.2\n\
                        target_interval = 32\n";

#[test]
fn pictures_are_told_apart() {
    for (name, steps) in [("ppo", 2560), ("dqn", 1920)] {
        let algo = algo::find(name).unwrap();
        let settings = settings_for(algo, table(SETTINGS));
        let make = || make_in(algo, &WhichHalf::make, &settings, (1, 1)).unwrap();
        let mut learner = make();
        while learner.steps() < steps {
            learner.iterate().unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let policy = through_file(&learner.policy(), folder.path());
        let encoder = match &policy.spec {
            PolicySpec::ActorCritic(spec) => spec.encoder,
            PolicySpec::ActionValues(spec) => spec.encoder,
        };
        assert_eq!(encoder, Encoder::NatureCnn { shape: [2, SIDE, SIDE] }, "{name}");
        let options = EvalOptions { episodes: 200, seed: 3, deterministic: true };
        let found = evaluate(&policy, &WhichHalf::make, options).mean_return;
        assert!(found > 0.95, "{name}: {found}");

        let mut restored = make();
        restore(&mut *restored, &policy, &state(&*learner));
        assert_eq!(learner.iterate().unwrap(), restored.iterate().unwrap(), "{name}");
    }
}

#[test]
fn what_is_no_picture_is_refused_for_convolutions() {
    let algo = algo::find("ppo").unwrap();
    let settings = settings_for(algo, table("encoder = \"nature_cnn\""));
    let cartpole = cordada_env::find("CartPole-v1").unwrap();
    let error = make_in(algo, &|| cartpole.build(), &settings, (1, 1)).unwrap_err().to_string();
    assert!(error.starts_with("ppo.encoder = \"nature_cnn\": \"flat\", for Box("), "{error}");
    assert!(error.ends_with("is no image of at least 36×36"), "{error}");
}
