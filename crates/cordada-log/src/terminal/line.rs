//! What the terminal shows of a run: the progress line, the opening and the closing line. Pure
//! functions of the run's state; when they are shown is decided in `terminal.rs`.

use super::format::{self, Symbols, count, duration, truncate, value, width};
use super::history::History;
use crate::Event;

/// Characters of the bar: at least, at most.
const BAR: (usize, usize) = (8, 30);
/// Characters of a sparkline.
const SPARK: usize = 8;

/// How texts look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) symbols: Symbols,
    pub(super) color: bool,
    /// Whether lines have a bar and a sparkline; lines of a log have not.
    pub(super) drawings: bool,
}

/// A color as the code that switches it on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Color(&'static str);

pub(super) const PLAIN: Color = Color("");
pub(super) const BOLD: Color = Color("1");
pub(super) const DIM: Color = Color("2");
pub(super) const GREEN: Color = Color("32");
pub(super) const YELLOW: Color = Color("33");
pub(super) const CYAN: Color = Color("36");

impl Look {
    /// The text in a color, if there are colors.
    pub(super) fn paint(&self, color: Color, text: &str) -> String {
        if self.color && !color.0.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", color.0)
        } else {
            text.to_owned()
        }
    }
}

/// The state of a run as far as the terminal shows it.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Step at which this process began; not 0 if it resumed a run.
    pub(super) first_step: u64,
    pub(super) step: u64,
    /// 0 if unknown.
    pub(super) total_steps: u64,
    /// Time since this process began. Unit: seconds.
    pub(super) elapsed: f64,
    /// The number that tells how good it is, and what it is called: `return`, for language models
    /// `reward` or `loss`.
    pub(super) merit: Option<f64>,
    pub(super) merit_name: &'static str,
    pub(super) eval_return: Option<f64>,
    /// Mean number of tokens of a response.
    pub(super) length: Option<f64>,
    pub(super) kl: Option<f64>,
    pub(super) entropy: Option<f64>,
    /// What the number of merit was.
    pub(super) merits: History,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            first_step: 0,
            step: 0,
            total_steps: 0,
            elapsed: 0.0,
            merit: None,
            merit_name: "return",
            eval_return: None,
            length: None,
            kl: None,
            entropy: None,
            merits: History::new(),
        }
    }

    /// Takes in the metrics that are shown. Algorithms name theirs `algorithm/quantity`.
    pub(super) fn update(&mut self, values: &[(&'static str, f64)]) {
        for &(name, number) in values {
            // An iteration without a finished episode has no return; the last known one stays.
            if !number.is_finite() {
                continue;
            }
            match name.split_once('/') {
                Some(("rollout", "episode_return")) => self.push(number, "return"),
                Some(("reward", "mean")) => self.push(number, "reward"),
                Some(("train", "loss")) => self.push(number, "loss"),
                Some(("response", "length")) => self.length = Some(number),
                // To the reference, which comes after that to the policy before and replaces it.
                Some((_, "approx_kl") | ("kl", "response")) => self.kl = Some(number),
                Some((_, "entropy")) => self.entropy = Some(number),
                _ => {}
            }
        }
    }

    fn push(&mut self, merit: f64, name: &'static str) {
        self.merit = Some(merit);
        self.merit_name = name;
        self.merits.push(merit);
    }

    /// Share of the run that is done, in [0, 1]; 0 if the length is unknown.
    pub(super) fn done(&self) -> f64 {
        if self.total_steps == 0 {
            return 0.0;
        }
        (self.step as f64 / self.total_steps as f64).min(1.0)
    }

    /// Whole percents that are done.
    pub(super) fn percent(&self) -> u64 {
        // In integers: 0.29 · 100 is less than 29.
        let hundredths = u128::from(self.step) * 100;
        hundredths.checked_div(u128::from(self.total_steps)).unwrap_or(0).min(100) as u64
    }

    /// Unit: steps per second. `None` until a step was made.
    fn rate(&self) -> Option<f64> {
        let steps = self.step.saturating_sub(self.first_step) as f64;
        (steps > 0.0 && self.elapsed > 0.0).then(|| steps / self.elapsed)
    }

    /// Unit: seconds.
    fn left(&self) -> Option<f64> {
        let steps = self.total_steps.checked_sub(self.step)?;
        self.rate().map(|rate| steps as f64 / rate)
    }

    fn spark(&self, look: &Look) -> String {
        format::sparkline(&self.merits.shrink(SPARK), look.symbols)
    }
}

/// A part of the progress line.
struct Piece {
    text: String,
    color: Color,
    /// Pieces with a low rank stay when space is short.
    rank: u8,
}

/// The pieces in the order in which they are shown. Numbers that change often are padded, so that
/// the line does not jump.
fn pieces(progress: &Progress, look: &Look) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut add = |rank, color, text| pieces.push(Piece { text, color, rank });
    let step = count(progress.step as f64);
    if progress.total_steps == 0 {
        add(0, PLAIN, format!("{step:>5} steps"));
    } else {
        add(0, PLAIN, format!("{step:>5}/{}", count(progress.total_steps as f64)));
    }
    if let Some(rate) = progress.rate() {
        add(3, PLAIN, format!("{:>7}", count(rate) + "/s"));
    }
    let elapsed = duration(progress.elapsed);
    match progress.left().filter(|_| progress.total_steps > 0) {
        Some(left) => add(2, PLAIN, format!("{elapsed}, {} left", duration(left))),
        None => add(2, PLAIN, elapsed),
    }
    if let Some(number) = progress.merit {
        add(1, BOLD, format!("{} {:<5}", progress.merit_name, value(number)));
        if look.drawings {
            add(4, GREEN, progress.spark(look));
        }
    }
    if let Some(number) = progress.eval_return {
        add(5, BOLD, format!("eval {:<5}", value(number)));
    }
    if let Some(number) = progress.length {
        add(6, PLAIN, format!("length {:<5}", value(number)));
    }
    if let Some(number) = progress.kl {
        add(7, DIM, format!("kl {:<5}", value(number)));
    }
    if let Some(number) = progress.entropy {
        add(8, DIM, format!("entropy {:<5}", value(number)));
    }
    pieces
}

