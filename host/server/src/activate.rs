//! Activations and rollbacks: a module that is to decide is made ready before the change is proposed,
//! so that no decision falls back because of it.
//!
//! One at a time on a host: what a rollback goes back to must not change while it is made ready.

use std::sync::Arc;

use maitred_protocol::{Digest, ModuleKind, ModuleName, Rejection, Request, Response};
use maitred_replica::Answer;
use serde::de::IgnoredAny;

use crate::host::Host;

/// Carries out [`Request::ActivateModule`] or [`Request::RollbackModule`].
pub(crate) async fn carry_out(host: &Arc<Host>, sequence: u64, request: Request) -> Answer {
    if let Request::ActivateModule {
        config: Some(config),
        ..
    } = &request
        && let Err(error) = serde_json::from_str::<IgnoredAny>(config)
    {
        let no = Rejection::Invalid(format!("the configuration is not JSON: {error}"));
        return Answer::Other(Box::new(Response::Rejected(no)));
    }
    // Nothing is made ready for a change that is not made here.
    if let Some(elsewhere) = host.leads_elsewhere() {
        return Answer::Other(Box::new(Response::Unavailable(elsewhere)));
    }
    let _turn = host.activations.lock().await;
    let next = match &request {
        Request::ActivateModule { name, version, .. } => find(host, name, Some(*version)).await,
        Request::RollbackModule(_, name) => find(host, name, None).await,
        _ => None,
    };
    // What cannot be found is refused by the registry, in its words.
    let Some((kind, digest)) = next else {
        return host.router.request(sequence, request).await;
    };
    let _kept = host.modules.keep(digest);
    let modules = Arc::clone(&host.modules);
    let loaded = tokio::task::spawn_blocking(move || modules.load(kind, digest)).await;
    let why = match loaded {
        Ok(Ok(())) => return host.router.request(sequence, request).await,
        Ok(Err(why)) => why,
        Err(_) => "the sandbox failed on it, which is a bug; the log says more".to_owned(),
    };
    let response = if *host.stopping.borrow() {
        Response::Unavailable(maitred_protocol::Unavailable::ShuttingDown)
    } else {
        Response::Rejected(Rejection::Module {
            stage: "loading".to_owned(),
            reason: why,
        })
    };
    Answer::Other(Box::new(response))
}

/// The version of a module, 0 for the newest; without one, what a rollback goes back to.
async fn find(
    host: &Host,
    name: &ModuleName,
    version: Option<u32>,
) -> Option<(ModuleKind, Digest)> {
    let answer = host.router.request(0, Request::GetModule(name.clone()));
    let Response::Module(module) = answer.await.into_response() else {
        return None;
    };
    let found = match version {
        Some(0) => module.versions.last(),
        other => {
            let wanted = other.or(module.previous)?;
            let mut versions = module.versions.iter();
            versions.find(|have| have.version == wanted)
        }
    };
    Some((module.kind, found?.digest))
}
