//! Whole hosts on the loopback interface: real QUIC, real files, real modules.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod activation;
mod bulk;
mod commands;
mod disk;
mod ends;
mod failover;
mod group;
#[path = "../../../sandbox/tests/support/guests.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the sandbox's tests use all of it"
)]
mod guests;
mod harness;
mod hooks;
mod lease;
mod life;
mod peers;
mod raw_node;
mod trial;
mod upload;
mod vouched;
mod wire;
