//! Guests that mean harm, in the real sandbox with its default limits.
//!
//! What holds for each: the answer is an error that names the limit which was hit, it comes in
//! bounded time and memory, and a good module is served right after it. Guests are written as text;
//! chance comes from fixed seeds.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

mod altered;
mod arena;
mod bombs;
mod code;
mod endless;
mod floods;
mod large;
mod liars;
mod many;
#[path = "../../../host/sandbox/tests/support/mod.rs"]
mod support;
