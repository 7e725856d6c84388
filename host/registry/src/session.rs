//! Client sessions, and the outcomes that make a retry safe (Ongaro's thesis, section 6.3).
//!
//! A session remembers the outcomes of its last requests. A request whose outcome is remembered is
//! not carried out again; one that may have been and is no longer remembered is answered
//! "unknown"; it is never carried out twice in silence.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use maitred_protocol::{ClientId, RequestId};

use crate::limits::{OUTCOME_AGE_MAX, OUTCOMES_MAX, SESSIONS_MAX, SWEEP_EVERY};
use crate::outcome::Outcome;

/// What is remembered of one client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Session {
    /// Index and outcome, by sequence.
    pub(crate) outcomes: BTreeMap<u64, (u64, Outcome)>,
    /// Sequences below this may have been carried out and forgotten.
    pub(crate) forgotten_below: u64,
    /// The index of its last request.
    pub(crate) last_index: u64,
}

impl Session {
    fn forget_lowest(&mut self) {
        if let Some((sequence, _)) = self.outcomes.pop_first() {
            self.forgotten_below = self.forgotten_below.max(sequence.saturating_add(1));
        }
    }

    fn has_before(&self, index: u64) -> bool {
        self.outcomes
            .first_key_value()
            .is_some_and(|(_, (at, _))| *at < index)
    }
}

/// What is known of a request.
#[derive(Debug, Clone)]
pub enum Known {
    /// Nothing: carry it out.
    Fresh,
    /// It was carried out.
    Done(Outcome),
    /// It may have been carried out.
    Forgotten,
    /// The session is not known: never opened, or forgotten.
    NoSession,
}

/// All sessions. Each is shared with snapshots until it changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions {
    pub(crate) all: BTreeMap<ClientId, Arc<Session>>,
    /// The last one that was swept. Part of the state: what is forgotten must not differ from host
    /// to host.
    pub(crate) swept: ClientId,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn open(&mut self, index: u64) -> ClientId {
        if self.all.len() >= SESSIONS_MAX {
            let silent = self
                .all
                .iter()
                .min_by_key(|(id, session)| (session.last_index, **id));
            if let Some(id) = silent.map(|(id, _)| *id) {
                self.all.remove(&id);
            }
        }
        let session = Session {
            last_index: index,
            ..Session::default()
        };
        self.all.insert(ClientId(index), Arc::new(session));
        ClientId(index)
    }

    /// Forgets a session; one that is not known is none to forget.
    pub(crate) fn close(&mut self, client: ClientId) {
        self.all.remove(&client);
    }

    pub(crate) fn lookup(&self, request: RequestId) -> Known {
        let Some(session) = self.all.get(&request.client) else {
            return Known::NoSession;
        };
        match session.outcomes.get(&request.sequence) {
            Some((_, outcome)) => Known::Done(outcome.clone()),
            None if request.sequence < session.forgotten_below => Known::Forgotten,
            None => Known::Fresh,
        }
    }

    pub(crate) fn store(&mut self, index: u64, request: RequestId, outcome: Outcome) {
        let Some(session) = self.all.get_mut(&request.client) else {
            return;
        };
        let session = Arc::make_mut(session);
        session.last_index = index;
        if request.sequence < session.forgotten_below {
            return;
        }
        session.outcomes.insert(request.sequence, (index, outcome));
        while session.outcomes.len() > OUTCOMES_MAX {
            session.forget_lowest();
        }
    }

    /// Looks at one session in turn, so that silent ones do not keep outcomes for ever.
    pub(crate) fn sweep(&mut self, index: u64) {
        if !index.is_multiple_of(SWEEP_EVERY) || self.all.is_empty() {
            return;
        }
        let horizon = index.saturating_sub(OUTCOME_AGE_MAX);
        if horizon == 0 {
            return;
        }
        let from = (Bound::Excluded(self.swept), Bound::Unbounded);
        let next = self
            .all
            .range(from)
            .next()
            .or_else(|| self.all.iter().next());
        let Some(id) = next.map(|(id, _)| *id) else {
            return;
        };
        self.swept = id;
        if let Some(session) = self.all.get_mut(&id)
            && session.has_before(horizon)
        {
            let session = Arc::make_mut(session);
            while session.has_before(horizon) {
                session.forget_lowest();
            }
        }
    }
}
