//! The bounds of every message that comes from outside, checked when it is decoded.
//!
//! One check a message, one line a field; the numbers are [`crate::limits`]'.

mod module;

use crate::failover::{Drain, Move, RebalanceAsk};
use crate::id::{Incarnation, InvalidName, ModuleName, NodeName, ProcessKey, TypeName};
use crate::limits as limit;
use crate::peer::{Join, PeerBatch, PeerHello, PeerRequest};
use crate::record::TypeSpec;
use crate::request::{CreateProcess, ListProcesses, RegisterNode, Request, SetProcess, Upload};

/// Which field of a message is out of bounds, and how.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfBounds {
    /// A name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A size or number.
    #[error("{field} is {got}, and must be {bounds}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its size or value.
        got: i64,
        /// What it must be, for people.
        bounds: &'static str,
    },
}

fn field(
    field: &'static str,
    got: usize,
    max: usize,
    bounds: &'static str,
) -> Result<(), OutOfBounds> {
    number(field, got as i64, 0, max as i64, bounds)
}

fn number(
    field: &'static str,
    got: i64,
    min: i64,
    max: i64,
    bounds: &'static str,
) -> Result<(), OutOfBounds> {
    if (min..=max).contains(&got) {
        Ok(())
    } else {
        Err(OutOfBounds::Field { field, got, bounds })
    }
}

fn labels(labels: &[(String, String)]) -> Result<(), OutOfBounds> {
    field("labels", labels.len(), limit::LABELS_MAX, "at most 32")?;
    for (key, value) in labels {
        number(
            "label key",
            key.len() as i64,
            1,
            limit::TEXT_BYTES_MAX as i64,
            "1 to 256 bytes",
        )?;
        field(
            "label value",
            value.len(),
            limit::TEXT_BYTES_MAX,
            "at most 256 bytes",
        )?;
    }
    Ok(())
}

fn share(share: &[u8]) -> Result<(), OutOfBounds> {
    field(
        "share",
        share.len(),
        limit::SHARE_BYTES_MAX,
        "at most 4,096 bytes",
    )
}

fn capacity(capacity: u32) -> Result<(), OutOfBounds> {
    number(
        "capacity",
        capacity.into(),
        1,
        limit::CAPACITY_MAX.into(),
        "1 to 1,000,000",
    )
}

fn inventory(inventory: &[(ProcessKey, Incarnation)]) -> Result<(), OutOfBounds> {
    field(
        "inventory",
        inventory.len(),
        limit::INVENTORY_MAX,
        "at most 20,000",
    )?;
    Ok(inventory.iter().try_for_each(|(key, _)| key.check())?)
}

fn host_address(address: &str) -> Result<(), OutOfBounds> {
    let (got, max) = (address.len() as i64, limit::TEXT_BYTES_MAX as i64);
    number("address", got, 1, max, "1 to 256 bytes")
}

fn build(build: &str) -> Result<(), OutOfBounds> {
    let max = limit::TEXT_BYTES_MAX;
    field("build", build.len(), max, "at most 256 bytes")
}

impl PeerHello {
    pub(crate) fn check(&self) -> Result<(), OutOfBounds> {
        build(&self.build)
    }
}

impl Join {
    pub(crate) fn check(&self) -> Result<(), OutOfBounds> {
        self.name.check()?;
        host_address(&self.address)?;
        let bounds = "a number that is not 0";
        number("instance", i64::from(self.instance != 0), 1, 1, bounds)
    }
}

impl PeerBatch {
    pub(crate) fn check(&self) -> Result<(), OutOfBounds> {
        self.messages.iter().try_for_each(|message| {
            let (bytes, max) = (message.context.len(), limit::RAFT_CONTEXT_BYTES_MAX);
            field("context", bytes, max, "at most 64 bytes")
        })
    }
}

