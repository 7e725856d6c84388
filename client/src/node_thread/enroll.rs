//! Registering and attaching: one try at a time, and what its answer means for the rest.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{Incarnation, NodeEpoch, ProcessKey, Request, Response};

use super::Driver;
use crate::agent::{Input, Refused};
use crate::call::wrong_answer;
use crate::conn::Conn;
use crate::error::Error;
use crate::node::NodeHandler;
use crate::pool::Route;
use crate::verbs::NO_SESSION;

/// Longest that one try may take at least; else as long as the lease.
const ENROLL_MIN: Duration = Duration::from_secs(2);

/// Which try, when it was sent, and what came of it.
pub(super) type Enrolment = (u64, u64, Result<(Response, Arc<Conn>), Error>);

impl<H: NodeHandler> Driver<H> {
    pub(super) fn enrolled(
        &mut self,
        number: u64,
        sent_us: u64,
        result: Result<(Response, Arc<Conn>), Error>,
    ) {
        if self
            .enrolment
            .as_ref()
            .is_none_or(|(last, _)| *last != number)
        {
            return;
        }
        let result = result.and_then(|(response, conn)| match response {
            Response::Registered { epoch, verdicts } => Ok((epoch, verdicts, conn)),
            _ => Err(wrong_answer("a registration")),
        });
        let error = match result {
            Ok((epoch, verdicts, conn)) => {
                self.attached = Some(Arc::clone(&conn));
                self.step(Input::Enrolled {
                    number,
                    host: conn.welcome.host,
                    epoch,
                    verdicts,
                    sent_us,
                });
                let ready = self.ready.take();
                if ready.is_some_and(|ready| ready.send(Ok(Arc::clone(&self.shared))).is_err()) {
                    // Whoever started the node no longer waits for it, and nobody else could end it.
                    self.step(Input::Shutdown);
                }
                for (from, id, command) in std::mem::take(&mut self.early) {
                    if Arc::ptr_eq(&from, &conn) {
                        self.command(from, id, command);
                    }
                }
                // It may have gone before it was known here as the one to listen to.
                if conn.is_ended() && self.attached.take().is_some() {
                    self.step(Input::Disconnected);
                }
                return;
            }
            Err(error) => error,
        };
        tracing::warn!(node = %self.shared.name, %error, "cannot register");
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(Err(error));
            self.leaving = Some(None);
            return;
        }
        let refused = match &error {
            Error::Rejected(rejection) => Refused::by(rejection),
            _ => Refused::Unavailable,
        };
        if refused == Refused::Superseded {
            self.why = Some(error);
        }
        self.step(Input::EnrollFailed { number, refused });
    }

    pub(super) fn enroll(
        &mut self,
        number: u64,
        (epoch, last_epoch): (Option<NodeEpoch>, Option<NodeEpoch>),
        inventory: Vec<(ProcessKey, Incarnation)>,
    ) {
        let request = match epoch {
            Some(epoch) => Request::AttachNode {
                name: self.shared.name.clone(),
                epoch,
                inventory,
            },
            None => {
                let mut node = self.node.clone();
                node.inventory = inventory;
                node.last_epoch = last_epoch;
                Request::RegisterNode(NO_SESSION, Box::new(node))
            }
        };
        let (shared, done) = (Arc::clone(&self.shared), self.enrolments.clone());
        let timeout = self.ttl.max(ENROLL_MIN);
        let enrolment = tokio::spawn(async move {
            let sent_us = shared.clock.now_us();
            let result = shared.caller.call_on(Route::Leader, request, timeout).await;
            let _ = done.send((number, sent_us, result));
        });
        let last = self.enrolment.replace((number, enrolment.abort_handle()));
        if let Some((_, last)) = last {
            last.abort();
        }
    }
}
