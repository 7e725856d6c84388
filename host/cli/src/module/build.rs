//! `module build`: from a project's source to `NAME.wasm`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use maitred_guest_build::{
    BuildError, Built, ComponentError, MANIFEST, Project, ProjectError, Show,
};
use serde_json::json;

use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::out::{colours, fields, short};

/// Build the module in a folder: compile it, and make a component that imports nothing foreign
///
/// It says what to install when the language's toolchain is missing (exit code 9). What the tools
/// write is shown when they fail.
///
/// Example: maitred module build
///
/// Example: maitred module build quiet --verbose
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The folder with maitred.toml
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Show what the tools write as it comes, on stderr
    #[arg(short, long)]
    verbose: bool,
}

impl Build {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let project = Project::read(&self.dir)?;
        let started = Instant::now();
        let built = build(shell, &project, self.verbose).await?;
        let seconds = started.elapsed();
        let Built {
            path,
            bytes,
            inspection,
        } = built;
        let world = project.kind.world();
        let shown = std::path::absolute(".").ok();
        let shown = shown.and_then(|here| path.strip_prefix(here).ok().map(PathBuf::from));
        let file = shown.unwrap_or(path).display().to_string();
        let body = json!({
            "project": {
                "name": project.name, "lang": project.lang.name(), "kind": project.kind.name(),
            },
            "file": file, "bytes": bytes.len(), "world": world, "version": inspection.version,
            "imports": inspection.imports, "seconds": seconds.as_secs_f64(),
        });
        shell.out.show("ModuleBuilt", body, || {
            let version = inspection.version.unwrap_or_default();
            fields(&[
                ("component", file),
                ("bytes", bytes.len().to_string()),
                ("world", format!("maitred:policy/{world}@{version}")),
                ("imports", inspection.imports.join(", ")),
                ("time", short(seconds)),
            ])
        })
    }
}

/// Builds a project with a spinner on the terminal.
///
/// # Errors
/// As [`maitred_guest_build::build`], for people.
pub(super) async fn build(
    shell: &Shell,
    project: &Project,
    verbose: bool,
) -> Result<Built, Failure> {
    let spinner = spinner(shell, verbose);
    let show = if verbose {
        Show::Always
    } else {
        Show::OnFailure
    };
    let (bar, of) = (spinner.clone(), project.clone());
    let work = move || {
        let mut step = |text: &str| bar.set_message(text.to_owned());
        maitred_guest_build::build(&of, show, &mut step)
    };
    let built = tokio::task::spawn_blocking(work).await;
    spinner.finish_and_clear();
    let built = built
        .map_err(|error| Failure::new(Exit::Other, "build", error.to_string(), "report this"))?;
    Ok(built?)
}

/// Hidden by itself when stderr is no terminal, and where the tools write there.
fn spinner(shell: &Shell, verbose: bool) -> ProgressBar {
    let target = if shell.out.is_json() || verbose {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(None, target);
    let template = if colours(&std::io::stderr()) {
        "{spinner:.cyan} {wide_msg} {elapsed}"
    } else {
        "{spinner} {wide_msg} {elapsed}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

impl From<ProjectError> for Failure {
    fn from(error: ProjectError) -> Self {
        let exit = match error {
            ProjectError::None(_) => Exit::NotFound,
            ProjectError::Read { .. } => Exit::Other,
            ProjectError::Parse { .. } => Exit::Usage,
        };
        let help = match error {
            ProjectError::None(_) => {
                "name the folder of a module, or start one: maitred module new NAME --lang rust"
                    .to_owned()
            }
            _ => format!(
                "{MANIFEST} has three lines: name = \"NAME\", lang = \"rust|js|python|c\", \
                 kind = \"selector|scanner|callback|fence\""
            ),
        };
        Self::new(exit, "project", error.to_string(), help)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let message = error.to_string();
        match error {
            BuildError::Missing(tool) => {
                let details = json!({ "missing": tool.what, "install": tool.install });
                Self::new(Exit::Toolchain, "toolchain", message, tool.install).with(details)
            }
            BuildError::Failed { output, .. } => {
                let details = json!({ "output": output });
                let message = if output.is_empty() {
                    message
                } else {
                    format!("{message}:\n{output}")
                };
                let help =
                    "correct the source and build again; --verbose shows all that the tools write";
                Self::new(Exit::Other, "build", message, help).with(details)
            }
            BuildError::Component(error) => error.into(),
            BuildError::Run { .. } => {
                let help = "check that the program may be run, or install it anew";
                Self::new(Exit::Toolchain, "toolchain", message, help)
            }
            BuildError::Wit { .. } => {
                let help = "take wit/policy.wit from a new project: maitred module new";
                Self::new(Exit::Other, "wit", message, help)
            }
            BuildError::File { .. } => {
                let help = "check that the path may be used, and that the disk has room";
                Self::new(Exit::Other, "file", message, help)
            }
        }
    }
}

impl From<ComponentError> for Failure {
    fn from(error: ComponentError) -> Self {
        let message = error.to_string();
        match error {
            ComponentError::Foreign {
                imports, advice, ..
            } => Self::new(Exit::Module, "foreign_imports", message, advice)
                .with(json!({ "imports": imports })),
            ComponentError::Exports { .. } => {
                let help =
                    "see the world of this kind in wit/policy.wit, and `kind` in maitred.toml";
                Self::new(Exit::Module, "world", message, help)
            }
            ComponentError::Encode(_) => Self::new(
                Exit::Module,
                "component",
                message,
                "see `maitred module build --help`",
            ),
            ComponentError::Decode(_) => Self::new(
                Exit::Module,
                "component",
                message,
                "name the NAME.wasm that `maitred module build` writes",
            ),
        }
    }
}
