//! The standard callback `start`: tells the chosen node to start the process, once.
//!
//! The arguments go to the node as they are, and the node has as long as the create has. Whatever
//! goes wrong on this node may go right on another, so every failure means `elsewhere`: the host
//! counts the attempt, and cancels this incarnation on a node that did not answer.

use maitred_guest::{
    Access, Callback, Placement, Request, SpawnFailure, StartFailure, Started, export_callback,
};

/// See the head of this file.
#[derive(Default)]
pub struct Start;

/// The most that the host takes; it cuts it to the deadline of the create.
const DEADLINE_MS_MAX: u32 = 600_000;

impl Callback for Start {
    const NAME: &'static str = "start";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn spawn(
        &self,
        request: &Request,
        _: &Placement,
        access: Access<'_>,
    ) -> Result<Started, SpawnFailure> {
        access
            .node
            .start(&request.args, DEADLINE_MS_MAX)
            .map_err(|failure| {
                SpawnFailure::Elsewhere(match failure {
                    StartFailure::Busy(reason) => format!("busy: {reason}"),
                    StartFailure::Failed(reason) => format!("failed: {reason}"),
                    StartFailure::NoAnswer(reason) => format!("no answer: {reason}"),
                })
            })
    }
}

export_callback!(Start);

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_guest::testing::{TestNode, request, spawn};

    #[test]
    fn the_node_gets_the_arguments_once_and_its_answer_is_the_answer() {
        let started = Started {
            pid: "17".to_owned(),
            share: vec![1, 2],
        };
        let node = TestNode::answering(Ok(started.clone()));
        let request = Request {
            args: b"map=3".to_vec(),
            ..request("room", "r")
        };
        assert_eq!(spawn::<Start>(&request, &node), Ok(started));
        assert_eq!(node.starts(), [(b"map=3".to_vec(), DEADLINE_MS_MAX)]);
    }

    #[test]
    fn every_failure_goes_elsewhere() {
        for (failure, reason) in [
            (StartFailure::Busy("full".to_owned()), "busy: full"),
            (StartFailure::Failed("no map".to_owned()), "failed: no map"),
            (StartFailure::NoAnswer("lost".to_owned()), "no answer: lost"),
        ] {
            let node = TestNode::answering(Err(failure));
            assert_eq!(
                spawn::<Start>(&request("room", "r"), &node),
                Err(SpawnFailure::Elsewhere(reason.to_owned()))
            );
            assert_eq!(node.starts().len(), 1);
        }
    }
}
