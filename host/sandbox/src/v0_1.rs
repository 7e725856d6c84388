//! The WIT package 0.1.0, the version before: its bindings, and everything between its words and
//! those of 0.2. A component of it loads, runs and answers as it did; the rest of this crate sees no
//! difference but these names.
//!
//! What 0.1 lacks: verdicts beyond a slot or none, scores, `validate` (every configuration will do),
//! hooks, further tries, `node.stop` and `node.pause`, and who ran the life before.

use maitred_registry::decide::{Answer, Offer, Verdict};
use maitred_registry::feature::Manifest;
use wasmtime::Store;
use wasmtime::component::{HasSelf, Linker};

use crate::bindings::selector::maitred::policy::host as host_0_2;
use crate::callback::{Placement, SpawnFailure, SpawnRequest};
use crate::convert::{self, Ask};
use crate::fence::{self, LostNode};
use crate::guest::Guest;
use crate::node::{NodeFailure, Started};

use self::wit::callback::exports::maitred::policy::callback as callback_wit;
use self::wit::callback::maitred::policy::{node, records};
use self::wit::fence::exports::maitred::policy::fence as fence_wit;
use self::wit::selector::exports::maitred::policy::selector as selector_wit;
use self::wit::selector::maitred::policy::{host, types};

pub(crate) use self::wit::callback::{CallbackModule, CallbackModulePre};
pub(crate) use self::wit::fence::{FenceModule, FenceModulePre};
pub(crate) use self::wit::selector::{SelectorModule, SelectorModulePre};

/// Generated, as those of `bindings` are.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    elided_lifetimes_in_paths,
    reason = "generated bindings"
)]
mod wit {
    pub mod selector {
        wasmtime::component::bindgen!({
            path: "../../wit/0.1.0",
            world: "selector-module",
            ownership: Borrowing { duplicate_if_necessary: false },
        });
    }

    pub mod callback {
        wasmtime::component::bindgen!({
            path: "../../wit/0.1.0",
            world: "callback-module",
            ownership: Borrowing { duplicate_if_necessary: false },
            imports: { "maitred:policy/node": async, "maitred:policy/records": async },
            exports: { default: async },
            with: {
                "maitred:policy/types": crate::v0_1::wit::selector::maitred::policy::types,
                "maitred:policy/host": crate::v0_1::wit::selector::maitred::policy::host,
            },
        });
    }

    pub mod fence {
        wasmtime::component::bindgen!({
            path: "../../wit/0.1.0",
            world: "fence-module",
            ownership: Borrowing { duplicate_if_necessary: false },
            exports: { default: async },
            with: {
                "maitred:policy/host": crate::v0_1::wit::selector::maitred::policy::host,
                "maitred:policy/records": crate::v0_1::wit::callback::maitred::policy::records,
            },
        });
    }
}

/// Offers what selectors of 0.1 may import.
pub(crate) fn link_selectors(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    SelectorModule::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest)
}

/// Offers what callbacks of 0.1 may import.
pub(crate) fn link_callbacks(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    CallbackModule::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest)
}

/// Offers what fences of 0.1 may import.
pub(crate) fn link_fences(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    FenceModule::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest)
}

impl types::Host for Guest {}

impl host::Host for Guest {
    fn log(&mut self, level: host::Level, text: String) {
        let level = match level {
            host::Level::Debug => host_0_2::Level::Debug,
            host::Level::Info => host_0_2::Level::Info,
            host::Level::Warn => host_0_2::Level::Warn,
            host::Level::Error => host_0_2::Level::Error,
        };
        self.write(level, &text);
    }

    fn config(&mut self) -> String {
        self.configuration()
    }
}

impl node::Host for Guest {
    async fn start(
        &mut self,
        payload: Vec<u8>,
        deadline_ms: u32,
    ) -> Result<node::Started, node::Failure> {
        // Calling again returns the first answer: there are no tries.
        let started = self.start_process(payload, deadline_ms, false).await;
        match started {
            Ok(Started { pid, share }) => Ok(node::Started { pid, share }),
            Err(NodeFailure::Busy(reason)) => Err(node::Failure::Busy(reason)),
            Err(NodeFailure::Failed(reason)) => Err(node::Failure::Failed(reason)),
            Err(NodeFailure::NoAnswer(reason)) => Err(node::Failure::NoAnswer(reason)),
        }
    }
}

impl records::Host for Guest {
    async fn get(&mut self, process_type: String, id: String) -> Option<records::Process> {
        let found = self.look_up(&process_type, &id).await?;
        Some(records::Process {
            node: found.node,
            address: found.address,
            pid: found.pid,
            share: found.share,
            incarnation: found.incarnation.0.to_string(),
            running: found.running,
        })
    }
}

