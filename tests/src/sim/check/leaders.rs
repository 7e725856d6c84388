//! **Property: a term has at most one leader.** Whoever sends entries or heartbeats of a term, whoever
//! serves in it, and whoever others say leads it, are all the same host. It serves only when it has applied
//! an entry of its term: by then it knows all that was promised before.

use std::collections::BTreeMap;

/// The leader of each term.
#[derive(Debug, Default)]
pub struct Leaders(BTreeMap<u64, u64>);

impl Leaders {
    /// `host` leads `term`.
    ///
    /// # Errors
    /// Another one was seen to.
    pub fn leads(&mut self, term: u64, host: u64) -> Result<(), String> {
        let leader = *self.0.entry(term).or_insert(host);
        if leader == host {
            return Ok(());
        }
        Err(format!("hosts {leader} and {host} both lead term {term}"))
    }

    /// A host serves in a term, and the last entry that it has applied is of `applied`.
    ///
    /// # Errors
    /// It may not know all that was promised in earlier terms.
    pub fn serves(term: u64, applied: Option<u64>) -> Result<(), String> {
        match applied {
            Some(applied) if applied < term => Err(format!(
                "a host serves in term {term}, and has applied entries up to term {applied} only"
            )),
            _ => Ok(()),
        }
    }

    /// A host says who leads.
    ///
    /// # Errors
    /// It contradicts what was seen.
    pub fn claims(
        &mut self,
        term: u64,
        leader: Option<u64>,
        (host, serves): (u64, bool),
    ) -> Result<(), String> {
        if serves && leader != Some(host) {
            return Err(format!(
                "host {host} serves in term {term} and says that {leader:?} leads"
            ));
        }
        leader.map_or(Ok(()), |leader| self.leads(term, leader))
    }
}
