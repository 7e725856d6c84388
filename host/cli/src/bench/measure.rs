//! One measurement: the nodes and processes that it needs, the loop, and what came out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use maitred_client::{Client, Error};
use maitred_protocol::{
    ModuleName, NodeEpoch, NodeName, ProcessKey, SetProcess, TypeName, TypeSpec,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Op;
use crate::failure::Failure;
use crate::sample::{SampleNode, Spec, random};

/// The type of everything that is made.
pub(super) const TYPE: &str = "maitred-bench";
/// Processes of one node: with ids like these a node can have some 19,000.
pub(super) const PROCESSES_MAX: u64 = 18_000;
/// Processes that reads go to.
const READ_FROM: u64 = 1_000;
/// Processes that sets go to: registered first, and updated from then on. More than can be in
/// flight, so that no two changes of one process are.
const SET_TO: u64 = 10_000;

/// What a measurement needs to be there.
pub(super) struct Ground {
    nodes: Vec<SampleNode>,
    target: Arc<Target>,
}

struct Target {
    /// Different in every measurement, so that no key is used twice.
    run: String,
    next: AtomicU64,
    names: Vec<(NodeName, NodeEpoch)>,
}

impl Target {
    fn key(&self, number: u64) -> Result<ProcessKey, Error> {
        Ok(ProcessKey::new(TYPE, &format!("{}-{number}", self.run))?)
    }

    /// Whether there is room for one more.
    fn has_room(&self, op: Op) -> bool {
        let room = PROCESSES_MAX * self.names.len() as u64;
        matches!(op, Op::Get | Op::Set) || self.next.load(Ordering::Relaxed) < room
    }

    async fn once(&self, client: &Client, op: Op) -> Result<(), Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        match op {
            Op::Set => self.set(client, number % SET_TO).await?,
            Op::Get => {
                client.get(&self.key(number % READ_FROM)?).await?;
            }
            _ => {
                client.create(self.key(number)?).send().await?;
            }
        }
        Ok(())
    }

    async fn set(&self, client: &Client, number: u64) -> Result<(), Error> {
        let (node, epoch) = &self.names[number as usize % self.names.len()];
        let set = SetProcess {
            key: self.key(number)?,
            node: node.clone(),
            epoch: *epoch,
            pid: self.next.load(Ordering::Relaxed).to_string(),
            share: Vec::new(),
            incarnation: None,
        };
        client.set(set).await?;
        Ok(())
    }
}

impl Ground {
    pub(super) async fn prepare(
        client: &Client,
        nodes: u16,
        selector: &ModuleName,
        op: Op,
    ) -> Result<Self, Failure> {
        let mut spec = TypeSpec::new(TypeName::new(TYPE)?);
        spec.selector = selector.clone();
        client.put_type(spec).await?;
        let run = format!("{:08x}", random() as u32);
        let mut started = Vec::new();
        let mut names = Vec::new();
        for number in 0..nodes {
            let spec = Spec {
                name: format!("bench-{run}-{number}"),
                zone: "bench".to_owned(),
                capacity: 1_000_000,
                types: vec![TYPE],
                ttl: Duration::from_secs(30),
                life: None,
            };
            let node = SampleNode::start(client, &spec).await?;
            let epoch = client.get_node(node.handle.name()).await?.epoch;
            names.push((node.handle.name().clone(), epoch));
            started.push(node);
        }
        let target = Arc::new(Target {
            run,
            next: AtomicU64::new(0),
            names,
        });
        if op == Op::Get {
            let mut filling = JoinSet::new();
            for number in 0..READ_FROM {
                let (client, target) = (client.clone(), Arc::clone(&target));
                filling.spawn(async move { target.set(&client, number).await });
            }
            for filled in filling.join_all().await {
                filled?;
            }
        }
        Ok(Self {
            nodes: started,
            target,
        })
    }

    /// Takes the nodes away, and with them, in one change each, what they were given.
    pub(super) async fn clear(self, client: &Client) -> Result<(), Failure> {
        for (node, (name, epoch)) in self.nodes.iter().zip(&self.target.names) {
            node.crash();
            client.deregister_node(name, *epoch).await?;
        }
        Ok(())
    }
}

