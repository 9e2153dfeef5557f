//! One PPO, from CartPole to language models: the ratio is clipped in one function, and both call
//! it.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn control_and_tokens_clip_the_ratio_in_the_same_function() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of the crates");
    let text = |path: &str| fs::read_to_string(crates.join(path)).expect(path);
    let (ppo, surrogate) =
        (text("cordada-rl/src/algo/ppo.rs"), text("cordada-lm/src/train/surrogate.rs"));
    assert!(ppo.contains("use crate::objective::") && ppo.contains("clipped_surrogate("));
    assert!(
        surrogate.contains("use cordada_rl::objective::")
            && surrogate.contains("clipped_surrogate(")
    );
    // Nobody else defines it or clips a ratio by hand.
    let mut all = Vec::new();
    for name in ["cordada-rl/src", "cordada-lm/src"] {
        sources(&crates.join(name), &mut all);
    }
    assert!(all.len() > 100, "{} files of sources", all.len());
    let holding = |what: &str| -> Vec<&PathBuf> {
        all.iter().filter(|p| fs::read_to_string(p).expect("a source").contains(what)).collect()
    };
    assert_eq!(holding("pub fn clipped_surrogate").len(), 1);
    let clamps = holding("ratio.clamp(");
    assert_eq!(clamps.len(), 1, "{clamps:?}");
    assert!(clamps[0].ends_with("objective/clip.rs"));
}
