//! The modules that every group has unless it is told not to: selectors, the fence `witness` and the
//! callback `start`.
//!
//! They are part of the program, and come in the way every other module does: inspected, written
//! down, made ready, recorded and activated. Whoever leads installs those that are missing before it
//! says that it is ready, also on data that an older program has written; one that was removed comes
//! back. Where the program brings other bytes than are active, they become a new version, in its own
//! time: most hosts must be able to run it, so that in a group whose hosts are upgraded one by one the
//! older version decides until then. It is activated only in place of an older standard one, and not
//! again when somebody has gone back: what an operator put in its place stays.

mod list;

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{
    ClientId, Digest, ModuleAction, ModuleName, ModuleRecord, Rejection, Request, Response,
};

use self::list::{ALL, CALLBACK, Plan, Standard};
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

/// Installs what is missing while this host leads. False when it is shutting down.
async fn supply(host: &Arc<Host>) -> bool {
    let mut pause = RETRY_MIN;
    loop {
        // One for each try: what was left of the last one may be forgotten.
        let Some(client) = open_session(host).await else {
            return host.alarm.raised().is_none() && !*host.stopping.borrow();
        };
        let installed = install_all(host, client, Which::Missing).await;
        let _ = ask(host, 0, Request::CloseSession(client)).await;
        let Err((from, why)) = installed else {
            host.modules.set_missing(Vec::new());
            return true;
        };
        if !host.leader.borrow().serving {
            // It is the next leader's to do.
            host.modules.set_missing(Vec::new());
            return true;
        }
        tracing::error!(%why, "the standard modules could not be installed; trying again in {} ms", pause.as_millis());
        host.modules.set_missing(missing(from, &why));
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
            () = host.stopping() => return false,
        }
    }
}

/// Brings all of them up to date, however often that has to be tried. Ends when it is done, or when
/// this host leads no more.
async fn refresh(host: &Arc<Host>) {
    loop {
        let Some(client) = open_session(host).await else {
            return;
        };
        let installed = install_all(host, client, Which::All).await;
        let _ = ask(host, 0, Request::CloseSession(client)).await;
        let Err((_, why)) = installed else { return };
        if !host.leader.borrow().serving {
            return;
        }
        tracing::warn!(%why, "a standard module is not up to date; trying again in {} s", RETRY_MAX.as_secs());
        tokio::time::sleep(RETRY_MAX).await;
    }
}

/// The standard modules from the one that could not be installed on.
fn missing(from: usize, why: &str) -> Vec<(ModuleName, String)> {
    let names = ALL.iter().skip(from);
    let names = names.filter_map(|standard| ModuleName::new(standard.name).ok());
    names
        .map(|name| {
            (
                name,
                format!("it is not installed yet, and tried again: {why}"),
            )
        })
        .collect()
}

/// The digests of all that are or were standard modules.
pub(crate) fn digests() -> impl Iterator<Item = Digest> {
    list::known(None).chain(ALL.iter().map(Standard::digest))
}

/// Opens a session; none when this host leads no more, or is shutting down.
async fn open_session(host: &Host) -> Option<ClientId> {
    loop {
        let ending = *host.stopping.borrow() || host.alarm.raised().is_some();
        if ending || !host.leader.borrow().serving {
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

/// Installs what is to be; says with which one it ended, and why.
async fn install_all(
    host: &Arc<Host>,
    client: ClientId,
    which: Which,
) -> Result<(), (usize, String)> {
    for (at, standard) in ALL.iter().enumerate() {
        let sequence = 2 * at as u64 + 1;
        let installed = install(host, (client, sequence), standard, which).await;
        installed.map_err(|why| (at, why))?;
    }
    Ok(())
}

/// Installs one, if it is to be. Takes two sequence numbers.
async fn install(
    host: &Arc<Host>,
    (client, sequence): (ClientId, u64),
    standard: &Standard,
    which: Which,
) -> Result<(), String> {
    let text = standard.name;
    let name = ModuleName::new(text).map_err(|error| error.to_string())?;
    let record = find(host, &name).await?;
    let is_active = record
        .as_ref()
        .is_some_and(|record| record.active.is_some());
    if is_active && which == Which::Missing {
        return Ok(());
    }
    let went_back = went_back(host, standard, record.as_ref()).await?;
    let plan = Plan::new(standard, record.as_ref(), went_back);
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
                Response::Pushed(_, version) => version,
                other => return Err(format!("{text} was not taken: {}", refusal(other))),
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
        other => Err(format!("{text} was not activated: {}", refusal(other))),
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

/// A module; none when there is no such one.
async fn find(host: &Host, name: &ModuleName) -> Result<Option<ModuleRecord>, String> {
    match ask(host, 0, Request::GetModule(name.clone())).await {
        Response::Module(module) => Ok(Some(*module)),
        Response::Rejected(Rejection::NotFound(_)) => Ok(None),
        other => Err(format!("{name} could not be looked up: {}", refusal(other))),
    }
}

/// Whether this very version has decided before, or what decided last was gone back from, as far as the
/// module's history goes.
async fn went_back(
    host: &Host,
    standard: &Standard,
    record: Option<&ModuleRecord>,
) -> Result<bool, String> {
    let Some(record) = record else {
        return Ok(false);
    };
    let version = version_of(record, standard.digest());
    match ask(host, 0, Request::ModuleHistory(record.name.clone())).await {
        Response::ModuleHistory(events) => {
            let mut decided = events.iter().filter(|event| {
                use ModuleAction::{Activated, AutoRolledBack, Configured, RolledBack};
                matches!(
                    event.action,
                    Activated | Configured | RolledBack | AutoRolledBack
                )
            });
            let was_active = decided.clone().any(|event| Some(event.version) == version);
            let last = decided.next_back().map(|event| event.action);
            let back = [ModuleAction::RolledBack, ModuleAction::AutoRolledBack];
            Ok(was_active || last.is_some_and(|last| back.contains(&last)))
        }
        other => Err(format!(
            "the history of {} could not be looked up: {}",
            record.name,
            refusal(other)
        )),
    }
}
