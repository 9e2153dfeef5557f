//! Losses of reward models and of preferences, and their gradients, against TRL's trainers and
//! transcriptions of the papers: the families `reward_model` and `preference` of the golden data.

use cordada_rl::distribution::{Categorical, Distribution};
use cordada_rl::objective::{
    Kto, PairTerm, PreferenceLoss, ScoredResponse, all_pairs, binary_cross_entropy, bradley_terry,
    plackett_luce,
};
use cordada_testkit::golden::{self, Case, Tensor};

fn mean(xs: impl ExactSizeIterator<Item = f64>) -> f64 {
    let len = xs.len() as f64;
    xs.sum::<f64>() / len
}

fn check_mean_loss(case: &Case, losses: &[f64]) {
    case.check("output/loss", &[mean(losses.iter().copied())]);
}

/// Checks the gradients of a mean over pairs.
fn check_pairs(case: &Case, terms: &[PairTerm<f64>], chosen: &str, rejected: &str) {
    let count = terms.len() as f64;
    check_mean_loss(case, &terms.iter().map(|t| t.loss).collect::<Vec<_>>());
    case.check(chosen, &terms.iter().map(|t| t.d_chosen / count).collect::<Vec<_>>());
    case.check(rejected, &terms.iter().map(|t| t.d_rejected / count).collect::<Vec<_>>());
}

#[test]
fn golden_reward_model() {
    for case in golden::llm_family("reward_model") {
        match case.name.as_str() {
            "bradley_terry"
            | "bradley_terry_margin"
            | "bradley_terry_centered"
            | "bradley_terry_margin_centered" => pairs(&case),
            "plackett_luce" => rankings(&case, plackett_luce),
            "all_pairs_ranking" => rankings(&case, all_pairs),
            "binary_outcome" => binary_outcome(&case),
            other => panic!("no test for the case {other}"),
        }
    }
}

fn pairs(case: &Case) {
    let chosen = &case.tensor("input/rewards_chosen").data;
    let rejected = &case.tensor("input/rewards_rejected").data;
    let margin = if case.has("input/margin") {
        case.tensor("input/margin").data.clone()
    } else {
        vec![0.0; chosen.len()]
    };
    let coef = case.opt_param("center_rewards_coefficient").unwrap_or(0.0);
    let terms: Vec<_> =
        (0..chosen.len()).map(|i| bradley_terry(chosen[i], rejected[i], margin[i], coef)).collect();
    check_pairs(case, &terms, "grad/rewards_chosen", "grad/rewards_rejected");
}

/// A loss of scores, places and a coefficient, which writes its gradient.
type RankingLoss = fn(&[f64], &[usize], f64, &mut [f64]) -> f64;

fn rankings(case: &Case, loss: RankingLoss) {
    let scores = case.tensor("input/scores");
    let (batch, k) = (scores.shape[0], scores.shape[1]);
    let ranking = case.tensor("input/ranking").indices();
    let mut d = vec![9.0; scores.data.len()];
    let mut losses = Vec::new();
    for row in 0..batch {
        let row = row * k..(row + 1) * k;
        // The data says which item has a place; ours says which place an item has.
        let mut places = vec![0; k];
        for (place, &item) in ranking[row.clone()].iter().enumerate() {
            places[item] = place;
        }
        let coef = 1.0 / batch as f64;
        losses.push(loss(&scores.data[row.clone()], &places, coef, &mut d[row]));
    }
    check_mean_loss(case, &losses);
    if case.has("output/log_likelihood") {
        case.check("output/log_likelihood", &losses.iter().map(|l| -l).collect::<Vec<_>>());
    }
    case.check("grad/scores", &d);
}

