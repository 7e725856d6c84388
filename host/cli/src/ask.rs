//! Asking a person whether that is meant, at a terminal; scripts, which nobody can ask, say --yes.

use std::io::{IsTerminal, Write};

use crate::failure::Failure;

/// Asks `question`; false when the answer is no.
///
/// # Errors
/// `what` with the advice to say --yes, when there is no terminal to ask at.
pub(crate) fn confirmed(what: &str, question: &str) -> Result<bool, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        let help = "say --yes when that is meant";
        let message = format!("{what}, and there is no terminal to ask at");
        return Err(Failure::usage(message, help));
    }
    eprint!("{question} [y/N] ");
    let mut line = String::new();
    let read = std::io::stderr()
        .flush()
        .and_then(|()| stdin.read_line(&mut line));
    read.map_err(|error| Failure::file("read the answer from", "the terminal".as_ref(), &error))?;
    Ok(["y", "yes"].contains(&line.trim().to_lowercase().as_str()))
}
