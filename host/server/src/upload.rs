//! Uploads: a stream each, from the announcing frame to the version that the module became.
//!
//! Order: check the signature, receive within the limit, compare the digest, let the sandbox take it
//! apart and try it, write the bytes down, make it ready, have most of the hosts that vote write them
//! down and make it ready too, and only then ask the replica to record it. A module that is recorded
//! is therefore one that whoever leads next can run, and whose bytes outlive this host. The standard
//! modules come the same way.
//!
//! A client that wants a snapshot or recorded inputs has a stream for that too, which is told apart
//! here.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{
    ClientId, Digest, FrameError, Kind, ModuleKind, ModuleName, Rejection, Response, SaveInputs,
    SaveSnapshot, Signature, Unavailable, Upload, UploadStage, codec,
};
use maitred_registry::PushModule;
use maitred_replica::{Input, Push};
use maitred_sandbox::{Inspected, Stage};
use maitred_transport::{FrameReader, FrameWriter, ReadError, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::host::Host;
use crate::link::Link;
use crate::metrics::Metrics;
use crate::module_service::Subject;

/// Uploads of one connection at a time.
const STREAMS_MAX: usize = 4;
/// Bytes that may wait to be sent on an upload's stream: stages and one answer.
const OUT_BYTES_MAX: usize = 64 << 10;
/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// How often the sender is told how much has arrived, in bytes.
const TOLD_BYTES: u64 = 256 << 10;
/// Longest silence in the middle of an upload.
const SILENCE: Duration = Duration::from_secs(30);

/// Bytes a second below which an upload is broken off, or a few slow ones would keep all others out.
const SPEED_MIN: u64 = 32 << 10;

/// A module on its way in.
pub(crate) struct Incoming {
    pub(crate) client: ClientId,
    pub(crate) sequence: u64,
    pub(crate) name: ModuleName,
    pub(crate) kind: ModuleKind,
    pub(crate) digest: Digest,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) signature: Option<Signature>,
}

/// Who is told how far an upload is.
pub(crate) type Progress = Arc<dyn Fn(UploadStage) + Send + Sync>;

/// Takes a connection's further streams. Ends when the connection does, or with the first stream
/// that is neither an upload nor asks for a snapshot.
pub(crate) async fn take_streams(host: &Arc<Host>, link: &Arc<Link>) -> ReadError {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            stream = link.quic.accept_bi(), if running.len() < STREAMS_MAX => match stream {
                Ok((send, receive)) => {
                    running.spawn(take_stream(Arc::clone(host), send, receive));
                }
                Err(error) => return ReadError::Link(error.into()),
            },
            Some(ended) = running.join_next(), if !running.is_empty() => {
                if let Ok(Err(ReadError::Frame(error))) = ended {
                    return ReadError::Frame(error);
                }
            }
        }
    }
}

async fn take_stream(
    host: Arc<Host>,
    send: SendStream,
    receive: RecvStream,
) -> Result<(), ReadError> {
    let mut reader = FrameReader::new(receive);
    let (id, upload) = match tokio::time::timeout(SILENCE, reader.next()).await {
        Ok(Ok(Some(frame))) if frame.header.kind == Kind::SaveSnapshot => {
            let asked = codec::decode::<SaveSnapshot>(&frame)?;
            host.bulk.save(frame.header.request_id, asked, send).await;
            return Ok(());
        }
        Ok(Ok(Some(frame))) if frame.header.kind == Kind::SaveInputs => {
            let asked = codec::decode::<SaveInputs>(&frame)?;
            let id = frame.header.request_id;
            host.bulk.save_inputs(id, asked, &host.replays, send).await;
            return Ok(());
        }
        Ok(Ok(Some(frame))) => (frame.header.request_id, codec::decode::<Upload>(&frame)),
        Ok(Err(error)) => return Err(error),
        Ok(Ok(None)) | Err(_) => return Ok(()),
    };
    let writer = FrameWriter::spawn(send, OUT_BYTES_MAX);
    let response = match upload {
        Ok(upload) => take_upload(&host, (id, upload), &mut reader, &writer).await?,
        Err(FrameError::OutOfBounds(error)) => {
            Response::Rejected(Rejection::Invalid(error.to_string()))
        }
        Err(error) => return Err(error.into()),
    };
    let accepted = matches!(response, Response::Pushed(..));
    let metrics = &host.metrics;
    Metrics::count(if accepted {
        &metrics.uploads
    } else {
        &metrics.uploads_rejected
    });
    // The sender may have gone; it will ask again with the same id.
    let _ = writer.send(id, &response).await;
    writer.finish().await;
    Ok(())
}

