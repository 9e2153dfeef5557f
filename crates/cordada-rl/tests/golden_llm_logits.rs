//! What is computed from logits of tokens: log-probabilities, entropies, KL divergences, sampling
//! filters, supervised fine-tuning and distillation, against TRL's and transformers' functions: the
//! families `logprobs`, `sft` and `distillation` of the golden data.

use cordada_nn::kernel::Isa;
use cordada_nn::softmax::softmax;
use cordada_rl::distribution::{Categorical, Distribution, FilterScratch, LogitFilter};
use cordada_rl::estimate::kl::KlEstimator;
use cordada_rl::estimate::{Whitening, completion, completion_mask};
use cordada_rl::objective::{Aggregation, BatchCounts, generalized_jsd, kl_loss, policy_gradient};
use cordada_testkit::golden::{self, Case};

#[test]
fn golden_logprobs() {
    for case in golden::llm_family("logprobs") {
        match case.name.as_str() {
            "token_logps_plain" | "token_logps_temperature" | "token_logps_large_logits" => {
                log_probs(&case);
            }
            "kl_estimators" => kl_estimators(&case),
            "kl_full" => exact_kl(&case),
            "completion_mask" => completions(&case),
            "masked_whiten" => whitening(&case),
            "logits_processors" => filters(&case),
            other => panic!("no test for the case {other}"),
        }
    }
}

fn categorical(num_tokens: usize) -> Distribution {
    Distribution::Categorical(Categorical::new(num_tokens))
}

fn log_probs(case: &Case) {
    let (logits, v) = (case.tensor("input/logits"), case.tensor("input/logits").shape[2]);
    let (tokens, upstream) =
        (&case.tensor("input/tokens").data, &case.tensor("input/upstream").data);
    let temperature = case.param("temperature");
    let filter = LogitFilter { temperature, ..LogitFilter::NONE };
    let pi = categorical(v);
    let (mut log_prob, mut entropy) = (Vec::new(), Vec::new());
    let (mut d_log_prob, mut d_entropy) =
        (vec![0.0; logits.data.len()], vec![0.0; logits.data.len()]);
    for (i, row) in logits.data.chunks_exact(v).enumerate() {
        let mut row = row.to_vec();
        filter.apply(&mut row, &[], &mut FilterScratch::default());
        let (l, h) = pi.log_prob_entropy(&row, None, &tokens[i..=i]);
        log_prob.push(l);
        entropy.push(h);
        // The logits were divided by the temperature, so their gradients are.
        let (d, coef) = (i * v..(i + 1) * v, upstream[i] / temperature);
        pi.add_score(&row, None, &tokens[i..=i], coef, &mut d_log_prob[d.clone()]);
        pi.add_entropy_gradient(&row, None, coef, &mut d_entropy[d]);
    }
    case.check("output/log_probs", &log_prob);
    case.check("output/entropy", &entropy);
    case.check("grad/log_probs/logits", &d_log_prob);
    case.check("grad/entropy/logits", &d_entropy);
}

fn kl_estimators(case: &Case) {
    let log_prob = &case.tensor("input/log_probs").data;
    let reference = &case.tensor("input/ref_log_probs").data;
    let kinds = [("k1", KlEstimator::K1), ("k2", KlEstimator::K2), ("k3", KlEstimator::K3)];
    for (name, kind) in kinds {
        let terms: Vec<_> =
            log_prob.iter().zip(reference).map(|(&p, &r)| kl_loss(kind, p, r)).collect();
        let values: Vec<f64> = terms.iter().map(|t| t.kl).collect();
        case.check(&format!("output/{name}"), &values);
        let d: Vec<f64> = terms.iter().map(|t| t.d_log_prob).collect();
        case.check(&format!("grad/{name}/log_probs"), &d);
        if kind == KlEstimator::K1 {
            case.check("output/abs", &values.iter().map(|k| k.abs()).collect::<Vec<_>>());
        }
    }
}

