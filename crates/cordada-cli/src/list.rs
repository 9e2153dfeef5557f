//! `cordada list`: the registries, as tables or as JSON.

use cordada::env::ENVIRONMENTS;
use cordada::lm::reward::{TERMS, Text};
use cordada::lm::tasks::TASKS;
use cordada::lm::train::{
    AlignSettings, LoraSettings, METHODS, Method, SftSettings, StageSettings,
};
use cordada::log::METRICS;
use cordada::rl::algo::{self, ALGORITHMS, ANY_OBS, Resume};
use cordada::rl::config::{Config, Field};
use cordada::rl::presets::{PRESETS, Preset, preset};
use cordada::rl::train::RunSettings;
use serde::Serialize;
use serde_json::json;
use toml::{Table, Value};

use crate::args::ListCommand;
use crate::output::{Output, short, wrap};
use crate::report::Failure;

pub(crate) fn run(what: &ListCommand, output: Output) -> Result<(), Failure> {
    match what {
        ListCommand::Algos { markdown } => algos(*markdown, output),
        ListCommand::Envs => envs(output),
        ListCommand::Metrics => metrics(output),
        ListCommand::Presets => presets(output)?,
        ListCommand::Methods => methods(output),
        ListCommand::Rewards => rewards(output),
        ListCommand::Tasks => tasks(output),
        ListCommand::Settings { algo, method } => {
            settings_of(algo, method.as_deref(), output)?;
        }
    }
    Ok(())
}

/// The settings of an algorithm, of a method, or of a section of a config.
fn settings_of(name: &str, method: Option<&str>, output: Output) -> Result<(), Failure> {
    fn of<C: Config>(section: &str, defaults: &C, output: Output) {
        settings(section, C::FIELDS, &defaults.to_table(), output);
    }
    let end = |run: &str| {
        if !output.json {
            output.line(format!(
                "\nChange one with --set key=value; `cordada list settings {run}` lists those of the run."
            ));
        }
    };
    if name != "align" && method.is_some() {
        return Err(Failure::usage(
            "only align has methods",
            "write `cordada list settings align METHOD`",
        ));
    }
    match name {
        "run" => of("run", &RunSettings::default(), output),
        "stage" => of("run", &StageSettings::default(), output),
        "lora" => of("lora", &LoraSettings::default(), output),
        "sft" => {
            of("sft", &SftSettings::default(), output);
            end("stage");
        }
        "align" => {
            let method = Method::find(method.unwrap_or("grpo")).map_err(crate::rlhf::usage)?;
            of("align", &method.settings(&Table::new())?, output);
            end("stage");
        }
        name => match algo::find(name) {
            Ok(spec) => {
                settings(spec.name, spec.fields, &(spec.complete)(&Table::new())?, output);
                end("run");
            }
            Err(error) => {
                // Methods that are no algorithm's namesakes need no `align` before them.
                let Ok(method) = Method::find(name) else { return Err(error.into()) };
                let defaults: AlignSettings = method.settings(&Table::new())?;
                of("align", &defaults, output);
                end("stage");
            }
        },
    }
    Ok(())
}

fn methods(output: Output) {
    if output.json {
        let list =
            METHODS.iter().map(|m| json!({ "name": m.name, "title": m.title, "paper": m.paper }));
        return output.object(&list.collect::<Vec<_>>());
    }
    let rows = METHODS
        .iter()
        .map(|m| vec![m.name.to_string(), m.paper.to_string(), format!("{}.", capital(m.title))]);
    output.table(&["name", "source", "what"], &rows.collect::<Vec<_>>());
    output.note("each is a set of values of the same settings: `cordada list settings align NAME`");
}

/// The text with a capital at its beginning.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

