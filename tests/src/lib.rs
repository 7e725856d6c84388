//! What the tests share: a replica driven by hand, and scripts that drive it.
//!
//! Nothing here is a test, and nothing here knows a real clock, disk or network.

pub mod driver;
pub mod script;
