//! The one list of metrics: what each number means and what a bad value looks like. Documentation,
//! `cordada list metrics`, TensorBoard's descriptions and the dashboard derive from it.

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricSpec {
    /// `area/quantity`.
    pub name: &'static str,
    /// Unit of its values; `1` for a plain number.
    pub unit: &'static str,
    /// What it means.
    pub summary: &'static str,
    /// What a bad value looks like and what it means.
    pub trouble: &'static str,
    /// Whether two runs with the same seed agree on it. Only wall-clock metrics do not.
    pub deterministic: bool,
}

/// Every metric, grouped by area.
pub const METRICS: &[MetricSpec] = &[
    MetricSpec {
        name: "rollout/episode_return",
        unit: "reward",
        summary: "Mean sum of rewards, without discount, of the episodes that ended lately while \
                  the agent explored. The number that training is meant to raise.",
        trouble: "Flat from the start: nothing is learned; check the reward and the learning rate. \
                  Rises, then falls for good: the steps are too large; lower the learning rate.",
        deterministic: true,
    },
    MetricSpec {
        name: "rollout/episode_length",
        unit: "steps",
        summary: "Mean number of steps of the episodes that ended lately.",
        trouble: "Always at the time limit where the task should end earlier: the agent avoids the \
                  goal or never finds it. Very short where long life is rewarded: it fails at once.",
        deterministic: true,
    },
    MetricSpec {
        name: "rollout/episodes",
        unit: "episodes",
        summary: "Number of episodes that ended in this iteration.",
        trouble: "Stays at 0: no episode ends, so there is no return to show; episodes are \
                  longer than the data of one iteration, or the environment never ends one.",
        deterministic: true,
    },
    MetricSpec {
        name: "rollout/reward_mean",
        unit: "reward",
        summary: "Mean reward of one step in the data of this iteration, as the environment gave it.",
        trouble: "Always exactly 0: the reward is so rare that there is nothing to learn from. \
                  Huge (beyond 1000): scale or normalize the reward.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/policy_loss",
        unit: "1",
        summary: "The clipped objective of the policy with its sign turned, averaged over the \
                  minibatches of this iteration. Its size says little: it starts anew from about 0 \
                  in each iteration.",
        trouble: "Far from 0 (beyond 0.5 with normalized advantages): the policy moves very far \
                  within one iteration; compare train/approx_kl.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/value_loss",
        unit: "reward²",
        summary: "Half the mean squared error of the value function against the returns. It may rise while \
                  the returns rise, because there is more to predict.",
        trouble: "Keeps growing while the returns do not: the value function diverges; lower the \
                  learning rate or normalize the rewards.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/entropy",
        unit: "nats",
        summary: "How random the policy is, averaged over states. For n discrete actions it starts \
                  near ln n and falls as the agent becomes sure; for continuous actions it can be \
                  negative.",
        trouble: "Near its lowest value within the first iterations while the return is still low: \
                  the agent stopped exploring; raise entropy_coef. Never falls: no action is better \
                  than another to it; the learning rate or the reward is too small.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/approx_kl",
        unit: "nats",
        summary: "How far the policy moved: an estimate of the divergence between the policy that \
                  collected the data and the current one, averaged over the iteration's \
                  minibatches, each before its step.",
        trouble: "Often above 0.05: the steps are too large; lower the learning rate, clip_eps or \
                  the number of epochs, or set target_kl. Always below 0.0001: the policy hardly moves.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/clip_fraction",
        unit: "1",
        summary: "Share of the samples, from 0 to 1, whose probability changed by more than \
                  clip_eps: those that the clip may hold back.",
        trouble: "Above 0.3: most of the update is thrown away by the clip; the steps are too \
                  large. Always 0: the clip does nothing; the steps could be larger.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/explained_variance",
        unit: "1",
        summary: "How much of the variation of the returns the value function foresees: 1 is \
                  perfect, 0 no better than a constant, below 0 worse than that.",
        trouble: "Still below 0 after the first tenth of the run: the value function misleads the \
                  policy; give it a higher learning rate, more capacity, or normalized observations.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/grad_norm",
        unit: "1",
        summary: "Length of the gradient before it is cut to max_grad_norm, averaged over the \
                  minibatches.",
        trouble: "Always far above max_grad_norm: every step is cut, so the learning rate no longer \
                  means what it says. Sudden peaks: outliers in the rewards or observations.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/learning_rate",
        unit: "1",
        summary: "The optimizer's step size in this iteration, after its schedule.",
        trouble: "Reaches 0 long before the end: the schedule was made for fewer steps than the run \
                  has.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/clip_eps",
        unit: "1",
        summary: "The clip range in this iteration, after its schedule: a probability may change \
                  by this share before its gradient is cut off.",
        trouble: "Reaches 0 long before the end: from then on nothing is learned.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/kl_coef",
        unit: "1",
        summary: "Weight of the KL penalty in this iteration (only with the penalty objective). It \
                  doubles when the policy moved too far and halves when it moved too little.",
        trouble: "Grows without end: the policy keeps moving farther than target_kl allows; lower \
                  the learning rate. Shrinks to 0: target_kl is larger than the policy ever moves.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/std",
        unit: "action",
        summary: "Mean standard deviation of the actions (only with continuous actions): how \
                  widely the agent tries around its preferred action.",
        trouble: "Grows without end: the bonus for entropy outweighs the reward; lower \
                  entropy_coef. Near 0 early: the agent stopped exploring.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/epochs",
        unit: "epochs",
        summary: "Passes over the data of this iteration that were made before target_kl stopped \
                  them.",
        trouble: "Often 1 where more are set: most of each iteration's learning is skipped; lower \
                  the learning rate.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/value_mean",
        unit: "reward",
        summary: "Mean value that the value function gives to the states of this iteration: the \
                  discounted return that it expects from there on.",
        trouble: "Far above any return that occurs: the value function diverges. Still near 0 while \
                  the returns are large: it learns too slowly.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/actor_loss",
        unit: "reward",
        summary: "Minus the value that the critics give to the actor's own actions, in soft \
                  methods with the worth of their entropy (minus alpha times log-probability). \
                  It falls as the agent expects more.",
        trouble: "Falls far below minus any return that occurs: the critics overestimate; lower \
                  the learning rate, or use twin critics. Rises for good: the agent expects less \
                  and less.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/alpha",
        unit: "reward/nat",
        summary: "Temperature of a soft policy: what a nat of entropy is worth beside the reward. \
                  Where it is learned, it rises while the policy is less random than \
                  target_entropy.",
        trouble: "Grows without end: the policy cannot have the entropy that is asked for; lower \
                  target_entropy. At 0 while the return is still low: the agent stopped exploring; \
                  raise target_entropy or fix alpha.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/line_search",
        unit: "1",
        summary: "How often the policy's step was shrunk before it kept the divergence below \
                  target_kl and raised the objective; -1 if no step did, so that the policy stayed \
                  as it was (only with trust regions).",
        trouble: "Often -1: the policy stands still; raise cg_damping, or give each iteration more \
                  steps. Always near line_search_max_tries: the step is computed far too long.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/cg_residual",
        unit: "1",
        summary: "Squared length of what conjugate gradient left over of the gradient when it \
                  stopped (only with trust regions).",
        trouble: "Not far below train/grad_norm squared: the step hardly follows the natural \
                  gradient; raise cg_max_steps or cg_damping.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/cg_steps",
        unit: "steps",
        summary: "Steps of conjugate gradient, each with one product of the Fisher matrix (only \
                  with trust regions).",
        trouble: "Always 0: the gradient is shorter than cg_residual_tol allows, and nothing is \
                  learned.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/epsilon",
        unit: "1",
        summary: "Share of actions that are taken at random, after its schedule.",
        trouble: "At its lowest value before any reward was found: the agent stopped exploring; \
                  stretch the schedule.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/loss",
        unit: "nats",
        summary: "Mean of minus the log-probability of the tokens to learn, in fine-tuning of a \
                  language model. The logarithm of the vocabulary's size is chance; exp of it is \
                  the perplexity.",
        trouble: "Does not fall below chance in the first steps: the learning rate is too low, or \
                  the data is not what the tokenizer was made for. Falls near 0: the answers are \
                  learned by heart; use fewer epochs.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/tokens",
        unit: "tokens",
        summary: "Tokens that were learned from in this step of fine-tuning.",
        trouble: "Varies wildly from step to step: answers of very different length share a \
                  batch; raise batch_size.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/epoch",
        unit: "epochs",
        summary: "How many times all examples have been learned from.",
        trouble: "Beyond about 3 with few examples: the model begins to know them by heart; look at \
                  the perplexity of other ones.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/objective",
        unit: "1",
        summary: "Surrogate objective of the policy in alignment, averaged over tokens, or over \
                  responses where the ratio is theirs. It starts anew from about the mean advantage \
                  in each step.",
        trouble: "Always exactly 0: no group of responses differs in its scores; see \
                  reward/no_signal.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/clip_fraction_low",
        unit: "1",
        summary: "Share of tokens (or responses) whose ratio was clipped at the lower \
                  end, where their probability was to fall.",
        trouble: "Far above the share at the upper end: the policy mostly forgets \
                  answers instead of learning better ones; lower the learning rate.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/ratio_mean",
        unit: "1",
        summary: "Mean ratio of a probability after the steps so far to that at \
                  sampling. 1 with a single gradient step per batch.",
        trouble: "Far from 1: the policy has moved away from the one that sampled; lower \
                  the learning rate or the number of epochs.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/ratio_std",
        unit: "1",
        summary: "Standard deviation of those ratios.",
        trouble: "Above about 0.5: a few tokens rule the gradient; lower the learning \
                  rate or the number of epochs.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/advantage_mean",
        unit: "1",
        summary: "Mean advantage of the tokens of this step.",
        trouble: "Far from 0 where advantages are centered: long responses are better or \
                  worse than short ones; look at response/length.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/advantage_std",
        unit: "1",
        summary: "Standard deviation of the advantages of the tokens of this step.",
        trouble: "At 0: nothing is learned from this step; see reward/no_signal.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/ratio_min",
        unit: "1",
        summary: "Smallest ratio of a token's probability after the steps so far to that at \
                  sampling.",
        trouble: "Near 0: some tokens were made all but impossible in a single step; lower the \
                  learning rate or the number of epochs.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/ratio_max",
        unit: "1",
        summary: "Largest ratio of a token's probability after the steps so far to that at \
                  sampling. 1 with a single gradient step per batch.",
        trouble: "Far above 1 + clip_high: the policy ran away from the one that sampled; lower the \
                  learning rate or the number of epochs.",
        deterministic: true,
    },
    MetricSpec {
        name: "train/sampling_mismatch",
        unit: "nats",
        summary: "Largest difference between a token's log-probability at sampling and in training, \
                  before anything has moved. The same bits give 0.",
        trouble: "Above 0: sampling and training disagree about the policy, and every ratio is \
                  wrong from the start; this is a fault of the program to be reported.",
        deterministic: true,
    },
    MetricSpec {
        name: "reward/mean",
        unit: "reward",
        summary: "Mean score of the responses of this step. The number that alignment is meant to \
                  raise.",
        trouble: "Flat from the start: nothing is learned; see reward/no_signal. Rises while answers \
                  get worse to the eye: the reward is being exploited; read samples, and raise \
                  kl_coef.",
        deterministic: true,
    },
    MetricSpec {
        name: "reward/std",
        unit: "reward",
        summary: "Standard deviation of the scores of this step's responses.",
        trouble: "At 0: all responses are worth the same, so there is nothing to learn from.",
        deterministic: true,
    },
    MetricSpec {
        name: "reward/no_signal",
        unit: "1",
        summary: "Share of prompts whose responses all have the same score. They teach nothing \
                  where a response is compared with its group.",
        trouble: "Near 1 at the start: the task is too hard or too easy for the model; mix in other \
                  prompts, fine-tune first, or raise group_size. Near 1 at the end with a high \
                  reward: the task is learned.",
        deterministic: true,
    },
    MetricSpec {
        name: "reward/replaced_prompts",
        unit: "prompts",
        summary: "Prompts without signal that were replaced by others in this step.",
        trouble: "Always resample times prompts_per_step: hardly any prompt has a signal, and most \
                  of the time goes into sampling.",
        deterministic: true,
    },
    MetricSpec {
        name: "reward/unscored",
        unit: "responses",
        summary: "Responses of this step that the reward could not score. They are left out.",
        trouble: "Above 0: look at the warnings; an external command crashed, was too slow or gave \
                  no number.",
        deterministic: true,
    },
    MetricSpec {
        name: "response/length",
        unit: "tokens",
        summary: "Mean number of tokens of the responses of this step, the end token included.",
        trouble: "Grows without end: length is being rewarded; average over tokens, or use an \
                  overlong penalty. Falls to a few tokens: short answers are cheapest under the KL; \
                  lower kl_coef.",
        deterministic: true,
    },
    MetricSpec {
        name: "response/cut",
        unit: "1",
        summary: "Share of responses that did not end by themselves before the longest length \
                  allowed.",
        trouble: "High: scores of unfinished answers mean little; raise max_new_tokens, or \
                  fine-tune on answers that end. Rises during the run: the policy no longer stops.",
        deterministic: true,
    },
    MetricSpec {
        name: "kl/token",
        unit: "nats",
        summary: "Mean over all tokens of ln π − ln π_ref, an estimate of the KL \
                  divergence to the reference for each token.",
        trouble: "Below 0 by more than its error: sampling and training disagree about \
                  the policy; see train/sampling_mismatch.",
        deterministic: true,
    },
    MetricSpec {
        name: "kl/token_k3",
        unit: "nats",
        summary: "Mean over all tokens of the estimate k3 of the KL divergence, which is \
                  never below 0 and wanders less.",
        trouble: "Far above kl/token: a few tokens have become much less likely than for \
                  the reference; look at some responses.",
        deterministic: true,
    },
    MetricSpec {
        name: "reward/minus_kl",
        unit: "reward",
        summary: "Mean score less the coefficient times the KL divergence to the \
                  reference: what is maximized where the KL is part of the reward.",
        trouble: "Falls while reward/mean rises: the policy pays more in KL than it \
                  gains; lower the learning rate.",
        deterministic: true,
    },
    MetricSpec {
        name: "kl/response",
        unit: "nats",
        summary: "Mean KL divergence of a whole response from the reference, estimated from the \
                  sampled tokens: how far the policy has moved.",
        trouble: "Shoots up within a few steps: the policy collapses onto something the reference \
                  hardly says; raise kl_coef or lower the learning rate. Below 0 beyond its error: \
                  sampling and training disagree.",
        deterministic: true,
    },
    MetricSpec {
        name: "kl/coefficient",
        unit: "reward/nat",
        summary: "Coefficient of the KL divergence to the reference, adapted where kl_target is \
                  set.",
        trouble: "Grows without end: the target cannot be held; lower the learning rate.",
        deterministic: true,
    },
    MetricSpec {
        name: "replay/size",
        unit: "transitions",
        summary: "Transitions that the replay memory holds.",
        trouble: "Stays far below buffer_size in a long run: memory is set aside for nothing.",
        deterministic: true,
    },
    MetricSpec {
        name: "eval/mean_return",
        unit: "reward",
        summary: "Mean return of the evaluation episodes, played with the policy held fixed. The \
                  number to report.",
        trouble: "Far below rollout/episode_return: the policy depends on its own randomness, or \
                  the observations are normalized differently.",
        deterministic: true,
    },
    MetricSpec {
        name: "eval/std_return",
        unit: "reward",
        summary: "Standard deviation of the return over the evaluation episodes.",
        trouble: "As large as the mean: the policy succeeds in some episodes and fails in others; \
                  use more episodes before comparing two runs.",
        deterministic: true,
    },
    MetricSpec {
        name: "eval/mean_length",
        unit: "steps",
        summary: "Mean number of steps of the evaluation episodes.",
        trouble: "At the time limit with a low return: the policy is stuck, often because its most \
                  likely action does nothing.",
        deterministic: true,
    },
    MetricSpec {
        name: "time/seconds",
        unit: "s",
        summary: "Time since this process began to train.",
        trouble: "No value is bad by itself.",
        deterministic: false,
    },
    MetricSpec {
        name: "time/steps_per_s",
        unit: "steps/s",
        summary: "Environment steps per second, over collection and update together.",
        trouble: "Falls during the run: the episodes became more costly, the machine is shared or \
                  too hot. Low from the start: a slow environment, large networks, or many epochs.",
        deterministic: false,
    },
];