fn rejected(stage: impl ToString, reason: impl Into<String>) -> Response {
    Response::Rejected(Rejection::Module {
        stage: stage.to_string(),
        reason: reason.into(),
    })
}

async fn take_upload(
    host: &Arc<Host>,
    (sequence, upload): (u64, Upload),
    reader: &mut FrameReader,
    writer: &FrameWriter,
) -> Result<Response, ReadError> {
    if *host.stopping.borrow() {
        return Ok(Response::Unavailable(Unavailable::ShuttingDown));
    }
    // Before the bytes are sent: they would be refused after they had come.
    if let Some(elsewhere) = host.leads_elsewhere() {
        return Ok(Response::Unavailable(elsewhere));
    }
    if upload.bytes > host.upload_bytes {
        let (got, most) = (upload.bytes, host.upload_bytes);
        return Ok(rejected(
            Stage::Receiving,
            format!(
                "it has {got} bytes; the limit upload_bytes is {most} (the operator can raise it to 24 MiB with allow_large_modules)"
            ),
        ));
    }
    let subject = Subject {
        kind: upload.kind,
        digest: upload.digest,
        signature: upload.signature,
    };
    if let Err(why) = host.modules.judge(&subject) {
        return Ok(rejected("checking the signature", why));
    }
    let Ok(_permit) = host.uploads.try_acquire() else {
        let what = "too many modules are being uploaded".to_owned();
        return Ok(Response::Unavailable(Unavailable::Overloaded(what)));
    };
    let told = |bytes| {
        // A stage that finds no room is not missed.
        let _ = writer.try_send(sequence, &UploadStage::Received(bytes));
    };
    let allowed = SILENCE + Duration::from_secs(upload.bytes / SPEED_MIN);
    let receiving = receive(reader, upload.bytes, told);
    let bytes = match tokio::time::timeout(allowed, receiving).await {
        Ok(received) => received?,
        Err(_) => None,
    };
    let Some(bytes) = bytes else {
        let reason = format!(
            "the stream ended, fell silent or was slower than {} KiB a second before all bytes had come",
            SPEED_MIN >> 10
        );
        return Ok(rejected(Stage::Receiving, reason));
    };
    let incoming = Incoming {
        client: upload.client,
        sequence,
        name: upload.name,
        kind: upload.kind,
        digest: upload.digest,
        bytes,
        signature: upload.signature,
    };
    let (stages, mut stage) = mpsc::unbounded_channel();
    let progress = Arc::new(move |reached| {
        // Nobody listens any more once the upload was broken off.
        let _ = stages.send(reached);
    });
    let taking = take_in(host, incoming, progress);
    tokio::pin!(taking);
    loop {
        tokio::select! {
            response = &mut taking => return Ok(response),
            Some(reached) = stage.recv() => drop(writer.try_send(sequence, &reached)),
        }
    }
}

async fn receive(
    reader: &mut FrameReader,
    length: u64,
    told: impl Fn(u64),
) -> Result<Option<Arc<[u8]>>, ReadError> {
    // `length` is within the operator's limit.
    let mut bytes = vec![0; length as usize];
    let (mut got, mut last_told) = (0, 0);
    while got < bytes.len() {
        let end = bytes.len().min(got + READ_BYTES);
        match tokio::time::timeout(SILENCE, reader.raw(&mut bytes[got..end])).await {
            Ok(Ok(Some(count))) => got += count,
            Ok(Err(error)) => return Err(error),
            Ok(Ok(None)) | Err(_) => return Ok(None),
        }
        if got as u64 - last_told >= TOLD_BYTES || got == bytes.len() {
            last_told = got as u64;
            told(last_told);
        }
    }
    Ok(Some(bytes.into()))
}

