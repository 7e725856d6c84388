//! Activations, rollbacks and shadows: a module that is to decide, or to run beside one that does, is
//! made ready before the change is proposed, so that no decision falls back because of it.
//!
//! Order: look at what was asked, load the module here, let it look at its configuration, have most of
//! the hosts that vote load it, and only then ask the replica, for that version with that configuration:
//! another one may have been pushed meanwhile. A shadow needs this host alone: it runs where decisions
//! are made, and a host that leads later and cannot run it has none. One at a time of a module on a
//! host: what a rollback goes back to must not change while it is made ready. What needs nothing, such
//! as taking a canary back, waits for nobody.

use std::sync::Arc;

use maitred_protocol::{
    ModuleKind, ModuleName, ModuleRecord, Rejection, Request, Response, Unavailable,
};
use maitred_registry::guard::Guard;
use maitred_replica::Answer;
use serde::de::IgnoredAny;

use crate::host::Host;
use crate::module_service::Subject;

/// A change of a module as it is found: the request with what it left open, and what it needs; nothing
/// when the version that it is about cannot be found, or when it changes nothing that decides.
#[derive(Debug, PartialEq)]
struct Settled {
    request: Request,
    needs: Option<Needs>,
}

/// What a change needs before it may be proposed.
#[derive(Debug, PartialEq)]
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
    let Some(name) = name_of(&request) else {
        return host.router.request(sequence, request).await;
    };
    let settle = async || match find(host, name).await {
        // What cannot be found is refused by the registry, in its words.
        None => Ok(Settled {
            request: request.clone(),
            needs: None,
        }),
        Some(record) => settle(&record, &request),
    };
    if let Ok(Settled {
        request,
        needs: None,
    }) = settle().await
    {
        return host.router.request(sequence, request).await;
    }
    let _turn = host.activations.take(name).await;
    // It may have changed until now.
    let Settled { request, needs } = match settle().await {
        Ok(settled) => settled,
        Err(why) => {
            let no = Response::Rejected(Rejection::Invalid(why));
            return Answer::Other(Box::new(no));
        }
    };
    let Some(needs) = needs else {
        return host.router.request(sequence, request).await;
    };
    let _kept = host.modules.keep(needs.module.digest);
    if let Err(no) = make_ready(host, needs).await {
        return Answer::Other(no);
    }
    host.router.request(sequence, request).await
}

