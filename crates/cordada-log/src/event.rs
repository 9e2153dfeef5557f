//! The events that training emits, and their form as JSON. Where they go is the sinks' matter.

use serde::ser::{Serialize, SerializeMap, Serializer};

/// Something that happened in a run.
///
/// As JSON an event is one flat object whose first key, `event`, names the variant; the metrics of
/// [`Event::Metrics`] are keys of that object, in the order given. Numbers that are not finite,
/// which JSON does not know, are the strings `nan`, `inf` and `-inf`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A process begins to train. Emitted once per process: before [`Event::Resume`] if it
    /// continues a run.
    Start {
        /// The run's name: its directory as a user would type it.
        run: String,
        /// Name of the algorithm.
        algo: String,
        /// Name of the environment.
        env: String,
        /// Seed of the run.
        seed: u64,
        /// Environment steps at which the run will be done.
        total_steps: u64,
        /// Threads that collect and learn.
        threads: usize,
        /// Version of the program.
        version: String,
    },
    /// The numbers of one iteration.
    #[serde(serialize_with = "metrics_fields")]
    Metrics {
        /// Environment steps since the run began.
        step: u64,
        /// Iterations since the run began.
        iteration: u64,
        /// Metrics by name; [`METRICS`](crate::METRICS) says what they mean.
        values: Vec<(&'static str, f64)>,
    },
    /// The policy was evaluated.
    Evaluation {
        /// Environment steps since the run began.
        step: u64,
        /// Episodes played.
        episodes: u64,
        /// Mean return of the episodes. Unit: reward.
        #[serde(serialize_with = "number")]
        mean_return: f64,
        /// Standard deviation of the returns. Unit: reward.
        #[serde(serialize_with = "number")]
        std_return: f64,
        /// Mean length of the episodes. Unit: steps.
        #[serde(serialize_with = "number")]
        mean_length: f64,
        /// Whether the most likely action was taken instead of a sampled one.
        deterministic: bool,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Environment steps since the run began.
        step: u64,
        /// Its folder.
        path: String,
    },
    /// Something that the user may want to know, such as the memory that the run will take.
    Note {
        /// Environment steps since the run began.
        step: u64,
        /// What.
        message: String,
    },
    /// Something that the user should know but that does not stop the run.
    Warning {
        /// Environment steps since the run began.
        step: u64,
        /// What, with the remedy.
        message: String,
    },
    /// The run continues from a checkpoint.
    Resume {
        /// Environment steps at the checkpoint.
        step: u64,
        /// The checkpoint's folder.
        path: String,
    },
    /// The run reached its end.
    Done {
        /// The run's name.
        run: String,
        /// Environment steps since the run began.
        steps: u64,
        /// Time this process has trained. Unit: seconds.
        #[serde(serialize_with = "number")]
        seconds: f64,
        /// Speed of this process. Unit: steps per second.
        #[serde(serialize_with = "number")]
        steps_per_s: f64,
        /// Mean return of the last evaluation; `null` if there was none. Unit: reward.
        #[serde(serialize_with = "optional_number")]
        eval_return: Option<f64>,
    },
    /// The run stopped with an error.
    Failed {
        /// Environment steps since the run began.
        step: u64,
        /// The error.
        message: String,
    },
}

/// An event as a line of `metrics.jsonl`: the metrics that depend on the clock stand apart, in an
/// object `time` at the end, so that comparing two runs means to drop one key.
#[derive(Debug)]
pub(crate) struct Line<'a>(pub(crate) &'a Event);

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Event::Metrics { step, iteration, values } = self.0 else {
            return self.0.serialize(serializer);
        };
        let (stable, clock): (Vec<_>, Vec<_>) =
            values.iter().copied().partition(|(name, _)| crate::is_deterministic(name));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event", "metrics")?;
        map.serialize_entry("step", step)?;
        map.serialize_entry("iteration", iteration)?;
        for (name, value) in stable {
            map.serialize_entry(name, &Number(value))?;
        }
        if !clock.is_empty() {
            map.serialize_entry("time", &Values(&clock))?;
        }
        map.end()
    }
}

/// The content of [`Event::Metrics`] as one flat map.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn metrics_fields<S: Serializer>(
    step: &u64,
    iteration: &u64,
    values: &[(&'static str, f64)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(values.len() + 2))?;
    map.serialize_entry("step", step)?;
    map.serialize_entry("iteration", iteration)?;
    for (name, value) in values {
        map.serialize_entry(name, &Number(*value))?;
    }
    map.end()
}

/// Metrics as a map.
struct Values<'a>(&'a [(&'static str, f64)]);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, Number(*value))))
    }
}

/// A number that JSON can hold.
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        number(&self.0, serializer)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        serializer.serialize_f64(*value)
    } else if value.is_nan() {
        serializer.serialize_str("nan")
    } else {
        serializer.serialize_str(if *value > 0.0 { "inf" } else { "-inf" })
    }
}

