//! A model's part of a checkpoint: its files in Hugging Face's form, and the optimizers' state.

use std::path::Path;

use cordada_env::{StateReader, StateWriter};

use crate::adapter::{self, AdapterLayout, LoraConfig};
use crate::folder::{self, StoredAs, WriteOptions};
use crate::{Error, Model};

/// Writes what a model needs to be used elsewhere: all of it, or its adapter alone.
pub(crate) fn write_files(
    folder: &Path,
    model: &Model<f32>,
    lora: Option<&(LoraConfig, AdapterLayout, String)>,
) -> Result<(), Error> {
    match (model.adapter(), lora) {
        (Some(a), Some((config, layout, base))) => {
            adapter::write(folder, config, layout, &a.theta, base, StoredAs::F32)
        }
        _ => {
            let config = model.transformer().config();
            folder::write(folder, config, &model.weights().theta, WriteOptions::default())
        }
    }
}

/// Appends what training changes besides the files' numbers: value head and optimizers, and the
/// trained parameters themselves, so that the state is complete by itself.
pub(crate) fn save_model(model: &Model<f32>, w: &mut StateWriter) {
    let theta = model.adapter().map_or(&model.weights().theta, |a| &a.theta);
    w.f32s(theta);
    w.f32s(model.value_head().map_or(&[], |v| &v.theta));
    for optimizer in model.optimizers() {
        w.u64(optimizer.steps());
        for (_, values) in optimizer.state() {
            w.f32s(values);
        }
    }
}

/// Restores what [`save_model`] wrote.
pub(crate) fn load_model(model: &mut Model<f32>, r: &mut StateReader<'_>) -> Result<(), Error> {
    let state = |e: cordada_env::StateError| Error::Setting(e.to_string());
    let (theta, value, optimizers) = model.state_mut();
    r.f32s_into(theta).map_err(state)?;
    r.f32s_into(value.unwrap_or(&mut [])).map_err(state)?;
    for optimizer in optimizers {
        let steps = r.u64().map_err(state)?;
        optimizer.set_steps(steps);
        for (_, values) in optimizer.state_mut() {
            r.f32s_into(values).map_err(state)?;
        }
    }
    model.pack();
    Ok(())
}
