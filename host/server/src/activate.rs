//! Activations, rollbacks and shadows: a module that is to decide, or to run beside one that does, is
//! made ready before the change is proposed, so that no decision falls back because of it.
//!
//! Order: look at what was asked, load the module here, let it look at its configuration, have most of
//! the hosts that vote load it, and only then ask the replica. A shadow needs this host alone: it runs
//! where decisions are made, and a host that leads later and cannot run it has none. One at a time on
//! a host: what a rollback goes back to must not change while it is made ready.

use std::sync::Arc;

use maitred_protocol::{
    ModuleKind, ModuleName, ModuleRecord, Rejection, Request, Response, Unavailable,
};
use maitred_registry::guard::Guard;
use maitred_replica::Answer;
use serde::de::IgnoredAny;

use crate::host::Host;
use crate::module_service::Subject;

/// What a change needs before it may be proposed.
struct Needs {
    module: Subject,
    /// What the module is to look at, unless it has before.
    config: Option<String>,
    /// Whether most hosts must have it ready.
    spread: bool,
}

/// Carries out [`Request::ActivateModule`], [`Request::RollbackModule`] or [`Request::ShadowModule`].
pub(crate) async fn carry_out(host: &Arc<Host>, sequence: u64, request: Request) -> Answer {
    if let Err(why) = look_at(&request) {
        let no = Response::Rejected(Rejection::Invalid(why));
        return Answer::Other(Box::new(no));
    }
    // Nothing is made ready for a change that is not made here.
    if let Some(elsewhere) = host.leads_elsewhere() {
        return Answer::Other(Box::new(Response::Unavailable(elsewhere)));
    }
    let _turn = host.activations.lock().await;
    // What cannot be found is refused by the registry, in its words.
    let needs = match needs(host, &request).await {
        Ok(Some(needs)) => needs,
        Ok(None) => return host.router.request(sequence, request).await,
        Err(why) => {
            let no = Response::Rejected(Rejection::Invalid(why));
            return Answer::Other(Box::new(no));
        }
    };
    let _kept = host.modules.keep(needs.module.digest);
    if let Err(no) = make_ready(host, needs).await {
        return Answer::Other(no);
    }
    host.router.request(sequence, request).await
}

/// What can be said of a request without knowing the module.
fn look_at(request: &Request) -> Result<(), String> {
    let config = match request {
        Request::ActivateModule { config, guard, .. } => {
            if !guard.is_empty() {
                Guard::parse(guard)
                    .map_err(|error| format!("the rule of the rollback cannot be used: {error}"))?;
            }
            config.as_ref()
        }
        Request::ShadowModule {
            shadow: Some((_, config)),
            ..
        } => config.as_ref(),
        _ => None,
    };
    if let Some(config) = config
        && let Err(error) = serde_json::from_str::<IgnoredAny>(config)
    {
        return Err(format!("the configuration is not JSON: {error}"));
    }
    Ok(())
}

async fn make_ready(host: &Arc<Host>, needs: Needs) -> Result<(), Box<Response>> {
    let (modules, sandbox) = (Arc::clone(&host.modules), Arc::clone(&host.sandbox));
    let Needs {
        module,
        config,
        spread,
    } = needs;
    let readied = tokio::task::spawn_blocking(move || {
        modules
            .load(&module)
            .map_err(|why| ("loading".to_owned(), why))?;
        let Some(config) = config else { return Ok(()) };
        let validated = sandbox.validate(&module.digest, &config);
        validated.map_err(|error| (error.stage.to_string(), error.reason))
    });
    let (stage, reason) = match readied.await {
        Ok(Ok(())) if !spread => return Ok(()),
        Ok(Ok(())) => return host.bulk.ready_by_most(module, |_, _| ()).await,
        Ok(Err(no)) => no,
        Err(_) => {
            let why = "the sandbox failed on it, which is a bug; the log says more";
            ("loading".to_owned(), why.to_owned())
        }
    };
    Err(Box::new(if *host.stopping.borrow() {
        Response::Unavailable(Unavailable::ShuttingDown)
    } else {
        Response::Rejected(Rejection::Module { stage, reason })
    }))
}

/// What a change needs; none when what it is about cannot be found, or when it needs nothing.
async fn needs(host: &Host, request: &Request) -> Result<Option<Needs>, String> {
    let (name, asked) = match request {
        Request::ActivateModule {
            name,
            version,
            config,
            ..
        } => (name, Some((*version, config))),
        Request::ShadowModule {
            name,
            shadow: Some((version, config)),
            ..
        } => (name, Some((*version, config))),
        Request::RollbackModule(_, name) => (name, None),
        _ => return Ok(None),
    };
    let Some(record) = find(host, name).await else {
        return Ok(None);
    };
    if let Request::ActivateModule { guard, .. } = request
        && !guard.is_empty()
        && record.kind != ModuleKind::Selector
    {
        return Err(format!(
            "only selectors can be taken back by a rule, and {name} is none"
        ));
    }
    let spread = !matches!(request, Request::ShadowModule { .. });
    Ok(match asked {
        Some((version, config)) => meant(&record, version).and_then(|version| {
            let config = config.clone().unwrap_or_else(|| match spread {
                true => kept(&record, version),
                false => record.config.clone(),
            });
            Some(Needs {
                module: subject(&record, version)?,
                config: Some(config),
                spread,
            })
        }),
        // Without its canary a module goes on as it is; else the one before has been looked at.
        None => record
            .previous
            .filter(|_| record.canary.is_none())
            .and_then(|back| {
                Some(Needs {
                    module: subject(&record, back)?,
                    config: None,
                    spread,
                })
            }),
    })
}

async fn find(host: &Host, name: &ModuleName) -> Option<ModuleRecord> {
    let answer = host.router.request(0, Request::GetModule(name.clone()));
    match answer.await.into_response() {
        Response::Module(module) => Some(*module),
        _ => None,
    }
}

/// The version that is meant: 0 is the newest.
fn meant(record: &ModuleRecord, version: u32) -> Option<u32> {
    match version {
        0 => record.versions.last().map(|newest| newest.version),
        version => Some(version),
    }
}

/// The configuration that a version gets when none is said, as the registry has it.
fn kept(record: &ModuleRecord, version: u32) -> String {
    let canary = record.canary.as_ref();
    let canary = canary.filter(|canary| canary.version == version);
    canary.map_or_else(|| record.config.clone(), |canary| canary.config.clone())
}

/// A version, as it is made ready.
pub(crate) fn subject(record: &ModuleRecord, version: u32) -> Option<Subject> {
    let mut versions = record.versions.iter();
    let found = versions.find(|have| have.version == version)?;
    Some(Subject {
        kind: record.kind,
        digest: found.digest,
        signature: found.signature,
    })
}