/// The metric of this exact name.
pub fn find_metric(name: &str) -> Option<&'static MetricSpec> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// Whether two runs with the same seed agree on the metric `name`. A metric that is not listed
/// counts as wall-clock if its area is `time`.
pub fn is_deterministic(name: &str) -> bool {
    find_metric(name).map_or(!name.starts_with("time/"), |metric| metric.deterministic)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_have_an_area() {
        let mut seen = BTreeSet::new();
        for metric in METRICS {
            assert!(seen.insert(metric.name), "{} is listed twice", metric.name);
            let (area, quantity) = metric.name.split_once('/').expect(metric.name);
            for part in [area, quantity] {
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                assert!(!part.is_empty() && part.chars().all(plain), "{}", metric.name);
            }
        }
        assert_eq!(seen.len(), 53);
    }

    #[test]
    fn texts_are_whole_sentences() {
        for metric in METRICS {
            assert!(!metric.unit.is_empty(), "{}", metric.name);
            for text in [metric.summary, metric.trouble] {
                assert!(text.ends_with('.'), "{}: {text}", metric.name);
                assert!(text.starts_with(char::is_uppercase), "{}: {text}", metric.name);
                assert!(!text.contains("  "), "{}: {text}", metric.name);
            }
        }
    }

    #[test]
    fn only_the_clock_differs_between_runs() {
        for metric in METRICS {
            assert_eq!(metric.deterministic, !metric.name.starts_with("time/"), "{}", metric.name);
        }
        assert!(is_deterministic("train/entropy"));
        assert!(!is_deterministic("time/steps_per_s"));
        assert!(is_deterministic("mine/number"));
        assert!(!is_deterministic("time/mine"));
    }

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        assert_eq!(find_metric("train/approx_kl").map(|m| m.unit), Some("nats"));
        assert_eq!(find_metric("approx_kl"), None);
    }
}
