//! What becomes of lives when nodes are lost, come back, are drained or are proven dead: that a key
//! has one life at a time, and that no key waits longer than it must.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

mod comeback;
mod drains;
mod exits;
mod holds;
mod lost;
mod state;
mod world;