impl PeerRequest {
    pub(crate) fn check(&self) -> Result<(), OutOfBounds> {
        match self {
            Self::Join(join) => join.check(),
            Self::Hold { bytes, .. } => {
                let got = i64::try_from(*bytes).unwrap_or(i64::MAX);
                let max = limit::MODULE_BYTES_MAX as i64;
                number("module", got, 1, max, "1 byte to 32 MiB")
            }
            Self::Evidence(key, _, node) => {
                key.check()?;
                Ok(node.as_ref().map_or(Ok(()), NodeName::check)?)
            }
            Self::Snapshot { .. } | Self::Blob(_) | Self::Ready { .. } => Ok(()),
        }
    }
}

impl CreateProcess {
    fn check(&self) -> Result<(), OutOfBounds> {
        self.key.check()?;
        field(
            "args",
            self.args.len(),
            limit::ARGS_BYTES_MAX,
            "at most 65,536 bytes",
        )?;
        self.selector.as_ref().map_or(Ok(()), ModuleName::check)?;
        self.callback.as_ref().map_or(Ok(()), ModuleName::check)?;
        let options = &self.options;
        options.requester.as_ref().map_or(Ok(()), NodeName::check)?;
        let group = options.group.as_ref().map_or(1, String::len) as i64;
        number(
            "group",
            group,
            1,
            limit::TEXT_BYTES_MAX as i64,
            "1 to 256 bytes",
        )?;
        labels(&options.require)?;
        module::latencies(&options.latencies)?;
        timing(options.deadline_ms, options.attempts, options.back_off_ms)?;
        number(
            "demand",
            options.demand.into(),
            0,
            limit::CAPACITY_MAX.into(),
            "at most 1,000,000",
        )?;
        let max = i64::from(limit::PRIORITY_MAX);
        number(
            "priority",
            options.priority.into(),
            -max,
            max,
            "-1,000 to 1,000",
        )
    }
}

fn timing(deadline_ms: u32, attempts: u8, back_off_ms: u32) -> Result<(), OutOfBounds> {
    let max = limit::DEADLINE_MS_MAX as usize;
    field("deadline", deadline_ms as usize, max, "at most 600,000 ms")?;
    field(
        "attempts",
        attempts.into(),
        limit::ATTEMPTS_MAX.into(),
        "at most 16",
    )?;
    let max = limit::BACK_OFF_MS_MAX as usize;
    field("back-off", back_off_ms as usize, max, "at most 60,000 ms")
}

impl SetProcess {
    fn check(&self) -> Result<(), OutOfBounds> {
        self.key.check()?;
        self.node.check()?;
        field(
            "pid",
            self.pid.len(),
            limit::PID_BYTES_MAX,
            "at most 256 bytes",
        )?;
        share(&self.share)
    }
}

impl RegisterNode {
    fn check(&self) -> Result<(), OutOfBounds> {
        self.name.check()?;
        field(
            "types",
            self.types.len(),
            limit::NODE_TYPES_MAX,
            "at most 256",
        )?;
        self.types.iter().try_for_each(TypeName::check)?;
        field(
            "address",
            self.address.len(),
            limit::TEXT_BYTES_MAX,
            "at most 256 bytes",
        )?;
        labels(&self.labels)?;
        capacity(self.capacity)?;
        share(&self.share)?;
        let (min, max) = (limit::TTL_MS_MIN.into(), limit::TTL_MS_MAX.into());
        number("ttl", self.ttl_ms.into(), min, max, "1,000 to 60,000 ms")?;
        let bounds = "at most 60,000 ms";
        let max = limit::KILL_BOUND_MS_MAX as usize;
        field("kill bound", self.kill_bound_ms as usize, max, bounds)?;
        let bounds = "a number that is not 0";
        number("instance", i64::from(self.instance != 0), 1, 1, bounds)?;
        inventory(&self.inventory)
    }
}

impl ListProcesses {
    fn check(&self) -> Result<(), OutOfBounds> {
        self.type_name.as_ref().map_or(Ok(()), TypeName::check)?;
        self.node.as_ref().map_or(Ok(()), NodeName::check)?;
        self.after.as_ref().map_or(Ok(()), ProcessKey::check)?;
        let prefix = self.id_prefix.as_ref().map_or(0, String::len);
        field(
            "id prefix",
            prefix,
            limit::ID_BYTES_MAX,
            "at most 256 bytes",
        )?;
        page(self.limit)
    }
}