fn exact_kl(case: &Case) {
    let (logits, reference) = (case.tensor("input/logits"), case.tensor("input/ref_logits"));
    let v = logits.shape[2];
    let pi = categorical(v);
    let mut d = vec![0.0; logits.data.len()];
    let rows = logits.data.chunks_exact(v).zip(reference.data.chunks_exact(v));
    let kl = rows.zip(d.chunks_exact_mut(v)).map(|((p, q), d)| {
        pi.add_kl_gradient_p(p, q, None, 1.0, d);
        pi.kl(p, q, None)
    });
    let kl: Vec<f64> = kl.collect();
    case.check("output/kl", &kl);
    case.check("grad/logits", &d);
}

fn tokens(case: &Case) -> Vec<Vec<u32>> {
    let tensor = case.tensor("input/tokens");
    let row = |row: &[f64]| row.iter().map(|&token| token as u32).collect();
    tensor.data.chunks_exact(tensor.shape[1]).map(row).collect()
}

fn completions(case: &Case) {
    let eos_ids = [case.param("eos_id") as u32];
    let (mut masks, mut lengths, mut truncated) = (Vec::new(), Vec::new(), Vec::new());
    for row in tokens(case) {
        let mut mask = vec![false; row.len()];
        let got = completion_mask(&row, &eos_ids, &mut mask);
        assert_eq!(got, completion(&row, &eos_ids));
        masks.extend(mask.into_iter().map(f64::from));
        lengths.push(got.length as f64);
        truncated.push(f64::from(got.truncated));
    }
    case.check("output/mask", &masks);
    case.check("output/length", &lengths);
    case.check("output/truncated", &truncated);
}

fn whitening(case: &Case) {
    let (x, mask) = (&case.tensor("input/x").data, case.tensor("input/mask").flags());
    let [mut zero, mut kept] = [x.clone(), x.clone()];
    Whitening::ADVANTAGES.apply(&mut zero, Some(&mask));
    Whitening::REWARDS.apply(&mut kept, Some(&mask));
    case.check("output/whitened", &zero);
    case.check("output/whitened_keep_mean", &kept);
    // They differ by the mean.
    let first = mask.iter().position(|&keep| keep).expect("a token");
    case.check("output/mean", &[kept[first] - zero[first]]);
}

fn filters(case: &Case) {
    let logits = case.tensor("input/logits");
    let (v, rows) = (logits.shape[1], tokens(case));
    let none = LogitFilter::NONE;
    let filters = [
        ("temperature_0.6", LogitFilter { temperature: 0.6, ..none }),
        ("top_k_5", LogitFilter { top_k: 5, ..none }),
        ("top_p_0.8", LogitFilter { top_p: 0.8, ..none }),
        ("min_p_0.1", LogitFilter { min_p: 0.1, ..none }),
        ("repetition_1.3", LogitFilter { repetition_penalty: 1.3, ..none }),
        ("chain", LogitFilter { temperature: 0.8, top_k: 8, top_p: 0.9, ..none }),
    ];
    let mut scratch = FilterScratch::default();
    for (name, filter) in filters {
        let mut got = logits.f32();
        for (row, tokens) in got.chunks_exact_mut(v).zip(&rows) {
            filter.apply(row, tokens, &mut scratch);
        }
        if name == "chain" {
            let mut probs = got.clone();
            softmax(Isa::detect(), &got, v, &mut probs);
            let probs: Vec<f64> = probs.into_iter().map(f64::from).collect();
            case.check("output/chain_probs", &probs);
        }
        // The library writes a large negative number where ours is −∞.
        let removed = case.param("removed_value");
        let got: Vec<f64> = got
            .into_iter()
            .map(|l| if l == f32::NEG_INFINITY { removed } else { f64::from(l) })
            .collect();
        case.check(&format!("output/{name}"), &got);
    }
}

#[test]
fn golden_sft() {
    for case in golden::llm_family("sft") {
        match case.name.as_str() {
            "sft_padding"
            | "sft_completion_only"
            | "sft_one_row_all_masked"
            | "sft_num_items"
            | "sft_all_masked" => fine_tuning(&case),
            other => panic!("no test for the case {other}"),
        }
    }
}

