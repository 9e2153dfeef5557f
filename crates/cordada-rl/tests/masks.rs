//! A corridor where two of three actions are forbidden in every room: every algorithm that takes
//! masks walks it to its end, and none ever tries what is forbidden.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{make_in, settings_for, table};
use cordada_env::Env;
use cordada_env::probe::MaskedCorridor;
use cordada_rl::algo::ALGORITHMS;
use cordada_rl::evaluate::{EvalOptions, evaluate};

/// Settings under which updates happen at once.
const QUICK: &str = "num_envs = 2\nnum_steps = 32\nnum_minibatches = 2\nnum_epochs = 2\n\
                     learning_starts = 50\nbuffer_size = 2000\nbatch_size = 32\nhidden = [16]\n\
                     actor = [16]\ncritic = [16]\nlearning_rate = 0.01\nepsilon = 0.5\n\
                     target_interval = 10\nworkers = 2\nmode = \"round_robin\"\n";

#[test]
fn the_corridor_is_walked_without_a_forbidden_step() {
    let invalid = Arc::new(AtomicU64::new(0));
    let maker = || -> Box<dyn Env> { Box::new(MaskedCorridor::counting(Arc::clone(&invalid))) };
    let mut tried = 0;
    for algo in ALGORITHMS.iter().filter(|algo| algo.masks && algo.fits(&*maker())) {
        for memory in ["none", "gru"] {
            if memory == "gru" && !algo.recurrent {
                continue;
            }
            let mut wishes = table(QUICK);
            wishes.extend(table(&format!("memory = \"{memory}\"")));
            let settings = settings_for(algo, wishes);
            let mut learner = make_in(algo, &maker, &settings, (3, 1)).unwrap();
            while learner.steps() < 600 {
                learner.iterate().unwrap();
            }
            for deterministic in [true, false] {
                let options = EvalOptions { episodes: 10, seed: 5, deterministic };
                let found = evaluate(&learner.policy(), &maker, options);
                assert_eq!(found.mean_return, 16.0, "{} with memory {memory}", algo.name);
            }
            assert_eq!(invalid.load(Ordering::Relaxed), 0, "{} with memory {memory}", algo.name);
            tried += 1;
        }
    }
    assert!(tried > 8, "most algorithms take masks: {tried}");
    // The negative control: who does not look at the mask runs into what is forbidden.
    let mut env = maker();
    let mut stream = cordada_env::Stream::new(1, cordada_env::role::ENV, 0);
    let mut obs = vec![0.0; env.obs_space().len()];
    env.reset(&mut stream, &mut obs);
    while !env.step(&[0.0], &mut stream, &mut obs).outcome.ended() {}
    assert!(invalid.load(Ordering::Relaxed) > 0);
}
