//! Parties: several processes that are created together, or not at all.

use std::time::Duration;

use maitred_protocol::{CreateParty, PartyRule, ProcessRecord, Request, Response};

use crate::call::wrong_answer;
use crate::create::Create;
use crate::error::Error;
use crate::verbs::{CREATE_SLACK, Client, NO_SESSION, answer};

/// The answer to the create of a party.
#[derive(Debug, Clone, PartialEq)]
pub struct PartyCreated {
    /// The processes, in the order in which they were asked for.
    pub records: Vec<ProcessRecord>,
    /// False when all of them were there before.
    pub created: bool,
}

/// A party that is being put together: [`Party::send`] creates all of it, or nothing.
#[derive(Debug, Clone)]
#[must_use]
pub struct Party {
    client: Client,
    party: CreateParty,
}

impl Party {
    pub(crate) fn new(client: Client, group: String) -> Self {
        let party = CreateParty {
            group,
            rule: PartyRule::default(),
            members: Vec::new(),
        };
        Self { client, party }
    }

    /// How the members are placed with regard to each other; as the selector likes unless said.
    pub fn rule(mut self, rule: PartyRule) -> Self {
        self.party.rule = rule;
        self
    }

    /// Adds a member; 1 to 64, with different keys. The first one's deadline is that of all, and the
    /// party's name is the group of each.
    pub fn member(mut self, create: Create) -> Self {
        self.party.members.push(create.into_request());
        self
    }

    /// Creates all of them; Ok when all run.
    ///
    /// # Errors
    /// [`maitred_protocol::Rejection::Party`] names the member that could not be created; then none
    /// was.
    pub async fn send(self) -> Result<PartyCreated, Error> {
        self.client.create_party(self.party).await
    }
}

impl Client {
    /// Begins a party of that name, 1 to 256 bytes: `client.party("squad-7").member(…).send()`.
    pub fn party(&self, group: impl Into<String>) -> Party {
        Party::new(self.clone(), group.into())
    }

    /// Creates all members of a party, or none. Waits for as long as the first one's deadline and
    /// 5 s, or for the builder's `create_timeout` when it has none.
    pub async fn create_party(&self, party: CreateParty) -> Result<PartyCreated, Error> {
        let first = party.members.first();
        let timeout = match first.map_or(0, |first| first.options.deadline_ms) {
            0 => self.settings().create_timeout,
            deadline_ms => Duration::from_millis(deadline_ms.into()) + CREATE_SLACK,
        };
        let request = Request::CreateParty(NO_SESSION, Box::new(party));
        answer!(self.caller().call(request, timeout), "a created party",
            Response::Party(records, created) => PartyCreated { records, created })
    }
}
