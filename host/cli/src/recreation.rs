//! `recreation`: whether processes of lost nodes are created again, and holding that up.

use std::collections::BTreeMap;

use clap::Subcommand;
use maitred_protocol::{Status, Switch};
use serde_json::json;

use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;
use crate::out::fields;
use crate::process::pending;

/// See whether processes of lost nodes are created again, hold that up, let it go on
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Recreation {
    /// Show whether it is paused and by what, and how many processes wait for what
    ///
    /// It pauses by itself when many nodes are lost at once, since that is more often a network than
    /// so many deaths; see `maitred serve --help`.
    ///
    /// Example: maitred recreation status
    Status,
    /// Create nothing again until `recreation resume`
    ///
    /// Processes that lose their nodes stay pending; new creates go on.
    ///
    /// Example: maitred recreation pause
    Pause,
    /// Let it go on; also ends the pause that the loss of many nodes has brought about
    ///
    /// Example: maitred recreation resume
    Resume,
}

impl Recreation {
    pub(crate) async fn run(self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let paused = match self {
            Self::Status => {
                let status = client.status().await?;
                let reasons = pending::by_reason(&client).await?;
                let mut body = shape::switches(&status);
                body["waits"] = json!(reasons);
                return shell
                    .out
                    .show("Recreation", body, || text(&status, &reasons));
            }
            Self::Pause => true,
            Self::Resume => false,
        };
        let revision = client.suspend(Switch::Recreation, paused).await?;
        let body = json!({ "revision": revision.to_string(), "recreation_suspended": paused });
        shell.out.show("Done", body, || {
            if paused {
                "nothing is created again, until `maitred recreation resume`".to_owned()
            } else {
                "processes of lost nodes are created again".to_owned()
            }
        })
    }
}

fn text(status: &Status, reasons: &BTreeMap<&'static str, u64>) -> String {
    let state = status.recreation_paused.as_ref().map_or_else(
        || "goes on".to_owned(),
        |why| format!("PAUSED: {why}; `maitred recreation resume` lets it go on"),
    );
    let mut rows = vec![
        ("recreation", state),
        ("pending", status.pending.to_string()),
    ];
    for (reason, count) in reasons {
        rows.push((said(reason), count.to_string()));
    }
    if status.held > 0 || status.lost > 0 {
        let text = format!(
            "{} keys; lost sessions: {} (maitred node ls --lost)",
            status.held, status.lost
        );
        rows.push(("held", text));
    }
    fields(&rows)
}

/// A reason's word, for people.
fn said(reason: &'static str) -> &'static str {
    match reason {
        "nothing" => "  being placed",
        "held" => "  an earlier life may go on",
        "back_off" => "  pausing after a failure",
        "no_node" => "  no node will do",
        "turn" => "  waiting for their turn",
        "paused" => "  held up by the pause",
        other => other,
    }
}