/// The progress line: at most `columns` wide. What matters least is left out where space is short.
pub(super) fn progress_line(progress: &Progress, look: &Look, columns: usize) -> String {
    let mut line = String::new();
    let mut free = columns;
    if progress.total_steps > 0 {
        line = format!("{:>3}%", progress.percent());
        free = free.saturating_sub(width(&line));
    }
    let with_bar = look.drawings && progress.total_steps > 0;
    let reserved = if with_bar { BAR.0 + 1 } else { 0 };

    let mut shown = pieces(progress, look);
    let mut ranks: Vec<(u8, usize)> = shown.iter().map(|p| (p.rank, width(&p.text) + 2)).collect();
    ranks.sort_unstable();
    let mut kept = Vec::new();
    for (rank, needed) in ranks {
        // The step count is worth more than the bar, the bar more than all else.
        if needed + if rank == 0 { 0 } else { reserved } <= free {
            free -= needed;
            kept.push(rank);
        }
    }
    shown.retain(|piece| kept.contains(&piece.rank));

    if with_bar && free >= reserved {
        let bar = format::bar(progress.done(), (free - 1).min(BAR.1), look.symbols);
        line = format!("{line} {}", look.paint(CYAN, &bar));
    }
    for piece in shown {
        if !line.is_empty() {
            line.push_str("  ");
        }
        line.push_str(&look.paint(piece.color, &piece.text));
    }
    if look.color { line } else { truncate(line.trim_end(), columns, look.symbols) }
}

/// The opening line, from [`Event::Start`]; the run's name goes to a second line if it does not
/// fit. Empty for other events.
pub(super) fn opening(event: &Event, look: &Look, columns: usize) -> Vec<String> {
    let Event::Start { run, algo, env, seed, total_steps, threads, .. } = event else {
        return Vec::new();
    };
    let steps = count(*total_steps as f64);
    let threads = if *threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    let what = format!("{algo} on {env}: {steps} steps, seed {seed}, {threads}");
    let both = format!("{what} {} {run}", look.symbols.arrow);
    if width(&both) <= columns {
        return vec![both];
    }
    // The name is a path to copy: better wrapped than cut.
    vec![truncate(&what, columns, look.symbols), format!("{} {run}", look.symbols.arrow)]
}

/// The closing line: at most `columns` wide.
///
/// `seconds` and `steps_per_s` are those of [`Event::Done`], in its units.
pub(super) fn closing(
    progress: &Progress,
    (seconds, steps_per_s): (f64, f64),
    look: &Look,
    columns: usize,
) -> String {
    let time = if seconds < 9.95 { format!("{seconds:.1}s") } else { duration(seconds) };
    let steps = count(progress.step as f64);
    let start = format!("done: {steps} steps in {time} ({}/s)", count(steps_per_s));
    let mut course = String::new();
    let mut spark = String::new();
    if let (Some(first), Some(last)) = (progress.merits.first(), progress.merit) {
        let name = progress.merit_name;
        course = format!(", {name} {} {} {}", value(first), look.symbols.arrow, value(last));
        spark = format!(" {}", progress.spark(look));
    }
    let eval = progress.eval_return.map_or(String::new(), |r| format!(", eval {}", value(r)));
    let texts = [
        format!("{start}{course}{spark}{eval}"),
        format!("{start}{course}{eval}"),
        format!("{start}{eval}"),
    ];
    let fitting = texts.iter().find(|text| width(text) <= columns).unwrap_or(&texts[2]);
    truncate(fitting, columns, look.symbols)
}
