//! `module new`: writes a project that builds.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use maitred_guest_build::{Kind, Lang};
use maitred_protocol::ModuleName;
use serde_json::json;

use super::template::{self, Template};
use crate::connect::Shell;
use crate::failure::{Exit, Failure};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LangArg {
    /// With the guest SDK; 15 to 40 KB
    Rust,
    /// Run by QuickJS; 1.6 MB
    Js,
    /// Run by CPython; 18 MB, for hosts that allow large modules
    Python,
    /// With generated bindings; 3 to 16 KB
    C,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KindArg {
    /// Chooses among up to 1,024 nodes
    Selector,
    /// Chooses from the whole fleet
    Scanner,
    /// Starts processes on the node that was chosen
    Callback,
    /// Says whether a lost node is dead
    Fence,
}

/// Start a module: a folder with a policy that builds, to be changed
///
/// Example: maitred module new quiet --lang rust --kind selector
///
/// Example: maitred module new warm-up --lang js --kind callback
#[derive(Debug, Args)]
pub(crate) struct New {
    /// What it is pushed under, and its folder: 1 to 64 of a-z, 0-9, _ and -
    name: ModuleName,
    /// What it is written in
    #[arg(long, value_enum)]
    lang: LangArg,
    /// What it does; scanners and fences in Rust only
    #[arg(long, value_enum, default_value = "selector")]
    kind: KindArg,
    /// Another folder than ./NAME; it must be empty, or not exist
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What a crate cannot be called.
const NO_CRATES: [&str; 6] = [
    "alloc",
    "core",
    "proc_macro",
    "std",
    "test",
    "maitred-guest",
];

impl New {
    pub(super) fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let lang = match self.lang {
            LangArg::Rust => Lang::Rust,
            LangArg::Js => Lang::Js,
            LangArg::Python => Lang::Python,
            LangArg::C => Lang::C,
        };
        let kind = match self.kind {
            KindArg::Selector => Kind::Selector,
            KindArg::Scanner => Kind::Scanner,
            KindArg::Callback => Kind::Callback,
            KindArg::Fence => Kind::Fence,
        };
        let name = self.name.to_string();
        check_name(&name, lang)?;
        let Template { files, next } = template::project(&name, lang, kind)
            .map_err(|error| Failure::new(Exit::Other, "template", error, "report this"))?
            .ok_or_else(|| no_template(lang, kind))?;
        let folder = self.dir.clone().unwrap_or_else(|| PathBuf::from(&name));
        make_room(&folder)?;
        for file in &files {
            let path = folder.join(&file.path);
            write(&path, &file.text).map_err(|error| Failure::file("write", &path, &error))?;
        }
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        let body = json!({
            "project": { "name": name, "lang": lang.name(), "kind": kind.name() },
            "folder": folder.display().to_string(), "files": paths, "next": next,
        });
        shell.out.show("ModuleProject", body, || {
            let go = format!("cd {}", folder.display());
            let next: Vec<_> = std::iter::once(&go).chain(&next).collect();
            let lines = next.iter().map(|line| format!("  {line}"));
            let source = &files[0].path;
            format!(
                "{} is a {kind} in {lang}; its policy is in {source}\n\n{}",
                folder.display(),
                lines.collect::<Vec<_>>().join("\n")
            )
        })
    }
}

fn no_template(lang: Lang, kind: Kind) -> Failure {
    let kinds = template::kinds(lang);
    let kinds: Vec<_> = kinds.into_iter().map(Kind::name).collect();
    Failure::usage(
        format!("there is no template for a {kind} in {lang}"),
        format!(
            "--lang rust has all kinds; --lang {lang} has {}",
            kinds.join(" and ")
        ),
    )
}

/// A module's name is nearly always one that the language's tools take, too.
fn check_name(name: &str, lang: Lang) -> Result<(), Failure> {
    let as_crate = name.starts_with(|c: char| c.is_ascii_lowercase());
    if lang == Lang::Rust && (!as_crate || NO_CRATES.contains(&name)) {
        return Err(Failure::usage(
            format!("a crate cannot be called `{name}`"),
            "choose a name that starts with a letter and is none of Rust's own; it can be pushed under \
             another one",
        ));
    }
    Ok(())
}

/// Sees to it that there is a folder with nothing in it.
fn make_room(folder: &Path) -> Result<(), Failure> {
    match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(
            Exit::Conflict,
            "exists",
            format!("{} is not empty", folder.display()),
            "choose another name, or another folder with --dir",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(folder)
            .map_err(|error| Failure::file("make the folder", folder, &error)),
        Err(error) => Err(Failure::file("use the folder", folder, &error)),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}
