//! `party create`: several processes at once, all or none.

use std::str::FromStr;

use clap::{Args, Subcommand};
use maitred_protocol::limits::PARTY_MAX;
use maitred_protocol::{CreateParty, PartyRule, ProcessKey, ProcessRecord};
use serde_json::json;

use super::chooser;
use super::how::{Conflict, How};
use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;
use crate::out::table;

/// Create several processes together, all or none
#[derive(Debug, Subcommand)]
pub(crate) enum Party {
    Create(Create),
}

/// How the members are placed with regard to each other, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule(PartyRule);

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = match text.split_once(':') {
            None if text == "any" => PartyRule::Any,
            None if text == "together" => PartyRule::Together,
            None if text == "apart" => PartyRule::Apart,
            Some(("at-most", count)) => {
                let count = count.parse().ok().filter(|n| (1..=PARTY_MAX).contains(n));
                let count = count.and_then(|count| u8::try_from(count).ok());
                let count = count.ok_or("at-most needs a number from 1 to 64, as in at-most:2")?;
                PartyRule::AtMost(count)
            }
            _ => return Err("must be together, apart, at-most:N or any".to_owned()),
        };
        Ok(Self(rule))
    }
}

/// Create the members of a party, all of them or none
///
/// All keys are reserved in one entry of the log, on nodes that together have room; then all are started,
/// and when one cannot be, those that were are undone. GROUP becomes the group of each, for selectors
/// that keep groups together and for later members. Members that are there already, all of them, are
/// answered as they are. The flags are for every member.
///
/// Example: maitred party create squad-7 player/1 player/2 player/3 --rule together
///
/// Example: maitred party create shards shard/a shard/b shard/c --rule at-most:1 --require zone=eu
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The name of the party, 1 to 256 bytes
    group: String,
    /// Its members, 1 to 64
    #[arg(value_name = "TYPE/ID", required = true, num_args = 1..=PARTY_MAX)]
    members: Vec<ProcessKey>,
    /// together on one node, apart on a node each, at-most:N on a node, or any: as the selector likes
    #[arg(long, value_name = "RULE", default_value = "any")]
    rule: Rule,
    #[command(flatten)]
    how: How,
}

impl Party {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        match self {
            Self::Create(verb) => verb.run(shell).await,
        }
    }
}

impl Create {
    async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        if self.how.on_conflict == Conflict::Wait {
            let message = "the members of a party cannot wait for keys that are taken";
            let help = "use --on-conflict fail or return";
            return Err(Failure::usage(message, help));
        }
        let members = self.members.iter();
        let members = members.map(|key| self.how.request(key, Some(self.group.clone())));
        let party = CreateParty {
            group: self.group.clone(),
            rule: self.rule.0,
            members: members.collect::<Result<_, _>>()?,
        };
        let client = shell.client().await?;
        let made = client.create_party(party).await?;
        let body = json!({
            "group": self.group,
            "created": made.created,
            "items": made.records.iter().map(shape::process).collect::<Vec<_>>(),
        });
        shell.out.show("Party", body, || {
            let verb = if made.created { "created" } else { "was there" };
            format!("party {} {verb}\n\n{}", self.group, rows(&made.records))
        })?;
        client.close().await;
        Ok(())
    }
}

fn rows(records: &[ProcessRecord]) -> String {
    let header = ["PROCESS", "NODE", "PID", "INCARNATION", "PLACED BY"];
    let row = |record: &ProcessRecord| {
        vec![
            record.key.to_string(),
            record.node.to_string(),
            record.pid.clone(),
            record.incarnation.to_string(),
            chooser(&record.why.chooser),
        ]
    };
    table(&header, records.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_words() {
        let rule = |text: &str| text.parse::<Rule>().map(|rule| rule.0);
        assert_eq!(rule("any"), Ok(PartyRule::Any));
        assert_eq!(rule("together"), Ok(PartyRule::Together));
        assert_eq!(rule("apart"), Ok(PartyRule::Apart));
        assert_eq!(rule("at-most:64"), Ok(PartyRule::AtMost(64)));
        for bad in [
            "",
            "at-most",
            "at-most:0",
            "at-most:65",
            "at-most:x",
            "any:1",
        ] {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }
}
