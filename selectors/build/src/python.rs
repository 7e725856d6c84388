//! Python: componentize-py puts the source into a CPython that needs no system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{BuildError, MissingTool};
use crate::project::Project;
use crate::tool::{self, Show};

const INSTALL: &str = "python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1\n(Python 3.10 or newer)";

/// The component of a project: 18 MB, most of it CPython.
pub(crate) fn component(
    project: &Project,
    show: Show,
    step: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, BuildError> {
    let Some(mut command) = componentizer(&project.folder) else {
        return Err(BuildError::Missing(MissingTool {
            what: "componentize-py".to_owned(),
            install: INSTALL.to_owned(),
        }));
    };
    step("putting the source into CPython");
    let output = project.folder.join("target").join("component.wasm");
    command.current_dir(&project.folder);
    command.args(["-q", "-d", "wit", "-w", project.kind.world()]);
    // Without --stub-wasi it imports 25 interfaces of WASI, and no host has one.
    command
        .args(["componentize", "--stub-wasi", "policy", "-o"])
        .arg(&output);
    tool::run(&mut command, show)?;
    fs::read(&output).map_err(|error| BuildError::file(&output, error))
}

/// The program beside a Python, or as a module of one.
fn componentizer(folder: &Path) -> Option<Command> {
    let own = tool::above(folder, ".venv/bin/componentize-py");
    if let Some(program) = own.or_else(|| tool::on_path("componentize-py")) {
        return Some(Command::new(program));
    }
    let has_it = |python: &PathBuf| {
        tool::ask(folder, python, &["-m", "componentize_py", "--version"]).is_ok()
    };
    let python = tool::pythons(folder).into_iter().find(has_it)?;
    let mut command = Command::new(python);
    command.args(["-m", "componentize_py"]);
    Some(command)
}
