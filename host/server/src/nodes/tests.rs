//! What is left of commands once a session has ended.

use super::*;
use tokio::sync::oneshot::error::TryRecvError;

fn start(life: &Life) -> NodeCommand {
    NodeCommand::Start {
        term: 1,
        key: life.0.clone(),
        incarnation: life.1,
        payload: Vec::new(),
        deadline_ms: 60_000,
        try_number: 1,
    }
}

#[test]
fn a_stop_for_a_session_that_has_ended_is_answered_at_once_and_leaves_nothing() {
    let nodes = Nodes::new(Arc::default(), Arc::default());
    let (name, epoch) = (NodeName::new("n1").unwrap(), NodeEpoch(5));
    let life = (ProcessKey::new("room", "1").unwrap(), Incarnation(7));
    let node = (&name, epoch);
    let started = nodes
        .start(node, start(&life), Duration::from_secs(60))
        .unwrap();
    let mut stopped = nodes.stop_and_tell(node, 1, life.clone()).unwrap();
    assert_eq!(stopped.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(nodes.waiting(), 2);
    nodes.end(epoch);
    drop(started);
    assert_eq!(stopped.try_recv(), Err(TryRecvError::Closed));
    let mut late = nodes.stop_and_tell(node, 1, life).unwrap();
    assert_eq!(late.try_recv(), Err(TryRecvError::Closed));
    nodes.sweep();
    assert_eq!((nodes.waiting(), nodes.lock().sessions.len()), (0, 0));
}

#[test]
fn a_stop_for_a_session_that_was_only_forgotten_waits_for_its_node() {
    let nodes = Nodes::new(Arc::default(), Arc::default());
    let (name, epoch) = (NodeName::new("n1").unwrap(), NodeEpoch(5));
    let life = (ProcessKey::new("room", "1").unwrap(), Incarnation(7));
    // Nothing is left of it once a start has had no answer, though its node may be back at any time.
    drop(nodes.start((&name, epoch), start(&life), Duration::from_secs(60)));
    nodes.sweep();
    assert_eq!((nodes.waiting(), nodes.lock().sessions.len()), (0, 0));
    nodes.forget_all();
    let mut stopped = nodes
        .stop_and_tell((&name, epoch), 1, life.clone())
        .unwrap();
    assert_eq!(stopped.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(nodes.waiting(), 1);
    nodes.end(epoch);
    assert_eq!(stopped.try_recv(), Err(TryRecvError::Closed));
    for other in 10..10 + 2 * ENDED_MAX as u64 {
        nodes.end(NodeEpoch(other));
    }
    assert_eq!(nodes.lock().ended.len(), ENDED_MAX);
}
