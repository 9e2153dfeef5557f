//! Ctrl-C: the first one asks the work to stop, the second one ends the program.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::output::Output;
use crate::report::Failure;

/// Set when the work is to stop: by Ctrl-C, by a polite kill, or because nobody reads the output.
pub(crate) static STOP: AtomicBool = AtomicBool::new(false);

/// Exit code of an interrupted program: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// Makes Ctrl-C set [`STOP`].
///
/// # Errors
///
/// If the system refuses a handler.
pub(crate) fn watch(output: Output) -> Result<(), Failure> {
    let handler = move || {
        if STOP.swap(true, Ordering::Relaxed) {
            #[allow(clippy::exit, reason = "a second Ctrl-C ends the program at once")]
            std::process::exit(INTERRUPTED);
        }
        if output.stderr_is_terminal() {
            // It shows ^C at the start of the line.
            output.note("");
        }
        output.note("stopping after this iteration; once more ends at once, without a checkpoint");
    };
    ctrlc::set_handler(handler).map_err(|e| {
        Failure::failed(format!("cannot watch for Ctrl-C: {e}"), "run the program from a terminal")
    })
}
