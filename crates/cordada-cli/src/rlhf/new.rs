//! `cordada rlhf new`: a model to begin from.

use std::path::Path;

use cordada::lm;
use cordada::lm::folder::{self, WriteOptions};
use cordada::lm::init::init;
use cordada::lm::shape::Shape;
use cordada::lm::tokenizer::{BpeOptions, Tokenizer};
use cordada::lm::{Architecture, Layout};
use serde::Serialize;

use super::args::{NewArgs, ShapeArgs};
use super::usage;
use crate::output::{Output, grouped};
use crate::report::Failure;

pub(crate) fn run(args: &NewArgs, output: Output) -> Result<(), Failure> {
    let mut shape = shape(&args.shape)?;
    let architecture = Architecture::from(args.shape.arch);
    // Numbers that do not fit are refused before the tokenizer takes its time.
    shape.config(architecture).map_err(usage)?;
    expect_empty(&args.dir)?;
    let tokenizer = match (&args.text, &args.task) {
        (Some(path), _) => learn(path, shape.vocab_size, output)?,
        (None, Some(task)) => lm::tasks::find(task).map_err(usage)?.tokenizer()?,
        (None, None) => unreachable!("the parser requires one of both"),
    };
    shape.vocab_size = tokenizer.vocab_size();
    let mut config = shape.config(architecture).map_err(usage)?;
    config.eos_token_ids.extend(tokenizer.special_id("eos_token"));
    config.bos_token_id = tokenizer.special_id("bos_token");
    config.pad_token_id = tokenizer.special_id("pad_token");
    let theta = init(&config, args.seed);
    tokenizer.write(&args.dir)?;
    folder::write(&args.dir, &config, &theta, WriteOptions::default())?;
    tell(&args.dir, &shape, Layout::new(&config).num_params, output);
    Ok(())
}

/// The shape that size and flags give together.
pub(crate) fn shape(args: &ShapeArgs) -> Result<Shape, Failure> {
    let size = Shape::of(&args.size).map_err(usage)?.adapted(args.arch.into());
    let hidden_size = args.hidden.unwrap_or(size.hidden_size);
    let widened = if args.hidden.is_some() { 4 * hidden_size } else { size.intermediate_size };
    let heads = args.heads.unwrap_or(size.num_heads);
    let kv_heads = if args.heads.is_some() { heads } else { size.num_kv_heads };
    Ok(Shape {
        hidden_size,
        num_layers: args.layers.unwrap_or(size.num_layers),
        num_heads: heads,
        num_kv_heads: args.kv_heads.unwrap_or(kv_heads),
        intermediate_size: args.intermediate.unwrap_or(widened),
        vocab_size: args.vocab.unwrap_or(size.vocab_size),
        max_positions: args.positions.unwrap_or(size.max_positions),
        tied: size.tied,
    })
}

fn expect_empty(dir: &Path) -> Result<(), Failure> {
    let help = "choose another folder";
    match std::fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => {
            Err(Failure::failed(format!("{} exists and is not empty", dir.display()), help))
        }
        Err(_) if dir.is_file() => {
            Err(Failure::failed(format!("{} is a file, not a folder", dir.display()), help))
        }
        _ => Ok(()),
    }
}

fn learn(path: &Path, vocab_size: usize, output: Output) -> Result<Tokenizer, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        let help = "--text takes a file of UTF-8 text that the model is to know well";
        Failure::failed(format!("cannot read {}: {e}", path.display()), help)
    })?;
    let options = BpeOptions { vocab_size, special_tokens: Vec::new() };
    let tokenizer = Tokenizer::train_bpe(&[&text], &options).map_err(usage)?;
    let tokens = tokenizer.vocab_size();
    if tokens < vocab_size {
        let (path, wanted) = (path.display(), grouped(vocab_size as u64));
        output.warning(&format!(
            "{path} has words for {} tokens only, not for {wanted}; the model has that many",
            grouped(tokens as u64)
        ));
    }
    Ok(tokenizer)
}

fn tell(dir: &Path, shape: &Shape, parameters: usize, output: Output) {
    #[derive(Serialize)]
    struct Made {
        model: String,
        parameters: usize,
        vocab_size: usize,
        max_positions: usize,
    }
    let (model, s) = (dir.display().to_string(), shape);
    if output.json {
        let (vocab_size, max_positions) = (s.vocab_size, s.max_positions);
        return output.object(&Made { model, parameters, vocab_size, max_positions });
    }
    let parameters = grouped(parameters as u64);
    output.line(format!("model   {model}"));
    output.line(format!(
        "size    {parameters} parameters: {} layers of width {}, {} tokens, {} positions",
        s.num_layers, s.hidden_size, s.vocab_size, s.max_positions
    ));
}
