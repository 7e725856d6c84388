//! Learning the members: they are asked for when a connection is made, when a leader is named that
//! there is no way to, and now and then.
//!
//! Holds: many reasons at once are one question; what the answer changes is decided in
//! `pool/hosts.rs`.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{Request, Response};
use maitred_transport::LinkError;
use tokio::time::{Instant, sleep, timeout};

use super::{Pool, Route, jittered};
use crate::conn::Conn;

/// Between two questions for the members: at most (half of it at least, by jitter), after one that
/// was not answered, and at least.
const LEARN_EVERY: Duration = Duration::from_secs(40);
const LEARN_RETRY: Duration = Duration::from_secs(1);
const LEARN_PAUSE: Duration = Duration::from_millis(50);
/// Longest that such a question may take.
const LEARN_TIMEOUT: Duration = Duration::from_secs(2);

/// Learns the members for as long as the pool lives.
pub(super) async fn keep_learning(pool: Arc<Pool>) {
    let (mut wait, mut route) = (LEARN_EVERY, Route::Leader);
    loop {
        // Either way the members are asked for.
        let _ = timeout(jittered(wait), pool.learn.notified()).await;
        // The leader knows best, and any other host will do when it does not say.
        (wait, route) = if pool.learn(route).await {
            (LEARN_EVERY, Route::Leader)
        } else {
            (LEARN_RETRY, Route::Any)
        };
        // Many reasons at once are one.
        sleep(LEARN_PAUSE).await;
    }
}

impl Pool {
    /// Asks for the members and takes them in; whether that worked.
    async fn learn(self: &Arc<Self>, route: Route) -> bool {
        let Some((_, conn)) = self.lock().choose(route, None) else {
            // Asked again when there is one.
            return true;
        };
        let deadline = Instant::now() + LEARN_TIMEOUT;
        let answer = conn.exchange(self.own_id(), &Request::ListMembers, deadline);
        let members = match answer.await {
            Ok(Response::Members(members)) => members,
            other => {
                tracing::debug!(?other, "the members are not known");
                return false;
            }
        };
        let from = conn.welcome.host;
        if let (leader @ Some(_), term) = (members.leader, members.term) {
            self.heard(from, leader, term);
        }
        let changes = self.lock().learn(&members);
        for id in changes.dropped {
            // Its task must not call again; the connection, if any, is ended below.
            let task = self.tasks().remove(&id);
            if let Some(task) = task {
                task.abort();
            }
        }
        for conn in changes.ended {
            tracing::debug!(host = conn.welcome.host, "a host has left");
            self.leave(&conn).await;
        }
        for (id, endpoint) in changes.added {
            tracing::debug!(%endpoint, "a host was learned of");
            self.call(id, endpoint);
        }
        self.changed.send_replace(());
        true
    }

    /// Ends a connection whose task is gone.
    async fn leave(&self, conn: &Arc<Conn>) {
        conn.end(LinkError::Local);
        conn.tell_down(self.node.as_ref()).await;
    }
}