fn binary_outcome(case: &Case) {
    let (scores, labels) = (&case.tensor("input/logits").data, &case.tensor("input/labels").data);
    let terms: Vec<_> =
        scores.iter().zip(labels).map(|(&s, &y)| binary_cross_entropy(s, y)).collect();
    let count = terms.len() as f64;
    check_mean_loss(case, &terms.iter().map(|t| t.loss).collect::<Vec<_>>());
    case.check("grad/logits", &terms.iter().map(|t| t.d_score / count).collect::<Vec<_>>());
}

#[test]
fn golden_preference() {
    for case in golden::llm_family("preference") {
        let beta = case.opt_param("beta").unwrap_or(f64::NAN);
        let label_smoothing = case.opt_param("label_smoothing").unwrap_or(f64::NAN);
        match case.name.as_str() {
            "dpo" | "dpo_beta_large" => of_logits(&case, PreferenceLoss::Dpo { beta }),
            "ipo_length_normalized" => of_logits(&case, PreferenceLoss::IpoPerToken { beta }),
            "hinge" => of_logits(&case, PreferenceLoss::Hinge { beta }),
            "robust" => of_logits(&case, PreferenceLoss::RobustDpo { beta, label_smoothing }),
            "bco_pair" => of_logits(&case, PreferenceLoss::BcoPair { beta }),
            "apo_zero" => of_logits(&case, PreferenceLoss::ApoZero { beta }),
            "sppo_hard" => of_logits(&case, PreferenceLoss::SppoHard { beta }),
            "ipo_paper" => of_sums(&case, PreferenceLoss::Ipo { beta }),
            // Numbers that stand in the formulas, not among the parameters.
            "cdpo" => {
                let label_smoothing = 0.1;
                of_sums(&case, PreferenceLoss::ConservativeDpo { beta, label_smoothing });
            }
            "simpo" => of_sums(&case, PreferenceLoss::SimPo { beta, margin: 1.0 }),
            "cpo_like_slic" => of_sums(&case, PreferenceLoss::Slic { delta: 1.0 }),
            "orpo" => of_sums(&case, PreferenceLoss::Orpo { lambda: case.param("lambda") }),
            "kto" | "kto_negative_kl" | "kto_all_desirable" => kto(&case),
            other => panic!("no test for the case {other}"),
        }
    }
}

fn of_sums(case: &Case, loss: PreferenceLoss<f64>) {
    let lengths = |side: &str| case.tensor(&format!("input/{side}_len")).indices();
    let responses = |side: &str| -> Vec<ScoredResponse<f64>> {
        let log_prob = &case.tensor(&format!("input/{side}_log_probs")).data;
        let reference = format!("input/ref_{side}_log_probs");
        assert!(case.has(&reference) || !loss.needs_reference(), "{}: no reference", case.name);
        let lengths = lengths(side);
        (0..log_prob.len())
            .map(|i| ScoredResponse {
                log_prob: log_prob[i],
                ref_log_prob: if loss.needs_reference() {
                    case.tensor(&reference).data[i]
                } else {
                    f64::NAN
                },
                length: lengths[i],
            })
            .collect()
    };
    let terms: Vec<_> = responses("chosen")
        .into_iter()
        .zip(responses("rejected"))
        .map(|(chosen, rejected)| loss.of(chosen, rejected))
        .collect();
    if case.has("output/per_pair") {
        case.check("output/per_pair", &terms.iter().map(|t| t.loss).collect::<Vec<_>>());
    }
    check_pairs(case, &terms, "grad/chosen_log_probs", "grad/rejected_log_probs");
}

/// A batch of logits, of which those at position t say token t + 1.
struct Batch<'a> {
    pi: Distribution,
    logits: &'a Tensor,
    tokens: &'a [f64],
    mask: Vec<bool>,
}

impl<'a> Batch<'a> {
    fn of(case: &'a Case) -> Self {
        let logits = case.tensor("input/logits");
        Self {
            pi: Distribution::Categorical(Categorical::new(logits.shape[2])),
            logits,
            tokens: &case.tensor("input/tokens").data,
            mask: case.tensor("input/completion_mask").flags(),
        }
    }

