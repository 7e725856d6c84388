//! The modules that every new group gets: five selectors and the callback `start`.
//!
//! They are part of the program, and come in the way every other module does: inspected, written
//! down, recorded and activated. The callback comes last, and says that all were there once: what an
//! operator removes or replaces later stays removed or replaced.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{ClientId, Digest, ModuleKind, ModuleName, Rejection, Request, Response};

use crate::host::Host;
use crate::upload::{Incoming, take_in};

/// How long to wait before asking again what could not be done yet.
const AGAIN: Duration = Duration::from_millis(20);

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
const CALLBACK: (&str, &[u8]) = prebuilt!("start");

/// Waits until this host leads, installs what is missing if it is to, and says that the host is
/// ready.
pub(crate) async fn make_ready(host: Arc<Host>, install: bool) {
    let Some(client) = open_session(&host).await else {
        return;
    };
    if install && let Err(why) = install_all(&host, client).await {
        // Everything else works: types that name a missing selector use their fallback.
        tracing::error!(%why, "the standard modules could not be installed");
    }
    // What was active before a restart is being loaded; without it, decisions would fall back.
    host.modules.settled().await;
    host.ready.send_replace(true);
}

/// Asks until this host leads; none when it is shutting down.
async fn open_session(host: &Host) -> Option<ClientId> {
    loop {
        if *host.stopping.borrow() || host.alarm.raised().is_some() {
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

async fn install_all(host: &Arc<Host>, client: ClientId) -> Result<(), String> {
    let name = |text| ModuleName::new(text).map_err(|error| error.to_string());
    let mut sequence = 0;
    if is_active(host, &name(CALLBACK.0)?).await? {
        return Ok(());
    }
    let selectors = SELECTORS.map(|module| (ModuleKind::Selector, module));
    for (kind, (text, bytes)) in selectors
        .into_iter()
        .chain([(ModuleKind::Callback, CALLBACK)])
    {
        let name = name(text)?;
        if is_active(host, &name).await? {
            continue;
        }
        sequence += 2;
        let module = Incoming {
            client,
            sequence: sequence - 1,
            name: name.clone(),
            kind,
            digest: Digest::of(bytes),
            bytes: bytes.into(),
        };
        let version = match take_in(host, module, |_| ()).await {
            Response::Pushed(_, version) => version,
            other => return Err(format!("{text} was not taken: {other:?}")),
        };
        let config = None;
        let activate = Request::ActivateModule {
            client,
            name,
            version,
            config,
        };
        match ask(host, sequence, activate).await {
            Response::Module(_) => {}
            other => return Err(format!("{text} was not activated: {other:?}")),
        }
    }
    Ok(())
}

/// Whether a module has an active version.
async fn is_active(host: &Host, name: &ModuleName) -> Result<bool, String> {
    match ask(host, 0, Request::GetModule(name.clone())).await {
        Response::Module(module) => Ok(module.active.is_some()),
        Response::Rejected(Rejection::NotFound(_)) => Ok(false),
        other => Err(format!("{name} could not be looked up: {other:?}")),
    }
}
