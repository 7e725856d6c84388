//! `node drain`: empty a node. The leader carries a drain out; looking on until it is done is in
//! [`follow`].

mod follow;

use std::time::Duration;

use clap::Args;
use maitred_client::Client;
use maitred_protocol::limits::MOVES_PER_SECOND_MAX;
use maitred_protocol::{NodeName, NodeRecord};
use serde_json::json;

use crate::args::{millis, patience};
use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::json as shape;
use crate::out::until;
use follow::follow;

/// How long a drain waits, unless it says otherwise.
const DEADLINE: Duration = Duration::from_secs(600);
/// Processes that are moved in a second, unless it says otherwise.
const RATE: u32 = 50;

/// Empty a node: its processes are moved, left to end, or stopped, as their types' --on-drain says
///
/// The node takes nothing new from now on, until `maitred node uncordon`. A move stops a process
/// here, waits until the node has said so, and creates it elsewhere; only while another node would
/// take it. At the deadline everything is moved, or stopped if it cannot be. The cluster carries it
/// out by itself: Ctrl-C ends only the looking on, and the same command, or --watch, goes on with
/// that. Exit code 6 when something is left after the deadline.
///
/// Example: maitred node drain eu-1
///
/// Example: maitred node drain eu-1 --deadline 30m --rate 10 --no-wait
///
/// Example: maitred node drain eu-1 --watch
#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Which node
    node: NodeName,
    /// When nothing is waited for any more, 1s to 24h [default: 10m, or that of the drain under way]
    #[arg(long, value_name = "TIME", value_parser = patience)]
    deadline: Option<Duration>,
    /// Processes that are moved or stopped in a second, 1 to 10000 [default: 50, or that of the drain
    /// under way]
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOVES_PER_SECOND_MAX)))]
    rate: Option<u32>,
    /// End when the drain is recorded; it goes on by itself
    #[arg(long, conflicts_with_all = ["watch", "cancel"])]
    no_wait: bool,
    /// Only look on at the drain that is under way
    #[arg(long, conflicts_with_all = ["deadline", "rate", "cancel"])]
    watch: bool,
    /// End the drain; the node stays cordoned, and what has been moved stays where it is
    #[arg(long, conflicts_with_all = ["deadline", "rate"])]
    cancel: bool,
}

impl Drain {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        if self.cancel {
            return self.end(shell, &client).await;
        }
        let mut node = client.get_node(&self.node).await?;
        if self.begins(&node)? {
            client.drain_node(&self.node, self.how(&node)).await?;
            node = client.get_node(&self.node).await?;
        }
        if !self.no_wait {
            return follow(shell, &client, node).await;
        }
        let body = json!({ "node": shape::node(&node) });
        shell.out.show("Draining", body, || {
            let name = &self.node;
            let left = node.processes;
            format!("{name} drains: {left} left; see `maitred node drain {name} --watch`")
        })
    }

    /// Whether one is asked for, and not only looked at: one that is under way is left as it is, unless
    /// it is to be carried out in another way.
    fn begins(&self, node: &NodeRecord) -> Result<bool, Failure> {
        if self.watch && node.drain.is_none() {
            let message = format!("{} is not being drained", self.node);
            let help = format!("begin with `maitred node drain {}`", self.node);
            return Err(Failure::new(Exit::NotFound, "not_draining", message, help));
        }
        let goes_on = |drain: maitred_protocol::DrainState| !until(drain.deadline_at_ms).is_zero();
        let asked = self.deadline.is_some() || self.rate.is_some();
        Ok(!self.watch && (asked || !node.drain.is_some_and(goes_on)))
    }

    fn how(&self, node: &NodeRecord) -> maitred_protocol::Drain {
        let before = node.drain;
        let left = before.map(|drain| until(drain.deadline_at_ms));
        let left = left.filter(|left| *left >= Duration::from_secs(1));
        let deadline = self.deadline.or(left).unwrap_or(DEADLINE);
        let rate = self.rate.or(before.map(|drain| drain.per_second));
        maitred_protocol::Drain {
            deadline_ms: millis(Some(deadline)),
            per_second: rate.unwrap_or(RATE),
        }
    }

    async fn end(&self, shell: &Shell, client: &Client) -> Result<(), Failure> {
        let revision = client.cancel_drain(&self.node).await?;
        let body = json!({ "revision": revision.to_string() });
        shell.out.show("Done", body, || {
            let name = &self.node;
            format!(
                "{name} is not drained any further, and stays cordoned: maitred node uncordon {name}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::node;
    use super::*;
    use maitred_protocol::DrainState;

    fn asked() -> Drain {
        Drain {
            node: NodeName::new("eu-1").unwrap(),
            deadline: None,
            rate: None,
            no_wait: false,
            watch: false,
            cancel: false,
        }
    }

    pub(super) fn under_way(deadline_at_ms: u64) -> NodeRecord {
        let drain = DrainState {
            began_ms: 1,
            deadline_at_ms,
            per_second: 7,
            processes: 30,
        };
        NodeRecord {
            drain: Some(drain),
            ..node()
        }
    }

    #[test]
    fn a_drain_that_is_under_way_is_looked_at_and_not_begun_again() {
        let far = u64::MAX / 2;
        assert!(asked().begins(&node()).unwrap());
        assert!(!asked().begins(&under_way(far)).unwrap());
        // Its time has passed: it begins anew.
        assert!(asked().begins(&under_way(1)).unwrap());
        let faster = Drain {
            rate: Some(9),
            ..asked()
        };
        assert!(faster.begins(&under_way(far)).unwrap());
        assert_eq!(faster.how(&under_way(1)).per_second, 9);
        assert_eq!(asked().how(&under_way(1)).per_second, 7);
        let how = asked().how(&node());
        assert_eq!((how.per_second, how.deadline_ms), (50, 600_000));
        let watch = Drain {
            watch: true,
            ..asked()
        };
        assert!(!watch.begins(&under_way(1)).unwrap());
        let refused = watch.begins(&node()).unwrap_err();
        assert_eq!(
            (refused.exit, refused.code),
            (Exit::NotFound, "not_draining")
        );
    }
}