/// What one measurement came to.
pub(super) struct Measured {
    op: Op,
    in_flight: u32,
    seconds: f64,
    failed: u64,
    pub(super) last_error: Option<String>,
    /// Nanoseconds of the answered ones.
    times: Histogram<u64>,
}

/// Keeps `in_flight` requests under way, first for `warm_up` and then for `measured`.
pub(super) async fn run(
    ground: &Ground,
    clients: &[Client],
    op: Op,
    in_flight: u32,
    warm_up: Duration,
    measured: Duration,
) -> Measured {
    let begin = Instant::now() + warm_up;
    let end = begin + measured;
    let mut slots = JoinSet::new();
    for client in clients.iter().cycle().take(in_flight as usize) {
        slots.spawn(slot(
            Arc::clone(&ground.target),
            client.clone(),
            op,
            begin,
            end,
        ));
    }
    let ended = slots.join_all().await;
    // Earlier than the end when the nodes were full before.
    let seconds = (Instant::now().min(end) - begin.min(Instant::now())).as_secs_f64();
    let mut sum = Measured {
        op,
        in_flight,
        seconds,
        failed: 0,
        last_error: None,
        times: times(),
    };
    for one in ended {
        sum.failed += one.failed;
        sum.last_error = sum.last_error.or(one.last_error);
        // Both have the same bounds, so nothing can be out of range.
        let _ = sum.times.add(&one.times);
    }
    sum
}

struct Slot {
    failed: u64,
    last_error: Option<String>,
    times: Histogram<u64>,
}

pub(super) fn times() -> Histogram<u64> {
    Histogram::new_with_max(600_000_000_000, 2).expect("constant bounds that fit")
}

/// One request after another. Only answers that come within the measured time count, so that the
/// rate is answers over time.
async fn slot(target: Arc<Target>, client: Client, op: Op, begin: Instant, end: Instant) -> Slot {
    let mut slot = Slot {
        failed: 0,
        last_error: None,
        times: times(),
    };
    loop {
        let asked = Instant::now();
        if asked >= end || !target.has_room(op) {
            return slot;
        }
        let done = target.once(&client, op).await;
        let now = Instant::now();
        match done {
            Ok(()) if now >= begin && now < end => {
                let nanos = u64::try_from((now - asked).as_nanos()).unwrap_or(u64::MAX);
                slot.times.saturating_record(nanos);
            }
            Ok(()) => {}
            Err(error) => {
                slot.failed += 1;
                slot.last_error = Some(Failure::from(error).message);
                // A host that is gone would otherwise be asked as fast as it can be.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

impl Measured {
    fn rate(&self) -> f64 {
        self.times.len() as f64 / self.seconds.max(0.001)
    }

    fn micros(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64 / 1_000.0
    }

    pub(super) fn line(&self) -> String {
        format!(
            "{:6} {:5} in flight: {:.0} ops/s, p50 {}, p99 {}",
            self.op.name(),
            self.in_flight,
            self.rate(),
            time(self.micros(0.5)),
            time(self.micros(0.99)),
        )
    }

    pub(super) fn row(&self) -> Vec<String> {
        vec![
            self.op.name().to_owned(),
            self.in_flight.to_string(),
            format!("{:.0}", self.rate()),
            time(self.micros(0.5)),
            time(self.micros(0.99)),
            time(self.micros(0.999)),
            time(self.micros(1.0)),
            self.times.len().to_string(),
            self.failed.to_string(),
        ]
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "op": self.op.name(),
            "in_flight": self.in_flight,
            "ops": self.times.len().to_string(),
            "failed": self.failed.to_string(),
            "seconds": self.seconds,
            "ops_per_s": self.rate(),
            "p50_us": self.micros(0.5),
            "p99_us": self.micros(0.99),
            "p999_us": self.micros(0.999),
            "max_us": self.micros(1.0),
            "last_error": self.last_error,
        })
    }
}

/// Three digits and a unit.
pub(super) fn time(micros: f64) -> String {
    match micros {
        us if us < 1_000.0 => format!("{us:.0} µs"),
        us if us < 10_000.0 => format!("{:.2} ms", us / 1_000.0),
        us => format!("{:.1} ms", us / 1_000.0),
    }
}