impl TypeSpec {
    fn check(&self) -> Result<(), OutOfBounds> {
        self.check_names()?;
        number(
            "attempts",
            self.attempts.into(),
            1,
            limit::ATTEMPTS_MAX.into(),
            "1 to 16",
        )?;
        let max = limit::DEADLINE_MS_MAX.into();
        number(
            "deadline",
            self.deadline_ms.into(),
            1,
            max,
            "1 to 600,000 ms",
        )?;
        let patience = self.pending_deadline_ms as usize;
        let max = limit::PATIENCE_MS_MAX as usize;
        let bounds = "at most 86,400,000 ms";
        field("pending deadline", patience, max, bounds)?;
        timing(self.deadline_ms, self.attempts, self.back_off_ms)
    }
}

impl Drain {
    fn check(self) -> Result<(), OutOfBounds> {
        let (min, max) = (limit::DRAIN_MS_MIN.into(), limit::PATIENCE_MS_MAX.into());
        let bounds = "1,000 to 86,400,000 ms";
        number("drain deadline", self.deadline_ms.into(), min, max, bounds)?;
        moves_per_second(self.per_second)
    }
}

impl RebalanceAsk {
    fn check(&self) -> Result<(), OutOfBounds> {
        self.type_name.as_ref().map_or(Ok(()), TypeName::check)?;
        let moves = self.moves_max as usize;
        field("moves", moves, limit::MOVES_MAX, "at most 2,000")
    }
}

fn moves_per_second(per_second: u32) -> Result<(), OutOfBounds> {
    let max = limit::MOVES_PER_SECOND_MAX.into();
    number("moves a second", per_second.into(), 1, max, "1 to 10,000")
}

fn moves(moves: &[Move]) -> Result<(), OutOfBounds> {
    let (got, max) = (moves.len() as i64, limit::MOVES_MAX as i64);
    number("moves", got, 1, max, "1 to 2,000")?;
    moves.iter().try_for_each(|one| {
        one.key.check()?;
        one.from.check()?;
        Ok(one.to.check()?)
    })
}

fn page(items: u32) -> Result<(), OutOfBounds> {
    let max = limit::PAGE_ITEMS_MAX as usize;
    field("limit", items as usize, max, "at most 1,000")
}

impl Upload {
    pub(crate) fn check(&self) -> Result<(), OutOfBounds> {
        self.name.check()?;
        let max = limit::MODULE_BYTES_MAX as i64;
        let got = i64::try_from(self.bytes).unwrap_or(i64::MAX);
        number("module", got, 1, max, "1 byte to 32 MiB")
    }
}