/// Checks a module whose signature has been checked, writes it down, makes it ready on most hosts and
/// has it recorded.
pub(crate) async fn take_in(host: &Arc<Host>, module: Incoming, progress: Progress) -> Response {
    let Incoming {
        client,
        sequence,
        name,
        kind,
        digest,
        bytes,
        signature,
    } = module;
    // Closed never; waiting is bounded by what the compiler may take.
    let Ok(inspecting) = host.inspections.acquire().await else {
        return Response::Unavailable(Unavailable::ShuttingDown);
    };
    let kept = host.modules.keep(digest);
    let length = bytes.len() as u64;
    let work = {
        let (host, progress) = (Arc::clone(host), Arc::clone(&progress));
        move || check_and_store(&host, kind, digest, &bytes, &*progress)
    };
    let inspected = match tokio::task::spawn_blocking(work).await {
        Ok(Ok(inspected)) => inspected,
        Ok(Err(response)) => return *response,
        Err(_) => {
            return rejected(
                Stage::Trying,
                "the sandbox failed on it, which is a bug of the host; its log says more",
            );
        }
    };
    drop(inspecting);
    let findings = Box::new(inspected.findings());
    for note in &inspected.notes {
        tracing::info!(module = %name, note, "about an uploaded module");
    }
    if let Err(response) = host.bulk.hold(digest, length).await {
        return *response;
    }
    let subject = Subject {
        kind,
        digest,
        signature,
    };
    let is_trusted = host.modules.is_signed(&subject);
    let told = |ready, of| progress(UploadStage::Spreading(ready, of));
    if let Err(response) = host.bulk.ready_by_most(subject, told).await {
        return *response;
    }
    progress(UploadStage::Recording);
    let module = PushModule {
        name,
        kind,
        digest,
        bytes: length,
        title: inspected.title,
        features: inspected.features,
        world: inspected.world,
        abi: inspected.abi,
        hooks: inspected.hooks,
        signature,
        is_trusted,
    };
    let push = Push { client, module };
    let make = move |ticket| Input::Push {
        ticket,
        sequence,
        push,
    };
    let recording = {
        let host = Arc::clone(host);
        async move {
            let response = host.spell_out(host.router.ask(make).await);
            if matches!(response, Response::Unknown(_)) {
                // Another leader may record it yet, and counts on the bytes that are here.
                host.modules.hold(digest);
            }
            drop(kept);
            response
        }
    };
    // A task of its own: the record may come although whoever asked for it has gone, and the bytes
    // must be there then.
    let recorded = tokio::spawn(recording).await;
    match recorded {
        Ok(Response::Pushed(record, version, _)) => Response::Pushed(record, version, findings),
        Ok(response) => response,
        Err(_) => Response::Unknown("the host is ending".to_owned()),
    }
}

fn check_and_store(
    host: &Host,
    kind: ModuleKind,
    digest: Digest,
    bytes: &[u8],
    progress: &(dyn Fn(UploadStage) + Send + Sync),
) -> Result<Inspected, Box<Response>> {
    if Digest::of(bytes) != digest {
        let reason = "the bytes that came are not those of the digest: send them again";
        return Err(Box::new(rejected(Stage::Receiving, reason)));
    }
    let ending = || Box::new(Response::Unavailable(Unavailable::ShuttingDown));
    let no = |error: maitred_sandbox::ModuleError| {
        if *host.stopping.borrow() {
            return ending();
        }
        Box::new(rejected(error.stage, error.reason))
    };
    let inspected = host.sandbox.inspect(kind, bytes, progress).map_err(no)?;
    let written = host.modules.write_down(digest, bytes).map_err(|error| {
        tracing::warn!(%error, "an uploaded module cannot be written down");
        Box::new(Response::Unavailable(if error.is_disk_full() {
            Unavailable::DiskFull(error.to_string())
        } else {
            Unavailable::Overloaded(format!("the module cannot be written down: {error}"))
        }))
    })?;
    written.ok_or_else(ending)?;
    host.modules.make_room();
    host.sandbox.load(digest, kind, bytes).map_err(no)?;
    Ok(inspected)
}
