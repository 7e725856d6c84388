//! The modules that every group has unless it is told not to: selectors, the fence `witness` and the
//! callback `start`.
//!
//! They are part of the program, and come in the way every other module does: inspected, written
//! down, made ready, recorded and activated. Whoever leads installs those that are missing before it
//! says that it is ready, also on data that an older program has written; one that was removed comes
//! back. One that cannot be installed holds up none of the others, and holds up the host only where
//! creates need it; the status says which, and why, and it is tried again. Where the program brings
//! other bytes than are active, they become a new version, in its own time: most hosts must be able to run it, so that in a group whose hosts are upgraded one by one the
//! older version decides until then. It is activated only in place of an older standard one, and not
//! when that very one was decided against: what an operator put in its place stays.

mod list;

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{ClientId, Digest, ModuleName, ModuleRecord, Rejection, Request, Response};

use self::list::{ALL, CALLBACK, Plan, SELECTOR, Standard};
use crate::activate;
use crate::host::Host;
use crate::upload::{Incoming, take_in};

/// How long to wait before asking again what could not be done yet.
const AGAIN: Duration = Duration::from_millis(20);
/// First pause after they could not be installed; each one is twice as long.
const RETRY_MIN: Duration = Duration::from_millis(250);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What is installed in one go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Those without which decisions fall back: none of their versions is active.
    Missing,
    /// All, newer versions too.
    All,
}

/// Keeps a group supplied: whenever this host begins to lead, what is missing is installed if it is to
/// be, however often that has to be tried. Says that the host is ready once it has caught up.
pub(crate) async fn make_ready(host: Arc<Host>, install: bool) {
    let mut leader = host.leader.subscribe();
    let mut caught_up = false;
    loop {
        let serving = leader.borrow_and_update().serving;
        if !serving {
            // It is the next leader's to do.
            host.modules.set_missing(Vec::new());
        }
        if install && serving && !supply(&host).await {
            return;
        }
        let again = async {
            if caught_up {
                let refreshed = async {
                    if install && serving {
                        refresh(&host).await;
                    }
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    // The sender lives in the host.
                    _ = leader.wait_for(|now| now.serving != serving) => {}
                    () = refreshed => {}
                }
            } else if has_caught_up(&host).await && leader.borrow().serving == serving {
                // What was active before a restart is being loaded; without it, decisions would fall
                // back.
                host.modules.settled().await;
                host.ready.send_replace(true);
                caught_up = true;
            } else {
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            () = again => {}
            () = host.stopping() => return,
        }
    }
}

/// Whether what the group had committed is applied here. Reads are linearizable on every host, so one
/// that is answered shows it.
async fn has_caught_up(host: &Host) -> bool {
    let name = ModuleName::new(CALLBACK).expect("letters are a name");
    let asked = ask(host, 0, Request::GetModule(name)).await;
    matches!(
        asked,
        Response::Module(_) | Response::Rejected(Rejection::NotFound(_))
    )
}

/// Installs what is missing while this host leads, until nothing is missing that creates need. False
/// when it is shutting down.
async fn supply(host: &Arc<Host>) -> bool {
    let mut pause = RETRY_MIN;
    loop {
        // One for each try: what was left of the last one may be forgotten.
        let Some(client) = open_session(host).await else {
            return !is_ending(host);
        };
        let failed = install_all(host, client, Which::Missing).await;
        let _ = ask(host, 0, Request::CloseSession(client)).await;
        if !host.leader.borrow().serving {
            return true;
        }
        host.modules.set_missing(missing(&failed));
        let needed = are_needed(host, &failed).await;
        // What can wait is tried again, and told, with those that are out of date.
        if !needed {
            return true;
        }
        let (why, ms) = (spelt_out(&failed), pause.as_millis());
        tracing::error!(%why, "standard modules could not be installed; trying again in {ms} ms");
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
            () = host.stopping() => return false,
        }
    }
}

