//! A record of what was asked of the process registry and what it answered.
//!
//! Write a call down before it is sent, and its answer after it came; one clock for all callers. A
//! call that is never answered has an unknown outcome. Then [`History::check`] says whether the
//! answers go together (see [`super::process`] for what is assumed), and [`History::check_lives`]
//! whether the incarnations do, whatever became of the nodes.
//!
//! Losses of nodes are not calls, and are not guessed: where a node was lost, say so with
//! [`History::lost`] for each key that it may have had, or the check will find that a process
//! vanished by itself, which is what it is for.

use std::collections::BTreeMap;
use std::sync::Arc;

use maitred_protocol::{ProcessKey, ProcessRecord, ProcessState, Rejection, Request, Response};

use super::process::{Action, Processes, Sight};
use super::{Limit, Operation, Verdict, lives};

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Whatever it is to do when the key is taken.
    Create,
    /// A member of a party: it may run, and be undone, before that is answered.
    Party,
    /// Linearizable; do not record others.
    Get,
    /// With the incarnation that guards it, and the pid.
    Set(Option<u64>, String),
    /// With the incarnation that guards it.
    Delete(Option<u64>),
}

impl Verb {
    fn name(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Party => "party",
            Self::Get => "get",
            Self::Set(..) => "set",
            Self::Delete(_) => "delete",
        }
    }
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The create made this process.
    Created(Sight),
    /// This process is there: to a get, or because a create or set found the key taken.
    Found(Sight),
    /// There is none.
    Missing,
    /// The guard was not the current incarnation, which is this one.
    Fenced(u64),
    /// The set is done, to the process of this incarnation.
    Set(u64),
    /// The delete is done.
    Deleted,
    /// The create has failed for good, or any other call was refused for a reason that says nothing
    /// of the key.
    Refused,
}

/// What a lost node means for its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// They are forgotten.
    Forgotten,
    /// They are started elsewhere, under later incarnations.
    Moved,
}

/// A call in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(u64);

pub(super) struct Call {
    pub(super) caller: u64,
    pub(super) key: ProcessKey,
    pub(super) verb: Verb,
    pub(super) invoked: u64,
    pub(super) answer: Option<(u64, Answer)>,
    /// When it can have no effect any more, if it has no answer.
    expired: Option<u64>,
}

/// Calls and their answers, in any number of keys.
#[derive(Default)]
pub struct History {
    calls: BTreeMap<u64, Call>,
    losses: Vec<(ProcessKey, Operation<Action>)>,
    next: u64,
}

impl History {
    /// Nothing has happened.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls that were made and not retracted.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// `caller` asks, at `now_us`.
    pub fn invoke(&mut self, now_us: u64, caller: u64, key: ProcessKey, verb: Verb) -> CallId {
        let id = self.id();
        let call = Call {
            caller,
            key,
            verb,
            invoked: now_us,
            answer: None,
            expired: None,
        };
        self.calls.insert(id, call);
        CallId(id)
    }

    /// The answer has come, at `now_us`. A call has one answer; later ones are ignored.
    ///
    /// # Panics
    /// When the verb has no such answer.
    pub fn answer(&mut self, call: CallId, now_us: u64, answer: Answer) {
        let Some(call) = self.calls.get_mut(&call.0) else {
            return;
        };
        let fits = match answer {
            Answer::Created(_) => call.verb == Verb::Create,
            Answer::Found(_) => !matches!(call.verb, Verb::Delete(_)),
            Answer::Missing => !matches!(call.verb, Verb::Create | Verb::Party),
            Answer::Fenced(_) => matches!(call.verb, Verb::Set(..) | Verb::Delete(_)),
            Answer::Set(_) => matches!(call.verb, Verb::Set(..)),
            Answer::Deleted => matches!(call.verb, Verb::Delete(_)),
            Answer::Refused => true,
        };
        assert!(fits, "a {} was answered {answer:?}", call.verb.name());
        call.answer.get_or_insert((now_us, answer));
    }

    /// The outcome stays unknown, but whatever it did was begun by `now_us`: nobody that knows of the
    /// call is left. A history in which all unknown outcomes have such an end is checked
    /// more sharply, since an old create cannot explain a process that comes from nowhere.
    pub fn expire(&mut self, call: CallId, now_us: u64) {
        if let Some(call) = self.calls.get_mut(&call.0) {
            call.expired = Some(now_us);
        }
    }

    /// The call is known to have done nothing and to have learnt nothing.
    pub fn retract(&mut self, call: CallId) {
        self.calls.remove(&call.0);
    }

    /// The node of a process was lost. That the process goes with it may happen once from `from_us`
    /// until `until_us` (none: any time later). Record one for each loss.
    pub fn lost(&mut self, key: ProcessKey, from_us: u64, until_us: Option<u64>, loss: Loss) {
        let operation = Operation {
            call: self.id(),
            caller: 0,
            invoked: from_us,
            returned: until_us,
            required: false,
            action: match loss {
                Loss::Forgotten => Action::Forgotten,
                Loss::Moved => Action::Moved,
            },
        };
        self.losses.push((key, operation));
    }

    /// [`History::invoke`] from a request of the wire; none when it is of no key, or a stale get.
    pub fn request(&mut self, now_us: u64, caller: u64, request: &Request) -> Option<CallId> {
        let (key, verb) = match request {
            Request::CreateProcess(_, create) => (&create.key, Verb::Create),
            Request::GetProcess { key, stale: false } => (key, Verb::Get),
            Request::SetProcess(_, set) => {
                let only = set.incarnation.map(|only| only.0);
                (&set.key, Verb::Set(only, set.pid.clone()))
            }
            Request::DelProcess {
                key, incarnation, ..
            } => (key, Verb::Delete(incarnation.map(|only| only.0))),
            _ => return None,
        };
        Some(self.invoke(now_us, caller, key.clone(), verb))
    }