/// Supervised fine-tuning: the policy gradient with weight 1 on given tokens.
fn fine_tuning(case: &Case) {
    let logits = case.tensor("input/logits");
    let (width, v) = (logits.shape[1], logits.shape[2]);
    let pi = categorical(v);
    // The logits at t say the label at t + 1; a negative label is none.
    let rows: Vec<Vec<(usize, f64)>> = case
        .tensor("input/labels")
        .data
        .chunks_exact(width)
        .enumerate()
        .map(|(row, labels)| {
            let labels = labels[1..].iter().enumerate().filter(|&(_, &label)| label >= 0.0);
            labels.map(|(t, &label)| (row * width + t, label)).collect()
        })
        .collect();
    let mut counts = BatchCounts::of(rows.iter().map(Vec::len));
    assert_eq!(counts.num_tokens as f64, case.param("label_tokens"));
    let labeled = counts.num_tokens;
    if let Some(given) = case.opt_param("num_items_in_batch") {
        counts.num_tokens = given as usize;
    }
    // The sequence mean leaves out rows without a label.
    let filled = BatchCounts::of(rows.iter().map(Vec::len).filter(|&length| length > 0));
    let (mut loss, mut sequence_loss, mut hits) = (0.0, 0.0, 0);
    let mut d = vec![0.0; logits.data.len()];
    for row in &rows {
        let weight: f64 = Aggregation::TokenMean.token_weight(counts, row.len());
        let of_sequence: f64 = Aggregation::SequenceMean.token_weight(filled, row.len());
        for &(i, label) in row {
            let range = i * v..(i + 1) * v;
            let logits = &logits.data[range.clone()];
            let term = policy_gradient(pi.log_prob_entropy(logits, None, &[label]).0, 1.0);
            loss -= weight * term.objective;
            sequence_loss -= of_sequence * term.objective;
            pi.add_score(logits, None, &[label], -weight * term.psi, &mut d[range]);
            let mut mode = [0.0];
            pi.mode(logits, None, &mut mode);
            hits += usize::from(mode[0] == label);
        }
    }
    case.check("output/loss", &[loss]);
    case.check("output/sequence_mean_loss", &[sequence_loss]);
    case.check("output/accuracy", &[hits as f64 / labeled.max(1) as f64]);
    case.check("grad/logits", &d);
}

#[test]
fn golden_distillation() {
    for case in golden::llm_family("distillation") {
        match case.name.as_str() {
            "gjsd_0.0" | "gjsd_0.5" | "gjsd_0.9" | "gjsd_1.0" => distillation(&case),
            other => panic!("no test for the case {other}"),
        }
    }
}

fn distillation(case: &Case) {
    let (student, teacher) =
        (case.tensor("input/student_logits"), case.tensor("input/teacher_logits"));
    let (v, temperature) = (student.shape[2], case.param("temperature"));
    let kept: Vec<bool> = case.tensor("input/labels").data.iter().map(|&l| l >= 0.0).collect();
    let count = kept.iter().filter(|&&keep| keep).count();
    let counts = BatchCounts { num_responses: student.shape[0], num_tokens: count };
    let weight: f64 = Aggregation::TokenMean.token_weight(counts, 0);
    let cooled = |row: &[f64]| row.iter().map(|l| l / temperature).collect::<Vec<_>>();
    let (mut loss, mut d) = (0.0, vec![0.0; student.data.len()]);
    let rows = student.data.chunks_exact(v).zip(teacher.data.chunks_exact(v));
    for (((student, teacher), d), keep) in rows.zip(d.chunks_exact_mut(v)).zip(kept) {
        if keep {
            let (student, teacher) = (cooled(student), cooled(teacher));
            let coef = weight / temperature;
            loss += weight * generalized_jsd(&student, &teacher, case.param("beta"), coef, d);
        }
    }
    case.check("output/loss", &[loss]);
    case.check("grad/student_logits", &d);
}
