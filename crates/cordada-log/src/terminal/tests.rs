//! Exact texts of what the terminal shows, and when it shows them.

use std::sync::{Arc, Mutex};

use super::format::width;
use super::*;

const LOOK: Look = Look { symbols: UNICODE, color: false, drawings: true };

/// What a screen was told, in order.
#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn add(&self, kind: &str, text: &str) {
        self.0.lock().unwrap().push(format!("{kind}: {text}"));
    }
}

impl Screen for Recorder {
    fn draw(&mut self, line: &str) {
        self.add("draw", line);
    }

    fn print(&mut self, line: &str) {
        self.add("print", line);
    }

    fn close(&mut self, last: Option<&str>) {
        self.add("close", last.unwrap_or_default());
    }

    fn columns(&self) -> Option<usize> {
        None
    }
}

fn options(mode: TerminalMode) -> TerminalOptions {
    TerminalOptions { mode, unicode: true, color: false, width: Some(80) }
}

fn start(total_steps: u64) -> Event {
    Event::Start {
        run: "runs/ppo-CartPole-v1-1".into(),
        algo: "ppo".into(),
        env: "CartPole-v1".into(),
        seed: 1,
        total_steps,
        threads: 2,
        version: "0.1.0".into(),
    }
}

fn metrics(step: u64, episode_return: f64) -> Event {
    Event::Metrics { step, iteration: 1, values: vec![("rollout/episode_return", episode_return)] }
}

/// 42 016 of 100 000 steps in two seconds, with returns rising from 10 to 80.
fn progress() -> Progress {
    let mut progress =
        Progress { step: 42_016, total_steps: 100_000, elapsed: 2.0, ..Progress::new() };
    for i in 1..=8 {
        progress.update(&[("rollout/episode_return", 10.0 * f64::from(i))]);
    }
    progress
}

#[test]
fn the_line_fits_its_columns() {
    let mut progress = progress();
    // 21 008 steps/s; 57 984 steps are left: 2.8 s.
    assert_eq!(
        progress_line(&progress, &LOOK, 80),
        " 42% ━━━━━━━──────────  42.0k/100k  21.0k/s  2s, 3s left  return 80.0   ▁▂▃▄▅▆▇█"
    );
    progress.update(&[("train/approx_kl", 0.0091), ("train/entropy", 0.5512)]);
    assert_eq!(
        progress_line(&progress, &LOOK, 80),
        " 42% ━━━━━━━──────────  42.0k/100k  21.0k/s  2s, 3s left  return 80.0   ▁▂▃▄▅▆▇█"
    );
    progress.eval_return = Some(500.0);
    assert_eq!(
        progress_line(&progress, &LOOK, 120),
        " 42% ━━━━━━━━────────────  42.0k/100k  21.0k/s  2s, 3s left  return 80.0   ▁▂▃▄▅▆▇█  \
         eval 500.0  kl 0.009  entropy 0.551"
    );
    assert_eq!(
        progress_line(&progress, &LOOK, 46),
        " 42% ━━━━━━─────────  42.0k/100k  return 80.0"
    );
    assert_eq!(progress_line(&progress, &LOOK, 20), " 42%  42.0k/100k");
    for columns in 4..200 {
        let line = progress_line(&progress, &LOOK, columns);
        assert!(width(&line) <= columns, "{columns}: {line}");
    }
}

#[test]
fn the_line_of_a_log_is_without_drawings() {
    let mut progress = progress();
    progress.update(&[("train/approx_kl", 0.0091), ("train/entropy", 0.5512)]);
    let look = Look { symbols: ASCII, color: false, drawings: false };
    assert_eq!(
        progress_line(&progress, &look, 80),
        " 42%  42.0k/100k  21.0k/s  2s, 3s left  return 80.0   kl 0.009  entropy 0.551"
    );
    // Without a known length there is no share, no bar and no time left.
    let endless = Progress { total_steps: 0, ..progress };
    assert_eq!(
        progress_line(&endless, &LOOK, 80),
        "42.0k steps  21.0k/s  2s  return 80.0   ▁▂▃▄▅▆▇█  kl 0.009  entropy 0.551"
    );
}

#[test]
fn stages_of_language_models_show_their_own_numbers() {
    let mut progress = Progress { step: 10, total_steps: 40, elapsed: 5.0, ..Progress::new() };
    let values = [
        ("reward/mean", 0.5),
        ("response/length", 11.0),
        ("train/entropy", 0.25),
        ("train/approx_kl", 0.001),
        ("kl/response", 0.75),
    ];
    progress.update(&values);
    let look = Look { symbols: ASCII, color: false, drawings: false };
    // 2 steps/s; 30 are left.
    assert_eq!(
        progress_line(&progress, &look, 80),
        " 25%     10/40      2/s  5s, 15s left  reward 0.500  length 11.0   kl 0.750"
    );
    progress.update(&[("reward/mean", 0.75)]);
    assert_eq!(
        closing(&progress, (5.0, 2.0), &look, 80),
        "done: 10 steps in 5.0s (2/s), reward 0.500 -> 0.750 _#"
    );
    progress.update(&[("train/loss", 1.5)]);
    assert!(progress_line(&progress, &look, 80).contains("loss 1.50"));
}

