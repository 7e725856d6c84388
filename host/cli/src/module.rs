//! `module`: upload selectors, callbacks and fences, and say which version decides.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use maitred_protocol::limits::{CONFIG_BYTES_MAX, MODULE_BYTES_MAX};
use maitred_protocol::{ModuleKind, ModuleName, ModuleRecord, UploadStage};
use serde_json::json;

use crate::connect::Shell;
use crate::failure::Failure;
use crate::files;
use crate::json as shape;
use crate::out::{ago, colours, table};

/// Upload selectors, callbacks and fences, and say which version decides
#[derive(Debug, Subcommand)]
pub(crate) enum Module {
    Push(Push),
    /// List the modules
    ///
    /// Example: maitred module ls
    Ls,
    /// Show one module with all its versions
    ///
    /// Example: maitred module get spread
    Get(Name),
    Activate(Activate),
    /// Make the version before decide again, with the configuration that it had
    ///
    /// Example: maitred module rollback my-rule
    Rollback(Name),
    Rm(Remove),
}

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Which module
    module: ModuleName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KindArg {
    /// Chooses nodes: world `selector-module`
    Selector,
    /// Starts processes: world `callback-module`
    Callback,
    /// Says whether a lost node is dead, for types with restart level strict: world `fence-module`
    Fence,
}

/// Upload a component as the next version of a module
///
/// The host scans it, compiles it in a process of its own, and tries it out; exit code 8 when it
/// refuses it. The new version decides nothing until it is activated. At most 4 MiB, or 24 MiB on
/// hosts that allow large modules.
///
/// Example: maitred module push my-rule target/my_rule.wasm --activate
///
/// Example: maitred module push my-fence my_fence.wasm --kind fence --activate
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The name to push under: a-z, 0-9, _ and -
    module: ModuleName,
    /// The component, as made by `wasm-tools component new` or the like
    file: PathBuf,
    /// What it is for
    #[arg(long, value_enum, default_value = "selector")]
    kind: KindArg,
    /// Let the new version decide at once
    #[arg(long)]
    activate: bool,
    /// Its configuration, JSON of at most 64 KiB, or @FILE [default: the active version's]
    #[arg(long, value_name = "JSON", requires = "activate")]
    config: Option<String>,
}

/// Make a version decide
///
/// Example: maitred module activate spread --config '{"label": "rack"}'
#[derive(Debug, Args)]
pub(crate) struct Activate {
    /// Which module
    module: ModuleName,
    /// Which version [default: the newest]
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    /// Its configuration, JSON of at most 64 KiB, or @FILE [default: the active version's]
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
}

/// Forget a version that is not active, or a whole module when no version is
///
/// Example: maitred module rm my-rule --version 1
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Which module
    module: ModuleName,
    /// Which version
    #[arg(long, value_name = "N", required_unless_present = "all", conflicts_with = "all",
          value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    /// Every version
    #[arg(long)]
    all: bool,
}

impl Module {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        match self {
            Self::Push(verb) => verb.run(shell).await,
            Self::Ls => ls(shell).await,
            Self::Activate(verb) => verb.run(shell).await,
            Self::Rm(verb) => verb.run(shell).await,
            Self::Get(name) => {
                let client = shell.client().await?;
                let record = client.get_module(&name.module).await?;
                show(shell, &record, &versions(&record))?;
                client.close().await;
                Ok(())
            }
            Self::Rollback(name) => {
                let client = shell.client().await?;
                let record = client.rollback_module(&name.module).await?;
                show(shell, &record, &decides(&record))?;
                client.close().await;
                Ok(())
            }
        }
    }
}

async fn ls(shell: &Shell) -> Result<(), Failure> {
    let client = shell.client().await?;
    let modules = client.modules().await?;
    let items = modules.iter().map(shape::module).collect();
    shell.out.list("ModuleList", items, || {
        let header = ["MODULE", "KIND", "ACTIVE", "NEWEST", "PREVIOUS", "DIGEST"];
        let row = |module: &ModuleRecord| {
            let dash = |version: Option<u32>| version.map_or("-".to_owned(), |v| v.to_string());
            let active = module
                .versions
                .iter()
                .find(|one| Some(one.version) == module.active);
            vec![
                module.name.to_string(),
                shape::module_kind(module.kind).to_owned(),
                dash(module.active),
                dash(module.versions.last().map(|one| one.version)),
                dash(module.previous),
                active.map_or("-".to_owned(), |one| one.digest.short()),
            ]
        };
        table(&header, modules.iter().map(row))
    })?;
    client.close().await;
    Ok(())
}

fn show(shell: &Shell, record: &ModuleRecord, text: &str) -> Result<(), Failure> {
    let body = json!({ "module": shape::module(record) });
    shell.out.show("Module", body, || text.to_owned())
}

