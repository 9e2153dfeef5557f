//! The table: what each algorithm reached in each environment, with how many steps and in how much
//! time.

use cordada::env::Stream;
use cordada_stats::{
    Align, Bootstrap, Curve, Error, Interval, Scores, Table, failure_share, table,
    time_to_threshold,
};
use serde::Serialize;

use super::files::Family;
use super::plan::{Kind, Pair};
use super::run::{Point, Trained};
use super::{Done, refused};
use crate::output::short;
use crate::report::Failure;

/// Role of the stream that draws resamples; apart from the roles of training.
pub(super) const BOOTSTRAP: u32 = 101;

/// Evaluations whose mean has to reach the threshold: a single one may have been lucky.
pub(super) const SMOOTHED: usize = 3;

/// What a curve runs over: where it ends, and the abscissa of a point.
pub(super) type Axis = (f64, fn(&Point) -> f64);

/// Steps of runs that all had the same, or seconds.
pub(super) fn axis(family: &Family<'_>, pair: &Pair, timed: bool) -> Axis {
    if timed {
        (family.seconds, |point| point.seconds)
    } else {
        (pair.steps as f64, |point| point.steps as f64)
    }
}

/// An algorithm in an environment.
#[derive(Serialize)]
pub(super) struct Row {
    bench: &'static str,
    pub(super) env: &'static str,
    pub(super) algo: &'static str,
    kind: Kind,
    /// Whether the settings are a preset's, and not the defaults.
    preset: bool,
    threshold: f64,
    /// With equal steps.
    steps: Option<Summary>,
    /// With equal time.
    time: Option<Summary>,
}

/// What all seeds say together.
#[derive(Debug, PartialEq, Serialize)]
struct Summary {
    seeds: usize,
    /// Interquartile mean of the final returns, and its 95 % bootstrap interval.
    final_return: f64,
    final_low: f64,
    final_high: f64,
    /// Interquartile mean of the mean return over the run: the area under the curve.
    mean_return: f64,
    /// Median of the steps (or, with equal time, seconds) to the threshold.
    to_threshold: Option<f64>,
    /// Means of a run.
    steps: f64,
    seconds: f64,
    steps_per_s: f64,
    /// Share of the seeds whose final return is below the threshold, or that diverged.
    failed: f64,
}

/// All rows whose runs are done, in the order of the pairs.
pub(super) fn rows(family: &Family<'_>) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for (index, pair) in family.pairs.iter().enumerate() {
        let of = |timed: bool| -> Vec<&Trained> {
            let same = |run: &&Done| run.pair == index && run.timed == timed;
            family.runs.iter().filter(same).map(|run| &run.trained).collect()
        };
        let threshold = pair.task.threshold;
        let steps = summary(&of(false), threshold, axis(family, pair, false));
        let time = summary(&of(true), threshold, axis(family, pair, true));
        let (steps, time) = (steps.map_err(|e| refused(&e))?, time.map_err(|e| refused(&e))?);
        if steps.is_some() || time.is_some() {
            let Pair { task, algo, kind, preset, .. } = *pair;
            let env = task.env;
            rows.push(Row { bench: "family", env, algo, kind, preset, threshold, steps, time });
        }
    }
    Ok(rows)
}

/// What runs of the same kind say; none if there are none.
fn summary(runs: &[&Trained], threshold: f64, axis: Axis) -> Result<Option<Summary>, Error> {
    if runs.is_empty() {
        return Ok(None);
    }
    let curves: Vec<Curve> = runs.iter().map(|run| curve(run, axis)).collect::<Result<_, _>>()?;
    let smooth: Vec<Curve> =
        curves.iter().map(|curve| curve.running_mean(SMOOTHED)).collect::<Result<_, _>>()?;
    let finals: Vec<f64> = runs.iter().map(|run| run.final_return).collect();
    let mut stream = Stream::new(0, BOOTSTRAP, 0);
    let Interval { point, low, high } =
        Bootstrap::default()
            .interval(&Scores::one_task(&finals)?, Scores::iqm, &mut |n| stream.below(n))?;
    let means: Vec<f64> =
        curves.iter().map(|curve| curve.mean_value(0.0, axis.0)).collect::<Result<_, _>>()?;
    let judged: Vec<f64> = runs
        .iter()
        .map(|run| if run.error.is_some() { f64::NAN } else { run.final_return })
        .collect();
    let n = runs.len() as f64;
    let steps: f64 = runs.iter().map(|run| run.steps as f64).sum();
    let seconds: f64 = runs.iter().map(|run| run.seconds).sum();
    Ok(Some(Summary {
        seeds: runs.len(),
        final_return: point,
        final_low: low,
        final_high: high,
        mean_return: Scores::one_task(&means)?.iqm(),
        to_threshold: time_to_threshold(&smooth, threshold)?.median(),
        steps: steps / n,
        seconds: seconds / n,
        steps_per_s: steps / seconds.max(f64::MIN_POSITIVE),
        failed: failure_share(&judged, threshold)?,
    }))
}

/// The learning curve of a run. What lies past `end`, since iterations are whole, counts there.
pub(super) fn curve(run: &Trained, (end, abscissa): Axis) -> Result<Curve, Error> {
    let points = run.points.iter().map(|point| (abscissa(point).min(end), point.mean_return));
    Curve::new(points.collect::<Vec<_>>())
}

