//! `module push`: upload a component, with a bar that says how far it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use maitred_client::{Client, Pushed};
use maitred_protocol::limits::MODULE_BYTES_MAX;
use maitred_protocol::{Digest, ModuleKind, ModuleName, ModuleRecord, Signature, UploadStage};
use maitred_sandbox::signature;
use serde_json::json;

use super::activate::How;
use super::kind::{KindArg, kind_of};
use super::{decides, findings};
use crate::connect::Shell;
use crate::failure::Failure;
use crate::files;
use crate::json as shape;
use crate::out::colours;

/// Bytes of a private key's file, and of a signature's; one has 200.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// Upload a component as the next version of a module
///
/// The host scans it, compiles it in a process of its own, and tries it out; a majority of the hosts has
/// it on disk and ready to run when the upload is done. Exit code 8 when it is refused. The new version
/// decides nothing until it is activated. At most 4 MiB, or 24 MiB on hosts that allow large modules.
///
/// Example: maitred module push my-rule my_rule.wasm --activate
///
/// Example: maitred module push my-rule my_rule.wasm --activate --percent 10 --auto-rollback 'traps>0'
///
/// Example: maitred module push my-rule my_rule.wasm --sign keys/alice.key
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The name to push under: a-z, 0-9, _ and -
    module: ModuleName,
    /// The component, as `maitred module build` makes it
    file: PathBuf,
    /// What it is for [default: what it exports]
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
    /// Sign it with this private key, as `maitred module keygen` makes one
    #[arg(long, value_name = "KEY", conflicts_with = "signature")]
    sign: Option<PathBuf>,
    /// Its signature, as `maitred module sign` writes it
    #[arg(long, value_name = "FILE.sig")]
    signature: Option<PathBuf>,
    /// Let the new version decide at once; the flags below say how
    #[arg(long)]
    activate: bool,
    #[command(flatten)]
    how: How,
}

impl Push {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        if let (false, Some(flag)) = (self.activate, self.how.given()) {
            let message = format!("{flag} is about an activation, and none is asked for");
            return Err(Failure::usage(message, "give --activate too"));
        }
        let bytes = files::read("read the module", &self.file, MODULE_BYTES_MAX)?;
        // What is no component of ours is for the host to refuse, which says more.
        let kind = kind_of(self.kind, &bytes).unwrap_or(ModuleKind::Selector);
        let signature = self.signature(&bytes, kind)?;
        let client = shell.client().await?;
        let upload = Upload {
            name: &self.module,
            kind,
            bytes: &bytes,
            signature,
        };
        let Pushed {
            mut record,
            version,
            findings: found,
        } = upload.push(shell, &client).await?;
        if self.activate {
            let activation = self.how.of(&client, &self.module, version)?;
            record = activation.send().await?;
        }
        let body = json!({
            "version": version,
            "module": shape::module(&record),
            "findings": findings::to_json(&found),
        });
        let text = || {
            format!(
                "{}\n{}",
                findings::text(&found),
                self.text(&record, version)
            )
        };
        shell.out.show("Pushed", body, text)?;
        client.close().await;
        Ok(())
    }

    fn signature(&self, bytes: &[u8], kind: ModuleKind) -> Result<Option<Signature>, Failure> {
        let read = |what: &str, path: &Path| files::read_text(what, path, KEY_BYTES_MAX);
        match (&self.sign, &self.signature) {
            (Some(key), _) => {
                let key = read("read the key", key)?;
                Ok(Some(signature::sign(&key, &Digest::of(bytes), kind)?))
            }
            (None, Some(file)) => {
                let text = read("read the signature", file)?;
                Ok(Some(signature::parse_signature(&text)?))
            }
            (None, None) => Ok(None),
        }
    }

    fn text(&self, record: &ModuleRecord, version: u32) -> String {
        let name = &self.module;
        let pushed = record.versions.iter().find(|one| one.version == version);
        let digest = pushed.map_or(String::new(), |one| one.digest.short());
        if !self.activate && record.active == Some(version) {
            return format!("the same bytes as {name}@{version} ({digest}), which decides already");
        }
        let next = match self.activate {
            true => decides(record),
            false => {
                format!("it decides nothing yet: maitred module activate {name}@{version}")
            }
        };
        format!("pushed {name}@{version} ({digest})\n{next}")
    }
}

/// What is uploaded.
pub(super) struct Upload<'a> {
    pub(super) name: &'a ModuleName,
    pub(super) kind: ModuleKind,
    pub(super) bytes: &'a [u8],
    pub(super) signature: Option<Signature>,
}

impl Upload<'_> {
    /// Uploads it, with a bar while it goes on.
    pub(super) async fn push(&self, shell: &Shell, client: &Client) -> Result<Pushed, Failure> {
        let progress = Progress::new(shell, self.bytes.len() as u64);
        let bar = progress.0.clone();
        let pushed = client
            .push_signed(
                self.name,
                self.kind,
                self.bytes,
                self.signature,
                move |stage| advance(&bar, stage),
            )
            .await;
        drop(progress);
        Ok(pushed?)
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
        UploadStage::Spreading(ready, of) => {
            bar.set_message(format!("ready on {ready} of {of} hosts"));
        }
        UploadStage::Recording => bar.set_message("recording"),
    }
}
