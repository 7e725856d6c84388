//! **Property: a request id takes effect once.** A create's process is not made again under its id after
//! it has ended; and once a host has said that a change is done, every later answer to that id is the same.

use std::collections::{BTreeMap, BTreeSet};

use maitred_protocol::{RequestId, Response};
use maitred_registry::{Change, Record};

/// What a done change came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Done {
    Party(Vec<u64>),
    Created(u64),
    Changed(u64),
    Registered(u64),
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Once {
    done: BTreeMap<RequestId, Done>,
    /// Creates whose process has ended, and the revision of that.
    ended: BTreeMap<RequestId, u64>,
    told: BTreeSet<(RequestId, u64)>,
}

impl Once {
    /// A host answers.
    ///
    /// # Errors
    /// The same request was answered otherwise before.
    pub fn replied(&mut self, request: RequestId, response: &Response) -> Result<(), String> {
        if request.client.0 == 0 {
            return Ok(());
        }
        let done = match response {
            Response::Created {
                record,
                created: true,
            } => Some(Done::Created(record.incarnation.0)),
            Response::Party(records, true) => {
                let lives = records.iter().map(|record| record.incarnation.0);
                Some(Done::Party(lives.collect()))
            }
            Response::Done(revision) => Some(Done::Changed(revision.0)),
            Response::Registered { epoch, .. } => Some(Done::Registered(epoch.0)),
            Response::Unavailable(_) | Response::Unknown(_) => return Ok(()),
            _ => None,
        };
        let known = self.done.get(&request).cloned();
        match (known, done) {
            (Some(known), done) if done.as_ref() != Some(&known) => Err(format!(
                "request {}.{} was done, {known:?}, and is answered {response:?} later",
                request.client, request.sequence
            )),
            (None, Some(done)) => {
                self.done.insert(request, done);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A process has changed.
    ///
    /// # Errors
    /// Its create has ended before.
    pub fn changed(&mut self, change: Change, record: &Record) -> Result<(), String> {
        let Some(request) = record.spec.as_ref().and_then(|spec| spec.request) else {
            return Ok(());
        };
        let at = record.revision.0;
        match change {
            Change::Removed => {
                self.ended.entry(request).or_insert(at);
            }
            Change::Reserved if self.told.insert((request, at)) => {
                if let Some(ended) = self.ended.get(&request).filter(|ended| **ended < at) {
                    return Err(format!(
                        "request {}.{} ended at {ended} and makes {}@{} at {at}",
                        request.client,
                        request.sequence,
                        record.key(),
                        record.incarnation
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