/// Brings all of them up to date, however often that has to be tried. Ends when it is done, or when
/// this host leads no more.
async fn refresh(host: &Arc<Host>) {
    let mut pause = RETRY_MIN;
    let mut said = String::new();
    loop {
        let Some(client) = open_session(host).await else {
            return;
        };
        let failed = install_all(host, client, Which::All).await;
        let _ = ask(host, 0, Request::CloseSession(client)).await;
        if !host.leader.borrow().serving {
            return;
        }
        host.modules.set_missing(missing(&failed));
        if failed.is_empty() {
            return;
        }
        let why = spelt_out(&failed);
        // Said once: what has not changed since the last try is no news.
        if why == said {
            tracing::debug!(%why, "standard modules still are not up to date");
        } else {
            tracing::warn!(%why, "standard modules are not up to date; tried again, every {} s in the end", RETRY_MAX.as_secs());
            said = why;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// A standard module that could not be installed, or brought up to date.
struct Failed {
    name: &'static str,
    why: String,
    /// Whether an older version of it decides, or something else in its place.
    is_active: bool,
}

fn spelt_out(failed: &[Failed]) -> String {
    let each = failed
        .iter()
        .map(|Failed { name, why, .. }| format!("{name}: {why}"));
    each.collect::<Vec<_>>().join("; ")
}

/// Those of which no version is active, as the status shows them.
fn missing(failed: &[Failed]) -> Vec<(ModuleName, String)> {
    let missing = failed.iter().filter(|failed| !failed.is_active);
    let missing = missing.filter_map(|Failed { name, why, .. }| {
        let why = format!("it is not installed yet, and tried again: {why}");
        Some((ModuleName::new(*name).ok()?, why))
    });
    missing.collect()
}

/// Whether creates need one of those: they are a default, or a type names it as its selector. What is
/// not known counts as needed.
async fn are_needed(host: &Host, failed: &[Failed]) -> bool {
    if failed.is_empty() {
        return false;
    }
    let is_default = |failed: &Failed| [CALLBACK, SELECTOR].contains(&failed.name);
    if failed.iter().any(is_default) {
        return true;
    }
    let mut after = None;
    loop {
        let Response::Types { items, next } = ask(host, 0, Request::ListTypes { after }).await
        else {
            return true;
        };
        let is_named = |name| {
            let mut types = items.iter();
            types.any(|spec| spec.selector.as_str() == name || spec.callback.as_str() == name)
        };
        if failed.iter().any(|failed| is_named(failed.name)) {
            return true;
        }
        if next.is_none() {
            return false;
        }
        after = next;
    }
}

/// The digests of all that are or were standard modules.
pub(crate) fn digests() -> impl Iterator<Item = Digest> {
    list::known(None).chain(ALL.iter().map(Standard::digest))
}

fn is_ending(host: &Host) -> bool {
    *host.stopping.borrow() || host.alarm.raised().is_some()
}

/// Opens a session; none when this host leads no more, or is shutting down.
async fn open_session(host: &Host) -> Option<ClientId> {
    loop {
        if is_ending(host) || !host.leader.borrow().serving {
            return None;
        }
        if let Response::Session(client) = ask(host, 0, Request::OpenSession).await {
            return Some(client);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn ask(host: &Host, sequence: u64, request: Request) -> Response {
    host.spell_out(host.router.request(sequence, request).await)
}

/// Installs what is to be, as long as this host leads; answers what could not be.
async fn install_all(host: &Arc<Host>, client: ClientId, which: Which) -> Vec<Failed> {
    let mut failed = Vec::new();
    for (at, standard) in ALL.iter().enumerate() {
        let sequence = 2 * at as u64 + 1;
        let (name, mut is_active) = (standard.name, false);
        let installed = async {
            let record = find(host, standard).await?;
            is_active = record.as_ref().is_some_and(|have| have.active.is_some());
            if is_active && which == Which::Missing {
                return Ok(());
            }
            install(host, (client, sequence), standard, record).await
        };
        if let Err(why) = installed.await {
            failed.push(Failed {
                name,
                why,
                is_active,
            });
        }
        if is_ending(host) || !host.leader.borrow().serving {
            break;
        }
    }
    failed
}

/// Installs one, if it is to be. Takes two sequence numbers.
async fn install(
    host: &Arc<Host>,
    (client, sequence): (ClientId, u64),
    standard: &Standard,
    record: Option<ModuleRecord>,
) -> Result<(), String> {
    let name = ModuleName::new(standard.name).map_err(|error| error.to_string())?;
    let is_active = record.as_ref().is_some_and(|have| have.active.is_some());
    let plan = Plan::new(standard, record.as_ref());
    if plan.is_nothing() {
        return Ok(());
    }
    let digest = standard.digest();
    let there = record
        .as_ref()
        .and_then(|record| version_of(record, digest));
    let version = match there {
        Some(version) => version,
        None => {
            let module = Incoming {
                client,
                sequence,
                name: name.clone(),
                kind: standard.kind,
                digest,
                bytes: standard.bytes.into(),
                signature: None,
            };
            match take_in(host, module, Arc::new(|_| ())).await {
                Response::Pushed(_, version, _) => version,
                other => return Err(format!("it was not taken: {}", refusal(other))),
            }
        }
    };
    if !plan.activate {
        return Ok(());
    }
    if is_active {
        tracing::info!(module = %name, version, "a newer standard module takes the place of an older one");
    }
    let guard = record.map_or_else(String::new, |record| record.guard);
    let activation = Request::ActivateModule {
        client,
        name,
        version,
        config: None,
        percent: 100,
        types: Vec::new(),
        guard,
    };
    let answer = activate::carry_out(host, sequence + 1, activation).await;
    match answer.into_response() {
        Response::Module(_) => Ok(()),
        other => Err(format!("it was not activated: {}", refusal(other))),
    }
}

fn version_of(record: &ModuleRecord, digest: Digest) -> Option<u32> {
    let mut versions = record.versions.iter();
    let found = versions.find(|version| version.digest == digest);
    found.map(|version| version.version)
}

/// A no, in words.
fn refusal(response: Response) -> String {
    match response {
        Response::Rejected(why) => why.to_string(),
        Response::Unavailable(why) => why.to_string(),
        Response::Unknown(why) => why,
        _ => "the answer is not one to this question".to_owned(),
    }
}

/// What is recorded under its name; none when nothing is.
async fn find(host: &Host, standard: &Standard) -> Result<Option<ModuleRecord>, String> {
    let name = ModuleName::new(standard.name).map_err(|error| error.to_string())?;
    match ask(host, 0, Request::GetModule(name)).await {
        Response::Module(module) => Ok(Some(*module)),
        Response::Rejected(Rejection::NotFound(_)) => Ok(None),
        other => Err(format!("it could not be looked up: {}", refusal(other))),
    }
}
