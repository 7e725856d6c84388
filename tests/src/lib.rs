//! What the tests share: a replica driven by hand and scripts that drive it, the judge of histories,
//! and a bad network for real processes.
//!
//! Nothing here is a test, and nothing but [`relay`] knows a real clock, disk or network.

pub mod driver;
pub mod linear;
pub mod relay;
pub mod script;
pub mod sim;
