//! What the agent wants done: the game's handlers, and what is asked of hosts in the background.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use maitred_protocol::{
    Incarnation, KeepAlive, NodeEpoch, ProcessKey, Request, Response, SetProcess,
};

use super::{Driver, guarded};
use crate::agent::{Effect, Input, SpawnError, Spawned};
use crate::error::Error;
use crate::node::{NodeHandler, Shared, SpawnRequest};
use crate::verbs::NO_SESSION;

/// One try at a delete or an adoption, the pause after it, and how many there are: about half an hour.
const TRY_TIMEOUT: Duration = Duration::from_secs(30);
const TRY_PAUSE: Duration = Duration::from_secs(1);
const TRIES: u32 = 60;
/// Longest to wait for the end of the session when leaving.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

impl<H: NodeHandler> Driver<H> {
    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Answer(tag, answer) => {
                if let Some((conn, id)) = self.tags.remove(&tag) {
                    conn.answer_command(id, answer);
                }
            }
            Effect::Spawn {
                key,
                incarnation,
                payload,
                deadline_ms,
            } => self.spawn(SpawnRequest {
                key,
                incarnation,
                payload,
                deadline: Duration::from_millis(deadline_ms.into()),
            }),
            Effect::Stop(key, incarnation) => self.stop(key, incarnation),
            Effect::KeepAlive {
                epoch,
                sequence,
                stop_ms,
                by_stream,
            } => {
                let load = None;
                let message = KeepAlive {
                    epoch,
                    sequence,
                    load,
                    stop_ms,
                };
                self.keep_alive(message, by_stream);
            }
            Effect::Enroll {
                number,
                epoch,
                last_epoch,
                inventory,
            } => self.enroll(number, (epoch, last_epoch), inventory),
            Effect::Delete(key, incarnation) => {
                let shared = Arc::clone(&self.shared);
                let request = Request::DelProcess {
                    client: NO_SESSION,
                    key,
                    incarnation: Some(incarnation),
                    ended: true,
                };
                tokio::spawn(async move { delete(&shared, request).await });
            }
            Effect::Adopt {
                epoch,
                key,
                incarnation,
                spawned,
            } => {
                let shared = Arc::clone(&self.shared);
                let life = (epoch, key, incarnation);
                tokio::spawn(async move { adopt(&shared, life, spawned).await });
            }
            Effect::Adopted(key, old, new) => {
                tracing::info!(%key, %old, %new, "a process was registered anew");
                guarded("adopted", || self.handler.adopted(key, old, new));
            }
            Effect::LeaseLost => {
                tracing::warn!(node = %self.shared.name, "the lease is lost; stopping everything");
                guarded("lease_lost", || self.handler.lease_lost());
            }
            Effect::Leave(epoch) => self.leaving = Some(epoch),
        }
    }

    fn stop(&self, key: ProcessKey, incarnation: Incarnation) {
        let (handler, name) = (Arc::clone(&self.handler), key.clone());
        let stop = async move { handler.stop(name, incarnation).await };
        let (stop, inputs) = (self.game.spawn(stop), self.shared.inputs.clone());
        let unstopped = Arc::clone(&self.unstopped);
        tokio::spawn(async move {
            match stop.await {
                Ok(()) => {}
                Err(error) if error.is_panic() => {
                    tracing::error!(%key, %error, "the stop handler panicked");
                }
                Err(_) => drop(unstopped.fetch_add(1, Ordering::Relaxed)),
            }
            let _ = inputs.send(Input::StopEnded(key, incarnation));
        });
    }

    fn spawn(&self, request: SpawnRequest) {
        let (key, incarnation) = (request.key.clone(), request.incarnation);
        let handler = Arc::clone(&self.handler);
        let spawn = self.game.spawn(async move { handler.spawn(request).await });
        let inputs = self.shared.inputs.clone();
        tokio::spawn(async move {
            let result = spawn.await.unwrap_or_else(|error| {
                if error.is_panic() {
                    tracing::error!(%key, %error, "the spawn handler panicked");
                    Err(SpawnError::Failed("the spawn handler panicked".to_owned()))
                } else {
                    Err(SpawnError::Busy("the game is ending".to_owned()))
                }
            });
            let _ = inputs.send(Input::SpawnEnded(key, incarnation, result));
        });
    }

    pub(super) async fn deregister(&self, epoch: NodeEpoch) {
        let request = Request::DeregisterNode {
            client: NO_SESSION,
            name: self.shared.name.clone(),
            epoch,
        };
        if let Err(error) = self.shared.caller.call(request, LEAVE_TIMEOUT).await {
            tracing::warn!(%error, "the node's session was not ended; its lease will run out");
        }
    }
}

/// Removes a record, until the registry says that it is gone or is another's.
async fn delete(shared: &Shared, request: Request) {
    for _ in 0..TRIES {
        match shared.caller.call(request.clone(), TRY_TIMEOUT).await {
            Ok(_) | Err(Error::Rejected(_)) => return,
            Err(error) => tracing::debug!(%error, "a record was not removed yet"),
        }
        tokio::time::sleep(TRY_PAUSE).await;
    }
    tracing::warn!("a record of an ended process was not removed; the registry may still show it");
}

/// Registers a life anew, until there is an answer. Without an incarnation that is asked again safely:
/// once it is this session's own, the answer is always what it is called.
async fn adopt(shared: &Shared, life: (NodeEpoch, ProcessKey, Incarnation), spawned: Spawned) {
    let (epoch, key, incarnation) = life;
    let set = SetProcess {
        key: key.clone(),
        node: shared.name.clone(),
        epoch,
        pid: spawned.pid,
        share: spawned.share,
        incarnation: None,
    };
    let request = Request::SetProcess(NO_SESSION, Box::new(set));
    let mut new = None;
    for _ in 0..TRIES {
        match shared.caller.call(request.clone(), TRY_TIMEOUT).await {
            Ok(Response::Process { record, .. }) => {
                new = Some(record.incarnation);
                break;
            }
            Ok(_) => break,
            Err(Error::Rejected(error)) => {
                tracing::warn!(%key, %error, "a process that the registry has forgotten is stopped");
                break;
            }
            Err(error) => tracing::debug!(%key, %error, "a process was not registered anew yet"),
        }
        tokio::time::sleep(TRY_PAUSE).await;
    }
    let _ = shared.inputs.send(Input::Adopted {
        epoch,
        key,
        incarnation,
        new,
    });
}
