//! JavaScript: componentize-qjs puts the source into a QuickJS that needs no system.

use std::fs;
use std::process::Command;

use crate::error::{BuildError, MissingTool};
use crate::project::Project;
use crate::tool::{self, Show};

/// The component of a project. QuickJS, its bindings and the source are one file; nothing is
/// reproducible to the byte, since the interpreter's start state holds a seed.
pub(crate) fn component(
    project: &Project,
    show: Show,
    step: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, BuildError> {
    let missing = |what: &str, install: &str| {
        BuildError::Missing(MissingTool {
            what: what.to_owned(),
            install: install.to_owned(),
        })
    };
    if tool::on_path("node").is_none() {
        let install = "Node.js 20 or newer: https://nodejs.org, or `apt-get install nodejs npm`\n\
                       then, in the project's folder: npm install";
        return Err(missing("Node.js", install));
    }
    let local = tool::above(&project.folder, "node_modules/.bin/componentize-qjs");
    let Some(program) = local.or_else(|| tool::on_path("componentize-qjs")) else {
        let install = format!(
            "cd {} && npm install\n(package.json asks for componentize-qjs 0.4.5)",
            project.folder.display()
        );
        return Err(missing("componentize-qjs", &install));
    };
    step("putting the source into QuickJS");
    let output = project.folder.join("target").join("component.wasm");
    let mut command = Command::new(program);
    command.current_dir(&project.folder);
    command.args(["-w", "wit", "-n", project.kind.world(), "-j", "policy.js"]);
    // Without --sync it uses the asynchronous ABI, without --stub-wasi it imports 18 interfaces of
    // WASI; no host has either.
    command.args(["--sync", "--stub-wasi", "-o"]).arg(&output);
    tool::run(&mut command, show)?;
    fs::read(&output).map_err(|error| BuildError::file(&output, error))
}
