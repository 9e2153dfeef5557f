//! How much memory training or sampling will take, part by part, from the shape alone: before
//! anything is loaded.

use crate::adapter::{AdapterLayout, LoraConfig};
use crate::batch::{Group, split};
use crate::generate::{PREFILL_ROWS, SLOTS};
use crate::head;
use crate::layout::Linear;
use crate::transformer::LayerTape;
use crate::{Error, Layout, MICRO_BATCH_ROWS, ModelConfig};

/// Bytes of a number.
const F32: u64 = 4;

/// What will be done with a model.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct PlanOptions {
    /// Whether it is trained; else it samples only.
    pub train: bool,
    /// The adapter that is trained instead of all parameters.
    pub lora: Option<LoraConfig>,
    /// Whether a second model stays frozen beside it (the reference of a full fine-tuning).
    pub reference: bool,
    /// Whether it has a value head.
    pub critic: bool,
    /// Prompts of one gradient step.
    pub prompts: usize,
    /// Completions of each prompt.
    pub samples: usize,
    /// Tokens of a prompt.
    pub prompt_tokens: usize,
    /// Tokens of a completion.
    pub completion_tokens: usize,
    /// Whether completions are sampled (and not given).
    pub generate: bool,
    /// Bytes of activations that are kept for the way back at most.
    pub activation_limit: usize,
    /// Threads.
    pub threads: usize,
}

/// A part of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it holds.
    pub name: &'static str,
    /// Its size.
    pub bytes: u64,
}

/// The parts of the memory, largest use of each. Buffers are kept between steps, so their sum is the
/// peak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order of their making.
    pub parts: Vec<Part>,
    /// Parameters of the model.
    pub num_params: u64,
    /// Parameters that are trained.
    pub num_trained: u64,
}

impl Plan {
    /// The plan for a model of this shape.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the adapter does not fit the model.
    pub fn new(config: &ModelConfig, options: &PlanOptions) -> Result<Self, Error> {
        let layout = Layout::new(config);
        let p = Planner { c: config, o: options, layout: &layout };
        let num_params = layout.num_params as u64;
        let num_trained = match (&options.lora, options.train) {
            (_, false) => 0,
            (None, true) => num_params,
            (Some(lora), true) => AdapterLayout::new(&layout, lora)?.num_params as u64,
        };
        let mut parts = vec![
            Part { name: "weights", bytes: F32 * num_params },
            Part { name: "weights, packed", bytes: p.packed(options.train) },
        ];
        let mut add = |name, bytes| {
            if bytes > 0 {
                parts.push(Part { name, bytes });
            }
        };
        if options.lora.is_some() {
            // Parameters, and both of their packed forms for both ways.
            add("adapter", F32 * num_trained * 3);
        }
        add("gradient", F32 * num_trained + p.lookups());
        add("optimizer", 2 * F32 * num_trained);
        if options.reference {
            let all = F32 * num_params + p.packed(false);
            add("reference model", all + p.activations(false) + p.head(false));
        }
        if options.critic {
            add("value head", 4 * F32 * (config.hidden_size as u64 + 1));
        }
        let recomputed = options.train && p.recomputes();
        let name = if recomputed { "activations, in part" } else { "activations" };
        add(name, p.activations(options.train));
        add("head", p.head(options.train));
        if options.generate {
            add("sampling", p.sampling());
        }
        Ok(Self { parts, num_params, num_trained })
    }

    /// All parts together.
    pub fn total(&self) -> u64 {
        self.parts.iter().map(|p| p.bytes).sum()
    }
}

struct Planner<'a> {
    c: &'a ModelConfig,
    o: &'a PlanOptions,
    layout: &'a Layout,
}

