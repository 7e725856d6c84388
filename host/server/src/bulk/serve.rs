//! Answers the calls of other hosts.
//!
//! Holds: every wait for the caller is bounded; how many calls and how many senders there are at a
//! time is bounded; all raw bytes pass the shared rate. What a caller gets is read from the disk
//! while it is sent, so a large file costs no memory.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{Digest, Join, PeerHello, PeerRequest, PeerResponse, Response, Unavailable};
use maitred_replica::Input;
use maitred_storage::{SnapshotFile, StorageError};
use maitred_transport::{
    CloseCode, Connection, FrameReader, ReadError, RecvStream, SendStream, close,
};
use tokio::task::JoinSet;

use super::wire::{PIECE_BYTES, SILENCE, send, send_raw};
use super::{Bulk, blocking};
use crate::metrics::Metrics;
use crate::module_service::Subject;

/// Longest that a call's question may take to come.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a turn to send.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls of one connection at a time.
const CONNECTION_CALLS_MAX: usize = 16;

fn unavailable(why: impl ToString) -> PeerResponse {
    PeerResponse::Unavailable(why.to_string())
}

impl Bulk {
    /// Answers the calls that come on a connection whose hello has been welcomed. Ends with the
    /// connection, with bytes that are no call, or when the host shuts down.
    pub(crate) async fn serve(self: Arc<Self>, connection: Connection, hello: &PeerHello) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                stream = connection.accept_bi(), if running.len() < CONNECTION_CALLS_MAX => {
                    let Ok((stream, receive)) = stream else { return };
                    let (bulk, caller) = (Arc::clone(&self), hello.clone());
                    running.spawn(async move { bulk.take_call(&caller, stream, receive).await });
                }
                Some(ended) = running.join_next(), if !running.is_empty() => {
                    if let Ok(Err(ReadError::Frame(error))) = ended {
                        tracing::info!(peer = hello.host, %error, "a host's connection is closed");
                        return close(&connection, CloseCode::Protocol, &error.to_string());
                    }
                }
                () = self.stopped() => {
                    return close(&connection, CloseCode::ShuttingDown, "the host is shutting down");
                }
            }
        }
    }

    async fn take_call(
        self: &Arc<Self>,
        caller: &PeerHello,
        mut stream: SendStream,
        receive: RecvStream,
    ) -> Result<(), ReadError> {
        let mut reader = FrameReader::new(receive);
        let question = tokio::time::timeout(QUESTION_TIMEOUT, reader.message::<PeerRequest>());
        let Some((_, request)) = question.await.unwrap_or(Ok(None))? else {
            return Ok(());
        };
        Metrics::count(&self.metrics.peer_calls_answered);
        // A caller that has gone needs no answer.
        let _ = self.answer(caller, request, &mut stream).await;
        // A connection that is dropped takes unacknowledged bytes with it, so wait for those.
        if stream.finish().is_ok() {
            let _ = tokio::time::timeout(2 * SILENCE, stream.stopped()).await;
        }
        Ok(())
    }

    /// None when the caller has gone.
    async fn answer(
        self: &Arc<Self>,
        caller: &PeerHello,
        request: PeerRequest,
        stream: &mut SendStream,
    ) -> Option<()> {
        let Ok(_permit) = self.calls.try_acquire() else {
            return send(stream, 0, &unavailable("it answers too many calls already")).await;
        };
        // It may have been removed since it was greeted.
        if let Err(why) = (self.judge)(caller) {
            return send(stream, 0, &PeerResponse::Refused(why.to_string())).await;
        }
        let response = match request {
            PeerRequest::Join(join) => self.join(caller, *join).await,
            _ if caller.host == 0 => {
                let why = "a host that has not joined can ask for nothing else";
                PeerResponse::Refused(why.to_owned())
            }
            PeerRequest::Snapshot { index, offset } => {
                return self.send_snapshot(stream, index, offset).await;
            }
            PeerRequest::Blob(digest) => return self.send_blob(stream, digest).await,
            PeerRequest::Hold { digest, bytes } => self.hold_for(caller.host, digest, bytes).await,
            PeerRequest::Evidence(key, incarnation, node) => {
                let evidence = self.own_evidence(key, incarnation).await;
                let why_not = evidence.as_ref().zip(node.as_ref());
                let why_not = why_not
                    .map(|(evidence, node)| maitred_registry::decide::why_not(evidence, node));
                PeerResponse::Evidence(evidence.map(Box::new), why_not)
            }
            PeerRequest::Ready {
                kind,
                digest,
                signature,
            } => {
                let module = Subject {
                    kind,
                    digest,
                    signature,
                };
                self.make_ready_for(module).await
            }
        };
        send(stream, 0, &response).await
    }

    /// Has the replica take a host in, or says who can.
    async fn join(&self, caller: &PeerHello, join: Join) -> PeerResponse {
        if (join.host, join.instance) != (caller.host, caller.instance) {
            let why = "a host can only join for itself";
            return PeerResponse::Refused(why.to_owned());
        }
        let asked = self.router.ask(|ticket| Input::Join { ticket, join });
        let member = match asked.await.into_response() {
            Response::Member(member) => member,
            other => return no(other),
        };
        match self.members().await {
            Ok(members) => PeerResponse::Joined {
                cluster: self.me.cluster,
                member,
                members: members.items,
            },
            Err(other) => no(*other),
        }
    }

    async fn send_snapshot(&self, stream: &mut SendStream, index: u64, offset: u64) -> Option<()> {
        let file = match self.snapshot_file(index).await {
            Ok(file) => file,
            Err(response) => return send(stream, 0, &response).await,
        };
        let offer = file.offer();
        if offset > offer.bytes {
            let why = format!("the snapshot has {} bytes, not {offset}", offer.bytes);
            return send(stream, 0, &PeerResponse::Refused(why)).await;
        }
        let announced = PeerResponse::Bytes {
            bytes: offer.bytes - offset,
            total: offer.bytes,
            digest: offer.digest,
        };
        let Some(_turn) = self.turn().await else {
            return send(stream, 0, &unavailable("it sends too much already")).await;
        };
        tracing::info!(index, offset, bytes = offer.bytes, "a snapshot is sent");
        send(stream, 0, &announced).await?;
        self.send_file(stream, file, offset).await
    }

    /// A permit to send, when one is free in time.
    async fn turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.sending.acquire());
        turn.await.ok()?.ok()
    }

    /// A snapshot of ours, after it has been read whole once: a damaged one would be refused only
    /// after it has been sent, again and again.
    async fn snapshot_file(&self, index: u64) -> Result<Arc<SnapshotFile>, PeerResponse> {
        let mut verified = self.verified.lock().await;
        let snapshots = self.snapshots.clone();
        let known = *verified == index;
        let opened = blocking(move || {
            let file = snapshots.open_file(index)?;
            if file.is_some() && !known {
                snapshots.verify(index)?;
            }
            Ok::<_, StorageError>(file)
        });
        match opened.await {
            Ok(Ok(Some(file))) => {
                *verified = index;
                Ok(Arc::new(file))
            }
            Ok(Ok(None)) => Err(PeerResponse::NotFound),
            Ok(Err(error @ StorageError::SnapshotDamaged { .. })) => {
                tracing::error!(index, %error, "this host's snapshot cannot be sent; a new one is taken");
                drop(verified);
                // The new one takes the damaged one's place in what Raft offers.
                let _ = self.router.ask(Input::TakeSnapshot).await;
                Err(unavailable(
                    "its snapshot is damaged; a new one has been taken",
                ))
            }
            // Among others: a newer one has just taken its place.
            Ok(Err(error)) => Err(unavailable(error)),
            Err(why) => Err(unavailable(why)),
        }
    }

    /// Sends a file from an offset to its end.
    pub(super) async fn send_file(
        &self,
        stream: &mut SendStream,
        file: Arc<SnapshotFile>,
        mut offset: u64,
    ) -> Option<()> {
        loop {
            let reading = Arc::clone(&file);
            let read = blocking(move || {
                let mut piece = vec![0; PIECE_BYTES];
                let count = reading.read_at(offset, &mut piece)?;
                piece.truncate(count);
                Ok::<_, StorageError>(piece)
            });
            let piece = match read.await {
                Ok(Ok(piece)) => piece,
                failed => {
                    tracing::warn!(
                        ?failed,
                        "a snapshot cannot be read on; its sending is broken off"
                    );
                    return None;
                }
            };
            if piece.is_empty() {
                return Some(());
            }
            offset += piece.len() as u64;
            self.send_limited(stream, &piece).await?;
        }
    }

    pub(super) async fn send_limited(&self, stream: &mut SendStream, piece: &[u8]) -> Option<()> {
        self.rate.take(piece.len()).await;
        send_raw(stream, piece).await?;
        Metrics::add(&self.metrics.bulk_bytes_sent, piece.len());
        Some(())
    }

    async fn send_blob(&self, stream: &mut SendStream, digest: Digest) -> Option<()> {
        let Some(_turn) = self.turn().await else {
            return send(stream, 0, &unavailable("it sends too much already")).await;
        };
        let modules = Arc::clone(&self.modules);
        let bytes = match blocking(move || modules.bytes(digest)).await {
            Ok(Ok(Some(bytes))) => bytes,
            Ok(Ok(None)) => return send(stream, 0, &PeerResponse::NotFound).await,
            Ok(Err(error)) => return send(stream, 0, &unavailable(error)).await,
            Err(why) => return send(stream, 0, &unavailable(why)).await,
        };
        let announced = PeerResponse::Bytes {
            bytes: bytes.len() as u64,
            total: bytes.len() as u64,
            digest,
        };
        send(stream, 0, &announced).await?;
        for piece in bytes.chunks(PIECE_BYTES) {
            self.send_limited(stream, piece).await?;
        }
        Some(())
    }
}

/// A replica's no, as another host hears it.
fn no(response: Response) -> PeerResponse {
    match response {
        Response::Rejected(why) => PeerResponse::Refused(why.to_string()),
        Response::Unavailable(Unavailable::NotLeader { leader }) => PeerResponse::NotLeader(leader),
        Response::Unavailable(why) => unavailable(why),
        Response::Unknown(why) => unavailable(why),
        other => {
            tracing::warn!(?other, "the replica's answer does not fit the question");
            unavailable("its replica gave no answer; this is a bug")
        }
    }
}