    /// Position of each response token in row `row`, with the range of the logits that say it.
    fn predictions(&self, row: usize) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        let (width, v) = (self.logits.shape[1], self.logits.shape[2]);
        (row * width + 1..(row + 1) * width)
            .filter(|&i| self.mask[i])
            .map(move |i| (i, (i - 1) * v..i * v))
    }

    fn responses(&self, case: &Case) -> Vec<ScoredResponse<f64>> {
        let reference = &case.tensor("input/ref_log_probs").data;
        (0..self.logits.shape[0])
            .map(|row| {
                let log_probs = self.predictions(row).map(|(i, logits)| {
                    let action = &self.tokens[i..=i];
                    self.pi.log_prob_entropy(&self.logits.data[logits], None, action).0
                });
                let log_probs: Vec<f64> = log_probs.collect();
                ScoredResponse {
                    log_prob: log_probs.iter().sum(),
                    ref_log_prob: reference[row],
                    length: log_probs.len(),
                }
            })
            .collect()
    }

    /// Every token of a response has its response's derivative.
    fn check_gradient(&self, case: &Case, d_log_prob: &[f64]) {
        let mut d = vec![0.0; self.logits.data.len()];
        for (row, &psi) in d_log_prob.iter().enumerate() {
            for (i, logits) in self.predictions(row) {
                let action = &self.tokens[i..=i];
                let d = &mut d[logits.clone()];
                self.pi.add_score(&self.logits.data[logits], None, action, psi, d);
            }
        }
        case.check("grad/logits", &d);
    }
}

fn of_logits(case: &Case, loss: PreferenceLoss<f64>) {
    let batch = Batch::of(case);
    let responses = batch.responses(case);
    case.check("output/log_probs", &responses.iter().map(|r| r.log_prob).collect::<Vec<_>>());
    let (chosen, rejected) = responses.split_at(responses.len() / 2);
    let rewards = |responses: &[ScoredResponse<f64>]| -> Vec<f64> {
        responses.iter().map(|r| case.param("beta") * r.log_ratio()).collect()
    };
    case.check("output/rewards_chosen", &rewards(chosen));
    case.check("output/rewards_rejected", &rewards(rejected));
    let terms: Vec<_> = chosen.iter().zip(rejected).map(|(&c, &r)| loss.of(c, r)).collect();
    check_mean_loss(case, &terms.iter().map(|t| t.loss).collect::<Vec<_>>());
    let count = terms.len() as f64;
    let d_chosen = terms.iter().map(|t| t.d_chosen / count);
    let d_rejected = terms.iter().map(|t| t.d_rejected / count);
    batch.check_gradient(case, &d_chosen.chain(d_rejected).collect::<Vec<_>>());
}

fn kto(case: &Case) {
    let batch = Batch::of(case);
    let responses = batch.responses(case);
    case.check("output/log_probs", &responses.iter().map(|r| r.log_prob).collect::<Vec<_>>());
    let kto = Kto {
        beta: case.param("beta"),
        desirable_weight: case.param("desirable_weight"),
        undesirable_weight: case.param("undesirable_weight"),
    };
    let z = Kto::reference_point(
        &case.tensor("input/kl_log_probs").data,
        &case.tensor("input/kl_ref_log_probs").data,
    );
    case.check("output/z", &[z]);
    let labels = case.tensor("input/label").flags();
    let terms: Vec<_> =
        responses.iter().zip(labels).map(|(&r, label)| kto.of(r, label, z)).collect();
    let losses: Vec<f64> = terms.iter().map(|t| t.loss).collect();
    case.check("output/per_example", &losses);
    check_mean_loss(case, &losses);
    let count = terms.len() as f64;
    batch.check_gradient(case, &terms.iter().map(|t| t.d_log_prob / count).collect::<Vec<_>>());
}