impl Planner<'_> {
    /// A packed matrix: columns are filled up to 16.
    fn panels(inputs: usize, outputs: usize) -> u64 {
        F32 * (inputs * outputs.next_multiple_of(16)) as u64
    }

    fn packed(&self, train: bool) -> u64 {
        let both = |inputs: usize, outputs: usize| {
            let back = if train { Self::panels(outputs, inputs) } else { 0 };
            Self::panels(inputs, outputs) + back
        };
        let linear = |l: &Linear| both(l.inputs, l.outputs);
        let blocks = self.layout.blocks.iter();
        blocks
            .map(|b| linear(&b.qkv) + linear(&b.output) + linear(&b.up) + linear(&b.down))
            .sum::<u64>()
            + both(self.c.hidden_size, self.c.vocab_size)
    }

    /// The groups of one gradient step.
    fn groups(&self) -> Vec<Group> {
        let o = self.o;
        let completion = vec![0; o.completion_tokens.max(1)];
        let group = Group::new(vec![0; o.prompt_tokens.max(1)], vec![completion; o.samples.max(1)]);
        vec![group; o.prompts.max(1)]
    }

    /// Rows and targets of the largest part of a batch.
    fn largest_part(&self) -> (usize, usize) {
        let groups = self.groups();
        let parts = split(&groups, MICRO_BATCH_ROWS);
        let rows = |of: fn(&Group) -> usize| {
            let sizes = parts.iter().map(|p| groups[p.clone()].iter().map(of).sum::<usize>());
            sizes.max().unwrap_or(0)
        };
        (rows(Group::num_rows), rows(Group::num_targets))
    }

    /// Numbers of one row's activations in one block.
    fn row_of_block(&self) -> usize {
        let ranks = self.o.lora.as_ref().map_or(0, |l| l.rank * l.target_modules.len());
        LayerTape::<f32>::row_len(self.c, ranks)
    }

    /// Whether blocks are computed again on the way back instead of keeping all their activations.
    fn recomputes(&self) -> bool {
        let (rows, _) = self.largest_part();
        let all = rows * self.row_of_block() * self.c.num_layers * F32 as usize;
        all > self.o.activation_limit / self.o.threads
    }

    fn activations(&self, train: bool) -> u64 {
        let (rows, targets) = self.largest_part();
        let d = self.c.hidden_size;
        // Tapes, or one tape and inputs; going back, one block's derivatives and two streams more.
        let blocks = self.c.num_layers;
        let (tapes, inputs) = match train {
            false => (1, 0),
            true if self.recomputes() => (1, blocks - 1),
            true => (blocks, 0),
        };
        let mut numbers = rows * (self.row_of_block() * tapes + d * inputs) + rows * d;
        numbers += targets * (2 * d + 1);
        if train {
            numbers += rows * (self.row_of_block() + 2 * d) + targets * d;
        }
        let longest = self.o.prompt_tokens + self.o.completion_tokens;
        let panels = if train { 7 } else { 3 } * self.c.head_dim * longest;
        let scores = if train { 2 } else { 1 } * 48 * longest.next_multiple_of(16);
        F32 * (self.o.threads * (numbers + panels + scores)) as u64
    }

    /// Derivatives of embeddings, kept until the end of a step.
    fn lookups(&self) -> u64 {
        if !self.o.train || self.o.lora.is_some() {
            return 0;
        }
        let rows: usize = self.groups().iter().map(Group::num_rows).sum();
        // A vector that grows holds up to twice what it needs; 1.5 on average.
        F32 * (rows * (self.c.hidden_size + 2)) as u64 * 3 / 2
    }

    fn head(&self, train: bool) -> u64 {
        let (_, targets) = self.largest_part();
        let parts = split(&self.groups(), MICRO_BATCH_ROWS).len().min(self.o.threads);
        let targets = targets * parts;
        let rows = head::block_rows(targets, self.c.vocab_size, self.o.threads);
        let streams = if train { 2 } else { 1 } * self.c.hidden_size;
        F32 * (rows.min(targets) * self.c.vocab_size + targets * (streams + 8)) as u64
    }

    fn sampling(&self) -> u64 {
        let (c, o) = (self.c, self.o);
        let all = o.prompts * o.samples;
        let slots = all.div_ceil(o.threads).clamp(1, SLOTS);
        let positions = (o.prompt_tokens + o.completion_tokens).min(c.max_positions);
        let cache = 2 * c.kv_width() * positions.next_multiple_of(64) * c.num_layers;
        let prompts = slots.div_ceil(o.samples.max(1));
        let prefill = (prompts * o.prompt_tokens).min(PREFILL_ROWS.max(o.prompt_tokens));
        let rows = (prefill + slots) * self.row_of_block();
        let prefill = prefill * self.row_of_block() * (c.num_layers - 1);
        F32 * (o.threads * (slots * (cache + c.vocab_size) + prefill + rows)) as u64
    }
}
