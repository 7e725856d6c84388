//! What the agent wants done: the game's handlers, and what is asked of hosts in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
/// Pauses before a stop that panicked is called again: the first, which then doubles, and the longest.
const STOP_PAUSE: Duration = Duration::from_millis(100);
const STOP_PAUSE_MAX: Duration = Duration::from_secs(10);
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
                tokio::spawn(async move { tell_end(&shared, request).await });
            }
            Effect::Report(key, incarnation, reason) => {
                let shared = Arc::clone(&self.shared);
                let request = Request::ProcessExited {
                    client: NO_SESSION,
                    key,
                    incarnation,
                    reason,
                };
                tokio::spawn(async move { tell_end(&shared, request).await });
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
        let (inputs, stop) = (
            self.shared.inputs.clone(),
            self.stopping(key.clone(), incarnation),
        );
        tokio::spawn(async move {
            stop.await;
            let _ = inputs.send(Input::StopEnded(key, incarnation));
        });
    }

    /// Has the game stop a life, and ends when that has returned: nothing else says that nothing runs. A
    /// handler that panics is called again; one that is dropped, with the game's runtime, never says so.
    fn stopping(
        &self,
        key: ProcessKey,
        incarnation: Incarnation,
    ) -> impl Future<Output = ()> + use<H> {
        let (handler, game) = (Arc::clone(&self.handler), self.game.clone());
        let unstopped = Arc::clone(&self.unstopped);
        async move {
            let mut pause = STOP_PAUSE;
            loop {
                let (handler, name) = (Arc::clone(&handler), key.clone());
                let stop = game.spawn(async move { handler.stop(name, incarnation).await });
                match stop.await {
                    Ok(()) => return,
                    Err(error) if error.is_panic() => {
                        tracing::error!(%key, %error, "the stop handler panicked; it is called again");
                    }
                    Err(_) => {
                        unstopped.fetch_add(1, Ordering::Relaxed);
                        return std::future::pending().await;
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(STOP_PAUSE_MAX);
            }
        }
    }

    fn spawn(&self, request: SpawnRequest) {
        let (key, incarnation) = (request.key.clone(), request.incarnation);
        let (handler, shared) = (Arc::clone(&self.handler), Arc::clone(&self.shared));
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        let spawn = self.game.spawn(async move {
            // The game's runtime may not have come to this for long.
            if !shared.may_begin(&request.key, incarnation) {
                let why = "the node has lost its lease, or the start was cancelled";
                return Err(SpawnError::Busy(why.to_owned()));
            }
            begins.store(true, Ordering::Release);
            handler.spawn(request).await
        });
        let (inputs, stop) = (
            self.shared.inputs.clone(),
            self.stopping(key.clone(), incarnation),
        );
        tokio::spawn(async move {
            let result = match spawn.await {
                Ok(result) => result,
                Err(_) if !begun.load(Ordering::Acquire) => {
                    Err(SpawnError::Busy("the game is ending".to_owned()))
                }
                Err(error) => {
                    tracing::error!(%key, %error, "the spawn handler did not end; what it began is stopped");
                    stop.await;
                    Err(SpawnError::Failed("the spawn handler panicked".to_owned()))
                }
            };
            let _ = inputs.send(Input::SpawnEnded(key, incarnation, result));
        });
    }
}

/// Ends the session, in which nothing runs.
pub(super) async fn deregister(shared: &Shared, epoch: NodeEpoch) {
    let request = Request::DeregisterNode {
        client: NO_SESSION,
        name: shared.name.clone(),
        epoch,
    };
    if let Err(error) = shared.caller.call(request, LEAVE_TIMEOUT).await {
        tracing::warn!(%error, "the node's session was not ended; its lease will run out");
    }
}

/// Has the record of a life removed that has ended, or what else becomes of it, until the registry says
/// that this is done or that the record is gone or another's.
async fn tell_end(shared: &Shared, request: Request) {
    for _ in 0..TRIES {
        match shared.caller.call(request.clone(), TRY_TIMEOUT).await {
            Ok(_) | Err(Error::Rejected(_)) => return,
            Err(error) => tracing::debug!(%error, "the end of a process is not known yet"),
        }
        tokio::time::sleep(TRY_PAUSE).await;
    }
    tracing::warn!("the end of a process could not be told; the registry may still show it");
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
