//! The replicated state.

pub mod candidates;
pub mod decide;
mod fallback;
pub mod feature;
pub mod random;
