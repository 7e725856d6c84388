//! The tests' own instruments, tested: the linearizability checker and the relay.
//!
//! What judges the product must itself be seen to say no.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

mod processes;
mod quic;
mod random;
mod registers;
mod relay;
