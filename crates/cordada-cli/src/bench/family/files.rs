//! The files: the table with what it means, both plots, and the raw numbers.

use std::fmt::Write;
use std::path::Path;

use cordada_stats::{Align, Table};
use serde_json::{Value, json};

use super::plan::Pair;
use super::run::{EPISODES, EVALUATIONS, FINAL_EPISODES};
use super::table::{self, SMOOTHED};
use super::{Done, plots, refused};
use crate::output::short;
use crate::report::Failure;

/// All that is known so far.
#[derive(Clone, Copy)]
pub(super) struct Family<'a> {
    pub(super) pairs: &'a [Pair],
    pub(super) seeds: &'a [u64],
    /// Seconds of a run where all have the same time.
    pub(super) seconds: f64,
    /// Runs at a time.
    pub(super) workers: usize,
    pub(super) runs: &'a [Done],
}

impl Family<'_> {
    /// Writes all files, over those that are there.
    pub(super) fn write(&self, out: &Path) -> Result<(), Failure> {
        let write = |name: &str, text: &str| {
            let path = out.join(name);
            std::fs::write(&path, text).map_err(|e| refused_file("write", &path, &e))
        };
        // First what cannot be made again.
        write("family.json", &format!("{:#}\n", self.json()))?;
        let mut plots = Vec::new();
        for (name, timed) in [("family-steps.svg", false), ("family-seconds.svg", true)] {
            match plots::plot(self, timed).map_err(|e| refused(&e))? {
                Some(svg) => {
                    write(name, &svg)?;
                    plots.push(name);
                }
                // One of an earlier time would not belong to this table.
                None => drop(std::fs::remove_file(out.join(name))),
            }
        }
        write("family.md", &self.markdown(&plots)?)
    }

    fn markdown(&self, plots: &[&str]) -> Result<String, Failure> {
        let mut text = String::from("# The family\n\n");
        let fits = |e: std::fmt::Error| unreachable!("a text takes all that is written: {e}");
        let (seeds, workers) = (self.seeds.len(), self.workers);
        write!(
            text,
            "Cordada {}, {seeds} seeds from {} on, {workers} runs at a time, each on one thread. \
             Settings are the preset's; where an algorithm is marked * there is none, and they are \
             the defaults.\n\n",
            env!("CARGO_PKG_VERSION"),
            self.seeds[0],
        )
        .unwrap_or_else(fits);
        write!(
            text,
            "Runs are evaluated {EVALUATIONS} times with {EPISODES} episodes each, the last time \
             with {FINAL_EPISODES}, always by the most probable action; evaluations count neither \
             as steps nor as time. Returns are interquartile means over the seeds, with 95 % \
             bootstrap intervals. \"Mean over the run\" is the area under the learning curve \
             divided by its length. \"To threshold\" is the median over the seeds of when the mean \
             of the last {SMOOTHED} evaluations first reached the threshold; – if not half of the \
             seeds did. A seed failed if its final return is below the threshold, or if it \
             diverged.\n\n"
        )
        .unwrap_or_else(fits);
        text.push_str(&self.tasks()?);
        if self.seconds > 0.0 {
            write!(
                text,
                "\nThe last four columns are those of runs with equal time: {} s of training each, \
                 up to the end of the iteration; schedules run over as many steps as the runs with \
                 equal steps would have done in that time.\n",
                self.seconds
            )
            .unwrap_or_else(fits);
        }
        text.push('\n');
        text.push_str(&table::markdown(&table::rows(self)?)?);
        for plot in plots {
            write!(text, "\n![Learning curves]({plot})\n").unwrap_or_else(fits);
        }
        Ok(text)
    }

    /// The environments.
    fn tasks(&self) -> Result<String, Failure> {
        let columns =
            [("environment", Align::Left), ("steps", Align::Right), ("threshold", Align::Right)];
        let mut table = Table::new(&columns);
        let mut last = "";
        for pair in self.pairs {
            if pair.task.env != last {
                last = pair.task.env;
                let cells = [last, &short(pair.steps as f64), &pair.task.threshold.to_string()];
                table.push(cells).map_err(|e| refused(&e))?;
            }
        }
        Ok(table.to_string())
    }

    fn json(&self) -> Value {
        let pairs = self.pairs.iter().enumerate().map(|(index, pair)| {
            let runs = self.runs.iter().filter(|run| run.pair == index).map(run);
            json!({
                "env": pair.task.env, "algo": pair.algo, "kind": pair.kind, "preset": pair.preset,
                "steps": pair.steps, "threshold": pair.task.threshold,
                "settings": pair.config.settings, "runs": runs.collect::<Vec<_>>(),
            })
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"), "seeds": self.seeds, "seconds": self.seconds,
            "workers": self.workers, "episodes": EPISODES, "final_episodes": FINAL_EPISODES,
            "pairs": pairs.collect::<Vec<_>>(),
        })
    }
}

fn run(run: &Done) -> Value {
    let t = &run.trained;
    let points = t.points.iter().map(|p| json!([p.steps, p.seconds, p.mean_return]));
    json!({
        "equal": if run.timed { "time" } else { "steps" }, "seed": run.seed, "steps": t.steps,
        "seconds": t.seconds, "final_return": t.final_return, "error": t.error,
        "points": points.collect::<Vec<_>>(),
    })
}

/// What the file system refuses.
pub(super) fn refused_file(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("cannot {what} {}: {error}", path.display());
    Failure::failed(message, "choose another folder with --out")
}