/// Asks a selector what it wants to see.
pub(crate) fn describe(
    selector: &SelectorModule,
    store: &mut Store<Guest>,
) -> wasmtime::Result<Result<Manifest, String>> {
    let described = selector.maitred_policy_selector().call_describe(store)?;
    let ask = match described.ask {
        selector_wit::Ask::All => Ask::All,
        selector_wit::Ask::Sample(count) => Ask::Sample(count),
        selector_wit::Ask::Lowest(lowest) => Ask::Lowest(lowest.feature, lowest.count),
    };
    let title = (described.name, described.version);
    Ok(convert::manifest(
        title,
        &described.features,
        Vec::new(),
        ask,
    ))
}

/// Has a selector choose.
pub(crate) fn choose(
    selector: &SelectorModule,
    store: &mut Store<Guest>,
    offer: &Offer<'_>,
) -> wasmtime::Result<Result<Answer, String>> {
    let asked = offer.request;
    let request = types::Request {
        process_type: asked.key.type_name.as_str(),
        id: asked.key.id.as_str(),
        args: &[],
        group: asked.group.as_deref(),
        requester: asked.requester.as_ref().map(|name| name.as_str()),
        demand: asked.demand,
        priority: asked.priority,
        attempt: asked.attempt,
        seed: offer.seed,
        time: offer.time_s,
    };
    let candidates = selector_wit::Candidates {
        slots: offer.slots,
        features: offer.features,
    };
    let selector = selector.maitred_policy_selector();
    let chosen = selector.call_select(store, request, candidates)?;
    Ok(chosen.map(|slot| Answer::from(slot.map_or(Verdict::None, Verdict::Choose))))
}

/// Asks a callback for its name and version.
pub(crate) async fn describe_callback(
    callback: &CallbackModule,
    store: &mut Store<Guest>,
) -> wasmtime::Result<(String, String)> {
    let described = callback.maitred_policy_callback().call_describe(store);
    let callback_wit::Manifest { name, version } = described.await?;
    Ok((name, version))
}

/// Has a callback start a process.
pub(crate) async fn spawn(
    callback: &CallbackModule,
    store: &mut Store<Guest>,
    asked: &SpawnRequest,
    placement: &Placement,
) -> wasmtime::Result<Result<Started, SpawnFailure>> {
    let request = types::Request {
        process_type: asked.key.type_name.as_str(),
        id: asked.key.id.as_str(),
        args: &asked.args,
        group: asked.group.as_deref(),
        requester: asked.requester.as_ref().map(|name| name.as_str()),
        demand: asked.demand,
        priority: asked.priority,
        attempt: asked.attempt,
        seed: asked.seed,
        time: asked.time_s,
    };
    let incarnation = placement.incarnation.0.to_string();
    let placement = callback_wit::Placement {
        node: placement.node.as_str(),
        address: &placement.address,
        incarnation: &incarnation,
    };
    let callback = callback.maitred_policy_callback();
    Ok(
        match callback.call_spawn(store, request, placement).await? {
            Ok(node::Started { pid, share }) => Ok(Started { pid, share }),
            Err(callback_wit::Failure::Elsewhere(reason)) => Err(SpawnFailure::Elsewhere(reason)),
            Err(callback_wit::Failure::GiveUp(reason)) => Err(SpawnFailure::GiveUp(reason)),
        },
    )
}

/// Asks a fence for its name and version.
pub(crate) async fn describe_fence(
    fence: &FenceModule,
    store: &mut Store<Guest>,
) -> wasmtime::Result<(String, String)> {
    let described = fence.maitred_policy_fence().call_describe(store);
    let fence_wit::Manifest { name, version } = described.await?;
    Ok((name, version))
}

/// Asks a fence whether a node is dead.
pub(crate) async fn examine(
    fence: &FenceModule,
    store: &mut Store<Guest>,
    lost: &LostNode,
) -> wasmtime::Result<Result<fence::Verdict, String>> {
    let epoch = lost.epoch.0.to_string();
    let labels = convert::labels(&lost.labels);
    let lost = fence_wit::LostNode {
        node: lost.node.as_str(),
        epoch: &epoch,
        address: &lost.address,
        labels: &labels,
        lost_for_ms: lost.lost_for_ms,
        attempt: lost.attempt,
        seed: lost.seed,
        time: lost.time_s,
    };
    let answer = fence.maitred_policy_fence().call_examine(store, lost);
    Ok(answer.await?.map(|verdict| match verdict {
        fence_wit::Verdict::Dead(proof) => fence::Verdict::Dead(proof),
        fence_wit::Verdict::AliveOrUnknown(retry_ms) => fence::Verdict::AliveOrUnknown { retry_ms },
    }))
}