#[expect(clippy::ref_option, reason = "serde passes fields by reference")]
fn optional_number<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => number(value, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(event: &impl Serialize) -> String {
        serde_json::to_string(event).unwrap()
    }

    #[test]
    fn metrics_keep_their_order_and_their_bits() {
        let event = Event::Metrics {
            step: 2048,
            iteration: 1,
            values: vec![
                ("rollout/episode_return", 0.1 + 0.2),
                ("time/seconds", 1.5),
                ("train/entropy", f64::NAN),
                ("train/approx_kl", f64::INFINITY),
                ("train/policy_loss", f64::NEG_INFINITY),
                ("train/clip_fraction", -0.0),
            ],
        };
        assert_eq!(
            json(&event),
            r#"{"event":"metrics","step":2048,"iteration":1,"rollout/episode_return":0.30000000000000004,"time/seconds":1.5,"train/entropy":"nan","train/approx_kl":"inf","train/policy_loss":"-inf","train/clip_fraction":-0.0}"#
        );
        assert_eq!(
            json(&Line(&event)),
            r#"{"event":"metrics","step":2048,"iteration":1,"rollout/episode_return":0.30000000000000004,"train/entropy":"nan","train/approx_kl":"inf","train/policy_loss":"-inf","train/clip_fraction":-0.0,"time":{"time/seconds":1.5}}"#
        );
    }

    #[test]
    fn a_line_without_clock_metrics_has_no_time_key() {
        let event = Event::Metrics { step: 1, iteration: 0, values: vec![("train/std", 1.0)] };
        assert_eq!(
            json(&Line(&event)),
            r#"{"event":"metrics","step":1,"iteration":0,"train/std":1.0}"#
        );
    }

    fn expect_json(event: &Event, text: &str) {
        assert_eq!(json(event), text);
        assert_eq!(json(&Line(event)), text);
    }

    #[test]
    fn start_and_evaluation_have_their_form() {
        let start = Event::Start {
            run: "runs/ppo-CartPole-v1-1".into(),
            algo: "ppo".into(),
            env: "CartPole-v1".into(),
            seed: u64::MAX,
            total_steps: 100_000,
            threads: 2,
            version: "0.1.0".into(),
        };
        let text = r#"{"event":"start","run":"runs/ppo-CartPole-v1-1","algo":"ppo","env":"CartPole-v1","seed":18446744073709551615,"total_steps":100000,"threads":2,"version":"0.1.0"}"#;
        expect_json(&start, text);
        let evaluation = Event::Evaluation {
            step: 10,
            episodes: 5,
            mean_return: 12.5,
            std_return: f64::NAN,
            mean_length: 13.0,
            deterministic: true,
        };
        let text = r#"{"event":"evaluation","step":10,"episodes":5,"mean_return":12.5,"std_return":"nan","mean_length":13.0,"deterministic":true}"#;
        expect_json(&evaluation, text);
    }

    #[test]
    fn done_has_its_form() {
        let done = |eval_return| Event::Done {
            run: "a".into(),
            steps: 10,
            seconds: 2.0,
            steps_per_s: f64::INFINITY,
            eval_return,
        };
        let start = r#"{"event":"done","run":"a","steps":10,"seconds":2.0,"steps_per_s":"inf","eval_return":"#;
        expect_json(&done(None), &format!("{start}null}}"));
        expect_json(&done(Some(f64::NAN)), &format!(r#"{start}"nan"}}"#));
        expect_json(&done(Some(1.5)), &format!("{start}1.5}}"));
    }

    #[test]
    fn small_events_have_their_form() {
        let (step, path) = (10, "c".to_owned());
        expect_json(
            &Event::Checkpoint { step, path: path.clone() },
            r#"{"event":"checkpoint","step":10,"path":"c"}"#,
        );
        expect_json(&Event::Resume { step, path }, r#"{"event":"resume","step":10,"path":"c"}"#);
        expect_json(
            &Event::Warning { step, message: "a \"b\"\n".into() },
            r#"{"event":"warning","step":10,"message":"a \"b\"\n"}"#,
        );
        expect_json(
            &Event::Failed { step, message: "m".into() },
            r#"{"event":"failed","step":10,"message":"m"}"#,
        );
    }
}
