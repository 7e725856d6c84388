//! `module push`: upload a component, with a bar that says how far it is.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use maitred_protocol::limits::MODULE_BYTES_MAX;
use maitred_protocol::{ModuleKind, ModuleName, UploadStage};
use serde_json::json;

use super::{config, decides};
use crate::connect::Shell;
use crate::failure::Failure;
use crate::files;
use crate::json as shape;
use crate::out::colours;

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

impl Push {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
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