#[test]
fn colors_change_nothing_but_the_color() {
    let colored = Look { color: true, ..LOOK };
    let line = progress_line(&progress(), &colored, 80);
    assert!(line.starts_with(" 42% \x1b[36m━━━━━━━──────────\x1b[0m  42.0k/100k  "), "{line}");
    assert!(line.ends_with("\x1b[1mreturn 80.0 \x1b[0m  \x1b[32m▁▂▃▄▅▆▇█\x1b[0m"), "{line}");
    let bare = console::strip_ansi_codes(&line);
    assert_eq!(bare, progress_line(&progress(), &LOOK, 80));
}

#[test]
fn a_resumed_run_counts_its_own_steps_only() {
    let mut progress = progress();
    // 16 steps in two seconds: 57 984 steps take 7 248 s more: 2 h and 48 s.
    progress.first_step = 42_000;
    let line = progress_line(&progress, &LOOK, 80);
    assert!(line.contains("  42.0k/100k      8/s  2s, 2h00m left  "), "{line}");
    // Before the first step there is no speed.
    progress.first_step = 42_016;
    let line = progress_line(&progress, &LOOK, 80);
    assert!(line.contains("  42.0k/100k  2s  return"), "{line}");
}

#[test]
fn percents_are_exact() {
    let percent = |step, total_steps| Progress { step, total_steps, ..Progress::new() }.percent();
    // 0.29 · 100 is 28.999… in floating point.
    assert_eq!(percent(29, 100), 29);
    assert_eq!(percent(99_999, 100_000), 99);
    assert_eq!(percent(100_001, 100_000), 100);
    assert_eq!(percent(u64::MAX - 1, u64::MAX), 99);
    assert_eq!(percent(5, 0), 0);
}

#[test]
fn returns_that_are_not_numbers_are_not_shown() {
    let mut progress = progress();
    progress.update(&[("rollout/episode_return", f64::NAN), ("rollout/reward_mean", 7.0)]);
    assert_eq!(progress.merit, Some(80.0));
    assert_eq!(progress.merits.shrink(8).len(), 8);
}

#[test]
fn the_first_and_the_last_line_are_exact() {
    assert_eq!(
        opening(&start(100_000), &LOOK, 80),
        ["ppo on CartPole-v1: 100k steps, seed 1, 2 threads → runs/ppo-CartPole-v1-1"]
    );
    assert_eq!(
        opening(&start(100_000), &LOOK, 60),
        ["ppo on CartPole-v1: 100k steps, seed 1, 2 threads", "→ runs/ppo-CartPole-v1-1"]
    );
    let mut progress = progress();
    assert_eq!(
        closing(&progress, (4.72, 21_186.0), &LOOK, 80),
        "done: 42.0k steps in 4.7s (21.2k/s), return 10.0 → 80.0 ▁▂▃▄▅▆▇█"
    );
    progress.eval_return = Some(500.0);
    let close = |seconds, columns| closing(&progress, (seconds, 21_186.0), &LOOK, columns);
    assert_eq!(
        close(65.0, 80),
        "done: 42.0k steps in 1m05s (21.2k/s), return 10.0 → 80.0 ▁▂▃▄▅▆▇█, eval 500.0"
    );
    assert_eq!(
        close(65.0, 75),
        "done: 42.0k steps in 1m05s (21.2k/s), return 10.0 → 80.0, eval 500.0"
    );
    assert_eq!(close(65.0, 60), "done: 42.0k steps in 1m05s (21.2k/s), eval 500.0");
    assert_eq!(close(65.0, 30), "done: 42.0k steps in 1m05s (2…");
}

#[test]
fn a_live_line_is_drawn_ten_times_a_second() {
    let recorder = Recorder::default();
    let mut sink = TerminalSink::on(Box::new(recorder.clone()), &options(TerminalMode::Live));
    let begin = Instant::now();
    sink.record_at(&start(100_000), begin);
    assert_eq!(
        recorder.take(),
        [
            "print: ppo on CartPole-v1: 100k steps, seed 1, 2 threads → runs/ppo-CartPole-v1-1",
            "draw:   0% ──────────────────────────────      0/100k  0s",
        ]
    );
    // An event every millisecond for one second.
    for i in 1..=1000 {
        sink.record_at(&metrics(i, 1.0), begin + Duration::from_millis(i));
    }
    assert_eq!(recorder.take().len(), 10);
    let later = begin + Duration::from_millis(1001);
    sink.record_at(&Event::Warning { step: 1, message: "look".into() }, later);
    sink.record_at(&Event::Checkpoint { step: 1, path: "c".into() }, later);
    sink.record_at(&Event::Note { step: 1, message: "it is so".into() }, later);
    assert_eq!(recorder.take(), ["print: warning: look", "print: it is so"]);
    sink.record_at(&Event::Failed { step: 1000, message: "m".into() }, later);
    assert_eq!(
        recorder.take(),
        [
            "draw:   1% ──────────────     1k/100k    999/s  1s, 1m39s left  return 1.00   ▅▅▅▅▅▅▅▅",
            "close: ",
        ]
    );
}

