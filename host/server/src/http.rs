//! Three pages for machines: `/metrics`, `/livez` and `/readyz`.
//!
//! They ask nobody who they are and change nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use maitred_protocol::{NodeRecord, Request, Response, Status};
use tokio::net::TcpListener;

use crate::host::Host;
use crate::metrics;

/// How long to wait for the replica before saying nothing of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serves until the host ends.
pub(crate) async fn serve(host: Arc<Host>, listener: TcpListener) {
    let ending = Arc::clone(&host);
    let pages = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .with_state(host);
    let served =
        axum::serve(listener, pages).with_graceful_shutdown(async move { ending.stopping().await });
    if let Err(error) = served.await {
        tracing::warn!(%error, "metrics are no longer served");
    }
}

async fn status(host: &Host) -> Option<Box<Status>> {
    let asked = host.router.request(0, Request::Status);
    let answer = tokio::time::timeout(PATIENCE, asked).await.ok()?;
    match host.spell_out(answer) {
        Response::Status(status) => Some(status),
        _ => None,
    }
}

/// The nodes with what the leader knows of them, if this is it.
async fn nodes(host: &Host) -> Option<Vec<NodeRecord>> {
    if !host.leader.borrow().serving {
        return None;
    }
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let asked = host.router.request(0, Request::ListNodes { after });
        let answer = tokio::time::timeout(PATIENCE, asked).await.ok()?;
        let Response::Nodes { items, next } = answer.into_response() else {
            return None;
        };
        all.extend(items);
        if next.is_none() {
            return Some(all);
        }
        after = next;
    }
}

async fn metrics(State(host): State<Arc<Host>>) -> impl IntoResponse {
    let (status, nodes) = tokio::join!(status(&host), nodes(&host));
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (
        kind,
        metrics::text(&host, status.as_deref(), nodes.as_deref()),
    )
}

/// Whether the replica answers at all.
async fn live(State(host): State<Arc<Host>>) -> impl IntoResponse {
    match status(&host).await {
        Some(_) => (StatusCode::OK, "ok\n"),
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the replica does not answer\n",
        ),
    }
}

/// Whether creates can be expected to work.
async fn ready(State(host): State<Arc<Host>>) -> impl IntoResponse {
    let no = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why);
    if *host.stopping.borrow() {
        return no("shutting down\n".to_owned());
    }
    if !*host.ready.borrow() {
        let missing = host.modules.unavailable();
        let why = missing
            .first()
            .map(|(name, why)| format!(": {name}: {why}"));
        return no(format!("starting{}\n", why.unwrap_or_default()));
    }
    if host.leader.borrow().host.is_none() {
        return no("no host leads, as far as this one knows\n".to_owned());
    }
    match status(&host).await {
        None => no("the replica does not answer\n".to_owned()),
        Some(status) => match status.shedding {
            Some(why) => no(format!("{why}\n")),
            None => (StatusCode::OK, "ok\n".to_owned()),
        },
    }
}