impl Request {
    /// Checks every bound of [`crate::limits`].
    ///
    /// # Errors
    /// [`OutOfBounds`] names the field.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        match self {
            Self::OpenSession
            | Self::CloseSession(_)
            | Self::RemoveMember { .. }
            | Self::TransferLeader { .. }
            | Self::ListMembers
            | Self::ListLost
            | Self::Suspend { .. }
            | Self::Status => Ok(()),
            Self::DrainNode { name, drain, .. } => {
                name.check()?;
                drain.map_or(Ok(()), Drain::check)
            }
            Self::ListPending { after, limit } => {
                after.as_ref().map_or(Ok(()), ProcessKey::check)?;
                page(*limit)
            }
            Self::PlanRebalance(ask) => ask.check(),
            Self::Rebalance {
                moves: planned,
                per_second,
            } => {
                moves(planned)?;
                moves_per_second(*per_second)
            }
            Self::AddMember { name, address, .. } => {
                name.check()?;
                host_address(address)
            }
            Self::ReplaceMember { address, .. } => address.as_deref().map_or(Ok(()), host_address),
            Self::CreateProcess(_, create) | Self::Plan(create) => create.check(),
            Self::SetProcess(_, set) => set.check(),
            Self::GetProcess { key, .. } | Self::DelProcess { key, .. } => Ok(key.check()?),
            Self::Explain { key, why_not } => {
                key.check()?;
                Ok(why_not.as_ref().map_or(Ok(()), NodeName::check)?)
            }
            Self::ProcessExited { key, reason, .. } => {
                key.check()?;
                let max = limit::REASON_BYTES_MAX;
                field("reason", reason.len(), max, "at most 512 bytes")
            }
            Self::CreateParty(_, party) => party.check(),
            Self::ListNodes { after } => Ok(after.as_ref().map_or(Ok(()), NodeName::check)?),
            Self::ListTypes { after } => Ok(after.as_ref().map_or(Ok(()), TypeName::check)?),
            Self::ListModules { after } => Ok(after.as_ref().map_or(Ok(()), ModuleName::check)?),
            Self::ListProcesses(list) => list.check(),
            Self::RegisterNode(_, register) => register.check(),
            Self::AttachNode {
                name,
                inventory: processes,
                ..
            } => {
                name.check()?;
                inventory(processes)
            }
            Self::UpdateNode {
                name,
                labels: new,
                capacity: units,
                share: text,
                ..
            } => {
                name.check()?;
                new.as_deref().map_or(Ok(()), labels)?;
                units.map_or(Ok(()), capacity)?;
                text.as_deref().map_or(Ok(()), share)
            }
            Self::DeregisterNode { name, .. }
            | Self::CordonNode { name, .. }
            | Self::ConfirmDead { name, .. }
            | Self::GetNode(name) => Ok(name.check()?),
            Self::ActivateModule {
                name,
                config,
                percent,
                types,
                guard,
                ..
            } => {
                name.check()?;
                module::config(config.as_ref())?;
                module::canary(*percent, types, guard)
            }
            Self::ShadowModule { name, shadow, .. } => {
                name.check()?;
                module::config(shadow.as_ref().and_then(|(_, config)| config.as_ref()))
            }
            Self::ReplayModule {
                name, config, last, ..
            } => {
                name.check()?;
                module::config(config.as_ref())?;
                module::replayed(*last)
            }
            Self::RollbackModule(_, name, _)
            | Self::RemoveModule(_, name, _)
            | Self::ModuleHistory(name)
            | Self::CompareModule(name)
            | Self::GetModule(name) => Ok(name.check()?),
            Self::PutType(_, spec) => spec.check(),
            Self::GetType(name) => Ok(name.check()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClientId, NodeEpoch};
    use crate::request::CreateOptions;

    fn create(change: impl FnOnce(&mut CreateProcess)) -> Request {
        let mut create = CreateProcess {
            key: ProcessKey::new("player", "1").unwrap(),
            args: Vec::new(),
            selector: None,
            callback: None,
            options: CreateOptions::default(),
        };
        change(&mut create);
        Request::CreateProcess(ClientId(1), Box::new(create))
    }

    fn register(change: impl FnOnce(&mut RegisterNode)) -> Request {
        let mut register = RegisterNode {
            name: NodeName::new("a").unwrap(),
            types: Vec::new(),
            address: String::new(),
            labels: Vec::new(),
            capacity: 1,
            share: Vec::new(),
            ttl_ms: 3_000,
            inventory: Vec::new(),
            kill_bound_ms: 1_000,
            instance: 1,
            last_epoch: None,
        };
        change(&mut register);
        Request::RegisterNode(ClientId(1), Box::new(register))
    }

    fn set(change: impl FnOnce(&mut SetProcess)) -> Request {
        let mut set = SetProcess {
            key: ProcessKey::new("player", "1").unwrap(),
            node: NodeName::new("a").unwrap(),
            epoch: NodeEpoch(1),
            pid: String::new(),
            share: Vec::new(),
            incarnation: None,
        };
        change(&mut set);
        Request::SetProcess(ClientId(1), Box::new(set))
    }

    fn drain(deadline_ms: u32, per_second: u32) -> Request {
        Request::DrainNode {
            client: ClientId(1),
            name: NodeName::new("a").unwrap(),
            drain: Some(Drain {
                deadline_ms,
                per_second,
            }),
        }
    }

