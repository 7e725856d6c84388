//! `type put`: set the defaults of a process type, and doubt what is allowed and probably not meant.

use std::time::Duration;

use clap::{Args, ValueEnum};
use maitred_client::Error;
use maitred_protocol::{
    Fallback, ModuleKind, ModuleName, ModuleRecord, OnDrain, OnNodeLost, Rejection, Restart,
    TypeName, TypeSpec,
};

use super::show;
use crate::args::{back_off, deadline, millis, or_never};
use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FallbackArg {
    /// The node with the fewest processes
    LeastLoaded,
    /// The better of two random nodes
    TwoChoices,
    /// Highest random weight of id and node name
    Rendezvous,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LostArg {
    /// Remove its processes
    Forget,
    /// Start them again elsewhere, with new incarnations
    Recreate,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RestartArg {
    /// At once. For what may run twice for a while: two lives may go on beside each other until the
    /// lost node notices; give your storage a fence (incarnations) if it writes
    Fast,
    /// After the node's kill bound, or when it says so. One life at a time, while clocks run within
    /// 2 % of each other and the node stops in time what it runs
    Safe,
    /// After proof: the node came back, a fence module or `node confirm-dead` said so. One life at a
    /// time whatever clocks do; waits for as long as nobody knows
    Strict,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DrainArg {
    /// Stop it there and create it elsewhere
    Move,
    /// Let it end by itself; at the deadline move it
    Wait,
    /// Stop it, and forget it
    Stop,
}

/// Set a type's defaults; what is not given stays as it is
///
/// This is how the placement rule of a type is changed while everything runs. A new type has
/// selector least-loaded, callback start, fallback least-loaded, forget, 3 attempts, 50ms back-off,
/// a deadline of 10s, restart safe, on-drain move, and is never given up.
///
/// Example: maitred type put player --selector spread --on-node-lost recreate
///
/// Example: maitred type put ledger --on-node-lost recreate --restart strict --fence my-fence
#[derive(Debug, Args)]
pub(crate) struct Put {
    /// Which type: a-z, 0-9, _ and -
    name: TypeName,
    /// The selector of creates that name none
    #[arg(long, value_name = "MODULE")]
    selector: Option<ModuleName>,
    /// The callback of creates that name none
    #[arg(long, value_name = "MODULE")]
    callback: Option<ModuleName>,
    /// The native rule that chooses when the selector fails
    #[arg(long, value_enum)]
    fallback: Option<FallbackArg>,
    /// What becomes of its processes when their node is lost
    #[arg(long, value_enum)]
    on_node_lost: Option<LostArg>,
    /// Nodes to try for one create, 1 to 16
    #[arg(long, value_name = "N")]
    attempts: Option<u8>,
    /// Pause before the second attempt, doubled for each further one, at most 60s
    #[arg(long, value_name = "TIME", value_parser = back_off)]
    back_off: Option<Duration>,
    /// Time that a create may take, at most 10m
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    deadline: Option<Duration>,
    /// When a key may be given to another node, after its own was lost or drained
    #[arg(long, value_enum, help_heading = "Lost and drained nodes")]
    restart: Option<RestartArg>,
    /// The module that may say of a lost node that it is dead, for --restart strict
    #[arg(long, value_name = "MODULE", help_heading = "Lost and drained nodes")]
    fence: Option<ModuleName>,
    /// No module says that
    #[arg(
        long,
        conflicts_with = "fence",
        help_heading = "Lost and drained nodes"
    )]
    no_fence: bool,
    /// What becomes of its processes when their node is drained
    #[arg(long, value_enum, help_heading = "Lost and drained nodes")]
    on_drain: Option<DrainArg>,
    /// Failed attempts in a row after which a process of a lost node is given up, 0 for never
    #[arg(long, value_name = "N", help_heading = "Lost and drained nodes")]
    recreate_attempts: Option<u16>,
    /// Time without a node after which a process is given up: 1ms to 24h, or never
    #[arg(long, value_name = "TIME", value_parser = or_never, help_heading = "Lost and drained nodes")]
    pending_deadline: Option<Duration>,
}

/// What is allowed, and probably not meant.
fn doubts(spec: &TypeSpec, modules: &[ModuleRecord]) -> Vec<String> {
    let fallback = shape::fallback(spec.fallback);
    let parts = [
        (
            &spec.selector,
            ModuleKind::Selector,
            format!("{fallback} chooses"),
        ),
        (
            &spec.callback,
            ModuleKind::Callback,
            "creates fail".to_owned(),
        ),
    ];
    let doubt = |(name, kind, until): &(&ModuleName, ModuleKind, String)| {
        let known = modules.iter().find(|module| module.name == **name);
        let wanted = shape::module_kind(*kind);
        let problem = match known {
            None => "there is no such module".to_owned(),
            Some(module) if module.kind != *kind => {
                format!("it is a {}", shape::module_kind(module.kind))
            }
            Some(module) if module.active.is_none() => "no version of it is active".to_owned(),
            Some(_) => return None,
        };
        Some(format!(
            "{wanted} {name}: {problem}; until there is one, {until}"
        ))
    };
    let mut doubts: Vec<String> = parts.iter().filter_map(doubt).collect();
    let by_hand = "only the return of a lost node or `maitred node confirm-dead` frees its keys";
    match (&spec.fence, spec.restart) {
        (None, Restart::Strict) => {
            doubts.push(format!(
                "restart is strict and no fence is named: {by_hand}"
            ));
        }
        (Some(fence), Restart::Strict) => {
            doubts.extend(doubt(&(fence, ModuleKind::Fence, by_hand.to_owned())));
        }
        (Some(fence), Restart::Fast | Restart::Safe) => doubts.push(format!(
            "fence {fence} is not asked: restart is {}, not strict",
            shape::restart(spec.restart)
        )),
        (None, Restart::Fast | Restart::Safe) => {}
    }
    doubts
}

impl Put {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let mut spec = match client.get_type(&self.name).await {
            Ok(spec) => spec,
            Err(Error::Rejected(Rejection::NotFound(_))) => TypeSpec::new(self.name.clone()),
            Err(error) => return Err(error.into()),
        };
        self.apply(&mut spec);
        let modules = client.modules().await?;
        self.check(&modules)?;
        let spec = client.put_type(spec).await?;
        let warnings = doubts(&spec, &modules);
        for warning in warnings.iter().filter(|_| !shell.out.is_json()) {
            eprintln!("warning: {warning}");
        }
        show(shell, &spec, &warnings)?;
        client.close().await;
        Ok(())
    }

    /// Whether the modules that are given are of the kinds that are meant. One that is not there
    /// yet may come.
    fn check(&self, modules: &[ModuleRecord]) -> Result<(), Failure> {
        for (given, wanted) in [
            (&self.selector, ModuleKind::Selector),
            (&self.callback, ModuleKind::Callback),
            (&self.fence, ModuleKind::Fence),
        ] {
            let known = modules.iter().find(|one| given.as_ref() == Some(&one.name));
            if let Some(module) = known.filter(|one| one.kind != wanted) {
                let (is, wanted) = (shape::module_kind(module.kind), shape::module_kind(wanted));
                let message = format!("{} is a {is}, not a {wanted}", module.name);
                let help = "see which are there with `maitred module ls`";
                return Err(Failure::usage(message, help));
            }
        }
        Ok(())
    }

    fn apply(&self, spec: &mut TypeSpec) {
        if let Some(selector) = &self.selector {
            spec.selector = selector.clone();
        }
        if let Some(callback) = &self.callback {
            spec.callback = callback.clone();
        }
        if let Some(fallback) = self.fallback {
            spec.fallback = match fallback {
                FallbackArg::LeastLoaded => Fallback::LeastLoaded,
                FallbackArg::TwoChoices => Fallback::TwoChoices,
                FallbackArg::Rendezvous => Fallback::Rendezvous,
            };
        }
        if let Some(lost) = self.on_node_lost {
            spec.on_node_lost = match lost {
                LostArg::Forget => OnNodeLost::Forget,
                LostArg::Recreate => OnNodeLost::Recreate,
            };
        }
        spec.attempts = self.attempts.unwrap_or(spec.attempts);
        if self.back_off.is_some() {
            spec.back_off_ms = millis(self.back_off);
        }
        if self.deadline.is_some() {
            spec.deadline_ms = millis(self.deadline);
        }
        self.apply_failover(spec);
    }

    fn apply_failover(&self, spec: &mut TypeSpec) {
        if let Some(restart) = self.restart {
            spec.restart = match restart {
                RestartArg::Fast => Restart::Fast,
                RestartArg::Safe => Restart::Safe,
                RestartArg::Strict => Restart::Strict,
            };
        }
        if self.fence.is_some() || self.no_fence {
            spec.fence.clone_from(&self.fence);
        }
        if let Some(on_drain) = self.on_drain {
            spec.on_drain = match on_drain {
                DrainArg::Move => OnDrain::Move,
                DrainArg::Wait => OnDrain::Wait,
                DrainArg::Stop => OnDrain::Stop,
            };
        }
        spec.recreate_attempts = self.recreate_attempts.unwrap_or(spec.recreate_attempts);
        if self.pending_deadline.is_some() {
            spec.pending_deadline_ms = millis(self.pending_deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{given_up, one};
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        put: Put,
    }

    fn put(args: &str, spec: &mut TypeSpec) {
        let words = std::iter::once("put").chain(args.split(' '));
        Line::try_parse_from(words).unwrap().put.apply(spec);
    }

    #[test]
    fn what_is_given_is_set_and_the_rest_stays() {
        let mut spec = TypeSpec::new(TypeName::new("room").unwrap());
        put("room --restart strict --fence f --on-drain wait", &mut spec);
        put(
            "room --recreate-attempts 5 --pending-deadline 1h",
            &mut spec,
        );
        assert_eq!(
            (spec.restart, spec.on_drain),
            (Restart::Strict, OnDrain::Wait)
        );
        assert_eq!(spec.fence.as_ref().unwrap().as_str(), "f");
        assert_eq!(given_up(&spec), "after 5 attempts, or after 3600s");
        assert!(one(&spec).contains("strict"), "{}", one(&spec));
        put("room --no-fence --pending-deadline never", &mut spec);
        assert_eq!((spec.fence.clone(), spec.pending_deadline_ms), (None, 0));
        put("room --recreate-attempts 0 --restart safe", &mut spec);
        assert_eq!(given_up(&spec), "never");
        assert_eq!(shape::type_spec(&spec)["fence"], serde_json::Value::Null);
    }

    #[test]
    fn strict_without_a_fence_is_doubted_and_so_is_a_fence_without_strict() {
        let mut spec = TypeSpec::new(TypeName::new("room").unwrap());
        let about_fences = |spec: &TypeSpec| {
            let all = doubts(spec, &[]);
            let about = all.into_iter().filter(|text| text.contains("fence"));
            about.collect::<Vec<_>>().join("|")
        };
        assert_eq!(about_fences(&spec), "");
        spec.restart = Restart::Strict;
        assert!(about_fences(&spec).contains("confirm-dead"));
        spec.fence = Some(ModuleName::new("f").unwrap());
        let absent = about_fences(&spec);
        assert!(
            absent.starts_with("fence f: there is no such module"),
            "{absent}"
        );
        spec.restart = Restart::Safe;
        assert!(about_fences(&spec).contains("is not asked"));
    }
}
