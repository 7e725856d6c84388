//! Finds and runs other people's programs.
//!
//! Holds: what a tool writes is shown when it fails or when somebody asked for it, never otherwise,
//! and never on stdout, which is for results.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::BuildError;

/// Bytes of a failed tool's output that are kept: the last ones, where the error is.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// When a tool's output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// In the error, when it fails.
    OnFailure,
    /// As it comes, on stderr.
    Always,
}

/// Runs `command` to its end.
///
/// # Errors
/// When it does not start or does not succeed.
pub(crate) fn run(command: &mut Command, show: Show) -> Result<(), BuildError> {
    command.stdin(Stdio::null());
    let failed = |command: &Command, output| BuildError::Failed {
        command: shown(command),
        output,
    };
    if show == Show::Always {
        let status = command.stdout(io::stderr()).status();
        return match status {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(failed(command, String::new())),
            Err(error) => Err(refused(command, error)),
        };
    }
    let output = command.output().map_err(|error| refused(command, error))?;
    if output.status.success() {
        return Ok(());
    }
    let mut text = output.stderr;
    text.extend(&output.stdout);
    let from = text.len().saturating_sub(OUTPUT_BYTES_MAX);
    let text = String::from_utf8_lossy(&text[from..]).trim().to_owned();
    Err(failed(command, text))
}

/// What `program` prints when it is run in `folder`, without the blanks at its end.
///
/// # Errors
/// When it does not start or does not succeed.
pub(crate) fn ask(folder: &Path, program: &Path, arguments: &[&str]) -> Result<String, BuildError> {
    let mut command = Command::new(program);
    command.current_dir(folder).args(arguments);
    command.env_remove("LD_LIBRARY_PATH");
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| refused(&command, error))?;
    if !output.status.success() {
        return Err(BuildError::Failed {
            command: shown(&command),
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

fn refused(command: &Command, error: io::Error) -> BuildError {
    BuildError::Run {
        command: shown(command),
        error,
    }
}

/// A command as one could type it.
fn shown(command: &Command) -> String {
    let word = |word: &OsStr| {
        let word = word.to_string_lossy();
        if word.is_empty() || word.contains([' ', '\'', '"', '\\', '$']) {
            format!("'{}'", word.replace('\'', r"'\''"))
        } else {
            word.into_owned()
        }
    };
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(word).collect::<Vec<_>>().join(" ")
}

/// `name` on the path.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let folders = env::split_paths(&env::var_os("PATH")?).collect::<Vec<_>>();
    let mut places = folders.iter().map(|folder| folder.join(name));
    places.find(|path| path.is_file())
}

/// `inside` in `folder` or in one above it, the nearest first.
pub(crate) fn above(folder: &Path, inside: &str) -> Option<PathBuf> {
    let mut places = folder.ancestors().map(|folder| folder.join(inside));
    places.find(|path| path.is_file())
}

/// The Pythons that may have what a project needs, the nearest first: its own `.venv`, the one that is
/// active, the one on the path.
pub(crate) fn pythons(folder: &Path) -> Vec<PathBuf> {
    let own = above(folder, ".venv/bin/python");
    let active = env::var_os("VIRTUAL_ENV").map(|place| Path::new(&place).join("bin/python"));
    let active = active.filter(|path| path.is_file());
    own.into_iter()
        .chain(active)
        .chain(on_path("python3"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_in_the_error_alone() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        match run(&mut command, Show::OnFailure) {
            Err(BuildError::Failed { command, output }) => {
                assert_eq!(output, "err\nout");
                assert_eq!(command, "sh -c 'echo out; echo err >&2; exit 3'");
            }
            other => panic!("{other:?}"),
        }
        let none = run(&mut Command::new("/nonexistent"), Show::OnFailure);
        assert!(matches!(none, Err(BuildError::Run { .. })));
        assert_eq!(
            ask(Path::new("."), Path::new("sh"), &["-c", "echo ' x '"]).unwrap(),
            " x"
        );
    }
}