    fn rebalance(moves: usize, per_second: u32) -> Request {
        let one = Move {
            key: ProcessKey::new("player", "1").unwrap(),
            incarnation: Incarnation(1),
            from: NodeName::new("a").unwrap(),
            to: NodeName::new("b").unwrap(),
            gain: 0.1,
        };
        Request::Rebalance {
            moves: vec![one; moves],
            per_second,
        }
    }

    fn put_type(change: impl FnOnce(&mut TypeSpec)) -> Request {
        let mut spec = TypeSpec::new(TypeName::new("player").unwrap());
        change(&mut spec);
        Request::PutType(ClientId(1), Box::new(spec))
    }

    #[test]
    fn what_is_within_bounds_passes() {
        let largest = create(|create| {
            create.args = vec![0; limit::ARGS_BYTES_MAX];
            create.options.deadline_ms = limit::DEADLINE_MS_MAX;
            create.options.attempts = limit::ATTEMPTS_MAX;
            create.options.demand = limit::CAPACITY_MAX;
            create.options.priority = -limit::PRIORITY_MAX;
            create.options.group = Some("g".repeat(limit::TEXT_BYTES_MAX));
        });
        let moves = rebalance(limit::MOVES_MAX, limit::MOVES_PER_SECOND_MAX);
        let drain = drain(limit::PATIENCE_MS_MAX, 1);
        for request in [largest, register(|_| {}), set(|_| {}), moves, drain] {
            assert_eq!(request.check(), Ok(()), "{request:?}");
        }
    }

    #[test]
    fn every_bound_is_checked_and_named() {
        let long = |bytes: usize| "x".repeat(bytes);
        let pairs = |count: usize| vec![("k".to_owned(), "v".to_owned()); count];
        let cases = [
            (
                create(|c| c.args = vec![0; limit::ARGS_BYTES_MAX + 1]),
                "args",
            ),
            (
                create(|c| c.options.deadline_ms = limit::DEADLINE_MS_MAX + 1),
                "deadline",
            ),
            (
                create(|c| c.options.attempts = limit::ATTEMPTS_MAX + 1),
                "attempts",
            ),
            (
                create(|c| c.options.back_off_ms = limit::BACK_OFF_MS_MAX + 1),
                "back-off",
            ),
            (
                create(|c| c.options.demand = limit::CAPACITY_MAX + 1),
                "demand",
            ),
            (
                create(|c| c.options.priority = limit::PRIORITY_MAX + 1),
                "priority",
            ),
            (create(|c| c.options.group = Some(String::new())), "group"),
            (create(|c| c.options.group = Some(long(257))), "group"),
            (create(|c| c.options.require = pairs(33)), "labels"),
            (
                create(|c| c.options.require = vec![(String::new(), long(1))]),
                "label key",
            ),
            (register(|r| r.capacity = 0), "capacity"),
            (register(|r| r.ttl_ms = 999), "ttl"),
            (register(|r| r.ttl_ms = 60_001), "ttl"),
            (register(|r| r.kill_bound_ms = 60_001), "kill bound"),
            (register(|r| r.instance = 0), "instance"),
            (drain(999, 1), "drain deadline"),
            (drain(86_400_001, 1), "drain deadline"),
            (drain(1_000, 0), "moves a second"),
            (drain(1_000, 10_001), "moves a second"),
            (rebalance(0, 1), "moves"),
            (rebalance(2_001, 1), "moves"),
            (rebalance(1, 0), "moves a second"),
            (
                put_type(|spec| spec.pending_deadline_ms = 86_400_001),
                "pending deadline",
            ),
            (register(|r| r.address = long(257)), "address"),
            (
                register(|r| r.labels = vec![("k".to_owned(), long(257))]),
                "label value",
            ),
            (register(|r| r.share = vec![0; 4_097]), "share"),
            (
                register(|r| r.types = vec![TypeName::new("t").unwrap(); 257]),
                "types",
            ),
            (set(|s| s.pid = long(257)), "pid"),
            (set(|s| s.share = vec![0; 4_097]), "share"),
        ];
        for (request, field) in cases {
            let error = request.check().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{field} is ")),
                "{field}: {error}"
            );
        }
    }
}
