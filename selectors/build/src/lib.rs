//! Makes components of policies that are written in Rust, JavaScript, Python or C.
//!
//! [`Project::read`] knows what a folder holds, [`build()`] finds the language's toolchain, says what
//! to install when there is none, keeps WASI out, and writes `NAME.wasm`. [`inspect`] says what any
//! component exports and imports. `cargo run -p maitred-guest-build` builds the standard modules of
//! this repository with the same code.
//!
//! It decides how guests are compiled, and runs other people's compilers; it never runs a guest, and
//! must never name wasmtime: what a host refuses is for the host to say.

mod c;
mod component;
mod error;
mod javascript;
mod project;
mod python;
mod rust;
mod tool;

use std::fs;
use std::path::PathBuf;

pub use component::{ComponentError, Inspection, encode, inspect};
pub use error::{BuildError, MissingTool};
pub use project::{Kind, Lang, MANIFEST, Project, ProjectError};
pub use rust::Toolchain;
pub use tool::Show;

/// A component as it was built.
#[derive(Debug)]
pub struct Built {
    /// `NAME.wasm`, beside `maitred.toml`.
    pub path: PathBuf,
    /// The component.
    pub bytes: Vec<u8>,
    /// What it exports and imports.
    pub inspection: Inspection,
}

/// Builds a project: compiles, makes a component, looks at it, and writes `NAME.wasm`.
///
/// `step` is told what begins, in a few words. Tools run in the project's folder, as the user that
/// runs this program, and with what they need of the network (cargo fetches crates).
///
/// # Errors
/// A tool that is missing, with what to install; a tool that failed, with what it wrote; a component
/// that imports something else than its world offers, with the way to get rid of it. No file is
/// written then.
pub fn build(
    project: &Project,
    show: Show,
    step: &mut dyn FnMut(&str),
) -> Result<Built, BuildError> {
    let output = project.folder.join("target");
    fs::create_dir_all(&output).map_err(|error| BuildError::file(&output, error))?;
    let core = match project.lang {
        Lang::Rust => Some(rust::core(project, show, step)?),
        Lang::C => Some(c::core(project, show, step)?),
        Lang::Js | Lang::Python => None,
    };
    let bytes = match core {
        Some(core) => {
            step("making a component");
            component::of_core(&core, project.lang)?
        }
        None if project.lang == Lang::Js => javascript::component(project, show, step)?,
        None => python::component(project, show, step)?,
    };
    let inspection = inspect(&bytes)?;
    inspection.check(project.kind, project.lang)?;
    let path = project.component();
    fs::write(&path, &bytes).map_err(|error| BuildError::file(&path, error))?;
    Ok(Built {
        path,
        bytes,
        inspection,
    })
}
