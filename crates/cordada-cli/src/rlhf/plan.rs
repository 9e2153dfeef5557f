//! `cordada rlhf plan`: the memory that training or sampling will take, before anything is loaded.

use std::path::Path;

use cordada::lm::adapter::LoraConfig;
use cordada::lm::plan::{Plan, PlanOptions};
use cordada::lm::train::{LoraSettings, Method};
use cordada::lm::{ACTIVATION_LIMIT, Architecture, Layout, ModelConfig, folder};
use cordada::rl::config::Config;
use serde::Serialize;
use toml::Table;

use super::args::PlanArgs;
use super::{new, usage};
use crate::output::{Output, grouped, short};
use crate::report::Failure;

pub(crate) fn run(args: &PlanArgs, output: Output) -> Result<(), Failure> {
    let config = config(args)?;
    let method = Method::find(&args.algo).map_err(usage)?;
    let settings = method.settings(&Table::new())?;
    let lora = lora(args, &config)?;
    let sft = args.given;
    let options = PlanOptions {
        train: !args.sample_only,
        // Without its adapter, a model is its own reference.
        reference: !args.sample_only && !sft && lora.is_none() && settings.kl_coef > 0.0,
        critic: !args.sample_only && !sft && settings.has_critic(),
        lora,
        prompts: args.prompts.unwrap_or(settings.prompts_per_step),
        samples: if sft { 1 } else { args.samples.unwrap_or(settings.group_size) },
        prompt_tokens: args.prompt_tokens,
        completion_tokens: args.max_new_tokens,
        generate: !sft,
        activation_limit: ACTIVATION_LIMIT,
        threads: usize::from(args.threads),
    };
    let longest = options.prompt_tokens + options.completion_tokens;
    if longest > config.max_positions {
        let (most, help) = (config.max_positions, "lower --prompt-tokens or --max-new-tokens");
        let message = format!("{longest} tokens are more than the model's {most} positions");
        return Err(Failure::usage(message, help));
    }
    let plan = Plan::new(&config, &options).map_err(usage)?;
    tell(&plan, available(), output);
    Ok(())
}

/// The model's shape: of a folder, whose weights are not read, or of a size.
fn config(args: &PlanArgs) -> Result<ModelConfig, Failure> {
    match &args.model {
        Some(path) => Ok(folder::read_config(path)?),
        None => new::shape(&args.shape)?.config(Architecture::from(args.shape.arch)).map_err(usage),
    }
}

fn lora(args: &PlanArgs, config: &ModelConfig) -> Result<Option<LoraConfig>, Failure> {
    let Some(changes) = &args.lora else { return Ok(None) };
    let keys =
        changes.0.iter().map(|(k, v)| (k.trim_start_matches("lora.").to_string(), v.clone()));
    let settings = LoraSettings::from_table("lora", &keys.collect::<Table>())?;
    Ok(Some(settings.of(&Layout::new(config))))
}

/// Memory that programs may still take, as Linux says it.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string(Path::new("/proc/meminfo")).ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// A size in the unit that suits it.
fn size(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fits = units.iter().find(|(unit, _)| bytes >= *unit);
    fits.map_or(format!("{bytes} B"), |(unit, name)| {
        format!("{:.1} {name}", bytes as f64 / *unit as f64)
    })
}

fn tell(plan: &Plan, available: Option<u64>, output: Output) {
    #[derive(Serialize)]
    struct Row {
        part: &'static str,
        bytes: u64,
    }
    #[derive(Serialize)]
    struct Told {
        parameters: u64,
        trained: u64,
        parts: Vec<Row>,
        total_bytes: u64,
        available_bytes: Option<u64>,
    }
    let total = plan.total();
    if output.json {
        let parts = plan.parts.iter().map(|p| Row { part: p.name, bytes: p.bytes }).collect();
        return output.object(&Told {
            parameters: plan.num_params,
            trained: plan.num_trained,
            parts,
            total_bytes: total,
            available_bytes: available,
        });
    }
    let share = |bytes: u64| format!("{:.0} %", 100.0 * bytes as f64 / total as f64);
    let mut rows: Vec<Vec<String>> =
        plan.parts.iter().map(|p| vec![p.name.into(), size(p.bytes), share(p.bytes)]).collect();
    rows.push(vec!["all".into(), size(total), String::new()]);
    output.table(&["part", "memory", "share"], &rows);
    output.line("");
    output.line(format!(
        "{} parameters, {} trained",
        grouped(plan.num_params),
        if plan.num_trained == 0 { "none".into() } else { short(plan.num_trained as f64) }
    ));
    let Some(available) = available else { return };
    if total <= available {
        output.line(format!("fits: {} are available here", size(available)));
    } else {
        output.line(format!("does not fit: {} are available here. Try:", size(available)));
        if plan.num_trained == plan.num_params {
            output.line(
                "  --lora r=8           trains an adapter: no gradient and moments of the rest",
            );
        }
        output.line("  fewer --prompts or --samples, shorter --max-new-tokens, one of --threads");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_their_unit() {
        let sizes = [512, 1536, 3 << 20, 5 << 30, 3 << 40].map(size);
        assert_eq!(sizes, ["512 B", "1.5 KiB", "3.0 MiB", "5.0 GiB", "3.0 TiB"]);
    }
}
