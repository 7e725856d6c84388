//! The bounds of requests about modules and parties.

use super::{OutOfBounds, field, number};
use crate::id::TypeName;
use crate::limits as limit;
use crate::request::{CreateParty, OnConflict, PartyRule, SaveInputs};

pub(super) fn config(config: Option<&String>) -> Result<(), OutOfBounds> {
    let (bytes, max) = (config.map_or(0, String::len), limit::CONFIG_BYTES_MAX);
    field("configuration", bytes, max, "at most 65,536 bytes")
}

pub(super) fn canary(percent: u8, types: &[TypeName], guard: &str) -> Result<(), OutOfBounds> {
    number("percent", percent.into(), 1, 100, "1 to 100")?;
    field("types", types.len(), limit::CANARY_TYPES_MAX, "at most 64")?;
    types.iter().try_for_each(TypeName::check)?;
    let max = limit::GUARD_BYTES_MAX;
    field("rule", guard.len(), max, "at most 256 bytes")
}

pub(super) fn replayed(last: u32) -> Result<(), OutOfBounds> {
    let max = i64::from(limit::REPLAY_MAX);
    number("decisions", last.into(), 1, max, "1 to 1,000,000")
}

pub(super) fn latencies(latencies: &[(String, u32)]) -> Result<(), OutOfBounds> {
    let max = limit::LATENCIES_MAX;
    field("latencies", latencies.len(), max, "at most 32")?;
    latencies.iter().try_for_each(|(value, _)| {
        let bytes = value.len();
        field("latency", bytes, limit::TEXT_BYTES_MAX, "at most 256 bytes")
    })
}

impl SaveInputs {
    pub(crate) fn check(&self) -> Result<(), OutOfBounds> {
        self.name.as_ref().map_or(Ok(()), |name| name.check())?;
        replayed(self.last)
    }
}

impl CreateParty {
    pub(crate) fn check(&self) -> Result<(), OutOfBounds> {
        let (bytes, max) = (self.group.len() as i64, limit::TEXT_BYTES_MAX as i64);
        number("group", bytes, 1, max, "1 to 256 bytes")?;
        let (members, max) = (self.members.len() as i64, limit::PARTY_MAX as i64);
        number("members", members, 1, max, "1 to 64")?;
        if let PartyRule::AtMost(count) = self.rule {
            number("rule", count.into(), 1, max, "1 to 64 on a node")?;
        }
        for (at, member) in self.members.iter().enumerate() {
            member.check()?;
            let waits = member.options.on_conflict == OnConflict::Wait;
            number(
                "on_conflict",
                waits.into(),
                0,
                0,
                "`fail` or `return` in a party",
            )?;
            let twice = self.members[..at].iter().any(|one| one.key == member.key);
            number(
                "members",
                twice.into(),
                0,
                0,
                "processes with different keys",
            )?;
        }
        Ok(())
    }
}
