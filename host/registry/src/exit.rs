//! Processes that end by themselves.

use maitred_protocol::{Incarnation, ProcessKey};

use crate::Registry;
use crate::life::At;
use crate::outcome::{Event, Outcome};

impl Registry {
    /// A life has ended: its node says so.
    pub(crate) fn exited(
        &mut self,
        at: At,
        life: (&ProcessKey, Incarnation),
        (reason, ask): (String, bool),
        events: &mut Vec<Event>,
    ) -> Outcome {
        if !ask {
            return self.del_process(at, life.0, (Some(life.1), true), events);
        }
        self.take_off(at, life, (&reason, true), events)
    }
}
