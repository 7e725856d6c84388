//! C: bindings by wit-bindgen, compiled by Zig's C compiler or by clang with wasi-libc.
//!
//! Zig is looked for first: it is one download without further parts, and the same one everywhere.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use wit_bindgen_core::Files;
use wit_parser::Resolve;

use crate::error::{BuildError, MissingTool};
use crate::project::Project;
use crate::tool::{self, Show};

/// What this was tried with.
const INSTALL: &str = "python3 -m venv .venv && .venv/bin/pip install ziglang==0.17.1\n\
                       or Zig 0.13 or newer from https://ziglang.org/download, as `zig` on the path\n\
                       or, on Debian or Ubuntu: apt-get install clang lld wasi-libc libclang-rt-dev-wasm32";
/// The folder of the bindings, in the project's.
const BINDINGS: &str = "bindings";

/// The core module of a project.
pub(crate) fn core(
    project: &Project,
    show: Show,
    step: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, BuildError> {
    let Some(compiler) = compiler(&project.folder) else {
        return Err(BuildError::Missing(MissingTool {
            what: "a C compiler for WebAssembly".to_owned(),
            install: INSTALL.to_owned(),
        }));
    };
    step("generating bindings");
    let bindings = bindings(project)?;
    step("compiling");
    let core = Path::new("target").join("core.wasm");
    let [program, arguments @ ..] = compiler.as_slice() else {
        unreachable!("a compiler has a name")
    };
    let mut command = Command::new(program);
    command.current_dir(&project.folder).args(arguments);
    command.args(["-mexec-model=reactor", "-O2", "-s", "-Wall"]);
    // The default of Zig, 16 MiB, is half of what an instance may have.
    command.args(["-Wl,-z,stack-size=65536", "-I", BINDINGS, "-o"]);
    command.arg(&core).arg("policy.c").args(bindings);
    tool::run(&mut command, show)?;
    let core = project.folder.join(core);
    fs::read(&core).map_err(|error| BuildError::file(&core, error))
}

/// A command that compiles C for wasm32, without further flags.
fn compiler(folder: &Path) -> Option<Vec<PathBuf>> {
    let command = |program: PathBuf, arguments: &[&str]| {
        let words = std::iter::once(program).chain(arguments.iter().map(PathBuf::from));
        Some(words.collect())
    };
    if let Some(zig) = tool::on_path("zig") {
        return command(zig, &["cc", "-target", "wasm32-wasi"]);
    }
    let has_zig =
        |python: &PathBuf| tool::ask(folder, python, &["-m", "ziglang", "version"]).is_ok();
    if let Some(python) = tool::pythons(folder).into_iter().find(has_zig) {
        return command(python, &["-m", "ziglang", "cc", "-target", "wasm32-wasi"]);
    }
    let clang = clang().filter(|_| Path::new("/usr/include/wasm32-wasi/stdlib.h").exists())?;
    command(clang, &["--target=wasm32-wasi", "-fuse-ld=lld"])
}

/// `clang`, or Debian's `clang-19` and so on.
fn clang() -> Option<PathBuf> {
    let numbered = (14..=30).rev().map(|version| format!("clang-{version}"));
    let own = env::var("CC").ok().filter(|name| name.contains("clang"));
    let mut names = own.into_iter().chain(["clang".to_owned()]).chain(numbered);
    names.find_map(|name| tool::on_path(&name))
}

/// Writes the bindings of the project's world; answers with what has to be compiled or linked.
fn bindings(project: &Project) -> Result<Vec<PathBuf>, BuildError> {
    let wit = project.folder.join("wit");
    let bad = |error: &dyn std::fmt::Display| BuildError::Wit {
        path: wit.clone(),
        reason: error.to_string(),
    };
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_path(&wit)
        .map_err(|error| bad(&format!("{error:#}")))?;
    let world = resolve
        .select_world(&[package], Some(project.kind.world()))
        .map_err(|error| bad(&format!("{error:#}")))?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default()
        .build()
        .generate(&mut resolve, world, &mut files)
        .map_err(|error| bad(&format!("{error:#}")))?;
    let folder = project.folder.join(BINDINGS);
    fs::create_dir_all(&folder).map_err(|error| BuildError::file(&folder, error))?;
    let mut linked = Vec::new();
    for (name, contents) in files.iter() {
        let path = folder.join(name);
        fs::write(&path, contents).map_err(|error| BuildError::file(&path, error))?;
        if !name.ends_with(".h") {
            linked.push(Path::new(BINDINGS).join(name));
        }
    }
    Ok(linked)
}