fn rewards(output: Output) {
    let text = |text: Text| match text {
        Text::None => None,
        Text::Required(what) => Some(what),
    };
    if output.json {
        let list = TERMS.iter().map(|t| {
            let options = t.options.iter().map(|(key, doc)| json!({ "name": key, "doc": doc }));
            json!({
                "name": t.name, "about": t.about, "text": text(t.text), "example": t.example,
                "options": options.collect::<Vec<_>>(),
            })
        });
        return output.object(&list.collect::<Vec<_>>());
    }
    for term in TERMS {
        output.line(output.bold(term.name));
        paragraph(output, &format!("{}.", capital(term.about)));
        for (key, doc) in term.options {
            paragraph(output, &format!("{key}: {doc}."));
        }
        paragraph(output, &format!("--reward '{}'", term.example));
    }
    output.note("each takes weight=W; several --reward are added");
}

fn tasks(output: Output) {
    if output.json {
        let list = TASKS.iter().map(|t| {
            json!({ "name": t.name(), "about": t.about(), "max_new_tokens": t.max_new_tokens() })
        });
        return output.object(&list.collect::<Vec<_>>());
    }
    let row = |t: &&dyn cordada::lm::tasks::Task| {
        vec![
            t.name().to_string(),
            t.max_new_tokens().to_string(),
            format!("{}.", capital(t.about())),
        ]
    };
    output.table(&["name", "longest answer", "what"], &TASKS.iter().map(row).collect::<Vec<_>>());
}

fn algos(markdown: bool, output: Output) {
    if markdown {
        return output.line(algo::markdown().trim_end());
    }
    if output.json {
        let list = ALGORITHMS.iter().map(|a| {
            json!({
                "name": a.name, "title": a.title, "paper": a.paper, "on_policy": a.on_policy,
                "accepts": a.accepts, "observes": a.observes, "recurrent": a.recurrent,
                "masks": a.masks, "resume": a.resume.words(),
            })
        });
        return output.object(&list.collect::<Vec<_>>());
    }
    let mark = |is: bool| if is { "yes" } else { "-" }.to_string();
    let rows = ALGORITHMS.iter().map(|a| {
        let sees =
            if a.observes == ANY_OBS { String::new() } else { format!(", sees {}", a.observes) };
        let resume = match a.resume {
            Resume::Exact => String::new(),
            Resume::ExactIf(setting) => format!(" Resumes exactly with {setting}."),
        };
        let what = format!("{}. {}. Acts in {}{sees}.{resume}", a.title, a.paper, a.accepts);
        let policy = if a.on_policy { "on" } else { "off" };
        vec![a.name.to_string(), policy.into(), mark(a.recurrent), mark(a.masks), what]
    });
    output.table(&["name", "policy", "memory", "masks", "what"], &rows.collect::<Vec<_>>());
    output.note(
        "policy: whether it learns only from what its current policy did (on) or from other steps too \
         (off); all resume exactly unless said otherwise",
    );
}

fn envs(output: Output) {
    if output.json {
        let list = ENVIRONMENTS.iter().map(|spec| {
            let env = spec.build();
            json!({
                "name": spec.name, "aliases": spec.aliases, "summary": spec.summary,
                "source": spec.source, "obs_space": env.obs_space().to_string(),
                "action_space": env.action_space().to_string(),
                "max_episode_steps": spec.max_episode_steps,
                "reward_threshold": spec.reward_threshold,
            })
        });
        return output.object(&list.collect::<Vec<_>>());
    }
    let rows = ENVIRONMENTS.iter().map(|spec| {
        let number = |x: Option<f64>| x.map_or("-".to_string(), |x| x.to_string());
        vec![
            spec.name.to_string(),
            number(spec.max_episode_steps.map(f64::from)),
            number(spec.reward_threshold),
            spec.summary.to_string(),
        ]
    });
    output.table(&["name", "limit", "solved", "task"], &rows.collect::<Vec<_>>());
    output.note("limit: steps of an episode; solved: mean return that counts as solved");
}