#[test]
fn a_log_has_a_line_every_ten_percent_or_ten_seconds() {
    let recorder = Recorder::default();
    let mut sink = TerminalSink::on(Box::new(recorder.clone()), &options(TerminalMode::Plain));
    let begin = Instant::now();
    sink.record_at(&start(1000), begin);
    recorder.take();
    let mut lines_after = |milliseconds: u64, steps: std::ops::RangeInclusive<u64>| {
        for step in steps {
            sink.record_at(&metrics(step, 1.0), begin + Duration::from_millis(milliseconds * step));
        }
        recorder.take()
    };
    // A millisecond a step: only the percents count.
    assert_eq!(
        lines_after(1, 1..=250),
        [
            "draw:  10%    100/1k     1k/s  0s, 1s left  return 1.00",
            "draw:  20%    200/1k     1k/s  0s, 1s left  return 1.00",
        ]
    );
    // Four seconds a step, so 251 steps took 1004 s: the lines are a tenth of that apart, 101 s,
    // and more and more: due at 1004, 1116 (a tenth of it is 111.6), 1240 s.
    let lines = lines_after(4000, 251..=299);
    let shown: Vec<&str> = lines.iter().map(|line| &line[7..20]).collect();
    assert_eq!(shown, ["25%    251/1k", "27%    279/1k"]);
}

#[test]
fn a_young_log_has_a_line_every_ten_seconds() {
    let recorder = Recorder::default();
    let mut sink = TerminalSink::on(Box::new(recorder.clone()), &options(TerminalMode::Plain));
    let begin = Instant::now();
    sink.record_at(&start(1_000_000), begin);
    sink.record_at(&Event::Resume { step: 500_000, path: "c".into() }, begin);
    assert_eq!(recorder.take()[1..], ["print: resuming at step 500k"]);
    for second in 1..=25 {
        sink.record_at(&metrics(500_000 + second, 1.0), begin + Duration::from_secs(second));
    }
    let lines = recorder.take();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("draw:  50%   500k/1M      1/s  10s, 5d18h left"), "{lines:?}");
    assert!(lines[1].starts_with("draw:  50%   500k/1M      1/s  20s, 5d18h left"), "{lines:?}");
    let done = Event::Done {
        run: "r".into(),
        steps: 1_000_000,
        seconds: 25.0,
        steps_per_s: 20_000.0,
        eval_return: Some(2.0),
    };
    sink.record_at(&done, begin);
    let last = "close: done: 1M steps in 25s (20k/s), return 1.00 → 1.00 ▅▅▅▅▅▅▅▅, eval 2.00";
    assert_eq!(recorder.take(), [last]);
}

#[test]
fn the_environment_decides() {
    let options = |terminal, variables: &[(&str, &str)]| {
        TerminalOptions::from(terminal, |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    let live = options(true, &[("TERM", "xterm"), ("LANG", "en_US.UTF-8"), ("NO_COLOR", "")]);
    let expected =
        TerminalOptions { mode: TerminalMode::Live, unicode: true, color: true, width: None };
    assert_eq!(live, expected);
    assert!(!options(true, &[("NO_COLOR", "1")]).color);
    assert_eq!(options(true, &[("TERM", "dumb")]).mode, TerminalMode::Plain);
    let piped = options(false, &[("TERM", "xterm"), ("LANG", "C.utf8")]);
    assert_eq!((piped.mode, piped.unicode, piped.color), (TerminalMode::Plain, true, false));
    // The first that is set decides, and empty counts as not set.
    assert!(!options(true, &[("LC_ALL", "C"), ("LANG", "C.UTF-8")]).unicode);
    assert!(options(true, &[("LC_ALL", ""), ("LC_CTYPE", "C.UTF-8"), ("LANG", "C")]).unicode);
}

#[test]
fn several_runs_share_one_line() {
    let recorder = Recorder::default();
    let mut sink = TerminalSink::on(Box::new(recorder.clone()), &options(TerminalMode::Live));
    sink.open("two runs", 2000);
    let begun = recorder.take();
    assert_eq!((begun.len(), begun[0].as_str()), (2, "print: two runs"));
    assert!(begun[1].starts_with("draw:   0%") && begun[1].contains("0/2k"), "{begun:?}");
    let later = Instant::now() + REDRAW;
    sink.record_at(&metrics(1000, 10.0), later);
    assert!(recorder.take()[0].starts_with("draw:  50%"));
    sink.close("done: two runs");
    assert_eq!(recorder.take(), ["close: done: two runs"]);
}
