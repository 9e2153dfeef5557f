//! Training of language models: supervised fine-tuning, and alignment by policy gradients.

mod advantage;
mod align;
mod config;
mod make;
mod method;
mod metrics;
mod reward_model;
mod sft;
mod stage;
mod state;
mod surrogate;

pub use align::{Align, AlignSetup, Prompt};
pub use config::{LoraSettings, StageConfig, StageKind, StageSettings};
pub use make::{data_notes, prepare_prompts};
pub use method::{AlignSettings, METHODS, Method};
pub use reward_model::{
    Agreement, RewardSettings, RewardTraining, agreement, response_scores, reward_head,
};
pub use sft::{Sft, SftSettings};
pub use stage::{Broken, Stage, StageFinished, StageReport, StageRun, newest_model};
