//! Negative controls: for every check an environment that is broken in just that way.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::env::Step;
use crate::space::BoxSpace;
use crate::state::StateError;

/// What is wrong with the environment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Nothing,
    EmptyObs,
    BadActionSpace,
    SpaceChanges,
    ObsUnwritten,
    LastObsUnwritten,
    ObsOutside,
    RewardNan,
    MaskAllowsNothing,
    MaskHalfWritten,
    MaskWrittenInSecret,
    MaskIgnored,
    TooLong,
    UsesGlobalState,
    ForgetsOnSave,
    SavesTooMuch,
    SavesUnstably,
    RemembersAcrossResets,
    ResetsHalfway,
}

/// Shared by all instances, as no state should be.
static GLOBAL: AtomicU32 = AtomicU32::new(0);

/// Two counters, of which one is hidden until it shows in the reward; ends after 10 steps.
struct Broken {
    fault: Fault,
    obs_space: Space,
    other_space: Space,
    action_space: Space,
    steps: u32,
    hidden: u32,
    lifetime: u32,
}

impl Broken {
    fn new(fault: Fault) -> Self {
        let obs = if fault == Fault::EmptyObs { 0 } else { 2 };
        let action_space = if fault == Fault::BadActionSpace {
            // The bounds are in the wrong order.
            Space::Box(BoxSpace { low: vec![2.0], high: vec![1.0], shape: vec![1] })
        } else {
            Space::MultiDiscrete { nvec: vec![2, 3] }
        };
        Self {
            fault,
            obs_space: Space::vector(&vec![0.0; obs], &vec![20.0; obs]),
            other_space: Space::MultiBinary { n: 2 },
            action_space,
            steps: 0,
            hidden: 0,
            lifetime: 0,
        }
    }

    fn observe(&self, stream: &mut Stream, obs: &mut [f32]) {
        obs[0] = self.steps as f32;
        let last = self.fault == Fault::LastObsUnwritten && self.steps == 10;
        if self.fault != Fault::ObsUnwritten && !last {
            obs[1] = stream.uniform() as f32;
        }
        if self.fault == Fault::ObsOutside && self.steps == 5 {
            obs[1] = -1.0;
        }
    }
}

impl Env for Broken {
    fn obs_space(&self) -> &Space {
        let other = self.fault == Fault::SpaceChanges && self.lifetime > 0;
        if other { &self.other_space } else { &self.obs_space }
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        let kept = if self.fault == Fault::ResetsHalfway { self.steps } else { 0 };
        (self.steps, self.hidden) = (kept, 0);
        self.observe(stream, obs);
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        self.steps += 1;
        self.lifetime += 1;
        self.hidden += action[0] as u32;
        self.observe(stream, obs);
        let reward = match self.fault {
            Fault::RewardNan if self.steps == 3 => f64::NAN,
            Fault::RemembersAcrossResets => f64::from(self.lifetime),
            Fault::UsesGlobalState => f64::from(GLOBAL.fetch_add(1, Ordering::Relaxed)),
            _ => f64::from(self.hidden),
        };
        let max = if self.fault == Fault::TooLong { 11 } else { 10 };
        let ended = self.steps >= max;
        Step { reward, outcome: if ended { Outcome::Terminated } else { Outcome::Continue } }
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        let full = [true, self.steps.is_multiple_of(2), false, true, true];
        match self.fault {
            Fault::MaskAllowsNothing => mask.copy_from_slice(&[true, true, false, false, false]),
            Fault::MaskHalfWritten => mask[..3].copy_from_slice(&full[..3]),
            Fault::MaskIgnored => return mask[0],
            _ => mask.copy_from_slice(&full),
        }
        self.fault != Fault::MaskWrittenInSecret
    }

    fn save(&self, w: &mut StateWriter) {
        w.u32(self.steps);
        w.u32(self.lifetime);
        if self.fault != Fault::ForgetsOnSave {
            w.u32(self.hidden);
        }
        match self.fault {
            Fault::SavesTooMuch => w.u32(1),
            Fault::SavesUnstably => w.u32(GLOBAL.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.steps = r.u32()?;
        self.lifetime = r.u32()?;
        if self.fault != Fault::ForgetsOnSave {
            self.hidden = r.u32()?;
        }
        if self.fault == Fault::SavesUnstably {
            r.u32()?;
        }
        Ok(())
    }
}

fn failures(fault: Fault, options: &CheckOptions) -> Vec<&'static str> {
    let report = check(|| Box::new(Broken::new(fault)), options);
    report.failures().map(|finding| finding.check).collect()
}

#[test]
fn every_check_fails_on_its_fault_and_no_other_does() {
    let options = CheckOptions { max_episode_steps: Some(10), ..CheckOptions::default() };
    let cases: [(Fault, &[&str]); 18] = [
        (Fault::Nothing, &[]),
        (Fault::EmptyObs, &["spaces"]),
        (Fault::BadActionSpace, &["spaces"]),
        (Fault::SpaceChanges, &["spaces"]),
        // What was not written is not in the space either.
        (Fault::ObsUnwritten, &["obs_written", "obs_in_space"]),
        (Fault::LastObsUnwritten, &["obs_written"]),
        (Fault::ObsOutside, &["obs_in_space"]),
        (Fault::RewardNan, &["reward_finite"]),
        (Fault::MaskHalfWritten, &["action_mask"]),
        (Fault::MaskWrittenInSecret, &["action_mask"]),
        (Fault::TooLong, &["time_limit"]),
        // Without determinism nothing is repeatable.
        (Fault::UsesGlobalState, &["determinism", "save_load", "reset"]),
        (Fault::ForgetsOnSave, &["save_load"]),
        (Fault::SavesTooMuch, &["save_load"]),
        (Fault::SavesUnstably, &["save_load"]),
        (Fault::RemembersAcrossResets, &["reset"]),
        // Never below the tenth step again, so that it also ends at once ever after.
        (Fault::ResetsHalfway, &["obs_in_space", "reset"]),
        (Fault::MaskIgnored, &["action_mask"]),
    ];
    for (fault, want) in cases {
        assert_eq!(failures(fault, &options), want, "{fault:?}");
    }
}

#[test]
#[should_panic(expected = "allows none of 3 choices")]
fn an_impossible_mask_is_found_before_it_is_followed() {
    let env = Broken::new(Fault::MaskAllowsNothing);
    let error = check_mask(&env, 4).unwrap_err();
    assert_eq!(error, "step 4: the mask allows none of the choices of component 1");
    // Following it is a panic, with a message.
    Run::new(Box::new(env), 0).step();
}

#[test]
fn waived_checks_are_left_out() {
    let options = CheckOptions { memoryless_reset: false, ..CheckOptions::default() };
    assert_eq!(failures(Fault::RemembersAcrossResets, &options), [""; 0]);
    let report = check(|| Box::new(Broken::new(Fault::TooLong)), &options);
    assert!(report.passed(), "{report}");
    assert!(report.findings.iter().all(|f| f.check != "time_limit" && f.check != "reset"));
}

#[test]
fn a_report_reads_as_lines() {
    let options = CheckOptions { steps: 20, ..CheckOptions::default() };
    let report = check(|| Box::new(Broken::new(Fault::RewardNan)), &options);
    let text = report.to_string();
    assert!(text.contains("reward_finite: FAILED: step 2: reward NaN\n"), "{text}");
    assert!(text.contains("obs_in_space: ok: 20 steps, 2 finished episodes\n"), "{text}");
    assert!(!report.passed());
}
