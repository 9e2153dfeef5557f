//! `cordada rlhf chat`: a conversation in the terminal, line by line, with answers that appear as
//! they are made.

use std::io::BufRead;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cordada::lm::chat::{ChatOptions, Message};
use cordada::lm::tokenizer::{Special, TokenStream};
use cordada::lm::{Completion, Finish, Request, Sampling};
use serde::Serialize;

use super::args::ChatArgs;
use super::{Reader, usage};
use crate::output::{Output, stdout_is_closed};
use crate::report::Failure;

/// Longest answer if nothing says otherwise. Unit: tokens.
const LONGEST: usize = 512;
/// Exit code of an interrupted program: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// Whether an answer is being made.
static ANSWERING: AtomicBool = AtomicBool::new(false);
/// Set by Ctrl-C: the answer ends.
static ENOUGH: AtomicBool = AtomicBool::new(false);

/// What has been said.
struct Talk {
    messages: Vec<Message>,
    system: Option<Message>,
    template: bool,
}

pub(crate) fn run(args: &ChatArgs, output: Output) -> Result<(), Failure> {
    let mut reader = Reader::open(&args.model)?;
    let sampling = reader.sampling(&args.sampling, LONGEST)?;
    let template = reader.tokenizer.chat_template().is_some();
    if args.system.is_some() && !template {
        return Err(Failure::usage(
            "--system needs a chat template, which this model's tokenizer has not",
            "leave it out: every line is then a prompt of its own",
        ));
    }
    let system = args.system.as_deref().map(|text| Message::new("system", text));
    let mut talk = Talk { messages: Vec::new(), system, template };
    watch()?;
    if !output.quiet {
        let kind = if template { "" } else { "; it has no chat template: each line stands alone" };
        output
            .note(format!("/new begins anew, /exit or Ctrl-D ends, Ctrl-C stops an answer{kind}"));
    }
    let mut line = String::new();
    for turn in 0.. {
        if output.stderr_is_terminal() {
            output.prompt("> ");
        }
        line.clear();
        let read = std::io::stdin().lock().read_line(&mut line).map_err(|e| {
            Failure::failed(format!("cannot read what you say: {e}"), "write UTF-8 text")
        })?;
        let said = line.trim_end_matches(['\n', '\r']);
        match said.trim() {
            "" if read == 0 => break,
            "" => continue,
            "/exit" => break,
            "/new" => {
                talk.messages.clear();
                continue;
            }
            _ => {}
        }
        answer(&mut reader, &mut talk, said, &sampling, (args, turn), output)?;
        if stdout_is_closed() {
            break;
        }
    }
    Ok(())
}

/// Ctrl-C ends the answer under way, or the program if there is none.
fn watch() -> Result<(), Failure> {
    let handler = || {
        if !ANSWERING.load(Ordering::Relaxed) || ENOUGH.swap(true, Ordering::Relaxed) {
            #[allow(clippy::exit, reason = "the main thread waits for a line that does not come")]
            std::process::exit(INTERRUPTED);
        }
    };
    ctrlc::set_handler(handler).map_err(|e| {
        Failure::failed(format!("cannot watch for Ctrl-C: {e}"), "run the program from a terminal")
    })
}

/// One answer, printed as it is made.
fn answer(
    reader: &mut Reader,
    talk: &mut Talk,
    said: &str,
    sampling: &Sampling,
    (args, turn): (&ChatArgs, u32),
    output: Output,
) -> Result<(), Failure> {
    let prompt = talk.ask(reader, said, output)?;
    let Reader { model, tokenizer, .. } = reader;
    let written = Mutex::new(Writing {
        stream: tokenizer.stream(Special::Skip),
        text: String::new(),
        tokens: 0,
        output,
    });
    let stop = |tokens: &[u32]| {
        let mut writing = written.lock().expect("one thread writes");
        writing.take(tokens);
        let ended = args.sampling.stop.iter().any(|s| writing.text.contains(s));
        ended || ENOUGH.load(Ordering::Relaxed) || stdout_is_closed()
    };
    let request = Request { prompt, samples: 1, stream: turn };
    ANSWERING.store(true, Ordering::Relaxed);
    let completions = model.generate(&[request], sampling, args.sampling.seed, Some(&stop));
    ANSWERING.store(false, Ordering::Relaxed);
    let stopped = ENOUGH.swap(false, Ordering::Relaxed);
    let completion = completions.map_err(usage)?.remove(0).remove(0);
    let text = written.into_inner().expect("one thread writes").finish();
    tell(&completion, &text, stopped, output);
    if talk.template {
        talk.messages.push(Message::new("assistant", &text));
    }
    Ok(())
}

fn tell(completion: &Completion<f32>, text: &str, stopped: bool, output: Output) {
    #[derive(Serialize)]
    struct Line<'a> {
        text: &'a str,
        tokens: usize,
        finish: &'a str,
    }
    let finish = if stopped { "interrupt" } else { completion.finish.name() };
    if output.json {
        return output.object(&Line { text, tokens: completion.tokens.len(), finish });
    }
    output.line("");
    if !output.quiet && (stopped || matches!(completion.finish, Finish::Length | Finish::Context)) {
        output.note(format!("(ended by {finish})"));
    }
}

/// An answer that is being written.
struct Writing<'a> {
    stream: TokenStream<'a>,
    text: String,
    /// Tokens that were taken.
    tokens: usize,
    output: Output,
}

impl Writing<'_> {
    fn take(&mut self, tokens: &[u32]) {
        for &token in &tokens[self.tokens..] {
            // A token that cannot be written is seen in the whole text at the latest.
            let text = self.stream.push(token).unwrap_or_default();
            self.write(&text);
        }
        self.tokens = tokens.len();
    }

    fn write(&mut self, text: &str) {
        self.text.push_str(text);
        if !self.output.json {
            self.output.part(text);
        }
    }

    fn finish(mut self) -> String {
        let empty = self.stream.clone();
        let rest = std::mem::replace(&mut self.stream, empty).finish().unwrap_or_default();
        self.write(&rest);
        self.text
    }
}

impl Talk {
    /// The tokens of the conversation with what was said now; its oldest turns are forgotten if it
    /// is too long for the model.
    fn ask(&mut self, reader: &Reader, said: &str, output: Output) -> Result<Vec<u32>, Failure> {
        let positions = reader.model.transformer().config().max_positions;
        if !self.template {
            return reader.tokenizer.encode(said, Special::Keep).map_err(usage);
        }
        self.messages.push(Message::new("user", said));
        let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
        let mut forgotten = 0;
        loop {
            let all: Vec<Message> = self.system.iter().chain(&self.messages).cloned().collect();
            let ids = reader.tokenizer.encode_chat(&all, &options).map_err(usage)?.ids;
            // Half of the positions are enough for an answer.
            if ids.len() <= positions / 2 || self.messages.len() < 3 {
                if forgotten > 0 {
                    output.note(format!("({forgotten} earlier messages are forgotten: too long)"));
                }
                return Ok(ids);
            }
            self.messages.drain(..2);
            forgotten += 2;
        }
    }
}
