//! `report.html`: one page that shows a run to somebody who has only that file. It is plain HTML
//! with inline styles and drawings: no script, nothing loaded from anywhere. It is made from
//! `config.toml` and `metrics.jsonl` alone, so it can be made again at any time, also of a run
//! that was stopped, failed or is still under way. The same files give the same page.
//!
//! The curves are drawn here and not by a plotting library: `plotters` was tried and is light
//! enough (three crates, 5 s), but it draws text and colors into the picture in fixed sizes and
//! values. Here colors follow the reader's light or dark setting through CSS, and labels are text
//! of the page, legible at the width of a phone.

mod axis;
mod chart;
mod events;
mod series;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use axis::{duration, grouped, number};
use chart::Chart;
use events::{Start, Summary};
use series::Series;

use crate::run_dir::write_atomic;
use crate::{Error, METRICS, RunDir, find_metric};

/// The metric that the large chart shows, and the evaluations marked in it.
const MAIN: &str = "rollout/episode_return";
const MARKS: &str = "eval/mean_return";

/// Writes the page `report.html` of a run, atomically, and returns its path. A report that is
/// there already is replaced.
///
/// Its size does not grow with the run: curves are thinned to a few hundred points, with every
/// spike kept. Memory is bounded, too: the metrics file is read line by line.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::DiskFull`] if a file cannot be read or written;
/// [`Error::MalformedLine`] if a line of the metrics file, other than a torn last one, is not an
/// event.
///
/// # Examples
///
/// ```no_run
/// use std::path::Path;
///
/// let run = cordada_log::RunDir::open(Path::new("runs/ppo-CartPole-v1-1"))?;
/// let page = cordada_log::write_report(&run)?;
/// assert!(page.ends_with("report.html"));
/// # Ok::<(), cordada_log::Error>(())
/// ```
pub fn write_report(dir: &RunDir) -> Result<PathBuf, Error> {
    let config = dir.read_config()?;
    let summary = Summary::read(&dir.metrics_path())?;
    let name = dir.root().file_name().unwrap_or(dir.root().as_os_str()).to_string_lossy();
    let path = dir.root().join("report.html");
    write_atomic(&path, page(&summary, &config, &name).as_bytes())?;
    Ok(path)
}

fn page(summary: &Summary, config: &str, name: &str) -> String {
    let title = match &summary.start {
        Some(start) => format!("{} on {}", start.algo, start.env),
        None => name.to_owned(),
    };
    let seed = summary.start.as_ref().map_or(String::new(), |s| format!(", seed {}", s.seed));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{0}{seed}</title><style>\n{1}</style></head><body><main>\n\
         <header><h1>{0}</h1>",
        escape(&title),
        include_str!("report/style.css"),
    );
    let run = summary.start.as_ref().map_or(name, |start| &start.run);
    let _ = write!(html, "<p class=\"soft path\">Report of the run {}</p>", escape(run));
    html.push_str(&outcome(summary));
    html.push_str(&facts(summary));
    html.push_str("</header>\n");
    html.push_str(&alerts(summary));
    if summary.metrics.is_empty() {
        html.push_str(
            "<p class=\"card\">There are no metrics yet: no iteration has ended. Make the report \
             again when the run is further on.</p>\n",
        );
    } else {
        html.push_str(&charts(summary));
        html.push_str(&table(&summary.metrics));
    }
    let _ = write!(
        html,
        "<h2>Config</h2>\n<pre class=\"card\">{}</pre>\n</main></body></html>\n",
        escape(config)
    );
    html
}

/// The return at the start against that at the end, in one sentence.
fn outcome(summary: &Summary) -> String {
    let end = match summary.evaluation {
        Some((episodes, mean, std)) => format!(
            "<strong>{} ± {}</strong> <small>(mean ± standard deviation over {} evaluation \
             episodes)</small>",
            number(mean),
            number(std),
            grouped(episodes)
        ),
        None => match summary.metrics.get(MAIN) {
            Some(series) => format!(
                "<strong>{}</strong> <small>(in training; there was no evaluation)</small>",
                number(series.last)
            ),
            None => return String::new(),
        },
    };
    let first = summary.metrics.get(MAIN).and_then(|series| series.first);
    let start =
        first.map_or(String::new(), |point| format!("{} at the start → ", number(point.value)));
    format!("<p class=\"outcome\">Return {start}{end}</p>")
}

fn facts(summary: &Summary) -> String {
    let mut facts = Vec::new();
    let done = grouped(summary.steps);
    match &summary.start {
        Some(start) => facts.push(("Steps", format!("{done} of {}", grouped(start.total_steps)))),
        None => facts.push(("Steps", done)),
    }
    facts.push(("Iterations", grouped(summary.iterations)));
    facts.push(("Time", duration(summary.total_seconds())));
    if let Some(speed) = summary.steps_per_s {
        facts.push(("Speed", format!("{} steps/s", number(speed))));
    }
    if let Some(Start { seed, threads, version, .. }) = &summary.start {
        facts.push(("Seed", seed.to_string()));
        facts.push(("Threads", threads.to_string()));
        facts.push(("Version", version.clone()));
    }
    if summary.processes > 1 {
        facts.push(("Processes", grouped(summary.processes)));
    }
    let mut html = "<dl class=\"facts\">".to_owned();
    for (term, fact) in facts {
        let _ = write!(html, "<div><dt>{term}</dt><dd>{}</dd></div>", escape(&fact));
    }
    html + "</dl>"
}

