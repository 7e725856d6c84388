//! Processes of lost nodes, on one host: in which order and how fast they come back, what they wait
//! for, and when they are given up.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

mod advice;
mod breaker;
mod capacity;
mod chance;
mod compensation;
mod listing;
mod lives;
mod patience;
#[path = "../support/mod.rs"]
mod support;
mod turns;
mod world;
