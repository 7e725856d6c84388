//! `snapshot`: back the registry up, look into a backup, begin a new cluster from one.
//!
//! Holds: a file has its name only when it is whole and on the disk; none is written over unless that
//! was asked for; a restore touches nothing but the new directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use maitred_protocol::{Digest, HostName, ModuleName};
use maitred_server::snapshot_tool::{
    INDEX_BUMP, Restore as Job, Restored, SnapshotSummary, SnapshotToolError, inspect_snapshot,
    restore_snapshot,
};
use serde_json::{Value, json};

use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::files::NewFile;
use crate::out::{colours, fields, short};

/// Back the registry up, look into a backup, begin a new cluster from one
#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    Save(Save),
    Inspect(Inspect),
    Restore(Restore),
}

/// Save the whole state of the registry to a file, while everything goes on
///
/// Processes, nodes, types, modules (their names, versions and which ones decide), members and
/// sessions, as of one moment. While nobody leads it may lack what others have committed. Modules' bytes are not in it: keep your components, or a copy of the
/// folder `modules` of a data directory. Any host does; --endpoint says which.
///
/// Example: maitred snapshot save backup.snap
#[derive(Debug, Args)]
pub(crate) struct Save {
    /// The file to write
    file: PathBuf,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
    /// The newest snapshot that the host has already will do; it may be minutes or hours old
    #[arg(long)]
    newest_kept: bool,
}

/// Verify a snapshot to its last byte, and tell what is in it; needs no host
///
/// Also reads the snapshots in a data directory. Takes as much memory as a host with that state.
///
/// Example: maitred snapshot inspect backup.snap -o json
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The snapshot
    file: PathBuf,
    /// The same as -o json
    #[arg(long)]
    json: bool,
}

/// Begin a new cluster from a snapshot; needs no host, and asks none
///
/// For when most hosts of a cluster are lost for good. The new directory belongs to host 1 of a new
/// cluster, its only voter. All revisions, and with them incarnations and epochs, begin far beyond
/// those of the old cluster, so that nothing that still runs on an old one is taken for current.
/// Hosts of the old cluster are strangers to the new one: stop them, and let the machines join on
/// empty directories.
///
/// Example: maitred snapshot restore backup.snap --data-dir data --name a
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The snapshot
    file: PathBuf,
    /// The new data directory; absent, or empty
    #[arg(
        long,
        value_name = "DIR",
        env = "MAITRED_DATA_DIR",
        hide_env_values = true
    )]
    data_dir: PathBuf,
    /// The name of the new cluster's first host: letters, digits, '.', '_' and '-'
    #[arg(
        long,
        value_name = "NAME",
        env = "MAITRED_NAME",
        hide_env_values = true
    )]
    name: HostName,
    /// How far the revisions are raised; more than the old cluster can have written since the snapshot
    #[arg(long, value_name = "N", default_value_t = INDEX_BUMP,
          value_parser = clap::value_parser!(u64).range(1_000..=1_000_000_000_000_000))]
    bump: u64,
    /// Copy the modules' bytes from here: an old data directory, or its folder `modules`
    #[arg(long, value_name = "DIR")]
    modules_from: Option<PathBuf>,
}

impl Snapshot {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        match self {
            Self::Save(verb) => verb.run(shell).await,
            Self::Inspect(verb) => verb.run(shell),
            Self::Restore(verb) => verb.run(shell),
        }
    }
}

impl Save {
    async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let mut fresh = NewFile::begin(&self.file, self.force)?;
        let client = shell.client().await?;
        let begun = Instant::now();
        let bar = bar(shell);
        let shown = bar.clone();
        let saved = client
            .save_snapshot(self.newest_kept, fresh.file(), move |received, of| {
                shown.set_length(of);
                shown.set_position(received);
            })
            .await;
        bar.finish_and_clear();
        let saved = saved?;
        fresh.keep()?;
        let body = json!({
            "file": self.file.display().to_string(),
            "host": saved.host.to_string(),
            "index": saved.index.to_string(),
            "bytes": saved.bytes.to_string(),
            "digest": saved.digest.to_string(),
            "millis": begun.elapsed().as_millis().to_string(),
        });
        shell.out.show("SnapshotSaved", body, || {
            format!(
                "saved {} from host {}: revision {}, {} in {}\nnext: maitred snapshot inspect {}",
                self.file.display(),
                saved.host,
                saved.index,
                size(saved.bytes),
                short(begun.elapsed()),
                self.file.display(),
            )
        })
    }
}