const COLUMNS: [(&str, Align); 13] = [
    ("environment", Align::Left),
    ("algorithm", Align::Left),
    ("kind", Align::Left),
    ("final return", Align::Right),
    ("mean over the run", Align::Right),
    ("steps to threshold", Align::Right),
    ("seconds", Align::Right),
    ("steps/s", Align::Right),
    ("failed", Align::Right),
    ("final return, equal time", Align::Right),
    ("steps in that time", Align::Right),
    ("seconds to threshold", Align::Right),
    ("failed, equal time", Align::Right),
];

/// The rows as Markdown.
pub(super) fn markdown(rows: &[Row]) -> Result<String, Failure> {
    let mut table = Table::new(&COLUMNS);
    for row in rows {
        table.push(cells(row)).map_err(|e| refused(&e))?;
    }
    Ok(table.to_string())
}

fn cells(row: &Row) -> [String; 13] {
    let star = if row.preset { "" } else { " *" };
    let none = || "–".to_string();
    let of = |summary: &Option<Summary>, show: &dyn Fn(&Summary) -> String| {
        summary.as_ref().map_or_else(none, show)
    };
    let last = |s: &Summary| {
        let (point, low, high) = (s.final_return, s.final_low, s.final_high);
        table::interval(&Interval { point, low, high })
    };
    let failed = |s: &Summary| format!("{:.0} of {}", s.failed * s.seeds as f64, s.seeds);
    [
        row.env.to_string(),
        format!("{}{star}", row.algo),
        row.kind.name().to_string(),
        of(&row.steps, &last),
        of(&row.steps, &|s| table::number(s.mean_return)),
        of(&row.steps, &|s| s.to_threshold.map_or_else(none, short)),
        of(&row.steps, &|s| format!("{:.1}", s.seconds)),
        of(&row.steps, &|s| short(s.steps_per_s)),
        of(&row.steps, &failed),
        of(&row.time, &last),
        of(&row.time, &|s| short(s.steps)),
        of(&row.time, &|s| s.to_threshold.map_or_else(none, |x| format!("{x:.1}"))),
        of(&row.time, &failed),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(returns: [f64; 3], error: Option<&str>) -> Trained {
        let point =
            |k: usize| Point { steps: 500 * k as u64, seconds: k as f64, mean_return: returns[k] };
        Trained {
            steps: 1000,
            seconds: 2.0,
            points: (0..3).map(point).collect(),
            final_return: returns[2],
            error: error.map(str::to_string),
        }
    }

    #[test]
    fn a_row_sums_up_its_seeds() {
        let runs = [
            run([0.0, 10.0, 30.0], None),
            run([0.0, 20.0, 20.0], None),
            run([0.0, 22.0, 40.0], Some("the objective is NaN")),
        ];
        let runs: Vec<&Trained> = runs.iter().collect();
        let axis: Axis = (1000.0, |point| point.steps as f64);
        let s = summary(&runs, 20.0, axis).unwrap().unwrap();
        // Of three runs the interquartile mean is the mean. Resamples of the final returns 30, 20
        // and 40 reach from one end to the other with 1 in 27 each, which is more than 2.5 %.
        assert_eq!((s.final_return, s.final_low, s.final_high), (30.0, 20.0, 40.0));
        // A staircase: half the run at 0, half at 10, 20 and 22, so (5 + 10 + 11) / 3.
        assert!((s.mean_return - 26.0 / 3.0).abs() < 1e-12);
        // The means of three evaluations are 13⅓, 13⅓ and 20⅔: of never, never and 1000, no median.
        assert_eq!(s.to_threshold, None);
        let low = summary(&runs, 10.0, axis).unwrap().unwrap();
        // They reach 10 at 1000, 500 (10 of 0 and 20) and 500.
        assert_eq!(low.to_threshold, Some(500.0));
        // Of half the steps only the first evaluation is before the end.
        let half = summary(&runs, 20.0, (250.0, axis.1)).unwrap().unwrap();
        assert_eq!((half.mean_return, half.final_return), (0.0, 30.0));
        // The diverged one failed, whatever it had reached.
        assert_eq!((s.failed, s.seeds), (1.0 / 3.0, 3));
        assert_eq!((s.steps, s.seconds, s.steps_per_s), (1000.0, 2.0, 500.0));
        assert_eq!(summary(&[], 20.0, (1.0, |point| point.seconds)).unwrap(), None);
    }

    #[test]
    fn a_row_shows_its_numbers() {
        let runs = [run([0.0, 10.0, 30.0], None), run([0.0, 20.0, 10.0], None)];
        let runs: Vec<&Trained> = runs.iter().collect();
        let steps = summary(&runs, 20.0, (1000.0, |point| point.steps as f64)).unwrap();
        let row = Row {
            bench: "family",
            env: "X-v0",
            algo: "a2c",
            kind: Kind::PolicyGradient,
            preset: false,
            threshold: 20.0,
            steps,
            time: None,
        };
        assert_eq!(
            cells(&row),
            [
                "X-v0",
                "a2c *",
                "policy gradient",
                "20.0 [10.0, 30.0]",
                "7.500",
                "–",
                "2.0",
                "500",
                "1 of 2",
                "–",
                "–",
                "–",
                "–"
            ]
        );
        let text = markdown(&[row]).unwrap();
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.starts_with('|')));
    }
}
