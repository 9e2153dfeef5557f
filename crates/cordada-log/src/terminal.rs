//! Progress of a run on standard error: a live line where that is a terminal, plain lines
//! elsewhere. Results are not its matter: those are printed by the program, on standard output.

mod format;
mod history;
mod line;
mod screen;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use self::format::{ASCII, UNICODE};
use self::line::{GREEN, Look, Progress, YELLOW, closing, opening, progress_line};
use self::screen::{LiveScreen, PlainScreen, Screen};
use crate::{Error, Event, Sink};

/// Time between two drawings of the live line.
const REDRAW: Duration = Duration::from_millis(100);
/// Longest time between two plain lines, until the run is ten times as old.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
/// Width that is assumed where none is known. Unit: columns.
const DEFAULT_COLUMNS: usize = 80;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalMode {
    /// One line that is drawn again and again.
    Live,
    /// A line every ten percent or ten seconds, without control characters; in long runs rarer, so
    /// that a log stays short.
    Plain,
}

/// How the terminal is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TerminalOptions {
    /// A live line or a log.
    pub mode: TerminalMode,
    /// Whether there are characters beyond ASCII.
    pub unicode: bool,
    /// Whether there are colors. They never carry meaning alone.
    pub color: bool,
    /// Columns that a line may take; `None`: as many as the terminal has, 80 in plain mode.
    pub width: Option<usize>,
}

impl TerminalOptions {
    /// What suits standard error and the environment: `TERM`, `NO_COLOR`, and for Unicode the first
    /// of `LC_ALL`, `LC_CTYPE` and `LANG` that is set.
    pub fn detect() -> Self {
        Self::from(std::io::stderr().is_terminal(), |name| std::env::var(name).ok())
    }

    fn from(terminal: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let live = terminal && variable("TERM").is_none_or(|term| term != "dumb");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let unicode = locale.map_or(cfg!(windows), |locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Self {
            mode: if live { TerminalMode::Live } else { TerminalMode::Plain },
            unicode,
            color: live && set("NO_COLOR").is_none(),
            width: None,
        }
    }
}

/// Shows progress on standard error. Without this sink a run is quiet.
#[derive(Debug)]
pub struct TerminalSink {
    screen: Box<dyn Screen + Send>,
    mode: TerminalMode,
    look: Look,
    width: Option<usize>,
    progress: Progress,
    started: Instant,
    /// When a line was shown last, and the percents it showed.
    shown: Option<(Instant, u64)>,
}

impl TerminalSink {
    /// A sink that shows nothing yet.
    pub fn new(options: &TerminalOptions) -> Self {
        let screen: Box<dyn Screen + Send> = match options.mode {
            TerminalMode::Live => Box::new(LiveScreen::stderr()),
            TerminalMode::Plain => Box::new(PlainScreen::new(std::io::stderr())),
        };
        Self::on(screen, options)
    }

    fn on(screen: Box<dyn Screen + Send>, options: &TerminalOptions) -> Self {
        let look = Look {
            symbols: if options.unicode { UNICODE } else { ASCII },
            color: options.color,
            drawings: options.mode == TerminalMode::Live,
        };
        Self {
            screen,
            mode: options.mode,
            look,
            width: options.width,
            progress: Progress::new(),
            started: Instant::now(),
            shown: None,
        }
    }

    /// Begins work that no single [`Event::Start`] stands for, such as several runs at once.
    pub fn open(&mut self, text: &str, total_steps: u64) {
        self.screen.print(text);
        self.begin(total_steps, Instant::now());
    }

    /// Ends it: the text takes the place of the live line.
    pub fn close(&mut self, text: &str) {
        self.screen.close(Some(text));
    }

    fn begin(&mut self, total_steps: u64, now: Instant) {
        self.progress = Progress { total_steps, ..Progress::new() };
        self.started = now;
        // A log needs no line before anything was done; the live line shows that it runs.
        match self.mode {
            TerminalMode::Live => self.show(now),
            TerminalMode::Plain => self.shown = Some((now, 0)),
        }
    }

    fn columns(&self) -> usize {
        self.width.or_else(|| self.screen.columns()).unwrap_or(DEFAULT_COLUMNS)
    }

    /// [`Sink::record`] with the time of the event.
    fn record_at(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Start { total_steps, .. } => {
                for text in opening(event, &self.look, self.columns()) {
                    self.screen.print(&text);
                }
                self.begin(*total_steps, now);
            }
            Event::Resume { step, .. } => {
                self.progress.first_step = *step;
                self.progress.step = *step;
                let text = format!("resuming at step {}", format::count(*step as f64));
                self.screen.print(&text);
                self.shown = Some((now, self.progress.percent()));
            }
            Event::Metrics { step, values, .. } => {
                self.progress.step = *step;
                self.progress.update(values);
                if self.is_due(now) {
                    self.show(now);
                }
            }
            Event::Evaluation { mean_return, .. } => {
                self.progress.eval_return = Some(*mean_return);
            }
            Event::Note { message, .. } => self.screen.print(message),
            Event::Warning { message, .. } => {
                let text = format!("{} {message}", self.look.paint(YELLOW, "warning:"));
                self.screen.print(&text);
            }
            Event::Done { steps, seconds, steps_per_s, eval_return, .. } => {
                self.progress.step = *steps;
                self.progress.eval_return = eval_return.or(self.progress.eval_return);
                let numbers = (*seconds, *steps_per_s);
                let text = closing(&self.progress, numbers, &self.look, self.columns());
                let text = text.replacen("done:", &self.look.paint(GREEN, "done:"), 1);
                self.screen.close(Some(&text));
            }
            // The program reports the error; the line stays, to show how far the run came.
            Event::Failed { .. } => {
                self.show(now);
                self.screen.close(None);
            }
            Event::Checkpoint { .. } => {}
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let Some((last, percent)) = self.shown else {
            return true;
        };
        let waited = now.duration_since(last);
        match self.mode {
            TerminalMode::Live => waited >= REDRAW,
            TerminalMode::Plain => {
                let interval = PLAIN_INTERVAL.max(now.duration_since(self.started) / 10);
                waited >= interval || self.progress.percent() / 10 > percent / 10
            }
        }
    }

    fn show(&mut self, now: Instant) {
        self.progress.elapsed = now.duration_since(self.started).as_secs_f64();
        self.screen.draw(&progress_line(&self.progress, &self.look, self.columns()));
        self.shown = Some((now, self.progress.percent()));
    }
}

impl Sink for TerminalSink {
    /// Never fails: a terminal that went away is no reason to stop a run.
    fn record(&mut self, event: &Event) -> Result<(), Error> {
        self.record_at(event, Instant::now());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
