//! A model's files in a checkpoint, in Hugging Face's form.

use std::path::Path;

use crate::adapter::{self, AdapterLayout, LoraConfig};
use crate::folder::{self, StoredAs, WriteOptions};
use crate::{Error, LanguageModel};

/// Writes what a model needs to be used elsewhere: all of it, or its adapter alone.
pub(crate) fn write_files(
    folder: &Path,
    model: &dyn LanguageModel,
    lora: Option<&(LoraConfig, AdapterLayout, String)>,
) -> Result<(), Error> {
    match (model.adapter_theta(), lora) {
        (Some(theta), Some((config, layout, base))) => {
            adapter::write(folder, config, layout, theta, base, StoredAs::F32)
        }
        _ => folder::write(folder, model.config(), model.theta(), WriteOptions::default()),
    }
}
