//! Moves of drains and of rebalancing, parties, and creates that wait, on one host with the nodes of a game.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

mod drain;
mod party;
mod party_edges;
mod rebalance;
#[path = "../support/mod.rs"]
mod support;
mod waiting;
mod world;
