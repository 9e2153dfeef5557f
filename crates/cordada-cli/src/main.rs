//! The program `cordada`: the command line over the libraries. It turns errors into reports and
//! events into progress; what is trained and how is the libraries' matter.

mod args;
mod bench;
mod check;
mod demo;
mod eval;
mod interrupt;
mod list;
mod locate;
mod output;
mod report;
mod resume;
mod rlhf;
mod seeds;
mod stats;
mod train;

use std::process::ExitCode;

use clap::{ColorChoice, CommandFactory, FromArgMatches};

use crate::args::{Cli, Command, EnvCommand};
use crate::output::Output;
use crate::report::Failure;

fn main() -> ExitCode {
    let matches = Cli::command().color(color_of(std::env::args())).get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let output = Output::new(cli.global);
    match run(cli.command, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failure.report(output)),
    }
}

fn run(command: Option<Command>, output: Output) -> Result<(), Failure> {
    match command {
        None => demo::run(output),
        Some(Command::Train(args)) => train::run(&args, output),
        Some(Command::Resume(args)) => resume::run(&args, output),
        Some(Command::Eval(args)) => eval::run(&args, output),
        Some(Command::Rlhf { what }) => rlhf::run(&what, output),
        Some(Command::List { what }) => list::run(&what, output),
        Some(Command::Env { what: EnvCommand::Check { name } }) => check::check(&name, output),
        Some(Command::Env { what: EnvCommand::Replay { files } }) => check::replay(&files, output),
        Some(Command::Bench(args)) => bench::run(&args, output),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "cordada", &mut script);
            output.line(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
    }
}

/// The choice of `--color`, read before the parser runs, which prints its own errors and help.
fn color_of(args: impl Iterator<Item = String>) -> ColorChoice {
    let args: Vec<String> = args.take_while(|arg| arg != "--").collect();
    let after = |i: usize| match args[i].as_str() {
        "--color" => args.get(i + 1).map(String::as_str),
        arg => arg.strip_prefix("--color="),
    };
    match (0..args.len()).find_map(after) {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
}
