//! Where the terminal's lines go: a line that is drawn again and again, or a log.

use std::fmt::Debug;
use std::io::Write;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// A place for one progress line and the lines above it. Failures are ignored: a terminal that went
/// away is no reason to stop a run.
pub(super) trait Screen: Debug {
    /// Shows the progress line.
    fn draw(&mut self, line: &str);

    /// Prints a line above the progress line.
    fn print(&mut self, line: &str);

    /// Ends the progress line: with a text in its place, or as it is.
    fn close(&mut self, last: Option<&str>);

    /// Width, where it is known.
    fn columns(&self) -> Option<usize>;
}

/// A line that indicatif draws.
#[derive(Debug)]
pub(super) struct LiveScreen {
    bar: ProgressBar,
    term: console::Term,
}

impl LiveScreen {
    pub(super) fn stderr() -> Self {
        // The sink limits the rate; indicatif's own limit only has to be higher.
        Self::on(ProgressDrawTarget::stderr_with_hz(50))
    }

    pub(super) fn on(target: ProgressDrawTarget) -> Self {
        let style = ProgressStyle::with_template("{msg}").expect("the template is a constant");
        // A run that ends without a word leaves the line: it shows how far the run came.
        let bar = ProgressBar::with_draw_target(None, target)
            .with_style(style)
            .with_finish(ProgressFinish::Abandon);
        Self { bar, term: console::Term::stderr() }
    }
}

impl Screen for LiveScreen {
    fn draw(&mut self, line: &str) {
        self.bar.set_message(line.to_owned());
    }

    fn print(&mut self, line: &str) {
        self.bar.println(line);
    }

    fn close(&mut self, last: Option<&str>) {
        match last {
            Some(text) => {
                self.bar.println(text);
                self.bar.finish_and_clear();
            }
            None => self.bar.abandon(),
        }
    }

    fn columns(&self) -> Option<usize> {
        self.term.size_checked().map(|(_, columns)| usize::from(columns))
    }
}

/// A log.
pub(super) struct PlainScreen<W>(W);

impl<W: Write> PlainScreen<W> {
    pub(super) fn new(output: W) -> Self {
        Self(output)
    }
}

impl<W> Debug for PlainScreen<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlainScreen")
    }
}

impl<W: Write> Screen for PlainScreen<W> {
    fn draw(&mut self, line: &str) {
        self.print(line);
    }

    fn print(&mut self, line: &str) {
        let _ = writeln!(self.0, "{line}").and_then(|()| self.0.flush());
    }

    fn close(&mut self, last: Option<&str>) {
        if let Some(text) = last {
            self.print(text);
        }
    }

    fn columns(&self) -> Option<usize> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// What was written, in order.
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

    /// A terminal of 80 columns that keeps what is written to it.
    impl TermLike for Recorder {
        fn width(&self) -> u16 {
            80
        }

        fn move_cursor_up(&self, lines: usize) -> std::io::Result<()> {
            if lines > 0 {
                self.add("up", &lines.to_string());
            }
            Ok(())
        }

        fn move_cursor_down(&self, _lines: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _columns: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _columns: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> std::io::Result<()> {
            self.add("line", text.trim_end());
            Ok(())
        }

        fn write_str(&self, text: &str) -> std::io::Result<()> {
            if !text.trim().is_empty() {
                self.add("text", text.trim_end());
            }
            Ok(())
        }

        fn clear_line(&self) -> std::io::Result<()> {
            self.add("clear", "");
            Ok(())
        }

        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_is_plain_text() {
        let output = Arc::new(Mutex::new(Vec::new()));
        let mut screen = PlainScreen::new(Shared(output.clone()));
        screen.print("a");
        screen.draw("b");
        screen.close(None);
        screen.close(Some("c"));
        assert_eq!(*output.lock().unwrap(), b"a\nb\nc\n");
    }

    #[derive(Debug)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn texts_stand_above_the_live_line() {
        let recorder = Recorder::default();
        let target = ProgressDrawTarget::term_like(Box::new(recorder.clone()));
        let mut screen = LiveScreen::on(target);
        screen.draw("50%");
        assert_eq!(recorder.take().last().unwrap(), "text: 50%");
        screen.print("warning: look");
        let written = recorder.take();
        let text = written.iter().position(|line| line.contains("warning: look")).unwrap();
        let line = written.iter().position(|line| line.contains("50%")).unwrap();
        assert!(written[0].starts_with("clear") && text < line, "{written:?}");
        screen.close(Some("done"));
        let written = recorder.take();
        // The line is drawn below the text once more, then cleared for good.
        let last = written.iter().rposition(|line| line.starts_with("clear")).unwrap();
        assert!(written.iter().any(|line| line.contains("done")), "{written:?}");
        assert!(written[last..].iter().all(|line| !line.contains("50%")), "{written:?}");
    }
}
