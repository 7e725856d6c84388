//! The modules that every new group gets: five selectors, the fence `witness` and the callback
//! `start`.
//!
//! They are part of the program, and come in the way every other module does: inspected, written
//! down, recorded and activated. The callback comes last, and says that all were there once: what an
//! operator removes or replaces later stays removed or replaced.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{ClientId, Digest, ModuleKind, ModuleName, Rejection, Request, Response};

use crate::activate;
use crate::host::Host;
use crate::upload::{Incoming, take_in};

/// How long to wait before asking again what could not be done yet.
const AGAIN: Duration = Duration::from_millis(20);
/// First pause after they could not be installed; each one is twice as long.
const RETRY_MIN: Duration = Duration::from_millis(250);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(30);

macro_rules! prebuilt {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!("../../../selectors/prebuilt/", $name, ".wasm")).as_slice(),
        )
    };
}

const SELECTORS: [(&str, &[u8]); 5] = [
    prebuilt!("least-loaded"),
    prebuilt!("two-choices"),
    prebuilt!("rendezvous"),
    prebuilt!("bin-pack"),
    prebuilt!("spread"),
];
const FENCE: (&str, &[u8]) = prebuilt!("witness");
const CALLBACK: (&str, &[u8]) = prebuilt!("start");

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
                // The sender lives in the host.
                let _ = leader.wait_for(|now| now.serving != serving).await;
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
    let name = ModuleName::new(CALLBACK.0).expect("letters are a name");
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
        let installed = install_all(host, client).await;
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

/// The standard modules from the one that could not be installed on.
fn missing(from: usize, why: &str) -> Vec<(ModuleName, String)> {
    let names = all().skip(from).map(|(_, name, _)| name);
    let names = names.filter_map(|name| ModuleName::new(name).ok());
    names
        .map(|name| {
            (
                name,
                format!("it is not installed yet, and tried again: {why}"),
            )
        })
        .collect()
}

/// All of them, in the order in which they are installed.
fn all() -> impl Iterator<Item = (ModuleKind, &'static str, &'static [u8])> {
    let selectors = SELECTORS.map(|(name, bytes)| (ModuleKind::Selector, name, bytes));
    let callback = (ModuleKind::Callback, CALLBACK.0, CALLBACK.1);
    let fence = (ModuleKind::Fence, FENCE.0, FENCE.1);
    selectors.into_iter().chain([fence, callback])
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

/// Installs what is missing; says with which one it ended, and why.
async fn install_all(host: &Arc<Host>, client: ClientId) -> Result<(), (usize, String)> {
    if is_active(host, CALLBACK.0).await.map_err(|why| (0, why))? {
        return Ok(());
    }
    for (at, (kind, name, bytes)) in all().enumerate() {
        let installed = install(host, client, 2 * at as u64 + 1, (kind, name, bytes)).await;
        installed.map_err(|why| (at, why))?;
    }
    Ok(())
}

/// Installs one, unless it is there. Takes two sequence numbers.
async fn install(
    host: &Arc<Host>,
    client: ClientId,
    sequence: u64,
    (kind, text, bytes): (ModuleKind, &str, &[u8]),
) -> Result<(), String> {
    if is_active(host, text).await? {
        return Ok(());
    }
    let name = ModuleName::new(text).map_err(|error| error.to_string())?;
    let module = Incoming {
        client,
        sequence,
        name: name.clone(),
        kind,
        digest: Digest::of(bytes),
        bytes: bytes.into(),
    };
    let version = match take_in(host, module, |_| ()).await {
        Response::Pushed(_, version) => version,
        other => return Err(format!("{text} was not taken: {}", refusal(other))),
    };
    let activation = Request::ActivateModule {
        client,
        name,
        version,
        config: None,
    };
    let answer = activate::carry_out(host, sequence + 1, activation).await;
    match answer.into_response() {
        Response::Module(_) => Ok(()),
        other => Err(format!("{text} was not activated: {}", refusal(other))),
    }
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

/// Whether a module has an active version.
async fn is_active(host: &Host, text: &str) -> Result<bool, String> {
    let name = ModuleName::new(text).map_err(|error| error.to_string())?;
    match ask(host, 0, Request::GetModule(name)).await {
        Response::Module(module) => Ok(module.active.is_some()),
        Response::Rejected(Rejection::NotFound(_)) => Ok(false),
        other => Err(format!("{text} could not be looked up: {}", refusal(other))),
    }
}
