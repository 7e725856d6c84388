//! Whole hosts on the loopback interface: real QUIC, real files, real modules.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod activation;
mod bulk;
mod commands;
mod disk;
mod ends;
mod group;
mod harness;
mod life;
mod peers;
mod upload;
mod wire;
