//! The plots: return over steps, and over seconds.

use cordada::env::Stream;
use cordada::rl::algo::ALGORITHMS;
use cordada_stats::{
    Aligned, Bootstrap, Center, Curve, Error, Panel, PlotOptions, Series, common_grid,
    learning_curves,
};

use super::files::Family;
use super::run::EPISODES;
use super::table::{BOOTSTRAP, axis, curve};

/// Points of a band. More than there are evaluations, since each value holds to the next one.
const GRID: usize = 101;

/// Return over steps, or over seconds where all had the same; none if no such run is done.
pub(super) fn plot(family: &Family<'_>, timed: bool) -> Result<Option<String>, Error> {
    let mut panels: Vec<Panel> = Vec::new();
    for (index, pair) in family.pairs.iter().enumerate() {
        let of_pair = family.runs.iter().filter(|run| run.pair == index && run.timed == timed);
        let axis = axis(family, pair, timed);
        let curves: Vec<Curve> =
            of_pair.map(|run| curve(&run.trained, axis)).collect::<Result<_, _>>()?;
        if curves.is_empty() {
            continue;
        }
        if panels.last().is_none_or(|panel| panel.title != pair.task.env) {
            panels.push(Panel {
                title: pair.task.env.to_string(),
                x_label: if timed { "seconds of training" } else { "environment steps" }.into(),
                y_label: "episode return".to_string(),
                series: Vec::new(),
                threshold: Some(pair.task.threshold),
            });
        }
        if let Some(panel) = panels.last_mut() {
            panel.series.push(series(pair.algo, &curves)?);
        }
    }
    if panels.is_empty() {
        return Ok(None);
    }
    let title = if timed { "Return over time" } else { "Return over steps" };
    let options = PlotOptions {
        title: title.to_string(),
        caption: caption(family, timed),
        // An algorithm looks the same in both plots, and whichever others were chosen.
        names: ALGORITHMS.iter().map(|spec| spec.name.to_string()).collect(),
        ..PlotOptions::default()
    };
    learning_curves(&panels, &options).map(Some)
}

fn series(name: &str, curves: &[Curve]) -> Result<Series, Error> {
    let aligned = Aligned::new(curves, &common_grid(curves, GRID)?)?;
    let mut stream = Stream::new(0, BOOTSTRAP, 0);
    let band =
        aligned.bootstrap_band(Center::Iqm, &Bootstrap::default(), &mut |n| stream.below(n))?;
    Ok(Series { name: name.to_string(), band, runs: Vec::new() })
}

fn caption(family: &Family<'_>, timed: bool) -> String {
    let what = if timed {
        format!("Every algorithm trained for {} s on one thread.", family.seconds)
    } else {
        "Every algorithm trained for the same number of steps.".to_string()
    };
    format!(
        "{what} Line: interquartile mean over {} seeds of the mean return of {EPISODES} episodes \
         with the most probable action; band: 95 % bootstrap interval. Each value holds until the \
         next evaluation.",
        family.seeds.len()
    )
}
