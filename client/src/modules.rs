//! The verbs of modules. A push goes over a stream of its own, so that it delays nobody.

use maitred_protocol::{
    ClientId, Digest, Findings, Kind, ModuleKind, ModuleName, ModuleRecord, Rejection, Request,
    Response, Revision, Signature, Upload, UploadStage, codec,
};
use maitred_transport::{FrameReader, LinkError, ReadError, SendStream};
use tokio::time::{Instant, timeout_at};

use crate::activation::Activation;
use crate::call::{Ask, wrong_answer};
use crate::conn::{Conn, Failure};
use crate::error::Error;
use crate::pool::Route;
use crate::verbs::{Client, NO_SESSION, answer, pages};

/// A module that was uploaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Pushed {
    /// The module.
    pub record: ModuleRecord,
    /// The version that it became; an older one when its newest has the same bytes.
    pub version: u32,
    /// What the host found out about it.
    pub findings: Findings,
}

struct Push<'a, P> {
    upload: Upload,
    bytes: &'a [u8],
    progress: P,
}

impl Client {
    /// Uploads a module under `name` and waits until it has been checked, compiled, held ready by a
    /// majority of the hosts and recorded; at most the builder's `push_timeout`. `progress` hears of
    /// every stage.
    ///
    /// # Errors
    /// [`Rejection::Module`] says at which stage it was refused, and why.
    pub async fn push_module(
        &self,
        name: &ModuleName,
        kind: ModuleKind,
        bytes: &[u8],
        progress: impl FnMut(UploadStage) + Send,
    ) -> Result<(ModuleRecord, u32), Error> {
        let pushed = self.push_signed(name, kind, bytes, None, progress).await?;
        Ok((pushed.record, pushed.version))
    }

    /// As [`Client::push_module`], with a signature for hosts that want one; says also what the host
    /// found out about the module.
    ///
    /// # Errors
    /// As there; a signature that does not fit is refused while `checking the signature`.
    pub async fn push_signed(
        &self,
        name: &ModuleName,
        kind: ModuleKind,
        bytes: &[u8],
        signature: Option<Signature>,
        progress: impl FnMut(UploadStage) + Send,
    ) -> Result<Pushed, Error> {
        let mut push = Push {
            upload: Upload {
                client: NO_SESSION,
                name: name.clone(),
                kind,
                bytes: bytes.len() as u64,
                digest: Digest::of(bytes),
                signature,
            },
            bytes,
            progress,
        };
        if let Err(error) = codec::Wire::check_bounds(&push.upload) {
            return Err(Error::Rejected(Rejection::Invalid(error.to_string())));
        }
        let timeout = self.settings().push_timeout;
        match self.caller().ask(Route::Leader, &mut push, timeout).await? {
            (Response::Pushed(record, version, findings), _) => Ok(Pushed {
                record: *record,
                version,
                findings: *findings,
            }),
            _ => Err(wrong_answer("a pushed module")),
        }
    }

    /// Begins an activation that says more: see [`Activation`].
    pub fn activate(&self, name: &ModuleName) -> Activation {
        Activation::new(self.clone(), name.clone())
    }

    /// Makes a version decide for all ids; 0 for the newest. `config` is JSON of at most 64 KiB, none
    /// keeps the active one's.
    pub async fn activate_module(
        &self,
        name: &ModuleName,
        version: u32,
        config: Option<String>,
    ) -> Result<ModuleRecord, Error> {
        let activation = self.activate(name).version(version);
        match config {
            Some(config) => activation.config(config).send().await,
            None => activation.send().await,
        }
    }

    /// Takes the canary back when there is one; else makes the version before decide again, with the
    /// configuration that it had.
    pub async fn rollback_module(&self, name: &ModuleName) -> Result<ModuleRecord, Error> {
        self.module(Request::RollbackModule(NO_SESSION, name.clone(), None))
            .await
    }

    /// Forgets a version that is not active; 0: the whole module, when no version is.
    pub async fn remove_module(&self, name: &ModuleName, version: u32) -> Result<Revision, Error> {
        self.done(Request::RemoveModule(NO_SESSION, name.clone(), version))
            .await
    }

    /// One module.
    pub async fn get_module(&self, name: &ModuleName) -> Result<ModuleRecord, Error> {
        answer!(self.read(Request::GetModule(name.clone())), "a module",
            Response::Module(record) => *record)
    }

    /// All modules: page by page, so that one that is pushed meanwhile may be missing.
    pub async fn modules(&self) -> Result<Vec<ModuleRecord>, Error> {
        pages!(self.read, ListModules, Modules, "modules")
    }

    pub(crate) async fn module(&self, request: Request) -> Result<ModuleRecord, Error> {
        answer!(self.call(request), "a module", Response::Module(record) => *record)
    }
}

impl<P: FnMut(UploadStage) + Send> Ask for Push<'_, P> {
    fn is_change(&self) -> bool {
        true
    }

    fn set_client(&mut self, client: ClientId) {
        self.upload.client = client;
    }

    async fn ask(&mut self, conn: &Conn, id: u64, deadline: Instant) -> Result<Response, Failure> {
        let pushed = timeout_at(deadline, self.push(conn, id)).await;
        pushed.unwrap_or(Err(Failure::TimedOut { sent: true }))
    }
}

impl<P: FnMut(UploadStage) + Send> Push<'_, P> {
    async fn push(&mut self, conn: &Conn, id: u64) -> Result<Response, Failure> {
        let mut head = Vec::new();
        codec::encode(id, &self.upload, &mut head).map_err(Failure::Frame)?;
        let opened = conn.connection.open_bi().await;
        let (mut send, receive) = opened.map_err(|error| Failure::Lost {
            sent: false,
            cause: error.into(),
        })?;
        let mut reader = FrameReader::new(receive);
        let writing = write(&mut send, &head, self.bytes);
        tokio::pin!(writing);
        let mut written = false;
        loop {
            tokio::select! {
                // That writing failed, or was cut short by a no, is told by what is read.
                () = &mut writing, if !written => written = true,
                answer = next(&mut reader) => match answer? {
                    Said::Stage(stage) => (self.progress)(stage),
                    Said::Answer(response) => return Ok(response),
                },
            }
        }
    }
}

async fn write(send: &mut SendStream, head: &[u8], bytes: &[u8]) {
    if send.write_all(head).await.is_ok() && send.write_all(bytes).await.is_ok() {
        let _ = send.finish();
    }
}

enum Said {
    Stage(UploadStage),
    Answer(Response),
}

async fn next(reader: &mut FrameReader) -> Result<Said, Failure> {
    let lost = |cause| Failure::Lost { sent: true, cause };
    let frame = match reader.next().await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Err(lost(LinkError::Lost)),
        Err(ReadError::Link(cause)) => return Err(lost(cause)),
        Err(error) => return Err(lost(LinkError::Broken(error.to_string()))),
    };
    let said = match frame.header.kind {
        Kind::Stage => codec::decode(&frame).map(Said::Stage),
        _ => codec::decode(&frame).map(Said::Answer),
    };
    said.map_err(|error| lost(LinkError::Broken(error.to_string())))
}
