//! What a host counts: a documented field is a metric, and its documentation is the help text.
//!
//! Counters and histograms are added to without order and without locks. The text is Prometheus' format 0.0.4; what
//! others count (lanes, callbacks, the replica) is asked for when the text is made.

mod modules;

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use maitred_protocol::{NodeRecord, Status};

use crate::histogram::Histogram;
use crate::host::Host;
use crate::verdicts::Verdicts;

macro_rules! counters {
    (
        $(#[$struct_doc:meta])* $name:ident { $(#[doc = $doc:literal] $field:ident,)* }
        histograms { $(#[doc = $times_doc:literal] $times:ident => $times_name:literal,)* }
    ) => {
        $(#[$struct_doc])*
        #[derive(Debug, Default)]
        pub(crate) struct $name {
            /// What placement decisions came to.
            pub(crate) verdicts: Verdicts,
            $(#[doc = $doc] pub(crate) $field: AtomicU64,)*
            $(#[doc = $times_doc] pub(crate) $times: Histogram,)*
        }

        impl $name {
            fn write(&self, text: &mut Text) {
                $(text.one(
                    concat!("maitred_", stringify!($field), "_total"),
                    "counter",
                    $doc,
                    self.$field.load(Ordering::Relaxed),
                );)*
                $(self.$times.write($times_name, $times_doc.trim(), &mut text.0);)*
            }
        }
    };
}

counters! {
    /// Counted since the host started.
    Metrics {
        #[doc = "Connections of clients that were greeted."]
        connections,
        #[doc = "Connections closed because what came was not the protocol."]
        connections_malformed,
        #[doc = "Requests read from clients."]
        requests,
        #[doc = "Requests refused because too much was under way."]
        requests_overloaded,
        #[doc = "Requests refused because a field was out of bounds."]
        requests_invalid,
        #[doc = "Keep-alives of nodes handed to the replica."]
        keep_alives,
        #[doc = "Of the keep-alives handed to the replica, those that came as frames of a stream instead of datagrams."]
        keep_alives_by_stream,
        #[doc = "Keep-alives ignored: another connection's session, too many, or malformed."]
        keep_alives_ignored,
        #[doc = "Acknowledgements of keep-alives that could not be sent."]
        keep_alive_acks_lost,
        #[doc = "Commands for nodes, tombstones included."]
        node_commands,
        #[doc = "Answers of nodes that nobody waited for."]
        node_answers_unknown,
        #[doc = "Spawns begun."]
        spawns,
        #[doc = "Spawns whose node started the process."]
        spawns_started,
        #[doc = "Starts that were tried again on the same node, which had refused the one before."]
        starts_again,
        #[doc = "Processes whose lives have ended and whose callbacks were asked what becomes of them."]
        advice,
        #[doc = "Of those questions, the ones that came to nothing: the callback was missing, failed, or took too long. The usual is done."]
        advice_failed,
        #[doc = "Times that a callback had answered nothing in time for three rounds of such questions, and was not asked for 10 s. The usual is done at once."]
        advice_pauses,
        #[doc = "Processes that were forgotten because their callback gave them up after their life had ended."]
        advice_given_up,
        #[doc = "Lives given up after their spawn had begun whose callback was told to compensate them."]
        compensations,
        #[doc = "Of those, the ones that their callback failed to compensate, again and again, or that were too many."]
        compensations_failed,
        #[doc = "Processes given to another node, as leader: their node was lost, they were moved, or they failed after they had once run."]
        recreations,
        #[doc = "Processes taken off a live node to go on elsewhere, as leader: drained, or rebalanced."]
        moves,
        #[doc = "Lost nodes that fence modules were asked about."]
        examinations,
        #[doc = "Examinations without a verdict: the fence module was missing, failed, or took too long."]
        examinations_failed,
        #[doc = "Modules that were uploaded and accepted."]
        uploads,
        #[doc = "Uploads that were rejected or broken off."]
        uploads_rejected,
        #[doc = "Times that a module was not taken or not made ready because nobody who may has signed it."]
        signatures_refused,
        #[doc = "Uploads and activations that ended because too few hosts could run the module."]
        readiness_failed,
        #[doc = "Times that a module's own rule said that its version is to be taken back."]
        guards_tripped,
        #[doc = "Decisions whose inputs were recorded for replay."]
        inputs_recorded,
        #[doc = "Decisions whose inputs were not recorded because too many came at once or the disk refused."]
        inputs_dropped,
        #[doc = "Bytes of inputs of decisions that were recorded."]
        inputs_bytes,
        #[doc = "Recorded decisions that were made again: replays, and explanations that tell the fuel."]
        replayed,
        #[doc = "Turns of the replica."]
        replica_turns,
        #[doc = "Inputs that the replica took."]
        replica_inputs,
        #[doc = "Durable writes of the log."]
        log_writes,
        #[doc = "Entries written to the log."]
        log_entries,
        #[doc = "Microseconds spent in durable writes of the log."]
        log_write_micros,
        #[doc = "Times that the log could not be written because the disk was full."]
        log_writes_disk_full,
        #[doc = "Snapshots written."]
        snapshots,
        #[doc = "Snapshots that could not be written."]
        snapshots_failed,
        #[doc = "Messages of Raft sent to peers."]
        peer_messages_sent,
        #[doc = "Messages of Raft received from peers."]
        peer_messages_received,
        #[doc = "Messages of Raft for peers that were dropped: the peer was not reached, or too much waited for it. Raft sends them again."]
        peer_messages_dropped,
        #[doc = "Bytes of Raft's messages sent to peers."]
        peer_bytes_sent,
        #[doc = "Bytes of Raft's messages received from peers."]
        peer_bytes_received,
        #[doc = "Hosts that called and were refused: another cluster, no member, no host's certificate."]
        peers_refused,
        #[doc = "Connections of peers closed because what came was not the protocol."]
        peers_malformed,
        #[doc = "Times that another leader was seen, or none."]
        leader_changes,
        #[doc = "Decisions whose evidence was not kept because too many came at once or the disk refused."]
        decisions_dropped,
        #[doc = "Calls to other hosts: snapshots, modules, evidence."]
        peer_calls,
        #[doc = "Calls to other hosts that came to nothing."]
        peer_calls_failed,
        #[doc = "Calls of other hosts that were read."]
        peer_calls_answered,
        #[doc = "Bytes of snapshots and modules that were sent to other hosts and to clients."]
        bulk_bytes_sent,
        #[doc = "Bytes of snapshots that came from other hosts."]
        snapshot_bytes_fetched,
        #[doc = "Snapshots that were fetched from another host and loaded."]
        snapshots_fetched,
        #[doc = "Snapshots that were to be fetched and could not be."]
        snapshots_fetch_failed,
        #[doc = "Modules whose bytes were fetched from another host."]
        blobs_fetched,
        #[doc = "Times that another host said that it holds the bytes of an upload."]
        blobs_held,
    }
    histograms {
        #[doc = "Seconds from a keep-alive's arrival until its acknowledgement is sent."]
        keep_alive_times => "maitred_keep_alive_seconds",
        #[doc = "Seconds from the end of a node's lease until whoever watches has been told of all that it had."]
        expiry_times => "maitred_expiry_seconds",
        #[doc = "Seconds of one turn of the replica."]
        turn_times => "maitred_replica_turn_seconds",
    }
}

impl Metrics {
    /// Adds one.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds some.
    pub(crate) fn add(counter: &AtomicU64, some: usize) {
        counter.fetch_add(some as u64, Ordering::Relaxed);
    }
}

/// A text in the making.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.trim();
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn labelled(&mut self, name: &str, labels: impl Display, value: impl Display) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }
}

/// Everything that a host counts, as Prometheus reads it. `status` is the replica's own view, when
/// it answered; `nodes` what only the leader knows.
pub(crate) fn text(host: &Host, status: Option<&Status>, nodes: Option<&[NodeRecord]>) -> String {
    let mut text = Text(String::with_capacity(8 << 10));
    let gauge = "gauge";
    text.one(
        "maitred_uptime_seconds",
        gauge,
        "Seconds since the host started.",
        host.started.elapsed().as_secs(),
    );
    text.one(
        "maitred_connections_open",
        gauge,
        "Connections that have been greeted and are open.",
        host.router.open_links(),
    );
    text.one(
        "maitred_requests_waiting",
        gauge,
        "Requests that wait for the replica.",
        host.inbox.waiting(),
    );
    text.one(
        "maitred_node_commands_waiting",
        gauge,
        "Commands that their nodes have not answered.",
        host.nodes.waiting(),
    );
    text.one(
        "maitred_disk_full",
        gauge,
        "1 while the log cannot be written because the disk is full.",
        u8::from(host.disk_is_full()),
    );
    text.one(
        "maitred_peer_links_up",
        gauge,
        "Links to other hosts that are greeted.",
        host.peers.links_up(),
    );
    text.one(
        "maitred_has_leader",
        gauge,
        "1 while this host knows who leads.",
        u8::from(host.leader.borrow().host.is_some()),
    );
    host.metrics.write(&mut text);
    host.metrics.verdicts.write(&mut text.0);
    modules::lanes(host, &mut text);
    modules::shadows(host, &mut text);
    if let Some(status) = status {
        replica(status, &mut text);
    }
    if let Some(nodes) = nodes {
        steadiness(nodes, &mut text);
    }
    text.0
}

fn replica(status: &Status, text: &mut Text) {
    let gauge = "gauge";
    text.one(
        "maitred_is_leader",
        gauge,
        "1 while this host leads its group.",
        u8::from(status.role == "leader"),
    );
    text.one("maitred_raft_term", gauge, "The Raft term.", status.term);
    text.one(
        "maitred_raft_commit",
        gauge,
        "Highest index known to be committed.",
        status.commit,
    );
    text.one(
        "maitred_raft_applied",
        gauge,
        "Highest index applied.",
        status.applied,
    );
    text.one(
        "maitred_raft_log_entries",
        gauge,
        "Entries in the log.",
        status.log_entries,
    );
    text.one(
        "maitred_nodes",
        gauge,
        "Nodes with a live lease.",
        status.nodes,
    );
    text.one(
        "maitred_client_sessions",
        gauge,
        "Client sessions that are remembered.",
        status.clients,
    );
    text.one(
        "maitred_modules_unavailable",
        gauge,
        "Active modules that this host cannot run.",
        status.unavailable_modules.len(),
    );
    text.one(
        "maitred_shedding",
        gauge,
        "1 while creates are refused.",
        u8::from(status.shedding.is_some()),
    );
    text.one(
        "maitred_nodes_lost",
        gauge,
        "Sessions of nodes that were lost and of which something may still go on.",
        status.lost,
    );
    text.one(
        "maitred_keys_held",
        gauge,
        "Keys that wait because an earlier life of them may still go on.",
        status.held,
    );
    text.one(
        "maitred_recreation_paused",
        gauge,
        "1 while processes of lost nodes are not created again: suspended, or many nodes were lost.",
        u8::from(status.recreation_paused.is_some()),
    );
    text.one(
        "maitred_moves_suspended",
        gauge,
        "1 while an operator has suspended moves.",
        u8::from(status.moves_suspended),
    );
    text.one(
        "maitred_moves_left",
        gauge,
        "Moves of rebalancing that are still to be made.",
        status.moves_left,
    );
    text.head("maitred_processes", gauge, "Processes, by state.");
    for (state, count) in [
        ("running", status.running),
        ("starting", status.starting),
        ("pending", status.pending),
    ] {
        text.labelled(
            "maitred_processes",
            format_args!("state=\"{state}\""),
            count,
        );
    }
}

fn steadiness(nodes: &[NodeRecord], text: &mut Text) {
    let count = |is: fn(&NodeRecord) -> bool| nodes.iter().filter(|node| is(node)).count();
    text.one(
        "maitred_nodes_suspect",
        "gauge",
        "Nodes whose keep-alives are missing; known to the leader only.",
        count(|node| node.suspect),
    );
    text.one(
        "maitred_nodes_damped",
        "gauge",
        "Nodes that get nothing for now because their keep-alives come and go; known to the leader only.",
        count(|node| node.damped_ms > 0),
    );
}