fn bar(shell: &Shell) -> ProgressBar {
    let target = if shell.out.is_json() {
        ProgressDrawTarget::hidden()
    } else {
        // Hidden by itself when stderr is no terminal.
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(None, target);
    let template = if colours(&std::io::stderr()) {
        "{spinner:.cyan} {bar:40.cyan} {bytes}/{total_bytes} {bytes_per_sec} {elapsed}"
    } else {
        "{spinner} {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {elapsed}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// `17.3 MiB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1_024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

fn of_tool(error: &SnapshotToolError) -> Failure {
    Failure::advised(
        Exit::Other,
        "snapshot",
        &error.to_string(),
        "check that the file is a snapshot, and whole: compare its size with what `save` said",
    )
}

impl Inspect {
    fn run(&self, shell: &Shell) -> Result<(), Failure> {
        // Said as what it is, rather than as damage.
        File::open(&self.file).map_err(|error| Failure::file("read", &self.file, &error))?;
        let summary = inspect_snapshot(&self.file).map_err(|error| of_tool(&error))?;
        let mut out = shell.out;
        if self.json {
            out.format = crate::out::Format::Json;
        }
        out.show("Snapshot", to_json(&self.file, &summary), || {
            text(&self.file, &summary)
        })
    }
}

fn to_json(file: &Path, summary: &SnapshotSummary) -> Value {
    let numbers =
        |hosts: &[u64]| -> Value { hosts.iter().map(|host| json!(host.to_string())).collect() };
    let member = |(host, name, address): &(u64, HostName, String)| json!({ "host": host.to_string(), "name": name.as_str(), "address": address });
    let module = |(name, digests): &(ModuleName, Vec<Digest>)| {
        let digests: Vec<String> = digests.iter().map(ToString::to_string).collect();
        json!({ "name": name.as_str(), "digests": digests })
    };
    json!({
        "file": file.display().to_string(),
        "index": summary.index.to_string(),
        "term": summary.term.to_string(),
        "level": summary.level,
        "voters": numbers(&summary.voters),
        "learners": numbers(&summary.learners),
        "members": summary.members.iter().map(member).collect::<Vec<_>>(),
        "running": summary.running.to_string(),
        "starting": summary.starting.to_string(),
        "pending": summary.pending.to_string(),
        "nodes": summary.nodes,
        "modules": summary.modules.iter().map(module).collect::<Vec<_>>(),
        "types": summary.types,
        "sessions": summary.sessions,
        "bytes": summary.bytes.to_string(),
        "digest": summary.digest.to_string(),
        "state": summary.state.to_string(),
    })
}

fn text(file: &Path, summary: &SnapshotSummary) -> String {
    let members: Vec<String> = summary
        .members
        .iter()
        .map(|(host, name, address)| {
            let votes = if summary.voters.contains(host) {
                ""
            } else {
                ", no vote"
            };
            format!("{name} (host {host}, {address}{votes})")
        })
        .collect();
    let modules: Vec<String> = summary
        .modules
        .iter()
        .map(|(name, digests)| format!("{name} ({})", digests.len()))
        .collect();
    let none = |list: Vec<String>| match list.is_empty() {
        true => "none".to_owned(),
        false => list.join(", "),
    };
    fields(&[
        (
            "snapshot",
            format!("{}: whole, {}", file.display(), size(summary.bytes)),
        ),
        (
            "at",
            format!(
                "revision {} of term {}, level {}",
                summary.index, summary.term, summary.level
            ),
        ),
        ("members", none(members)),
        (
            "processes",
            format!(
                "{} running, {} starting, {} pending",
                summary.running, summary.starting, summary.pending
            ),
        ),
        ("nodes", summary.nodes.to_string()),
        ("types", summary.types.to_string()),
        (
            "modules",
            format!("{} (with their versions)", none(modules)),
        ),
        ("sessions", summary.sessions.to_string()),
        ("file hash", summary.digest.to_string()),
        ("state hash", summary.state.to_string()),
    ])
}

impl Restore {
    fn run(&self, shell: &Shell) -> Result<(), Failure> {
        File::open(&self.file).map_err(|error| Failure::file("read", &self.file, &error))?;
        if let Some(folder) = &self.modules_from {
            std::fs::read_dir(folder).map_err(|error| Failure::file("read", folder, &error))?;
        }
        let job = Job {
            file: self.file.clone(),
            dir: self.data_dir.clone(),
            name: self.name.clone(),
            index_bump: self.bump,
            modules_from: self.modules_from.clone(),
        };
        let restored = restore_snapshot(&job).map_err(|error| self.refused(&error))?;
        let missing: Vec<&str> = restored
            .modules_missing
            .iter()
            .map(|name| name.as_str())
            .collect();
        let body = json!({
            "data_dir": self.data_dir.display().to_string(),
            "cluster": restored.cluster.to_string(),
            "host": restored.host.to_string(),
            "name": self.name.as_str(),
            "index": restored.index.to_string(),
            "term": restored.term.to_string(),
            "modules_copied": restored.modules_copied,
            "modules_missing": missing,
        });
        shell
            .out
            .show("SnapshotRestored", body, || self.text(&restored, &missing))
    }

    fn refused(&self, error: &SnapshotToolError) -> Failure {
        let mut failure = of_tool(error);
        if self.data_dir.exists()
            && failure
                .message
                .contains(&self.data_dir.display().to_string())
        {
            failure.exit = Exit::Conflict;
            failure.code = "data_dir";
        }
        failure
    }

    fn text(&self, restored: &Restored, missing: &[&str]) -> String {
        let dir = self.data_dir.display();
        let modules = if missing.is_empty() {
            format!("all {} modules' bytes are there", restored.modules_copied)
        } else {
            format!(
                "the bytes of {} are not there, and their types use the fallback: push the same components again, or copy them into {dir}/modules from an old data directory before the start",
                missing.join(", ")
            )
        };
        format!(
            "restored {} to {dir}\n  cluster   {} (new), host {} ({}) is its only voter\n  revision  {}, in term {}\n  modules   {modules}\n\
             next: maitred serve --data-dir {dir} --listen IP:PORT --ca ca.pem --cert host.pem --key host.key\n\
             then, on the other machines and on empty directories: maitred serve --join IP:PORT --name NAME --data-dir data …",
            self.file.display(),
            restored.cluster,
            restored.host,
            self.name,
            restored.index,
            restored.term,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size(7), "7 bytes");
        assert_eq!(size(1_536), "1.5 KiB");
        assert_eq!(size(18_140_365), "17.3 MiB");
    }
}