fn decides(record: &ModuleRecord) -> String {
    match record.active {
        Some(version) => format!("{}@{version} decides now", record.name),
        None => format!("no version of {} decides", record.name),
    }
}

fn versions(record: &ModuleRecord) -> String {
    let header = [
        "VERSION", "ACTIVE", "DIGEST", "BYTES", "TITLE", "FEATURES", "PUSHED",
    ];
    let rows = record.versions.iter().map(|one| {
        let mark = match Some(one.version) {
            version if version == record.active => "active",
            version if version == record.previous => "previous",
            _ => "",
        };
        vec![
            one.version.to_string(),
            mark.to_owned(),
            one.digest.short(),
            one.bytes.to_string(),
            one.title.clone(),
            one.features.join(","),
            format!("{} ago", ago(one.pushed_ms)),
        ]
    });
    let mut text = format!(
        "{} ({})\n\n{}",
        record.name,
        shape::module_kind(record.kind),
        table(&header, rows)
    );
    if !record.config.is_empty() {
        text += &format!("\n\nconfiguration: {}", record.config);
    }
    text
}

/// The text itself, or the content of the file behind an `@`.
fn config(given: Option<&str>) -> Result<Option<String>, Failure> {
    match given.map(|text| (text, text.strip_prefix('@'))) {
        Some((_, Some(path))) => {
            let path = std::path::Path::new(path);
            let text = files::read_text("read the configuration", path, CONFIG_BYTES_MAX as u64);
            text.map(Some)
        }
        Some((text, None)) => Ok(Some(text.to_owned())),
        None => Ok(None),
    }
}

impl Push {
    async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let bytes = files::read("read the module", &self.file, MODULE_BYTES_MAX)?;
        let config = config(self.config.as_deref())?;
        let kind = match self.kind {
            KindArg::Selector => ModuleKind::Selector,
            KindArg::Callback => ModuleKind::Callback,
            KindArg::Fence => ModuleKind::Fence,
        };
        let client = shell.client().await?;
        let progress = Progress::new(shell, bytes.len() as u64);
        let bar = progress.0.clone();
        let pushed = client
            .push_module(&self.module, kind, &bytes, move |stage| {
                advance(&bar, stage);
            })
            .await;
        progress.0.finish_and_clear();
        let (mut record, version) = pushed?;
        if self.activate {
            record = client
                .activate_module(&self.module, version, config)
                .await?;
        }
        let body = json!({ "version": version, "module": shape::module(&record) });
        shell.out.show("Pushed", body, || {
            let digest = record.versions.iter().find(|one| one.version == version);
            let digest = digest.map_or(String::new(), |one| one.digest.short());
            let next = if self.activate {
                decides(&record)
            } else if record.active == Some(version) {
                let name = &self.module;
                return format!(
                    "the same bytes as {name}@{version} ({digest}), which decides already"
                );
            } else {
                format!(
                    "it decides nothing yet: maitred module activate {} --version {version}",
                    self.module
                )
            };
            format!("pushed {}@{version} ({digest})\n{next}", self.module)
        })?;
        client.close().await;
        Ok(())
    }
}

/// A bar on stderr, if a person looks at it; gone when dropped.
struct Progress(ProgressBar);

impl Progress {
    fn new(shell: &Shell, bytes: u64) -> Self {
        let target = if shell.out.is_json() {
            ProgressDrawTarget::hidden()
        } else {
            // Hidden by itself when stderr is no terminal.
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(bytes), target);
        let template = if colours(&std::io::stderr()) {
            "{spinner:.cyan} {msg:24} {bar:30.cyan} {bytes}/{total_bytes} {elapsed}"
        } else {
            "{spinner} {msg:24} {bar:30} {bytes}/{total_bytes} {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message("uploading");
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn advance(bar: &ProgressBar, stage: UploadStage) {
    match stage {
        UploadStage::Received(bytes) => bar.set_position(bytes),
        UploadStage::Scanning => bar.set_message("scanning"),
        UploadStage::Compiling => bar.set_message("compiling"),
        UploadStage::Trying => bar.set_message("trying it out"),
        UploadStage::Recording => bar.set_message("recording"),
    }
}

impl Activate {
    async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let config = config(self.config.as_deref())?;
        let client = shell.client().await?;
        let record = client
            .activate_module(&self.module, self.version.unwrap_or(0), config)
            .await?;
        show(shell, &record, &decides(&record))?;
        client.close().await;
        Ok(())
    }
}

impl Remove {
    async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let version = self.version.unwrap_or(0);
        let revision = client.remove_module(&self.module, version).await?;
        let body = json!({ "revision": revision.to_string() });
        shell.out.show("Done", body, || match self.version {
            Some(version) => format!("{}@{version} removed", self.module),
            None => format!("{} removed", self.module),
        })?;
        client.close().await;
        Ok(())
    }
}
