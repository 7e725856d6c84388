//! A node that is busy at first, for callbacks.

use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maitred_protocol::{Digest, Incarnation, ModuleKind, NodeName, ProcessKey};
use maitred_sandbox::{
    BoxFuture, CallbackJob, Callbacks, NodeFailure, NodePort, Placement, Process, SpawnFailure,
    SpawnRequest, Started,
};

use crate::sandbox::{bench, is_accepted, module};

/// Starts that are refused before one succeeds; what it was told.
struct Node {
    busy: u32,
    told: Mutex<Vec<(Vec<u8>, u32)>>,
}

impl NodePort for Node {
    fn start(
        &self,
        payload: Vec<u8>,
        _: Duration,
        attempt: u32,
    ) -> BoxFuture<'_, Result<Started, NodeFailure>> {
        self.told.lock().unwrap().push((payload, attempt));
        Box::pin(ready(if attempt <= self.busy {
            Err(NodeFailure::Busy("full".to_owned()))
        } else {
            Ok(started())
        }))
    }

    fn stop(&self, _: Duration) -> BoxFuture<'_, Result<(), NodeFailure>> {
        Box::pin(ready(Ok(())))
    }

    fn lookup(&self, _: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        Box::pin(ready(None))
    }
}

fn started() -> Started {
    Started {
        pid: "17".to_owned(),
        share: vec![1, 2, 255],
    }
}

/// The callback of the templates asks three times, then leaves.
pub(crate) fn a_busy_node_is_asked_again(bytes: &[u8]) {
    is_accepted(bytes, "callback");
    let bench = bench();
    let module = module(bytes);
    let kind = ModuleKind::Callback;
    bench.sandbox.load(Digest::of(bytes), kind, bytes).unwrap();
    let callbacks = Callbacks::new(Arc::clone(&bench.sandbox));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    for (busy, tries) in [(0, 1), (2, 3), (3, 3)] {
        let node = Arc::new(Node {
            busy,
            told: Mutex::default(),
        });
        let job = CallbackJob {
            module: module.clone(),
            request: request(),
            placement: Placement {
                node: NodeName::new("node-1").unwrap(),
                address: "10.0.0.1:7000".to_owned(),
                incarnation: Incarnation(42),
            },
            deadline: Instant::now() + Duration::from_secs(60),
        };
        let port: Arc<dyn NodePort> = node.clone();
        let answer = runtime.block_on(callbacks.spawn(job, port));
        if busy < 3 {
            assert_eq!(answer, Ok(started()));
        } else {
            match answer {
                Err(SpawnFailure::Elsewhere(reason)) => {
                    assert!(reason.contains("full"), "{reason}")
                }
                other => panic!("{other:?}"),
            }
        }
        let told = node.told.lock().unwrap();
        let want: Vec<_> = (1..=tries)
            .map(|attempt| (b"map=3".to_vec(), attempt))
            .collect();
        assert_eq!(*told, want);
    }
}

fn request() -> SpawnRequest {
    SpawnRequest {
        key: ProcessKey::new("player", "p1").unwrap(),
        args: b"map=3".to_vec(),
        group: None,
        requester: None,
        previous: None,
        demand: 1,
        priority: 0,
        attempt: 1,
        seed: 7,
        time_s: 1_700_000_000,
    }
}