/// The module that a change is of.
fn name_of(request: &Request) -> Option<&ModuleName> {
    match request {
        Request::ActivateModule { name, .. }
        | Request::ShadowModule { name, .. }
        | Request::RollbackModule(_, name, _) => Some(name),
        _ => None,
    }
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

/// A change of the module that is recorded so.
fn settle(record: &ModuleRecord, request: &Request) -> Result<Settled, String> {
    let mut request = request.clone();
    let needs = match &mut request {
        Request::ActivateModule {
            name,
            version,
            config,
            guard,
            ..
        } => {
            if !guard.is_empty() && record.kind != ModuleKind::Selector {
                return Err(format!(
                    "only selectors can be taken back by a rule, and {name} is none"
                ));
            }
            *version = meant(record, *version);
            let config = config.get_or_insert_with(|| kept(record, *version));
            subject(record, *version).map(|module| Needs {
                module,
                config: Some(config.clone()),
                spread: true,
            })
        }
        Request::ShadowModule {
            shadow: Some((version, config)),
            ..
        } => {
            *version = meant(record, *version);
            let config = config.get_or_insert_with(|| record.config.clone());
            subject(record, *version).map(|module| Needs {
                module,
                config: Some(config.clone()),
                spread: false,
            })
        }
        Request::RollbackModule(_, _, activated) => {
            let canary = record.canary.as_ref().map(|canary| canary.activated);
            // A rule may take the same back meanwhile, and twice would be one too many.
            let activated = *activated.get_or_insert(canary.unwrap_or(record.activated));
            // Without its canary a module goes on as it is.
            let back = record.previous.filter(|_| Some(activated) != canary);
            let back = back.and_then(|back| subject(record, back));
            back.map(|module| Needs {
                module,
                config: None,
                spread: true,
            })
        }
        _ => None,
    };
    Ok(Settled { request, needs })
}

async fn find(host: &Host, name: &ModuleName) -> Option<ModuleRecord> {
    let answer = host.router.request(0, Request::GetModule(name.clone()));
    match answer.await.into_response() {
        Response::Module(module) => Some(*module),
        _ => None,
    }
}

/// The version that is meant: 0 is the newest.
fn meant(record: &ModuleRecord, version: u32) -> u32 {
    let newest = record.versions.last().map_or(0, |newest| newest.version);
    if version == 0 { newest } else { version }
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

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::{CanaryRecord, ClientId, Digest, ModuleVersion, Revision};

    fn version(number: u32) -> ModuleVersion {
        ModuleVersion {
            version: number,
            digest: Digest([number as u8; 32]),
            bytes: 1,
            title: String::new(),
            features: Vec::new(),
            pushed_ms: 0,
            world: String::new(),
            abi: String::new(),
            hooks: Vec::new(),
            signature: None,
        }
    }

    /// Versions 1 to 3, of which 2 is active and 1 was before.
    fn record(canary: Option<CanaryRecord>) -> ModuleRecord {
        ModuleRecord {
            name: ModuleName::new("mine").unwrap(),
            kind: ModuleKind::Selector,
            versions: [1, 2, 3].map(version).into(),
            active: Some(2),
            previous: Some(1),
            config: "{\"of\":\"active\"}".to_owned(),
            config_version: 1,
            guard: String::new(),
            canary,
            shadow: None,
            declined: Vec::new(),
            activated: Revision(1),
            revision: Revision(1),
        }
    }

    fn canary() -> CanaryRecord {
        CanaryRecord {
            version: 3,
            config: "{\"of\":\"canary\"}".to_owned(),
            config_version: 2,
            percent: 10,
            types: Vec::new(),
            guard: String::new(),
            activated: Revision(2),
        }
    }

    fn activate(version: u32, config: Option<&str>) -> Request {
        Request::ActivateModule {
            client: ClientId(1),
            name: ModuleName::new("mine").unwrap(),
            version,
            config: config.map(str::to_owned),
            percent: 100,
            types: Vec::new(),
            guard: String::new(),
        }
    }

    #[test]
    fn what_is_asked_for_is_what_was_made_ready() {
        let of_active = "{\"of\":\"active\"}";
        let of_canary = "{\"of\":\"canary\"}";
        for (record, asked, version, config) in [
            (record(None), activate(0, None), 3, of_active),
            (record(Some(canary())), activate(0, None), 3, of_canary),
            (record(Some(canary())), activate(1, None), 1, of_active),
            (record(Some(canary())), activate(3, Some("{}")), 3, "{}"),
        ] {
            let Settled { request, needs } = settle(&record, &asked).unwrap();
            let needs = needs.unwrap();
            assert_eq!(request, activate(version, Some(config)));
            assert_eq!(needs.module, subject(&record, version).unwrap());
            assert_eq!(needs.config.as_deref(), Some(config));
        }
        let shadow = |shadow| Request::ShadowModule {
            client: ClientId(1),
            name: ModuleName::new("mine").unwrap(),
            shadow,
        };
        let settled = settle(&record(None), &shadow(Some((0, None))));
        let settled = settled.unwrap();
        let config = Some(of_active.to_owned());
        assert_eq!(settled.request, shadow(Some((3, config))));
        assert_eq!(needless(&record(None), &shadow(None)), shadow(None));
    }

    /// What becomes of a request that needs nothing.
    fn needless(record: &ModuleRecord, request: &Request) -> Request {
        let Settled { request, needs } = settle(record, request).unwrap();
        assert_eq!(needs, None);
        request
    }

    #[test]
    fn a_rollback_of_a_canary_and_what_is_not_there_need_nothing() {
        let back = |activated: Option<u64>| {
            let name = ModuleName::new("mine").unwrap();
            Request::RollbackModule(ClientId(1), name, activated.map(Revision))
        };
        // What is found is what is taken back, whatever a rule does meanwhile.
        for (record, asked) in [
            (record(None), None),
            (record(None), Some(1)),
            (record(Some(canary())), Some(1)),
        ] {
            let settled = settle(&record, &back(asked)).unwrap();
            assert_eq!(settled.request, back(Some(1)));
            let needs = settled.needs.unwrap();
            assert_eq!((needs.module.digest, needs.config), (Digest([1; 32]), None));
        }
        assert_eq!(
            needless(&record(Some(canary())), &back(None)),
            back(Some(2))
        );
        let gone = activate(4, Some("{\"of\":\"active\"}"));
        assert_eq!(needless(&record(None), &activate(4, None)), gone);
        let mut empty = record(None);
        empty.versions.clear();
        empty.previous = None;
        needless(&empty, &activate(0, None));
        assert_eq!(needless(&empty, &back(None)), back(Some(1)));
    }
}
