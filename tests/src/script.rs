//! Scripts: what happens to a replica, and what it does about it, as text that reads as a story.
//!
//! A line that begins with `>` is a command; what follows it up to the next blank line, command or
//! comment (`# …`) is what was seen. [`run`] gives the same text with what is really seen. [`command`]
//! lists the commands.

mod command;
mod format;
mod request;
mod words;

use std::fmt::Write as _;

pub use command::Stage;

/// Runs a script; returns it with its traces replaced by what was seen.
///
/// # Errors
/// The line number and what is wrong with the command there.
pub fn run(script: &str) -> Result<String, String> {
    let mut stage = Stage::new();
    let mut out = String::new();
    for (number, line) in (1..).zip(script.lines()) {
        if let Some(command) = line.strip_prefix("> ") {
            let seen = stage
                .command(command)
                .map_err(|why| format!("line {number}: {why}"))?;
            let _ = writeln!(out, "{line}");
            for line in seen {
                let _ = writeln!(out, "{line}");
            }
        } else if line.is_empty() || line.starts_with("# ") {
            let _ = writeln!(out, "{line}");
        }
    }
    let unanswered = stage.unanswered();
    if unanswered.is_empty() {
        Ok(out)
    } else {
        Err(format!("requests {unanswered:?} were never answered"))
    }
}
