//! Whole hosts on the loopback interface: real QUIC, real files, real modules.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod commands;
mod harness;
mod life;
mod upload;
mod wire;