fn metrics(output: Output) {
    if output.json {
        let list = METRICS.iter().map(|m| {
            json!({
                "name": m.name, "unit": m.unit, "summary": m.summary, "trouble": m.trouble,
                "deterministic": m.deterministic,
            })
        });
        return output.object(&list.collect::<Vec<_>>());
    }
    for metric in METRICS {
        let unit = if metric.unit == "1" { String::new() } else { format!(" ({})", metric.unit) };
        output.line(format!("{}{unit}", output.bold(metric.name)));
        paragraph(output, metric.summary);
        paragraph(output, &format!("Trouble: {}", metric.trouble));
    }
}

/// Wrapped text, indented by four columns.
fn paragraph(output: Output, text: &str) {
    for line in wrap(text, output.columns().saturating_sub(4)) {
        output.line(format!("    {line}"));
    }
}

fn presets(output: Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Row {
        algo: &'static str,
        env: &'static str,
        total_steps: Option<u64>,
        origin: String,
        settings: toml::Table,
    }
    let read = |p: &Preset| -> Result<Row, Failure> {
        let loaded = preset(p.algo, p.env)?;
        let comments = p.text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
        let origin = comments.collect::<Vec<_>>().join(" ");
        let origin = origin.strip_prefix("Origin: ").unwrap_or(&origin).to_string();
        let (total_steps, settings) = (loaded.total_steps, loaded.settings);
        Ok(Row { algo: p.algo, env: p.env, total_steps, origin, settings })
    };
    let rows: Vec<Row> = PRESETS.iter().map(read).collect::<Result<_, _>>()?;
    if output.json {
        output.object(&rows);
        return Ok(());
    }
    let rows = rows.into_iter().map(|row| {
        let steps = row.total_steps.map_or("-".into(), |n| short(n as f64));
        vec![row.algo.to_string(), row.env.to_string(), steps, row.origin]
    });
    output.table(&["algo", "env", "steps", "origin"], &rows.collect::<Vec<_>>());
    Ok(())
}

fn settings(section: &str, fields: &[Field], defaults: &Table, output: Output) {
    if output.json {
        let list = fields.iter().map(|f| {
            json!({
                "section": section, "name": f.name, "type": f.kind, "default": default_of(f, defaults),
                "aliases": f.aliases, "doc": doc_of(f),
            })
        });
        return output.object(&list.collect::<Vec<_>>());
    }
    let rows = fields.iter().map(|f| {
        let also = match f.aliases {
            [] => String::new(),
            names => format!(" (also {})", names.join(", ")),
        };
        vec![f.name.to_string(), default_of(f, defaults), format!("{}{also}", doc_of(f))]
    });
    output.table(&["setting", "default", "meaning"], &rows.collect::<Vec<_>>());
}

/// A doc comment as one text.
fn doc_of(field: &Field) -> String {
    field.doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A default as one would write it after `--set`.
fn default_of(field: &Field, defaults: &Table) -> String {
    match defaults.get(field.name) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "not set".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every default that the list shows is the default that a config gets.
    #[test]
    fn the_defaults_shown_are_those_of_the_config() {
        let algos = ALGORITHMS.iter().map(|spec| {
            let complete = (spec.complete)(&toml::Table::new()).unwrap();
            (spec.name, spec.fields, complete)
        });
        let run = RunSettings::default().to_table();
        for (section, fields, table) in algos.chain([("run", RunSettings::FIELDS, run)]) {
            for field in fields {
                let shown = default_of(field, &table);
                let Some(value) = table.get(field.name) else {
                    assert_eq!(shown, "not set", "{section}.{}", field.name);
                    continue;
                };
                let (_, read) =
                    cordada::rl::config::parse_assignment(&format!("x={shown}")).unwrap();
                let same = match (&read, value) {
                    (toml::Value::Integer(i), toml::Value::Float(f)) => *i as f64 == *f,
                    (read, value) => read == value,
                };
                assert!(same, "{section}.{}: shown {shown}, is {value}", field.name);
            }
        }
    }
}
