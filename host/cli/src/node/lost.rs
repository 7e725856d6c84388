//! `node ls --lost` and `node confirm-dead`: sessions that ended without a word, and an operator's
//! word that nothing of them goes on.

use clap::Args;
use maitred_client::Client;
use maitred_protocol::{LostNode, NodeEpoch, NodeName};
use serde_json::json;

use super::millis;
use crate::ask::confirmed;
use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::json as shape;
use crate::out::{ago, table};

pub(super) async fn ls(shell: &Shell) -> Result<(), Failure> {
    let client = shell.client().await?;
    let lost = client.lost_nodes().await?;
    let items = lost.iter().map(shape::lost).collect();
    shell.out.list("LostList", items, || {
        if lost.is_empty() {
            return "no lost session has anything that may still go on".to_owned();
        }
        rows(&lost)
    })?;
    client.close().await;
    Ok(())
}

fn rows(lost: &[LostNode]) -> String {
    let header = [
        "NODE",
        "EPOCH",
        "LOST",
        "KILL BOUND",
        "WAIT FOR IT",
        "WAIT FOR PROOF",
        "RELEASED BY",
    ];
    let row = |one: &LostNode| {
        vec![
            one.name.to_string(),
            one.epoch.to_string(),
            format!("{} ago", ago(one.lost_ms)),
            millis(one.kill_bound_ms),
            one.safe.to_string(),
            one.strict.to_string(),
            released_by(one),
        ]
    };
    table(&header, lost.iter().map(row))
}

/// What would let its keys go on elsewhere.
fn released_by(one: &LostNode) -> String {
    let proof = format!(
        "its return, its types' fences, or maitred node confirm-dead {} --epoch {}",
        one.name, one.epoch
    );
    match (one.safe, one.strict) {
        (_, 0) => "its kill bound, by itself".to_owned(),
        (0, _) => proof,
        (_, _) => format!("its kill bound, by itself; for {}: {proof}", one.strict),
    }
}

/// Say that a node is dead: nothing that it ran goes on, its keys may be given to others
///
/// For a node that was lost, whose processes wait for proof (restart level strict) or for its kill
/// bound. Be sure of it: switch the machine off, or see its processes gone. If it is wrong, two
/// lives of one process may run at a time. A session that is still live ends, and the node stops
/// what it runs when it hears of that.
///
/// Example: maitred node confirm-dead eu-1
///
/// Example: maitred node confirm-dead eu-1 --epoch 4711 --yes
#[derive(Debug, Args)]
pub(crate) struct ConfirmDead {
    /// Which node
    node: NodeName,
    /// Only this session of it, as `maitred node ls --lost` shows it [default: all until now]
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,
    /// Do not ask whether that is meant; needed where there is no terminal to ask at
    #[arg(long)]
    yes: bool,
}

impl ConfirmDead {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let waiting = self.waiting(&client).await?;
        if !self.yes {
            let question = self.question(&client, waiting).await;
            let what = format!("{} is to be taken for dead", self.node);
            if !confirmed(&what, &question)? {
                let help = "nothing was changed; --yes answers yes";
                let message = "not confirmed";
                return Err(Failure::new(Exit::Other, "declined", message, help));
            }
        }
        let epoch = self.epoch.map(NodeEpoch);
        let revision = client.confirm_dead(&self.node, epoch).await?;
        let body = json!({ "revision": revision.to_string(), "keys": waiting });
        shell.out.show("Done", body, || {
            format!(
                "{} is taken for dead; {waiting} keys waited for that",
                self.node
            )
        })?;
        client.close().await;
        Ok(())
    }

    /// Keys that wait for it.
    async fn waiting(&self, client: &Client) -> Result<u32, Failure> {
        let lost = client.lost_nodes().await?;
        let meant = |one: &&LostNode| {
            one.name == self.node && self.epoch.is_none_or(|epoch| one.epoch == NodeEpoch(epoch))
        };
        let keys = lost.iter().filter(meant);
        Ok(keys.map(|one| one.safe + one.strict).sum())
    }

    async fn question(&self, client: &Client, waiting: u32) -> String {
        let live = client.get_node(&self.node).await.ok();
        let live = live.filter(|node| self.epoch.is_none_or(|epoch| node.epoch.0 == epoch));
        let live = live.map_or(String::new(), |node| {
            format!(
                " It has a LIVE session ({}) with {} processes, which would end.",
                node.epoch, node.processes
            )
        });
        format!(
            "Take {} for dead, so that {waiting} keys may be given to others? Only if nothing that it ran \
             goes on: two lives of one process would run otherwise.{live}",
            self.node
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_releases_the_keys_of_a_lost_session_is_said() {
        let mut one = LostNode {
            name: NodeName::new("eu-1").unwrap(),
            epoch: NodeEpoch(4_711),
            lost_ms: 0,
            kill_bound_ms: 1_000,
            safe: 3,
            strict: 0,
        };
        assert_eq!(released_by(&one), "its kill bound, by itself");
        one.strict = 2;
        let both = released_by(&one);
        assert!(both.contains("by itself; for 2: its return"), "{both}");
        one.safe = 0;
        let proof = released_by(&one);
        assert!(proof.contains("confirm-dead eu-1 --epoch 4711"), "{proof}");
        assert!(rows(&[one]).contains("eu-1  4711"));
    }
}