    /// [`History::request`] for all keys of a request: those of a party are several.
    pub fn requests(&mut self, now_us: u64, caller: u64, request: &Request) -> Vec<CallId> {
        let Request::CreateParty(_, party) = request else {
            let call = self.request(now_us, caller, request);
            return call.into_iter().collect();
        };
        let keys = party.members.iter().map(|member| member.key.clone());
        let invoke = |key| self.invoke(now_us, caller, key, Verb::Party);
        keys.map(invoke).collect()
    }

    /// [`History::answer`] from a response of the wire. One that says that nothing was done
    /// retracts the call, so give it the last answer, not that of each try. One that says that the
    /// outcome is unknown leaves it so.
    ///
    /// # Panics
    /// When the request has no such answer.
    pub fn response(&mut self, id: CallId, now_us: u64, response: &Response) {
        let Some(call) = self.calls.get(&id.0) else {
            return;
        };
        let answer = match response {
            Response::Unavailable(_) => return self.retract(id),
            Response::Unknown(_) => return,
            Response::Created { record, created } if *created => Answer::Created(sight(record)),
            Response::Created { record, .. } => Answer::Found(sight(record)),
            Response::Party(records, _) => {
                let mut records = records.iter();
                match records.find(|record| record.key == call.key) {
                    Some(record) => Answer::Found(sight(record)),
                    None => panic!("a party is answered without {}", call.key),
                }
            }
            Response::Process { record, .. } => match call.verb {
                Verb::Set(..) => Answer::Set(record.incarnation.0),
                _ => Answer::Found(sight(record)),
            },
            Response::Done(_) => Answer::Deleted,
            Response::Rejected(Rejection::AlreadyExists(record)) => Answer::Found(sight(record)),
            Response::Rejected(Rejection::Fenced { what, current }) if what == "incarnation" => {
                Answer::Fenced(*current)
            }
            // To a create it means a module, and to an unguarded set it is never said of the key.
            Response::Rejected(Rejection::NotFound(_))
                if !matches!(call.verb, Verb::Create | Verb::Party | Verb::Set(None, _)) =>
            {
                Answer::Missing
            }
            Response::Rejected(_) => Answer::Refused,
            other => panic!("a {} was answered {other:?}", call.verb.name()),
        };
        self.answer(id, now_us, answer);
    }

    /// Whether there is an order, key by key, in which all answers are right.
    #[must_use]
    pub fn check(&self, limit: Limit) -> Verdict {
        let mut keys: BTreeMap<ProcessKey, Vec<Operation<Action>>> = BTreeMap::new();
        for (id, call) in &self.calls {
            let operations = keys.entry(call.key.clone()).or_default();
            call.operations(*id, operations);
        }
        for (key, loss) in &self.losses {
            // A key that nobody asked for has nothing to check.
            if let Some(operations) = keys.get_mut(key) {
                operations.push(loss.clone());
            }
        }
        super::check(&Processes, keys, limit)
    }

    /// Whether incarnations only grow, end for good, and have one maker each. It needs to know
    /// nothing of losses, takes no search, and so has an answer for every history.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub fn check_lives(&self) -> Result<(), String> {
        lives::check(self.calls.values())
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn sight(record: &ProcessRecord) -> Sight {
    let running = record.state == ProcessState::Running;
    Sight {
        incarnation: record.incarnation.0,
        running: running.then(|| Arc::from(record.pid.as_str())),
    }
}

impl Call {
    fn operations(&self, id: u64, operations: &mut Vec<Operation<Action>>) {
        let verb = self.verb.name();
        let mut push = |required: bool, action: Action| {
            operations.push(Operation {
                call: id,
                caller: self.caller,
                invoked: self.invoked,
                returned: self
                    .answer
                    .as_ref()
                    .map_or(self.expired, |(at, _)| Some(*at)),
                required,
                action,
            });
        };
        let Some((_, answer)) = &self.answer else {
            return match &self.verb {
                Verb::Create | Verb::Party => push(false, Action::Reserve(None)),
                Verb::Get => {}
                Verb::Set(only, pid) => {
                    let pid = Some(Arc::from(pid.as_str()));
                    push(false, Action::Set(*only, pid, None));
                }
                Verb::Delete(only) => push(false, Action::Delete(*only)),
            };
        };
        if self.verb == Verb::Party {
            push(false, Action::Reserve(None));
        }
        match (answer, &self.verb) {
            (Answer::Created(sight), _) => {
                push(true, Action::Reserve(Some(id)));
                push(true, Action::Confirm(id, sight.clone()));
            }
            (Answer::Refused, Verb::Create) => {
                push(false, Action::Reserve(Some(id)));
                push(true, Action::Abort(id));
            }
            (Answer::Refused, _) => {}
            (Answer::Found(sight), _) => push(true, Action::Show(verb, sight.clone())),
            (Answer::Missing, _) => push(true, Action::Missing(verb)),
            (Answer::Fenced(current), _) => push(true, Action::Fenced(verb, *current)),
            (Answer::Set(made), Verb::Set(only, pid)) => {
                let pid = Some(Arc::from(pid.as_str()));
                push(true, Action::Set(*only, pid, Some(*made)));
            }
            (Answer::Deleted, Verb::Delete(only)) => push(true, Action::Delete(*only)),
            // `answer` lets no others in.
            (Answer::Set(_) | Answer::Deleted, _) => {}
        }
    }
}
