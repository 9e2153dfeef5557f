//! The golden family `rliable`: numbers of the Python package itself.

use cordada_testkit::golden::{self, Case};

use crate::testing::Random;
use crate::{Bootstrap, Scores, probability_of_improvement};

fn scores(case: &Case, key: &str) -> Scores {
    let tensor = case.tensor(key);
    Scores::from_flat(tensor.data.clone(), tensor.shape[1]).unwrap()
}

fn metrics(case: &Case) {
    let (x, y) = (scores(case, "input/scores"), scores(case, "input/scores_other"));
    let taus = &case.tensor("input/taus").data;
    case.check("output/mean", &[x.mean()]);
    case.check("output/median", &[x.median()]);
    case.check("output/iqm", &[x.iqm()]);
    case.check("output/optimality_gap", &[x.optimality_gap(case.param("gamma"))]);
    case.check("output/profile", &x.profile(taus));
    case.check("output/average_profile", &x.average_profile(taus));
    let probability = probability_of_improvement(&x, &y).unwrap();
    case.check("output/probability_of_improvement", &[probability]);
}

fn bootstrap(case: &Case) {
    let mut random = Random(0);
    let options = Bootstrap {
        num_resamples: case.param("reps") as usize,
        confidence: case.param("confidence"),
    };
    let scores = scores(case, "input/scores");
    let interval = options.interval(&scores, Scores::iqm, &mut |n| random.below(n)).unwrap();
    case.check("output/interval", &[interval.low, interval.high]);
    // The case's tolerance is that of the interval; the point itself is exact.
    case.check("output/point", &[interval.point]);
    let point = case.tensor("output/point").scalar();
    assert!((interval.point - point).abs() < 1e-12, "{} is not {point}", interval.point);
}

#[test]
fn golden_rliable() {
    for case in golden::family("rliable") {
        match case.name.as_str() {
            "metrics_a" | "metrics_b" => metrics(&case),
            "bootstrap_ci_a" | "bootstrap_ci_b" => bootstrap(&case),
            other => panic!("no handler for the case {other}"),
        }
    }
}
