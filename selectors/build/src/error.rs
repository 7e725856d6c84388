//! Why a project was not built, in the form a person can act on.

use std::io;
use std::path::{Path, PathBuf};

use crate::component::ComponentError;

/// A compiler or an interpreter that has to be installed first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not installed")]
pub struct MissingTool {
    /// What is missing.
    pub what: String,
    /// The commands that install it, one a line, with words between them.
    pub install: String,
}

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Install it, and build again.
    #[error(transparent)]
    Missing(#[from] MissingTool),
    /// What the tool wrote says what is wrong with the source; empty when it was shown already.
    #[error("`{command}` failed")]
    Failed {
        /// The command, as one could type it.
        command: String,
        /// The end of what it wrote, 64 KiB at most.
        output: String,
    },
    /// The tool is there and does not run.
    #[error("cannot run `{command}`: {error}")]
    Run {
        /// The command, as one could type it.
        command: String,
        /// The system's words.
        error: io::Error,
    },
    /// The component is not one that a host takes.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// A file of the project.
    #[error("{}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// The WIT package of the project is not what its build expects.
    #[error("{}: {reason}", path.display())]
    Wit {
        /// The folder of the package.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl BuildError {
    pub(crate) fn file(path: &Path, error: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            error,
        }
    }
}