/// What the reader must know before looking at a curve.
fn alerts(summary: &Summary) -> String {
    let mut html = String::new();
    if let Some((step, message)) = &summary.failed {
        let _ = writeln!(
            html,
            "<div class=\"alert bad\" role=\"alert\"><strong>The run failed</strong> at step {}: \
             {}</div>",
            grouped(*step),
            escape(message)
        );
    } else if !summary.is_done {
        html.push_str(
            "<div class=\"alert\"><strong>The run is not finished:</strong> it was stopped, or was \
             still under way when this page was made.</div>\n",
        );
    }
    if !summary.warnings.is_empty() {
        html.push_str("<div class=\"alert\"><strong>Warnings</strong><ul>");
        for (step, message) in &summary.warnings {
            let _ = write!(html, "<li>step {}: {}</li>", grouped(*step), escape(message));
        }
        if summary.more_warnings > 0 {
            let _ = write!(html, "<li>and {} more</li>", grouped(summary.more_warnings));
        }
        html.push_str("</ul></div>\n");
    }
    html
}

/// The names of the metrics that the run has: those that are listed in their order, then others.
fn names(metrics: &BTreeMap<String, Series>) -> impl Iterator<Item = &str> {
    let listed = METRICS.iter().map(|m| m.name).filter(|name| metrics.contains_key(*name));
    let others = metrics.keys().map(String::as_str).filter(|name| find_metric(name).is_none());
    listed.chain(others)
}

fn charts(summary: &Summary) -> String {
    let last_step = summary.steps as f64;
    let mut html = String::new();
    if summary.metrics.contains_key(MAIN) || summary.metrics.contains_key(MARKS) {
        let (series, marks) = (summary.metrics.get(MAIN), summary.metrics.get(MARKS));
        let chart = Chart { title: MAIN, series, marks, last_step, is_large: true };
        html.push_str("<h2>Return over environment steps</h2>\n");
        html.push_str(&figure(MAIN, &chart));
    }
    html.push_str("<h2>Metrics over environment steps</h2>\n<div class=\"grid\">\n");
    for name in names(&summary.metrics) {
        let series = &summary.metrics[name];
        // One evaluation is no curve; it is marked in the large chart and stands in the table.
        let is_lone = name.starts_with("eval/") && series.points().len() < 2;
        if name != MAIN && !is_lone {
            let series = Some(series);
            let chart = Chart { title: name, series, marks: None, last_step, is_large: false };
            html.push_str(&figure(name, &chart));
        }
    }
    html + "</div>\n"
}

/// A chart with its heading, legend and explanation.
fn figure(name: &str, chart: &Chart) -> String {
    let spec = find_metric(name);
    let last =
        chart.series.map_or(String::new(), |series| format!("last: {}", number(series.last)));
    let mut html = format!("<section class=\"card\"><h3>{} <span>{last}", escape(name));
    html.push_str(&unit(name, " "));
    html.push_str("</span></h3>");
    let mut notes = String::new();
    match chart.to_html() {
        Some((plot, is_log)) => {
            if chart.is_large {
                html.push_str(&legend(chart));
            }
            html.push_str(&plot);
            if is_log {
                notes.push_str("The vertical axis is logarithmic. ");
            }
        }
        None => html.push_str("<p class=\"soft\">It has no value that can be drawn.</p>"),
    }
    match chart.series.map_or(0, |series| series.left_out) {
        0 => {}
        1 => notes.push_str("1 value is not finite and left out."),
        count => {
            let _ = write!(notes, "{} values are not finite and left out.", grouped(count));
        }
    }
    if !notes.is_empty() {
        let _ = write!(html, "<p><small>{}</small></p>", notes.trim_end());
    }
    if let Some(spec) = spec {
        let _ = write!(
            html,
            "<p class=\"what\">{}</p><details><summary>What trouble looks like</summary>\
             <p>{}</p></details>",
            escape(spec.summary),
            escape(spec.trouble)
        );
    }
    html + "</section>\n"
}

fn legend(chart: &Chart) -> String {
    let mut html = "<div class=\"legend\">".to_owned();
    if let Some(series) = chart.series {
        let is_averaged = !series.running_mean().is_empty();
        html.push_str(if series.is_thinned() {
            "<span><i class=\"k-band\"></i>lowest to highest of neighboring iterations</span>"
        } else {
            "<span><i class=\"k-dots\"></i>iterations</span>"
        });
        if is_averaged {
            html.push_str("<span><i class=\"k-mean\"></i>running mean</span>");
        }
    }
    if chart.marks.is_some() {
        html.push_str("<span><i class=\"k-mark\"></i>evaluation</span>");
    }
    html + "</div>"
}

fn table(metrics: &BTreeMap<String, Series>) -> String {
    let mut html = "<h2>Final values</h2>\n<div class=\"card wide\"><table><thead><tr>\
                    <th scope=\"col\">metric</th><th scope=\"col\">last</th>\
                    <th scope=\"col\">lowest</th><th scope=\"col\">highest</th></tr></thead><tbody>\n"
        .to_owned();
    for name in names(metrics) {
        let series = &metrics[name];
        let (low, high) = series.range().unwrap_or((f64::NAN, f64::NAN));
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{}<small>{}</small></th><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(name),
            unit(name, " "),
            number(series.last),
            number(low),
            number(high)
        );
    }
    html + "</tbody></table></div>\n"
}

/// The unit of a metric behind `space`; nothing for a plain number.
fn unit(name: &str, space: &str) -> String {
    match find_metric(name) {
        Some(spec) if spec.unit != "1" => format!("{space}{}", escape(spec.unit)),
        _ => String::new(),
    }
}

/// Text that HTML shows as it is, also within quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
