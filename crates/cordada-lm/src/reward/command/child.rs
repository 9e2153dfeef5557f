//! A program with its pipes: what is sent never waits for what is read, and it ends with its
//! owner.

use std::io::{BufReader, Error, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crate::data::lines::{LineEnd, read_line};

/// Longest line of an answer in bytes.
const MAX_LINE: usize = 1 << 20;
/// How much of the end of the program's messages is kept, in bytes.
const KEPT: usize = 1 << 10;
/// How long a program that has closed its output may take to be gone.
const GRACE: Duration = Duration::from_millis(200);

/// What came from the program.
pub(super) enum Output {
    Line(Vec<u8>),
    TooLong,
    /// Nothing came in time.
    TimedOut,
    /// Nothing will come any more.
    End,
}

/// A running program.
pub(super) struct Child {
    process: std::process::Child,
    input: Sender<Vec<u8>>,
    output: Receiver<Output>,
    messages: Arc<Mutex<Vec<u8>>>,
    /// Reads the messages.
    listener: JoinHandle<()>,
}

impl Child {
    pub(super) fn start(program: &[String]) -> Result<Self, Error> {
        let (name, arguments) = program
            .split_first()
            .ok_or_else(|| Error::new(std::io::ErrorKind::InvalidInput, "no program is named"))?;
        let mut command = Command::new(name);
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for the trainer, which then saves its state and ends the program itself.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut process = command.spawn()?;
        let (input, to_send) = channel::<Vec<u8>>();
        let (lines, output) = channel();
        let messages = Arc::new(Mutex::new(Vec::new()));
        if let Some(mut stdin) = process.stdin.take() {
            spawn(move || {
                for bytes in to_send {
                    // The program's end shows in its output.
                    if stdin.write_all(&bytes).and_then(|()| stdin.flush()).is_err() {
                        break;
                    }
                }
            });
        }
        if let Some(stdout) = process.stdout.take() {
            spawn(move || read_lines(stdout, &lines));
        }
        let stderr = process.stderr.take();
        let kept = Arc::clone(&messages);
        let listener = spawn(move || {
            if let Some(stderr) = stderr {
                keep_end(stderr, &kept);
            }
        });
        Ok(Self { process, input, output, messages, listener })
    }

    /// Sends bytes; does not wait for them to be read.
    pub(super) fn send(&self, bytes: Vec<u8>) {
        // If nobody reads any more, the output's end tells.
        let _ = self.input.send(bytes);
    }

    /// The next line.
    pub(super) fn next(&self, deadline: Instant) -> Output {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.output.recv_timeout(left) {
            Ok(output) => output,
            Err(RecvTimeoutError::Timeout) => Output::TimedOut,
            Err(RecvTimeoutError::Disconnected) => Output::End,
        }
    }

    /// How the program ended, with its last message.
    pub(super) fn post_mortem(&mut self) -> String {
        let begin = Instant::now();
        let mut status = None;
        while begin.elapsed() < GRACE && !(status.is_some() && self.listener.is_finished()) {
            status = self.process.try_wait().ok().flatten();
            sleep(Duration::from_millis(2));
        }
        let how =
            status.map_or_else(|| "closed its output".to_string(), |s| format!("ended ({s})"));
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        match String::from_utf8_lossy(&messages).trim() {
            "" => format!("the program {how} without a message"),
            text => format!("the program {how}; its last message: {text}"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may be gone already; waiting removes it from the table of processes.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read_lines(stdout: impl Read, lines: &Sender<Output>) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    loop {
        let output = match read_line(&mut reader, &mut line, MAX_LINE) {
            Ok(LineEnd::Whole) => Output::Line(std::mem::take(&mut line)),
            Ok(LineEnd::TooLong) => Output::TooLong,
            Ok(LineEnd::Input) | Err(_) => Output::End,
        };
        let last = !matches!(output, Output::Line(_));
        if lines.send(output).is_err() || last {
            return;
        }
    }
}

/// Reads all and keeps the end.
fn keep_end(mut stderr: impl Read, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stderr.read(&mut buffer) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&buffer[..n]);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
}
